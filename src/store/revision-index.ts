/**
 * Items in the order of their latest revisions, each exactly once: an item that changes leaves a hole behind and goes
 * to the end. Holes never add up to more than a small multiple of the items, because sparse chunks are merged, so a
 * walk from any revision is a binary search and then a walk over arrays that finds every item.
 */
import { assert } from './assert.ts';

const chunkMax = 512;
/** A chunk with fewer items than this is merged with a neighbour, if the two leave room. */
const sparseBelow = chunkMax / 4;
const mergedMax = (chunkMax / 4) * 3;

/** What an item carries, so that it is taken out without a search. Only the index touches `chunk` and `offset`. */
export interface Placed {
  /** Must not change while the item is in the index. */
  revision: number;
  chunk: RevisionChunk | undefined;
  offset: number;
}

export interface RevisionChunk {
  /** undefined: a hole. */
  readonly items: (Placed | undefined)[];
  live: number;
  /** The highest revision that was ever put here. Never decreases from one chunk to the next. */
  lastRevision: number;
}

export class RevisionIndex<T extends Placed> {
  readonly #chunks: RevisionChunk[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The one with the lowest revision. */
  get first(): T | undefined {
    let first: T | undefined;
    this.walk(0, (item) => {
      first = item;
      return false;
    });
    return first;
  }

  /** `item.revision` must be at least that of every other item. */
  append(item: T): void {
    assert(item.chunk === undefined, 'an item is put into the revision index twice');
    let last = this.#chunks.at(-1);
    if (last === undefined || last.items.length >= chunkMax) {
      const full = last;
      last = { items: [], live: 0, lastRevision: full?.lastRevision ?? 0 };
      this.#chunks.push(last);
      if (full !== undefined && full.live < sparseBelow) this.#mergeSparse(full);
    }
    assert(item.revision >= last.lastRevision, 'a revision goes backwards');
    item.chunk = last;
    item.offset = last.items.length;
    last.items.push(item);
    last.live++;
    last.lastRevision = item.revision;
    this.#size++;
  }

  remove(item: T): void {
    const chunk = item.chunk;
    assert(
      chunk !== undefined && chunk.items[item.offset] === item,
      'an item is not where the revision index put it',
    );
    chunk.items[item.offset] = undefined;
    chunk.live--;
    item.chunk = undefined;
    this.#size--;
    // The last chunk is still being filled.
    if (chunk.live < sparseBelow && chunk !== this.#chunks.at(-1)) this.#mergeSparse(chunk);
  }

  /** Visits all items with a revision above `after`, in order, until `visit` says false. */
  walk(after: number, visit: (item: T) => boolean): void {
    for (let place = this.#firstWith(after + 1); place < this.#chunks.length; place++) {
      const items = this.#chunks[place]?.items ?? [];
      for (const item of items) {
        if (item === undefined || item.revision <= after) continue;
        // Only `append` puts items here, and it takes nothing but T.
        if (!visit(item as T)) return;
      }
    }
  }

  /** The first chunk that may hold a revision of at least `revision`. */
  #firstWith(revision: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#chunks[middle]?.lastRevision ?? 0) < revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #mergeSparse(chunk: RevisionChunk): void {
    let place = this.#firstWith(chunk.lastRevision);
    // Chunks may share a last revision: one command can change thousands of items.
    while (this.#chunks[place] !== chunk) {
      assert(place < this.#chunks.length, 'a chunk of the revision index is lost');
      place++;
    }
    if (chunk.live === 0) {
      this.#chunks.splice(place, 1);
      return;
    }
    const last = this.#chunks.length - 1;
    const previous = this.#chunks[place - 1];
    const next = this.#chunks[place + 1];
    if (previous !== undefined && previous.live + chunk.live <= mergedMax) {
      this.#merge(previous, chunk);
      this.#chunks.splice(place, 1);
    } else if (next !== undefined && place + 1 !== last && next.live + chunk.live <= mergedMax) {
      this.#merge(chunk, next);
      this.#chunks.splice(place + 1, 1);
    }
  }

  /** Into the earlier one, without holes. */
  #merge(into: RevisionChunk, from: RevisionChunk): void {
    let length = 0;
    for (const chunk of [into, from]) {
      const items = chunk === into ? into.items.splice(0) : from.items;
      for (const item of items) {
        if (item === undefined) continue;
        item.chunk = into;
        item.offset = length++;
        into.items.push(item);
      }
    }
    into.live = length;
    into.lastRevision = from.lastRevision;
  }
}
