import { expect, test } from 'vitest';
import type { AgentPlan, Plan } from '../../src/simulation/plan.ts';
import { inOwnTurn } from '../../src/simulation/microtasks.ts';
import { World } from '../../src/simulation/world.ts';

const agentPlan = (id: number): AgentPlan => ({
  id,
  startMs: 0,
  thinkMs: 1e9,
  writes: 1,
  reads: 0,
  lists: 0,
  awaits: 0,
  batches: 0,
  statuses: 0,
  subscriptions: 1,
  concurrency: 1,
  sessionGraceMs: 60_000,
  // Nothing ever fails for them: they would wait for ever.
  timeoutMs: undefined,
});

const planOf = (seed: number): Plan => ({
  seed,
  durationMs: 0,
  servers: [1, 2, 3].map(() => ({ wallOffsetMs: 0, clockRate: 1, diskLatencyMs: 1 })),
  electionTimeoutMs: 1000,
  heartbeatIntervalMs: 100,
  logRetainBytes: 1_000_000,
  raft: {},
  store: {},
  network: { latencyMs: 1, jitterMs: 0, loss: 0, duplication: 0, reordering: 0, reorderMs: 0 },
  agentsLatencyMs: 1,
  keys: 5,
  valueBytesMax: 10,
  agents: [1, 2, 3, 4, 5, 6, 7, 8].map(agentPlan),
  faults: [],
});

/** Within `withinMs` of when the server is cut off from the others, for good; its agents are not. */
const unservedAfter = (seed: number, withinMs: number): Promise<readonly (number | undefined)[]> =>
  inOwnTurn(() => {
    const world = new World(planOf(seed));
    world.begin();
    world.runUntil(5000);
    const chosen = world.leader ?? 1;
    for (const other of [1, 2, 3]) {
      if (other === chosen) continue;
      world.peers.block(chosen, other);
      world.peers.block(other, chosen);
    }
    world.runUntil(8000);
    const unserved = new Set(world.agents);
    for (const agent of world.agents) agent.ask(() => unserved.delete(agent));
    world.runUntil(5000 + withinMs);
    expect(world.failure).toBeUndefined();
    const here = world.machines.find(({ id }) => id === chosen)?.process?.gateway.connections;
    return [here, unserved.size];
  });

test('agents without timeouts leave a server that is cut off from the others, and are served elsewhere', async () => {
  for (let seed = 1; seed <= 3; seed += 1) {
    expect(await unservedAfter(seed, 20_000), `seed ${seed}`).toEqual([0, 0]);
  }
  // Not because nobody was there, and not before its time.
  const [here, unserved] = await unservedAfter(1, 4000);
  expect(here).toBeGreaterThan(0);
  expect(unserved).toBe(here);
});
