import { beforeEach, describe, expect, test } from 'vitest';
import type { SnapshotPart, StagedRecord, Storage, StorageIdentity } from '../../src/storage/index.ts';
import {
  batch,
  bytes,
  configuration,
  dump,
  entries,
  entry,
  hardState,
  point,
  position,
  put,
  readAll,
  snapshotParts,
} from './support.ts';

/** A disk on which storages are opened one after the other. */
export interface Disk {
  readonly name: string;
  open(as?: StorageIdentity): Promise<Storage>;
}

const parts = async (storage: Storage): Promise<SnapshotPart[]> => {
  const reader = await storage.openSnapshot(configuration);
  const all: SnapshotPart[] = [];
  for (let part = await reader.next(); part !== undefined; part = await reader.next()) all.push(part);
  expect(await reader.next()).toBeUndefined();
  await reader.close();
  return all;
};

const openingContract = (disk: () => Disk): void => {
  test('a new disk is empty, and counts its openings', async () => {
    const first = await disk().open();
    expect(await dump(first)).toEqual({
      hardState: undefined,
      snapshot: undefined,
      entries: [],
      applied: { index: 0, term: 0 },
      state: [],
    });
    expect(first.recovered.run).toBe(1);
    expect(first.recovered.diskId).toHaveLength(16);
    await first.close();
    const second = await disk().open();
    expect(second.recovered.run).toBe(2);
    expect(second.recovered.diskId).toEqual(first.recovered.diskId);
    await second.close();
  });

  test('the runs of a disk are remembered as they were written, until others are written', async () => {
    const first = await disk().open();
    expect([first.recovered.lineage, first.recovered.lineageSince]).toEqual([[], 1]);
    await first.write(batch({ lineage: [2 ** 20 + 5] }));
    await first.close();
    const second = await disk().open();
    expect([second.recovered.lineage, second.recovered.lineageSince]).toEqual([[2 ** 20 + 5], 1]);
    const all = Array.from({ length: 300 }, (_, at) => at * 2 ** 30);
    await second.write(batch({ lineage: all }));
    await second.write(batch({ entries: entries(1, 2), hardState: hardState(1, 0) }));
    await second.close();
    const third = await disk().open();
    expect(third.recovered.lineage).toEqual(all);
    await third.close();
  });

  test('what peers told is remembered as it was written, record by record, in no snapshot and beyond any', async () => {
    const first = await disk().open();
    expect(first.recovered.peerRecords).toEqual(new Map());
    const peerWrites = ['2/disk', '2/told', '3/disk'].map((key) => ({ key, value: bytes(`first ${key}`) }));
    await first.write(batch({ peerWrites, entries: entries(1, 2), hardState: hardState(1, 2) }));
    await first.write(
      batch({
        peerWrites: [
          { key: '2/told', value: bytes('second') },
          { key: '3/disk', value: undefined },
        ],
        stateWrites: [put('f/a', '1')],
        applied: position(2),
      }),
    );
    const reader = await first.openSnapshot(configuration);
    expect((await reader.next())?.recordsTotal).toBe(1);
    await reader.close();
    const staging = await first.stageSnapshot(point(9));
    for (const part of await snapshotParts(9, 1, new Map([['f/b', '2']]))) await staging.add(part);
    await first.write(batch({ activate: point(9), hardState: hardState(1, 9) }));
    await first.close();
    const second = await disk().open();
    const texts = [...second.recovered.peerRecords].map(([key, value]) => [
      key,
      Buffer.from(value).toString(),
    ]);
    expect(texts).toEqual([
      ['2/disk', 'first 2/disk'],
      ['2/told', 'second'],
    ]);
    await second.close();
  });

  test('a disk that is marked as outdated is never opened again, and says why and what to do', async () => {
    const storage = await disk().open();
    await storage.write(batch({ outdated: 'it lacks what it had told' }));
    await storage.close();
    for (let again = 0; again < 2; again += 1) {
      const refused = disk().open();
      await expect(refused).rejects.toMatchObject({ code: 'DATA_OUTDATED' });
      await expect(refused).rejects.toThrow(/it lacks what it had told\. Move .* member replace 1\)/);
    }
    await expect(disk().open({ clusterId: 'other', member: 1 })).rejects.toMatchObject({
      code: 'DATA_FOREIGN',
    });
  });

  test('a disk of another cluster or member is refused, with both names', async () => {
    const storage = await disk().open();
    await storage.close();
    for (const other of [
      { clusterId: 'other', member: 1 },
      { clusterId: 'test', member: 2 },
    ]) {
      const refused = disk().open(other);
      await expect(refused).rejects.toMatchObject({ code: 'DATA_FOREIGN' });
      await expect(refused).rejects.toThrow(`member 1 of cluster test`);
      await expect(refused).rejects.toThrow(`member ${other.member} of cluster ${other.clusterId}`);
    }
    const again = await disk().open();
    expect(again.recovered.run).toBe(2);
    await again.close();
  });

  test('a disk in use is refused by name', async () => {
    const storage = await disk().open();
    const refused = disk().open();
    await expect(refused).rejects.toMatchObject({ code: 'DATA_IN_USE' });
    await expect(refused).rejects.toThrow(disk().name);
    await storage.write(batch({ hardState: hardState(1, 0) }));
    await storage.close();
  });
};

