import { describe, expect, test } from 'vitest';
import type { AnswerBody } from '../../src/protocol/index.ts';
import { MemoryDisk } from '../../src/storage/index.ts';
import { encodeCommand } from '../../src/store/index.ts';
import { resolveOperation, ServerCluster, type Agent } from './support/server-cluster.ts';

const text = (body: AnswerBody): string | undefined => {
  if (body.kind === 'got') return body.future?.value && Buffer.from(body.future.value).toString();
  if (body.kind === 'awaited')
    return body.futures.map((future) => Buffer.from(future.value ?? []).toString()).join(',');
  return undefined;
};

const get = (agent: Agent, key: string, stale = false): number => agent.send({ kind: 'get', key, stale });

describe('a cluster of servers', () => {
  test('tells its followers what is committed before the leader applies it', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = cluster.leader as number;
    const [follower] = cluster.followers as [number];
    const { raft } = cluster.server(leader).inspect();
    const agent = cluster.agent(leader);
    await cluster.answer(agent, agent.open());
    const ahead: number[] = [];
    cluster.network.lose(leader, follower, (batch) => {
      for (const message of batch.raft)
        if (message.kind === 'append_request' && message.commit > raft.status().applied)
          ahead.push(message.commit);
      return false;
    });
    await cluster.answer(agent, agent.write([resolveOperation('k', 'v')]));
    expect(ahead).toContain(raft.status().applied);
  });

  test('ends an await on one server by a resolve on another, whichever they are', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    for (const waitsAt of cluster.ids) {
      for (const resolvesAt of cluster.ids) {
        const key = `a/${waitsAt}/${resolvesAt}`;
        const waiter = cluster.agent(waitsAt);
        const producer = cluster.agent(resolvesAt);
        const awaiting = waiter.send({ kind: 'await', alternatives: [[key]] });
        await cluster.time.run(50);
        expect(waiter.answer(awaiting)).toBeUndefined();
        producer.open();
        const written = producer.write([resolveOperation(key, 'v')]);
        expect(await cluster.answer(producer, written, 100)).toMatchObject({ kind: 'written' });
        expect(text(await cluster.answer(waiter, awaiting, 100))).toBe('v');
      }
    }
    await cluster.converged();
    expect(cluster.fatal).toEqual([]);
  });

  test('a single server serves alone', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    const agent = cluster.agent(1);
    agent.open();
    expect(await cluster.answer(agent, agent.write([resolveOperation('k', 'v')]))).toMatchObject({
      kind: 'written',
    });
    expect(text(await cluster.answer(agent, get(agent, 'k')))).toBe('v');
  });

  test('every server tells cluster time, once a quorum has confirmed that it is up to date', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const asked = cluster.ids.map((id) => ({ agent: cluster.agent(id), id }));
    const clock = async ({ agent }: { readonly agent: Agent }): Promise<number> => {
      const body = await cluster.answer(agent, agent.send({ kind: 'clock' }));
      return body.kind === 'clock' ? body.clusterTimeMs : Number.NaN;
    };
    const before = await Promise.all(asked.map(clock));
    expect(Math.max(...before) - Math.min(...before)).toBeLessThan(200);
    await cluster.time.run(5000);
    const after = await Promise.all(asked.map(clock));
    for (const [at, ms] of after.entries()) expect(Math.abs(ms - (before[at] ?? 0) - 5000)).toBeLessThan(200);
    const [first, second, third] = asked;
    if (first === undefined || second === undefined || third === undefined) throw new Error('three servers');
    cluster.crash(second.id);
    cluster.crash(third.id);
    await cluster.time.run(5000);
    const alone = first.agent.send({ kind: 'clock' });
    await cluster.time.run(5000);
    expect(first.agent.answer(alone)).toBeUndefined();
  });

  test('a read on a follower sees what was acknowledged anywhere before', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = await cluster.newLeader();
    const [first, second] = cluster.followers as [number, number];
    const writer = cluster.agent(leader);
    writer.open();
    for (let round = 0; round < 20; round += 1) {
      const written = writer.write([resolveOperation('k', `v${round}`, { supersede: true })]);
      // The one follower hears late of what the leader and the other have committed.
      cluster.network.delayMs = round % 2 === 0 ? 1 : 20;
      await cluster.answer(writer, written);
      for (const id of [first, second]) {
        const reader = cluster.agent(id);
        expect(text(await cluster.answer(reader, get(reader, 'k')))).toBe(`v${round}`);
      }
    }
  });

  test('a stale read is answered by a server that is cut off, a linearizable one waits', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const writer = cluster.agent(cluster.leader as number);
    writer.open();
    await cluster.answer(writer, writer.write([resolveOperation('k', 'old')]));
    await cluster.converged();
    const [cutOff] = cluster.followers as [number];
    cluster.network.isolate(cutOff, cluster.ids);
    await cluster.answer(writer, writer.write([resolveOperation('k', 'new', { supersede: true })]));
    const reader = cluster.agent(cutOff);
    expect(text(await cluster.answer(reader, get(reader, 'k', true)))).toBe('old');
    const linearizable = get(reader, 'k');
    await cluster.time.run(10_000);
    expect(reader.answer(linearizable)).toBeUndefined();
    cluster.network.heal();
    expect(text(await cluster.answer(reader, linearizable))).toBe('new');
  });

  test("when the leader dies an agent's write pauses and then succeeds, once", async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const dead = cluster.leader as number;
    const [id] = cluster.followers as [number];
    const agent = cluster.agent(id);
    agent.open();
    await cluster.answer(agent, agent.write([resolveOperation('before', 'v')]));
    cluster.crash(dead);
    const written = agent.write([resolveOperation('during', 'v', { supersede: true })]);
    const body = await cluster.answer(agent, written, 5000);
    expect(body).toMatchObject({ kind: 'written', result: { results: [{ generation: 1 }] } });
    await cluster.start(dead);
    await cluster.converged();
    expect(cluster.fatal).toEqual([]);
  });

  test('a request ends with its own timeout when nobody leads, and says that a write may still happen', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [alone, ...others] = cluster.ids as [number, ...number[]];
    for (const id of others) cluster.crash(id);
    const agent = cluster.agent(alone);
    agent.open();
    const startedMs = cluster.time.nowMs;
    const operations = [resolveOperation('k', 'v')];
    const write = { kind: 'write', session: agent.session, principal: 'agents:test', sequence: 1 } as const;
    const written = agent.send({ ...write, answeredBelow: 1, operations, timeoutMs: 700 });
    const read = agent.send({ kind: 'get', key: 'k', stale: false, timeoutMs: 300 });
    expect(await cluster.answer(agent, read)).toMatchObject({
      kind: 'failed',
      failure: { code: 'TIMED_OUT' },
    });
    expect(cluster.time.nowMs - startedMs).toBeLessThan(350);
    const body = await cluster.answer(agent, written);
    expect(body).toMatchObject({ kind: 'failed', failure: { code: 'TIMED_OUT' } });
    expect(body.kind === 'failed' && body.failure.message).toMatch(/may still happen/);
    expect(cluster.time.nowMs - startedMs).toBeLessThan(750);
  });

  test('a write that is sent again after a change of leader gets its first answer', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const old = cluster.leader as number;
    const first = cluster.agent(old, 'f'.repeat(32));
    first.open();
    const body = await cluster.answer(
      first,
      first.write([resolveOperation('k', 'v', { supersede: true })], 1),
    );
    cluster.crash(old);
    const leader = await cluster.newLeader();
    const second = cluster.agent(leader, 'f'.repeat(32));
    second.open(true);
    const again = await cluster.answer(
      second,
      second.write([resolveOperation('k', 'v', { supersede: true })], 1),
    );
    expect(again).toEqual(body);
    expect(body).toMatchObject({ result: { results: [{ generation: 1 }] } });
  });

  test('a follower that was away while the log was compacted comes back by a snapshot and serves', async () => {
    const cluster = await ServerCluster.start({ servers: 3, logRetainBytes: 20_000 });
    const [away] = cluster.followers as [number];
    cluster.crash(away);
    const writer = cluster.agent(cluster.leader as number);
    writer.open();
    for (let number = 0; number < 300; number += 1) {
      await cluster.answer(writer, writer.write([resolveOperation(`k/${number}`, 'x'.repeat(300))]));
    }
    await cluster.start(away);
    await cluster.time.run(3000);
    expect(cluster.network.snapshotsSent).toBeGreaterThan(0);
    const reader = cluster.agent(away);
    expect(text(await cluster.answer(reader, get(reader, 'k/299')))).toBe('x'.repeat(300));
    await cluster.converged();
    // And it goes on from there, also through a restart of its own.
    cluster.crash(away);
    await cluster.start(away);
    await cluster.answer(writer, writer.write([resolveOperation('after', 'v')]));
    const again = cluster.agent(away);
    expect(text(await cluster.answer(again, get(again, 'after')))).toBe('v');
    await cluster.converged();
    expect(cluster.fatal).toEqual([]);
  });

  test('an await outlives the installation of a snapshot that settles its key', async () => {
    const cluster = await ServerCluster.start({ servers: 3, logRetainBytes: 20_000 });
    const [away] = cluster.followers as [number];
    const waiter = cluster.agent(away);
    const awaiting = waiter.send({ kind: 'await', alternatives: [['k/150']] });
    await cluster.time.run(100);
    cluster.network.isolate(away, cluster.ids);
    const writer = cluster.agent(cluster.leader as number);
    writer.open();
    for (let number = 0; number < 300; number += 1) {
      await cluster.answer(writer, writer.write([resolveOperation(`k/${number}`, 'x'.repeat(300))]));
    }
    cluster.network.heal();
    expect(text(await cluster.answer(waiter, awaiting))).toBe('x'.repeat(300));
    expect(cluster.network.snapshotsSent).toBeGreaterThan(0);
    await cluster.converged();
  });

  test('a failed write to the disk ends the server, and the others go on', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const bad = cluster.leader as number;
    cluster.disks.get(bad)?.failNextWrite(new Error('EIO: i/o error, write'));
    const [id] = cluster.followers as [number];
    const agent = cluster.agent(id);
    agent.open();
    expect(await cluster.answer(agent, agent.write([resolveOperation('k', 'v')]))).toMatchObject({
      kind: 'written',
    });
    expect(cluster.fatal.map((end) => end.id)).toEqual([bad]);
    expect(cluster.leader).not.toBe(bad);
  });

  test('everything survives when all are killed at once and lose what was not synced', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const agents = cluster.ids.map((id) => cluster.agent(id));
    for (const agent of agents) agent.open();
    const acknowledged: string[] = [];
    for (let round = 0; round < 20; round += 1) {
      for (const [index, agent] of agents.entries()) {
        const key = `k/${index}/${round}`;
        const body = await cluster.answer(agent, agent.write([resolveOperation(key, key)]));
        expect(body.kind).toBe('written');
        acknowledged.push(key);
      }
    }
    for (const id of cluster.ids) cluster.crash(id);
    for (const id of cluster.ids) await cluster.start(id);
    await cluster.newLeader();
    for (const id of cluster.ids) {
      const reader = cluster.agent(id);
      for (const key of acknowledged) expect(text(await cluster.answer(reader, get(reader, key)))).toBe(key);
    }
    await cluster.converged();
  });
});

