/** When the log is shortened: by its bytes, well before memory or restart time suffer. */
import type { Entry, LogIndex, Term } from '../raft/index.ts';

/** What an entry costs in memory beside its payload. */
const entryOverheadBytes = 128;
/** A place to cut is remembered for every so many bytes. */
const stepBytes = 256 * 1024;
/** Cut off at once: some ten thousand small entries, a few milliseconds. */
const cutBytes = 4 * 1024 * 1024;

/**
 * Remembers places in the applied log, so that a cut can leave the wanted number of bytes. The log is cut when it has
 * grown to twice what is to be kept: followers that were away for a moment find what they need in it.
 */
export class CompactionPolicy {
  readonly #retainBytes: number;
  #places: { readonly index: LogIndex; readonly term: Term; readonly bytes: number }[] = [];
  /** Applied since the server started. */
  #bytes = 0;
  /** Of these, cut away. */
  #cutBytes = 0;

  constructor(retainBytes: number) {
    this.#retainBytes = retainBytes;
  }

  applied(entry: Entry): void {
    this.#bytes += entry.payload.length + entryOverheadBytes;
    const last = this.#places.at(-1);
    if (last === undefined || this.#bytes - last.bytes >= Math.min(stepBytes, this.#retainBytes / 4)) {
      this.#places.push({ index: entry.index, term: entry.term, bytes: this.#bytes });
    }
  }

  /** Where to cut now; undefined: not now. The caller does cut there. */
  cut(): { readonly index: LogIndex; readonly term: Term } | undefined {
    if (this.#bytes - this.#cutBytes <= this.#retainBytes + Math.min(cutBytes, this.#retainBytes))
      return undefined;
    const keepFrom = this.#bytes - this.#retainBytes;
    let count = 0;
    while (count < this.#places.length && (this.#places[count]?.bytes ?? Infinity) <= keepFrom) count += 1;
    const place = this.#places[count - 1];
    if (place === undefined) return undefined;
    this.#places = this.#places.slice(count);
    this.#cutBytes = place.bytes;
    return place;
  }

  /** The log was replaced by a snapshot. */
  restarted(): void {
    this.#places = [];
    this.#cutBytes = this.#bytes;
  }
}
