import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { AnswerBody, SnapshotReadPart } from '../../src/protocol/index.ts';
import { resolveOperation, ServerCluster, type Agent } from './support/server-cluster.ts';

const fill = async (cluster: ServerCluster, at: number, keys: number, bytes: number): Promise<void> => {
  const agent = cluster.agent(at);
  agent.open();
  for (let number = 0; number < keys; number += 1)
    await cluster.answer(agent, agent.write([resolveOperation(`k/${number}`, 'x'.repeat(bytes))]));
};

const partOf = (body: AnswerBody): SnapshotReadPart => {
  if (body.kind !== 'snapshot_part') throw new Error(`answered ${JSON.stringify(body)}`);
  return body.part;
};

const read = (agent: Agent, part: number, snapshot?: number): number =>
  agent.send({ kind: 'snapshot_read', part, ...(snapshot !== undefined && { snapshot }) });

const readAll = async (cluster: ServerCluster, agent: Agent): Promise<SnapshotReadPart[]> => {
  const parts = [partOf(await cluster.answer(agent, read(agent, 0)))];
  for (let last = parts[0]; last !== undefined && !last.last; last = parts.at(-1))
    parts.push(partOf(await cluster.answer(agent, read(agent, last.part + 1, last.snapshot))));
  return parts;
};