const writingContract = (disk: () => Disk): void => {
  test('what was written is recovered', async () => {
    const storage = await disk().open();
    await storage.write(
      batch({
        hardState: hardState(3, 1, 2),
        entries: [entry(1, 1, '', 'empty'), entry(2, 1, 'members', 'configuration'), entry(3, 3)],
      }),
    );
    await storage.write(
      batch({ stateWrites: [put('b', '2'), put('a', '1'), put('c', '')], applied: position(2), sync: false }),
    );
    await storage.write(
      batch({ stateWrites: [{ key: 'b', value: undefined }, put('a', '3')], applied: position(3, 3) }),
    );
    await storage.close();
    const again = await disk().open();
    expect(await dump(again)).toEqual({
      hardState: { term: 3, vote: 2, commit: 1 },
      snapshot: undefined,
      entries: [
        { index: 1, term: 1, kind: 'empty', text: '' },
        { index: 2, term: 1, kind: 'configuration', text: 'members' },
        { index: 3, term: 3, kind: 'commands', text: 'entry 3' },
      ],
      applied: { index: 3, term: 3 },
      state: [
        ['a', '3'],
        ['c', ''],
      ],
    });
    await again.close();
  });

  test('numbers up to 2^53-1 survive', async () => {
    const storage = await disk().open();
    const term = Number.MAX_SAFE_INTEGER;
    await storage.write(
      batch({ hardState: hardState(term, 1, term), entries: [entry(1, term)], applied: position(1, term) }),
    );
    await storage.close();
    const again = await disk().open();
    expect(again.recovered.hardState).toEqual({ term, vote: term, commit: 1 });
    expect(again.recovered.entries[0]?.term).toBe(term);
    expect(again.recovered.applied.term).toBe(term);
    await again.close();
  });

  test('the log is compacted up to what is applied, and begins at the point given', async () => {
    const storage = await disk().open();
    await storage.write(batch({ hardState: hardState(1, 5), entries: entries(1, 10), applied: position(5) }));
    await storage.write(batch({ compactTo: point(4), entries: entries(11, 11) }));
    await storage.close();
    const again = await disk().open();
    expect(again.recovered.snapshot).toEqual(point(4));
    expect(again.recovered.entries.map(({ index }) => index)).toEqual([5, 6, 7, 8, 9, 10, 11]);
    await again.write(batch({ applied: position(11), compactTo: point(11) }));
    await again.close();
    const last = await disk().open();
    expect(last.recovered.snapshot).toEqual(point(11));
    expect(last.recovered.entries).toEqual([]);
    await last.close();
  });

  test('pitfall 28: truncation and append are one write', async () => {
    const storage = await disk().open();
    await storage.write(batch({ hardState: hardState(1, 2), entries: entries(1, 6), applied: position(2) }));
    await storage.write(
      batch({ hardState: hardState(2, 2), truncateFrom: entry(4).index, entries: entries(4, 5, 2) }),
    );
    await storage.close();
    const again = await disk().open();
    expect(again.recovered.entries.map(({ index, term }) => [index, term])).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
      [4, 2],
      [5, 2],
    ]);
    await again.close();
  });

  test('pitfall 25: append, truncate, append again keeps the last ones', async () => {
    const storage = await disk().open();
    await storage.write(batch({ hardState: hardState(1, 1), entries: entries(1, 3, 1), sync: false }));
    await storage.write(
      batch({
        hardState: hardState(2, 1),
        truncateFrom: entry(2).index,
        entries: entries(2, 4, 2),
        sync: false,
      }),
    );
    await storage.write(
      batch({ hardState: hardState(3, 1), truncateFrom: entry(2).index, entries: [entry(2, 3, 'mine')] }),
    );
    await storage.close();
    const again = await disk().open();
    expect((await dump(again)).entries).toEqual([
      { index: 1, term: 1, kind: 'commands', text: 'entry 1' },
      { index: 2, term: 3, kind: 'commands', text: 'mine' },
    ]);
    await again.close();
  });

  const broken = {
    'a gap in the log': { entries: entries(5, 5) },
    'an entry again without truncation': { entries: entries(3, 3) },
    'terms that go back': { entries: [entry(4, 2), entry(5, 1)] },
    'a truncation of what is applied': { truncateFrom: entry(2).index },
    'applied going back': { applied: position(1) },
    'applied beyond the log': { applied: position(4) },
    'a compaction beyond what is applied': { compactTo: point(3) },
    'a commit beyond the log': { hardState: hardState(1, 4) },
    'an activation of what was not staged': { activate: point(9) },
    'a state key that is not ASCII': { stateWrites: [put('é', '')] },
  };
  test.each(Object.entries(broken))('%s is refused, and nothing is written any more', async (_, write) => {
    const storage = await disk().open();
    await storage.write(batch({ hardState: hardState(1, 2), entries: entries(1, 3), applied: position(2) }));
    await expect(storage.write(batch(write))).rejects.toThrow();
    await expect(storage.write(batch({ hardState: hardState(2, 2) }))).rejects.toThrow();
    await storage.close();
    const again = await disk().open();
    expect(again.recovered.entries).toHaveLength(3);
    expect(again.recovered.hardState).toEqual(hardState(1, 2));
    await again.close();
  });

  test('a second write at the same time is refused, the first one is done', async () => {
    const storage = await disk().open();
    const first = storage.write(batch({ hardState: hardState(1, 0) }));
    await expect(storage.write(batch({ hardState: hardState(2, 0) }))).rejects.toThrow(
      /before the one before/,
    );
    await first;
    await storage.write(batch({ hardState: hardState(3, 0) }));
    await storage.close();
    const again = await disk().open();
    expect(again.recovered.hardState?.term).toBe(3);
    await again.close();
  });
};

