import { describe, expect, test } from 'vitest';
import { drawPlan, shrink, type Plan, type Runner, type RunResult } from '../../src/simulation/index.ts';

const statistics = {
  seeds: 1,
  simulatedMs: 0,
  processorMs: 0,
  loaded: { simulatedMs: 0, processorMs: 0 },
  events: 0,
  faults: {},
  operations: {},
  happenings: {},
  searched: { keys: 0, undecided: 0 },
};

const resultOf = (plan: Plan, fails: boolean, check = 'some check'): RunResult => ({
  seed: plan.seed,
  ok: !fails,
  failure: fails ? { check, problem: '', atMs: Infinity } : undefined,
  statistics,
  simulatedMs: 0,
  trace: [],
  history: [],
});

/** A seed with enough in it to leave out. */
const busySeed = (): Plan => {
  for (let seed = 1; ; seed += 1) {
    const plan = drawPlan(seed);
    if (plan.faults.length > 20 && plan.agents.length > 4) return plan;
  }
};

describe('shrinking', () => {
  test('leaves the faults and agents that the failure needs, and no others', async () => {
    const plan = busySeed();
    const needed = [plan.faults[3], plan.faults[17]];
    const agent = plan.agents[2];
    const runner: Runner = (tried) => {
      const fails = needed.every((fault) => fault && tried.faults.includes(fault));
      return Promise.resolve(resultOf(tried, fails && agent !== undefined && tried.agents.includes(agent)));
    };
    const shrunk = await shrink(runner, plan, resultOf(plan, true), 500);
    expect(shrunk.plan.faults).toEqual(needed);
    expect(shrunk.plan.agents).toEqual([agent]);
  });

  test('does not take another failure for the one that is looked for', async () => {
    const plan = busySeed();
    const runner: Runner = (tried) => Promise.resolve(resultOf(tried, true, 'another check'));
    const shrunk = await shrink(runner, plan, resultOf(plan, true), 500);
    expect(shrunk.plan).toEqual(plan);
  });

  test('ends after the runs that it may spend', async () => {
    const plan = busySeed();
    let runs = 0;
    const runner: Runner = (tried) => {
      runs += 1;
      return Promise.resolve(resultOf(tried, tried.faults.length > 15));
    };
    const { reruns } = await shrink(runner, plan, resultOf(plan, true), 7);
    expect(reruns).toBe(7);
    expect(runs).toBe(7);
  });
});
