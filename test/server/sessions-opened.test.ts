/** What gateways are told of sessions that were opened through other servers. */
import { describe, expect, test } from 'vitest';
import type { PeerBatch } from '../../src/peers/index.ts';
import { put, write } from './support/members.ts';
import { ServerCluster } from './support/server-cluster.ts';

const told = (cluster: ServerCluster, id: number): string[] =>
  cluster
    .sessionsOpened(id)
    .filter(({ newerThan }) => newerThan === undefined)
    .map(({ session }) => session);

const newer = (cluster: ServerCluster, id: number) =>
  cluster
    .sessionsOpened(id)
    .flatMap(({ session, newerThan }) => (newerThan === undefined ? [] : [{ session, newerThan }]));

const opened = { kind: 'session_opened' };

describe('sessions that are opened', () => {
  test('are told at every other server, once, in the order of the log', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const agents = [cluster.agent(1), cluster.agent(2), cluster.agent(1)];
    for (const agent of agents) await cluster.answer(agent, agent.open());
    await cluster.time.run(1000);
    const [first, second, third] = agents.map(({ session }) => session) as [string, string, string];
    expect(told(cluster, 1)).toEqual([second]);
    expect(told(cluster, 2)).toEqual([first, third]);
    // A thread may have agents of which its server has not heard.
    expect(told(cluster, 3)).toEqual([first, second, third]);
    for (const { agoMs, principal } of cluster.sessionsOpened(3)) {
      expect(principal).toBe('agents:test');
      expect(agoMs).toBeLessThan(1000);
    }
  });

  test('and those that an agent takes up on another connection', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [before, after] = [cluster.agent(1), cluster.agent(2)];
    await cluster.answer(before, before.open());
    const moved = cluster.agent(2, before.session);
    expect(await cluster.answer(moved, moved.open(true))).toEqual(opened);
    expect(await cluster.answer(after, after.open())).toEqual(opened);
    await cluster.time.run(1000);
    expect(told(cluster, 1)).toEqual([before.session, after.session]);
    expect(told(cluster, 2)).toEqual([before.session]);
    expect(told(cluster, 3)).toEqual([before.session, before.session, after.session]);
  });

  test('but not those that a server attaches again because it was taken for lost', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [cut, other] = cluster.followers as [number, number];
    const agent = cluster.agent(cut);
    expect(await cluster.answer(agent, agent.open())).toEqual(opened);
    cluster.network.isolate(cut, cluster.ids);
    await cluster.time.run(8000);
    cluster.network.heal();
    await cluster.time.run(3000);
    expect(await cluster.answer(agent, agent.write(put('k')))).toMatchObject({ kind: 'written' });
    expect(told(cluster, other)).toEqual([agent.session]);
  });

  test('with the time since they were asked for, however long they waited for a leader', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [cut, other] = cluster.followers as [number, number];
    const agent = cluster.agent(cut);
    cluster.network.isolate(cut, cluster.ids);
    agent.open();
    await cluster.time.run(3000);
    cluster.network.heal();
    await cluster.time.until('it is told', () => told(cluster, other).includes(agent.session));
    expect(cluster.sessionsOpened(other)[0]?.agoMs).toBeGreaterThan(2500);
  });

  test('refused ones replace nobody', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const agent = cluster.agent(1);
    expect(await cluster.answer(agent, agent.open(true))).toMatchObject({ kind: 'failed' });
    expect(cluster.sessionsOpened(2)).toEqual([]);
  });
});

describe('an opening that comes into the log twice', () => {
  /** Opens one at a follower. Gives the function that has it come once more. */
  const openTwice = async (cluster: ServerCluster) => {
    const [at, other] = cluster.followers as [number, number];
    const leader = cluster.leader as number;
    let forwarded: PeerBatch | undefined;
    cluster.network.lose(at, leader, (batch) => {
      if (batch.forward.length > 0) forwarded = batch;
      return false;
    });
    const agent = cluster.agent(at);
    expect(await cluster.answer(agent, agent.open())).toEqual(opened);
    cluster.network.lose(at, leader, () => false);
    const again = async (): Promise<void> => {
      if (forwarded === undefined) throw new Error('nothing was forwarded');
      cluster.network.inject(at, leader, { ...forwarded, raft: [] });
      await cluster.time.run(200);
    };
    return { at, other, agent, again };
  };

  test('is told once: between the two the other one of two agents may have become the newer one', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const { at, other, agent, again } = await openTwice(cluster);
    const second = cluster.agent(other);
    expect(await cluster.answer(second, second.open())).toEqual(opened);
    await again();
    expect(told(cluster, other)).toEqual([agent.session]);
    expect(told(cluster, at)).toEqual([second.session]);
  });

  test('leaves no session attached to a connection that has ended in between', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const { agent, again } = await openTwice(cluster);
    agent.close();
    await cluster.time.run(200);
    await again();
    // Its grace is 5 s.
    await cluster.time.run(8000);
    const late = cluster.agent(cluster.leader as number, agent.session);
    expect(await cluster.answer(late, late.open(true))).toMatchObject({
      failure: { code: 'SESSION_EXPIRED' },
    });
  });
});

describe('two sessions of one principal at two servers', () => {
  test('are told of to the older one, some time later, and again', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [older, younger] = [cluster.agent(1), cluster.agent(2)];
    for (const agent of [older, younger]) expect(await cluster.answer(agent, agent.open())).toEqual(opened);
    await cluster.time.run(1500);
    expect(newer(cluster, 1)).toEqual([]);
    await cluster.time.run(2000);
    const said = { session: younger.session, newerThan: older.session };
    expect(newer(cluster, 1)).toEqual([said]);
    await cluster.time.run(40_000);
    expect(newer(cluster, 1)).toEqual([said, said]);
    for (const id of [2, 3]) expect(newer(cluster, id)).toEqual([]);
    younger.close();
    await cluster.time.run(60_000);
    expect(newer(cluster, 1)).toHaveLength(2);
  });

  test('are told of when a snapshot has jumped over the opening of the newer one', async () => {
    for (let seed = 1; seed <= 5; seed += 1) {
      const cluster = await ServerCluster.start({ servers: 3, seed, logRetainBytes: 16 * 1024 });
      const [cut, other] = cluster.followers as [number, number];
      const older = cluster.agent(cut);
      expect(await cluster.answer(older, older.open())).toEqual(opened);
      cluster.network.isolate(cut, cluster.ids);
      const younger = cluster.agent(other);
      expect(await cluster.answer(younger, younger.open())).toEqual(opened);
      await write(cluster, other, 60, 100_000);
      await cluster.time.run(1000);
      cluster.network.heal();
      await cluster.time.run(6000);
      expect(cluster.network.snapshotsSent).toBeGreaterThan(0);
      expect(newer(cluster, cut).map(({ newerThan }) => newerThan)).toContain(older.session);
      expect(newer(cluster, other).map(({ newerThan }) => newerThan)).not.toContain(younger.session);
    }
  });
});
