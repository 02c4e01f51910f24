import { expect, test } from 'vitest';
import { describeMember, ServerCluster } from './support/server-cluster.ts';

test('a server that is added and removed is not added again by the request that was sent twice', async () => {
  const cluster = await ServerCluster.start({ servers: 3 });
  const leader = cluster.leader as number;
  const [asked] = cluster.followers as [number];
  await cluster.time.run(1500);
  const agent = cluster.agent(asked);
  const request = agent.send({ ...describeMember(4), kind: 'member_add' });
  // The leader gets it, and the one that was asked hears nothing of what became of it.
  await cluster.time.run(1);
  cluster.network.cut(leader, asked);
  await cluster.settled(leader);
  expect((await cluster.list(leader)).members.map(({ id }) => id)).toEqual([1, 2, 3, 4]);
  await cluster.remove(leader, 4);
  await cluster.settled(leader);
  await cluster.time.run(3000);
  cluster.network.heal();
  expect(await cluster.answer(agent, request)).toEqual({ kind: 'member_changed', member: 4 });
  await cluster.time.run(3000);
  expect((await cluster.list(leader)).members.map(({ id }) => id)).toEqual([1, 2, 3]);
  expect(await cluster.add(leader, 4)).toBe(5);
});
