import { describe, expect, test } from 'vitest';
import { describeMember, resolveOperation, ServerCluster } from './support/server-cluster.ts';

const expectServing = async (cluster: ServerCluster, at: number): Promise<void> => {
  const agent = cluster.agent(at);
  agent.open();
  const write = agent.write([resolveOperation(`serving/${at}`, 'v', { supersede: true })]);
  expect(await cluster.answer(agent, write, 5000)).toMatchObject({ kind: 'written' });
};

const ids = async (cluster: ServerCluster, at: number): Promise<number[]> =>
  (await cluster.list(at)).members.map(({ id }) => id);

describe('a change that is wanted waits', () => {
  test('while most of those who would remain are not there, although they were when it was asked for', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = cluster.leader as number;
    const [dead, leaving] = cluster.followers as [number, number];
    await cluster.time.run(1500);
    // Its machine has lost power: the links to it seem well for some seconds.
    const clock = cluster.clocks.get(dead);
    if (clock) clock.stoppedUntilMs = cluster.time.nowMs + 20_000;
    await cluster.time.run(2000);
    expect(await cluster.remove(leader, leaving)).toBe(leaving);
    await cluster.time.run(3000);
    await expectServing(cluster, leader);
    expect(await cluster.list(leader)).toMatchObject({ changePending: true });
    await cluster.time.run(20_000);
    expect(await ids(cluster, leader)).toEqual([leader, dead].sort((a, b) => a - b));
    await expectServing(cluster, leader);
    expect(cluster.fatal).toEqual([]);
  });

  test('while two members would be replaced at once by servers that do not run', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = cluster.leader as number;
    const [first, second] = cluster.followers as [number, number];
    await cluster.time.run(1500);
    const operator = cluster.agent(leader);
    operator.send({ ...describeMember(4), kind: 'member_add', replaces: first });
    operator.send({ ...describeMember(5), kind: 'member_add', replaces: second });
    await cluster.time.run(3000);
    await expectServing(cluster, leader);
    await cluster.start(4, { join: true });
    expect((await cluster.settled(leader)).members.map(({ id }) => id)).toEqual([leader, 4, 5]);
    await expectServing(cluster, leader);
    expect(cluster.fatal).toEqual([]);
  });

  test('where all that vote are to leave, and the list says so', async () => {
    const cluster = await ServerCluster.start({ servers: 2 });
    const leader = cluster.leader as number;
    await cluster.time.run(1500);
    const operator = cluster.agent(leader);
    for (const member of cluster.ids) operator.send({ kind: 'member_remove', member });
    await cluster.time.run(3000);
    expect(await cluster.list(leader)).toMatchObject({ changePending: true });
    await expectServing(cluster, leader);
  });
});

test('a server that waits to be added does not claim to know the members', async () => {
  const cluster = await ServerCluster.start({ servers: 3 });
  await cluster.start(4, { join: true });
  await cluster.time.run(1500);
  const agent = cluster.agent(4);
  expect(await cluster.answer(agent, agent.send({ kind: 'member_list' }))).toMatchObject({
    failure: { code: 'UNAVAILABLE' },
  });
});
