import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import { Deadlines } from '../../src/server/deadlines.ts';

interface Item {
  readonly atMs: number;
  over: boolean;
}

const step = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), atMs: fc.integer({ min: 0, max: 1000 }) }),
  fc.record({ kind: fc.constant('over' as const), which: fc.nat() }),
  fc.record({ kind: fc.constant('tidy' as const) }),
  fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 0, max: 300 }) }),
);

describe('deadlines', () => {
  test.prop([fc.array(step, { maxLength: 200 })])(
    'pass in their order, each once, and not those of what is over',
    (steps) => {
      const deadlines = new Deadlines<Item>();
      let waiting: Item[] = [];
      let nowMs = 0;
      for (const each of steps) {
        if (each.kind === 'add') {
          const item = { atMs: nowMs + each.atMs, over: false };
          waiting.push(item);
          deadlines.add(item, item.atMs);
        } else if (each.kind === 'over') {
          const [item] = waiting.splice(each.which % Math.max(1, waiting.length), 1);
          if (item !== undefined) item.over = true;
        } else if (each.kind === 'tidy') deadlines.tidy(waiting.length);
        else {
          nowMs += each.ms;
          const due = waiting.filter(({ atMs }) => atMs <= nowMs);
          waiting = waiting.filter(({ atMs }) => atMs > nowMs);
          const passed = deadlines.passed(nowMs);
          expect(passed.map(({ atMs }) => atMs)).toEqual(due.map(({ atMs }) => atMs).sort((a, b) => a - b));
          expect(new Set(passed)).toEqual(new Set(due));
        }
        expect(deadlines.next()).toBe(Math.min(Infinity, ...waiting.map(({ atMs }) => atMs)));
      }
    },
  );

  test('of what is over are forgotten before they are most of it, and the rest pass in order', () => {
    const deadlines = new Deadlines<Item>();
    const items = Array.from({ length: 10_000 }, (_, at) => ({ atMs: (at * 7919) % 10_000, over: false }));
    for (const item of items) deadlines.add(item, item.atMs);
    for (const item of items) if (item.atMs % 10 !== 0) item.over = true;
    deadlines.tidy(1000);
    expect(deadlines.size).toBe(1000);
    const passed = deadlines.passed(10_000).map(({ atMs }) => atMs);
    expect(passed).toEqual(Array.from({ length: 1000 }, (_, at) => at * 10));
    expect(deadlines.size).toBe(0);
  });
});
