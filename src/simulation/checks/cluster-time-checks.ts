/**
 * Cluster time is carried on by monotonic clocks, from one leader to the next too. Only a leader whose process has never
 * heard of it may begin it anew at a wall clock: each of these may make it jump once.
 */
import { violated } from './violation.ts';

interface Instant {
  /** Of the world. */
  readonly atMs: number;
  readonly timeMs: number;
}

/** Clocks drift by 2 %, and cluster time is slewed towards a wall clock by 0.1 %. */
const fastest = 1.03;
/** A slow processor's clock is ahead of the world's by what its looks at it take within an event. */
const jumpMs = 100;

export class ClusterTimeChecks {
  /** Processes that know what time it is. */
  readonly #knowing = new Set<number>();
  /** How often cluster time was begun at a wall clock, without the beginnings that the log has shown. */
  #unseenBeginnings = 0;
  /** By term: how far its leader's log went when it was last looked at. */
  readonly #lengths = new Map<number, number>();
  /** By index and term: when the entry was made, until it is applied. */
  readonly #made = new Map<string, number>();
  #applied = 0;
  /** The entry by which cluster time was furthest ahead of the world's. */
  #furthest: Instant | undefined;

  /** A process has started, and knows no cluster time. */
  started(member: number): void {
    this.#knowing.delete(member);
  }

  /** Whom it takes for the leader has told it. */
  heard(member: number): void {
    this.#knowing.add(member);
  }

  /** After each event of a server that leads, and has made all up to `lastIndex` by then. */
  leads(member: number, term: number, lastIndex: number, atMs: number): void {
    if (!this.#knowing.has(member)) {
      this.#knowing.add(member);
      this.#unseenBeginnings += 1;
    }
    const before = this.#lengths.get(term);
    this.#lengths.set(term, lastIndex);
    // What is there when it begins to lead is older, but for the empty entry of its term.
    if (before === undefined) return;
    for (let index = before + 1; index <= lastIndex; index += 1) this.#made.set(`${index}@${term}`, atMs);
  }

  /** Somebody has applied an entry with commands; `timeMs`: as its leader has said. */
  applied(index: number, term: number, timeMs: number): void {
    if (index <= this.#applied) return;
    this.#applied = index;
    const name = `${index}@${term}`;
    const atMs = this.#made.get(name) ?? violated('cluster time', `nobody was seen to make entry ${name}`);
    this.#made.delete(name);
    const furthest = this.#furthest;
    if (furthest !== undefined && timeMs - atMs <= furthest.timeMs - furthest.atMs) return;
    this.#furthest = { atMs, timeMs };
    if (furthest !== undefined) {
      const passedMs = atMs - furthest.atMs;
      if (timeMs - furthest.timeMs <= passedMs * fastest + jumpMs) return;
      if (this.#unseenBeginnings === 0)
        violated('cluster time', `it jumped from ${furthest.timeMs} to ${timeMs} within ${passedMs} ms`);
    }
    this.#unseenBeginnings -= 1;
  }
}
