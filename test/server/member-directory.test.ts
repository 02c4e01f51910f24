import { describe, expect, test } from 'vitest';
import { MemoryDisk } from '../../src/storage/index.ts';
import { expectServing, started, voters, write } from './support/members.ts';
import { describeMember, type ServerCluster } from './support/server-cluster.ts';

describe('addresses', () => {
  test('of members that the file does not name come from the log, also after a restart', async () => {
    const cluster = await started(3);
    for (const id of [4, 5]) await cluster.grow(1, id);
    await cluster.converged();
    for (const id of [1, 2, 3, 4, 5]) cluster.crash(id);
    // The old ones know nothing of the new ones but what is on their disks, and these nothing of each other.
    for (const id of [3, 4, 5]) await cluster.start(id);
    await cluster.time.until('somebody leads', () => cluster.leads !== undefined);
    for (const id of [3, 4, 5]) await expectServing(cluster, id);
    expect(cluster.fatal).toEqual([]);
  });

  test('of a leader that a server has never heard of come from its own file', async () => {
    const cluster = await started(3);
    const away = cluster.followers[0] as number;
    cluster.crash(away);
    await cluster.grow(cluster.leader as number, 4);
    const agent = cluster.agent(4);
    await cluster.answer(agent, agent.send({ kind: 'transfer_leader', member: 4 }));
    await cluster.start(away, { file: [1, 2, 3, 4] });
    await expectServing(cluster, away);
    expect(cluster.leads).toBe(4);
  });
});

