/** What rides with which batch, and for whom one is written. */
import { expect, test } from 'vitest';
import { asLogIndex, asTerm } from '../../src/raft/index.ts';
import { noMetrics } from '../../src/server/index.ts';
import { DiskWriter } from '../../src/server/disk-writer.ts';
import { MemoryDisk, openMemoryStorage, type Storage, type WriteBatch } from '../../src/storage/index.ts';
import { VirtualTime } from './support/virtual-time.ts';

const setup = async () => {
  const storage = await openMemoryStorage({
    disk: new MemoryDisk(),
    identity: { clusterId: 'c'.repeat(32), member: 1 },
  });
  const written: WriteBatch[] = [];
  const watched = new Proxy<Storage>(storage, {
    get: (target, name) =>
      name === 'write'
        ? (batch: WriteBatch) => {
            written.push(batch);
            return target.write(batch);
          }
        : (Reflect.get(target, name, target) as unknown),
  });
  const writer = new DiskWriter({
    storage: watched,
    environment: new VirtualTime(1).environment({ wallOffsetMs: 0, stoppedUntilMs: 0 }),
    metrics: noMetrics,
    onWritten: () => undefined,
    onFailed: (error) => {
      throw error;
    },
  });
  return { writer, written };
};

const told = { key: '2/told', value: Buffer.from('…') };

test('what peers have told rides with the next batch that somebody waits for', async () => {
  const { writer, written } = await setup();
  writer.addPeers([told]);
  writer.flush();
  expect(written).toEqual([]);
  writer.addPersist({
    sequence: 1,
    mustSync: true,
    hardState: { term: asTerm(1), vote: undefined, commit: asLogIndex(0) },
    entries: [],
    afterDurable: [],
  });
  writer.flush();
  await writer.whenIdle();
  expect(written).toMatchObject([{ sync: true, peerWrites: [told], hardState: { term: 1 } }]);
});

test('what peers have told is never synced for its own sake, and writes nothing where it is nothing', async () => {
  const { writer, written } = await setup();
  writer.addPeers([]);
  writer.flushAll();
  expect(written).toEqual([]);
  writer.addPeers([told]);
  writer.flushAll();
  await writer.whenIdle();
  expect(written).toMatchObject([{ sync: false, peerWrites: [told] }]);
});
