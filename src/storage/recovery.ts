/** Reads what a disk holds and checks all of it that can be checked without reading the state. */
import { asLogIndex, asTerm } from '../raft/index.ts';
import type { Entry, HardState, LogIndex, SnapshotPoint, Term } from '../raft/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import { BatchChain } from './batch-chain.ts';
import { damaged } from './damage.ts';
import type { Engine, Row } from './engine.ts';
import { allRows } from './engine.ts';
import {
  generationOf,
  keys,
  logKey,
  logRange,
  metaRange,
  peerPrefix,
  stateRange,
  trailingNumber,
  wholeRange,
} from './keyspaces.ts';
import { decodeHardState, decodeSnapshotPoint } from './points.ts';
import {
  decoded,
  decodeEntry,
  decodeIdentity,
  decodeNumbers,
  decodePair,
  decodePosition,
  formatVersion,
} from './records.ts';
import type { DiskIdentity } from './records.ts';
import type { StorageIdentity } from './types.ts';

export interface Position {
  readonly index: LogIndex;
  readonly term: Term;
}

export const start: Position = { index: asLogIndex(0), term: asTerm(0) };

export interface DiskContents {
  readonly identity: DiskIdentity;
  /** How often it was opened before. */
  readonly runs: number;
  readonly lineage: readonly number[];
  /** 0: it was opened last by a version that keeps none. */
  readonly lineageSince: number;
  readonly peerRecords: ReadonlyMap<string, Uint8Array>;
  readonly writes: BatchChain;
  readonly staging: BatchChain;
  readonly hardState: HardState | undefined;
  readonly snapshot: SnapshotPoint | undefined;
  readonly entries: readonly Entry[];
  readonly applied: Position;
  readonly generation: number;
  /** The highest generation that any record belongs to. */
  readonly generationHighest: number;
}

const checkIdentity = (where: string, found: DiskIdentity, expected: StorageIdentity): void => {
  if (found.formatVersion !== formatVersion) {
    throw new FuturestoreError(
      'DATA_FOREIGN',
      `The data in ${where} has format version ${found.formatVersion}; this program reads ${formatVersion}. ` +
        'Use the version of futurestore that wrote it.',
    );
  }
  if (found.clusterId !== expected.clusterId || found.member !== expected.member) {
    throw new FuturestoreError(
      'DATA_FOREIGN',
      `The data in ${where} belongs to member ${found.member} of cluster ${found.clusterId}, ` +
        `this server is member ${expected.member} of cluster ${expected.clusterId}. ` +
        'Give it its own directory, or an empty one.',
    );
  }
};

const checkNotOutdated = (where: string, { member }: StorageIdentity, why: string | undefined): void => {
  if (why === undefined) return;
  throw new FuturestoreError(
    'DATA_OUTDATED',
    `The data in ${where} must not be used any more: ${why}. ` +
      `Move the directory away and replace the member (futurestore member replace ${member}); the others have its data.`,
  );
};

/** LevelDB recovers what it finds: whether that is all that had been synced, only a number kept elsewhere can tell. */
const checkNothingLost = (
  engine: Engine,
  writes: BatchChain,
  staging: BatchChain,
  stagedBatches: number,
): void => {
  const { where, syncedMark } = engine;
  if (syncedMark === undefined) {
    // The mark is made right after the first batch, so only that one may lack it.
    if (writes.number > 1) throw damaged(where, 'the file that counts its synced writes is missing');
  } else if (writes.number < syncedMark) {
    throw damaged(
      where,
      `synced writes are missing: the last one found is number ${writes.number} of ${syncedMark}`,
    );
  }
  if (staging.number < stagedBatches) {
    throw damaged(
      where,
      `parts of an installed snapshot are missing: found ${staging.number} of ${stagedBatches}`,
    );
  }
};

const readLog = async (engine: Engine, base: Position): Promise<Entry[]> => {
  const { where } = engine;
  const entries: Entry[] = [];
  let { index, term }: Position = base;
  for (const [key, record] of await allRows(engine, logRange)) {
    index = asLogIndex(index + 1);
    if (trailingNumber(key) !== index || key !== logKey(index)) {
      throw damaged(where, `log entry ${index} is missing, the record "${key}" is in its place`);
    }
    const entry = decodeEntry(where, index, record);
    if (entry.term < term) {
      throw damaged(
        where,
        `log entry ${index} has term ${entry.term}, the one before has the later term ${term}`,
      );
    }
    ({ term } = entry);
    entries.push(entry);
  }
  return entries;
};

