import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { MemoryDisk, openMemoryStorage, openStorage } from '../../src/storage/index.ts';
import { storageContract } from './contract.ts';
import { identity } from './support.ts';

const root = mkdtempSync(join(tmpdir(), 'futurestore-storage-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let directories = 0;

storageContract('LevelDB', () => {
  directories += 1;
  const directory = join(root, `disk-${directories}`, 'made');
  return { name: directory, open: (as = identity) => openStorage({ directory, identity: as }) };
});

storageContract('memory', () => {
  const disk = new MemoryDisk('a disk in memory');
  return { name: disk.name, open: (as = identity) => openMemoryStorage({ disk, identity: as }) };
});
