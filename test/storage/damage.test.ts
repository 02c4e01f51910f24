import * as fc from 'fast-check';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { openStorage } from '../../src/storage/index.ts';
import { SyncedMark } from '../../src/storage/synced-mark.ts';
import { temporaryDirectory } from './directories.ts';
import type { Dump } from './support.ts';
import { batch, dump, entries, hardState, identity, point, position, put } from './support.ts';

afterEach(() => void vi.restoreAllMocks());

interface Sample {
  readonly directory: string;
  readonly written: Dump;
}

const dumpOf = async (directory: string): Promise<Dump> => {
  const storage = await openStorage({ directory, identity });
  try {
    return await dump(storage);
  } finally {
    await storage.close();
  }
};

/**
 * A database whose log has all writes of its last run, and whose tables have those of earlier ones: with overwritten
 * and removed records, so that a lost removal or an older version would show.
 */
const makeSample = async (root: string): Promise<Sample> => {
  const directory = join(root, 'sample');
  for (let run = 0; run < 3; run += 1) {
    const storage = await openStorage({ directory, identity });
    const last = storage.recovered.entries.at(-1)?.index ?? 0;
    for (let at = last + 1; at <= last + 20; at += 1) {
      await storage.write(
        batch({
          hardState: hardState(1, at),
          entries: entries(at, at),
          stateWrites: [
            put(`key/${at % 7}`, `run ${run}, ${at}`),
            { key: `key/${(at + 3) % 7}`, value: undefined },
          ],
          applied: position(at),
          sync: at % 2 === 0,
          ...(at % 10 === 0 ? { compactTo: point(at - 8) } : {}),
        }),
      );
    }
    await storage.close();
  }
  const copy = join(root, 'copy');
  cpSync(directory, copy, { recursive: true });
  return { directory, written: await dumpOf(copy) };
};

const filesOf = (directory: string, pattern: RegExp): string[] =>
  readdirSync(directory).filter((name) => pattern.test(name));

/** Opens a copy of the sample after something was done to it: what it gives, or the code of the refusal. */
const afterDamage = async (
  root: string,
  sample: Sample,
  damage: (directory: string) => void,
): Promise<Dump | string> => {
  const directory = join(root, 'damaged');
  rmSync(directory, { recursive: true, force: true });
  cpSync(sample.directory, directory, { recursive: true });
  damage(directory);
  const outcomes: (Dump | string)[] = [];
  // A refusal must not be forgotten: a service manager starts a server again and again.
  for (let attempt = 0; attempt < 2; attempt += 1) {
    outcomes.push(
      await dumpOf(directory).catch((error: unknown) => {
        if (error instanceof FuturestoreError) return error.code;
        throw error;
      }),
    );
  }
  expect(outcomes[1]).toEqual(outcomes[0]);
  return outcomes[0] ?? 'nothing';
};

const flip = (path: string, at: number, mask: number): void => {
  const file = readFileSync(path);
  file[at] = (file[at] ?? 0) ^ mask;
  writeFileSync(path, file);
};