const checkBounds = (
  where: string,
  base: Position,
  entries: readonly Entry[],
  applied: Position,
  hardState: HardState | undefined,
): void => {
  const last = base.index + entries.length;
  if (applied.index < base.index || applied.index > last) {
    throw damaged(
      where,
      `the state is as of entry ${applied.index}, the log reaches from ${base.index} to ${last}`,
    );
  }
  const expected = applied.index === base.index ? base.term : entries[applied.index - base.index - 1]?.term;
  if (applied.term !== expected) {
    throw damaged(
      where,
      `the state is as of entry ${applied.index} of term ${applied.term}, in the log its term is ${expected}`,
    );
  }
  if (hardState === undefined) {
    if (last > 0)
      throw damaged(where, `the record "${keys.hardState}" is missing, the log reaches to entry ${last}`);
    return;
  }
  if (hardState.commit > last) {
    throw damaged(where, `entry ${hardState.commit} was committed, the log ends at ${last}`);
  }
  const lastTerm = entries.at(-1)?.term ?? base.term;
  if (hardState.term < lastTerm) {
    throw damaged(where, `the term is ${hardState.term}, the last log entry's is the later ${lastTerm}`);
  }
};

const readPeers = (where: string, metas: ReadonlyMap<string, Row[1]>): DiskContents['peerRecords'] => {
  const records = new Map<string, Uint8Array>();
  for (const [key, record] of metas) {
    if (key.startsWith(peerPrefix))
      records.set(
        key.slice(peerPrefix.length),
        decoded(where, key, record, (content) => content),
      );
  }
  return records;
};

/** undefined: nothing was ever written here. Throws DATA_DAMAGED, DATA_FOREIGN or DATA_OUTDATED. */
export const readDisk = async (
  engine: Engine,
  expected: StorageIdentity,
): Promise<DiskContents | undefined> => {
  const { where } = engine;
  const metas = new Map<string, Row[1]>(await allRows(engine, metaRange));
  const read = <Value>(key: string, decode: (content: Buffer) => Value): Value | undefined => {
    const record = metas.get(key);
    return record === undefined ? undefined : decoded(where, key, record, decode);
  };
  const identity = read(keys.identity, decodeIdentity);
  if (identity === undefined) {
    if (engine.syncedMark !== undefined || (await engine.lastKey(wholeRange)) !== undefined) {
      throw damaged(where, `the record "${keys.identity}" is missing, others are there`);
    }
    return undefined;
  }
  checkIdentity(where, identity, expected);
  const outdated = read(keys.outdated, (content) => content.toString());
  checkNotOutdated(where, identity, outdated);

  const writes = await BatchChain.recover(engine, 'writes');
  const staging = await BatchChain.recover(engine, 'staging');
  const [generation, stagedBatches] = read(keys.generation, decodePair) ?? [0, 0];
  const run = read(keys.run, decodePair);
  const lineage = read(keys.lineage, decodeNumbers) ?? [];
  const peerRecords = readPeers(where, metas);
  checkNothingLost(engine, writes, staging, stagedBatches);
  if (run === undefined || generation === 0) throw damaged(where, 'its run or generation number is missing');

  const snapshot = read(keys.logBase, decodeSnapshotPoint);
  const applied = read(keys.applied, decodePosition) ?? start;
  const entries = await readLog(engine, snapshot ?? start);
  const last = (snapshot ?? start).index + entries.length;
  if (last !== writes.note) {
    throw damaged(where, `the log ends at entry ${last}, the last batch says ${writes.note}`);
  }
  const [hardRow] = await allRows(engine, { from: keys.hardState, below: `${keys.hardState}\0` });
  const hardState =
    hardRow === undefined ? undefined : decoded(where, keys.hardState, hardRow[1], decodeHardState);
  checkBounds(where, snapshot ?? start, entries, applied, hardState);

  const lastStateKey = await engine.lastKey(stateRange);
  const generationHighest = Math.max(
    generation,
    lastStateKey === undefined ? 0 : (generationOf(lastStateKey) ?? 0),
  );
  return {
    identity,
    runs: run[0],
    lineage,
    lineageSince: run[1],
    peerRecords,
    writes,
    staging,
    hardState,
    snapshot,
    entries,
    applied,
    generation,
    generationHighest,
  };
};
