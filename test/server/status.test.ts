import { describe, expect, test } from 'vitest';
import type { ClusterStatus } from '../../src/protocol/index.ts';
import { ServerCluster } from './support/server-cluster.ts';

const statusOf = async (cluster: ServerCluster, at: number): Promise<ClusterStatus> => {
  const agent = cluster.agent(at);
  const body = await cluster.answer(agent, agent.send({ kind: 'status' }));
  if (body.kind !== 'status') throw new Error(`the status was answered ${JSON.stringify(body)}`);
  return body.status;
};

const lineOf = ({ members }: ClusterStatus, id: number) => members.find((member) => member.id === id);
const leadersOf = ({ members }: ClusterStatus): number[] =>
  members.filter(({ role }) => role === 'leader').map(({ id }) => id);

describe('the status', () => {
  test('says of a member that was never heard just that', async () => {
    const cluster = new ServerCluster({ servers: 3 });
    await cluster.start(1);
    const status = await statusOf(cluster, 1);
    expect(lineOf(status, 1)).toMatchObject({ heardMsAgo: 0 });
    for (const id of [2, 3])
      expect(lineOf(status, id)).toMatchObject({ role: 'unreachable', heardMsAgo: undefined, version: '' });
  });

  test('does not name as leader one that is dead, and names the new one at once', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await cluster.time.run(3000);
    const dead = cluster.leader as number;
    for (const id of cluster.ids) expect(leadersOf(await statusOf(cluster, id))).toEqual([dead]);
    const [first] = cluster.followers as [number];
    cluster.crash(dead);
    const leader = await cluster.newLeader();
    expect(leadersOf(await statusOf(cluster, first))).toEqual([leader]);
    expect(lineOf(await statusOf(cluster, first), dead)).toMatchObject({ role: 'unreachable', term: 1 });
  });

  test('names one leader also where the one before it has not told yet that it follows', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await cluster.time.run(3000);
    const [next, third] = cluster.followers as [number, number];
    const agent = cluster.agent(third);
    await cluster.answer(agent, agent.send({ kind: 'transfer_leader', member: next }));
    expect(leadersOf(await statusOf(cluster, third))).toEqual([next]);
  });

  test('names no leader where none is known', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await cluster.time.run(3000);
    const leader = cluster.leader as number;
    const [cutOff] = cluster.followers as [number];
    for (const id of cluster.ids) if (id !== cutOff) cluster.network.cut(cutOff, id);
    await cluster.time.run(2500);
    expect(leadersOf(await statusOf(cluster, cutOff))).toEqual([]);
    expect(leadersOf(await statusOf(cluster, leader))).toEqual([leader]);
  });
});
