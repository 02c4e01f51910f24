/**
 * What is to be sent to one connection, in order. Answers and pushes wait here as plain data and are encoded only
 * when the socket has room for them, so a connection that does not read costs the references, not the bytes; how many
 * there can be is bounded by the requests in flight (a request stays in flight until its answer is sent) and by the
 * server's flow control of pushes.
 */
import { limits as protocolLimits } from '../protocol/index.ts';
import type {
  Answer,
  AnswerBody,
  Failure,
  FrameCodec,
  ServerFrame,
  SharedChange,
  SharedPush,
} from '../protocol/index.ts';
import type { GatewayEvent } from '../server/index.ts';
import type { AgentWebSocket } from './door.ts';
import { answerBytes } from './frame-sizes.ts';
import type { GatewayLimits } from './settings.ts';

type PushEvent = Extract<GatewayEvent, { kind: 'push' }>;

export type Outgoing =
  /** The server's answer: its request is in flight until this has been sent. */
  | { readonly kind: 'answer'; readonly request: number; readonly body: AnswerBody }
  /** The gateway's own answer: its request was never in flight, or is no more. */
  | { readonly kind: 'own_answer'; readonly request: number; readonly body: AnswerBody }
  | PushEvent
  | {
      readonly kind: 'ended';
      readonly subscription: number;
      readonly revision: number;
      readonly failure: Failure;
    }
  /** All subscriptions have been given everything up to this revision, by what is before it. */
  | { readonly kind: 'progress'; readonly revision: number };

/** Told what has become of what was put in. */
export interface OutboxOwner {
  answerSent(request: number): void;
  pushSent(subscription: number, revision: number): void;
  progressSent(revision: number): void;
  /** The socket has taken so many more bytes of pushes. */
  pushesTaken(bytes: number): void;
}

/** Frames are filled up to this: larger ones save nothing, and hold up what comes behind them. */
const frameBytesTarget = 256 * 1024;

/** Base64 makes it a third larger. */
const snapshotPartBytesMax = Math.floor(protocolLimits.serverFrameBytesMax * 0.75) - 1024;

/** Around each change within a push. */
const changeOverheadBytes = 8;
const pushOverheadBytes = 64;

/**
 * A push that is too large for one frame, in parts that are not. Only a part that ends a revision says so: who resumes
 * from the middle of one gets all of it again.
 */
const partsOf = (push: PushEvent): PushEvent[] => {
  const parts: PushEvent[] = [];
  let changes: SharedChange[] = [];
  let bytes = 0;
  const close = (revision: number, caughtUp: boolean): void => {
    parts.push({ ...push, changes, bytes, revision, caughtUp });
    changes = [];
    bytes = 0;
  };
  for (const shared of push.changes) {
    const next = shared.encoded.length + changeOverheadBytes;
    if (changes.length > 0 && bytes + next > frameBytesTarget) close(shared.change.revision - 1, false);
    changes.push(shared);
    bytes += shared.encoded.length;
  }
  close(push.revision, push.caughtUp);
  return parts;
};

export class Outbox {
  readonly #ws: AgentWebSocket;
  readonly #codec: FrameCodec;
  readonly #limits: GatewayLimits;
  readonly #owner: OutboxOwner;
  readonly #queue: Outgoing[] = [];
  /** queue[0 … head) has been sent. */
  #head = 0;
  /** Of pushes that were sent, but not yet told as taken. */
  #pushBytesSent = 0;
  #bytesSent = 0;
  /** The most of `bytesSent` that was seen to have left. */
  #bytesTaken = 0;
  #progressAtMs: number;

  constructor(
    ws: AgentWebSocket,
    codec: FrameCodec,
    limits: GatewayLimits,
    owner: OutboxOwner,
    nowMs: number,
  ) {
    this.#ws = ws;
    this.#codec = codec;
    this.#limits = limits;
    this.#owner = owner;
    this.#progressAtMs = nowMs;
  }

  /** Nothing more should be read that would be answered. */
  get full(): boolean {
    return this.#head < this.#queue.length || this.#ws.bufferedAmount >= this.#limits.answerBufferedBytesMax;
  }

  /** So much is unsent that it has to be watched whether the other side still reads. */
  get congested(): boolean {
    return this.#head < this.#queue.length || this.#ws.bufferedAmount >= this.#limits.pushBufferedBytesMax;
  }

  /** When the socket was last seen to take something while congested. */
  get progressAtMs(): number {
    return this.#progressAtMs;
  }

  add(outgoing: Outgoing): void {
    if (outgoing.kind === 'push' && outgoing.bytes > frameBytesTarget) this.#queue.push(...partsOf(outgoing));
    else this.#queue.push(outgoing);
  }

