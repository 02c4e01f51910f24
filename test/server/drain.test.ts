import { describe, expect, test } from 'vitest';
import type { AnswerBody, DrainStanding } from '../../src/protocol/index.ts';
import type { MemoryDisk } from '../../src/storage/index.ts';
import { expectServing, put, started, write } from './support/members.ts';
import type { ServerCluster } from './support/server-cluster.ts';

const ask = (cluster: ServerCluster, at: number, member: number, end = false, withinMs = 6000) => {
  const agent = cluster.agent(at);
  const request = { kind: 'drain_server', member, end, ...(!end && { graceMs: 3000 }) } as const;
  return cluster.answer(agent, agent.send(request), withinMs);
};

const standingOf = (body: AnswerBody): DrainStanding => {
  if (body.kind !== 'drained') throw new Error(`it was answered ${JSON.stringify(body)}`);
  return body.standing;
};

const refused = (text: string) => ({
  kind: 'failed',
  failure: { code: 'DRAIN_REFUSED', message: expect.stringContaining(text) as string },
});

const draining = async (cluster: ServerCluster, at: number): Promise<number[]> => {
  const agent = cluster.agent(at);
  const body = await cluster.answer(agent, agent.send({ kind: 'status' }));
  if (body.kind !== 'status') throw new Error('there is no status');
  return body.status.members.filter((one) => one.draining === true).map(({ id }) => id);
};