describe('members that a server has not heard of yet', () => {
  /** With a server that was down all the time while others were added; each of them votes. */
  const grownWithout = async (
    added: readonly number[],
    servers = 3,
  ): Promise<{ cluster: ServerCluster; away: number }> => {
    const cluster = await started(servers);
    const away = cluster.followers[0] as number;
    cluster.crash(away);
    for (const id of added) await cluster.grow(cluster.leader as number, id);
    return { cluster, away };
  };

  const lead = async (cluster: ServerCluster, member: number): Promise<void> => {
    const agent = cluster.agent(member);
    expect(await cluster.answer(agent, agent.send({ kind: 'transfer_leader', member }))).toEqual({
      kind: 'leader_transferred',
      member,
    });
  };

  test('are heard of from themselves: a server that was down follows the new leader, catches up and votes', async () => {
    const { cluster, away } = await grownWithout([4]);
    await lead(cluster, 4);
    await write(cluster, 4, 20);
    await cluster.start(away);
    await expectServing(cluster, away);
    expect(cluster.leads).toBe(4);
    await cluster.converged();
    expect(await voters(cluster, away)).toEqual([1, 2, 3, 4]);
    // Three of four: the leader goes, and nobody can lead without the vote of the one that was away.
    cluster.crash(4);
    await cluster.time.until('another one leads', () => cluster.leads !== undefined);
    await expectServing(cluster, away);
    expect(cluster.fatal).toEqual([]);
  });

  test('can be all that are left: the others are gone when it comes back', async () => {
    const { cluster, away } = await grownWithout([4, 5]);
    await write(cluster, 4, 20);
    const [first, second] = cluster.ids.filter((id) => id !== away) as [number, number];
    await cluster.converged();
    cluster.crash(first);
    cluster.crash(second);
    await cluster.time.run(3000);
    expect(cluster.leads).toBeUndefined();
    await cluster.start(away);
    await expectServing(cluster, away, 10_000);
    await expectServing(cluster, 4);
    // Also when it starts again it knows them, now from its disk.
    cluster.crash(away);
    await cluster.start(away);
    await expectServing(cluster, away, 10_000);
    expect(await voters(cluster, away)).toEqual([1, 2, 3, 4, 5]);
    expect(cluster.fatal).toEqual([]);
  });

  test('may lead when a server joins whose file does not name them', async () => {
    const cluster = await started(3);
    await cluster.grow(1, 4);
    await lead(cluster, 4);
    expect(await cluster.add(1, 5)).toBe(5);
    await cluster.start(5, { join: true, file: [5] });
    await expectServing(cluster, 5);
    expect(cluster.leads).toBe(4);
    await cluster.time.run(1500);
    const { members } = await cluster.list(5);
    expect(members).toMatchObject([1, 2, 3, 4, 5].map((id) => ({ name: `server-${id}`, reachable: true })));
    await cluster.promote(5, 5);
    await cluster.settled(5);
    // It has no other word of where the first three are than their own, each time it starts.
    cluster.crash(5);
    await cluster.start(5, { file: [5] });
    await lead(cluster, 5);
    await expectServing(cluster, 5);
  });

  test('are let go when the log has come to where they left', async () => {
    const { cluster, away } = await grownWithout([6], 5);
    const others = cluster.ids.filter((id) => id !== away);
    // It meets one that has left and was never told so.
    cluster.network.isolate(6, others);
    await cluster.remove(others[0] as number, 6);
    await cluster.settled(others[0] as number);
    cluster.network.isolate(away, others);
    await cluster.start(away);
    await cluster.time.run(3000);
    const refusal = () => cluster.server(away).refusePeer(6, cluster.presence(6));
    expect(refusal()).toBeUndefined();
    expect(cluster.removed.has(6)).toBe(false);
    cluster.network.heal(away, others);
    await cluster.time.until('it is told', () => cluster.removed.has(6));
    expect(refusal()).toMatchObject({ removed: true });
    await expectServing(cluster, away);
    expect(cluster.fatal).toEqual([]);
  });

  test('pitfall 31: are refused as soon as the log shows that their disk is another one', async () => {
    const { cluster, away } = await grownWithout([4]);
    const others = cluster.ids.filter((id) => id !== away);
    const genuine = cluster.presence(4);
    cluster.crash(4);
    cluster.disks.set(4, new MemoryDisk());
    const apart = cluster.ids.filter((id) => id !== away);
    cluster.network.isolate(4, apart);
    cluster.network.isolate(away, others);
    await cluster.start(4, { join: true });
    await cluster.start(away);
    await cluster.time.run(3000);
    const wiped = cluster.presence(4);
    const refusal = (presence = wiped) => cluster.server(away).refusePeer(4, presence);
    // Nothing that it could know of yet: and there is nothing that the two could do together.
    expect(refusal()).toBeUndefined();
    expect(cluster.leads).not.toBe(4);
    cluster.network.heal();
    await expectServing(cluster, away);
    expect(refusal()?.reason).toMatch(/another data directory than the cluster knows/);
    await cluster.time.run(6000);
    expect(await cluster.member(away, 4)).toMatchObject({ reachable: false });
    // Whom it takes for the member now is the one that the log knows.
    expect(refusal(genuine)).toBeUndefined();
    expect(cluster.fatal).toMatchObject([{ id: 4, error: { code: 'DATA_OUTDATED' } }]);
  });

  describe('at one server', () => {
    const introduce = (cluster: ServerCluster, id: number, name = `server-${id}`) =>
      cluster.server(1).refusePeer(id, {
        run: 2 ** 20,
        diskId: Buffer.alloc(16, id),
        standing: { term: 0, lastIndex: 0 },
        introduction: { name, address: `s${id}:7422` },
      });
    const stranger = {
      reason: expect.stringMatching(/not known here as a member/) as string,
      removed: false,
    };

    test('are few, and make room only when they are silent for long', async () => {
      const cluster = await started(3);
      for (let id = 11; id <= 18; id += 1) expect(introduce(cluster, id)).toBeUndefined();
      expect(introduce(cluster, 19)).toEqual(stranger);
      expect(introduce(cluster, 11)).toBeUndefined();
      await cluster.time.run(50_000);
      expect(introduce(cluster, 19)).toEqual(stranger);
      cluster.network.inject(11, 1, { raft: [], forward: [], forwardTerm: 0 });
      await cluster.time.run(11_000);
      for (let id = 19; id <= 25; id += 1) expect(introduce(cluster, id)).toBeUndefined();
      expect(introduce(cluster, 26)).toEqual(stranger);
      expect(introduce(cluster, 11)).toBeUndefined();
    });

    test('take the place of nobody, count for nothing, and are in no list', async () => {
      const cluster = await started(3);
      expect(introduce(cluster, 2)).toMatchObject({ removed: false });
      expect(introduce(cluster, 14)).toBeUndefined();
      const { members } = await cluster.list(1);
      expect(members).toMatchObject([1, 2, 3].map((id) => describeMember(id)));
      expect(cluster.standing(1).identity.endpoints).toHaveLength(3);
      expect(await cluster.add(1, 4)).toBe(4);
      await cluster.settled(1);
      expect((await cluster.list(1)).members).toHaveLength(4);
    });

    test('are refused where they do not say who they are, or are known to be gone', async () => {
      const cluster = await started(3);
      const { introduction: _, ...presence } = cluster.presence(2);
      expect(cluster.server(1).refusePeer(9, presence)).toEqual(stranger);
      expect(introduce(cluster, 9, 'no name')).toEqual(stranger);
      await cluster.grow(1, 4);
      await cluster.remove(1, 4);
      await cluster.settled(1);
      await cluster.time.run(1000);
      expect(introduce(cluster, 4)).toMatchObject({ removed: true });
    });
  });
});
