/**
 * What is to be sent over the present link, what was and is unanswered, and how it is cut into frames. Without a link
 * it is empty, but for the writes that have a sequence: they keep it for the next one.
 */
import { limits as protocolLimits } from '../protocol/index.ts';
import type { ProtocolLimits, Request, RequestBody } from '../protocol/index.ts';
import { Queue } from './queue.ts';
import { Pending, stringsBytes } from './requests.ts';
import type { Session } from './session.ts';
import type { Subscription } from './subscription.ts';

/** Of the requests that may be in flight, those that awaits may take: the rest must always get through. */
const awaitsShare = 0.75;
/** Kept free of requests in flight for cancels and sessions. */
const controlReserve = 32;
/** What a server takes in one frame. */
const requestsPerFrameMax = protocolLimits.requestsInFlightPerConnectionMax;

/** What is sent for the client's own purposes: not sent again by itself on another link. */
export interface Control {
  readonly request: Request;
  /** Upper bound of its encoding. */
  readonly bytes: number;
  readonly subscription: Subscription | undefined;
}

export class Outbox {
  readonly #session: Session;
  /** Told of a request that no frame of this server can hold; must settle it. */
  readonly #tooLarge: (pending: Pending, bytesMax: number) => void;
  /** Told of a write whose session is not the present one; must settle it. */
  readonly #orphaned: (pending: Pending) => void;
  readonly #controls = new Queue<Control>();
  readonly #writes = new Queue<Pending>();
  readonly #reads = new Queue<Pending>();
  readonly #awaits = new Queue<Pending>();
  readonly #inFlight = new Map<number, Pending | Control>();
  /** Writes with a sequence, in its order: the first one is the least unanswered. */
  readonly #unanswered = new Map<number, Pending>();
  #awaitsInFlight = 0;
  #nextId = 1;
  limits: ProtocolLimits = defaultLimits;

  constructor(
    session: Session,
    tooLarge: (pending: Pending, bytesMax: number) => void,
    orphaned: (pending: Pending) => void,
  ) {
    this.#session = session;
    this.#tooLarge = tooLarge;
    this.#orphaned = orphaned;
  }

  get hasWrites(): boolean {
    return head(this.#writes) !== undefined;
  }

  /** Sent in the present session, unanswered; in the order of their sequences. */
  get unansweredWrites(): readonly Pending[] {
    return [...this.#unanswered.values()];
  }

  /** An id for a request; never used twice, not even on another link, so that no late answer can be mistaken. */
  takeId(): number {
    const id = this.#nextId;
    this.#nextId += 1;
    return id;
  }

  enqueue(pending: Pending): void {
    this.#queueOf(pending).push(pending);
  }

  control(body: RequestBody): number {
    const id = this.takeId();
    this.#controls.push({
      request: { id, body },
      bytes: stringsBytes(textsOf(body)),
      subscription: undefined,
    });
    return id;
  }

  subscribe(subscription: Subscription): number {
    const id = this.takeId();
    const body = subscription.body(id);
    this.#controls.push({ request: { id, body }, bytes: stringsBytes(subscription.patterns), subscription });
    return id;
  }

  /** The link is gone. */
  clear(): void {
    this.#controls.clear();
    this.#writes.clear();
    this.#reads.clear();
    this.#awaits.clear();
    for (const taker of this.#inFlight.values()) {
      if (!(taker instanceof Pending) || taker.phase !== 'in_flight') continue;
      taker.phase = 'queued';
      taker.answerLost = true;
    }
    this.#inFlight.clear();
    this.#awaitsInFlight = 0;
  }

  /** It was answered: who asked. Undefined: nobody that we know, or it was answered before. */
  answered(id: number): Pending | Control | undefined {
    const taker = this.#inFlight.get(id);
    if (taker === undefined) return undefined;
    this.#inFlight.delete(id);
    if (taker instanceof Pending && taker.content.kind === 'await') this.#awaitsInFlight -= 1;
    return taker;
  }

  /** The caller has its result. */
  forget(pending: Pending): void {
    if (pending.sequence !== 0) this.#unanswered.delete(pending.sequence);
  }

