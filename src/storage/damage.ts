import { FuturestoreError } from '../protocol/index.ts';

/** What an operator is to do about a damaged disk: the cluster has the data, this member has it no longer. */
const wayOut =
  'Stop this server, move the directory away, and replace the member: the others have its data. ' +
  'Starting it without them could make acknowledged writes disappear.';

/** Makes the error for something that is damaged, as `damaged` and `damagedFile` do for their places. */
export type Damage = (what: string, cause?: unknown) => FuturestoreError;

/** `where`: the directory. `what`: the thing that is damaged, for example "log entry 1234 has a wrong checksum". */
export const damaged = (where: string, what: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'DATA_DAMAGED',
    `The data in ${where} is damaged: ${what}. ${wayOut}`,
    cause === undefined ? undefined : { cause },
  );

/** Of a snapshot file, which is a copy: nothing runs on it. */
export const damagedFile = (path: string, what: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'DATA_DAMAGED',
    `The snapshot file ${path} is damaged: ${what}. Use another copy of it, or another snapshot.`,
    cause === undefined ? undefined : { cause },
  );
