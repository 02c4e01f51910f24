import { describe, expect, test } from 'vitest';
import type { MemoryDisk } from '../../src/storage/index.ts';
import { expectServing, put, started, write } from './support/members.ts';

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
