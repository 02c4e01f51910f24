import type { PeerBatch, PeerEvents, PeerTransport, SnapshotSource } from '../../../src/peers/index.ts';
import type { MemberId, Term } from '../../../src/raft/index.ts';
import type { AcceptPeer } from '../../../src/server/index.ts';
import type { VirtualTime } from './virtual-time.ts';

/** Who is behind a link, and whom it lets in. */
interface Endpoint {
  readonly run: number;
  readonly diskId: Uint8Array;
  readonly acceptPeer: AcceptPeer;
}

/** Links between servers in one process: reliable and ordered like TCP, cut and mended by the test. */
export class VirtualNetwork {
  readonly #time: VirtualTime;
  readonly #events = new Map<number, PeerEvents>();
  readonly #endpoints = new Map<number, Endpoint>();
  readonly #cut = new Set<string>();
  /** Why a server was not let in by another, in order. */
  readonly refusals: string[] = [];
  delayMs = 1;
  snapshotsSent = 0;

  constructor(time: VirtualTime) {
    this.#time = time;
  }

  #open(from: number, to: number): boolean {
    if (!this.#events.has(from) || !this.#events.has(to) || this.#cut.has(`${from}>${to}`)) return false;
    const [sender, receiver] = [this.#endpoints.get(from), this.#endpoints.get(to)];
    if (sender === undefined || receiver === undefined) return false;
    const refusal = receiver.acceptPeer(from, sender.run, sender.diskId);
    if (refusal !== undefined) this.refusals.push(refusal);
    return refusal === undefined;
  }

  /** Nothing from `from` reaches `to`. */
  cut(from: number, to: number): void {
    this.#cut.add(`${from}>${to}`);
    this.#events.get(from)?.disconnected(to as MemberId);
  }

  isolate(member: number, others: readonly number[]): void {
    for (const other of others) {
      if (other === member) continue;
      this.cut(member, other);
      this.cut(other, member);
    }
  }

  heal(): void {
    const mended = [...this.#cut];
    this.#cut.clear();
    for (const link of mended) {
      const [from, to] = link.split('>').map(Number) as [number, number];
      if (this.#open(from, to)) this.#events.get(from)?.connected(to as MemberId);
    }
  }

  /** As if it had come from `from`. */
  inject(from: number, to: number, batch: PeerBatch): void {
    this.#events.get(to)?.received(from as MemberId, this.#endpoints.get(from)?.run ?? 0, batch);
  }

  /** The process is gone. */
  crash(member: number): void {
    this.#events.delete(member);
    for (const [other, events] of this.#events) if (other !== member) events.disconnected(member as MemberId);
  }

  transport(self: number, endpoint: Endpoint): PeerTransport {
    this.#endpoints.set(self, endpoint);
    let own: PeerEvents | undefined;
    /** A process that has crashed says nothing more, also when another one has taken its place. */
    const alive = (): boolean => own !== undefined && this.#events.get(self) === own;
    const arrivals = new Map<MemberId, number>();
    return {
      start: async (events: PeerEvents) => {
        own = events;
        this.#events.set(self, events);
        for (const [other, theirs] of this.#events) {
          if (other === self) continue;
          if (this.#open(self, other)) events.connected(other as MemberId);
          if (this.#open(other, self)) theirs.connected(self as MemberId);
        }
      },
      send: (to: MemberId, batch: PeerBatch) => {
        if (!alive() || !this.#open(self, to)) return false;
        const receiver = this.#events.get(to);
        // Also when the delay has just become shorter: a later batch never overtakes an earlier one.
        const atMs = Math.max(this.#time.nowMs + this.delayMs, arrivals.get(to) ?? 0);
        arrivals.set(to, atMs);
        this.#time.after(atMs - this.#time.nowMs, () => {
          // A batch under way is lost with its link or receiver.
          if (this.#open(self, to) && this.#events.get(to) === receiver)
            receiver?.received(self as MemberId, 1, batch);
        });
        return true;
      },
      sendSnapshot: async (to: MemberId, term: Term, source: SnapshotSource) => {
        for (;;) {
          const part = await source.next();
          if (!part) break;
          if (!alive() || !this.#open(self, to)) throw new Error('the link is cut');
          await this.#events.get(to)?.snapshotPart(self as MemberId, { term, point: source.point, part });
        }
        this.snapshotsSent += 1;
      },
      close: async () => {
        this.#events.delete(self);
      },
    };
  }
}
