import { describe, expect, test } from 'vitest';
import { MemoryDisk, openMemoryStorage } from '../../src/storage/index.ts';
import { describeMember, resolveOperation, ServerCluster } from './support/server-cluster.ts';

const put = (key: string, value = 'v') => [resolveOperation(key, value, { supersede: true })];

const write = async (cluster: ServerCluster, at: number, count: number, bytes = 10): Promise<void> => {
  const agent = cluster.agent(at);
  agent.open();
  for (let number = 0; number < count; number += 1)
    await cluster.answer(agent, agent.write(put(`k/${number}`, 'x'.repeat(bytes))));
};

const expectServing = async (cluster: ServerCluster, at: number, withinMs = 5000): Promise<void> => {
  const agent = cluster.agent(at);
  agent.open();
  expect(await cluster.answer(agent, agent.write(put(`serving/${at}`)), withinMs)).toMatchObject({
    kind: 'written',
  });
  const read = agent.send({ kind: 'get', key: `serving/${at}`, stale: false });
  expect(await cluster.answer(agent, read, withinMs)).toMatchObject({ future: { state: 'resolved' } });
};

const voters = async (cluster: ServerCluster, at: number): Promise<number[]> =>
  (await cluster.list(at)).members.filter(({ standing }) => standing === 'voter').map(({ id }) => id);

const started = (servers: number, more: { logRetainBytes?: number; seed?: number } = {}) =>
  ServerCluster.start({ servers, ...more });

