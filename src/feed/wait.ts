import type { Future } from '../protocol/index.ts';
import type { Connection, Entry } from './connections.ts';
import type { FeedSource } from './types.ts';

/** How a wait ends: all futures of an alternative, or the one that is rejected. */
export interface Verdict {
  readonly alternative: number;
  readonly futures: readonly Future[];
}

type Alternatives = readonly (readonly string[])[];

/** What is waited for, and which keys of it count at present. */
interface Condition {
  readonly alternatives: Alternatives;
  readonly leastGeneration: number;
  /** By slot: the alternatives' keys, one after the other. */
  readonly counted: boolean[];
  /** By alternative: how many of its slots are not counted. */
  readonly missing: number[];
}

/** One key in any generation, the usual case, is its own condition: the arrays around it would be 300 bytes. */
const conditionOf = (alternatives: Alternatives, leastGeneration: number): string | Condition => {
  const [first, ...others] = alternatives;
  const [key, ...more] = first ?? [];
  if (key !== undefined && others.length + more.length + leastGeneration === 0) return key;
  return {
    alternatives,
    leastGeneration,
    counted: alternatives.flatMap((keys) => keys.map(() => false)),
    missing: alternatives.map((keys) => keys.length),
  };
};

/**
 * One await. Its counters follow the changes of its keys and tell when it *seems* complete; `review` then decides
 * by reading all keys, because a value that counted may have passed its time since, and nobody tells of that.
 */
export class Wait implements Entry {
  readonly connection: Connection;
  readonly request: number;
  readonly #condition: string | Condition;
  /**
   * `routed`: known to the router under all of its keys. `queued`: to be reviewed at the next `take`. One field for all,
   * 16 bytes less than three.
   */
  phase: 'new' | 'queued' | 'routed' | 'routed_and_queued' | 'over' = 'new';

  constructor(connection: Connection, request: number, alternatives: Alternatives, leastGeneration: number) {
    this.connection = connection;
    this.request = request;
    this.#condition = conditionOf(alternatives, leastGeneration);
  }

  get over(): boolean {
    return this.phase === 'over';
  }

  end(): void {
    this.phase = 'over';
  }

  get isRouted(): boolean {
    return this.phase === 'routed' || this.phase === 'routed_and_queued';
  }

  get isQueued(): boolean {
    return this.phase === 'queued' || this.phase === 'routed_and_queued';
  }

  get slots(): number {
    return typeof this.#condition === 'string' ? 1 : this.#condition.counted.length;
  }

  /** A key that is named several times comes as often. */
  eachKey(visit: (key: string) => void): void {
    if (typeof this.#condition === 'string') visit(this.#condition);
    else for (const keys of this.#condition.alternatives) for (const key of keys) visit(key);
  }

  /**
   * Reads all keys as they are at `nowMs`, corrects the counters, and says how the wait ends, if it does: with the
   * first alternative that is wholly resolved, else with the first rejected future.
   */
  review(source: FeedSource, nowMs: number): Verdict | undefined {
    const condition = this.#condition;
    if (typeof condition === 'string') {
      const future = freshOf(condition, source, nowMs);
      const ends = future !== undefined && (this.counts(future) || this.isRejectedBy(future));
      return ends ? { alternative: 0, futures: [future] } : undefined;
    }
    let slot = 0;
    let resolved: Verdict | undefined;
    let rejected: Verdict | undefined;
    for (const [alternative, keys] of condition.alternatives.entries()) {
      const futures: Future[] = [];
      for (const key of keys) {
        const future = freshOf(key, source, nowMs);
        const counts = this.counts(future);
        count(condition, slot, alternative, counts);
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
    const condition = this.#condition;
    if (typeof condition === 'string') return counts;
    let complete = false;
    let slot = 0;
    for (let alternative = 0; alternative < condition.alternatives.length; alternative += 1) {
      for (const candidate of condition.alternatives[alternative] ?? []) {
        if (candidate === key) count(condition, slot, alternative, counts);
        slot += 1;
      }
      if (condition.missing[alternative] === 0) complete = true;
    }
    return complete;
  }

  /** `future` as it may be shown now. */
  counts(future: Future | undefined): boolean {
    return future !== undefined && future.state === 'resolved' && isRecent(future, this.#condition);
  }

  isRejectedBy(future: Future): boolean {
    return future.state === 'rejected' && isRecent(future, this.#condition);
  }
}

const isRecent = ({ generation }: Future, condition: string | Condition): boolean =>
  typeof condition === 'string' || generation >= condition.leastGeneration;

const freshOf = (key: string, source: FeedSource, nowMs: number): Future | undefined => {
  const present = source.get(key);
  const future = present === undefined ? undefined : source.fresh(present, nowMs);
  return future;
};

const count = ({ counted, missing }: Condition, slot: number, alternative: number, counts: boolean): void => {
  if (counted[slot] === counts) return;
  counted[slot] = counts;
  missing[alternative] = (missing[alternative] ?? 0) + (counts ? -1 : 1);
};
