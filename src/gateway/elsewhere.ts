/**
 * When a server that knows no leader sends its agents elsewhere, and over how long. A client has no reason of its own to
 * leave a connection on which nothing fails: it would wait there for as long as its server is cut off from the others.
 *
 * The whole cluster may be without a leader; then every server does this, and going elsewhere helps nobody. So it is
 * done in rounds that become rare, each for those who were not told before, and nobody is closed: who finds no other
 * server stays, and gets what can be had here (stale reads).
 */

/** Rounds are no further apart. */
const betweenRoundsMsMax = 60_000;

/** A TLS handshake takes 2.7 ms of the server that the agent goes to. */
const handshakeMs = 5;

export class Elsewhere {
  readonly #leaderlessMsMin: number;
  /** By how long there has been no leader. */
  #nextRoundMs: number;
  #before = 0;

  constructor(leaderlessMsMin: number) {
    this.#leaderlessMsMin = leaderlessMsMin;
    this.#nextRoundMs = leaderlessMsMin;
  }

  /** Asked every second. Whether those who are here and have not been told are to be told now. */
  isDue(leaderlessMs: number): boolean {
    // There was a leader in between.
    if (leaderlessMs < this.#before) this.#nextRoundMs = this.#leaderlessMsMin;
    this.#before = leaderlessMs;
    if (leaderlessMs < this.#nextRoundMs) return false;
    // After a standstill several have passed.
    while (this.#nextRoundMs <= leaderlessMs) {
      this.#nextRoundMs += Math.max(1, Math.min(this.#nextRoundMs, betweenRoundsMsMax));
    }
    return true;
  }

  /** Clients leave within the first half of it, each at a moment of its own. */
  graceMs(agents: number): number {
    return this.#leaderlessMsMin + 2 * handshakeMs * agents;
  }
}