describe('a server that is added', () => {
  test('is a learner that catches up, serves and does not count, and votes when it is promoted', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    await write(cluster, leader, 50);
    expect(await cluster.add(cluster.followers[0] as number, 4)).toBe(4);
    await cluster.start(4, { join: true });
    await cluster.time.until('it has caught up', () => cluster.server(4).status().keys >= 50);
    await cluster.settled(leader);
    await cluster.time.run(2000);
    expect(cluster.server(4).status().role).toBe('learner');
    expect(await cluster.member(leader, 4)).toEqual({
      ...describeMember(4),
      standing: 'learner',
      wanted: 'learner',
      reachable: true,
      lag: 0,
      joined: true,
    });
    await expectServing(cluster, 4);
    const agent = cluster.agent(4);
    const status = await cluster.answer(agent, agent.send({ kind: 'status' }));
    expect(status).toMatchObject({ status: { members: [{}, {}, {}, { id: 4, role: 'learner' }] } });
    for (const id of [1, 2, 3, 4])
      expect(cluster.agent(id).port.identity.endpoints).toEqual([1, 2, 3, 4].map((each) => `wss://s${each}`));

    await cluster.promote(4, 4);
    await cluster.settled(leader);
    expect(await voters(cluster, 4)).toEqual([1, 2, 3, 4]);
    // Three of four: with one gone the new one's word is needed.
    cluster.crash(cluster.ids.find((id) => id !== leader) as number);
    await cluster.time.run(1000);
    await expectServing(cluster, 4);
    await cluster.converged();
    expect(cluster.fatal).toEqual([]);
  });

  test('pitfall 19: and is not there never deposes the leader, nor holds up a write as a learner', async () => {
    const cluster = await started(1);
    await cluster.add(1, 2);
    await cluster.settled(1);
    const { term } = cluster.server(1).status();
    await cluster.time.run(10_000);
    await expectServing(cluster, 1, 100);
    expect(cluster.server(1).status()).toMatchObject({ role: 'leader', term });
  });

  test('gets the state by a snapshot where the log does not reach back', async () => {
    const cluster = await started(3, { logRetainBytes: 20_000 });
    await write(cluster, 1, 300, 300);
    await cluster.grow(1, 4);
    expect(cluster.network.snapshotsSent).toBeGreaterThan(0);
    await cluster.converged();
    // And it knows the members from the snapshot, also when it starts again.
    cluster.crash(4);
    await cluster.start(4);
    await cluster.time.until(
      'it has heard the leader',
      () => cluster.server(4).status().leader !== undefined,
    );
    await expectServing(cluster, 4);
    expect(await voters(cluster, 4)).toEqual([1, 2, 3, 4]);
    expect(cluster.fatal).toEqual([]);
  });

  test('pitfall 18: is in the configuration of a compacted log only from where it was added', async () => {
    const cluster = await started(1, { logRetainBytes: 20_000 });
    await write(cluster, 1, 60, 300);
    await cluster.add(1, 2);
    await cluster.settled(1);
    await write(cluster, 1, 40, 300);
    await cluster.time.run(500);
    cluster.crash(1);
    const identity = { clusterId: 'c'.repeat(32), member: 1 };
    const disk = cluster.disks.get(1) as MemoryDisk;
    const { snapshot, entries } = (await openMemoryStorage({ identity, disk })).recovered;
    expect(snapshot?.index).toBeGreaterThan(10);
    expect(entries.map(({ kind }) => kind)).toContain('configuration');
    expect(snapshot?.configuration.learners).toEqual([]);
  });

  test('waits, if it was started too early, and neither begins a cluster nor disturbs one', async () => {
    const cluster = await started(3);
    await cluster.start(4, { join: true });
    const { term } = cluster.server(1).status();
    await cluster.time.run(10_000);
    expect(cluster.server(4).status()).toMatchObject({ role: 'learner', term: 0 });
    expect(cluster.server(1).status().term).toBe(term);
    cluster.crash(4);
    // What is on its disk decides, not how it is started.
    await cluster.start(4);
    await cluster.add(2, 4);
    await cluster.time.until('it is added', () => cluster.server(4).status().leader !== undefined);
    await expectServing(cluster, 4);
  });

  test('pitfall 31: votes for nobody who was wiped and has begun anew, while it waits', async () => {
    const cluster = await started(3);
    await write(cluster, cluster.leader as number, 5);
    await cluster.converged();
    const [wiped, ...others] = cluster.ids as [number, number, number];
    for (const id of cluster.ids) cluster.crash(id);
    cluster.disks.set(wiped, new MemoryDisk());
    await cluster.start(4, { join: true });
    // With its file, which names the new one already, two of these three would be a majority.
    await cluster.start(wiped, { file: [wiped, 2, 4] });
    await cluster.time.run(20_000);
    expect(cluster.leads).toBeUndefined();
    for (const id of others) await cluster.start(id);
    await expectServing(cluster, others[0]);
    expect(cluster.server(others[0]).status().keys).toBeGreaterThan(5);
  });

  test('is refused, in words, where it was not told to join and has begun a cluster of its own', async () => {
    const cluster = await started(3);
    await cluster.start(4, { file: [1, 2, 3, 4] });
    await cluster.time.run(5000);
    expect(cluster.network.refusals.at(-1)).toMatch(
      /member 4 is not known here as a member, and has begun a cluster of its own: add it, and start it with --join/,
    );
    expect(cluster.server(4).status().leader).toBeUndefined();
    await expectServing(cluster, 1);
    expect(cluster.fatal).toEqual([]);
    cluster.crash(4);
    cluster.disks.delete(4);
    await cluster.grow(1, 4);
    await expectServing(cluster, 4);
  });

  test('gets an id that was never given, and the same one when it is asked for again', async () => {
    const cluster = await started(3);
    expect(await cluster.add(1, 4)).toBe(4);
    expect(await cluster.add(2, 4)).toBe(4);
    await cluster.settled(1);
    await cluster.remove(1, 4);
    await cluster.settled(1);
    expect((await cluster.list(1)).members.map(({ id }) => id)).toEqual([1, 2, 3]);
    expect(await cluster.add(1, 4)).toBe(5);
  });
});