  /** What the next frame holds: the opening of a session, then what the client itself asks, writes, reads, awaits. */
  nextRequests(opening: Request | undefined, bytesMax: number, nowMs: number): readonly Request[] {
    const requests: Request[] = [];
    let room = bytesMax;
    if (opening !== undefined) {
      const control = { request: opening, bytes: stringsBytes([]), subscription: undefined };
      this.#inFlight.set(opening.id, control);
      requests.push(opening);
      room -= control.bytes;
    }
    room = this.#fillControls(requests, room);
    if (this.#controls.length > 0) return requests;
    if (this.#session.mayWrite) room = this.#fill(this.#writes, requests, room, nowMs);
    room = this.#fill(this.#reads, requests, room, nowMs);
    this.#fill(this.#awaits, requests, room, nowMs);
    return requests;
  }

  #queueOf(pending: Pending): Queue<Pending> {
    switch (pending.content.kind) {
      case 'write':
        return this.#writes;
      case 'await':
        return this.#awaits;
      case 'get':
      case 'list':
      case 'clock':
      case 'status':
      case 'member_list':
      case 'member_add':
      case 'member_promote':
      case 'member_remove':
      case 'transfer_leader':
      case 'drain_server':
      case 'rebalance':
      case 'snapshot_read':
      case 'acl_get':
      case 'acl_apply':
      case 'acl_revoke':
      case 'acl_restore':
        return this.#reads;
      default:
        return pending.content satisfies never;
    }
  }

  #fillControls(requests: Request[], bytes: number): number {
    let room = bytes;
    for (let control = this.#controls.peek(); control !== undefined; control = this.#controls.peek()) {
      if (control.bytes > room || requests.length >= requestsPerFrameMax) return room;
      this.#controls.shift();
      const { subscription, request } = control;
      // Given up before it was sent.
      if (subscription !== undefined && subscription.request !== request.id) continue;
      room -= control.bytes;
      this.#inFlight.set(request.id, control);
      requests.push(request);
    }
    return room;
  }

  #fill(queue: Queue<Pending>, requests: Request[], bytes: number, nowMs: number): number {
    let room = bytes;
    const inFlightMax = Math.max(1, this.limits.requestsInFlightMax - controlReserve);
    const awaitsMax = Math.max(1, Math.floor(inFlightMax * awaitsShare));
    while (this.#inFlight.size < inFlightMax && requests.length < requestsPerFrameMax) {
      const pending = head(queue);
      if (pending === undefined) return room;
      if (pending.bytes > this.limits.frameBytesMax) {
        this.#tooLarge(pending, this.limits.frameBytesMax);
        continue;
      }
      if (pending.name !== undefined && pending.name.session !== this.#session.id) {
        this.#orphaned(pending);
        continue;
      }
      if (pending.bytes > room) return room;
      const isAwait = pending.content.kind === 'await';
      if (isAwait && this.#awaitsInFlight >= awaitsMax) return room;
      const body = this.#bodyOf(pending);
      if (body === undefined) return room;
      queue.shift();
      room -= pending.bytes;
      if (isAwait) this.#awaitsInFlight += 1;
      requests.push(this.#depart(pending, body, nowMs));
    }
    return room;
  }

  #depart(pending: Pending, body: RequestBody, nowMs: number): Request {
    const id = this.takeId();
    pending.id = id;
    pending.phase = 'in_flight';
    pending.sent = true;
    this.#inFlight.set(id, pending);
    if (pending.timeoutMs === undefined) return { id, body };
    const leftMs = Math.ceil(pending.deadlineAtMs - nowMs);
    return { id, timeoutMs: Math.min(pending.timeoutMs, Math.max(1, leftMs)), body };
  }

  /** Undefined for a write that must wait: the server remembers so many answers and no more. */
  #bodyOf(pending: Pending): RequestBody | undefined {
    const { content } = pending;
    if (content.kind !== 'write') return content;
    if (pending.sequence === 0) {
      const spread = this.#session.nextSequence - this.#answeredBelow();
      if (spread >= protocolLimits.rememberedAnswersMax) return undefined;
      pending.sequence = this.#session.takeSequence(pending.name?.sequence);
      this.#unanswered.set(pending.sequence, pending);
    }
    const { sequence } = pending;
    // A write that is sent again under its name may come behind later ones.
    const answeredBelow = Math.min(sequence, this.#answeredBelow());
    return { kind: 'write', sequence, answeredBelow, operations: content.operations };
  }

  #answeredBelow(): number {
    for (const sequence of this.#unanswered.keys()) return sequence;
    return this.#session.nextSequence;
  }
}

const textsOf = (body: RequestBody): readonly string[] => (body.kind === 'authenticate' ? [body.token] : []);

/** The first one that is still wanted. */
function head(queue: Queue<Pending>): Pending | undefined {
  let first = queue.peek();
  while (first !== undefined && first.phase !== 'queued') {
    queue.shift();
    first = queue.peek();
  }
  return first;
}

/** Until the server has named its own. */
const defaultLimits: ProtocolLimits = {
  frameBytesMax: protocolLimits.frameBytesMax,
  valueBytesMax: protocolLimits.valueBytesMax,
  requestsInFlightMax: protocolLimits.requestsInFlightPerConnectionMax,
  subscriptionsMax: protocolLimits.subscriptionsPerConnectionMax,
  operationsPerWriteMax: protocolLimits.operationsPerWriteMax,
};
