/** What is asked: the keys that all fight for, and what is done to them. */
import type { HistorySeen, HistoryWrite, HistoryWritten } from '../../src/simulation/checks/index.ts';

/** Keys are fought for during one epoch and then left: a key's history stays short enough to be judged. */
const epochMs = 3_000;
const keysPerEpoch = 16;
/** A few are fought for all the time, so that what is said of a key is also judged over many faults. */
const steadyKeys = 4;
const steadyShare = 0.02;

type Last = HistorySeen | HistoryWritten;

export class KeySpace {
  readonly #startedMs: number;
  /** What some client saw last of a key, for preconditions that have a chance. */
  readonly #last = new Map<string, Last>();

  constructor(startedMs: number) {
    this.#startedMs = startedMs;
  }

  draw(random: () => number, nowMs: number): string {
    if (random() < steadyShare) return `chaos/steady/${Math.floor(random() * steadyKeys)}`;
    const epoch = Math.floor((nowMs - this.#startedMs) / epochMs);
    return `chaos/${epoch}/${Math.floor(random() * keysPerEpoch)}`;
  }

  saw(key: string, seen: Last): void {
    this.#last.set(key, seen);
  }

  last(key: string): Last | undefined {
    return this.#last.get(key);
  }
}

const preconditions = (
  random: () => number,
  last: Last | undefined,
): Pick<HistoryWrite, 'ifRevision' | 'ifGeneration' | 'ifAbsent'> => {
  const kind = random();
  if (last === undefined || last.state === 'absent') return kind < 0.3 ? { ifAbsent: true } : {};
  if (kind < 0.15) return { ifRevision: last.revision };
  if (kind < 0.3) return { ifGeneration: last.generation };
  return {};
};

const durationMs = (random: () => number): number => 300 + Math.floor(random() * 1500);

/** `label` tells its writer and number apart from all others. */
export const drawWrite = (
  random: () => number,
  key: string,
  label: string,
  last: Last | undefined,
): HistoryWrite => {
  const kind = random();
  const conditions = preconditions(random, last);
  const ttl = random() < 0.1 ? { ttlMs: durationMs(random) } : {};
  if (kind < 0.2) {
    return {
      kind: 'declare',
      key,
      tied: false,
      renew: random() < 0.3,
      ...(random() < 0.2 ? { deadlineMs: durationMs(random) } : {}),
      ...conditions,
    };
  }
  const supersede = random() < 0.4;
  if (kind < 0.75) return { kind: 'resolve', key, value: label, supersede, ...ttl, ...conditions };
  if (kind < 0.85) return { kind: 'reject', key, code: 'GIVEN_UP', supersede, ...ttl, ...conditions };
  if (kind < 0.93) return { kind: 'touch', key, ttlMs: durationMs(random), ...conditions };
  return { kind: 'delete', key, ...conditions };
};