describe('a server that is removed', () => {
  test('is told so, whichever follower it is, and the others go on', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [gone, other] = cluster.followers as [number, number];
    await cluster.remove(gone, gone);
    await cluster.time.until('it is told', () => cluster.removed.has(gone));
    await cluster.stop(gone);
    for (const id of [leader, other]) {
      expect((await cluster.settled(id)).members.map((member) => member.id)).not.toContain(gone);
      await expectServing(cluster, id);
      expect(cluster.agent(id).port.identity.endpoints).toHaveLength(2);
    }
    expect([...cluster.removed]).toEqual([gone]);
    expect(cluster.fatal).toEqual([]);
  });

  test('pitfall 16: as the leader hands over first, without a pause of an election timeout, and is told', async () => {
    for (const servers of [2, 3, 5]) {
      const cluster = await started(servers);
      const leader = cluster.leader as number;
      const [other] = cluster.followers as [number];
      await cluster.remove(other, leader);
      const agent = cluster.agent(other);
      agent.open();
      let slowestMs = 0;
      while (!cluster.removed.has(leader)) {
        const beganMs = cluster.time.nowMs;
        expect(await cluster.answer(agent, agent.write(put('k')))).toMatchObject({ kind: 'written' });
        slowestMs = Math.max(slowestMs, cluster.time.nowMs - beganMs);
        expect(beganMs, 'it is never told').toBeLessThan(30_000);
      }
      expect(slowestMs).toBeLessThan(300);
      await cluster.stop(leader);
      expect(await voters(cluster, other)).toEqual(cluster.ids.filter((id) => id !== leader));
      await expectServing(cluster, other);
      expect(cluster.fatal).toEqual([]);
    }
  });

  test('pitfall 15: is told only once those who stay can do without it, also without the leader', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const leaving = cluster.followers as [number, number];
    cluster.network.delayMs = 5;
    const agent = cluster.agent(leader);
    for (const [index, replaces] of leaving.entries())
      agent.send({ ...describeMember(4 + index), kind: 'member_add', replaces });
    for (const id of [4, 5]) await cluster.start(id, { join: true });
    const [first] = leaving;
    const hasLeft = (): boolean =>
      cluster.server(leader).refusePeer(first, cluster.presence(first)) !== undefined;
    for (let ms = 0; !hasLeft(); ms += 1) {
      expect(ms).toBeLessThan(10_000);
      await cluster.time.run(1);
    }
    // Those who stay do not know yet what the leader knows: they need the others once more if it dies now.
    cluster.network.isolate(leader, [4, 5]);
    await cluster.time.run(400);
    expect([...cluster.removed]).toEqual([]);
    cluster.crash(leader);
    await cluster.time.until('another one leads', () => cluster.leads !== undefined);
    await expectServing(cluster, 4);
    await cluster.time.until('they are told', () => leaving.every((id) => cluster.removed.has(id)));
    expect(await voters(cluster, 4)).toEqual([leader, 4, 5]);
    expect(cluster.fatal).toEqual([]);
  });

  test('while it was down is told when it comes back, and disturbs nobody', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [gone] = cluster.followers as [number];
    cluster.crash(gone);
    await cluster.remove(leader, gone);
    await cluster.settled(leader);
    await cluster.time.run(1000);
    const { term } = cluster.server(leader).status();
    await cluster.start(gone);
    await cluster.time.until('it is told', () => cluster.removed.has(gone));
    await cluster.time.run(5000);
    expect(cluster.server(leader).status()).toMatchObject({ role: 'leader', term });
  });

  test('loses the sessions of its agents to the others, or to their grace', async () => {
    const cluster = await started(3);
    const [gone, other] = cluster.followers as [number, number];
    const producer = cluster.agent(gone);
    producer.open();
    const declare = { kind: 'declare', key: 'tied', preconditions: {}, renew: false, tied: true } as const;
    await cluster.answer(producer, producer.write([declare]));
    await cluster.remove(other, gone);
    await cluster.time.until('it is told', () => cluster.removed.has(gone));
    cluster.crash(gone);
    const waiter = cluster.agent(other);
    const awaiting = waiter.send({ kind: 'await', alternatives: [['tied']] });
    expect(await cluster.answer(waiter, awaiting, 6000)).toMatchObject({
      futures: [{ rejection: { code: 'PRODUCER_LOST' } }],
    });
  });
});

