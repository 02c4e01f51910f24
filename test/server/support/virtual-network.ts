import type {
  AcceptPeer,
  PeerBatch,
  PeerEvents,
  PeerPresence,
  PeerRefusal,
  PeerTransport,
  SnapshotSource,
} from '../../../src/peers/index.ts';
import type { MemberId, Term } from '../../../src/raft/index.ts';
import type { VirtualTime } from './virtual-time.ts';

/** Who is behind a link, whom it lets in, and when it hears what arrives. */
interface Endpoint {
  readonly presence: PeerPresence;
  readonly acceptPeer: AcceptPeer;
  /** A process that is stopped takes up what has arrived when it goes on. */
  readonly takesUp: (work: () => void) => void;
  /** Of the peer protocol, at most. */
  readonly version: number;
}

/** One process's side of the network. */
interface Side {
  readonly endpoint: Endpoint;
  members: ReadonlySet<number>;
  /** Once it has started. */
  events: PeerEvents | undefined;
  /** Peers to which its links are up. */
  readonly up: Set<number>;
}

/** A link that is not let in is tried again so often. */
const redialMs = 500;

/** Links between servers in one process: reliable and ordered like TCP, cut and mended by the test. */
export class VirtualNetwork {
  readonly #time: VirtualTime;
  readonly #sides = new Map<number, Side>();
  readonly #cut = new Set<string>();
  /** Ways on which the next forwarded commands are lost. */
  readonly #losing = new Set<string>();
  /** Why a server was not let in by another, in order. */
  readonly refusals: string[] = [];
  readonly #lost = new Map<string, (batch: PeerBatch) => boolean>();
  delayMs = 1;
  snapshotsSent = 0;

  constructor(time: VirtualTime) {
    this.#time = time;
  }

  /** Why nothing gets through from one to the other; undefined: it does. */
  #obstacle(from: number, to: number): PeerRefusal | 'down' | undefined {
    const [sender, receiver] = [this.#sides.get(from), this.#sides.get(to)];
    if (!sender?.events || !receiver?.events || this.#cut.has(`${from}>${to}`)) return 'down';
    if (!sender.members.has(to)) return 'down';
    const refusal = receiver.endpoint.acceptPeer(from as MemberId, sender.endpoint.presence);
    if (receiver.members.has(from) || refusal !== undefined) return refusal;
    return { reason: `member ${from} is no member`, removed: false };
  }

  #isOpen(from: number, to: number): boolean {
    return this.#sides.get(from)?.up.has(to) === true && this.#obstacle(from, to) === undefined;
  }

  /** Makes the link if it can be made, closes it if it can't stay, and tells of it. */
  #look(from: number, to: number): void {
    const side = this.#sides.get(from);
    if (!side?.events) return;
    const obstacle = this.#obstacle(from, to);
    if (obstacle === undefined) {
      if (side.up.has(to)) return;
      side.up.add(to);
      const version = Math.min(side.endpoint.version, this.#sides.get(to)?.endpoint.version ?? 1);
      side.events.connected(to as MemberId, version);
      return;
    }
    if (obstacle !== 'down') {
      this.refusals.push(obstacle.reason);
      side.events.refused(to as MemberId, obstacle);
    }
    if (side.up.delete(to)) side.events.disconnected(to as MemberId);
  }

