/** What a loss of power may leave of LevelDB's log behind the last synced write. */
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { openStorage, type Storage } from '../../src/storage/index.ts';
import { temporaryDirectory } from './directories.ts';
import { batch, dump, entries, hardState, identity, position, put, seeded, type Dump } from './support.ts';

const syncedBatches = 5;
const unsyncedBatches = 5;

interface Sample {
  readonly directory: string;
  readonly content: Buffer;
  /** Where each batch ends in the log, from the last synced one on. */
  readonly ends: readonly number[];
  /** What is there after each of these. */
  readonly after: readonly Dump[];
}

/** Each overwrites records, removes one and shortens the log's tail now and then: half of one would show. */
const write = (storage: Storage, at: number, valueBytes: number, sync: boolean): Promise<void> =>
  storage.write(
    batch({
      hardState: hardState(at, at),
      entries: entries(at, at + 1, at),
      ...(at > 1 ? { truncateFrom: position(at).index } : {}),
      stateWrites: [
        put(`key/${at % 3}`, `${at} `.padEnd(valueBytes, 'x')),
        { key: `key/${(at + 1) % 3}`, value: undefined },
        put('always', `${at}`),
      ],
      applied: position(at, at),
      sync,
    }),
  );

const dumpOf = async (directory: string): Promise<Dump> => {
  const storage = await openStorage({ directory, identity });
  try {
    return await dump(storage);
  } finally {
    await storage.close();
  }
};

const logIn = (directory: string): string => {
  const name = readdirSync(directory).find((file) => file.endsWith('.log'));
  return join(directory, name ?? '');
};

const makeSample = async (root: string, valueBytes: number): Promise<Sample> => {
  const directory = join(root, 'sample');
  const storage = await openStorage({ directory, identity });
  const ends: number[] = [];
  const after: Dump[] = [];
  for (let at = 1; at <= syncedBatches + unsyncedBatches; at += 1) {
    await write(storage, at, valueBytes, at <= syncedBatches);
    if (at < syncedBatches) continue;
    ends.push(statSync(logIn(directory)).size);
    const copy = join(root, 'copy');
    cpSync(directory, copy, { recursive: true });
    after.push(await dumpOf(copy));
    rmSync(copy, { recursive: true });
  }
  await storage.close();
  return { directory, content: readFileSync(logIn(directory)), ends, after };
};

/** At each end of a batch and around it, within its header, and anywhere. */
const offsetsIn = ({ ends }: Sample): number[] => {
  const random = seeded(7);
  const [from = 0] = ends;
  const to = ends.at(-1) ?? 0;
  const edges = ends.flatMap((end) => [-1, 0, 6].map((by) => end + by));
  const between = Array.from({ length: 6 }, () => from + Math.floor(random() * (to - from)));
  const within = [...edges, ...between].filter((offset) => offset >= from && offset <= to);
  return [...new Set(within)].sort((one, other) => one - other);
};

type Tear = (content: Buffer, at: number) => Buffer;

const cutOff: Tear = (content, at) => content.subarray(0, at);

/** Sometimes longer than what was written: file systems add space in large pieces. */
const zeros: Tear = (content, at) => {
  const length = at % 2 === 0 ? content.length : at + 100_000;
  return Buffer.concat([content.subarray(0, at), Buffer.alloc(length - at)]);
};

const garbage: Tear = (content, at) => {
  const random = seeded(at);
  const rest = Array.from({ length: content.length - at }, () => Math.floor(random() * 256));
  return Buffer.concat([content.subarray(0, at), Buffer.from(rest)]);
};

/** A page that was never written, with later ones that were. */
const hole: Tear = (content, at) => {
  const torn = Buffer.from(content);
  const pageBytes = 4096;
  return torn.fill(0, at, Math.min(content.length, Math.ceil((at + 1) / pageBytes) * pageBytes));
};

/** Puts what is torn in the log's place and gives what is recovered, or the code of the refusal. */
const recovered = async (
  root: string,
  sample: Sample,
  log: Buffer,
): Promise<{ readonly directory: string; readonly found: Dump | string }> => {
  const directory = join(root, 'torn');
  rmSync(directory, { recursive: true, force: true });
  cpSync(sample.directory, directory, { recursive: true });
  writeFileSync(logIn(directory), log);
  const found = await dumpOf(directory).catch((error: unknown) => {
    if (error instanceof FuturestoreError) return error.code;
    throw error;
  });
  return { directory, found };
};

/** It can be written to as before, and is found so. */
const goesOn = async (directory: string): Promise<void> => {
  const storage = await openStorage({ directory, identity });
  const { term = 0, commit = 0 } = storage.recovered.hardState ?? {};
  const before = await dump(storage);
  await storage.write(batch({ hardState: hardState(term + 1, commit) }));
  await storage.close();
  const after = await dumpOf(directory);
  expect(after).toEqual({ ...before, hardState: { ...before.hardState, term: term + 1, vote: undefined } });
};

describe.each([
  // All in one block of LevelDB's log, or each over several.
  ['small', 20],
  ['large', 20_000],
] as const)('a log of %s batches with a torn end behind the last synced write', (size, valueBytes) => {
  test.each([
    ['cut off', cutOff],
    ['of zeros', zeros],
    ['of garbage', garbage],
  ] as const)(
    '(%s) gives all batches before it, whole, and nothing of the later ones',
    async (_, tear) => {
      const root = temporaryDirectory();
      const sample = await makeSample(root, valueBytes);
      for (const [number, offset] of offsetsIn(sample).entries()) {
        const whole = sample.ends.filter((end) => end <= offset).length;
        const { directory, found } = await recovered(root, sample, tear(sample.content, offset));
        expect(found, `torn at ${offset}, batches end at ${sample.ends.join(', ')}`).toEqual(
          sample.after[whole - 1],
        );
        if (number % 6 === 0) await goesOn(directory);
      }
    },
    60_000,
  );

  test('(a hole, with more behind it) gives all batches before it, or is refused: never what is behind it', async () => {
    const root = temporaryDirectory();
    const sample = await makeSample(root, valueBytes);
    let refused = 0;
    for (const offset of offsetsIn(sample)) {
      const whole = sample.ends.filter((end) => end <= offset).length;
      const { found } = await recovered(root, sample, hole(sample.content, offset));
      if (found === 'DATA_DAMAGED') refused += 1;
      else expect(found, `a hole at ${offset}`).toEqual(sample.after[whole - 1]);
    }
    // LevelDB leaves out the rest of a block, and goes on with the next one.
    if (size === 'small') expect(refused).toBe(0);
  }, 60_000);
});
