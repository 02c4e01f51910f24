import { describe, expect, test } from 'vitest';
import { MemoryDisk, openMemoryStorage } from '../../src/storage/index.ts';
import { expectServing, put, started, voters, write } from './support/members.ts';
import { describeMember, type ServerCluster } from './support/server-cluster.ts';

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
      expect(cluster.standing(id).identity.endpoints).toEqual([1, 2, 3, 4].map((each) => `wss://s${each}`));

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
      expect(cluster.standing(id).identity.endpoints).toHaveLength(2);
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
