import { expect, test } from 'vitest';
import { Totals, type Statistics } from '../../src/simulation/statistics.ts';

const statistics = (keys: number, undecided: number): Statistics => ({
  seeds: 1,
  simulatedMs: 0,
  processorMs: 0,
  loaded: { simulatedMs: 0, processorMs: 0 },
  events: 0,
  faults: {},
  operations: {},
  happenings: {},
  searched: { keys, undecided },
});

const totalsOf = (...runs: readonly (readonly [keys: number, undecided: number])[]): Totals => {
  const totals = new Totals();
  for (const [at, [keys, undecided]] of runs.entries()) totals.add(at + 1, statistics(keys, undecided));
  return totals;
};

test('how many keys were not judged is always told, also that it is none', () => {
  expect(totalsOf([10, 0]).table(0)).toMatch(/^keys undecided +0$/m);
  expect(totalsOf([10, 0]).undecided).toBeUndefined();
});

test('runs of which more than one key in 2,000 was not judged are no success', () => {
  expect(totalsOf([10, 0], [10, 1]).undecided).toContain('of 20 keys 1 were not judged');
  expect(totalsOf([10, 0], [10, 1]).undecided).toContain('in seeds 2');
  expect(totalsOf([1999, 1]).undecided).toBeDefined();
  expect(totalsOf([2000, 1]).undecided).toBeUndefined();
  expect(totalsOf([2000, 1]).table(0)).toMatch(/^keys undecided +1$/m);
});
