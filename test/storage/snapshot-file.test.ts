import * as fc from 'fast-check';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { asLogIndex, asTerm } from '../../src/raft/index.ts';
import {
  makeDataDirectory,
  openStorage,
  SnapshotFileReader,
  SnapshotFileWriter,
  verifySnapshotFile,
  type SnapshotFileInfo,
  type SnapshotPart,
} from '../../src/storage/index.ts';
import { temporaryDirectory } from './directories.ts';
import { batch, dump, entries, hardState, identity, point, position, put, snapshotParts } from './support.ts';

const info: SnapshotFileInfo = {
  clusterId: 'test',
  epoch: 1,
  revision: 41,
  index: asLogIndex(9),
  term: asTerm(3),
  savedAtMs: 1_800_000_000_000,
};

/** Four parts of a good size, so that damage in the first, a middle and the last one is possible. */
const largeState = new Map(
  Array.from({ length: 90 }, (_, at) => [
    `f/${String(at).padStart(3, '0')}`,
    String.fromCharCode(97 + (at % 26)).repeat(10_000),
  ]),
);
const smallState = new Map([
  ['f/a', 'one'],
  ['f/b', ''],
  ['state', 'numbers'],
]);

let directory = '';
let path = '';
let large: readonly SnapshotPart[] = [];
let small: readonly SnapshotPart[] = [];
beforeAll(async () => {
  large = await snapshotParts(9, 3, largeState);
  small = await snapshotParts(9, 3, smallState);
});
beforeEach(() => {
  directory = temporaryDirectory();
  path = join(directory, 'backup.snapshot');
});

const save = async (parts: readonly SnapshotPart[], as = info) => {
  const writer = await SnapshotFileWriter.create(path, as);
  for (const part of parts) await writer.add(part);
  return writer.finish();
};

const readParts = async (): Promise<SnapshotPart[]> => {
  const reader = await SnapshotFileReader.open(path);
  try {
    const parts: SnapshotPart[] = [];
    for (let part = await reader.next(); part !== undefined; part = await reader.next()) parts.push(part);
    expect(await reader.next()).toBeUndefined();
    return parts;
  } finally {
    await reader.close();
  }
};

const plain = ({ records, ...rest }: SnapshotPart) => ({
  ...rest,
  records: Buffer.from(records).toString('latin1'),
});

const damaged = (what: RegExp) =>
  expect.objectContaining({ code: 'DATA_DAMAGED', message: expect.stringMatching(what) });

/** What verifying says of the file after it was changed to these bytes. */
const verdict = async (bytes: Uint8Array): Promise<unknown> => {
  writeFileSync(path, bytes);
  return verifySnapshotFile(path).then(
    () => 'accepted',
    (error: unknown) => error,
  );
};

