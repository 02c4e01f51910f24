import { randomBytes } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { FuturestoreError } from '../protocol/index.ts';
import { openStorage } from './open.ts';
import type { StorageOptions } from './open.ts';
import { syncDirectory } from './sync-directory.ts';
import type { Storage } from './types.ts';

const codeOf = (error: unknown): unknown =>
  error instanceof Error && 'code' in error ? error.code : undefined;

const notNew = (directory: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'CONFIGURATION_INVALID',
    `The directory ${directory} is there and not empty. Name one that is not there yet, or move it away.`,
    cause === undefined ? undefined : { cause },
  );

const checkNew = async (directory: string): Promise<void> => {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    throw codeOf(error) === 'ENOTDIR' ? notNew(directory, error) : error;
  }
  if (names.length > 0) throw notNew(directory);
};

/**
 * Makes a data directory with something in it. It is filled under a temporary name beside its own, "….partial", and
 * gets its own when all of it is on disk: a crash on the way leaves nothing that a server would start on. `fill` writes
 * and does not close.
 *
 * Throws CONFIGURATION_INVALID if the directory is there and not empty, or cannot be made; what `fill` throws, after
 * everything has been removed.
 */
export const makeDataDirectory = async <Result>(
  { directory, identity }: StorageOptions,
  fill: (storage: Storage) => Promise<Result>,
): Promise<Result> => {
  const target = resolve(directory);
  await checkNew(target);
  const temporary = `${target}.${randomBytes(4).toString('hex')}.partial`;
  try {
    const storage = await openStorage({ directory: temporary, identity });
    let result: Result;
    try {
      result = await fill(storage);
    } finally {
      await storage.close();
    }
    await syncDirectory(temporary);
    await rename(temporary, target).catch((error: unknown) => {
      throw ['ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes(String(codeOf(error)))
        ? notNew(target, error)
        : error;
    });
    await syncDirectory(dirname(target));
    return result;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
};
