import * as fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { OrderedKeys } from '../../src/store/ordered-keys.ts';
import { RememberedAnswers, type Answer } from '../../src/store/remembered-answers.ts';
import { RevisionIndex, type Placed } from '../../src/store/revision-index.ts';
import { ShardedMap } from '../../src/store/sharded-map.ts';
import { TimerWheel, type Timer } from '../../src/store/timer-wheel.ts';

vi.setConfig({ testTimeout: 60_000 });

/** Deterministic, for histories too long for shrinking to be of use. */
const randomFrom = (seed: number) => () => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 32;
};

describe('ordered keys', () => {
  test('are a sorted set', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 10, max: 4000 }),
        fc.boolean(),
        (seed, space, ascending) => {
          const random = randomFrom(seed);
          const keys = new OrderedKeys();
          const model = new Set<string>();
          const grow = 3000;
          for (let step = 0; step < 6000; step++) {
            const number = ascending && step < grow ? step % space : Math.floor(random() * space);
            const key = `k/${String(number).padStart(ascending ? 5 : 1, '0')}`;
            if (random() < (step < grow ? 0.9 : 0.2)) {
              if (keys.add(key) === model.has(key)) throw new Error(`add of ${key}`);
              model.add(key);
            } else {
              if (keys.delete(key) !== model.delete(key)) throw new Error(`delete of ${key}`);
            }
          }
          const sorted = [...model].sort();
          expect(keys.size).toBe(sorted.length);
          expect(keys.first).toBe(sorted[0]);
          const from = `k/${Math.floor(random() * space)}`;
          const seen: string[] = [];
          keys.scan(from, (key) => (seen.push(key) < 1500 ? key : undefined));
          expect(seen).toEqual(sorted.filter((key) => key >= from).slice(0, 1500));
          const skipped: string[] = [];
          // Past what begins alike: mostly near, sometimes chunks away.
          keys.scan(from, (key) => {
            skipped.push(key);
            return random() < 0.5 ? `${key}:` : `k/${key.slice(2, 3)}:`;
          });
          expect([...new Set(skipped)].sort()).toEqual(skipped);
          for (const [at, key] of skipped.entries()) {
            const between = sorted.filter((other) => other > key && other < (skipped[at + 1] ?? '~'));
            expect(between.every((other) => other.slice(0, 3) === key.slice(0, 3))).toBe(true);
          }
          expect(keys.has(from)).toBe(model.has(from));
        },
      ),
      { numRuns: 20 },
    );
  });
});

test('a sharded map is a map', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.string({ maxLength: 3 }), fc.integer({ min: 0, max: 2 }))), (steps) => {
      const map = new ShardedMap<number>();
      const model = new Map<string, number>();
      for (const [key, step] of steps) {
        if (step === 0) expect(map.delete(key)).toBe(model.delete(key));
        else {
          map.set(key, step);
          model.set(key, step);
        }
        expect(map.get(key)).toBe(model.get(key));
        expect(map.has(key)).toBe(model.has(key));
      }
      expect(map.size).toBe(model.size);
      const sum = (values: Iterable<number>) => [...values].reduce((one, other) => one + other, 0);
      expect(sum(map.values())).toBe(sum(model.values()));
    }),
  );
});

interface Item extends Placed {
  readonly name: number;
}

test('remembered answers are a map in the order of their sequences, of which the lowest go', () => {
  const step = fc.oneof(
    fc.record({ set: fc.oneof(fc.nat(30), fc.constant(2 ** 50)) }),
    fc.record({ forgetBelow: fc.oneof(fc.nat(30), fc.constant(2 ** 50 + 1)) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const answers = new RememberedAnswers();
      const model = new Map<number, Answer>();
      for (const [number, one] of steps.entries()) {
        if ('set' in one) {
          const answer: Answer = { kind: 'written', result: { revision: number, results: [] } };
          answers.set({ sequence: one.set, answer, encoded: undefined });
          model.set(one.set, answer);
        } else {
          answers.forgetBelow(one.forgetBelow);
          for (const sequence of model.keys()) if (sequence < one.forgetBelow) model.delete(sequence);
        }
        const inOrder = [...model].sort(([a], [b]) => a - b);
        expect(answers.inOrder.map(({ sequence, answer }) => [sequence, answer])).toEqual(inOrder);
        expect(answers.size).toBe(model.size);
        for (let sequence = 0; sequence <= 31; sequence += 1)
          expect(answers.get(sequence)?.answer).toBe(model.get(sequence));
      }
    }),
  );
});

