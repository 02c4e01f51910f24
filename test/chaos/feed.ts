/** One subscription under faults: what it was told, and whether that is what it was promised. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Future, Subscription } from '../../src/client/index.ts';

interface Last {
  readonly revision: number;
  /** undefined: deleted. */
  readonly future: Future | undefined;
}

const describe = (future: Future | undefined): string =>
  future === undefined
    ? 'absent'
    : `${future.state} in generation ${future.generation}, revision ${future.revision}`;

export class Feed {
  readonly #last = new Map<string, Last>();
  readonly #problems: string[] = [];
  #revision = 0;
  pushes = 0;
  resets = 0;

  constructor(subscription: Subscription) {
    void this.#read(subscription);
  }

  async #read(subscription: Subscription): Promise<void> {
    try {
      for await (const event of subscription) {
        if (event.kind === 'reset') {
          this.resets += 1;
          this.#last.clear();
          this.#revision = 0;
        } else if (event.kind !== 'caught_up') {
          this.#push(event.key, event.revision, event.kind === 'future' ? event.future : undefined);
        }
      }
    } catch (error) {
      this.#problems.push(`ended: ${String(error)}`);
    }
  }

  #push(key: string, revision: number, future: Future | undefined): void {
    this.pushes += 1;
    const before = this.#last.get(key);
    if (before !== undefined && before.revision >= revision) {
      this.#problems.push(`${key} was pushed with revision ${revision} after ${before.revision}`);
    }
    if (revision < this.#revision) {
      this.#problems.push(`${key} came with revision ${revision} after another's ${this.#revision}`);
    }
    this.#revision = Math.max(this.#revision, revision);
    this.#last.set(key, { revision, future });
  }

  /** Waits until it was told of `revision`; then it must know of every key what is so. */
  async compare(
    present: ReadonlyMap<string, Future>,
    revision: number,
    withinMs: number,
  ): Promise<readonly string[]> {
    const endMs = performance.now() + withinMs;
    while (this.#revision < revision && performance.now() < endMs) await sleep(20);
    if (this.#revision < revision) {
      this.#problems.push(`stands at revision ${this.#revision} and never came to ${revision}`);
    }
    for (const [key, future] of present) {
      const known = this.#last.get(key)?.future;
      const same = known?.generation === future.generation && known.revision === future.revision;
      if (!same) this.#problems.push(`${key} is ${describe(future)}; it was told ${describe(known)}`);
    }
    for (const [key, { future }] of this.#last) {
      if (future !== undefined && !present.has(key)) {
        this.#problems.push(`${key} is absent; it was told ${describe(future)}`);
      }
    }
    return this.#problems.slice(0, 10);
  }
}