  /** Sends what the socket has room for. */
  flush(): void {
    while (this.#head < this.#queue.length && this.#ws.bufferedAmount < this.#limits.answerBufferedBytesMax) {
      this.#sendNext();
    }
    if (this.#head === this.#queue.length) {
      this.#queue.length = 0;
      this.#head = 0;
    } else if (this.#head > 256 && this.#head * 2 > this.#queue.length) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
    if (this.#pushBytesSent > 0 && this.#ws.bufferedAmount < this.#limits.pushBufferedBytesMax) {
      const bytes = this.#pushBytesSent;
      this.#pushBytesSent = 0;
      this.#owner.pushesTaken(bytes);
    }
  }

  /** Out of turn, before what waits: welcome and goaway. */
  sendNow(frame: ServerFrame): void {
    const bytes = this.#codec.encodeServerFrame(frame);
    this.#bytesSent += bytes.length;
    this.#ws.send(bytes, { binary: this.#codec.binary, compress: false });
  }

  /** Whether a congested socket has taken nothing for too long; to be asked about once a second. */
  stalled(nowMs: number): boolean {
    const unsent = this.#ws.bufferedAmount;
    const taken = this.#bytesSent - unsent;
    if (taken > this.#bytesTaken || !this.congested) {
      this.#bytesTaken = Math.max(taken, this.#bytesTaken);
      this.#progressAtMs = nowMs;
      return false;
    }
    const { stallMs, stallBytesPerSecond } = this.#limits;
    return nowMs - this.#progressAtMs >= stallMs + (unsent / stallBytesPerSecond) * 1000;
  }

  /** From now on it is watched: what was before does not count as standstill. */
  watchFrom(nowMs: number): void {
    this.#bytesTaken = this.#bytesSent - this.#ws.bufferedAmount;
    this.#progressAtMs = nowMs;
  }

  /** The answer to the request waits here no more, a refusal does in its place. */
  refuse(request: number, failure: Failure): void {
    const at = this.#queue.findIndex(
      (waiting, place) => place >= this.#head && waiting.kind === 'answer' && waiting.request === request,
    );
    if (at >= 0) this.#queue[at] = { kind: 'answer', request, body: { kind: 'failed', failure } };
  }

  /** Takes out the subscription's pushes that wait. Gives their bytes. */
  withdraw(subscription: number): number {
    let bytes = 0;
    const kept = this.#queue.slice(this.#head).filter((waiting) => {
      if (waiting.kind !== 'push' || waiting.subscription !== subscription) return true;
      bytes += waiting.bytes;
      return false;
    });
    this.#queue.length = 0;
    this.#queue.push(...kept);
    this.#head = 0;
    return bytes;
  }

  /** The socket has something that has not left. */
  get unsent(): boolean {
    return this.#ws.bufferedAmount > 0;
  }

  clear(): void {
    this.#queue.length = 0;
    this.#head = 0;
    this.#pushBytesSent = 0;
  }

  #sendNext(): void {
    const answers: Answer[] = [];
    const pushes: SharedPush[] = [];
    const bytesMax = Math.min(frameBytesTarget, this.#limits.frameBytesMax);
    let bytes = 0;
    let revision: number | undefined;
    // Nothing comes behind a revision in its frame: it is true of what was sent before.
    while (revision === undefined) {
      const next = this.#queue[this.#head];
      if (next === undefined) break;
      const nextBytes = this.#bytesOf(next);
      if (bytes > 0 && bytes + nextBytes > bytesMax) break;
      bytes += nextBytes;
      this.#head += 1;
      if (next.kind === 'progress') revision = next.revision;
      else this.#place(next, nextBytes, answers, pushes);
    }
    this.sendNow({ answers, pushes, ...(revision !== undefined && { revision }) });
    if (revision !== undefined) this.#owner.progressSent(revision);
  }

  #place(
    next: Exclude<Outgoing, { kind: 'progress' }>,
    bytes: number,
    answers: Answer[],
    pushes: SharedPush[],
  ): void {
    switch (next.kind) {
      case 'answer':
        answers.push({ id: next.request, body: this.#fitting(next.body, bytes) });
        this.#owner.answerSent(next.request);
        return;
      case 'own_answer':
        answers.push({ id: next.request, body: next.body });
        return;
      case 'push':
        pushes.push(next);
        this.#pushBytesSent += next.bytes;
        this.#owner.pushSent(next.subscription, next.revision);
        return;
      case 'ended':
        pushes.push({
          subscription: next.subscription,
          changes: [],
          revision: next.revision,
          caughtUp: false,
          ended: next.failure,
        });
        return;
      default:
        next satisfies never;
    }
  }

  /** An answer that no frame can hold becomes an error: a client refuses larger frames, and would ask for ever. */
  #fitting(body: AnswerBody, bytes: number): AnswerBody {
    if (bytes <= this.#limits.frameBytesMax) return body;
    if ((body.kind === 'snapshot_part' || body.kind === 'access') && bytes <= snapshotPartBytesMax)
      return body;
    return {
      kind: 'failed',
      failure: {
        code: 'LIMIT_EXCEEDED',
        message: `the answer would have about ${bytes} bytes, but a frame has at most ${this.#limits.frameBytesMax}: ask for fewer keys at once`,
      },
    };
  }

  #bytesOf(outgoing: Outgoing): number {
    switch (outgoing.kind) {
      case 'answer':
      case 'own_answer':
        return answerBytes(outgoing.body);
      case 'push':
        return pushOverheadBytes + outgoing.bytes + outgoing.changes.length * changeOverheadBytes;
      case 'ended':
        return pushOverheadBytes + outgoing.failure.message.length * 3;
      case 'progress':
        return pushOverheadBytes;
      default:
        return outgoing satisfies never;
    }
  }
}