const snapshotContract = (disk: () => Disk): void => {
  test('a snapshot is the state at one applied index, while writes go on', async () => {
    const storage = await disk().open();
    const large = 'x'.repeat(100_000);
    await storage.write(batch({ hardState: hardState(1, 9), entries: entries(1, 9) }));
    const stateWrites = Array.from({ length: 12 }, (_, at) => put(`key/${at + 10}`, `${large}${at}`));
    await storage.write(batch({ stateWrites, applied: position(5) }));
    const writing = storage.write(batch({ stateWrites: [put('key/10', 'in flight')], applied: position(6) }));
    const reader = await storage.openSnapshot((applied) => ({ ...configuration, autoLeave: applied === 6 }));
    await writing;
    await storage.write(
      batch({ stateWrites: [put('key/11', 'later'), put('a', 'new')], applied: position(9) }),
    );
    expect(reader.point).toEqual({ ...point(6), configuration: { ...configuration, autoLeave: true } });
    const received: SnapshotPart[] = [];
    for (let part = await reader.next(); part !== undefined; part = await reader.next()) received.push(part);
    await reader.close();
    await storage.close();
    expect(received.length).toBeGreaterThan(2);
    expect(received.map(({ number }) => number)).toEqual(received.map((_, at) => at));
    expect(received.map(({ last }) => last)).toEqual(received.map((_, at) => at === received.length - 1));
    expect(received.at(-1)?.recordsTotal).toBe(12);
    for (const part of received) expect(part.records.length).toBeLessThan(256 * 1024 + large.length + 100);

    const text = Buffer.concat(received.map(({ records }) => records)).toString('latin1');
    expect(text).toContain('in flight');
    expect(text).not.toContain('later');
    expect(text).not.toContain('new');
  });

  test('an empty state has a snapshot of one part', async () => {
    const storage = await disk().open();
    const all = await parts(storage);
    expect(all.map(({ last, recordsTotal, records }) => [last, recordsTotal, records.length])).toEqual([
      [true, 0, 0],
    ]);
    await storage.close();
  });

  test('pitfall 33: an installed snapshot replaces log and state at once, with no gap and no conflicting rest', async () => {
    const storage = await disk().open();
    await storage.write(
      batch({
        hardState: hardState(1, 2),
        entries: entries(1, 8),
        stateWrites: [put('old', '1')],
        applied: position(2),
      }),
    );
    const staging = await storage.stageSnapshot(point(20, 3));
    const records: StagedRecord[] = [];
    for (const part of await snapshotParts(
      20,
      3,
      new Map([
        ['new', '2'],
        ['newer', '3'],
      ]),
    )) {
      expect(staging.complete).toBe(false);
      await staging.add(part, (added) => {
        for (const { key, value } of added) records.push({ key, value: Uint8Array.from(value) });
      });
    }
    expect(staging.complete).toBe(true);
    expect(records).toEqual([
      { key: 'new', value: bytes('2') },
      { key: 'newer', value: bytes('3') },
    ]);
    await storage.write(
      batch({
        activate: point(20, 3),
        hardState: hardState(3, 20),
        entries: [entry(21, 3)],
        stateWrites: [put('latest', '4')],
        applied: position(21, 3),
      }),
    );
    const reader = await storage.openSnapshot(configuration);
    expect(reader.point).toEqual(point(21, 3));
    await reader.close();
    await storage.close();
    const again = await disk().open();
    expect(await dump(again)).toEqual({
      hardState: { term: 3, vote: undefined, commit: 20 },
      snapshot: { index: 20, term: 3 },
      entries: [{ index: 21, term: 3, kind: 'commands', text: 'entry 21' }],
      applied: { index: 21, term: 3 },
      state: [
        ['latest', '4'],
        ['new', '2'],
        ['newer', '3'],
      ],
    });
    await again.close();
  });

  test('pitfall 33: an install that was not finished leaves no trace, and the next one succeeds', async () => {
    const received = await snapshotParts(20, 3, new Map([['new', '2']]));
    let storage = await disk().open();
    await storage.write(
      batch({ hardState: hardState(1, 0), entries: entries(1, 3), stateWrites: [put('old', '1')] }),
    );
    for (let round = 0; round < 3; round += 1) {
      const staging = await storage.stageSnapshot(point(20, 3));
      for (const part of received) await staging.add(part);
      await storage.close();
      storage = await disk().open();
      expect(await readAll(storage)).toEqual(new Map([['old', '1']]));
      expect(storage.recovered.entries).toHaveLength(3);
    }
    const abandoned = await storage.stageSnapshot(point(19, 3));
    for (const part of await snapshotParts(19, 3, new Map([['wrong', '9']]))) await abandoned.add(part);
    const staging = await storage.stageSnapshot(point(20, 3));
    await expect(storage.write(batch({ activate: point(19, 3) }))).rejects.toThrow(/not staged completely/);
    await storage.close();
    storage = await disk().open();
    expect(staging.complete).toBe(false);
    const last = await storage.stageSnapshot(point(20, 3));
    for (const part of received) await last.add(part);
    await storage.write(batch({ activate: point(20, 3), hardState: hardState(3, 20) }));
    await storage.close();
    const again = await disk().open();
    expect(await readAll(again)).toEqual(new Map([['new', '2']]));
    await again.close();
  });

  test('a snapshot whose parts are not exactly what was sent is refused', async () => {
    const large = 'x'.repeat(200_000);
    const received = await snapshotParts(
      20,
      3,
      new Map([
        ['a', large],
        ['b', large],
        ['c', large],
        ['d', large],
      ]),
    );
    const [first, second] = received;
    if (first === undefined || second === undefined) throw new Error('the snapshot has too few parts');
    const flipped = Buffer.from(first.records);
    flipped[100] = (flipped[100] ?? 0) ^ 1;
    const { crc32 } = await import('node:zlib');
    const wrong: Record<string, readonly SnapshotPart[]> = {
      'a flipped bit': [{ ...first, records: flipped }],
      'a flipped bit that the part agrees with': [{ ...first, records: flipped, checksum: crc32(flipped) }],
      'the checksum of another part': [{ ...first, checksum: second.checksum }],
      'a part left out': [second],
      'a part twice': [first, first],
      'a part again under the next number': [first, { ...first, number: 1 }],
      'a part cut short': [
        { ...first, records: first.records.subarray(0, -5), checksum: crc32(first.records.subarray(0, -5)) },
      ],
      'a wrong total': [{ ...first, last: true, recordsTotal: 7 }],
      'a part after the last': [{ ...first, last: true, recordsTotal: 2 }, second],
    };
    const storage = await disk().open();
    for (const [name, sequence] of Object.entries(wrong)) {
      const staging = await storage.stageSnapshot(point(20, 3));
      const adding = (async () => {
        for (const part of sequence) await staging.add(part);
      })();
      await expect(adding, name).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
      expect(staging.complete, name).toBe(false);
      await staging.discard();
    }
    await storage.close();
  });
};

/** What every storage promises. */
export const storageContract = (name: string, makeDisk: () => Disk): void => {
  describe(name, () => {
    let disk: Disk;
    beforeEach(() => {
      disk = makeDisk();
    });
    describe('opening', () => openingContract(() => disk));
    describe('writing', () => writingContract(() => disk));
    describe('snapshots', () => snapshotContract(() => disk));
  });
};
