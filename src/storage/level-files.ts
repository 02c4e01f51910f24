/**
 * Checks LevelDB's files before LevelDB opens them. It never looks at the checksums of its tables unless asked to,
 * which its binding for Node cannot; a flipped bit in a table can change a sequence number or turn a value into a
 * removal, so that a record is gone without a trace. And its compactions would give damaged blocks new checksums.
 *
 * Formats: https://github.com/google/leveldb/tree/main/doc, log_format.md and table_format.md; db/version_edit.cc.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { maskedCrc32c } from './crc32c.ts';
import { damaged } from './damage.ts';

const logBlockBytes = 32 * 1024;
const logHeaderBytes = 7;
const logRecordTypes = { full: 1, first: 2, middle: 3, last: 4 } as const;

/**
 * The records of a file in LevelDB's log format. Like LevelDB's reader it takes a file that ends within a record for
 * one whose writer died, and drops that record.
 */
const readLogRecords = (file: Buffer, refuse: (what: string) => Error): Buffer[] => {
  const records: Buffer[] = [];
  let fragments: Buffer[] | undefined;
  for (let at = 0; at + logHeaderBytes <= file.length;) {
    const blockEnd = Math.ceil((at + 1) / logBlockBytes) * logBlockBytes;
    if (at + logHeaderBytes > blockEnd) {
      at = blockEnd;
      continue;
    }
    const end = at + logHeaderBytes + file.readUInt16LE(at + 4);
    if (end > blockEnd && blockEnd <= file.length)
      throw refuse(`has a record of a wrong length at byte ${at}`);
    if (end > file.length) break;
    if (file.readUInt32LE(at) !== maskedCrc32c(file, at + 6, end)) {
      throw refuse(`has a record with a wrong checksum at byte ${at}`);
    }
    const type = file[at + 6];
    const begins = type === logRecordTypes.full || type === logRecordTypes.first;
    if (begins === (fragments !== undefined)) throw refuse(`has a misplaced record at byte ${at}`);
    fragments ??= [];
    fragments.push(file.subarray(at + logHeaderBytes, end));
    if (type === logRecordTypes.full || type === logRecordTypes.last) {
      records.push(Buffer.concat(fragments));
      fragments = undefined;
    }
    at = end;
  }
  return records;
};

