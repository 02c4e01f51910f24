import * as fc from 'fast-check';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MemoryDisk, openMemoryStorage, openStorage } from '../../src/storage/index.ts';
import { temporaryDirectory } from './directories.ts';
import { emptyDump, historyOf, perform, turns } from './history.ts';
import {
  batch,
  dump,
  entries,
  hardState,
  identity,
  point,
  position,
  put,
  readAll,
  seeded,
  snapshotParts,
} from './support.ts';

describe('crashes', { timeout: 30_000 }, () => {
  test('pitfalls 32 and 44: after a crash a prefix of the writes is there, with all the synced ones', async () => {
    await fc.assert(
      fc.asyncProperty(turns, fc.nat(), fc.integer(), fc.boolean(), async (all, crashAt, seed, chance) => {
        const steps = await historyOf(all);
        const disk = new MemoryDisk();
        const storage = await openMemoryStorage({ disk, identity });
        const count = crashAt % (steps.length + 1);
        let synced = 0;
        for (const [at, step] of steps.slice(0, count).entries()) {
          await perform(storage, step);
          if (step.batch.sync) synced = at + 1;
        }
        const inFlight = steps[count];
        if (inFlight !== undefined && inFlight.batch.activate === undefined) {
          disk.manual = true;
          void storage.write(inFlight.batch);
        }
        disk.crash(chance ? seeded(seed) : undefined);
        disk.manual = false;
        const possible = [emptyDump, ...steps.map(({ after }) => after)].slice(
          synced,
          chance ? count + 2 : synced + 1,
        );
        const again = await openMemoryStorage({ disk, identity });
        const found = await dump(again);
        expect(possible).toContainEqual(found);
        await again.close();
      }),
      { numRuns: 300 },
    );
  });

  test('pitfalls 32 and 44: on LevelDB, a process killed after any write finds all of them', async () => {
    await fc.assert(
      fc.asyncProperty(turns, async (all) => {
        const steps = await historyOf(all);
        const root = temporaryDirectory();
        const directory = join(root, 'live');
        const storage = await openStorage({ directory, identity });
        const copies: string[] = [];
        for (const [at, step] of steps.entries()) {
          await perform(storage, step);
          const copy = join(root, `copy-${at}`);
          cpSync(directory, copy, { recursive: true });
          copies.push(copy);
        }
        await storage.close();
        for (const [at, copy] of [...copies, directory].entries()) {
          const again = await openStorage({ directory: copy, identity });
          expect(await dump(again)).toEqual(steps[Math.min(at, steps.length - 1)]?.after);
          await again.close();
        }
      }),
      { numRuns: 8 },
    );
  });

  test('pitfall 33: a crash anywhere in an install leaves the old state or the new one', async () => {
    const parts = await snapshotParts(20, 3, new Map([['new', '2']]));
    const seen = new Set<string>();
    for (let seed = 0; seed < 60; seed += 1) {
      const random = seeded(seed);
      const disk = new MemoryDisk();
      const storage = await openMemoryStorage({ disk, identity });
      await storage.write(
        batch({
          hardState: hardState(1, 0),
          entries: entries(1, 3),
          stateWrites: [put('old', '1')],
          applied: position(1),
        }),
      );
      const staging = await storage.stageSnapshot(point(20, 3));
      if (random() < 0.8) for (const part of parts) await staging.add(part);
      if (staging.complete && random() < 0.9) {
        disk.manual = true;
        void storage.write(batch({ activate: point(20, 3), hardState: hardState(3, 20) }));
        if (random() < 0.5) disk.completeNext();
      }
      disk.crash(random);
      disk.manual = false;
      const again = await openMemoryStorage({ disk, identity });
      const { applied, entries: log } = again.recovered;
      const state = [...(await readAll(again))].join();
      seen.add(state);
      expect([state, applied.index, log.length]).toEqual(
        state === 'new,2' ? ['new,2', 20, 0] : ['old,1', 1, 3],
      );
      expect(disk.keys('state/')).toHaveLength(1);
      await again.close();
    }
    expect([...seen].sort()).toEqual(['new,2', 'old,1']);
  });
});