describe('a snapshot file', () => {
  test('gives back the parts that were put in, and says what it is', async () => {
    for (const parts of [small, large]) {
      const summary = await save(parts);
      const records = parts === small ? 3 : 90;
      expect(summary).toEqual({ ...info, records, bytes: statSync(path).size });
      expect(await verifySnapshotFile(path)).toEqual(summary);
      const read = await readParts();
      expect(read.map(plain)).toEqual(parts.map(plain));
    }
    expect(large.length).toBeGreaterThan(3);
  });

  test('of a state without records is one too', async () => {
    await save(await snapshotParts(9, 3, new Map()));
    expect(await verifySnapshotFile(path)).toMatchObject({ records: 0 });
  });

  test('is readable by its owner only: it has the values of all futures', async () => {
    await save(small);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('is not there before it is finished, and nothing is left of one that is discarded', async () => {
    const writer = await SnapshotFileWriter.create(path, info);
    for (const part of large) await writer.add(part);
    expect(existsSync(path)).toBe(false);
    await writer.discard();
    expect(readdirSync(directory)).toEqual([]);
    await writer.discard();
  });

  test('leaves nothing behind where it cannot get its name', async () => {
    mkdirSync(path);
    const writer = await SnapshotFileWriter.create(path, info);
    for (const part of small) await writer.add(part);
    await expect(writer.finish()).rejects.toThrow();
    await writer.discard();
    expect(readdirSync(directory)).toEqual(['backup.snapshot']);
  });

  test('that is there already stays until the new one is whole', async () => {
    await save(small);
    const writer = await SnapshotFileWriter.create(path, { ...info, revision: 99 });
    await writer.add(small[0] as SnapshotPart);
    expect(await verifySnapshotFile(path)).toMatchObject({ revision: 41 });
    await writer.finish();
    expect(await verifySnapshotFile(path)).toMatchObject({ revision: 99 });
    expect(readdirSync(directory)).toEqual(['backup.snapshot']);
  });

  test('is not finished without its last part, nor made of parts that are damaged or out of order', async () => {
    const [first, second] = large;
    if (first === undefined || second === undefined) throw new Error('too few parts');
    const flipped = {
      ...first,
      records: Uint8Array.from(first.records, (byte, at) => (at === 9 ? byte ^ 1 : byte)),
    };
    for (const [parts, what] of [
      [[first], /the last part of the snapshot has not come/],
      [[second], /part 1 .* comes where part 0 was expected/],
      [[flipped], /part 0 .* wrong checksum/],
      [[first, first], /part 0 .* comes where part 1 was expected/],
    ] as const) {
      const writer = await SnapshotFileWriter.create(path, info);
      const saved = (async () => {
        for (const part of parts) await writer.add(part);
        await writer.finish();
      })();
      await expect(saved).rejects.toThrow(damaged(what));
      await writer.discard();
    }
    expect(readdirSync(directory)).toEqual([]);
  });

  test('of nothing, or with numbers that are none, is refused before it is made', async () => {
    for (const wrong of [{ index: 0 }, { term: 0 }, { epoch: 0 }, { revision: 0.5 }, { clusterId: '' }]) {
      const made = SnapshotFileWriter.create(path, { ...info, ...wrong } as SnapshotFileInfo);
      await expect(made).rejects.toThrow(Error);
    }
    expect(readdirSync(directory)).toEqual([]);
  });

  test('that cannot be made or read is refused by name', async () => {
    await expect(SnapshotFileWriter.create(join(directory, 'no', 'file'), info)).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
      message: expect.stringContaining(join('no', 'file')),
    });
    await expect(verifySnapshotFile(path)).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
      message: expect.stringContaining(path),
    });
  });

  test('of a later version is refused as such, and a damaged version as damage', async () => {
    await save(small);
    const bytes = readFileSync(path);
    bytes.writeUInt32BE(2, 24);
    expect(await verdict(bytes)).toEqual(damaged(/its header has a wrong checksum/));
    const end = 32 + bytes.readUInt32BE(28);
    bytes.writeUInt32BE(crc32(bytes.subarray(0, end)), end);
    expect(await verdict(bytes)).toMatchObject({
      code: 'DATA_FOREIGN',
      message: expect.stringMatching(/format version 2; this program reads 1/),
    });
  });
});

describe('damage to a snapshot file', () => {
  test('of any single bit is found, and the file named', async () => {
    await save(small);
    const whole = readFileSync(path);
    for (let bit = 0; bit < whole.length * 8; bit += 1) {
      const bytes = Buffer.from(whole);
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const error = await verdict(bytes);
      expect(error, `bit ${bit}`).toEqual(damaged(/The snapshot file .*backup\.snapshot is damaged: /));
    }
  });

  test('by a cut at any byte, and by bytes behind its end, is found', async () => {
    await save(small);
    const whole = readFileSync(path);
    for (let length = 0; length < whole.length; length += 1) {
      expect(await verdict(whole.subarray(0, length)), `${length} bytes`).toEqual(damaged(/damaged: /));
    }
    expect(await verdict(Buffer.concat([whole, Buffer.from([0])]))).toEqual(
      damaged(/1 bytes follow its end/),
    );
    expect(await verdict(Buffer.concat([whole, whole]))).toEqual(damaged(/bytes follow its end/));
  });

  test('by anything at any place of a large one is found', async () => {
    await save(large);
    const whole = readFileSync(path);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(whole.length - 1),
        fc.uint8Array({ minLength: 1, maxLength: 30 }),
        async (at, junk) => {
          const bytes = Buffer.from(whole);
          bytes.set(junk.subarray(0, bytes.length - at), at);
          fc.pre(!bytes.equals(whole));
          expect(await verdict(bytes)).toEqual(damaged(/damaged: /));
        },
      ),
      { numRuns: 100 },
    );
  });

  /** Where the parts are: from the heads on. */
  const partsOf = (bytes: Buffer): Buffer[] => {
    const found: Buffer[] = [];
    for (let at = 32 + bytes.readUInt32BE(28) + 4; bytes[at] === 1 || bytes[at] === 2;) {
      const end = at + 17 + bytes.readUInt32BE(at + 5);
      found.push(bytes.subarray(at, end));
      at = end;
    }
    return found;
  };

  test('by parts that are exchanged, left out, doubled or of another snapshot is found', async () => {
    await save(
      await snapshotParts(9, 3, new Map([...largeState].map(([key, text]) => [key, text.toUpperCase()]))),
    );
    const other = partsOf(readFileSync(path));
    await save(large);
    const whole = readFileSync(path);
    const parts = partsOf(whole);
    const [first, second] = parts;
    const [, foreign] = other;
    if (first === undefined || second === undefined || foreign === undefined)
      throw new Error('too few parts');
    const start = whole.subarray(0, whole.indexOf(first));
    const rest = parts.slice(2);
    const end = whole.subarray(start.length + Buffer.concat(parts).length);
    const made = (...middle: Buffer[]): Buffer => Buffer.concat([start, ...middle, ...rest, end]);
    expect(await verdict(made(first, second))).toBe('accepted');
    expect(await verdict(made(second, first))).toEqual(damaged(/part 1 .* comes where part 0/));
    expect(await verdict(made(first))).toEqual(damaged(/part 2 .* comes where part 1/));
    expect(await verdict(made(first, first, second))).toEqual(damaged(/part 0 .* comes where part 1/));
    // Right in itself and in its place: only the checksum over all tells.
    expect(await verdict(made(first, foreign))).toEqual(damaged(/checksum over all of it is wrong/));
  });

  test('by a header of another file is found', async () => {
    await save(small, { ...info, clusterId: 'else' });
    const other = readFileSync(path);
    await save(small);
    const whole = readFileSync(path);
    const headerBytes = 36 + whole.readUInt32BE(28);
    const mixed = Buffer.concat([other.subarray(0, headerBytes), whole.subarray(headerBytes)]);
    expect(await verdict(mixed)).toEqual(damaged(/checksum over all of it is wrong/));
  });

  test('is named with where it is', async () => {
    await save(small);
    const whole = readFileSync(path);
    const head = 36 + whole.readUInt32BE(28);
    const at = (offset: number): Buffer => {
      const bytes = Buffer.from(whole);
      bytes[offset] = (bytes[offset] ?? 0) ^ 4;
      return bytes;
    };
    expect(await verdict(at(3))).toEqual(damaged(/does not begin as one of futurestore/));
    expect(await verdict(at(40))).toEqual(damaged(/its header has a wrong checksum/));
    expect(await verdict(at(head + 7))).toEqual(damaged(new RegExp(`the head of a part at byte ${head} `)));
    expect(await verdict(at(head + 17))).toEqual(damaged(/./));
    expect(await verdict(whole.subarray(0, -5))).toEqual(damaged(/its end is missing/));
    expect(await verdict(Buffer.from('PK\x03\x04 some other file of good length'))).toEqual(
      damaged(/does not begin as one of futurestore/),
    );
  });

  test('comes to light before the last part is given', async () => {
    await save(large);
    const bytes = readFileSync(path);
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    const reader = await SnapshotFileReader.open(path);
    for (let given = 1; given < large.length; given += 1) expect((await reader.next())?.last).toBe(false);
    await expect(reader.next()).rejects.toThrow(damaged(/checksum over all/));
    await reader.close();
  });
});

