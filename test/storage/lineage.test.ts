import { expect, test } from 'vitest';
import { keys } from '../../src/storage/keyspaces.ts';
import { encodePair } from '../../src/storage/records.ts';
import { MemoryDisk, openMemoryStorage } from '../../src/storage/index.ts';
import { batch, identity } from './support.ts';

test('after a version that keeps no lineage has had the disk, the lineage begins anew', async () => {
  const disk = new MemoryDisk();
  const first = await openMemoryStorage({ disk, identity });
  await first.write(batch({ lineage: [7] }));
  await first.close();
  // It counts its opening, and knows of nothing else.
  const engine = disk.open();
  const older = engine.batch();
  older.put(keys.run, encodePair(keys.run, 2, 0));
  await older.write(true);
  await engine.close();
  for (const run of [3, 4]) {
    const storage = await openMemoryStorage({ disk, identity });
    expect(storage.recovered).toMatchObject({ run, lineageSince: 3, lineage: [7] });
    await storage.close();
  }
});
