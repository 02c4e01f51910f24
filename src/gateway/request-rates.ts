/** How many requests each principal makes in a second, over all its connections to this server. */

interface Bucket {
  tokens: number;
  filledAtMs: number;
  /** If nothing more is taken. */
  fullAtMs: number;
}

/** Buckets of principals that make no requests are forgotten when there are more than this. */
const bucketsMax = 4096;

/** Token buckets that hold what is allowed in one second, at least one: a burst of so much, and then so many a second. */
export class RequestRates {
  readonly #buckets = new Map<string, Bucket>();
  #tidiedAtMs = -Infinity;

  /** Milliseconds until one more is allowed; 0: it is, and counts. `perSecond` may be a fraction. */
  waitFor(principal: string, perSecond: number, nowMs: number): number {
    const size = Math.max(1, perSecond);
    let bucket = this.#buckets.get(principal);
    if (bucket === undefined) {
      this.#tidy(nowMs);
      bucket = { tokens: size, filledAtMs: nowMs, fullAtMs: nowMs };
      this.#buckets.set(principal, bucket);
    }
    const filled = bucket.tokens + ((nowMs - bucket.filledAtMs) / 1000) * perSecond;
    bucket.tokens = Math.min(size, filled);
    bucket.filledAtMs = nowMs;
    if (bucket.tokens >= 1) {
      bucket.tokens -= 1;
      bucket.fullAtMs = nowMs + ((size - bucket.tokens) / perSecond) * 1000;
      return 0;
    }
    return Math.max(1, Math.ceil(((1 - bucket.tokens) / perSecond) * 1000));
  }

  /**
   * A bucket that is full again is as a new one. Once a second: where thousands come at
   * once each would go through all that came before it, and find none.
   */
  #tidy(nowMs: number): void {
    if (this.#buckets.size < bucketsMax || nowMs - this.#tidiedAtMs < 1000) return;
    this.#tidiedAtMs = nowMs;
    for (const [principal, { fullAtMs }] of this.#buckets)
      if (nowMs >= fullAtMs) this.#buckets.delete(principal);
  }
}
