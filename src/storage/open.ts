import { randomBytes } from 'node:crypto';
import type { Engine } from './engine.ts';
import { KeyValueStorage } from './key-value-storage.ts';
import { LevelEngine } from './level-engine.ts';
import type { MemoryDisk } from './memory-disk.ts';
import type { Storage, StorageIdentity } from './types.ts';

export interface StorageOptions {
  /** Made if it does not exist. Belongs to one server of one cluster, for good. */
  readonly directory: string;
  readonly identity: StorageIdentity;
}

interface MemoryStorageOptions {
  readonly disk: MemoryDisk;
  readonly identity: StorageIdentity;
  /** 16 bytes for a disk that is new. Default: random; a simulation passes its own. */
  readonly makeDiskId?: () => Uint8Array;
}

const diskIdBytes = 16;
const randomDiskId = (): Uint8Array => new Uint8Array(randomBytes(diskIdBytes));

const openOn = async (
  engine: Engine,
  identity: StorageIdentity,
  makeDiskId: () => Uint8Array,
): Promise<Storage> => {
  try {
    return await KeyValueStorage.open(engine, identity, makeDiskId);
  } catch (error) {
    await engine.close();
    throw error;
  }
};

/**
 * Opens (or makes) a data directory and checks what is in it.
 *
 * Throws DATA_DAMAGED if anything on disk is not what was written or something synced is missing; DATA_FOREIGN if it
 * belongs to another cluster or member; DATA_OUTDATED if it was marked so; DATA_IN_USE if another process has it open; CONFIGURATION_INVALID if it
 * cannot be made or written to; UNAVAILABLE if the disk is full or fails.
 */
export const openStorage = async ({ directory, identity }: StorageOptions): Promise<Storage> =>
  openOn(await LevelEngine.open(directory), identity, randomDiskId);

/** The same storage on a disk in memory. Throws as `openStorage` does. */
export const openMemoryStorage = async ({
  disk,
  identity,
  makeDiskId = randomDiskId,
}: MemoryStorageOptions): Promise<Storage> => openOn(disk.open(), identity, makeDiskId);
