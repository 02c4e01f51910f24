/**
 * A snapshot in a file of its own, as an operator keeps it: everything in it is under a checksum of its own place, so
 * that damage is named with where it is, and all of it under one, so that nothing can be exchanged or left out.
 * Numbers are big endian.
 *
 *   header   magic (24 bytes), format version (4), length of the text (4), JSON text, CRC-32 of all that (4)
 *   parts    kind (1: more follow, 2: the last), number (4), length (4), CRC-32 of the records (4), CRC-32 of these
 *            13 bytes (4), records as in snapshot-parts.ts
 *   trailer  kind (3), records in all (8), SHA-256 of every byte before it (32)
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { asLogIndex, asTerm } from '../raft/index.ts';
import type { LogIndex, Term } from '../raft/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import { damagedFile } from './damage.ts';
import type { Damage } from './damage.ts';
import { readSafeInteger, writeSafeInteger } from './sealed.ts';
import { PartChecker } from './snapshot-parts.ts';
import { syncDirectory } from './sync-directory.ts';
import type { SnapshotPart } from './types.ts';

const magic = Buffer.from('futurestore snapshot\r\n\x1a\0', 'latin1');
const fileVersion = 1;
const headerStartBytes = magic.length + 8;
const checksumBytes = 4;
/** The text is a few hundred bytes; a damaged length must not make us read the file into memory. */
const headerTextBytesMax = 64 * 1024;
const partHeaderBytes = 17;
const digestBytes = 32;
const trailerBytes = 1 + 8 + digestBytes;
const kinds = { part: 1, lastPart: 2, trailer: 3 } as const;
/** It has the values of all futures, also the sensitive ones. */
const fileMode = 0o600;

/** What a snapshot file says of itself. */
export interface SnapshotFileInfo {
  /** Of the cluster that it was taken from. */
  readonly clusterId: string;
  readonly epoch: number;
  readonly revision: number;
  /** The last log entry whose changes are in it. */
  readonly index: LogIndex;
  readonly term: Term;
  /** By the clock of who wrote the file, in milliseconds since 1970. */
  readonly savedAtMs: number;
}

export interface SnapshotFileSummary extends SnapshotFileInfo {
  readonly records: number;
  /** Of the whole file. */
  readonly bytes: number;
}

/** Throws for what is no info. */
const checkedInfo = (value: unknown): SnapshotFileInfo => {
  if (typeof value !== 'object' || value === null) throw new TypeError('not an object');
  const fields = new Map<string, unknown>(Object.entries(value));
  const number = (name: string, least: number): number => {
    const found = fields.get(name);
    if (typeof found !== 'number' || !Number.isSafeInteger(found) || found < least)
      throw new RangeError(`${name} is ${String(found)}, not a whole number of at least ${least}`);
    return found;
  };
  const clusterId = fields.get('clusterId');
  if (typeof clusterId !== 'string' || clusterId === '') throw new TypeError('it names no cluster');
  return {
    clusterId,
    epoch: number('epoch', 1),
    revision: number('revision', 0),
    index: asLogIndex(number('index', 1)),
    term: asTerm(number('term', 1)),
    savedAtMs: number('savedAtMs', 0),
  };
};

const encodeHeader = (info: SnapshotFileInfo): Buffer => {
  const text = Buffer.from(JSON.stringify(info));
  const header = Buffer.alloc(headerStartBytes + text.length + checksumBytes);
  header.set(magic);
  header.writeUInt32BE(fileVersion, magic.length);
  header.writeUInt32BE(text.length, magic.length + 4);
  header.set(text, headerStartBytes);
  header.writeUInt32BE(crc32(header.subarray(0, -checksumBytes)), header.length - checksumBytes);
  return header;
};

const encodePartHeader = ({ number, records, checksum, last }: SnapshotPart): Buffer => {
  const header = Buffer.alloc(partHeaderBytes);
  header[0] = last ? kinds.lastPart : kinds.part;
  header.writeUInt32BE(number, 1);
  header.writeUInt32BE(records.length, 5);
  header.writeUInt32BE(checksum, 9);
  header.writeUInt32BE(crc32(header.subarray(0, -checksumBytes)), partHeaderBytes - checksumBytes);
  return header;
};

const unusable = (path: string, what: string, cause: unknown): FuturestoreError => {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new FuturestoreError(
    'CONFIGURATION_INVALID',
    `The snapshot file ${path} cannot be ${what}: ${why}`,
    {
      cause,
    },
  );
};

/** The whole of `bytes`: the system may take less at a time. */
const writeAll = async (file: FileHandle, bytes: Uint8Array): Promise<void> => {
  for (let at = 0; at < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at);
    at += bytesWritten;
  }
};

