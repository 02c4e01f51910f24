/** How the storage's records look as bytes. Decoders throw DATA_DAMAGED that names the record. */
import { asLogIndex, asTerm } from '../raft/index.ts';
import type { Entry, EntryKind, LogIndex, Term } from '../raft/index.ts';
import { damaged } from './damage.ts';
import { logKey } from './keyspaces.ts';
import { readSafeInteger, seal, sealed, sealedHeaderBytes, unseal, writeSafeInteger } from './sealed.ts';
import type { StorageIdentity } from './types.ts';

/** Of what this code writes and reads; another one is refused. */
export const formatVersion = 1;

const entryKindNumbers = { empty: 1, commands: 2, configuration: 3 } as const satisfies Record<
  EntryKind,
  number
>;
const entryKinds: readonly (EntryKind | undefined)[] = [undefined, 'empty', 'commands', 'configuration'];
const entryHeaderBytes = sealedHeaderBytes + 1 + 8;

export const encodeEntry = (key: string, { term, kind, payload }: Entry): Buffer => {
  const record = Buffer.allocUnsafe(entryHeaderBytes + payload.length);
  record[sealedHeaderBytes] = entryKindNumbers[kind];
  writeSafeInteger(record, term, sealedHeaderBytes + 1);
  record.set(payload, entryHeaderBytes);
  seal(key, record);
  return record;
};

export const decodeEntry = (where: string, index: number, record: Buffer): Entry => {
  const content = unseal(logKey(index), record);
  const kind = record.length < entryHeaderBytes ? undefined : entryKinds[record[sealedHeaderBytes] ?? 0];
  if (content === undefined || kind === undefined)
    throw damaged(where, `log entry ${index} has a wrong checksum`);
  const term = asTerm(readSafeInteger(record, sealedHeaderBytes + 1));
  return { term, index: asLogIndex(index), kind, payload: record.subarray(entryHeaderBytes) };
};

/** The content of a record, or DATA_DAMAGED. */
const opened = (where: string, key: string, record: Buffer): Buffer => {
  const content = unseal(key, record);
  if (content === undefined) throw damaged(where, `the record "${key}" has a wrong checksum`);
  return content;
};

/** Decodes the content of a record; whatever the decoder throws means damage. */
export const decoded = <Value>(
  where: string,
  key: string,
  record: Buffer,
  decode: (content: Buffer) => Value,
): Value => {
  const content = opened(where, key, record);
  try {
    return decode(content);
  } catch (error) {
    throw damaged(where, `the record "${key}" makes no sense`, error);
  }
};

/** Two numbers in a record: applied (index, term), generation (generation, staging batches), run (run, lineage since), batch (number, note). */
export const encodePair = (key: string, first: number, second: number): Buffer => {
  const record = Buffer.allocUnsafe(sealedHeaderBytes + 16);
  writeSafeInteger(record, first, sealedHeaderBytes);
  writeSafeInteger(record, second, sealedHeaderBytes + 8);
  seal(key, record);
  return record;
};

export const decodePair = (content: Buffer): readonly [number, number] => {
  const pair = [readSafeInteger(content, 0), readSafeInteger(content, 8)] as const;
  if (content.length !== 16 || !pair.every(Number.isSafeInteger)) {
    throw new RangeError(`not two safe integers: ${content.toString('hex')}`);
  }
  return pair;
};

const numberBytes = 8;

export const encodeNumbers = (key: string, numbers: readonly number[]): Buffer => {
  const record = Buffer.allocUnsafe(sealedHeaderBytes + numbers.length * numberBytes);
  for (const [at, number] of numbers.entries())
    writeSafeInteger(record, number, sealedHeaderBytes + at * numberBytes);
  seal(key, record);
  return record;
};

export const decodeNumbers = (content: Buffer): readonly number[] => {
  const numbers = Array.from({ length: Math.floor(content.length / numberBytes) }, (_, at) =>
    readSafeInteger(content, at * numberBytes),
  );
  if (content.length % numberBytes !== 0 || !numbers.every(Number.isSafeInteger))
    throw new RangeError(`not a list of safe integers: ${content.toString('hex')}`);
  return numbers;
};

export const decodePosition = (content: Buffer): { readonly index: LogIndex; readonly term: Term } => {
  const [index, term] = decodePair(content);
  return { index: asLogIndex(index), term: asTerm(term) };
};

export interface DiskIdentity extends StorageIdentity {
  readonly formatVersion: number;
  readonly diskId: Uint8Array;
}

export const encodeIdentity = (key: string, identity: DiskIdentity): Buffer =>
  sealed(
    key,
    Buffer.from(
      JSON.stringify({
        formatVersion: identity.formatVersion,
        clusterId: identity.clusterId,
        member: identity.member,
        diskId: Buffer.from(identity.diskId).toString('hex'),
      }),
    ),
  );

export const decodeIdentity = (content: Buffer): DiskIdentity => {
  const parsed: unknown = JSON.parse(content.toString());
  if (
    typeof parsed !== 'object' ||
    parsed === null ||
    !('formatVersion' in parsed && typeof parsed.formatVersion === 'number') ||
    !('clusterId' in parsed && typeof parsed.clusterId === 'string') ||
    !('member' in parsed && typeof parsed.member === 'number') ||
    !('diskId' in parsed && typeof parsed.diskId === 'string' && /^[0-9a-f]{32}$/.test(parsed.diskId))
  ) {
    throw new TypeError('not an identity');
  }
  const { formatVersion: version, clusterId, member, diskId } = parsed;
  return { formatVersion: version, clusterId, member, diskId: new Uint8Array(Buffer.from(diskId, 'hex')) };
};

/** `key` is the state machine's, without the generation: the checksum goes with the record into snapshots. */
export const encodeStateRecord = (key: string, value: Uint8Array): Buffer => sealed(key, value);

export const decodeStateRecord = (where: string, key: string, record: Buffer): Buffer => {
  const value = unseal(key, record);
  if (value === undefined) throw damaged(where, `the state record "${key}" has a wrong checksum`);
  return value;
};
