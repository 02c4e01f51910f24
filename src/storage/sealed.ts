/** Records with a checksum in front: a CRC-32 over the record's name and its bytes, so neither can be exchanged. */
import { crc32 } from 'node:zlib';

export const sealedHeaderBytes = 4;

/** Fills in the first four bytes of `record`; the rest is its content. */
export const seal = (name: string, record: Buffer): void => {
  record.writeUInt32BE(crc32(record.subarray(sealedHeaderBytes), crc32(name)), 0);
};

/** The content (a view of the same bytes), or undefined if the checksum does not fit. */
export const unseal = (name: string, record: Buffer): Buffer | undefined => {
  if (record.length < sealedHeaderBytes) return undefined;
  const content = record.subarray(sealedHeaderBytes);
  return record.readUInt32BE(0) === crc32(content, crc32(name)) ? content : undefined;
};

export const sealed = (name: string, content: Uint8Array): Buffer => {
  const record = Buffer.allocUnsafe(sealedHeaderBytes + content.length);
  record.set(content, sealedHeaderBytes);
  // As `seal`, without a view of the record.
  record.writeUInt32BE(crc32(content, crc32(name)), 0);
  return record;
};

/** A safe integer in 8 bytes, big endian. */
export const writeSafeInteger = (into: Buffer, value: number, offset: number): void => {
  into.writeUInt32BE(Math.floor(value / 0x1_0000_0000), offset);
  into.writeUInt32BE(value >>> 0, offset + 4);
};

/** May be larger than a safe integer if the bytes were not written by `writeSafeInteger`. */
export const readSafeInteger = (from: Buffer, offset: number): number =>
  from.readUInt32BE(offset) * 0x1_0000_0000 + from.readUInt32BE(offset + 4);
