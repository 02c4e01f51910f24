/**
 * Cluster time: the one clock that deadlines and freshness are measured by.
 *
 * The leader makes it and everyone else follows. It never goes backwards, and no jump of a server's wall clock moves
 * it: while a cluster runs, its time is carried on by monotonic clocks, also from one leader to the next. The wall
 * clock counts only when there is nothing to carry on from (the whole cluster was down); otherwise the leader's time
 * drifts towards it by at most one part in a thousand, so that it stays near the time of day and no TTL is shortened
 * by more than that.
 */
import type { Environment } from './environment.ts';

/** How fast cluster time may be pulled towards the leader's wall clock: milliseconds per millisecond. */
const slewMax = 1 / 1000;

/** A follower measures for so long how far it is ahead. */
const comparisonMs = 5000;

export class ClusterClock {
  readonly #environment: Environment;
  /** The estimate at `#atMs` by the monotonic clock; undefined before anything is known. */
  #timeMs: number | undefined;
  #atMs = 0;
  #leading = false;
  /** What has been told never goes backwards: while the estimate is pulled back, it stands still. */
  #toldMs = 0;
  /** By how much a follower's estimate was ahead of the leader's word at least, and since when that is measured. */
  #ahead: { leastMs: number; readonly sinceMs: number } | undefined;

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  /** The estimate of cluster time; whole milliseconds. `floorMs`: the state's own time. */
  nowMs(floorMs: number): number {
    this.#advance();
    this.#toldMs = Math.max(this.#toldMs, floorMs, Math.floor(this.#timeMs ?? floorMs));
    return this.#toldMs;
  }

  /** The leader said what time it is. Its word may be a little old, but is never ahead of its clock. */
  heardFromLeader(timeMs: number): void {
    if (this.#leading) return;
    this.#advance();
    const nowMs = this.#environment.monotonicMs();
    if (this.#timeMs === undefined || timeMs > this.#timeMs) {
      this.#timeMs = timeMs;
      this.#atMs = nowMs;
      this.#ahead = undefined;
      return;
    }
    // Most of it is the way here; but what even the quickest word of some seconds shows is a clock that runs ahead.
    const aheadMs = this.#timeMs - timeMs;
    if (this.#ahead === undefined) this.#ahead = { leastMs: aheadMs, sinceMs: nowMs };
    else if (aheadMs < this.#ahead.leastMs) this.#ahead.leastMs = aheadMs;
    if (nowMs - this.#ahead.sinceMs < comparisonMs) return;
    this.#timeMs -= this.#ahead.leastMs;
    this.#ahead = undefined;
  }

  /** From now on this server makes the time, from where it stands. */
  lead(floorMs: number): void {
    this.#advance();
    this.#leading = true;
    this.#timeMs = Math.max(floorMs, this.#timeMs ?? this.#environment.wallMs());
    this.#atMs = this.#environment.monotonicMs();
  }

  follow(): void {
    this.#advance();
    this.#leading = false;
  }

  #advance(): void {
    if (this.#timeMs === undefined) return;
    const now = this.#environment.monotonicMs();
    const passed = now - this.#atMs;
    if (passed <= 0) return;
    this.#atMs = now;
    this.#timeMs += passed;
    if (this.#leading) {
      const difference = this.#environment.wallMs() - this.#timeMs;
      this.#timeMs += Math.max(-passed * slewMax, Math.min(passed * slewMax, difference));
    }
  }
}