describe('requests', () => {
  test('a number that is used again after a cancel never gets the answer of the request before', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    const agent = cluster.agent(1);
    const numbers = { connection: agent.connection, request: 9 };
    agent.port.submit([
      { ...numbers, kind: 'get', key: 'k', stale: true },
      { ...numbers, request: 10, kind: 'status' },
    ]);
    agent.port.notify([
      { ...numbers, kind: 'cancel' },
      { ...numbers, request: 10, kind: 'cancel' },
    ]);
    agent.port.submit([{ ...numbers, kind: 'subscribe', patterns: ['k/**'], start: { kind: 'only_new' } }]);
    agent.port.submit([{ ...numbers, request: 10, kind: 'await', alternatives: [['k']] }]);
    expect(await cluster.answer(agent, 9)).toMatchObject({ kind: 'subscribed' });
    await cluster.time.run(1000);
    expect(agent.answer(10)).toBeUndefined();
    expect(cluster.fatal).toEqual([]);
  });

  test('lists that come by the thousand are answered over many turns, and others in between', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    const [greedy, other] = [cluster.agent(1), cluster.agent(1)];
    const list = { kind: 'list', pattern: '**', after: '', limit: 100, values: false, stale: true } as const;
    cluster.time.readingTakesMs = 0.2;
    const lists = Array.from({ length: 1000 }, () => greedy.send(list));
    const read = other.send({ kind: 'get', key: 'k', stale: true });
    await cluster.answer(other, read);
    expect(lists.filter((id) => greedy.answer(id) !== undefined).length).toBeLessThan(200);
    for (const id of lists) await cluster.answer(greedy, id);
  });
});

