/**
 * Links between servers, with the contract of PeerTransport: what is sent on one arrives in order, or is lost with it.
 * Raft promises more than it needs: its own messages are also lost, delayed, reordered and doubled one by one.
 */
import {
  decodeFrame,
  encodeBatch,
  lengthBytes,
  peerProtocolVersion,
  type AcceptPeer,
  type PeerAddress,
  type PeerBatch,
  type PeerEvents,
  type PeerPresence,
  type PeerRefusal,
  type PeerTransport,
  type SnapshotSource,
} from '../peers/index.ts';
import { asMemberId, describeMessage, type MemberId, type Message, type Term } from '../raft/index.ts';
import type { Life, VirtualTime } from './clock.ts';
import type { Random } from './random.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

/** How the network is now; changed by faults. Times in milliseconds. */
export interface NetworkConditions {
  /** Of one way between two servers. */
  latencyMs: number;
  /** Mean of what comes on top. */
  jitterMs: number;
  /** Of raft's messages, each by itself. */
  loss: number;
  duplication: number;
  /** Is delayed by up to `reorderMs`, so that later ones overtake it. */
  reordering: number;
  reorderMs: number;
}

/** What a process brings to the network. */
export interface Presence {
  readonly id: number;
  /** The CN of its certificate. */
  readonly name: string;
  readonly address: string;
  readonly life: Life;
  readonly accept: AcceptPeer;
  readonly presence: PeerPresence;
}

interface Endpoint extends Presence {
  readonly events: PeerEvents;
  /** With whom it is to have links, by id. */
  members: ReadonlyMap<number, PeerAddress>;
  /** How far its peers have told it that they have applied the log. */
  readonly heardApplied: Map<number, number>;
  /** The processes that it has let in. */
  readonly letIn: Set<Endpoint>;
}

interface Held {
  readonly batch: PeerBatch;
}

/** From one server to another. */
interface Link {
  readonly from: number;
  readonly to: number;
  /** The way itself is cut. */
  blocked: boolean;
  /** Both ends as they were when it came up; undefined: it is down. */
  up: { readonly sender: Endpoint; readonly receiver: Endpoint } | undefined;
  dialing: boolean;
  /** How often it was dialed: an answer to an attempt that was given up counts no more. */
  attempts: number;
  /** Grows with each breaking: what was under way on it is lost. */
  epoch: number;
  lastArrivalMs: number;
  held: Held[];
  breaking: boolean;
}

/** Batches on a way that is cut; more is refused, as by a full buffer. */
const heldMax = 200;
/** A link that moves nothing is given up after this and up to twice of it. */
const stallMs = 1500;
const redialMs = 100;
/** An attempt that is not answered: the receiver may die in the middle of it, or stand still. */
const dialTimeoutMs = 10 * redialMs;
/** A stream of a snapshot whose receiver says nothing. */
const streamStallMs = 5000;

const decoded = (frame: Buffer): readonly PeerBatch[] => {
  const given = decodeFrame(frame.subarray(lengthBytes));
  if (given.kind === 'batch') return [given.batch];
  // All that was in it has been lost on the way.
  if (given.kind === 'empty') return [];
  throw new Error(`a batch was decoded as ${given.kind}`);
};

/** Of the protocol between servers. */
const protocolVersion = peerProtocolVersion;

/** As the real links judge a hello: certificate, name and id first, then what the server says of the disk and run. */
const admission = ({ from, to }: Link, sender: Endpoint, receiver: Endpoint): PeerRefusal | undefined => {
  if (to !== receiver.id) return { reason: `this is member ${receiver.id}, not ${to}`, removed: false };
  const mismatch = {
    reason: `the certificate is of "${sender.name}", not of member ${from}`,
    removed: false,
  };
  if ((receiver.members.get(from)?.name ?? sender.name) !== sender.name) return mismatch;
  const refusal = receiver.accept(asMemberId(from), sender.presence);
  if (refusal !== undefined) return refusal;
  // In no list before, it may be in one now.
  return receiver.members.get(from)?.name === sender.name ? undefined : mismatch;
};