describe('a member that is replaced', () => {
  test('while it is dead makes room for another one in a single change, and never comes back', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [dead, other] = cluster.followers as [number, number];
    await write(cluster, leader, 20);
    cluster.crash(dead);
    expect(await cluster.add(other, 4, dead)).toBe(4);
    await cluster.start(4, { join: true });
    await cluster.settled(leader);
    expect(await voters(cluster, leader)).toEqual([leader, other, 4].sort((a, b) => a - b));
    await cluster.time.until('it has caught up', () => cluster.server(4).status().keys >= 20);
    // Now it counts: with the other one gone nothing goes without it.
    cluster.crash(other);
    await expectServing(cluster, 4);
    await cluster.start(dead);
    await cluster.time.until('the dead one is told', () => cluster.removed.has(dead));
    expect(cluster.fatal).toEqual([]);
  });

  test('pitfall 31: after its disk was wiped neither votes nor acknowledges until then', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [wiped] = cluster.followers as [number, number];
    await write(cluster, leader, 20);
    cluster.crash(wiped);
    cluster.disks.set(wiped, new MemoryDisk());
    await cluster.start(wiped);
    await cluster.time.run(3000);
    expect(cluster.network.refusals.at(-1)).toMatch(/another data directory.*until it has been replaced/);
    expect(await cluster.member(leader, wiped)).toMatchObject({ reachable: false });
    cluster.crash(wiped);
    await cluster.add(leader, 4, wiped);
    await cluster.start(4, { join: true });
    await cluster.settled(leader);
    await expectServing(cluster, 4);
    await cluster.converged();
  });

  test('as the leader of a joint change hands over to one that stays', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [other] = cluster.followers as [number];
    await cluster.add(other, 4, leader);
    await cluster.start(4, { join: true });
    await cluster.time.until('it is told', () => cluster.removed.has(leader), 20_000);
    await cluster.stop(leader);
    await expectServing(cluster, 4);
    expect(await voters(cluster, 4)).toEqual([1, 2, 3, 4].filter((id) => id !== leader));
    expect(cluster.fatal).toEqual([]);
  });
});

describe('a disk that is put back as it was during the last run', () => {
  const putBack = async (cluster: ServerCluster, id: number, change: () => Promise<void>): Promise<void> => {
    const copy = (cluster.disks.get(id) as MemoryDisk).copy();
    await change();
    cluster.crash(id);
    cluster.disks.set(id, copy);
    await cluster.start(id);
  };

  test('pitfall 31: is refused by those who were told of entries that it lacks', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [back] = cluster.followers as [number];
    await write(cluster, leader, 5);
    await cluster.time.run(1500);
    const starts = Math.floor(cluster.presence(back).run / 2 ** 20);
    await putBack(cluster, back, () => write(cluster, leader, 5));
    expect(Math.floor(cluster.presence(back).run / 2 ** 20)).toBe(starts + 1);
    await cluster.time.run(500);
    expect(cluster.network.refusals.at(-1)).toMatch(/older copy of its data \(its log ends at \d+/);
    await cluster.time.run(5000);
    // What the leader sends it meanwhile does not make up for what it has forgotten.
    expect(await cluster.member(leader, back)).toMatchObject({ reachable: false });
    expect(cluster.fatal).toMatchObject([{ id: back, error: { code: 'DATA_OUTDATED' } }]);
    await cluster.add(leader, 4, back);
    await cluster.start(4, { join: true });
    await cluster.settled(leader);
    await expectServing(cluster, 4);
  });

  test('pitfall 31: is refused by those who were told of a term, and so of a vote, that it lacks', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [back] = cluster.followers as [number];
    await putBack(cluster, back, async () => {
      cluster.crash(leader);
      await cluster.time.run(5000);
      expect(cluster.leads).toBeDefined();
    });
    await cluster.time.run(1000);
    expect(cluster.network.refusals.at(-1)).toMatch(/older copy of its data \(it knows term \d+/);
    expect(cluster.fatal).toMatchObject([{ id: back, error: { code: 'DATA_OUTDATED' } }]);
  });

  test('is let in when it lacks nothing', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [back] = cluster.followers as [number];
    await write(cluster, leader, 5);
    await cluster.converged();
    for (let round = 0; round < 5; round += 1) {
      cluster.crash(back);
      await cluster.time.run(round * 700);
      await write(cluster, leader, 3);
      await cluster.start(back);
      await cluster.time.run(1500);
      await expectServing(cluster, back);
    }
    expect(cluster.network.refusals).toEqual([]);
  });
});

