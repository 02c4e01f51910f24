/** Below this size, values share slabs: a fresh ArrayBuffer costs ten times the copy of a small value. */
const sharedBytesMax = 512;
/** A value that outlives its neighbours keeps no more than this alive. */
const slabBytes = 4096;

let slab = new ArrayBuffer(slabBytes);
let used = 0;

/** A copy that holds nothing of the source, which may be a view of a large receive buffer. */
export function copyBytes(source: Uint8Array): Uint8Array {
  const { length } = source;
  if (length > sharedBytesMax) {
    const copy = new Uint8Array(length);
    copy.set(source);
    return copy;
  }
  if (used + length > slabBytes) {
    slab = new ArrayBuffer(slabBytes);
    used = 0;
  }
  const copy = new Uint8Array(slab, used, length);
  used += length;
  copy.set(source);
  return copy;
}
