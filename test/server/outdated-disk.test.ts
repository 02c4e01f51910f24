import { describe, expect, test } from 'vitest';
import { asLogIndex } from '../../src/raft/index.ts';
import { decodePeerRecords } from '../../src/server/peer-records.ts';
import { MemoryDisk, openMemoryStorage } from '../../src/storage/index.ts';
import { encodeLogEntry, type Command } from '../../src/store/index.ts';
import { resolveOperation, ServerCluster } from './support/server-cluster.ts';

const put = (key: string) => [resolveOperation(key, 'v', { supersede: true })];

const write = async (cluster: ServerCluster, at: number, count: number): Promise<void> => {
  const agent = cluster.agent(at);
  agent.open();
  for (let number = 0; number < count; number += 1)
    expect(await cluster.answer(agent, agent.write(put(`k/${number}`)))).toMatchObject({ kind: 'written' });
};

const diskOf = (cluster: ServerCluster, id: number): MemoryDisk => cluster.disks.get(id) as MemoryDisk;

const restart = async (cluster: ServerCluster, id: number, version = 3): Promise<void> => {
  cluster.crash(id);
  await cluster.start(id, { version });
};

/** A cluster of three, a copy of a follower's disk, and what has happened since. */
const withCopy = async (since: (cluster: ServerCluster, id: number, leader: number) => Promise<void>) => {
  const cluster = await ServerCluster.start({ servers: 3 });
  const leader = cluster.leader as number;
  const [back] = cluster.followers as [number];
  await write(cluster, leader, 5);
  await cluster.time.run(1500);
  const copy = diskOf(cluster, back).copy();
  await since(cluster, back, leader);
  await write(cluster, leader, 5);
  await cluster.time.run(1500);
  return { cluster, leader, back, copy };
};

/** The disk of a server that has just died is exchanged. */
const putBack = (cluster: ServerCluster, id: number, disk: MemoryDisk): void => {
  cluster.crash(id);
  cluster.disks.set(id, disk);
};

const expectOutdated = async (cluster: ServerCluster, id: number): Promise<void> => {
  await cluster.time.until('it has ended', () => !cluster.running.includes(id));
  expect(cluster.fatal.at(-1)).toMatchObject({ id, error: { code: 'DATA_OUTDATED' } });
  for (let again = 0; again < 3; again += 1)
    await expect(cluster.start(id)).rejects.toMatchObject({ code: 'DATA_OUTDATED' });
};

const expectReplaceable = async (cluster: ServerCluster, leader: number, id: number): Promise<void> => {
  await cluster.add(leader, 4, id);
  await cluster.start(4, { join: true });
  await cluster.settled(leader);
  await write(cluster, 4, 1);
};

