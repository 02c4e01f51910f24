/** Closes connections one by one over a grace, so that other servers don't get all their handshakes at once. */
import type { GatewayClock } from './settings.ts';

/** In steps of this, or of a hundredth of the grace. */
const stepMs = 50;

export class SpreadClosing {
  readonly #clock: GatewayClock;
  /** So many may stay: the others are to be closed. */
  readonly #closeDownTo: (count: number) => void;
  #stopSteps: (() => void) | undefined;
  #whenOver: (() => void)[] = [];

  constructor(clock: GatewayClock, closeDownTo: (count: number) => void) {
    this.#clock = clock;
    this.#closeDownTo = closeDownTo;
  }

  /** The `count` that are there now are closed within the grace, whatever was begun before. Resolves when it is over. */
  begin(count: number, graceMs: number): Promise<void> {
    this.#stopSteps?.();
    const startedAtMs = this.#clock.nowMs();
    this.#stopSteps = this.#clock.every(Math.max(1, Math.min(stepMs, Math.floor(graceMs / 100))), () => {
      const share = graceMs === 0 ? 1 : Math.min(1, (this.#clock.nowMs() - startedAtMs) / graceMs);
      this.#closeDownTo(Math.floor(count * (1 - share)));
    });
    return new Promise((resolve) => void this.#whenOver.push(resolve));
  }

  /** Nobody is left, or all who are may stay. */
  over(): void {
    this.#stopSteps?.();
    this.#stopSteps = undefined;
    const waiting = this.#whenOver;
    this.#whenOver = [];
    for (const resolve of waiting) resolve();
  }
}