describe('a change that would not be safe', () => {
  const refusal = (change: Promise<unknown>) => expect(change).rejects;

  test('is refused where the voters that remain cannot agree', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [dead, other] = cluster.followers as [number, number];
    cluster.crash(dead);
    await cluster.time.run(100);
    await refusal(cluster.remove(leader, other)).toThrow(
      /MEMBERSHIP_REFUSED: .*2 voters, of which 2 are needed and 1 are reachable/,
    );
    await refusal(cluster.add(leader, 4, other)).toThrow(/3 voters, of which 2 are needed and 1 are/);
    await cluster.remove(leader, dead);
    await cluster.settled(leader);
    await cluster.remove(leader, other);
    await cluster.settled(leader);
    await refusal(cluster.remove(leader, leader)).toThrow(/the last one that votes/);
    await refusal(cluster.add(leader, 4, leader)).toThrow(/1 voters, of which 1 are needed and 0/);
    await expectServing(cluster, leader);
  });

  test('is refused for a learner that is out of reach or far behind, or no learner', async () => {
    const cluster = await started(3, { logRetainBytes: 64 * 1024 * 1024 });
    const leader = cluster.leader as number;
    await cluster.add(leader, 4);
    await cluster.settled(leader);
    await refusal(cluster.promote(leader, 4)).toThrow(/not reachable from here/);
    await refusal(cluster.promote(leader, leader)).toThrow(/votes already/);
    await refusal(cluster.promote(leader, 9)).toThrow(/there is no member 9/);
    await cluster.start(4, { join: true });
    await cluster.time.run(2500);
    cluster.network.isolate(4, [leader]);
    await write(cluster, leader, 1100);
    await cluster.time.run(1500);
    const [other] = cluster.followers as [number];
    await refusal(cluster.promote(other, 4)).toThrow(/member 4 is \d{4} entries behind, more than 1000/);
    cluster.network.heal();
    await cluster.time.run(3000);
    await cluster.promote(other, 4);
    await cluster.settled(leader);
    expect(await voters(cluster, leader)).toContain(4);
  }, 60_000);

  test('is refused for a name, an address or an id that is taken, gone or unknown', async () => {
    const cluster = await started(3);
    const taken = { ...describeMember(4), kind: 'member_add', name: 'server-2' } as const;
    await refusal(cluster.change(1, taken)).toThrow(/the name server-2 is that of member 2/);
    const address = { ...describeMember(4), kind: 'member_add', peersAddress: 's3:7422' } as const;
    await refusal(cluster.change(1, address)).toThrow(/s3:7422 is that of member 3/);
    await refusal(cluster.remove(1, 7)).toThrow(/there is no member 7/);
    await refusal(cluster.add(1, 4, 7)).toThrow(/there is no member 7/);
    await cluster.grow(1, 4);
    await cluster.remove(1, 4);
    await cluster.settled(1);
    await refusal(cluster.remove(1, 4)).toThrow(/member 4 has left/);
    await refusal(cluster.promote(2, 4)).toThrow(/member 4 has left/);
  });

  test('is refused while a server of the version before it is in touch', async () => {
    const cluster = await started(3);
    cluster.crash(2);
    await cluster.start(2, { version: 1 });
    await cluster.time.run(1000);
    await refusal(cluster.add(1, 4)).toThrow(/server-2 \(member 2\) runs a version .* upgrade all servers/);
    expect((await cluster.list(1)).members).toHaveLength(3);
    cluster.crash(2);
    await cluster.start(2);
    await cluster.time.run(1000);
    expect(await cluster.add(1, 4)).toBe(4);
  });
});

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
      expect(cluster.agent(1).port.identity.endpoints).toHaveLength(3);
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

