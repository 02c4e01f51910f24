import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planMoves } from '../../src/server/rebalance.ts';
import type { Load } from '../../src/server/rebalance.ts';

const loadsOf = (...agents: readonly number[]): Load[] =>
  agents.map((count, index) => ({ member: index + 1, agents: count, endpoint: `wss://s${index + 1}` }));

const after = (loads: readonly Load[]): number[] => {
  const plan = planMoves(loads);
  const moves = [...plan.values()].flat();
  return loads.map(({ member, agents, endpoint }) => {
    const gone = (plan.get(member) ?? []).reduce((sum, move) => sum + move.agents, 0);
    const come = moves
      .filter((move) => move.endpoint === endpoint)
      .reduce((sum, move) => sum + move.agents, 0);
    return agents - gone + come;
  });
};

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);

describe('the plan of a rebalance', () => {
  test('fills a server that is empty from those that have more than their share', () => {
    expect(planMoves(loadsOf(10, 8, 0))).toEqual(
      new Map([
        [1, [{ endpoint: 'wss://s3', agents: 4 }]],
        [2, [{ endpoint: 'wss://s3', agents: 2 }]],
      ]),
    );
  });

  test('moves nobody where all are within a twentieth of the mean, or one agent, of their share', () => {
    for (const loads of [[], [7], [3, 3, 2], [1, 0, 0], [2, 1, 0], [1050, 1000, 950]])
      expect(planMoves(loadsOf(...loads))).toEqual(new Map());
    expect(after(loadsOf(1052, 1000, 948))).toEqual([1000, 1000, 1000]);
  });

  test('loses and invents nobody, makes all even, and moves no more than are too many', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 20_000 }), { minLength: 2, maxLength: 9 }), (agents) => {
        const loads = loadsOf(...agents);
        const moved = sum([...planMoves(loads).values()].flat().map((move) => move.agents));
        const result = after(loads);
        expect(sum(result)).toBe(sum(agents));
        const least = Math.floor(sum(agents) / agents.length);
        const tolerance = Math.max(1, Math.floor(sum(agents) / agents.length / 20));
        if (moved === 0) {
          for (const count of agents) expect(Math.abs(count - least)).toBeLessThanOrEqual(tolerance + 1);
          return;
        }
        expect(Math.max(...result) - Math.min(...result)).toBeLessThanOrEqual(1);
        expect(moved).toBeLessThanOrEqual(sum(agents.map((count) => Math.max(0, count - least))));
      }),
    );
  });
});
