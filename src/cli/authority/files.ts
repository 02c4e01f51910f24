/** How a cluster's directory is written and read. */
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { FuturestoreError } from '../../protocol/index.ts';
import type { Credentials } from './certificates.ts';

/** Files are written beside and renamed, so that no reader ever sees half of one, and never with a wider mode. */
const writeNew = async (path: string, text: string, mode: number): Promise<void> => {
  const temporary = `${path}.${process.pid}.new`;
  await writeFile(temporary, text, { mode, flag: 'w' });
  await chmod(temporary, mode);
  await rename(temporary, path);
};
export const writePublic = (path: string, text: string): Promise<void> => writeNew(path, text, 0o644);
const writePrivate = (path: string, text: string): Promise<void> => writeNew(path, text, 0o600);

export const writeCredentials = async (
  directory: string,
  name: string,
  credentials: Credentials,
): Promise<void> => {
  await writePrivate(join(directory, `${name}.key`), credentials.privateKey);
  await writePublic(join(directory, `${name}.pem`), credentials.certificate);
};

export const makeDirectory = async (path: string): Promise<void> => {
  await mkdir(path, { recursive: true, mode: 0o700 });
};

/** A file of a directory that `init` made. Throws CONFIGURATION_INVALID. */
export const readClusterFile = async (path: string): Promise<string> => {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new FuturestoreError(
      'CONFIGURATION_INVALID',
      `cannot read ${path}: give the directory that futurestore init made with --dir`,
      { cause: error },
    );
  }
};

export const adminProfileOf = (directory: string): string => join(directory, 'admin.yaml');

/** The directory of the server with this id, as init and member add name it. */
export const serverDirectoryOf = (directory: string, member: number): string =>
  join(directory, `server-${member}`);

/** That of a server that is no member any more; undefined: it is not here. */
export const uselessDirectoryOf = (directory: string, member: number): string | undefined => {
  const path = serverDirectoryOf(directory, member);
  return existsSync(path) ? path : undefined;
};