describe('a drained server', () => {
  test('sends its agents away, hands leadership over, votes on, and all see it, whichever server was asked', async () => {
    for (const asked of [1, 2, 3]) {
      const cluster = await started(3);
      await cluster.time.run(1500);
      const drained = cluster.leader as number;
      cluster.agent(drained);
      const standing = standingOf(await ask(cluster, asked, drained));
      expect(standing).toMatchObject({ member: drained, draining: true, graceMs: 3000 });
      expect(standing.agents).toBeGreaterThanOrEqual(1);
      await cluster.time.run(100);
      expect(standing.leader).toBe(cluster.leader);
      expect(cluster.leader).not.toBe(drained);
      expect(cluster.door(drained).calls).toEqual(['drain 3000']);
      expect(cluster.server(drained).readiness()).toEqual({
        ready: false,
        reasons: ['the server is drained: it takes no agents'],
      });
      for (const id of cluster.ids) expect(await draining(cluster, id)).toEqual([drained]);
      expect(await cluster.member(asked, drained)).toMatchObject({ standing: 'voter', draining: true });
      await expectServing(cluster, drained);
    }
  });

  test('does not come to lead when the leader dies, and its vote makes the next one', async () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const cluster = await started(3, { seed });
      await cluster.time.run(1500);
      const [drained, other] = cluster.followers as [number, number];
      standingOf(await ask(cluster, other, drained));
      cluster.crash(cluster.leader as number);
      expect(await cluster.newLeader()).toBe(other);
      await cluster.time.run(10_000);
      expect(cluster.leader).toBe(other);
    }
  });

  test('leads where nobody else can, and hands over as soon as another one can', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    const leader = cluster.leader as number;
    const [drained, behind] = cluster.followers as [number, number];
    standingOf(await ask(cluster, behind, drained));
    // What the leader and the drained one have the third lacks: it cannot win an election.
    cluster.network.isolate(behind, cluster.ids);
    await write(cluster, leader, 5);
    cluster.crash(leader);
    cluster.network.heal();
    await cluster.time.until('the drained one leads', () => cluster.leads === drained, 10_000);
    await cluster.time.until('it has handed over', () => cluster.leader === behind, 10_000);
    await expectServing(cluster, behind);
    await cluster.time.run(5000);
    expect(cluster.leader).toBe(behind);
  });

  test('leads on while it has nobody to hand over to, which does not stop writes', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    const leader = cluster.leader as number;
    const [first, second] = cluster.followers as [number, number];
    standingOf(await ask(cluster, leader, first));
    standingOf(await ask(cluster, first, leader));
    await cluster.time.until('the one that is left leads', () => cluster.leader === second);
    cluster.crash(second);
    await cluster.time.until('a drained one leads', () => cluster.leader !== undefined, 10_000);
    const leads = cluster.leader as number;
    const { term } = cluster.server(leads).status();
    await cluster.time.run(20_000);
    expect(cluster.server(leads).status()).toMatchObject({ role: 'leader', term });
    const agent = cluster.agent(first);
    agent.open();
    for (let round = 0; round < 20; round += 1)
      expect(await cluster.answer(agent, agent.write(put('k')), 200)).toMatchObject({ kind: 'written' });
  });

  test('lets writes through most of the time while the one it would hand over to hangs', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    const leader = cluster.leader as number;
    const [drained, hanging] = cluster.followers as [number, number];
    standingOf(await ask(cluster, leader, drained));
    // It hears the leader, and never has all that the leader has.
    const disk = cluster.disks.get(hanging) as MemoryDisk;
    disk.manual = true;
    await write(cluster, leader, 1);
    standingOf(await ask(cluster, drained, leader));
    const agent = cluster.agent(drained);
    agent.open();
    let written = 0;
    for (let round = 0; round < 100; round += 1) {
      const request = agent.write(put(`k/${round}`));
      await cluster.time.run(100);
      if (agent.answer(request)?.kind === 'written') written += 1;
    }
    expect(written).toBeGreaterThan(60);
    expect(cluster.server(leader).status().role).toBe('leader');
  });

  test('leads on, and says so, when the only one it could hand over to does not answer', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    const leader = cluster.leader as number;
    const [dead, other] = cluster.followers as [number, number];
    standingOf(await ask(cluster, leader, other));
    const clock = cluster.clocks.get(dead);
    if (clock) clock.stoppedUntilMs = cluster.time.nowMs + 30_000;
    await cluster.time.run(200);
    // It was heard a moment ago.
    expect(standingOf(await ask(cluster, leader, leader))).toMatchObject({ leader, draining: true });
    await cluster.time.run(10_000);
    expect(cluster.leader).toBe(leader);
  });

  test('takes agents and may lead again when the drain is ended, or after a restart', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    const [drained, other] = cluster.followers as [number, number];
    standingOf(await ask(cluster, other, drained));
    expect(standingOf(await ask(cluster, other, drained, true))).toMatchObject({
      draining: false,
      graceMs: 0,
    });
    expect(cluster.door(drained).calls).toEqual(['drain 3000', 'admit']);
    expect(cluster.server(drained).readiness().ready).toBe(true);
    expect(await draining(cluster, other)).toEqual([]);
    const agent = cluster.agent(other);
    const transfer = agent.send({ kind: 'transfer_leader', member: drained });
    expect(await cluster.answer(agent, transfer)).toMatchObject({ kind: 'leader_transferred' });

    standingOf(await ask(cluster, drained, other));
    await cluster.stop(other);
    await cluster.start(other);
    await cluster.time.run(2500);
    expect(await draining(cluster, drained)).toEqual([]);
    expect(cluster.server(other).readiness().ready).toBe(true);
  });

  test('stays drained when it cannot listen again, and says why', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    standingOf(await ask(cluster, 1, 2));
    cluster.door(2).problem = new Error('the port is taken');
    expect(await ask(cluster, 1, 2, true)).toMatchObject(refused('the port is taken'));
    expect(await draining(cluster, 1)).toEqual([2]);
    cluster.door(2).problem = undefined;
    expect(standingOf(await ask(cluster, 1, 2, true)).draining).toBe(false);
  });

  test('is not chosen by a transfer to whomever, nor taken by name', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    const [drained, other] = cluster.followers as [number, number];
    standingOf(await ask(cluster, other, drained));
    for (const at of cluster.ids) {
      const agent = cluster.agent(at);
      const named = agent.send({ kind: 'transfer_leader', member: drained });
      expect(await cluster.answer(agent, named)).toMatchObject({ failure: { code: 'MEMBERSHIP_REFUSED' } });
      const anyone = await cluster.answer(agent, agent.send({ kind: 'transfer_leader' }), 500);
      expect(anyone).toMatchObject({ kind: 'leader_transferred' });
      await cluster.time.run(200);
      expect(cluster.leader).not.toBe(drained);
    }
  });

  test('hands over and sends its agents away when its process stops, also as the last that takes any', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    const leader = cluster.leader as number;
    const [first, second] = cluster.followers as [number, number];
    standingOf(await ask(cluster, first, first));
    standingOf(await ask(cluster, first, second));
    let over = false;
    const drained = cluster.server(leader).drain(2000);
    void drained.then(() => (over = true));
    await cluster.time.run(100);
    expect(cluster.door(leader).calls).toEqual(['drain 2000']);
    expect(over).toBe(false);
    cluster.door(leader).empty();
    await cluster.time.until('nobody is left', () => over);
    await cluster.stop(leader);
    expect(await cluster.newLeader()).not.toBe(leader);
  });
});

