import type { Entry, HardState, LogIndex, Persist, SnapshotPoint, Term } from '../../../src/raft/index.ts';
import { asLogIndex, asTerm } from '../../../src/raft/index.ts';

/** The machine's state after `index`, as it is found at a restart. */
export interface SavedState {
  readonly index: LogIndex;
  readonly bytes: Uint8Array;
}

interface Image {
  hardState: HardState;
  base: SnapshotPoint;
  entries: Entry[];
  state: SavedState;
}

/** A copy of one log as a disk has it. */
export class DiskImage {
  readonly #image: Image;
  readonly #staged: Map<LogIndex, Uint8Array>;

  constructor(image: Image, staged: Map<LogIndex, Uint8Array>) {
    this.#image = { ...image, entries: [...image.entries] };
    this.#staged = staged;
  }

  get hardState(): HardState {
    return this.#image.hardState;
  }
  get base(): SnapshotPoint {
    return this.#image.base;
  }
  get entries(): readonly Entry[] {
    return this.#image.entries;
  }
  get state(): SavedState {
    return this.#image.state;
  }
  get last(): LogIndex {
    return asLogIndex(this.#image.base.index + this.#image.entries.length);
  }

  termAt(index: number): Term | undefined {
    if (index === this.#image.base.index) return this.#image.base.term;
    return this.#image.entries[index - this.#image.base.index - 1]?.term;
  }

  /** One atomic write. */
  write(persist: Persist): void {
    const image = this.#image;
    if (persist.hardState !== undefined) image.hardState = persist.hardState;
    if (persist.snapshot !== undefined) {
      const bytes = this.#staged.get(persist.snapshot.index);
      if (bytes === undefined) throw new Error(`no snapshot at ${persist.snapshot.index} was staged`);
      image.base = persist.snapshot;
      image.entries = [];
      image.state = { index: persist.snapshot.index, bytes };
    }
    if (persist.truncateFrom !== undefined) this.truncate(persist.truncateFrom);
    for (const entry of persist.entries) {
      if (entry.index !== this.last + 1)
        throw new Error(`a write has entry ${entry.index} after ${this.last}`);
      image.entries.push(entry);
    }
  }

  truncate(from: number): void {
    this.#image.entries.splice(Math.max(from - this.#image.base.index - 1, 0));
  }

  /** A snapshot that is under way may have overtaken it. */
  compact(base: SnapshotPoint, state: SavedState): void {
    if (base.index <= this.#image.base.index) return;
    this.#image.entries.splice(0, base.index - this.#image.base.index);
    this.#image.base = base;
    this.#image.state = state;
  }

  copy(): DiskImage {
    return new DiskImage(this.#image, this.#staged);
  }
}

/** A disk whose writes are under way until they are completed, in order; a crash loses those that are not. */
export class ScriptedDisk {
  /** What survives a crash. */
  durable: DiskImage;
  /** With the writes under way. */
  handed: DiskImage;
  outstanding: Persist[] = [];
  /** false: writes are completed by `complete` only. */
  automatic = true;
  readonly #staged = new Map<LogIndex, Uint8Array>();

  constructor(base: SnapshotPoint, emptyState: Uint8Array) {
    const hardState: HardState = { term: asTerm(0), vote: undefined, commit: asLogIndex(0) };
    const image = { hardState, base, entries: [], state: { index: base.index, bytes: emptyState } };
    this.durable = new DiskImage(image, this.#staged);
    this.handed = this.durable.copy();
  }

  stage(index: LogIndex, bytes: Uint8Array): void {
    this.#staged.set(index, bytes);
  }

  write(persist: Persist): void {
    this.outstanding.push(persist);
    this.handed.write(persist);
  }

  complete(): Persist | undefined {
    const persist = this.outstanding.shift();
    if (persist !== undefined) this.durable.write(persist);
    return persist;
  }

  /** The first `survivors` writes under way have reached the disk, though nobody was told. */
  crash(survivors: number): void {
    for (let i = 0; i < survivors; i += 1) this.complete();
    this.outstanding = [];
    this.handed = this.durable.copy();
  }

  compact(base: SnapshotPoint, state: SavedState): void {
    this.durable.compact(base, state);
    this.handed.compact(base, state);
  }
}
