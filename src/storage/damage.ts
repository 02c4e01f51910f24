import { FuturestoreError } from '../protocol/index.ts';

/** What an operator is to do about a damaged disk: the cluster has the data, this member has it no longer. */
const wayOut =
  'Stop this server, move the directory away, and replace the member: the others have its data. ' +
  'Starting it without them could make acknowledged writes disappear.';

/** `where`: the directory. `what`: the thing that is damaged, for example "log entry 1234 has a wrong checksum". */
export const damaged = (where: string, what: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'DATA_DAMAGED',
    `The data in ${where} is damaged: ${what}. ${wayOut}`,
    cause === undefined ? undefined : { cause },
  );