describe('damaged files', { timeout: 30_000 }, () => {
  test.each([
    ['the log', /\.log$/, 60],
    ['a table', /\.ldb$/, 40],
    ['the manifest', /^MANIFEST/, 30],
    ['CURRENT', /^CURRENT$/, 8],
    ['the mark of synced writes', /^synced$/, 8],
  ] as const)(
    'pitfall 44: a flipped bit in %s is refused, or changes nothing',
    async (_, pattern, runs) => {
      const root = temporaryDirectory();
      const sample = await makeSample(root);
      const names = filesOf(sample.directory, pattern);
      expect(names.length).toBeGreaterThan(0);
      let refused = 0;
      await fc.assert(
        fc.asyncProperty(fc.nat(), fc.nat(), fc.nat({ max: 7 }), async (file, at, bit) => {
          const name = names[file % names.length] ?? '';
          const size = readFileSync(join(sample.directory, name)).length;
          const outcome = await afterDamage(root, sample, (directory) => {
            flip(join(directory, name), at % size, 1 << bit);
          });
          if (outcome === 'DATA_DAMAGED') refused += 1;
          else expect(outcome).toEqual(sample.written);
        }),
        { numRuns: runs },
      );
      expect(refused).toBeGreaterThan(runs / 2);
    },
    30_000,
  );

  test('pitfall 44: synced writes cut off the log are missed', async () => {
    const root = temporaryDirectory();
    const sample = await makeSample(root);
    const [log = ''] = filesOf(sample.directory, /\.log$/);
    const size = readFileSync(join(sample.directory, log)).length;
    for (let left = 0; left < size; left += Math.ceil(size / 12)) {
      const outcome = await afterDamage(root, sample, (directory) =>
        truncateSync(join(directory, log), left),
      );
      expect(outcome, `${left} of ${size} bytes`).toBe('DATA_DAMAGED');
    }
  });

  test('the mark of synced writes follows them while the server runs', async () => {
    const directory = join(temporaryDirectory(), 'running');
    const storage = await openStorage({ directory, identity });
    const mark = (): string => readFileSync(join(directory, 'synced'), 'hex');
    const before = mark();
    const written = { hardState: hardState(1, 1), entries: entries(1, 1), sync: true };
    await storage.write(batch(written));
    const running = await vi.waitUntil(() => (mark() === before ? undefined : mark()), { timeout: 5000 });
    await storage.close();
    expect(mark(), 'it was there without the close').toBe(running);
  });

  test('the mark of synced writes has the last one after a close', async () => {
    const directory = join(temporaryDirectory(), 'closed');
    const storage = await openStorage({ directory, identity });
    const number = (): number => readFileSync(join(directory, 'synced')).readUIntBE(4 + 2, 6);
    const before = number();
    const written = { hardState: hardState(1, 1), entries: entries(1, 1), sync: true };
    await storage.write(batch(written));
    await storage.close();
    expect(number()).toBe(before + 1);
  });

  test.each([/\.log$/, /\.ldb$/, /^MANIFEST/, /^CURRENT$/, /^synced$/])(
    'pitfall 44: a missing file, %s, is refused',
    async (pattern) => {
      const root = temporaryDirectory();
      const sample = await makeSample(root);
      const [name = ''] = filesOf(sample.directory, pattern);
      const outcome = await afterDamage(root, sample, (directory) => rmSync(join(directory, name)));
      expect(outcome).toBe('DATA_DAMAGED');
    },
  );

  test('a creation that was cut short is no damage', async () => {
    const root = temporaryDirectory();
    const directory = join(root, 'new');
    await (await openStorage({ directory, identity })).close();
    // Killed between its first batch and the mark.
    rmSync(join(directory, 'synced'));
    const again = await openStorage({ directory, identity });
    expect(again.recovered.run).toBe(2);
    await again.close();
  });

  test.each(['has no mark', 'has an empty mark'])(
    'nor is one that was cut short again at the next start, where it %s',
    async (state) => {
      const directory = join(temporaryDirectory(), 'new');
      await (await openStorage({ directory, identity })).close();
      const mark = join(directory, 'synced');
      if (state === 'has no mark') rmSync(mark);
      else truncateSync(mark);
      const write = Reflect.get(SyncedMark.prototype, 'write');
      const killed = vi.spyOn(SyncedMark.prototype, 'write').mockImplementation(function (
        this: SyncedMark,
        number: number,
      ) {
        if (number > 1) throw new Error('killed');
        write.call(this, number);
      });
      await expect(openStorage({ directory, identity })).rejects.toThrow('killed');
      killed.mockRestore();
      const again = await openStorage({ directory, identity });
      expect(again.recovered.run).toBe(3);
      await again.close();
    },
  );

  test('a disk that takes no new files is not called damaged, and opens again when it does', async () => {
    const root = temporaryDirectory();
    const { directory, written } = await makeSample(root);
    // What LevelDB writes at its opening gets one of the next numbers: none of them can be had.
    const last = Math.max(...readdirSync(directory).map((name) => Number.parseInt(name, 10) || 0));
    const taken = Array.from({ length: 20 }, (_, index) => {
      const name = `${last + 1 + index}`.padStart(6, '0');
      return join(directory, `${name}.ldb`);
    });
    for (const path of taken) mkdirSync(path);
    await expect(openStorage({ directory, identity })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringMatching(/look at the disk/),
    });
    for (const path of taken) rmSync(path, { recursive: true });
    expect(await dumpOf(directory)).toEqual(written);
  });

  test('a directory that is running is never called damaged', async () => {
    const root = temporaryDirectory();
    const directory = join(root, 'live');
    const storage = await openStorage({ directory, identity });
    rmSync(join(directory, 'CURRENT'));
    writeFileSync(join(directory, 'CURRENT'), 'MANIFEST-000099\n');
    await expect(openStorage({ directory, identity })).rejects.toMatchObject({ code: 'DATA_IN_USE' });
    await storage.close();
  });

  test('a directory below a folder that can hold none is refused at once', async () => {
    await expect(openStorage({ directory: '/proc/none/data', identity })).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
    });
  });

  test('a directory that cannot be made is a mistake in the configuration', async () => {
    const root = temporaryDirectory();
    writeFileSync(join(root, 'file'), '');
    const directory = join(root, 'file', 'data');
    await expect(openStorage({ directory, identity })).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
    });
    await expect(openStorage({ directory, identity })).rejects.toThrow(directory);
  });
});
