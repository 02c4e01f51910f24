/** So many lines a second and no more: what others do to us must not fill our disk. */
export class LogBudget {
  readonly #linesPerSecond: number;
  #second = -1;
  #lines = 0;
  #suppressed = 0;

  constructor(linesPerSecond: number) {
    this.#linesPerSecond = linesPerSecond;
  }

  /** Whether a line may be written now; if not, it is counted. */
  admits(nowMs: number): boolean {
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#lines = 0;
    }
    if (this.#lines >= this.#linesPerSecond) {
      this.#suppressed += 1;
      return false;
    }
    this.#lines += 1;
    return true;
  }

  /** How many lines were not written since this was last asked. */
  takeSuppressed(): number {
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    return suppressed;
  }
}