/**
 * Writes a snapshot file under a temporary name beside it; the file itself is there, whole and on disk, when `finish`
 * is answered, and not before. A file that is there already is replaced then. Holds one part at a time.
 *
 * Calls must not overlap. After any error only `discard` may follow.
 */
export class SnapshotFileWriter {
  readonly #path: string;
  readonly #temporary: string;
  readonly #file: FileHandle;
  readonly #info: SnapshotFileInfo;
  readonly #checker: PartChecker;
  readonly #digest = createHash('sha256');
  #bytes = 0;
  #open = true;

  private constructor(path: string, temporary: string, file: FileHandle, info: SnapshotFileInfo) {
    this.#path = path;
    this.#temporary = temporary;
    this.#file = file;
    this.#info = info;
    this.#checker = new PartChecker(received, info.index);
  }

  /**
   * Throws CONFIGURATION_INVALID if the file cannot be made here, a RangeError for an info that no snapshot has, such as
   * index 0 (nothing was ever written in that cluster).
   */
  static async create(path: string, info: SnapshotFileInfo): Promise<SnapshotFileWriter> {
    const checked = checkedInfo(info);
    const temporary = `${path}.${randomBytes(4).toString('hex')}.partial`;
    let file: FileHandle;
    try {
      file = await open(temporary, 'wx', fileMode);
    } catch (error) {
      throw unusable(path, 'made', error);
    }
    const writer = new SnapshotFileWriter(path, temporary, file, checked);
    try {
      await writer.#write(encodeHeader(checked));
    } catch (error) {
      await writer.discard();
      throw error;
    }
    return writer;
  }

