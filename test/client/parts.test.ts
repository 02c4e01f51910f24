import { fc, test as property } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import { fullJitter, reconnectBackoff } from '../../src/client/backoff.ts';
import { ChangeBuffer } from '../../src/client/change-buffer.ts';
import { Queue } from '../../src/client/queue.ts';
import { Timers } from '../../src/client/timers.ts';
import { bytesOf, jsonOf, textOf } from '../../src/client/values.ts';
import type { Change } from '../../src/protocol/index.ts';
import { World, change, futureOf } from './support/world.ts';

describe('timers', () => {
  property.prop([
    fc.array(fc.record({ item: fc.nat(9), at: fc.option(fc.nat(50), { nil: undefined }) }), {
      maxLength: 60,
    }),
  ])('everything set and not cleared is due once, in the order of time, on one timer', async (steps) => {
    const world = new World();
    const timers = new Timers(world);
    const start = world.now();
    const fired: { item: number; at: number }[] = [];
    const expected = new Map<number, number>();
    const items = Array.from({ length: 10 }, (_, item) => ({
      dueAtMs: 0,
      heapIndex: -1,
      due: (nowMs: number) => fired.push({ item, at: nowMs - start }),
    }));
    for (const { item, at } of steps) {
      const timed = items[item];
      if (timed === undefined) continue;
      if (at === undefined) {
        timers.clear(timed);
        expected.delete(item);
      } else {
        timers.set(timed, start + at);
        expected.set(item, at);
      }
      expect(world.timerCount).toBeLessThanOrEqual(1);
    }
    await world.advance(100);
    expect(new Map(fired.map(({ item, at }) => [item, at]))).toEqual(expected);
    expect(fired.map(({ at }) => at)).toEqual([...expected.values()].sort((a, b) => a - b));
    expect(world.timerCount).toBe(0);
  });

  test('a wait longer than a JavaScript timer can hold is made of several', async () => {
    const world = new World();
    const timers = new Timers(world);
    let fired = 0;
    timers.set({ dueAtMs: 0, heapIndex: -1, due: () => (fired += 1) }, world.now() + 3 * 2 ** 31);
    await world.advance(3 * 2 ** 31 - 1);
    expect(fired).toBe(0);
    await world.advance(1);
    expect(fired).toBe(1);
  });
});

property.prop([fc.array(fc.oneof(fc.nat(), fc.constant('shift'), fc.constant('clear')), { maxLength: 200 })])(
  'a queue is first in, first out',
  (steps) => {
    const queue = new Queue<number>();
    const model: number[] = [];
    for (const step of steps) {
      if (step === 'clear') {
        queue.clear();
        model.length = 0;
      } else if (step === 'shift') {
        expect(queue.peek()).toBe(model[0]);
        expect(queue.shift()).toBe(model.shift());
      } else if (typeof step === 'number') {
        queue.push(step);
        model.push(step);
      }
      expect(queue.length).toBe(model.length);
    }
  },
);

test('a long queue is cut without losing its order', () => {
  const queue = new Queue<number>();
  for (let index = 0; index < 5_000; index += 1) queue.push(index);
  for (let index = 0; index < 5_000; index += 1) expect(queue.shift()).toBe(index);
  expect(queue.shift()).toBeUndefined();
});

property.prop([fc.nat(100), fc.double({ min: 0, max: 0.999999, noNaN: true })])(
  'pitfall 54: a wait is between nothing and its ceiling, whatever the attempt',
  (attempt, random) => {
    const wait = fullJitter(reconnectBackoff, attempt, random);
    expect(wait).toBeGreaterThanOrEqual(0);
    expect(wait).toBeLessThanOrEqual(Math.min(10_000, 100 * 2 ** attempt));
  },
);

describe('a change buffer', () => {
  const steps = fc.array(
    fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          kind: fc.constant('write' as const),
          keys: fc.uniqueArray(fc.nat(4), { minLength: 1, maxLength: 3 }),
          deleted: fc.boolean(),
        }),
      },
      { weight: 5, arbitrary: fc.constant({ kind: 'take' as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: 'caught_up' as const }) },
    ),
    { maxLength: 60 },
  );

  property.prop([steps])(
    'loses nothing: what was taken, then resumed from its position, is the whole state',
    (run) => {
      const buffer = new ChangeBuffer(undefined);
      buffer.startedAt({ clusterId: 'c', epoch: 1, revision: 0 }, 'present_state');
      const history: Change[] = [];
      const view = new Map<string, number>();
      let revision = 0;
      let last = 0;
      let caughtUps = 0;
      let beforeCaughtUp: Map<string, number> | undefined;
      for (const step of run) {
        if (step.kind === 'write') {
          revision += 1;
          for (const key of step.keys) {
            const name = `k/${String(key)}`;
            const made: Change = step.deleted
              ? { kind: 'deleted', key: name, revision }
              : change(name, revision);
            history.push(made);
            buffer.add(made);
          }
          buffer.reached(revision);
        } else if (step.kind === 'caught_up') {
          if (revision === 0 || beforeCaughtUp !== undefined) continue;
          beforeCaughtUp = new Map(history.map(({ key, revision: at }) => [key, at]));
          buffer.caughtUp();
        } else {
          const event = buffer.shift();
          if (event?.kind === 'future' || event?.kind === 'deleted') {
            expect(event.revision).toBeGreaterThanOrEqual(last);
            expect(view.get(event.key) ?? 0).toBeLessThan(event.revision);
            last = event.revision;
            view.set(event.key, event.revision);
          } else if (event?.kind === 'caught_up') {
            caughtUps += 1;
            for (const [key, at] of beforeCaughtUp ?? [])
              expect(view.get(key) ?? 0).toBeGreaterThanOrEqual(at);
          }
        }
        // Whoever resumes here gets all later changes, and must then know everything.
        const resumed = new Map(view);
        const from = buffer.handedOut?.revision ?? 0;
        for (const { key, revision: at } of history) if (at > from) resumed.set(key, at);
        expect(resumed).toEqual(new Map(history.map(({ key, revision: at }) => [key, at])));
      }
      expect(buffer.size).toBeLessThanOrEqual(5);
      for (let event = buffer.shift(); event !== undefined; event = buffer.shift()) {
        if (event.kind === 'caught_up') caughtUps += 1;
      }
      expect(caughtUps).toBe(beforeCaughtUp === undefined ? 0 : 1);
    },
  );
});

test('values are given as bytes, text and JSON, and errors never quote them', () => {
  expect(textOf(futureOf('a', 1, 'héllo'))).toBe('héllo');
  expect(jsonOf(futureOf('a', 1, '{"n":1}'))).toEqual({ n: 1 });
  expect(() => jsonOf(futureOf('a', 1, 'hunter2'))).toThrow(expect.not.stringContaining('hunter2') as string);
  const { value, ...empty } = futureOf('a', 1);
  expect(value).toBeDefined();
  expect(() => bytesOf(empty)).toThrow(expect.objectContaining({ code: 'NO_VALUE' }));
  expect(() => textOf({ ...empty, value: Buffer.from([0xff]) })).toThrow(
    expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
  );
});