describe('an older copy of a disk', () => {
  test('of the last run is refused, marked, and not started again; its member is replaced', async () => {
    const { cluster, leader, back, copy } = await withCopy(() => Promise.resolve());
    putBack(cluster, back, copy);
    await cluster.start(back);
    await expectOutdated(cluster, back);
    await expectReplaceable(cluster, leader, back);
  });

  test('of the last run is refused also by those who have all lost power since', async () => {
    const { cluster, back, copy } = await withCopy(() => Promise.resolve());
    // A later write takes what was heard to the disk.
    await write(cluster, cluster.leader as number, 1);
    putBack(cluster, back, copy);
    const others = cluster.ids.filter((id) => id !== back);
    for (const id of others) cluster.crash(id);
    for (const id of others) await cluster.start(id);
    await cluster.start(back);
    await expectOutdated(cluster, back);
  });

  test('from before the last start is refused, however often it was started out of touch', async () => {
    const { cluster, leader, back, copy } = await withCopy(restart);
    const seen = Math.floor(cluster.presence(back).run / 2 ** 20);
    putBack(cluster, back, copy);
    cluster.network.isolate(back, cluster.ids);
    for (let again = 0; again < 4; again += 1) {
      await cluster.start(back);
      await cluster.time.run(100);
      cluster.crash(back);
    }
    await cluster.start(back);
    expect(Math.floor(cluster.presence(back).run / 2 ** 20)).toBeGreaterThan(seen + 1);
    cluster.network.heal();
    await expectOutdated(cluster, back);
    expect(cluster.network.refusals.at(-1)).toMatch(
      /\(start \d+, but not after the start \d+ that the cluster/,
    );
    await expectReplaceable(cluster, leader, back);
  });

  test('that others let in, because they know no lineage, finds in the log that it is one', async () => {
    const { cluster, back, copy } = await withCopy(restart);
    putBack(cluster, back, copy);
    cluster.network.isolate(back, cluster.ids);
    for (let again = 0; again < 3; again += 1) await restart(cluster, back, 2);
    // What they have heard of it since their last write ends with them.
    for (const id of cluster.ids) if (id !== back) await restart(cluster, id);
    cluster.network.heal();
    await expectOutdated(cluster, back);
    expect(cluster.network.refusals).toEqual([]);
  });

  test('is refused by a server that has the run in its log, though it has not applied that yet', async () => {
    const { cluster, back, leader } = await withCopy(() => Promise.resolve());
    const disk = diskOf(cluster, leader);
    const present = cluster.presence(back);
    for (const id of cluster.ids) cluster.crash(id);
    const identity = { clusterId: 'c'.repeat(32), member: leader };
    const storage = await openMemoryStorage({ disk, identity });
    const last = storage.recovered.entries.at(-1);
    if (last === undefined) throw new Error('the log is empty');
    const run = present.run + 2 ** 20;
    const origin = { member: back, run, request: 1 };
    const { diskId } = present;
    const started: Command = { origin, kind: 'server_started', member: back, run, diskId };
    const payload = encodeLogEntry({ timeMs: 0, commands: [started] });
    const entry = { term: last.term, index: asLogIndex(last.index + 1), kind: 'commands', payload } as const;
    await storage.write({ entries: [entry], stateWrites: [], sync: true });
    await storage.close();
    await cluster.start(leader);
    expect(cluster.server(leader).refusePeer(back, present)).toMatchObject({
      reason: expect.stringMatching(/older copy/),
    });
    expect(cluster.server(leader).refusePeer(back, { run, diskId })).toBeUndefined();
  });

  test('that was started in the place of the original by one who had heard of neither is told from it by the log', async () => {
    const { cluster, leader, back, copy } = await withCopy(restart);
    const genuine = diskOf(cluster, back);
    putBack(cluster, back, copy);
    const known = cluster.ids.filter((id) => id !== back);
    for (const id of [4, back]) cluster.network.isolate(id, known);
    await cluster.start(4, { join: true });
    await cluster.start(back);
    const copied = cluster.presence(back);
    // It knows nothing, so it lets it in; not for ever.
    expect(cluster.server(4).refusePeer(back, copied)).toBeUndefined();
    expect(cluster.server(leader).refusePeer(back, copied)).toMatchObject({ outdated: true });
    putBack(cluster, back, genuine);
    await cluster.start(back);
    expect(cluster.server(leader).refusePeer(back, cluster.presence(back))).toBeUndefined();
    // Of two that it can't tell apart the first one counts, and the other is not condemned for that.
    const refusal = cluster.server(4).refusePeer(back, cluster.presence(back));
    expect(refusal).toMatchObject({ removed: false });
    expect(refusal).not.toHaveProperty('outdated');
  });
});

describe('what a peer has told', () => {
  test('just before a server is stopped in order is on its disk', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [one, peer] = cluster.followers as [number, number];
    await cluster.time.run(1500);
    await write(cluster, cluster.leader as number, 3);
    const status = cluster.server(peer).status();
    cluster.network.inject(peer, one, { raft: [], forward: [], forwardTerm: 0, status });
    await cluster.stop(one);
    const identity = { clusterId: 'c'.repeat(32), member: one };
    const storage = await openMemoryStorage({ disk: diskOf(cluster, one), identity });
    const told = decodePeerRecords(storage.recovered.peerRecords).get(peer);
    expect(told?.now.applied).toBe(status.appliedIndex);
    await storage.close();
  });
});

describe('a disk that is as it was', () => {
  test('is never marked, however often its server is started in touch or out of it', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [often] = cluster.followers as [number];
    await cluster.converged();
    for (let round = 0; round < 8; round += 1) {
      await restart(cluster, often);
      await cluster.time.run(round * 150);
    }
    cluster.network.isolate(often, cluster.ids);
    for (let round = 0; round < 300; round += 1) await restart(cluster, often);
    cluster.network.heal();
    await cluster.time.run(5000);
    expect([cluster.network.refusals, cluster.fatal]).toEqual([[], []]);
  }, 20_000);

  test('is never marked when its server and all that know it are started again in any order', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    for (let round = 0; round < 12; round += 1) {
      const id = ((round * 5) % 3) + 1;
      await restart(cluster, id);
      await cluster.time.run((round % 4) * 700);
    }
    for (const id of cluster.ids) cluster.crash(id);
    for (const id of cluster.ids) await cluster.start(id);
    await write(cluster, await cluster.newLeader(), 3);
    expect([cluster.network.refusals, cluster.fatal]).toEqual([[], []]);
  });

  test('is written before anybody hears of its run', async () => {
    const disk = new MemoryDisk();
    const cluster = new ServerCluster({ servers: 1 });
    cluster.disks.set(1, disk);
    await cluster.start(1);
    const { run } = cluster.presence(1);
    cluster.crash(1);
    const identity = { clusterId: 'c'.repeat(32), member: 1 };
    const storage = await openMemoryStorage({ disk, identity });
    expect(storage.recovered.lineage).toEqual([run]);
    await storage.close();
  });
});
