import assert from 'node:assert/strict';
import type { FeedEvent } from './types.ts';

/** At about 0.2–0.7 µs each this is one or two milliseconds. */
export const defaultVisits = 4096;

/** One call of `take`: what it has made and what it may still spend. */
export class Work {
  readonly events: FeedEvent[] = [];
  readonly nowMs: number;
  #visitsLeft: number;
  #bytesLeft: number;
  #visitsReserved = 0;
  #bytesReserved = 0;

  constructor(nowMs: number, visitsMax: number, bytesMax: number) {
    assert(
      visitsMax >= 1 && bytesMax >= 1,
      `a budget of ${visitsMax} visits and ${bytesMax} bytes would never get anything done`,
    );
    this.nowMs = nowMs;
    this.#visitsLeft = visitsMax;
    this.#bytesLeft = bytesMax;
  }

  get exhausted(): boolean {
    return this.#visitsLeft <= this.#visitsReserved || this.#bytesLeft <= this.#bytesReserved;
  }

  spend(visits: number, bytes: number): void {
    this.#visitsLeft -= visits;
    this.#bytesLeft -= bytes;
  }

  /** Half of what is left is for those who come after `useReserve`. */
  reserveHalf(): void {
    this.#visitsReserved = Math.max(0, this.#visitsLeft / 2);
    this.#bytesReserved = Math.max(0, this.#bytesLeft / 2);
  }

  useReserve(): void {
    this.#visitsReserved = 0;
    this.#bytesReserved = 0;
  }
}