describe('an order to drain', () => {
  test('gives the agents of a process that stops no other time than the stop does', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    void cluster.server(2).drain(2000);
    expect(standingOf(await ask(cluster, 1, 2))).toMatchObject({ draining: true, graceMs: 2000 });
    expect(cluster.door(2).calls).toEqual(['drain 2000']);
  });

  test('of a process that stops is not taken back', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    let over = false;
    void cluster
      .server(2)
      .drain(2000)
      .then(() => (over = true));
    expect(await ask(cluster, 1, 2, true)).toMatchObject(refused('stops'));
    expect(cluster.door(2).calls).toEqual(['drain 2000']);
    expect(over).toBe(false);
  });

  test('is refused where the agents would have nowhere to go', async () => {
    const alone = await started(1);
    expect(await ask(alone, 1, 1)).toMatchObject(refused('nowhere to go'));
    const cluster = await started(3);
    await cluster.time.run(1500);
    standingOf(await ask(cluster, 1, 2));
    await cluster.time.run(200);
    cluster.crash(3);
    await cluster.time.run(6000);
    expect(await ask(cluster, 1, 1)).toMatchObject(refused('nowhere to go'));
    // Once more is no other drain.
    expect(standingOf(await ask(cluster, 1, 2)).draining).toBe(true);
    expect(cluster.door(1).calls).toEqual([]);
  });

  test('is refused for nobody, for a server out of touch, and for one of an earlier version', async () => {
    const cluster = await started(3);
    cluster.crash(3);
    await cluster.start(3, { version: 4 });
    await cluster.time.run(3000);
    expect(await ask(cluster, 1, 9)).toMatchObject(refused('no member 9'));
    expect(await ask(cluster, 1, 3)).toMatchObject(refused('upgrade'));
    cluster.crash(3);
    await cluster.time.run(200);
    expect(await ask(cluster, 1, 3)).toMatchObject({ failure: { code: 'UNAVAILABLE' } });
  });

  test('is sent again when it or its outcome is lost, and carried out once', async () => {
    for (const [from, to] of [
      [1, 2],
      [2, 1],
    ] as const) {
      const cluster = await started(3);
      await cluster.time.run(1500);
      const agent = cluster.agent(1);
      cluster.network.lose(
        from,
        to,
        ({ agentsOrder, agentsOutcome }) => (agentsOrder ?? agentsOutcome) !== undefined,
      );
      const request = agent.send({ kind: 'drain_server', member: 2, end: false, graceMs: 3000 });
      await cluster.time.run(500);
      expect(agent.answer(request)).toBeUndefined();
      cluster.network.lose(from, to, () => false);
      expect(standingOf(await cluster.answer(agent, request, 2000)).draining).toBe(true);
      expect(cluster.door(2).calls).toEqual(['drain 3000']);
    }
  });
});

describe('an order to drain that is taken back', () => {
  test('is answered at once, that it is drained no more', async () => {
    for (const asked of [1, 2]) {
      const cluster = await started(3);
      await cluster.time.run(1500);
      const agent = cluster.agent(asked);
      const drain = agent.send({ kind: 'drain_server', member: 2, end: false, graceMs: 3000 });
      const end = agent.send({ kind: 'drain_server', member: 2, end: true });
      expect(standingOf(await cluster.answer(agent, end, 500)).draining).toBe(false);
      expect(await cluster.answer(agent, drain, 500)).toMatchObject(refused('was ended'));
    }
  });
});

describe('a rebalance', () => {
  const rebalance = (cluster: ServerCluster, at: number) => {
    const agent = cluster.agent(at);
    return cluster.answer(agent, agent.send({ kind: 'rebalance' }), 3000);
  };

  test('asks the servers with many agents to send just so many to those with few, and tells of it', async () => {
    const cluster = await started(3);
    for (let count = 0; count < 11; count += 1) cluster.agent(1);
    for (let count = 0; count < 7; count += 1) cluster.agent(2);
    await cluster.time.run(1500);
    // With the one that asks there are 19.
    const body = await rebalance(cluster, 1);
    expect(body).toMatchObject({
      kind: 'rebalanced',
      rebalanced: {
        servers: [
          { member: 1, name: 'server-1', agents: 12, moving: 5, leftOut: false },
          { member: 2, agents: 7, moving: 1 },
          { member: 3, agents: 0, moving: 0 },
        ],
      },
    });
    expect(cluster.door(1).moves).toEqual([[{ endpoint: 'wss://s3', agents: 5 }]]);
    expect(cluster.door(2).moves).toEqual([[{ endpoint: 'wss://s3', agents: 1 }]]);
    expect(cluster.door(3).calls).toEqual([]);
  });

  test('leaves drained and dead servers out, and moves nobody where all have about as many', async () => {
    const cluster = await started(3);
    for (let count = 0; count < 3; count += 1) cluster.agent(1);
    for (let count = 0; count < 4; count += 1) cluster.agent(2);
    await cluster.time.run(1500);
    standingOf(await ask(cluster, 1, 3));
    expect(await rebalance(cluster, 2)).toMatchObject({
      rebalanced: {
        servers: [
          { member: 1, moving: 0, leftOut: false },
          { member: 2, moving: 0, leftOut: false },
          { member: 3, moving: 0, leftOut: true },
        ],
      },
    });
    cluster.crash(3);
    await cluster.time.run(6000);
    expect(await rebalance(cluster, 1)).toMatchObject({ kind: 'rebalanced' });
    for (const id of [1, 2]) expect(cluster.door(id).moves).toEqual([]);
  });

  test('is refused while a server of an earlier version is there', async () => {
    const cluster = await started(3);
    cluster.crash(3);
    await cluster.start(3, { version: 4 });
    await cluster.time.run(3000);
    expect(await rebalance(cluster, 1)).toMatchObject(refused('server-3 (member 3) runs a version'));
  });
});
