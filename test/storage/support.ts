import { asLogIndex, asMemberId, asTerm } from '../../src/raft/index.ts';
import type { Configuration, Entry, EntryKind, SnapshotPoint } from '../../src/raft/index.ts';
import { MemoryDisk, openMemoryStorage } from '../../src/storage/index.ts';
import type { SnapshotPart, Storage, StorageIdentity, WriteBatch } from '../../src/storage/index.ts';

export const identity: StorageIdentity = { clusterId: 'test', member: 1 };

export const configuration: Configuration = {
  voters: [asMemberId(1), asMemberId(2), asMemberId(3)],
  votersOutgoing: [],
  learners: [asMemberId(7)],
  learnersNext: [],
  autoLeave: false,
};

export const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

export const entry = (
  index: number,
  term = 1,
  text = `entry ${index}`,
  kind: EntryKind = 'commands',
): Entry => ({
  index: asLogIndex(index),
  term: asTerm(term),
  kind,
  payload: bytes(text),
});

export const entries = (first: number, last: number, term = 1): Entry[] =>
  Array.from({ length: last - first + 1 }, (_, offset) => entry(first + offset, term));

export const point = (index: number, term = 1): SnapshotPoint => ({
  index: asLogIndex(index),
  term: asTerm(term),
  configuration,
});

export const position = (index: number, term = 1): { index: Entry['index']; term: Entry['term'] } => ({
  index: asLogIndex(index),
  term: asTerm(term),
});

export const hardState = (
  term: number,
  commit: number,
  vote?: number,
): NonNullable<WriteBatch['hardState']> => ({
  term: asTerm(term),
  vote: vote === undefined ? undefined : asMemberId(vote),
  commit: asLogIndex(commit),
});

export const batch = (parts: Partial<WriteBatch>): WriteBatch => ({
  entries: [],
  stateWrites: [],
  sync: true,
  ...parts,
});

export const put = (key: string, text: string): WriteBatch['stateWrites'][number] => ({
  key,
  value: bytes(text),
});

/** Key → text, in the order in which the storage gives them. */
export const readAll = async (storage: Storage): Promise<Map<string, string>> => {
  const state = new Map<string, string>();
  for await (const records of storage.readState()) {
    for (const { key, value } of records) state.set(key, Buffer.from(value).toString());
  }
  return state;
};

export interface PlainEntry {
  readonly index: number;
  readonly term: number;
  readonly kind: EntryKind;
  readonly text: string;
}

/** Everything recovered, as values that `toEqual` compares. */
export interface Dump {
  readonly hardState:
    { readonly term: number; readonly vote: number | undefined; readonly commit: number } | undefined;
  readonly snapshot: { readonly index: number; readonly term: number } | undefined;
  readonly entries: readonly PlainEntry[];
  readonly applied: { readonly index: number; readonly term: number };
  readonly state: readonly (readonly [string, string])[];
}

export const dump = async (storage: Storage): Promise<Dump> => {
  const { hardState: hard, snapshot, entries: log, applied } = storage.recovered;
  return {
    hardState: hard,
    snapshot: snapshot === undefined ? undefined : { index: snapshot.index, term: snapshot.term },
    entries: log.map(({ index, term, kind, payload }) => ({
      index,
      term,
      kind,
      text: Buffer.from(payload).toString(),
    })),
    applied: { index: applied.index, term: applied.term },
    state: [...(await readAll(storage))],
  };
};

/** The parts of a snapshot with this state, as a server at this point would send them. */
export const snapshotParts = async (
  index: number,
  term: number,
  state: ReadonlyMap<string, string>,
): Promise<SnapshotPart[]> => {
  const source = await openMemoryStorage({ disk: new MemoryDisk('source'), identity });
  await source.write(
    batch({
      hardState: hardState(term, index),
      entries: entries(1, index, term),
      stateWrites: [...state].map(([key, text]) => put(key, text)),
      applied: position(index, term),
    }),
  );
  const reader = await source.openSnapshot(configuration);
  const parts: SnapshotPart[] = [];
  for (let part = await reader.next(); part !== undefined; part = await reader.next()) parts.push(part);
  await reader.close();
  await source.close();
  return parts;
};

/** A repeatable source of chance (mulberry32), uniform in [0, 1). */
export const seeded = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
};
