import type { Future } from '../protocol/index.ts';
import type { Connection, Entry } from './connections.ts';
import type { FeedSource } from './types.ts';

/** How a wait ends: all futures of an alternative, or the one that is rejected. */
export interface Verdict {
  readonly alternative: number;
  readonly futures: readonly Future[];
}

/** Which keys of a wait for several count at present; a wait for one key needs none of it. */
interface Progress {
  /** By slot: the alternatives' keys, one after the other. */
  readonly counted: boolean[];
  /** By alternative: how many of its slots are not counted. */
  readonly missing: number[];
}

const isOneKey = (alternatives: readonly (readonly string[])[]): boolean =>
  alternatives.length === 1 && alternatives[0]?.length === 1;

/**
 * One await. Its counters follow the changes of its keys and tell when it *seems* complete; `review` then decides
 * by reading all keys, because a value that counted may have passed its time since, and nobody tells of that.
 */
export class Wait implements Entry {
  readonly connection: Connection;
  readonly request: number;
  readonly alternatives: readonly (readonly string[])[];
  readonly leastGeneration: number;
  readonly #progress: Progress | undefined;
  over = false;
  /** Known to the router under all of its keys. */
  routed = false;
  /** To be reviewed at the next `take`. */
  queued = false;

  constructor(
    connection: Connection,
    request: number,
    alternatives: readonly (readonly string[])[],
    leastGeneration: number,
  ) {
    this.connection = connection;
    this.request = request;
    this.alternatives = alternatives;
    this.leastGeneration = leastGeneration;
    this.#progress = isOneKey(alternatives)
      ? undefined
      : {
          counted: alternatives.flatMap((keys) => keys.map(() => false)),
          missing: alternatives.map((keys) => keys.length),
        };
  }

  get slots(): number {
    return this.#progress === undefined ? 1 : this.#progress.counted.length;
  }

  /**
   * Reads all keys as they are at `nowMs`, corrects the counters, and says how the wait ends, if it does: with the
   * first alternative that is wholly resolved, else with the first rejected future.
   */
  review(source: FeedSource, nowMs: number): Verdict | undefined {
    let slot = 0;
    let resolved: Verdict | undefined;
    let rejected: Verdict | undefined;
    for (const [alternative, keys] of this.alternatives.entries()) {
      const futures: Future[] = [];
      for (const key of keys) {
        const present = source.get(key);
        const future = present === undefined ? undefined : source.fresh(present, nowMs);
        const counts = this.counts(future);
        this.#count(slot, alternative, counts);
        slot += 1;
        if (future === undefined) continue;
        if (counts) futures.push(future);
        else if (this.isRejectedBy(future)) rejected ??= { alternative, futures: [future] };
      }
      if (futures.length === keys.length) resolved ??= { alternative, futures };
    }
    return resolved ?? rejected;
  }

  /** A key of it has changed. Returns whether the wait may be complete now. */
  noteChange(key: string, future: Future | undefined): boolean {
    const counts = this.counts(future);
    const progress = this.#progress;
    if (progress === undefined) return counts;
    let complete = false;
    let slot = 0;
    for (let alternative = 0; alternative < this.alternatives.length; alternative += 1) {
      for (const candidate of this.alternatives[alternative] ?? []) {
        if (candidate === key) this.#count(slot, alternative, counts);
        slot += 1;
      }
      if (progress.missing[alternative] === 0) complete = true;
    }
    return complete;
  }

  /** `future` as it may be shown now. */
  counts(future: Future | undefined): boolean {
    return future !== undefined && future.state === 'resolved' && future.generation >= this.leastGeneration;
  }

  isRejectedBy(future: Future): boolean {
    return future.state === 'rejected' && future.generation >= this.leastGeneration;
  }

  #count(slot: number, alternative: number, counts: boolean): void {
    const progress = this.#progress;
    if (progress === undefined || progress.counted[slot] === counts) return;
    progress.counted[slot] = counts;
    progress.missing[alternative] = (progress.missing[alternative] ?? 0) + (counts ? -1 : 1);
  }
}