const describeRaft = (message: Message): string => describeMessage(message);
const describeLate = (message: Message): string => `${describeMessage(message)} (late)`;
const describeLost = (message: Message): string => `${describeMessage(message)} (lost)`;

export class PeerNetwork {
  static addressOf(machine: number): string {
    return `server-${machine}.invalid:7420`;
  }

  readonly #time: VirtualTime;
  readonly #random: Random;
  readonly #trace: Trace;
  readonly #counts: Counts;
  readonly conditions: NetworkConditions;
  readonly #endpoints = new Map<number, Endpoint>();
  readonly #links = new Map<number, Link>();
  readonly #atAddress = new Map<string, Endpoint>();
  /** By member that is confined: whom it may reach. */
  readonly #circles = new Map<number, ReadonlySet<number>>();
  /** Batches pass through the codec of the real links. */
  readonly #encodes: boolean;
  /** Told of each of raft's messages that leaves. */
  readonly #onSent: (message: Message) => void;
  /** Told of each batch just before the receiver gets it. */
  readonly #onReceived: (to: number, from: number, batch: PeerBatch) => void;
  readonly #onRefused: (member: number, by: number, why: PeerRefusal) => void;

  constructor(options: {
    readonly time: VirtualTime;
    readonly random: Random;
    readonly trace: Trace;
    readonly counts: Counts;
    readonly conditions: NetworkConditions;
    readonly encodes: boolean;
    readonly onSent: (message: Message) => void;
    readonly onReceived: (to: number, from: number, batch: PeerBatch) => void;
    readonly onRefused: (member: number, by: number, why: PeerRefusal) => void;
  }) {
    this.#onRefused = options.onRefused;
    this.#onSent = options.onSent;
    this.#onReceived = options.onReceived;
    this.#time = options.time;
    this.#random = options.random;
    this.#trace = options.trace;
    this.#counts = options.counts;
    this.conditions = options.conditions;
    this.#encodes = options.encodes;
  }

