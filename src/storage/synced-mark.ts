import { closeSync, existsSync, fsyncSync, openSync, readFileSync, write, writeSync } from 'node:fs';
import { join } from 'node:path';
import { damaged } from './damage.ts';
import { readSafeInteger, seal, sealedHeaderBytes, unseal, writeSafeInteger } from './sealed.ts';

const fileName = 'synced';
/** A checksum and a number: few enough bytes that no disk writes half of them. */
const recordBytes = sealedHeaderBytes + 8;

/**
 * Between two writes of the mark. Each is a trip to another thread and back, as the sync itself is, and was in the way of
 * what waits for the sync; so there is not one for each. The price: what a server has synced in the last moment before it
 * was killed is not missed, should its disk lose that afterwards.
 */
const intervalMs = 10;

/**
 * The number of the last synced batch, in a small file beside LevelDB's. It is written within `intervalMs` of the sync and
 * not synced itself: after a kill or a power failure it may be behind, which only makes the check weaker, and it is never
 * ahead.
 */
export class SyncedMark {
  readonly #directory: string;
  readonly #record = Buffer.alloc(recordBytes);
  readonly #whenIdle: (() => void)[] = [];
  #file: number | undefined;
  #wanted = 0;
  /** The number in the write that was begun last. */
  #given = 0;
  #underWay = false;
  #timer: NodeJS.Timeout | undefined;
  #failure: Error | undefined;
  /** undefined: the file does not exist, or is empty. */
  readonly found: number | undefined;

  constructor(directory: string) {
    this.#directory = directory;
    const path = join(directory, fileName);
    if (!existsSync(path)) return;
    const record = readFileSync(path);
    // Its making was cut short: it counts as not there.
    if (record.length === 0) return;
    const content = record.length === recordBytes ? unseal(fileName, record) : undefined;
    if (content === undefined) throw damaged(directory, `the file ${fileName} has a wrong checksum`);
    this.found = readSafeInteger(content, 0);
  }

  /**
   * Soon on disk. The kernel makes a writer of a page wait while it writes that page back (0.4 ms on average under
   * load), so this is left to another thread; while it is under way only the newest number waits.
   */
  write(batchNumber: number): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#wanted = batchNumber;
    if (this.#file === undefined) this.#writeFirst();
    else this.#timer ??= setTimeout(this.#due, intervalMs).unref();
  }

  readonly #due = (): void => {
    this.#timer = undefined;
    if (this.#file !== undefined) this.#begin(this.#file);
  };

  /** The file itself must not be lost: without it lost writes go unnoticed. */
  #writeFirst(): void {
    this.#file = openSync(join(this.#directory, fileName), this.found === undefined ? 'w' : 'r+');
    writeSync(this.#file, this.#fill(), 0, recordBytes, 0);
    this.#syncFile(this.#file);
  }

  #begin(file: number): void {
    if (this.#underWay || this.#wanted === this.#given) return;
    this.#underWay = true;
    write(file, this.#fill(), 0, recordBytes, 0, (error) => {
      this.#underWay = false;
      if (error === null) this.#begin(file);
      else this.#failure = error;
      if (!this.#underWay) for (const resolve of this.#whenIdle.splice(0)) resolve();
    });
  }

  #fill(): Buffer {
    this.#given = this.#wanted;
    writeSafeInteger(this.#record, this.#wanted, sealedHeaderBytes);
    seal(fileName, this.#record);
    return this.#record;
  }

  #syncFile(file: number): void {
    fsyncSync(file);
    const directory = openSync(this.#directory, 'r');
    fsyncSync(directory);
    closeSync(directory);
  }

  async close(): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    this.#begin(file);
    if (this.#underWay) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    clearTimeout(this.#timer);
    this.#file = undefined;
    closeSync(file);
  }
}
