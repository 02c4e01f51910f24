import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { matches } from '../../src/scopes/index.ts';
import { KeyOrder } from '../../src/store/key-order.ts';
import type { OrderedKeys } from '../../src/store/ordered-keys.ts';
import { pattern } from './support/cluster-of-one.ts';

const keysOf = (keys: OrderedKeys): string[] => {
  const seen: string[] = [];
  keys.scan('', (key) => {
    seen.push(key);
    return key;
  });
  return seen;
};

const segment = fc.constantFrom('a', 'a-b', 'b', 'out');
const key = fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join('/'));
const texts = ['*/out', 'a/*', 'a/*/**', '*/b/*', '*/**', 'b/*/out/**'];

test('groups have the keys that match, in order, whatever comes and goes before, while and after they are made', () => {
  const step = fc.record({
    key,
    what: fc.constantFrom('add', 'add', 'add', 'delete', 'ask'),
    asked: fc.constantFrom(...texts),
  });
  let made = 0;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.integer({ min: 1, max: 5 }), (steps, most) => {
      const order = new KeyOrder();
      const model = new Set<string>();
      const matching = (asked: string): string[] =>
        [...model].filter((each) => matches(pattern(asked), each)).sort((a, b) => (a < b ? -1 : 1));
      const check = (asked: string): boolean => {
        const found = order.matching(pattern(asked), most);
        expect(found).toBeDefined();
        if (found === 'making' || found === undefined) return false;
        expect(keysOf(found)).toEqual(matching(asked));
        made += 1;
        return true;
      };
      for (const { key: each, what, asked } of steps) {
        if (what === 'add') expect(order.add(each)).toBe(!model.has(each));
        if (what === 'delete') expect(order.delete(each)).toBe(model.has(each));
        if (what === 'add') model.add(each);
        if (what === 'delete') model.delete(each);
        if (what === 'ask') check(asked);
      }
      // It comes to an end: each time a part more has been made.
      for (const asked of texts)
        for (let times = 0; !check(asked); times += 1) expect(times).toBeLessThan(150);
    }),
    { numRuns: 300 },
  );
  expect(made).toBeGreaterThan(1000);
});

test('a shape of which there would be more than 100,000 groups has none', { timeout: 20_000 }, () => {
  const order = new KeyOrder();
  for (let number = 0; number < 100_000; number += 1) order.add(`n/${number}/x`);
  expect(keysOf(order.matching(pattern('*/7/x'), 1e6) as OrderedKeys)).toEqual(['n/7/x']);
  order.add('n/one more/x');
  expect(order.matching(pattern('*/7/x'), 1e6)).toBeUndefined();
  order.delete('n/one more/x');
  expect(order.matching(pattern('n/*/x'), 1e6)).toBeDefined();
  for (let number = 0; number < 2; number += 1) order.add(`m/${number}/y`);
  const other = new KeyOrder();
  for (let number = 0; number <= 100_000; number += 1) other.add(`n/${number}/x`);
  let found: OrderedKeys | 'making' | undefined = 'making';
  while (found === 'making') found = other.matching(pattern('*/7/x'), 30_000);
  expect(found).toBeUndefined();
});

test('groups of eight shapes are kept; one that nobody asks for any more makes room', () => {
  const order = new KeyOrder();
  order.add('a/b');
  const shape = (number: number): string => `${'*/'.repeat(number)}x`;
  for (let number = 1; number <= 8; number += 1)
    expect(order.matching(pattern(shape(number)), 10)).toBeDefined();
  expect(order.matching(pattern(shape(9)), 10)).toBeUndefined();
  for (let times = 0; times < 1000; times += 1)
    for (let number = 2; number <= 8; number += 1) order.matching(pattern(shape(number)), 10);
  expect(order.matching(pattern(shape(9)), 10)).toBeDefined();
  expect(order.matching(pattern(shape(10)), 10)).toBeUndefined();
  expect(order.matching(pattern(shape(1)), 10)).toBeUndefined();
});