  #link(from: number, to: number): Link {
    const name = from * 1024 + to;
    let link = this.#links.get(name);
    if (link === undefined) {
      link = {
        from,
        to,
        blocked: this.#isApart(from, to),
        up: undefined,
        dialing: false,
        attempts: 0,
        epoch: 0,
        lastArrivalMs: 0,
        held: [],
        breaking: false,
      };
      this.#links.set(name, link);
    }
    return link;
  }

  #latencyMs(): number {
    const { latencyMs, jitterMs } = this.conditions;
    // Whole milliseconds: what comes together is worked off together, as on a real machine.
    return Math.max(1, Math.round(latencyMs + (jitterMs > 0 ? this.#random.exponential(jitterMs) : 0)));
  }

  // ---- faults ----

  /** Nothing from `from` reaches `to`. */
  block(from: number, to: number): void {
    const link = this.#link(from, to);
    if (link.blocked) return;
    link.blocked = true;
    this.#trace.note(describeBlocked, link);
    this.#breakUnlessMended(link);
  }

  unblock(from: number, to: number): void {
    const link = this.#link(from, to);
    if (!link.blocked || this.#isApart(from, to)) return;
    link.blocked = false;
    this.#trace.note(describeMended, link);
    const { held } = link;
    link.held = [];
    for (const { batch } of held) this.#carry(link, batch);
  }

  unblockAll(): void {
    for (const link of this.#links.values()) this.unblock(link.from, link.to);
  }

  /** From now on nothing goes between it and any but these, also who comes later, whatever is mended. */
  confine(member: number, circle: ReadonlySet<number>): void {
    this.#circles.set(member, circle);
    for (const { from, to } of this.#links.values()) if (this.#isApart(from, to)) this.block(from, to);
  }

  #isApart(from: number, to: number): boolean {
    return this.#circles.get(from)?.has(to) === false || this.#circles.get(to)?.has(from) === false;
  }

  isBlocked(from: number, to: number): boolean {
    return this.#link(from, to).blocked;
  }

  /** How far a running server has heard that a peer has applied the log; 0: not at all. */
  appliedAsHeard(peer: number, by: number): number {
    return this.#endpoints.get(by)?.heardApplied.get(peer) ?? 0;
  }

  /** A connection is reset: both ends see it at once, what was under way is lost. Whether there was one. */
  reset(from: number, to: number): boolean {
    const link = this.#link(from, to);
    const wasUp = link.up !== undefined;
    this.#break(link);
    return wasUp;
  }

  /** The process is gone. `silently`: its machine too, so nobody is told. */
  gone(member: number, silently: boolean): void {
    const endpoint = this.#endpoints.get(member);
    if (endpoint === undefined) return;
    this.#endpoints.delete(member);
    if (this.#atAddress.get(endpoint.address) === endpoint) this.#atAddress.delete(endpoint.address);
    for (const link of this.#links.values()) {
      if (link.up === undefined) continue;
      if (link.from === member) {
        link.up = undefined;
        link.epoch += 1;
        link.held = [];
      } else if (link.to === member) {
        if (silently) this.#breakUnlessMended(link);
        else this.#break(link);
      }
    }
  }

  #breakUnlessMended(link: Link): void {
    if (link.up === undefined || link.breaking) return;
    link.breaking = true;
    this.#time.after(this.#random.between(stallMs, 2 * stallMs), this.#time.world, 'input', () => {
      link.breaking = false;
      // It may be another link by now, whose end is gone as well.
      if (link.up === undefined) return;
      const receiver = this.#endpoints.get(link.to);
      if (link.blocked || receiver === undefined || receiver !== link.up.receiver) this.#break(link);
    });
  }

  #break(link: Link): void {
    const { up } = link;
    if (up === undefined) return;
    link.up = undefined;
    link.epoch += 1;
    link.held = [];
    const { sender } = up;
    this.#time.after(0, sender.life, 'input', () => {
      sender.events.disconnected(asMemberId(link.to));
      this.#dialLater(link, redialMs);
    });
  }

  // ---- links ----

  #dialLater(link: Link, meanMs: number): void {
    if (link.dialing || link.up !== undefined) return;
    const sender = this.#endpoints.get(link.from);
    if (sender === undefined || !sender.members.has(link.to)) return;
    link.dialing = true;
    this.#time.after(this.#random.between(meanMs / 2, meanMs * 1.5), sender.life, 'timer', () => {
      link.dialing = false;
      this.#dial(link);
    });
  }

  #dial(link: Link): void {
    const sender = this.#endpoints.get(link.from);
    const peer = sender?.members.get(link.to);
    if (sender === undefined || peer === undefined || link.up !== undefined || link.dialing) return;
    const receiver = this.#atAddress.get(peer.address);
    const back = this.#link(link.to, link.from);
    if (
      receiver === undefined ||
      receiver.name !== peer.name ||
      link.blocked ||
      back.blocked ||
      receiver.life.stopped
    ) {
      this.#dialLater(link, 2 * redialMs);
      return;
    }
    link.dialing = true;
    link.attempts += 1;
    const attempt = link.attempts;
    this.#time.after(2 * this.#latencyMs(), receiver.life, 'input', () => {
      if (link.attempts !== attempt) return;
      link.dialing = false;
      if (this.#endpoints.get(link.from) !== sender) {
        // Its successor dials for itself.
        this.#dialLater(link, redialMs);
        return;
      }
      this.#arrive(link, sender, receiver);
    });
    this.#time.after(dialTimeoutMs, sender.life, 'timer', () => {
      if (!link.dialing || link.attempts !== attempt) return;
      link.dialing = false;
      link.attempts += 1;
      this.#dial(link);
    });
  }

  #arrive(link: Link, sender: Endpoint, receiver: Endpoint): void {
    const isThere = this.#endpoints.get(receiver.id) === receiver;
    if (!isThere || !sender.members.has(link.to) || link.blocked || link.up !== undefined) {
      this.#dialLater(link, redialMs);
      return;
    }
    const refusal = admission(link, sender, receiver);
    if (refusal !== undefined) {
      this.#counts.add(refusal.removed ? 'link refused: removed' : 'link refused');
      this.#trace.say(`${receiver.id} refuses ${link.from}: ${refusal.reason}`);
      this.#onRefused(link.from, receiver.id, refusal);
      this.#time.after(this.#latencyMs(), sender.life, 'input', () => {
        if (sender.members.has(link.to)) sender.events.refused(asMemberId(link.to), refusal);
      });
      this.#dialLater(link, 10 * redialMs);
      return;
    }
    link.up = { sender, receiver };
    receiver.letIn.add(sender);
    link.epoch += 1;
    link.lastArrivalMs = 0;
    this.#time.after(this.#latencyMs(), sender.life, 'input', () => {
      if (link.up?.sender === sender) sender.events.connected(asMemberId(link.to), protocolVersion);
    });
    // Whoever is called knows that the caller is there.
    this.#dial(this.#link(link.to, link.from));
  }

  transport(presence: Presence): PeerTransport {
    const { id: self, life } = presence;
    let members: ReadonlyMap<number, PeerAddress> = new Map();
    let endpoint: Endpoint | undefined;
    return {
      start: (events: PeerEvents): Promise<void> => {
        endpoint = { ...presence, events, members, heardApplied: new Map(), letIn: new Set() };
        this.#endpoints.set(self, endpoint);
        this.#atAddress.set(presence.address, endpoint);
        // What an earlier process of this member was about to do.
        for (const link of this.#links.values()) {
          if (link.from !== self) continue;
          link.dialing = false;
          link.attempts += 1;
        }
        this.#follow(endpoint);
        return Promise.resolve();
      },
      setMembers: (now): void => {
        members = new Map(now.filter(({ id }) => id !== self).map((member) => [member.id, member]));
        if (endpoint === undefined) return;
        const { life: own } = endpoint;
        endpoint.members = members;
        const changed = endpoint;
        // Sockets close a moment later: not from within the server that says it.
        this.#time.after(0, own, 'input', () => this.#follow(changed));
      },
      send: (to: MemberId, batch: PeerBatch): boolean => life.alive && this.#send(self, to, batch),
      sendSnapshot: (to: MemberId, term: Term, source: SnapshotSource) =>
        this.#sendSnapshot(self, life, to, term, source),
      close: (): Promise<void> => {
        this.gone(self, false);
        return Promise.resolve();
      },
    };
  }

  /** Makes the links those with its members, whatever they were. */
  #follow(endpoint: Endpoint): void {
    const { id: self, members } = endpoint;
    if (this.#endpoints.get(self) !== endpoint) return;
    for (const link of this.#links.values()) {
      if (link.up === undefined) continue;
      if (link.from === self && !members.has(link.to)) this.#break(link);
      if (link.to === self && !this.#mayStay(link, link.up.sender, endpoint)) this.#break(link);
    }
    for (const other of members.keys()) this.#dialLater(this.#link(self, other), 4);
  }

  /** What is known of the sender may be more than when the link was made; its next attempt is refused, with the reason. */
  #mayStay({ from }: Link, sender: Endpoint, receiver: Endpoint): boolean {
    if (receiver.members.get(from)?.name !== sender.name) return false;
    return receiver.accept(asMemberId(from), sender.presence) === undefined;
  }

  #send(from: number, to: number, batch: PeerBatch): boolean {
    const link = this.#link(from, to);
    if (link.up === undefined) return false;
    for (const message of batch.raft) this.#onSent(message);
    if (link.blocked) {
      if (link.held.length >= heldMax) return false;
      link.held.push({ batch });
      return true;
    }
    this.#carry(link, batch);
    return true;
  }

  #carry(link: Link, batch: PeerBatch): void {
    const { up, epoch } = link;
    if (up === undefined) return;
    const kept = this.#raftMessages(up.sender, link, batch);
    const rest = kept === batch.raft ? batch : { ...batch, raft: kept };
    const atMs = Math.max(this.#time.nowMs + this.#latencyMs(), link.lastArrivalMs);
    link.lastArrivalMs = atMs;
    const frames = this.#encodes ? encodeBatch(rest) : undefined;
    this.#time.at(atMs, up.receiver.life, 'input', () => {
      for (const given of frames?.flatMap(decoded) ?? [rest]) {
        // What it hears first may make it close the link.
        if (link.epoch !== epoch) return;
        for (const message of given.raft) this.#trace.note(describeRaft, message);
        if (given.status !== undefined) up.receiver.heardApplied.set(link.from, given.status.appliedIndex);
        this.#onReceived(link.to, link.from, given);
        up.receiver.events.received(asMemberId(link.from), up.sender.presence.run, given);
      }
    });
  }

  /** What goes with the batch; the others are lost, or go by themselves. */
  #raftMessages(sender: Endpoint, link: Link, batch: PeerBatch): readonly Message[] {
    const { loss, duplication, reordering, reorderMs } = this.conditions;
    if (loss === 0 && duplication === 0 && reordering === 0) return batch.raft;
    const kept: Message[] = [];
    for (const message of batch.raft) {
      if (this.#random.chance(loss)) {
        this.#counts.add('message lost');
        this.#trace.note(describeLost, message);
        continue;
      }
      if (this.#random.chance(duplication)) {
        this.#counts.add('message doubled');
        this.#sendLate(sender, link, message, batch.forwardTerm);
      }
      if (this.#random.chance(reordering)) {
        this.#counts.add('message reordered');
        this.#sendLate(sender, link, message, batch.forwardTerm, reorderMs);
      } else kept.push(message);
    }
    return kept;
  }

  /**
   * By itself, whatever becomes of the link; also to a later process of the receiver, but only once that has let the
   * sender in: nobody is heard who has not said which run he is of, and what his disk knew when it began.
   */
  #sendLate(
    sender: Endpoint,
    link: Link,
    message: Message,
    forwardTerm: number,
    withinMs = this.conditions.reorderMs * 3,
  ): void {
    const { run } = sender.presence;
    const delayMs = this.#latencyMs() + Math.round(this.#random.between(0, withinMs));
    this.#time.after(delayMs, this.#time.world, 'input', () => {
      const receiver = this.#endpoints.get(link.to);
      if (receiver === undefined || link.blocked || !receiver.members.has(link.from)) return;
      this.#time.after(0, receiver.life, 'input', () => {
        if (!receiver.letIn.has(sender)) return;
        this.#trace.note(describeLate, message);
        receiver.events.received(asMemberId(link.from), run, { raft: [message], forward: [], forwardTerm });
      });
    });
  }

  async #sendSnapshot(
    from: number,
    life: Life,
    to: number,
    term: Term,
    source: SnapshotSource,
  ): Promise<void> {
    this.#counts.add('snapshot begun');
    this.#trace.say(`${from}→${to} begins a snapshot at ${source.point.index}@${source.point.term}`);
    for (;;) {
      const part = await source.next();
      if (part === undefined) break;
      await this.#carryPart(from, life, to, (events) =>
        events.snapshotPart(asMemberId(from), { term, point: source.point, part }),
      );
    }
    this.#counts.add('snapshot sent');
    this.#trace.say(`${from}→${to} has sent the snapshot at ${source.point.index}@${source.point.term}`);
  }

  /** A part to the receiver, its word back; rejected when either is lost. */
  #carryPart(
    from: number,
    life: Life,
    to: number,
    give: (events: PeerEvents) => Promise<void>,
  ): Promise<void> {
    const link = this.#link(from, to);
    const receiver = this.#endpoints.get(to);
    if (link.up === undefined || receiver === undefined || link.blocked) {
      return Promise.reject(new Error(`server ${to} cannot be reached`));
    }
    return new Promise((resolve, reject) => {
      const stalled = this.#time.after(streamStallMs, life, 'timer', () => {
        reject(new Error(`server ${to} took nothing for ${streamStallMs} ms`));
      });
      const back = (settle: () => void): void => {
        if (this.isBlocked(to, from)) return;
        this.#time.after(this.#latencyMs(), life, 'input', () => {
          stalled.cancelled = true;
          settle();
        });
      };
      this.#time.after(this.#latencyMs(), receiver.life, 'input', () => {
        if (link.blocked) return;
        give(receiver.events).then(
          () => back(resolve),
          (error: Error) => back(() => reject(error)),
        );
      });
    });
  }
}

const describeBlocked = ({ from, to }: Link): string => `the way ${from}→${to} is cut`;
const describeMended = ({ from, to }: Link): string => `the way ${from}→${to} is mended`;