test('what a peer forwards that is no command of its own never gets into the log', async () => {
  const cluster = await ServerCluster.start({ servers: 3 });
  const leader = cluster.leader as number;
  const [peer, other] = cluster.followers as [number, number];
  await cluster.time.until(
    'it does nothing of its own any more',
    () => cluster.ticketKeys(leader).length > 0,
  );
  const { term } = cluster.server(leader).status();
  const origin = { member: other, run: 1, request: 1 };
  const foreign = encodeCommand({ kind: 'server_lost', member: leader, run: 1, origin });
  const before = cluster.server(leader).status().appliedIndex;
  const forward = [Buffer.from('no command at all'), foreign];
  cluster.network.inject(peer, leader, { raft: [], forward, forwardTerm: term });
  await cluster.time.run(1000);
  expect(cluster.server(leader).status().appliedIndex).toBe(before);
  const agent = cluster.agent(peer);
  agent.open();
  expect(await cluster.answer(agent, agent.write([resolveOperation('k', 'v')]))).toMatchObject({
    kind: 'written',
  });
  expect(cluster.fatal).toEqual([]);
});

describe('a member that comes back without what it had written', () => {
  test('pitfall 31: is refused by the others after its disk was wiped: it neither votes nor acknowledges', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = cluster.leader as number;
    const [wiped, other] = cluster.followers as [number, number];
    const agent = cluster.agent(leader);
    agent.open();
    await cluster.answer(agent, agent.write([resolveOperation('k', 'v')]));
    await cluster.converged();
    cluster.crash(wiped);
    cluster.disks.set(wiped, new MemoryDisk());
    await cluster.start(wiped);
    await cluster.time.run(5000);
    expect(cluster.network.refusals[0]).toMatch(
      new RegExp(`member ${wiped} has come back with another data directory`),
    );
    expect(cluster.fatal).toMatchObject([{ id: wiped, error: { code: 'DATA_OUTDATED' } }]);
    await expect(cluster.start(wiped)).rejects.toMatchObject({ code: 'DATA_OUTDATED' });
    // With the leader gone, the wiped member's vote would make a majority that never saw the write.
    cluster.crash(leader);
    await cluster.time.run(20_000);
    expect(cluster.server(other).status().role).not.toBe('leader');
    expect(cluster.fatal).toHaveLength(1);
  });

  test('is refused by the others when its disk is an older copy', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [id] = cluster.followers as [number];
    const before = cluster.presence(id);
    cluster.crash(id);
    await cluster.start(id);
    await cluster.time.run(2000);
    await cluster.converged();
    const server = cluster.server(cluster.leader as number);
    const now = cluster.presence(id);
    const { run } = now;
    const reasonFor = (other: number): string | undefined =>
      server.refusePeer(id, { ...now, run: other })?.reason;
    expect(run).toBeGreaterThan(before.run);
    expect(reasonFor(run)).toBeUndefined();
    expect(reasonFor(before.run)).toMatch(/an older copy of its data/);
    // A copy from before this start, started itself: as often as the one that the cluster knows.
    const started = Math.floor(run / 2 ** 20) * 2 ** 20;
    expect(reasonFor(started + ((run - started + 1) % 2 ** 20))).toMatch(/an older copy/);
  });
});

