/** How long to wait before the next try: full jitter, so that those who failed together do not return together. */

export interface Backoff {
  /** The first try waits up to this long. */
  readonly baseMs: number;
  /** No try waits longer. */
  readonly capMs: number;
}

/** A TLS handshake costs a server 2.7 ms: ten seconds let 3,700 agents return to one server. */
export const reconnectBackoff: Backoff = { baseMs: 100, capMs: 10_000 };

/** A request that the server could not serve: an election takes a second or two. */
export const requestBackoff: Backoff = { baseMs: 50, capMs: 2_000 };

/** `random` in [0, 1); `attempt` 0 for the first. */
export function fullJitter(backoff: Backoff, attempt: number, random: number): number {
  // Beyond 2^30 every cap is reached long since, and the power stays finite.
  const ceiling = Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(attempt, 30));
  return random * ceiling;
}
