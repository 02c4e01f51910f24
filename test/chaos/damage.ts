/** Damage to a stopped server's files, of a kind that can't go unnoticed: what is hit was synced and is needed. */
import { openSync, closeSync, readdirSync, readSync, statSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export interface Damage {
  readonly file: string;
  readonly what: string;
}

/** LevelDB's log is written in blocks whose last bytes may be padding, which nothing depends on. */
const logBlockBytes = 32 * 1024;
const logHeaderBytes = 7;
/** Less than this may not have been synced by anyone. */
const logBytesMin = 4 * logBlockBytes;

const flip = (path: string, at: number, bit: number): void => {
  const file = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ (1 << bit);
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
};

/** The log that LevelDB wrote to last. Older ones may already be in a table, and unneeded. */
const lastLog = (directory: string): string | undefined =>
  readdirSync(directory)
    .filter((name) => /^\d+\.log$/.test(name))
    .sort()
    .at(-1);

/** A table that is older than the last one: it is in the manifest. */
const someTable = (directory: string, random: () => number): string | undefined => {
  const tables = readdirSync(directory)
    .filter((name) => /^\d+\.ldb$/.test(name))
    .sort()
    .slice(0, -1);
  return tables[Math.floor(random() * tables.length)];
};

/** There is a log, long enough that much of it was surely synced. */
export const isWorthDamage = (directory: string): boolean => {
  const log = lastLog(directory);
  return log !== undefined && statSync(join(directory, log)).size >= logBytesMin;
};

/** undefined: there is not yet enough on this disk. */
export const damageSomething = (directory: string, random: () => number): Damage | undefined => {
  const log = lastLog(directory);
  const table = someTable(directory, random);
  const file = table !== undefined && random() < 0.5 ? table : log;
  if (file === undefined) return undefined;
  const path = join(directory, file);
  const bytes = statSync(path).size;
  const cut = random() < 0.5;
  if (file === log) {
    if (bytes < logBytesMin) return undefined;
    if (cut) {
      truncateSync(path, Math.floor(bytes / 2));
      return { file, what: `cut from ${bytes} to half its bytes` };
    }
    const blocks = Math.floor(bytes / 2 / logBlockBytes);
    const block = Math.floor(random() * blocks);
    const at = block * logBlockBytes + Math.floor(random() * (logBlockBytes - logHeaderBytes));
    flip(path, at, Math.floor(random() * 8));
    return { file, what: `a bit flipped at byte ${at} of ${bytes}` };
  }
  const at = Math.floor(random() * bytes);
  if (cut) truncateSync(path, at);
  else flip(path, at, Math.floor(random() * 8));
  return { file, what: `${cut ? 'cut' : 'a bit flipped'} at byte ${at} of ${bytes}` };
};
