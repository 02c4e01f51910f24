/**
 * CRC-32C (Castagnoli), which LevelDB uses in its files; zlib has only the other polynomial. Eight bytes a step
 * ("slicing by 8"): 200 MB of tables are checked in well under a second.
 */
const tables: readonly Uint32Array[] = (() => {
  const made = Array.from({ length: 8 }, () => new Uint32Array(256));
  const [first] = made;
  if (first === undefined) return made;
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    first[byte] = crc >>> 0;
  }
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = first[byte] ?? 0;
    for (let slice = 1; slice < 8; slice += 1) {
      crc = ((first[crc & 255] ?? 0) ^ (crc >>> 8)) >>> 0;
      const table = made[slice];
      if (table !== undefined) table[byte] = crc;
    }
  }
  return made;
})();
const empty = new Uint32Array(256);
const [t0 = empty, t1 = empty, t2 = empty, t3 = empty, t4 = empty, t5 = empty, t6 = empty, t7 = empty] =
  tables;

// The indices below are bytes and the tables have 256 places, so nothing is ever undefined;
// the casts say so at no cost.
const crc32c = (bytes: Uint8Array, start = 0, end = bytes.length): number => {
  let crc = -1;
  let at = start;
  for (; at + 8 <= end; at += 8) {
    crc ^=
      (bytes[at] as number) |
      ((bytes[at + 1] as number) << 8) |
      ((bytes[at + 2] as number) << 16) |
      ((bytes[at + 3] as number) << 24);
    crc =
      (t7[crc & 255] as number) ^
      (t6[(crc >>> 8) & 255] as number) ^
      (t5[(crc >>> 16) & 255] as number) ^
      (t4[crc >>> 24] as number) ^
      (t3[bytes[at + 4] as number] as number) ^
      (t2[bytes[at + 5] as number] as number) ^
      (t1[bytes[at + 6] as number] as number) ^
      (t0[bytes[at + 7] as number] as number);
  }
  for (; at < end; at += 1) crc = (t0[(crc ^ (bytes[at] as number)) & 255] as number) ^ (crc >>> 8);
  return ~crc >>> 0;
};

/** LevelDB stores checksums "masked", because a checksum of data that contains checksums is weak. */
export const maskedCrc32c = (bytes: Uint8Array, start: number, end: number): number => {
  const crc = crc32c(bytes, start, end);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
};
