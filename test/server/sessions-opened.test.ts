/** What gateways are told of sessions that were opened through other servers. */
import { describe, expect, test } from 'vitest';
import { ServerCluster } from './support/server-cluster.ts';

describe('sessions that are opened', () => {
  test('are told at every server that has agents, once, in the order of the log', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    // Without agents nobody could be replaced, and nobody is told.
    for (const id of [1, 2]) cluster.agent(id);
    const agents = [cluster.agent(1), cluster.agent(2), cluster.agent(1)];
    for (const agent of agents) await cluster.answer(agent, agent.open());
    await cluster.time.run(1000);
    const told = agents.map(({ session }) => ({
      session,
      principal: 'agents:test',
      agoMs: expect.any(Number),
    }));
    for (const id of [1, 2]) expect(cluster.sessionsOpened(id)).toEqual(told);
    expect(cluster.sessionsOpened(3)).toEqual([]);
    for (const id of [1, 2])
      for (const { agoMs } of cluster.sessionsOpened(id)) expect(agoMs).toBeLessThan(1000);
  });

  test('and not those that are taken up again, by their agent or by a server that was taken for lost', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [before, after] = [cluster.agent(1), cluster.agent(2)];
    await cluster.answer(before, before.open());
    await cluster.time.run(1000);
    const moved = cluster.agent(2, before.session);
    expect(await cluster.answer(moved, moved.open(true))).toEqual({ kind: 'session_opened' });
    expect(await cluster.answer(after, after.open())).toEqual({ kind: 'session_opened' });
    await cluster.time.run(1000);
    expect(cluster.sessionsOpened(1).map(({ session }) => session)).toEqual([before.session, after.session]);
    expect(cluster.sessionsOpened(2).map(({ session }) => session)).toEqual([before.session, after.session]);
  });

  test('refused ones replace nobody', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const agent = cluster.agent(1);
    expect(await cluster.answer(agent, agent.open(true))).toMatchObject({ kind: 'failed' });
    expect(cluster.sessionsOpened(1)).toEqual([]);
  });
});
