/**
 * Snapshots as parts: each record is (key length, 2 bytes; record length, 4 bytes; key; record) with the record's own
 * checksum inside, as it is on disk. A flipped bit in the sender's memory, on the way, or in the receiver's is found.
 */
import { crc32 } from 'node:zlib';
import type { LogIndex, SnapshotPoint } from '../raft/index.ts';
import type { Damage } from './damage.ts';
import type { Cursor, Row, View } from './engine.ts';
import { decodeStateRecord } from './records.ts';
import { sealedHeaderBytes, unseal } from './sealed.ts';
import type { SnapshotPart, SnapshotReader } from './types.ts';

/** Large enough to make the cost of a part small, small enough that a slow receiver holds little. */
const partBytes = 256 * 1024;
const headerBytes = 6;

const packRows = (rows: readonly Row[], bytes: number): Buffer => {
  const packed = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (const [key, record] of rows) {
    packed.writeUInt16BE(key.length, at);
    packed.writeUInt32BE(record.length, at + 2);
    packed.write(key, at + headerBytes, 'latin1');
    packed.set(record, at + headerBytes + key.length);
    at += headerBytes + key.length + record.length;
  }
  return packed;
};

interface PackedRecord {
  readonly key: string;
  /** With its checksum. */
  readonly record: Buffer;
  /** What is behind the checksum, which is right. */
  readonly value: Buffer;
}

/** Takes a part's bytes apart; throws DATA_DAMAGED. The records are views of `bytes`. */
const unpackRecords = (bytes: Uint8Array, refuse: (what: string) => never): readonly PackedRecord[] => {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const records: PackedRecord[] = [];
  for (let at = 0; at < buffer.length;) {
    if (at + headerBytes > buffer.length) refuse('ends within a record');
    const keyEnd = at + headerBytes + buffer.readUInt16BE(at);
    const end = keyEnd + buffer.readUInt32BE(at + 2);
    if (end > buffer.length) refuse('ends within a record');
    const key = buffer.toString('latin1', at + headerBytes, keyEnd);
    const record = buffer.subarray(keyEnd, end);
    if (record.length < sealedHeaderBytes) refuse(`has a record without a checksum, "${key}"`);
    const value = unseal(key, record) ?? refuse(`has the state record "${key}" with a wrong checksum`);
    records.push({ key, record, value });
    at = end;
  }
  return records;
};

export class ViewSnapshotReader implements SnapshotReader {
  readonly point: SnapshotPoint;
  readonly #where: string;
  readonly #view: View;
  readonly #cursor: Cursor;
  readonly #prefixLength: number;
  /** Read but not yet sent; empty and `#exhausted`: all has been sent. */
  #rows: readonly Row[] = [];
  #at = 0;
  #exhausted = false;
  #number = 0;
  #recordsTotal = 0;
  #ended = false;

  constructor(where: string, point: SnapshotPoint, view: View, cursor: Cursor, prefixLength: number) {
    this.#where = where;
    this.point = point;
    this.#view = view;
    this.#cursor = cursor;
    this.#prefixLength = prefixLength;
  }

  /** Reads on if nothing is left; false at the end. */
  async #more(): Promise<boolean> {
    if (this.#at < this.#rows.length) return true;
    if (this.#exhausted) return false;
    this.#rows = await this.#cursor.next();
    this.#at = 0;
    this.#exhausted = this.#rows.length === 0;
    return !this.#exhausted;
  }

  async next(): Promise<SnapshotPart | undefined> {
    if (this.#ended) return undefined;
    const rows: Row[] = [];
    let bytes = 0;
    while (bytes < partBytes && (await this.#more())) {
      const row = this.#rows[this.#at];
      if (row === undefined) break;
      const key = row[0].slice(this.#prefixLength);
      decodeStateRecord(this.#where, key, row[1]);
      rows.push([key, row[1]]);
      bytes += headerBytes + key.length + row[1].length;
      this.#at += 1;
      this.#recordsTotal += 1;
    }
    this.#ended = !(await this.#more());
    const records = packRows(rows, bytes);
    const number = this.#number;
    this.#number += 1;
    return {
      number,
      records,
      checksum: crc32(records),
      last: this.#ended,
      recordsTotal: this.#ended ? this.#recordsTotal : 0,
    };
  }

  async close(): Promise<void> {
    this.#ended = true;
    await this.#cursor.close();
    await this.#view.close();
  }
}

/** What must hold from one part of a snapshot to the next. */
export class PartChecker {
  readonly #damage: Damage;
  readonly #snapshotIndex: LogIndex;
  #next = 0;
  #recordsTotal = 0;
  #lastKey = '';
  #complete = false;

  /** `damage`: in what, for messages. */
  constructor(damage: Damage, snapshotIndex: LogIndex) {
    this.#damage = damage;
    this.#snapshotIndex = snapshotIndex;
  }

  get complete(): boolean {
    return this.#complete;
  }

  /** So far. */
  get recordsTotal(): number {
    return this.#recordsTotal;
  }

  /** The part's records, when all of them are what was sent, and the next ones in order. */
  check(part: SnapshotPart): readonly PackedRecord[] {
    const name = `part ${part.number} of the snapshot at index ${this.#snapshotIndex}`;
    const refuse = (what: string): never => {
      throw this.#damage(`${name} ${what}`);
    };
    if (this.#complete) refuse('comes after the last one');
    if (part.number !== this.#next) refuse(`comes where part ${this.#next} was expected`);
    if (crc32(part.records) !== part.checksum) refuse('has a wrong checksum');
    const records = unpackRecords(part.records, refuse);
    for (const { key } of records) {
      if (key <= this.#lastKey) refuse(`has "${key}" after "${this.#lastKey}"`);
      this.#lastKey = key;
    }
    this.#recordsTotal += records.length;
    if (part.last && part.recordsTotal !== this.#recordsTotal) {
      refuse(`ends after ${this.#recordsTotal} records instead of ${part.recordsTotal}`);
    }
    this.#next += 1;
    this.#complete = part.last;
    return records;
  }
}