describe('revision index', () => {
  test('has each item once, at its latest revision, and finds all of them from anywhere', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 1, max: 3000 }),
        fc.integer({ min: 1, max: 900 }),
        (seed, space, group) => {
          const random = randomFrom(seed);
          const index = new RevisionIndex<Item>();
          const items = new Map<number, Item>();
          let revision = 0;
          for (let step = 0; step < 8000; step++) {
            if (random() < 1 / group) revision++;
            if (revision === 0) revision = 1;
            const name = Math.floor(random() * space);
            let item = items.get(name);
            if (item !== undefined) index.remove(item);
            if (item !== undefined && random() < 0.2) {
              items.delete(name);
              continue;
            }
            item ??= { name, revision, chunk: undefined, offset: 0 };
            item.revision = revision;
            items.set(name, item);
            index.append(item);
          }
          expect(index.size).toBe(items.size);
          for (const from of [0, Math.floor(random() * revision), revision - 1, revision]) {
            const seen: Item[] = [];
            index.walk(from, (item) => seen.push(item) > 0);
            const expected = [...items.values()].filter((item) => item.revision > from);
            expect(new Set(seen)).toEqual(new Set(expected));
            expect(seen).toHaveLength(expected.length);
            expect(seen.every((item, at) => at === 0 || (seen[at - 1]?.revision ?? 0) <= item.revision)).toBe(
              true,
            );
          }
          const revisions = [...items.values()].map((item) => item.revision);
          expect(index.first?.revision).toBe(revisions.length === 0 ? undefined : Math.min(...revisions));
        },
      ),
      { numRuns: 15 },
    );
  });

  test('keeps few holes, however often few items change', () => {
    const index = new RevisionIndex<Item>();
    const items = Array.from({ length: 2000 }, (_, name): Item => ({
      name,
      revision: 1,
      chunk: undefined,
      offset: 0,
    }));
    for (const item of items) index.append(item);
    const random = randomFrom(1);
    for (let revision = 2; revision < 100_000; revision++) {
      const item = items[Math.floor(random() ** 3 * items.length)];
      if (item === undefined) continue;
      index.remove(item);
      item.revision = revision;
      index.append(item);
    }
    const chunks = new Set(items.map(({ chunk }) => chunk));
    const places = [...chunks].reduce((sum, chunk) => sum + (chunk?.items.length ?? 0), 0);
    expect(places).toBeLessThan(items.length * 5);
    expect(chunks.size).toBeLessThan(30);
  });
});

describe('timer wheel', () => {
  test('gives each timer once, at its instant or with the first call after it, and never a cancelled one', () => {
    const instants = fc.oneof(
      fc.integer({ min: 0, max: 600 }),
      fc.integer({ min: 0, max: 200_000 }),
      fc.integer({ min: 0, max: 2 ** 45 }),
    );
    const step = fc.oneof(
      fc.record({ kind: fc.constant('add' as const), in: instants }),
      fc.record({ kind: fc.constant('cancel' as const), pick: fc.nat() }),
      fc.record({
        kind: fc.constant('due' as const),
        later: instants,
        limit: fc.integer({ min: 1, max: 5 }),
      }),
      fc.record({ kind: fc.constant('keep_up' as const), later: instants }),
      fc.record({ kind: fc.constant('back' as const), by: fc.integer({ min: 0, max: 300 }) }),
      fc.record({ kind: fc.constant('rearm' as const) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 41 }), fc.array(step, { maxLength: 80 }), (start, steps) => {
        const wheel = new TimerWheel<number>();
        const waiting = new Map<number, Timer<number>>();
        const given = new Set<number>();
        let now = start;
        let number = 0;
        const due = (limit: number): void => {
          const before = [...waiting.keys()].filter(
            (name) => !given.has(name) && (waiting.get(name)?.atMs ?? 0) <= now,
          );
          let count = 0;
          wheel.due(now, limit, (timer) => {
            count++;
            expect(timer).toBe(waiting.get(timer.target));
            expect(timer.atMs).toBeLessThanOrEqual(now);
            expect(given.has(timer.target)).toBe(false);
            given.add(timer.target);
          });
          expect(count).toBe(Math.min(limit, before.length));
        };
        for (const one of steps) {
          if (one.kind === 'add') {
            waiting.set(number, wheel.add(now + one.in, number));
            number++;
          } else if (one.kind === 'cancel') {
            const name = [...waiting.keys()][one.pick % Math.max(1, waiting.size)];
            const timer = name === undefined ? undefined : waiting.get(name);
            if (name === undefined || timer === undefined) continue;
            wheel.cancel(timer);
            waiting.delete(name);
            given.delete(name);
          } else if (one.kind === 'due') {
            now += one.later;
            due(one.limit);
          } else if (one.kind === 'keep_up') {
            now += one.later;
            wheel.keepUp(now);
          } else if (one.kind === 'back') {
            now = Math.max(0, now - one.by);
          } else {
            wheel.rearm();
            given.clear();
          }
          expect(wheel.size).toBe(waiting.size);
        }
        now = 2 ** 50;
        due(1000);
        expect(given.size).toBe(waiting.size);
      }),
      { numRuns: 500 },
    );
  });

  test('moving a far instant again and again costs no memory', () => {
    const wheel = new TimerWheel<string>();
    let timer = wheel.add(2 ** 42, 'k');
    for (let i = 0; i < 10_000; i++) {
      wheel.cancel(timer);
      timer = wheel.add(2 ** 42 + i, 'k');
    }
    expect(wheel.size).toBe(1);
  });
});
