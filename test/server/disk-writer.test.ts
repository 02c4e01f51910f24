/** What rides with which batch, and for whom one is written. */
import { describe, expect, test } from 'vitest';
import { asLogIndex, asTerm, initialConfiguration, type Persist } from '../../src/raft/index.ts';
import { noMetrics } from '../../src/server/index.ts';
import { DiskWriter, ticksPerState } from '../../src/server/disk-writer.ts';
import { MemoryDisk, openMemoryStorage, type Storage, type WriteBatch } from '../../src/storage/index.ts';
import { VirtualTime } from './support/virtual-time.ts';

const setup = async (
  onFailed = (error: unknown): void => {
    throw error;
  },
) => {
  const disk = new MemoryDisk();
  const storage = await openMemoryStorage({
    disk,
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
  const state = { index: 0, taken: 0 };
  const writer = new DiskWriter({
    takeState: () => {
      state.taken += 1;
      const applied = { index: asLogIndex(state.index), term: asTerm(1) };
      return { writes: [], applied, revision: state.index };
    },
    storage: watched,
    environment: new VirtualTime(1).environment({ wallOffsetMs: 0, stoppedUntilMs: 0 }),
    metrics: noMetrics,
    onWritten: () => undefined,
    onFailed,
  });
  return { writer, written, state, disk };
};

/** What was begun on the disk is done. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

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

test('who waits for a disk that fails is told so, also who comes later', async () => {
  const failures: unknown[] = [];
  const { writer, disk } = await setup((error) => failures.push(error));
  disk.manual = true;
  writer.addPeers([told]);
  const idle = writer.whenIdle();
  const onDisk = writer.whenOnDisk();
  disk.failNextWrite();
  disk.manual = false;
  await expect(idle).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(onDisk).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(writer.whenIdle()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(failures).toHaveLength(1);
});

describe('the state of applied entries', () => {
  const persist = (index: number): Persist => ({
    sequence: index,
    mustSync: true,
    hardState: { term: asTerm(1), vote: undefined, commit: asLogIndex(index) },
    entries: [{ index: asLogIndex(index), term: asTerm(1), kind: 'empty', payload: Buffer.alloc(0) }],
    afterDurable: [],
  });

  const ticks = (writer: DiskWriter, count: number): void => {
    for (let left = count; left > 0; left -= 1) writer.tick();
  };

  test('goes with the first batch after some ticks that somebody waits for, once for all changes', async () => {
    const { writer, written, state } = await setup();
    for (const index of [1, 2, 3]) {
      writer.addPersist(persist(index));
      writer.flush();
      await turn();
      state.index = index;
      writer.stateChanged(100);
    }
    expect(state.taken).toBe(0);
    ticks(writer, ticksPerState - 1);
    writer.addPersist(persist(4));
    writer.flush();
    await turn();
    expect(state.taken).toBe(0);
    writer.tick();
    writer.flush();
    await turn();
    expect(written.map(({ applied }) => applied)).toEqual([undefined, undefined, undefined, undefined]);
    writer.addPersist(persist(5));
    writer.flush();
    await turn();
    expect(written.at(-1)).toMatchObject({ sync: true, applied: { index: 3 } });
    expect(state.taken).toBe(1);
  });

  test('is written by the tick after those where no batch came, without a sync', async () => {
    const { writer, written, state } = await setup();
    writer.addPersist(persist(1));
    writer.flush();
    await turn();
    state.index = 1;
    writer.stateChanged(100);
    ticks(writer, ticksPerState);
    expect(written).toHaveLength(1);
    writer.tick();
    await turn();
    expect(written.at(-1)).toMatchObject({ sync: false, applied: { index: 1 } });
    ticks(writer, 2 * ticksPerState);
    await turn();
    expect(written).toHaveLength(2);
  });

  test('keeps nothing else waiting that no batch takes along', async () => {
    const { writer, written, state } = await setup();
    writer.stateChanged(100);
    writer.addPeers([told]);
    writer.tick();
    expect(written).toEqual([]);
    writer.tick();
    await turn();
    expect(written).toMatchObject([{ sync: false, peerWrites: [told] }]);
    expect(state.taken).toBe(0);
  });

  test('is written by the second tick where no entry has changed it: records were left to be rewritten', async () => {
    const { writer, written } = await setup();
    writer.stateChanged(0);
    writer.tick();
    expect(written).toEqual([]);
    writer.tick();
    await turn();
    expect(written).toMatchObject([{ sync: false }]);
  });

  test('does not wait when much of the log was applied, when it is asked for, and where the log is cut', async () => {
    const { writer, written, state } = await setup();
    const apply = async (index: number, bytes: number): Promise<void> => {
      writer.addPersist(persist(index));
      writer.flush();
      await turn();
      state.index = index;
      writer.stateChanged(bytes);
    };
    await apply(1, 2 ** 21);
    writer.flush();
    await turn();
    expect(written.at(-1)).toMatchObject({ sync: false, applied: { index: 1 } });
    await apply(2, 1);
    await writer.whenOnDisk();
    expect(written.at(-1)).toMatchObject({ sync: false, applied: { index: 2 } });
    await apply(3, 1);
    writer.addCompaction({ index: asLogIndex(3), term: asTerm(1), configuration: initialConfiguration([1]) });
    writer.addPersist(persist(4));
    writer.flush();
    await turn();
    expect(written.at(-1)).toMatchObject({ applied: { index: 3 }, compactTo: { index: 3 } });
  });
});