describe('faults', () => {
  test('after a failed write nothing is written any more', async () => {
    const disk = new MemoryDisk();
    const storage = await openMemoryStorage({ disk, identity });
    await storage.write(batch({ hardState: hardState(1, 0) }));
    disk.failNextWrite();
    const failed = storage.write(batch({ hardState: hardState(2, 0) }));
    await expect(failed).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(failed).rejects.toThrow(/memory/);
    await expect(storage.write(batch({ hardState: hardState(3, 0) }))).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    await expect(storage.openSnapshot(point(0).configuration)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(storage.stageSnapshot(point(9))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await storage.close();
    const again = await openMemoryStorage({ disk, identity });
    expect(again.recovered.hardState?.term).toBe(1);
    await again.close();
  });

  test('a failed write of a snapshot part ends the storage too', async () => {
    const disk = new MemoryDisk();
    const storage = await openMemoryStorage({ disk, identity });
    const staging = await storage.stageSnapshot(point(20, 3));
    disk.failNextWrite();
    const [part] = await snapshotParts(20, 3, new Map([['new', '2']]));
    if (part === undefined) throw new Error('no part');
    await expect(staging.add(part)).rejects.toThrow();
    expect(staging.complete).toBe(false);
    expect(storage.failure).toMatchObject({ code: 'UNAVAILABLE' });
    await expect(storage.write(batch({}))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await storage.close();
  });

  test('manual mode: a write is answered when the disk says so', async () => {
    const disk = new MemoryDisk();
    const storage = await openMemoryStorage({ disk, identity });
    disk.manual = true;
    const events: string[] = [];
    const writing = storage.write(batch({ hardState: hardState(1, 0) })).then(() => events.push('written'));
    await Promise.resolve();
    expect(disk.pendingWrites).toBe(1);
    events.push('completed');
    expect(disk.completeNext()).toBe(true);
    await writing;
    expect(events).toEqual(['completed', 'written']);
    expect(disk.completeNext()).toBe(false);
    disk.manual = false;
    await storage.close();
  });

  const filled = async (): Promise<MemoryDisk> => {
    const disk = new MemoryDisk('damaged disk');
    const storage = await openMemoryStorage({ disk, identity });
    await storage.write(
      batch({
        hardState: hardState(1, 2),
        entries: entries(1, 6),
        stateWrites: [put('a', '1')],
        applied: position(4),
      }),
    );
    await storage.write(batch({ compactTo: point(2) }));
    await storage.close();
    return disk;
  };

  test.each(['batch/', 'hard_state', 'log/', 'meta/', 'state/'])(
    'pitfall 44: any flipped bit in a record under %s is found, and named',
    async (prefix) => {
      for (let seed = 0; seed < 40; seed += 1) {
        const disk = await filled();
        const key = disk.flipBit(prefix, seeded(seed));
        const opening = openMemoryStorage({ disk, identity }).then(async (storage) => {
          await readAll(storage);
        });
        await expect(opening, key).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
        await expect(opening).rejects.toThrow(/damaged disk.*Stop this server, move the directory away/);
        if (prefix === 'log/') await expect(opening).rejects.toThrow(`log entry ${Number(key?.slice(4))} `);
      }
    },
  );

  test('pitfall 44: a missing record is found', async () => {
    const all = (await filled()).keys();
    for (const key of all.filter((name) => !name.startsWith('state/'))) {
      const disk = await filled();
      expect(disk.loseRecord(key)).toBe(true);
      await expect(openMemoryStorage({ disk, identity }), key).rejects.toMatchObject({
        code: 'DATA_DAMAGED',
      });
    }
    expect(all.length).toBeGreaterThan(9);
  });

  test('pitfall 44: a disk that forgets synced writes is found', async () => {
    for (const [lost, later] of [
      [1, 0],
      [2, 0],
      [1, 1],
      [3, 5],
    ] as const) {
      const disk = new MemoryDisk();
      const storage = await openMemoryStorage({ disk, identity });
      disk.loseNextWrites(lost);
      for (let term = 1; term <= lost + later; term += 1)
        await storage.write(batch({ hardState: hardState(term, 0) }));
      await storage.close();
      await expect(openMemoryStorage({ disk, identity })).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
      await expect(openMemoryStorage({ disk, identity })).rejects.toThrow(
        later === 0 ? /synced writes/ : /is missing/,
      );
    }
  });

  test('pitfall 44: a lost part of an installed snapshot is found', async () => {
    const disk = new MemoryDisk();
    const storage = await openMemoryStorage({ disk, identity });
    const staging = await storage.stageSnapshot(point(20, 3));
    disk.loseNextWrites(1);
    for (const part of await snapshotParts(20, 3, new Map([['new', '2']]))) await staging.add(part);
    await storage.write(batch({ activate: point(20, 3), hardState: hardState(3, 20) }));
    await storage.close();
    await expect(openMemoryStorage({ disk, identity })).rejects.toThrow(
      /parts of an installed snapshot are missing/,
    );
  });
});
