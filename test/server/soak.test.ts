import { describe, expect, test } from 'vitest';
import { resolveOperation, ServerCluster } from './support/server-cluster.ts';
import { World } from './support/soak-world.ts';

/**
 * Whole servers under random faults, then everything heals. Each writer counts upwards in a register of its own with
 * pipelined writes, so that the answers alone show order and exactly-once: write n opens generation n.
 *
 * With half of the seeds the members change meanwhile: servers are added, promoted, removed and replaced, with disks that
 * were wiped too, and leadership is handed about.
 */

const seeds = Number(process.env['FUTURESTORE_SOAK_SEEDS'] ?? 30);
const firstSeed = Number(process.env['FUTURESTORE_SOAK_FIRST'] ?? 1);
const steps = 150;

describe('whole servers under random faults', () => {
  for (let seed = firstSeed; seed < firstSeed + seeds; seed += 1) {
    test(`seed ${seed}: writes happen once and in order, reads are fresh, awaits end, nothing is missed`, async () => {
      const small = seed % 3 === 0 ? { raft: { uncommittedBytesMax: 2000, inflightMessagesMax: 4 } } : {};
      const cluster = await ServerCluster.start({
        servers: seed % 4 === 0 ? 5 : 3,
        seed,
        logRetainBytes: seed % 2 === 0 ? 8_000 : 64 * 1024 * 1024,
        ...small,
      });
      const world = new World(cluster, seed, Math.floor(seed / 4) % 2 === 0);
      for (let step = 0; step < steps && world.problems.length === 0; step += 1) await world.step();
      if (world.problems.length === 0) await world.heal();
      if (world.problems.length === 0) await world.converge();
      expect(world.problems).toEqual([]);
    }, 120_000);
  }
});

describe('a leader that is deposed in the very turn in which it is given commands', () => {
  test('keeps the order of what its agents had sent before', async () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const cluster = await ServerCluster.start({ servers: 5, seed });
      const { time, network } = cluster;
      const old = await cluster.newLeader();
      const agent = cluster.agent(old);
      agent.open();
      await time.run(500);
      network.isolate(old, cluster.ids);
      const requests: number[] = [];
      const write = (): void => {
        requests.push(agent.write([resolveOperation('k', String(requests.length), { supersede: true })]));
      };
      write();
      const leads = (id: number): boolean => cluster.server(id).status().role === 'leader';
      const isSucceeded = (): boolean => cluster.ids.some((id) => id !== old && leads(id));
      while (leads(old) && !isSucceeded()) await time.run(5);
      network.heal();
      for (let delayMs = 0; delayMs < 150; delayMs += 1) time.after(delayMs, write);
      await time.run(3000);
      const generations = requests.map((request) => {
        const body = agent.answer(request);
        return body?.kind === 'written' ? body.result.results[0]?.generation : body;
      });
      expect(generations).toEqual(requests.map((_request, index) => index + 1));
    }
  }, 60_000);
});
