/**
 * One message between threads: plain data as JSON, and all of its byte arrays in one buffer, which is moved, not copied.
 * A structured clone of the same objects costs three times as much, and a view of a shared buffer would take all of that
 * buffer along.
 */
import { copyBytes } from '../../protocol/index.ts';

export interface Packed {
  /** A JSON array of items; an item is an array that begins with its tag. */
  readonly text: string;
  /** Back to back, in the order of the items; the items have the lengths. */
  readonly bytes: ArrayBuffer;
}

export type Item = readonly unknown[];

export class Packer {
  #items: Item[] = [];
  #chunks: Uint8Array[] = [];
  #size = 0;

  get empty(): boolean {
    return this.#items.length === 0;
  }

  add(item: Item): void {
    this.#items.push(item);
  }

  /** Gives what stands for the bytes in their item. To be called in the order in which they are unpacked. */
  bytes(chunk: Uint8Array): number {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    return chunk.length;
  }

  take(): Packed {
    const bytes = new ArrayBuffer(this.#size);
    const all = new Uint8Array(bytes);
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    const text = JSON.stringify(this.#items);
    this.#items = [];
    this.#chunks = [];
    this.#size = 0;
    return { text, bytes };
  }
}

export class Unpacker {
  readonly items: readonly Item[];
  readonly #bytes: ArrayBuffer;
  #at = 0;

  constructor({ text, bytes }: Packed) {
    this.items = JSON.parse(text) as readonly Item[];
    this.#bytes = bytes;
  }

  /** Copies: a small value that is kept must not keep the whole message. */
  bytes(length: number): Uint8Array {
    const from = this.#at;
    this.#at += length;
    return copyBytes(new Uint8Array(this.#bytes, from, length));
  }
}