  /** Parts in order. Throws DATA_DAMAGED for one that is not as storage made it, or not the next. */
  async add(part: SnapshotPart): Promise<void> {
    assert(this.#open, 'a part was added to a snapshot file that is closed');
    this.#checker.check(part);
    await this.#write(encodePartHeader(part));
    await this.#write(part.records);
  }

  /** Throws DATA_DAMAGED if the last part has not come. */
  async finish(): Promise<SnapshotFileSummary> {
    assert(this.#open, 'a snapshot file was finished after it was closed');
    if (!this.#checker.complete) throw received('the last part of the snapshot has not come');
    const records = this.#checker.recordsTotal;
    const trailer = Buffer.alloc(trailerBytes - digestBytes);
    trailer[0] = kinds.trailer;
    writeSafeInteger(trailer, records, 1);
    await this.#write(trailer);
    await this.#write(this.#digest.copy().digest());
    await this.#file.sync();
    await this.#file.close();
    await rename(this.#temporary, this.#path);
    // Before that `discard` has something to remove; a file that is closed may be closed again.
    this.#open = false;
    await syncDirectory(dirname(this.#path));
    return { ...this.#info, records, bytes: this.#bytes };
  }

  /** Leaves nothing behind, unless it is finished. */
  async discard(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
    await rm(this.#temporary, { force: true });
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await writeAll(this.#file, bytes);
    this.#digest.update(bytes);
    this.#bytes += bytes.length;
  }
}

const received: Damage = (what, cause) =>
  new FuturestoreError(
    'DATA_DAMAGED',
    `The snapshot that is being saved is damaged: ${what}. Save it again; if that fails too, from another server.`,
    cause === undefined ? undefined : { cause },
  );

/**
 * Reads a snapshot file part by part and checks every byte of it: what `next` gives is as it was written, and the last
 * part is given only when the whole file was. Holds one part at a time.
 */
export class SnapshotFileReader {
  readonly info: SnapshotFileInfo;
  readonly #file: FileHandle;
  readonly #damage: Damage;
  readonly #size: number;
  readonly #checker: PartChecker;
  readonly #digest = createHash('sha256');
  #at = 0;

  private constructor(
    file: FileHandle,
    damage: Damage,
    header: Buffer,
    info: SnapshotFileInfo,
    size: number,
  ) {
    this.info = info;
    this.#file = file;
    this.#damage = damage;
    this.#size = size;
    this.#checker = new PartChecker(damage, info.index);
    this.#digest.update(header);
    this.#at = header.length;
  }

  /**
   * Throws CONFIGURATION_INVALID if there is no such file to read, DATA_FOREIGN if a later version wrote it,
   * DATA_DAMAGED.
   */
  static async open(path: string): Promise<SnapshotFileReader> {
    const damage: Damage = (what, cause) => damagedFile(path, what, cause);
    let file: FileHandle;
    try {
      file = await open(path, 'r');
    } catch (error) {
      throw unusable(path, 'read', error);
    }
    try {
      const { size } = await file.stat();
      const start = await readAt(file, 0, headerStartBytes, size, damage);
      if (!start.subarray(0, magic.length).equals(magic))
        throw damage('it does not begin as one of futurestore');
      const textBytes = start.readUInt32BE(magic.length + 4);
      if (textBytes > headerTextBytesMax) throw damage(`its header has a length of ${textBytes} bytes`);
      const header = await readAt(file, 0, headerStartBytes + textBytes + checksumBytes, size, damage);
      if (crc32(header.subarray(0, -checksumBytes)) !== header.readUInt32BE(header.length - checksumBytes))
        throw damage('its header has a wrong checksum');
      const version = header.readUInt32BE(magic.length);
      if (version !== fileVersion) {
        throw new FuturestoreError(
          'DATA_FOREIGN',
          `The snapshot file ${path} has format version ${version}; this program reads ${fileVersion}. ` +
            'Use the version of futurestore that wrote it.',
        );
      }
      const info = infoFromText(header.subarray(headerStartBytes, -checksumBytes).toString(), damage);
      return new SnapshotFileReader(file, damage, header, info, size);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** After the last part. */
  get summary(): SnapshotFileSummary {
    assert(this.#checker.complete, 'a snapshot file was summed up before it was read to its end');
    return { ...this.info, records: this.#checker.recordsTotal, bytes: this.#size };
  }

  /** undefined after the last part. Throws DATA_DAMAGED, naming what and where. */
  async next(): Promise<SnapshotPart | undefined> {
    if (this.#checker.complete) return undefined;
    const at = this.#at;
    const header = await this.#read(partHeaderBytes);
    if (crc32(header.subarray(0, -checksumBytes)) !== header.readUInt32BE(partHeaderBytes - checksumBytes))
      throw this.#damage(`the head of a part at byte ${at} has a wrong checksum`);
    const kind = header[0];
    if (kind !== kinds.part && kind !== kinds.lastPart)
      throw this.#damage(`at byte ${at} is something of kind ${kind} where a part was expected`);
    const records = await this.#read(header.readUInt32BE(5));
    const last = kind === kinds.lastPart;
    const recordsTotal = last ? await this.#readTrailer() : 0;
    const part = {
      number: header.readUInt32BE(1),
      records,
      checksum: header.readUInt32BE(9),
      last,
      recordsTotal,
    };
    this.#checker.check(part);
    return part;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Gives how many records there are in all. */
  async #readTrailer(): Promise<number> {
    const at = this.#at;
    const start = await this.#read(trailerBytes - digestBytes);
    const expected = this.#digest.copy().digest();
    const digest = await this.#read(digestBytes);
    if (start[0] !== kinds.trailer) throw this.#damage(`its end at byte ${at} is of kind ${start[0]}`);
    if (!digest.equals(expected)) throw this.#damage('the checksum over all of it is wrong');
    if (this.#at !== this.#size)
      throw this.#damage(`${this.#size - this.#at} bytes follow its end at byte ${this.#at}`);
    return readSafeInteger(start, 1);
  }

  async #read(length: number): Promise<Buffer> {
    const bytes = await readAt(this.#file, this.#at, length, this.#size, this.#damage);
    this.#digest.update(bytes);
    this.#at += length;
    return bytes;
  }
}

const infoFromText = (text: string, damage: Damage): SnapshotFileInfo => {
  try {
    return checkedInfo(JSON.parse(text));
  } catch (error) {
    throw damage('its header makes no sense', error);
  }
};

const readAt = async (
  file: FileHandle,
  from: number,
  length: number,
  size: number,
  damage: Damage,
): Promise<Buffer> => {
  if (from + length > size)
    throw damage(`it has ${size} bytes, ${length} were expected from byte ${from} on: its end is missing`);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const { bytesRead } = await file.read(bytes, at, length - at, from + at);
    if (bytesRead === 0) throw damage(`it ends at byte ${from + at}, within what was expected there`);
    at += bytesRead;
  }
  return bytes;
};

/**
 * Checks every byte of a snapshot file.
 *
 * Throws DATA_DAMAGED, naming what and where; CONFIGURATION_INVALID if there is no such file to read, DATA_FOREIGN if a
 * later version wrote it.
 */
export const verifySnapshotFile = async (path: string): Promise<SnapshotFileSummary> => {
  const reader = await SnapshotFileReader.open(path);
  try {
    while ((await reader.next()) !== undefined);
    return reader.summary;
  } finally {
    await reader.close();
  }
};
