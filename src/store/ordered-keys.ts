/**
 * An ordered set of ASCII strings, kept as sorted arrays of a few hundred: adding and deleting move at most one
 * array's worth of pointers, and a scan is a walk over arrays.
 */
import { assert } from './assert.ts';

const chunkMax = 512;
/** A chunk below it is merged with a neighbour, if the two leave room to grow. */
const sparseBelow = chunkMax / 4;
const mergedMax = (chunkMax / 4) * 3;

/** The first position whose string is not below `key`. */
const lowerBound = (keys: readonly string[], key: string): number => {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] ?? '') < key) low = middle + 1;
    else high = middle;
  }
  return low;
};

export class OrderedKeys {
  /** Not empty, sorted within, and each wholly below the next. */
  readonly #chunks: string[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The least. */
  get first(): string | undefined {
    return this.#chunks[0]?.[0];
  }

  /** False: it was there already. */
  add(key: string): boolean {
    const lastChunk = this.#chunks.at(-1);
    // As keys come from a disk. A new chunk is begun behind the very last key, so that keys added in order fill theirs.
    if (lastChunk !== undefined && (lastChunk.at(-1) ?? '') < key) {
      if (lastChunk.length < chunkMax) lastChunk.push(key);
      else this.#chunks.push([key]);
      this.#size++;
      return true;
    }
    const place = Math.max(0, this.#chunkOf(key));
    const chunk = this.#chunks[place];
    if (chunk === undefined) {
      this.#chunks.push([key]);
      this.#size = 1;
      return true;
    }
    const at = lowerBound(chunk, key);
    if (chunk[at] === key) return false;
    this.#size++;
    if (chunk.length < chunkMax) {
      chunk.splice(at, 0, key);
      return true;
    }
    const upper = chunk.splice(chunkMax / 2);
    this.#chunks.splice(place + 1, 0, upper);
    if (at <= chunkMax / 2) chunk.splice(at, 0, key);
    else upper.splice(at - chunkMax / 2, 0, key);
    return true;
  }

  /** False: it was not there. */
  delete(key: string): boolean {
    const place = this.#chunkOf(key);
    const chunk = this.#chunks[place];
    if (chunk === undefined) return false;
    const at = lowerBound(chunk, key);
    if (chunk[at] !== key) return false;
    chunk.splice(at, 1);
    this.#size--;
    if (chunk.length < sparseBelow) this.#mergeSparse(place, chunk);
    return true;
  }

  has(key: string): boolean {
    const chunk = this.#chunks[this.#chunkOf(key)];
    return chunk !== undefined && chunk[lowerBound(chunk, key)] === key;
  }

  /**
   * Visits keys in order from the first one not below `from`, until `visit` says undefined. It gives the key back for
   * the next one, or where to go on: at the first key not below what it gives, which is above the key.
   */
  scan(from: string, visit: (key: string) => string | undefined): void {
    let place = Math.max(0, this.#chunkOf(from));
    let chunk = this.#chunks[place];
    let at = chunk === undefined ? 0 : lowerBound(chunk, from);
    while (chunk !== undefined) {
      while (at < chunk.length) {
        const key = chunk[at];
        assert(key !== undefined, 'a chunk of ordered keys has a hole');
        const next = visit(key);
        if (next === undefined) return;
        at++;
        if (next === key || (chunk[at] ?? '') >= next) continue;
        // Mostly it is not far.
        if ((chunk.at(-1) ?? '') < next) {
          place = Math.max(place, this.#chunkOf(next));
          chunk = this.#chunks[place] ?? [];
        }
        at = lowerBound(chunk, next);
      }
      at = 0;
      chunk = this.#chunks[++place];
    }
  }

  /** The chunk that holds `key` or would take it; -1: it is below all of them. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#chunks[middle]?.[0] ?? '') <= key) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #mergeSparse(place: number, chunk: string[]): void {
    if (chunk.length === 0) {
      this.#chunks.splice(place, 1);
      return;
    }
    const previous = this.#chunks[place - 1];
    if (previous !== undefined && previous.length + chunk.length <= mergedMax) {
      previous.push(...chunk);
      this.#chunks.splice(place, 1);
      return;
    }
    const next = this.#chunks[place + 1];
    if (next !== undefined && next.length + chunk.length <= mergedMax) {
      chunk.push(...next);
      this.#chunks.splice(place + 1, 1);
    }
  }
}