describe('a data directory that is made with something in it', () => {
  const target = (): string => join(directory, 'data');
  const fill = async (storage: Parameters<Parameters<typeof makeDataDirectory>[1]>[0]): Promise<string> => {
    await storage.write(
      batch({
        entries: entries(1, 3),
        hardState: hardState(1, 3),
        stateWrites: [put('a', 'one')],
        applied: position(3),
        compactTo: point(2),
      }),
    );
    return 'filled';
  };

  test('is a directory like any other', async () => {
    expect(await makeDataDirectory({ directory: target(), identity }, fill)).toBe('filled');
    expect(readdirSync(directory)).toEqual(['data']);
    const storage = await openStorage({ directory: target(), identity });
    expect(await dump(storage)).toMatchObject({
      applied: { index: 3 },
      snapshot: { index: 2 },
      state: [['a', 'one']],
    });
    expect(storage.recovered.run).toBe(2);
    await storage.close();
  });

  test('has its name only when all of it is written, and leaves nothing behind if that fails', async () => {
    const failing = makeDataDirectory({ directory: target(), identity }, async (storage) => {
      await fill(storage);
      expect(existsSync(target())).toBe(false);
      throw new Error('the power is gone');
    });
    await expect(failing).rejects.toThrow('the power is gone');
    expect(readdirSync(directory)).toEqual([]);
  });

  test('may take the place of an empty one, and of nothing else', async () => {
    mkdirSync(target());
    await makeDataDirectory({ directory: target(), identity }, fill);
    const again = makeDataDirectory({ directory: target(), identity }, fill);
    await expect(again).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
      message: expect.stringMatching(/data is there and not empty/),
    });
    const file = join(directory, 'file');
    writeFileSync(file, '');
    await expect(makeDataDirectory({ directory: file, identity }, fill)).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
    });
    expect(readdirSync(directory).sort()).toEqual(['data', 'file']);
  });

  test('that got something in it meanwhile is not replaced', async () => {
    const made = makeDataDirectory({ directory: target(), identity }, async (storage) => {
      await fill(storage);
      mkdirSync(join(target(), 'sub'), { recursive: true });
    });
    await expect(made).rejects.toMatchObject({ code: 'CONFIGURATION_INVALID' });
    expect(readdirSync(directory)).toEqual(['data']);
    expect(readdirSync(target())).toEqual(['sub']);
  });
});
