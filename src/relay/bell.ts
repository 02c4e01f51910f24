/** Told that something has changed: those who wait look again. */
export class Bell {
  readonly #listeners = new Set<() => void>();

  ring(): void {
    // Copied: one that comes while they are told hears of the next change.
    const listeners = Array.from(this.#listeners);
    for (const listener of listeners) listener();
  }

  /** Gives what ends it. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/**
 * Waits until `look` gives something; it is asked now and after each ring. Rejects with what `look` throws, and with the
 * signal's reason when that is aborted.
 */
export const until = <T>(
  bells: readonly Bell[],
  look: () => T | undefined,
  signal: AbortSignal,
): Promise<T> =>
  new Promise((resolve, reject) => {
    const leave: (() => void)[] = [];
    const end = (settle: () => void): void => {
      for (const one of leave) one();
      settle();
    };
    const check = (): boolean => {
      try {
        const found = look();
        if (found === undefined) return false;
        end(() => resolve(found));
      } catch (error) {
        end(() => reject(error));
      }
      return true;
    };
    const aborted = (): void => end(() => reject(signal.reason));
    if (signal.aborted) {
      aborted();
      return;
    }
    if (check()) return;
    signal.addEventListener('abort', aborted);
    leave.push(() => signal.removeEventListener('abort', aborted));
    for (const bell of bells) leave.push(bell.listen(check));
  });