/** Reads LevelDB's varints and length-prefixed strings; throws a RangeError at the end of the bytes. */
class VarintReader {
  readonly #bytes: Buffer;
  #at: number;
  readonly #end: number;

  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#at = at;
    this.#end = end;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  varint(): number {
    let value = 0;
    for (let factor = 1; factor <= 2 ** 63; factor *= 128) {
      if (this.#at >= this.#end) throw new RangeError('a number is cut off');
      const byte = this.#bytes[this.#at] ?? 0;
      this.#at += 1;
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    throw new RangeError('a number has more than ten bytes');
  }

  skip(length: number): void {
    if (this.#at + length > this.#end) throw new RangeError('a string is cut off');
    this.#at += length;
  }

  skipString(): void {
    this.skip(this.varint());
  }
}

interface LiveTable {
  readonly number: number;
  readonly bytes: number;
}

/** Applies one version edit to the set of live tables. */
const applyEdit = (record: Buffer, tables: Map<number, LiveTable>): void => {
  const edit = new VarintReader(record);
  while (!edit.done) {
    const tag = edit.varint();
    switch (tag) {
      case 1: // the comparator's name
        edit.skipString();
        break;
      case 2: // the log's number
      case 3: // the next file's number
      case 4: // the last sequence number
      case 9: // the previous log's number
        edit.varint();
        break;
      case 5: // where a level's next compaction begins
        edit.varint();
        edit.skipString();
        break;
      case 6: {
        edit.varint();
        tables.delete(edit.varint());
        break;
      }
      case 7: {
        edit.varint();
        const number = edit.varint();
        const bytes = edit.varint();
        edit.skipString();
        edit.skipString();
        tables.set(number, { number, bytes });
        break;
      }
      default:
        throw new RangeError(`unknown tag ${tag}`);
    }
  }
};

const footerBytes = 48;
const tableMagic = Buffer.from('57fb808b247547db', 'hex');
/** A compression type and a checksum. */
const blockTrailerBytes = 5;

interface BlockHandle {
  readonly offset: number;
  readonly size: number;
}

const readHandle = (reader: VarintReader): BlockHandle => ({
  offset: reader.varint(),
  size: reader.varint(),
});

/** The handles that an index or metaindex block has as its values. */
const handlesIn = (file: Buffer, { offset, size }: BlockHandle): BlockHandle[] => {
  const restarts = file.readUInt32LE(offset + size - 4);
  const entries = new VarintReader(file, offset, offset + size - 4 - 4 * restarts);
  const handles: BlockHandle[] = [];
  while (!entries.done) {
    entries.varint(); // bytes shared with the key before
    const keyBytes = entries.varint();
    entries.varint(); // bytes of the value, which is the handle
    entries.skip(keyBytes);
    handles.push(readHandle(entries));
  }
  return handles;
};

const checkTable = (file: Buffer, refuse: (what: string) => Error): void => {
  if (file.length < footerBytes || !file.subarray(-8).equals(tableMagic)) throw refuse('has no valid end');
  const dataEnd = file.length - footerBytes;
  const footer = new VarintReader(file, dataEnd);
  let checkedBytes = 0;
  const checkBlock = (handle: BlockHandle): void => {
    const { offset, size } = handle;
    const end = offset + size;
    if (end + blockTrailerBytes > dataEnd) throw refuse(`has a block beyond its end at byte ${offset}`);
    // The checksum covers the block and the byte that says how it is compressed.
    if (file.readUInt32LE(end + 1) !== maskedCrc32c(file, offset, end + 1)) {
      throw refuse(`has a block with a wrong checksum at byte ${offset}`);
    }
    checkedBytes += size + blockTrailerBytes;
  };
  for (const root of [readHandle(footer), readHandle(footer)]) {
    checkBlock(root);
    for (const handle of handlesIn(file, root)) checkBlock(handle);
  }
  if (checkedBytes !== dataEnd)
    throw refuse(`has ${dataEnd} bytes of blocks, ${checkedBytes} of them in use`);
};

const checkFile = async (
  directory: string,
  name: string,
  check: (file: Buffer, refuse: (what: string) => Error) => void,
): Promise<void> => {
  const path = join(directory, name);
  const refuse = (what: string, cause?: unknown): Error =>
    damaged(directory, `the file ${name} ${what}`, cause);
  let file: Buffer;
  try {
    file = await readFile(path);
  } catch (error) {
    throw refuse('cannot be read', error);
  }
  try {
    check(file, refuse);
  } catch (error) {
    // A RangeError is a number that leads out of the file.
    throw error instanceof RangeError ? refuse(`makes no sense (${error.message})`, error) : error;
  }
};

const tableName = (number: number, names: ReadonlySet<string>): string => {
  const digits = number.toString().padStart(6, '0');
  // Very old versions called them .sst; LevelDB still reads those.
  return names.has(`${digits}.sst`) ? `${digits}.sst` : `${digits}.ldb`;
};

/**
 * Throws DATA_DAMAGED if a file that LevelDB's manifest names is not as it was written. Its log is not looked at here:
 * what it loses of that, the batch chain shows. `created`: something was stored here before.
 */
export const checkLevelFiles = async (directory: string, created: boolean): Promise<void> => {
  const names = new Set(await readdir(directory));
  if (!names.has('CURRENT')) {
    const tables = [...names].filter((name) => /\.(ldb|sst)$/.test(name));
    // Without it LevelDB would begin a new, empty database.
    if (created || tables.length > 0) throw damaged(directory, "LevelDB's file CURRENT is missing");
    return;
  }
  let manifest = '';
  await checkFile(directory, 'CURRENT', (file, refuse) => {
    const match = /^(MANIFEST-\d+)\n$/.exec(file.toString('latin1'));
    if (match?.[1] === undefined) throw refuse('names no manifest');
    manifest = match[1];
  });
  const tables = new Map<number, LiveTable>();
  await checkFile(directory, manifest, (file, refuse) => {
    for (const record of readLogRecords(file, refuse)) applyEdit(record, tables);
  });
  const unchecked = tables.values();
  const checkTables = async (): Promise<void> => {
    for (const { number, bytes } of unchecked) {
      await checkFile(directory, tableName(number, names), (file, refuse) => {
        if (file.length !== bytes) throw refuse(`has ${file.length} bytes instead of ${bytes}`);
        checkTable(file, refuse);
      });
    }
  };
  // One file is read while another one is looked at.
  await Promise.all([checkTables(), checkTables()]);
};
