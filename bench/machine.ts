/** What the machine is, and what its disk can do: printed beside every figure, since figures mean nothing without. */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';

export interface Machine {
  readonly node: string;
  readonly processors: number;
  readonly processor: string;
  readonly memoryGiB: number;
  /** Appends of 4 KiB, each synced, one after the other. */
  readonly syncsPerSecond: number;
}

/** Appends 4 KiB and syncs, for half a second, where the servers have their data too. */
export const measureSyncs = (): number => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-sync-'));
  try {
    const file = openSync(join(directory, 'sync'), 'a');
    const block = Buffer.alloc(4096, 1);
    let count = 0;
    const endMs = performance.now() + 500;
    while (performance.now() < endMs) {
      writeSync(file, block);
      fdatasyncSync(file);
      count += 1;
    }
    closeSync(file);
    return count * 2;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};

export const describeMachine = (): Machine => ({
  node: process.version,
  processors: cpus().length,
  processor: cpus()[0]?.model.trim() ?? 'unknown',
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  syncsPerSecond: measureSyncs(),
});

/** Linux counts in hundredths of a second on all common builds (getconf CLK_TCK). */
const ticksPerSecond = 100;

/** Seconds of processor that these processes (with all their threads) have used so far. */
export const processorSeconds = (pids: readonly number[]): number => {
  let ticks = 0;
  for (const pid of pids) {
    const fields = statOf(pid);
    // utime and stime, the 14th and 15th; the second field (the name) and the ones before are cut off.
    ticks += Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }
  return ticks / ticksPerSecond;
};

/** Resident memory of the processes together, in bytes. */
export const residentBytes = (pids: readonly number[]): number => {
  let pages = 0;
  for (const pid of pids) {
    try {
      pages += Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1] ?? 0);
    } catch {
      // It has ended.
    }
  }
  return pages * 4096;
};

const statOf = (pid: number): readonly string[] => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
};
