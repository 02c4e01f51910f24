import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { damaged } from './damage.ts';
import { readSafeInteger, seal, sealedHeaderBytes, unseal, writeSafeInteger } from './sealed.ts';

const fileName = 'synced';
/** A checksum and a number: few enough bytes that no disk writes half of them. */
const recordBytes = sealedHeaderBytes + 8;

/**
 * The number of the last synced batch, in a small file beside LevelDB's. It is written after the sync and not synced
 * itself: after a power failure it may be behind, which only makes the check weaker, and it is never ahead.
 */
export class SyncedMark {
  readonly #directory: string;
  readonly #record = Buffer.alloc(recordBytes);
  #file: number | undefined;
  /** undefined: the file does not exist. */
  readonly found: number | undefined;

  constructor(directory: string) {
    this.#directory = directory;
    const path = join(directory, fileName);
    if (!existsSync(path)) return;
    const record = readFileSync(path);
    const content = record.length === recordBytes ? unseal(fileName, record) : undefined;
    if (content === undefined) throw damaged(directory, `the file ${fileName} has a wrong checksum`);
    this.found = readSafeInteger(content, 0);
  }

  /** Blocks for the few microseconds that the kernel needs to copy the bytes. */
  write(batchNumber: number): void {
    writeSafeInteger(this.#record, batchNumber, sealedHeaderBytes);
    seal(fileName, this.#record);
    const first = this.#file === undefined;
    this.#file ??= openSync(join(this.#directory, fileName), this.found === undefined ? 'w' : 'r+');
    writeSync(this.#file, this.#record, 0, recordBytes, 0);
    // The file itself must not be lost: without it lost writes go unnoticed.
    if (first) this.#syncFile(this.#file);
  }

  #syncFile(file: number): void {
    fsyncSync(file);
    const directory = openSync(this.#directory, 'r');
    fsyncSync(directory);
    closeSync(directory);
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}