  #lookAgain(self: number, side: Side): void {
    this.#time.after(redialMs, () => {
      if (this.#sides.get(self) !== side || !side.events) return;
      side.endpoint.takesUp(() => {
        for (const other of side.members) if (!side.up.has(other)) this.#look(self, other);
      });
      this.#lookAgain(self, side);
    });
  }

  /** Nothing from `from` reaches `to`. */
  cut(from: number, to: number): void {
    this.#cut.add(`${from}>${to}`);
    this.#look(from, to);
  }

  /**
   * The next commands that one forwards to the other are lost, as with a link that breaks and is made anew, while what its
   * sender says next goes by the new one before it has noticed.
   */
  loseNextForward(from: number, to: number): void {
    this.#losing.add(`${from}>${to}`);
  }

  isolate(member: number, others: readonly number[]): void {
    for (const other of others) {
      if (other === member) continue;
      this.cut(member, other);
      this.cut(other, member);
    }
  }

  /** Of all links, or of those between a member and others. */
  heal(member?: number, others: readonly number[] = []): void {
    const cut = [...this.#cut].map((link) => link.split('>').map(Number) as [number, number]);
    const mended = cut.filter(
      ([from, to]) =>
        member === undefined ||
        (from === member && others.includes(to)) ||
        (to === member && others.includes(from)),
    );
    for (const [from, to] of mended) this.#cut.delete(`${from}>${to}`);
    for (const [from, to] of mended) this.#look(from, to);
  }

  /** Such batches from one to the other get lost from now on, though the link stays up. */
  lose(from: number, to: number, isLost: (batch: PeerBatch) => boolean): void {
    this.#lost.set(`${from}>${to}`, isLost);
  }

  /** As if it had come from `from`. */
  inject(from: number, to: number, batch: PeerBatch): void {
    const run = this.#sides.get(from)?.endpoint.presence.run ?? 0;
    this.#sides.get(to)?.events?.received(from as MemberId, run, batch);
  }

  /** The process is gone. */
  crash(member: number): void {
    this.#sides.delete(member);
    for (const other of this.#sides.keys()) this.#look(other, member);
  }

  transport(self: number, endpoint: Endpoint): PeerTransport {
    const side: Side = { endpoint, members: new Set(), events: undefined, up: new Set() };
    this.#sides.set(self, side);
    /** A process that has crashed says nothing more, also when another one has taken its place. */
    const alive = (): boolean => this.#sides.get(self) === side && side.events !== undefined;
    const arrivals = new Map<MemberId, number>();
    return {
      start: async (events: PeerEvents) => {
        side.events = events;
        for (const other of this.#sides.keys()) {
          if (other === self) continue;
          this.#look(self, other);
          this.#look(other, self);
        }
        this.#lookAgain(self, side);
      },
      setMembers: (members) => {
        side.members = new Set(members.map(({ id }): number => id).filter((id) => id !== self));
        // Not from within the server that says it.
        this.#time.after(0, () => {
          if (!alive()) return;
          for (const other of this.#sides.keys()) {
            if (other === self) continue;
            this.#look(self, other);
            this.#look(other, self);
          }
        });
      },
      send: (to: MemberId, batch: PeerBatch) => {
        if (!alive() || !this.#isOpen(self, to)) return false;
        if (batch.forward.length > 0 && this.#losing.delete(`${self}>${to}`)) return true;
        if (this.#lost.get(`${self}>${to}`)?.(batch) === true) return true;
        const receiver = this.#sides.get(to);
        // Also when the delay has just become shorter: a later batch never overtakes an earlier one.
        const atMs = Math.max(this.#time.nowMs + this.delayMs, arrivals.get(to) ?? 0);
        arrivals.set(to, atMs);
        this.#time.after(atMs - this.#time.nowMs, () => {
          receiver?.endpoint.takesUp(() => {
            // A batch under way is lost with its link or receiver.
            if (this.#isOpen(self, to) && this.#sides.get(to) === receiver)
              receiver.events?.received(self as MemberId, endpoint.presence.run, batch);
          });
        });
        return true;
      },
      sendSnapshot: async (to: MemberId, term: Term, source: SnapshotSource) => {
        for (;;) {
          const part = await source.next();
          if (!part) break;
          if (!alive() || !this.#isOpen(self, to)) throw new Error('the link is cut');
          await this.#sides
            .get(to)
            ?.events?.snapshotPart(self as MemberId, { term, point: source.point, part });
        }
        this.snapshotsSent += 1;
      },
      close: async () => {
        if (alive()) this.crash(self);
      },
    };
  }
}
