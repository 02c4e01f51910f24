/**
 * Cluster time is carried on by monotonic clocks, from one leader to the next too. Only a leader whose process has never
 * heard of it may begin it anew at a wall clock: each of these may make it jump once.
 *
 * A follower whose clock is fast runs ahead of its leader until it has compared; so cluster time jumps when it is elected,
 * but by no more than clocks drift in the time since that comparison began. Through however many leaders it comes, it is
 * carried from instant to instant, and none is counted twice.
 */
import { violated } from './violation.ts';

interface Instant {
  /** Of the world. */
  readonly atMs: number;
  readonly timeMs: number;
}

interface Entry extends Instant {
  readonly term: number;
}

/** Clocks drift by 2 %, and cluster time is slewed towards a wall clock by 0.1 %. */
const driftMax = 0.03;
/** A slow processor's clock is ahead of the world's by what its looks at it take within an event. */
const jumpMs = 100;
/** A follower compares its estimate with its leader's words for five seconds, by a clock that may be slow. */
const comparisonMs = 5000 / 0.98;
/** Words that follow each other within this count as one. */
const wordsApartMs = 50;

/**
 * When the last comparison that is over by now began, at the earliest, by when words came. The present one has lasted for
 * less than its time when the last word came, and the one before ended with the first word after its own time.
 */
const comparedSince = (words: readonly number[]): number | undefined => {
  const begun = (last: number | undefined): number =>
    last === undefined ? 0 : words.findIndex((word) => word > last - comparisonMs);
  return words[begun(words[begun(words.at(-1)) - 2])];
};

export class ClusterTimeChecks {
  /** Processes that know what time it is: when they were told, as far back as it matters. */
  readonly #knowing = new Map<number, number[]>();
  #latestTerm = 0;
  /** When a process was last seen to lead the latest term: it carried the cluster's time until then. */
  readonly #ledUntil = new Map<number, number>();
  /** By term: since when its leader may have run ahead of the leaders before. */
  readonly #aheadSince = new Map<number, number>();
  /** How often cluster time was begun at a wall clock, without the beginnings that the log has shown. */
  #unseenBeginnings = 0;
  /** By term: how far its leader's log went when it was last looked at. */
  readonly #lengths = new Map<number, number>();
  /** By index and term: when the entry was made, until it is applied. */
  readonly #made = new Map<string, number>();
  #applied = 0;
  /** The entry by which cluster time was furthest ahead of the world's. */
  #furthest: Entry | undefined;

  /** A process has started, and knows no cluster time. */
  started(member: number): void {
    this.#knowing.delete(member);
    this.#ledUntil.delete(member);
  }

  /** Whom it takes for the leader has told it. */
  heard(member: number, atMs: number): void {
    const words = this.#wordsOf(member);
    const last = words.at(-1);
    if (last !== undefined && atMs - last < wordsApartMs) return;
    words.push(atMs);
    const since = comparedSince(words) ?? atMs;
    if (since - (words[0] ?? atMs) > comparisonMs)
      words.splice(
        0,
        words.findIndex((word) => word >= since),
      );
  }

  #wordsOf(member: number): number[] {
    const words = this.#knowing.get(member) ?? [];
    this.#knowing.set(member, words);
    return words;
  }

  /** After each event of a server that leads, and has made all up to `lastIndex` by then. */
  leads(member: number, term: number, lastIndex: number, atMs: number): void {
    const before = this.#lengths.get(term);
    this.#lengths.set(term, lastIndex);
    // What is there when it begins to lead is older, but for the empty entry of its term.
    if (before === undefined) this.#elected(member, term);
    if (term === this.#latestTerm) this.#ledUntil.set(member, atMs);
    if (before === undefined) return;
    for (let index = before + 1; index <= lastIndex; index += 1) this.#made.set(`${index}@${term}`, atMs);
  }

  #elected(member: number, term: number): void {
    if (!this.#knowing.has(member)) this.#unseenBeginnings += 1;
    const compared = comparedSince(this.#wordsOf(member)) ?? -Infinity;
    const since = Math.max(compared, this.#ledUntil.get(member) ?? -Infinity);
    if (since > -Infinity) this.#aheadSince.set(term, since);
    this.#latestTerm = Math.max(this.#latestTerm, term);
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
    const driftsSince = this.#carriedSince(term);
    this.#furthest = { atMs, timeMs, term };
    for (const elected of this.#aheadSince.keys()) if (elected <= term) this.#aheadSince.delete(elected);
    if (furthest !== undefined) {
      const passedMs = atMs - furthest.atMs;
      const driftMs = (atMs - Math.min(driftsSince, furthest.atMs)) * driftMax;
      if (timeMs - furthest.timeMs <= passedMs + driftMs + jumpMs) return;
      if (this.#unseenBeginnings === 0)
        violated('cluster time', `it jumped from ${furthest.timeMs} to ${timeMs} within ${passedMs} ms`);
    }
    this.#unseenBeginnings -= 1;
  }

  /** Over the leaders after the one of the entry by which it was furthest ahead, up to this term. */
  #carriedSince(term: number): number {
    let least = Infinity;
    for (const [elected, since] of this.#aheadSince) if (elected <= term) least = Math.min(least, since);
    return least;
  }
}
