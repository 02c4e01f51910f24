import type { Change, Future, SharedChange } from '../protocol/index.ts';

/**
 * Encoded changes for all who are sent them at about the same time: thousands of subscriptions that catch up
 * together walk the same futures, so each is encoded once as long as they are near each other.
 *
 * Bounded by bytes, in two generations: when the young one is half of the bound, it becomes the old one, and the
 * old one is dropped. What is read from the old is young again. A weak map would keep an encoding of the whole
 * state alive for as long as the state.
 */
export class Encodings {
  readonly #encode: (change: Change) => Uint8Array;
  readonly #generationBytesMax: number;
  #young = new Map<Future, SharedChange>();
  #old = new Map<Future, SharedChange>();
  #youngBytes = 0;

  constructor(encode: (change: Change) => Uint8Array, bytesMax: number) {
    this.#encode = encode;
    this.#generationBytesMax = bytesMax / 2;
  }

  /** The change with its future as `shown`: the future itself, or what is left of it after its time has passed. */
  of(change: Change, shown: Future | undefined): SharedChange {
    // A deletion is a key and two numbers: making it again costs less than looking it up.
    if (change.kind === 'deleted' || shown === undefined) return this.#make(change);
    const kept = this.#young.get(change.future) ?? this.#revive(change.future);
    if (kept !== undefined && this.#shows(kept, change.revision, shown)) return kept;
    const made = this.#make(shown === change.future ? change : { ...change, future: shown });
    this.#keep(change.future, made);
    return made;
  }

  #make(change: Change): SharedChange {
    return { change, encoded: this.#encode(change) };
  }

  /** Only the passing of its time makes two showings of one future differ, and only that changes its state. */
  #shows(kept: SharedChange, revision: number, shown: Future): boolean {
    return (
      kept.change.kind === 'future' &&
      kept.change.future.state === shown.state &&
      kept.change.revision === revision
    );
  }

  #revive(future: Future): SharedChange | undefined {
    const kept = this.#old.get(future);
    if (kept !== undefined) this.#keep(future, kept);
    return kept;
  }

  #keep(future: Future, shared: SharedChange): void {
    // 128: a map's slot and the objects around the bytes, so that tiny encodings count too.
    const bytes = shared.encoded.length + 128;
    if (this.#youngBytes + bytes > this.#generationBytesMax) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#youngBytes = 0;
    }
    this.#young.set(future, shared);
    this.#youngBytes += bytes;
  }
}
