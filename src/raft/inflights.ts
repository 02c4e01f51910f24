/**
 * The append messages under way to one peer, oldest first: a window bounded by count and by payload bytes.
 * Invariant: `bytes` is the sum over the window; it is 0 when the window is empty.
 */

import { violated } from './assert.ts';
import type { LogIndex } from './types.ts';

export class Inflights {
  readonly #countMax: number;
  readonly #bytesMax: number;
  /** Rings: the last index of each message, and its payload bytes. */
  readonly #lastIndexes: Float64Array;
  readonly #sizes: Float64Array;
  #start = 0;
  #count = 0;
  #bytes = 0;

  constructor(countMax: number, bytesMax: number) {
    this.#countMax = countMax;
    this.#bytesMax = bytesMax;
    this.#lastIndexes = new Float64Array(countMax);
    this.#sizes = new Float64Array(countMax);
  }

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The last message may exceed the bytes: otherwise one larger than the window could never be sent. */
  get full(): boolean {
    return this.#count === this.#countMax || this.#bytes >= this.#bytesMax;
  }

  add(lastIndex: LogIndex, bytes: number): void {
    if (this.full) {
      violated(
        `an append up to ${lastIndex} was sent into a full window (${this.#count} messages, ${this.#bytes} bytes)`,
      );
    }
    const slot = (this.#start + this.#count) % this.#countMax;
    if (this.#count > 0) {
      const newest = this.#lastIndexes[(this.#start + this.#count - 1) % this.#countMax] ?? 0;
      if (lastIndex <= newest) violated(`an append up to ${lastIndex} was sent after one up to ${newest}`);
    }
    this.#lastIndexes[slot] = lastIndex;
    this.#sizes[slot] = bytes;
    this.#count += 1;
    this.#bytes += bytes;
  }

  /** The peer has everything up to this index. */
  freeTo(index: LogIndex): void {
    while (this.#count > 0 && (this.#lastIndexes[this.#start] ?? 0) <= index) {
      this.#bytes -= this.#sizes[this.#start] ?? 0;
      this.#start = (this.#start + 1) % this.#countMax;
      this.#count -= 1;
    }
    if (this.#count === 0 && this.#bytes !== 0) violated(`an empty window still counts ${this.#bytes} bytes`);
  }

  reset(): void {
    this.#start = 0;
    this.#count = 0;
    this.#bytes = 0;
  }

  /** The sum anew, for the invariant checks. */
  sumBytes(): number {
    let sum = 0;
    for (let i = 0; i < this.#count; i += 1) sum += this.#sizes[(this.#start + i) % this.#countMax] ?? 0;
    return sum;
  }
}