describe('a snapshot that a client reads', () => {
  test('is the state of one moment, part by part, whatever is written meanwhile', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = cluster.leader as number;
    await fill(cluster, leader, 30, 30_000);
    await cluster.time.run(200);
    for (const id of cluster.ids) {
      const agent = cluster.agent(id);
      const first = partOf(await cluster.answer(agent, read(agent, 0)));
      const { revision } = cluster.server(id).status();
      expect(first).toMatchObject({ part: 0, last: false, revision, clusterId: 'c'.repeat(32), epoch: 1 });
      const writer = cluster.agent(leader);
      writer.open();
      await cluster.answer(writer, writer.write([resolveOperation('k/3', 'later', { supersede: true })]));
      const parts = [first];
      for (let part = first; !part.last;) {
        part = partOf(await cluster.answer(agent, read(agent, part.part + 1, part.snapshot)));
        parts.push(part);
      }
      expect(parts.length).toBeGreaterThan(3);
      for (const part of parts) {
        expect(crc32(part.records)).toBe(part.checksum);
        expect(part).toMatchObject({ revision, index: first.index, term: first.term });
        expect(Buffer.from(part.records).includes('later')).toBe(false);
      }
      expect(parts.at(-1)?.recordsTotal).toBeGreaterThanOrEqual(31);
      await cluster.answer(writer, writer.write([resolveOperation('k/3', 'x', { supersede: true })]));
      await cluster.time.run(200);
    }
  });

  test('has the revision of what is in it, also on a server that has just got its state by a snapshot', async () => {
    const cluster = await ServerCluster.start({ servers: 3, logRetainBytes: 20_000 });
    const [away] = cluster.followers as [number];
    cluster.crash(away);
    await fill(cluster, cluster.leader as number, 200, 300);
    await cluster.start(away);
    await cluster.converged();
    expect(cluster.network.snapshotsSent).toBeGreaterThan(0);
    const agent = cluster.agent(away);
    const [first] = await readAll(cluster, agent);
    expect(first?.revision).toBe(cluster.server(away).status().revision);
    // And after a restart, with nothing written since.
    cluster.crash(away);
    await cluster.start(away);
    const again = cluster.agent(away);
    const [second] = await readAll(cluster, again);
    expect(second?.revision).toBeGreaterThan(0);
    expect(cluster.fatal).toEqual([]);
  });

  test('gives its last part again, and no part out of turn', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    await fill(cluster, 1, 20, 30_000);
    await cluster.time.run(200);
    const agent = cluster.agent(1);
    const first = partOf(await cluster.answer(agent, read(agent, 0)));
    expect(partOf(await cluster.answer(agent, read(agent, 0, first.snapshot)))).toEqual(first);
    for (const part of [2, 7])
      expect(await cluster.answer(agent, read(agent, part, first.snapshot))).toMatchObject({
        failure: { code: 'INVALID_ARGUMENT' },
      });
    const second = partOf(await cluster.answer(agent, read(agent, 1, first.snapshot)));
    expect(second.part).toBe(1);
    expect(await cluster.answer(agent, read(agent, 0, first.snapshot))).toMatchObject({
      failure: { code: 'INVALID_ARGUMENT' },
    });
    expect(await cluster.answer(agent, read(agent, 1, first.snapshot + 1))).toMatchObject({
      failure: { message: expect.stringMatching(/is not open on this server/) as string },
    });
    // Two at once, of one view.
    const both = [read(agent, 2, first.snapshot), read(agent, 2, first.snapshot)];
    const kinds = [];
    for (const each of both) kinds.push((await cluster.answer(agent, each)).kind);
    expect(kinds.sort()).toEqual(['failed', 'snapshot_part']);
  });

  test('is one of at most two on a server, and is closed when its reader goes away', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    await fill(cluster, 1, 20, 30_000);
    await cluster.time.run(200);
    const agent = cluster.agent(1);
    const open = async () => cluster.answer(agent, read(agent, 0));
    const first = partOf(await open());
    partOf(await open());
    expect(await open()).toMatchObject({ failure: { code: 'LIMIT_EXCEEDED' } });
    await cluster.time.run(59_000);
    expect(await open()).toMatchObject({ failure: { code: 'LIMIT_EXCEEDED' } });
    await cluster.time.run(1100);
    expect(await cluster.answer(agent, read(agent, 1, first.snapshot))).toMatchObject({ kind: 'failed' });
    partOf(await open());
    await cluster.stop(1);
    expect(cluster.fatal).toEqual([]);
  });

  test('counts no more when its last part was given, which is told once more for a while', async () => {
    const cluster = await ServerCluster.start({ servers: 1 });
    await fill(cluster, 1, 3, 30_000);
    const agent = cluster.agent(1);
    const lasts: SnapshotReadPart[] = [];
    for (let number = 0; number < 12; number += 1)
      lasts.push((await readAll(cluster, agent)).at(-1) as SnapshotReadPart);
    const again = ({ snapshot, part }: SnapshotReadPart) =>
      cluster.answer(agent, read(agent, part, snapshot));
    expect(partOf(await again(lasts[11] as SnapshotReadPart))).toEqual(lasts[11]);
    expect(partOf(await again(lasts[4] as SnapshotReadPart))).toEqual(lasts[4]);
    // Not all of them are kept, nor for ever.
    expect(await again(lasts[0] as SnapshotReadPart)).toMatchObject({ kind: 'failed' });
    await cluster.time.run(10_100);
    expect(await again(lasts[11] as SnapshotReadPart)).toMatchObject({ kind: 'failed' });
    await cluster.stop(1);
    expect(cluster.fatal).toEqual([]);
  });

  test('has every write that was answered before it was asked for, on whichever server', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const leader = cluster.leader as number;
    const [behind] = cluster.followers as [number];
    await fill(cluster, leader, 3, 10);
    await cluster.time.run(1000);
    cluster.network.cut(leader, behind);
    const writer = cluster.agent(leader);
    writer.open();
    for (let number = 0; number < 20; number += 1) {
      const operations = [resolveOperation('k/1', `value-${number}`, { supersede: true })];
      const answer = await cluster.answer(writer, writer.write(operations));
      cluster.network.heal();
      const asked = number % 2 === 0 ? behind : leader;
      const parts = await readAll(cluster, cluster.agent(asked));
      const text = Buffer.concat(parts.map(({ records }) => records)).toString('latin1');
      if (answer.kind !== 'written') throw new Error(`answered ${JSON.stringify(answer)}`);
      expect(parts[0]?.revision).toBeGreaterThanOrEqual(answer.result.revision);
      expect(text).toContain(`value-${number}`);
    }
    expect(cluster.fatal).toEqual([]);
  });

  test('is given also where nobody leads, after a while; whoever waits less gets it sooner', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    await fill(cluster, cluster.leader as number, 3, 10);
    await cluster.converged();
    const [left] = cluster.followers as [number];
    for (const id of cluster.ids) if (id !== left) cluster.crash(id);
    await cluster.time.run(5000);
    const agent = cluster.agent(left);
    const beganMs = cluster.time.nowMs;
    const parts = await readAll(cluster, agent);
    expect(parts[0]?.revision).toBe(3);
    expect(cluster.time.nowMs - beganMs).toBeGreaterThan(2900);
    expect(cluster.time.nowMs - beganMs).toBeLessThan(3500);
    const hasty = agent.send({ kind: 'snapshot_read', part: 0, timeoutMs: 800 });
    partOf(await cluster.answer(agent, hasty));
    expect(cluster.fatal).toEqual([]);
  });

  test('does not begin when nobody waits for it any more', async () => {
    const cluster = await ServerCluster.start({ servers: 3 });
    const [left] = cluster.followers as [number];
    for (const id of cluster.ids) if (id !== left) cluster.crash(id);
    await cluster.time.run(5000);
    const gone = cluster.agent(left);
    for (let number = 0; number < 2; number += 1) read(gone, 0);
    const agent = cluster.agent(left);
    expect(await cluster.answer(agent, read(agent, 0))).toMatchObject({
      failure: { code: 'LIMIT_EXCEEDED' },
    });
    gone.close();
    partOf(await cluster.answer(agent, read(agent, 0)));
    expect(cluster.fatal).toEqual([]);
  });
});
