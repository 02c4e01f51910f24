import { expect, test } from 'vitest';
import { ServerCluster } from './support/server-cluster.ts';

test('a server says for how long it has known no leader', async () => {
  const cluster = await ServerCluster.start({ servers: 3 });
  const [cutOff, other] = cluster.followers as [number, number];
  const leaderless = (id: number): number => cluster.standing(id).leaderlessMs;
  // It is said at a tick.
  await cluster.time.run(50);
  expect(cluster.ids.map(leaderless)).toEqual([0, 0, 0]);
  cluster.network.isolate(cutOff, cluster.ids);
  await cluster.time.run(10_000);
  // Its own election timeout had to pass before it gave the leader up.
  expect(leaderless(cutOff)).toBeGreaterThan(7000);
  expect(leaderless(cutOff)).toBeLessThanOrEqual(10_000);
  expect(leaderless(other)).toBe(0);
  await cluster.time.run(5000);
  expect(leaderless(cutOff)).toBeGreaterThan(12_000);
  cluster.network.heal();
  await cluster.time.run(3000);
  expect(leaderless(cutOff)).toBe(0);
});
