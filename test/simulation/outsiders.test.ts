import { describe, expect, test } from 'vitest';
import { run, type Fault, type Plan } from '../../src/simulation/index.ts';
import { inOwnTurn } from '../../src/simulation/microtasks.ts';
import { benchPlan } from '../../src/simulation/scenario.ts';
import { World } from '../../src/simulation/world.ts';

const planOf = (servers: number, faults: readonly Fault[]): Plan => ({
  ...benchPlan,
  durationMs: 4000,
  electionTimeoutMs: 300,
  heartbeatIntervalMs: 50,
  servers: benchPlan.servers.slice(0, servers),
  agents: benchPlan.agents.slice(0, 2).map((agent) => ({ ...agent, startMs: 0, subscriptions: 1 })),
  filesFollow: true,
  faults,
});

interface Line {
  readonly atMs: number;
  readonly text: string;
}

const linesOf = async (plan: Plan): Promise<readonly Line[]> => {
  const lines: Line[] = [];
  const { failure } = await run(plan, {
    sink: (line) => {
      const [, time = '', text = ''] = /^\s*(\d+\.\d+) (.*)$/.exec(line) ?? [];
      lines.push({ atMs: Number(time), text });
    },
  });
  expect(failure).toBeUndefined();
  return lines;
};

describe('a server that was removed', () => {
  test('and is started once more, where nobody can tell it yet, is not held to what the members agree on', async () => {
    const crashMs = 2000;
    const downFor = (downMs: number): Plan =>
      planOf(4, [
        { atMs: crashMs, kind: 'crash', target: 4, downMs, silent: false, keepSome: true },
        { atMs: 2500, kind: 'remove_member', target: 4 },
        { atMs: 3500, kind: 'apply_policies', restrictions: [[1, 'few_keys']] },
      ]);
    const without = await linesOf(downFor(3_600_000));
    const restartMs = without.findLast(({ text }) => text === 'server 1 starts')?.atMs ?? 0;
    expect(without.filter(({ text }) => text === 'server 4 starts').length).toBe(2);
    // All are started at the same time, and elect a leader first.
    const atMs = restartMs + 100;
    const lines = await linesOf(downFor(atMs - crashMs));
    expect(lines).toContainEqual({ atMs, text: 'server 4 starts' });
  });
});

describe('a copy of a disk from the last run', () => {
  test('is never met by a member that was added since, which has not heard what it lacks', () =>
    inOwnTurn(() => {
      const added: readonly Fault[] = [
        { atMs: 3400, kind: 'add_member', promote: false, startAfterMs: 50 },
        { atMs: 5000, kind: 'partition', shape: 'alone', target: 3, forMs: 100, salt: 1 },
      ];
      const copied: Fault = { atMs: 2000, kind: 'earlier_disk', target: 3, forMs: 500 };
      const world = new World({ ...planOf(3, [copied, ...added]), durationMs: 10_000 });
      world.begin();
      expect(world.runUntil(3300)).toBe(true);
      const [first, second, damaged] = world.machines;
      expect(damaged?.damage).toBe('older');
      expect(damaged?.knownBetterBy).toEqual(new Set([first, second]));
      const isCut = (from = 0, to = 0): boolean => world.peers.isBlocked(from, to);
      for (const atMs of [4900, 8000]) {
        expect(world.runUntil(atMs)).toBe(true);
        const newcomer = world.machines[3];
        expect(newcomer?.process).toBeDefined();
        expect([isCut(3, newcomer?.id), isCut(newcomer?.id, 3)]).toEqual([true, true]);
      }
      expect([isCut(3, 1), isCut(2, 3), isCut(4, 1)]).toEqual([false, false, false]);
      expect(damaged?.foundOut).toBe(true);
    }));
});
