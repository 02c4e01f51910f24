import { describe, expect, test } from 'vitest';
import { run, type Plan } from '../../src/simulation/index.ts';
import { inOwnTurn } from '../../src/simulation/microtasks.ts';
import type { Fault } from '../../src/simulation/plan.ts';
import { unrestOf } from '../../src/simulation/rest.ts';
import { benchPlan } from '../../src/simulation/scenario.ts';
import { World } from '../../src/simulation/world.ts';

/** One of three servers loses its disk, and somebody is revoked later. */
const planOf = (lostAtMs: number, plan: Partial<Plan> = {}): Plan => {
  const lost: Fault = { atMs: lostAtMs, kind: 'flip_bit', target: 1, salt: 4 };
  return {
    ...benchPlan,
    durationMs: 6000,
    electionTimeoutMs: 1000,
    heartbeatIntervalMs: 100,
    servers: benchPlan.servers.slice(0, 3),
    agents: benchPlan.agents.slice(0, 2).map((agent) => ({ ...agent, startMs: 0 })),
    faults: [lost, { atMs: 5000, kind: 'revoke', agent: 1 }],
    ...plan,
  };
};

const endOf = async (plan: Plan) => {
  const { failure, statistics } = await run(plan);
  return { failure, faults: statistics.faults, refused: statistics.happenings['damage found at the start'] };
};

describe('a change of access', () => {
  const soon = 100;
  const late = 4000;

  test('is given up where it would be the first, and a server was lost before all were in touch', async () => {
    const faults = { flip_bit: 1, 'revoke: not possible': 1 };
    expect(await endOf(planOf(soon))).toEqual({ failure: undefined, faults, refused: 1 });
  });

  test('is made once that server is replaced', async () => {
    const faults = { flip_bit: 1, revoke: 1 };
    const end = await endOf(planOf(soon, { replacesLost: true }));
    expect(end).toEqual({ failure: undefined, faults, refused: 1 });
  });

  test('is made where all were in touch before that server was lost', async () => {
    const faults = { flip_bit: 1, revoke: 1 };
    expect(await endOf(planOf(late))).toEqual({ failure: undefined, faults, refused: 1 });
  });
});

test('what a run waits for is said in words, also where no agent waits for anything', async () => {
  const words = await inOwnTurn(() => {
    const world = new World(planOf(100, { replacesLost: true, agents: [] }));
    world.begin();
    world.runUntil(5200);
    return unrestOf(world);
  });
  expect(words).toMatch(
    /^the access operator asks {"kind":"revoke","agent":1} \(server-1 \(member 1\) is not in /,
  );
});