describe('leadership', () => {
  test('goes where an operator wants it, whichever server is asked', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    for (const asked of cluster.ids) {
      for (const target of cluster.ids) {
        const agent = cluster.agent(asked);
        const request = agent.send({ kind: 'transfer_leader', member: target });
        expect(await cluster.answer(agent, request, 500)).toEqual({
          kind: 'leader_transferred',
          member: target,
        });
        await cluster.time.run(200);
        expect(cluster.leader).toBe(target);
      }
      const old = cluster.leader;
      const agent = cluster.agent(asked);
      const body = await cluster.answer(agent, agent.send({ kind: 'transfer_leader' }), 500);
      expect(body).toMatchObject({ kind: 'leader_transferred' });
      await cluster.time.run(200);
      expect(cluster.leader).not.toBe(old);
    }
  });

  test('pitfall 20: stays where it is when the target is dead, no voter or nobody, and serves on', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    const [dead, other] = cluster.followers as [number, number];
    await cluster.add(leader, 4);
    await cluster.settled(leader);
    cluster.crash(dead);
    const agent = cluster.agent(other);
    agent.open();
    const request = agent.send({ kind: 'transfer_leader', member: dead });
    const written = agent.write(put('k'));
    expect(await cluster.answer(agent, request, 3100)).toMatchObject({ failure: { code: 'UNAVAILABLE' } });
    expect(await cluster.answer(agent, written, 3000)).toMatchObject({ kind: 'written' });
    for (const member of [4, 9]) {
      const refused = agent.send({ kind: 'transfer_leader', member });
      expect(await cluster.answer(agent, refused)).toMatchObject({ failure: { code: 'MEMBERSHIP_REFUSED' } });
    }
  });

  test('pitfall 34: is handed over at half an election timeout by a leader whose disk hangs', async () => {
    const cluster = await started(3);
    const leader = cluster.leader as number;
    await write(cluster, leader, 5);
    const disk = cluster.disks.get(leader) as MemoryDisk;
    const [other] = cluster.followers as [number];
    const agent = cluster.agent(other);
    agent.open();
    await cluster.time.run(200);
    disk.manual = true;
    const beganMs = cluster.time.nowMs;
    const written = agent.write(put('k'));
    await cluster.time.until('another one leads', () => cluster.leads !== leader, 700);
    expect(cluster.time.nowMs - beganMs).toBeGreaterThan(450);
    expect(await cluster.answer(agent, written, 300)).toMatchObject({ kind: 'written' });
  });

  test('pitfall 34: is handed over by a leader whose loop stood still for more than half an election timeout', async () => {
    for (const [stoppedMs, handsOver] of [
      [400, false],
      [650, true],
    ] as const) {
      const cluster = await started(3);
      const leader = cluster.leader as number;
      const { term } = cluster.server(leader).status();
      await cluster.time.run(2000);
      const clock = cluster.clocks.get(leader);
      if (clock) clock.stoppedUntilMs = cluster.time.nowMs + stoppedMs;
      await cluster.time.run(stoppedMs + 150);
      expect(cluster.leader !== leader).toBe(handsOver);
      expect(cluster.server(leader).status().term).toBe(handsOver ? term + 1 : term);
    }
  });

  test('is not handed over again and again where all are slow', async () => {
    const cluster = await started(3);
    await cluster.time.run(1000);
    const { term } = cluster.server(1).status();
    for (let round = 0; round < 20; round += 1) {
      const clock = cluster.clocks.get(cluster.leads as number);
      if (clock) clock.stoppedUntilMs = cluster.time.nowMs + 650;
      await cluster.time.run(850);
    }
    // Each of the three once in five election timeouts.
    expect(cluster.server(1).status().term - term).toBeLessThanOrEqual(3 * Math.ceil((20 * 850) / 5000));
    await expectServing(cluster, 1);
  });
});
