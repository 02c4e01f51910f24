/**
 * The answers that a session remembers, in the order of their sequences. They come nearly in that order and are
 * forgotten from the lowest on, so an array does: a Map of a few that come and go grows and shrinks with each of them.
 */
import type { Failure, WriteResult } from '../protocol/index.ts';

export type Answer =
  | { readonly kind: 'written'; readonly result: WriteResult }
  | { readonly kind: 'failed'; readonly failure: Failure };

export interface Remembered {
  readonly sequence: number;
  readonly answer: Answer;
  /** Its part of the session's record, once it was needed in a session with many. */
  encoded: Uint8Array | undefined;
}

export class RememberedAnswers {
  readonly #inOrder: Remembered[] = [];

  get size(): number {
    return this.#inOrder.length;
  }

  /** Ascending by sequence. Not to be kept or changed. */
  get inOrder(): readonly Remembered[] {
    return this.#inOrder;
  }

  get(sequence: number): Remembered | undefined {
    const found = this.#inOrder[this.#placeOf(sequence)];
    return found?.sequence === sequence ? found : undefined;
  }

  /** In place of what is remembered of the same sequence. */
  set(remembered: Remembered): void {
    const { sequence } = remembered;
    const place = this.#placeOf(sequence);
    if (place === this.#inOrder.length) this.#inOrder.push(remembered);
    else this.#inOrder.splice(place, this.#inOrder[place]?.sequence === sequence ? 1 : 0, remembered);
  }

  forgetBelow(sequence: number): void {
    const place = this.#placeOf(sequence);
    if (place === this.#inOrder.length) this.#inOrder.length = 0;
    else if (place > 0) this.#inOrder.splice(0, place);
  }

  /** Of the first that is not below. */
  #placeOf(sequence: number): number {
    const inOrder = this.#inOrder;
    let low = 0;
    let high = inOrder.length;
    // Nearly always it is behind all of them.
    if ((inOrder.at(-1)?.sequence ?? -1) < sequence) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((inOrder[middle]?.sequence ?? 0) < sequence) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