describe('time and sessions', () => {
  test("a value expires by the log on every server, whatever the servers' wall clocks say", async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const agent = cluster.agent(cluster.leader as number);
    agent.open();
    await cluster.answer(agent, agent.write([resolveOperation('k', 'v', { ttlMs: 20_000 })]));
    const writtenMs = cluster.time.nowMs;
    for (const id of cluster.ids)
      (cluster.clocks.get(id) as { wallOffsetMs: number }).wallOffsetMs = id * 3_600_000;
    // A change of leader neither shortens nor restarts the time.
    cluster.crash(cluster.leader as number);
    await cluster.newLeader();
    const reader = cluster.agent(cluster.leader as number);
    await cluster.time.run(writtenMs + 19_000 - cluster.time.nowMs);
    expect(text(await cluster.answer(reader, get(reader, 'k')))).toBe('v');
    await cluster.time.run(writtenMs + 20_300 - cluster.time.nowMs);
    expect(await cluster.answer(reader, get(reader, 'k'))).toMatchObject({ future: { state: 'expired' } });
    const state = cluster.server(cluster.leader as number).status();
    expect(state.revision).toBe(2);
  });

  test('a pending future is rejected when its deadline passes, and who awaits it is told', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [id] = cluster.followers as [number];
    const agent = cluster.agent(id);
    agent.open();
    const declare = {
      kind: 'declare',
      key: 'k',
      preconditions: {},
      renew: false,
      tied: false,
      deadlineMs: 3000,
    } as const;
    await cluster.answer(agent, agent.write([declare]));
    const awaiting = agent.send({ kind: 'await', alternatives: [['k']] });
    const startedMs = cluster.time.nowMs;
    const body = await cluster.answer(agent, awaiting);
    expect(body).toMatchObject({
      futures: [{ state: 'rejected', rejection: { code: 'DEADLINE_EXCEEDED' } }],
    });
    expect(cluster.time.nowMs - startedMs).toBeGreaterThan(2900);
    expect(cluster.time.nowMs - startedMs).toBeLessThan(3300);
  });

  const declareTied = { kind: 'declare', key: 'k', preconditions: {}, renew: false, tied: true } as const;

  test('futures tied to a session are rejected when its connection is gone for longer than the grace', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [first, second] = cluster.followers as [number, number];
    const producer = cluster.agent(first);
    producer.open();
    await cluster.answer(producer, producer.write([declareTied]));
    const waiter = cluster.agent(second);
    const awaiting = waiter.send({ kind: 'await', alternatives: [['k']] });
    producer.close();
    await cluster.time.run(4500);
    expect(waiter.answer(awaiting)).toBeUndefined();
    const body = await cluster.answer(waiter, awaiting, 1000);
    expect(body).toMatchObject({ futures: [{ state: 'rejected', rejection: { code: 'PRODUCER_LOST' } }] });
  });

  test('a producer that comes back within its grace, elsewhere, keeps its futures', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [first, second] = cluster.followers as [number, number];
    const producer = cluster.agent(first, 'a'.repeat(32));
    producer.open();
    await cluster.answer(producer, producer.write([declareTied]));
    producer.close();
    await cluster.time.run(3000);
    const back = cluster.agent(second, 'a'.repeat(32));
    expect(await cluster.answer(back, back.open(true))).toEqual({ kind: 'session_opened' });
    await cluster.time.run(20_000);
    expect(await cluster.answer(back, get(back, 'k'))).toMatchObject({ future: { state: 'pending' } });
  });

  test('the sessions of a server that dies are detached, and lost after their grace', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [first, second] = cluster.followers as [number, number];
    const producer = cluster.agent(first);
    producer.open();
    await cluster.answer(producer, producer.write([declareTied]));
    cluster.crash(first);
    const waiter = cluster.agent(second);
    const body = await cluster.answer(waiter, waiter.send({ kind: 'await', alternatives: [['k']] }), 15_000);
    expect(body).toMatchObject({ futures: [{ rejection: { code: 'PRODUCER_LOST' } }] });
  });

  test('a server that was only cut off takes its sessions up again', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [cutOff] = cluster.followers as [number];
    const producer = cluster.agent(cutOff);
    producer.open();
    await cluster.answer(producer, producer.write([declareTied]));
    cluster.network.isolate(cutOff, cluster.ids);
    await cluster.time.run(7000);
    cluster.network.heal();
    await cluster.time.run(20_000);
    expect(await cluster.answer(producer, get(producer, 'k'))).toMatchObject({
      future: { state: 'pending' },
    });
  });

  test('100,000 futures with one deadline expire within 2 s, in entries of bounded size', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    const agent = cluster.agent(1);
    agent.open();
    const futures = 100_000;
    for (let from = 0; from < futures; from += 250) {
      const operations = Array.from({ length: 250 }, (_, index) =>
        resolveOperation(`k/${from + index}`, 'v', { ttlMs: 60_000 }),
      );
      await cluster.answer(agent, agent.write(operations));
    }
    const revision = cluster.server(1).status().revision;
    await cluster.time.run(60_000 - 100);
    await cluster.time.run(2100);
    const status = cluster.server(1).status();
    const list = agent.send({ kind: 'get', key: `k/${futures - 1}`, stale: false });
    expect(await cluster.answer(agent, list)).toMatchObject({ future: { state: 'expired' } });
    // Every expiry entry names at most a thousand: other work goes on between them.
    expect(status.revision - revision).toBeGreaterThanOrEqual(futures / 1000);
    expect(cluster.fatal).toEqual([]);
  }, 60_000);
});
