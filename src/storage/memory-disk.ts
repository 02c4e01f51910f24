import assert from 'node:assert/strict';
import { FuturestoreError } from '../protocol/index.ts';
import type { Cursor, Engine, EngineBatch, Row, View } from './engine.ts';
import type { KeyRange } from './keyspaces.ts';

type Operations = readonly (readonly [key: string, value: Buffer | undefined])[];
type Rows = Map<string, Buffer>;

interface Pending {
  readonly operations: Operations;
  readonly sync: boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

const apply = (rows: Rows, operations: Operations): void => {
  for (const [key, value] of operations) {
    if (value === undefined) rows.delete(key);
    else rows.set(key, value);
  }
};

const keysIn = (rows: Rows, { from, below }: KeyRange): string[] =>
  [...rows.keys()].filter((key) => key >= from && key < below).sort();

/** As many as LevelDB would give, so that callers see several batches. */
const cursorRows = 100;

const cursorOver = (rows: Rows, range: KeyRange): Cursor => {
  const keys = keysIn(rows, range);
  let at = 0;
  return {
    next() {
      const some: Row[] = [];
      for (; at < keys.length && some.length < cursorRows; at += 1) {
        const key = keys[at] ?? '';
        const value = rows.get(key);
        if (value !== undefined) some.push([key, value]);
      }
      return Promise.resolve(some);
    },
    close: () => Promise.resolve(),
  };
};

/** A storage's promises that are pending when its disk crashes are never answered, as nobody is left to hear them. */
const never = (): Promise<never> => new Promise(() => undefined);

/**
 * A disk in memory, for tests and simulation. It outlives the storage that is opened on it, and has the faults of a
 * real one. Time does not pass in it: a write is answered in the next microtask, or when the test says so.
 */
export class MemoryDisk {
  /** For messages. */
  readonly name: string;
  /** What a reader sees. */
  #current: Rows = new Map();
  /** What survives any crash. */
  readonly #durable: Rows = new Map();
  /** Batches after the last synced one, oldest first. */
  #unsynced: Operations[] = [];
  #syncedMark: number | undefined;
  #inUse = false;
  /** Grows with each crash; what belongs to an earlier one is dead. */
  #life = 0;
  #pending: Pending[] = [];
  #failure: Error | undefined;
  #manual = false;

  constructor(name = 'memory') {
    this.name = name;
  }

  /**
   * In manual mode writes are under way until `completeNext` is called. Turning it off completes those that are.
   */
  set manual(manual: boolean) {
    this.#manual = manual;
    if (!manual) while (this.completeNext());
  }

  get manual(): boolean {
    return this.#manual;
  }

  /** Told of each write that is under way in manual mode, with its size. */
  onPending: ((bytes: number, sync: boolean) => void) | undefined;

  /** Writes under way; in manual mode only. */
  get pendingWrites(): number {
    return this.#pending.length;
  }

  /** Completes the oldest write under way; false if there is none. */
  completeNext(): boolean {
    const write = this.#pending.shift();
    if (write === undefined) return false;
    this.#complete(write);
    return true;
  }

  /** The next write to complete is rejected and not done. */
  failNextWrite(error = new Error('I/O error (simulated)')): void {
    this.#failure = error;
  }

  /**
   * Power failure: whatever is open on this disk is dead, its promises are never answered, and the next open finds all
   * up to the last synced write. With `random` (uniform in [0, 1)) also as many of the batches after it as chance will
   * have, those under way included; without it none of them. Batches survive whole or not at all, and none without those
   * before it: LevelDB writes each as one record of its log and takes a torn one for the log's end, wherever it is torn
   * (test/storage/torn-tails.test.ts); what it finds behind a hole is refused (batch-chain.ts), which is damage.
   */
  crash(random?: () => number): void {
    const batches = [...this.#unsynced, ...this.#pending.map(({ operations }) => operations)];
    const surviving = random === undefined ? 0 : Math.floor(random() * (batches.length + 1));
    for (const operations of batches.slice(0, surviving)) apply(this.#durable, operations);
    this.#unsynced = [];
    this.#pending = [];
    this.#failure = undefined;
    this.#current = new Map(this.#durable);
    this.#life += 1;
    this.#inUse = false;
  }

  /** Another disk with what is surely on this one, as of a file system's snapshot; also while it is in use. */
  copy(name = this.name): MemoryDisk {
    const other = new MemoryDisk(name);
    for (const [key, value] of this.#durable) {
      other.#durable.set(key, value);
      other.#current.set(key, value);
    }
    other.#syncedMark = this.#syncedMark;
    return other;
  }

  /**
   * A disk that lied: what was written since the copy was made is gone, though it was said to be synced. What is kept
   * apart from it, the mark of what was synced, stays. Only while nothing is open on it. Whether there was any.
   */
  forgetSince(copy: MemoryDisk): boolean {
    assert(!this.#inUse, `${this.name} is in use`);
    const { size } = this.#durable;
    const isSame = [...copy.#durable].every(([key, value]) => this.#durable.get(key) === value);
    const forgets = size !== copy.#durable.size || !isSame;
    this.#durable.clear();
    for (const [key, value] of copy.#durable) this.#durable.set(key, value);
    this.#current = new Map(this.#durable);
    return forgets;
  }

  /** Keys on the disk with this prefix, in order (see keyspaces.ts). */
  keys(prefix = ''): readonly string[] {
    return [...this.#current.keys()].filter((key) => key.startsWith(prefix)).sort();
  }

  /**
   * Flips one bit of one record whose key begins with `prefix`; `random` chooses both. Returns the key, or undefined if
   * there is none.
   */
  flipBit(prefix: string, random: () => number): string | undefined {
    const keys = this.keys(prefix);
    const key = keys[Math.floor(random() * keys.length)];
    const value = key === undefined ? undefined : this.#current.get(key);
    if (key === undefined || value === undefined) return undefined;
    const flipped = Buffer.from(value);
    const bit = Math.floor(random() * flipped.length * 8);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    this.#current.set(key, flipped);
    if (this.#durable.has(key)) this.#durable.set(key, flipped);
    return key;
  }

  /** A record vanishes. Returns whether there was one. */
  loseRecord(key: string): boolean {
    this.#durable.delete(key);
    return this.#current.delete(key);
  }

  /** The disk forgets what it said was synced: the next `count` synced writes are answered and not done. */
  loseNextWrites(count: number): void {
    this.#losing = count;
  }
  #losing = 0;

  #complete({ operations, sync, resolve, reject }: Pending): void {
    if (this.#failure !== undefined) {
      const failure = this.#failure;
      this.#failure = undefined;
      reject(failure);
      return;
    }
    if (this.#losing > 0) {
      this.#losing -= 1;
      resolve();
      return;
    }
    apply(this.#current, operations);
    this.#unsynced.push(operations);
    if (sync) {
      for (const earlier of this.#unsynced) apply(this.#durable, earlier);
      this.#unsynced = [];
    }
    resolve();
  }

  #write(life: number, operations: Operations, sync: boolean): Promise<void> {
    if (life !== this.#life) return never();
    return new Promise((resolve, reject) => {
      const write = { operations, sync, resolve, reject };
      if (!this.#manual) return this.#complete(write);
      this.#pending.push(write);
      if (this.onPending === undefined) return;
      let bytes = 0;
      for (const [key, value] of operations) bytes += key.length + (value?.length ?? 0);
      this.onPending(bytes, sync);
    });
  }

  /** For `openMemoryStorage`. */
  open(): Engine {
    if (this.#inUse) {
      throw new FuturestoreError('DATA_IN_USE', `The data directory ${this.name} is in use. Close it first.`);
    }
    this.#inUse = true;
    const life = this.#life;
    const alive = (): boolean => life === this.#life;
    const { name: where } = this;
    const markAtOpen = this.#syncedMark;
    return {
      where,
      syncedMark: markAtOpen,
      batch: (): EngineBatch => {
        const operations: [string, Buffer | undefined][] = [];
        return {
          put: (key, value) => void operations.push([key, value]),
          remove: (key) => void operations.push([key, undefined]),
          write: (sync) => this.#write(life, operations, sync),
        };
      },
      cursor: (range) => cursorOver(this.#current, range),
      lastKey: (range) => Promise.resolve(keysIn(this.#current, range).at(-1)),
      view: (): View => {
        const rows = new Map(this.#current);
        return { cursor: (range) => cursorOver(rows, range), close: () => Promise.resolve() };
      },
      clear: (range) => {
        if (!alive()) return never();
        const operations = keysIn(this.#current, range).map((key) => [key, undefined] as const);
        apply(this.#current, operations);
        if (operations.length > 0) this.#unsynced.push(operations);
        return Promise.resolve();
      },
      markSynced: (batchNumber) => {
        if (!alive()) return;
        assert(
          batchNumber > (this.#syncedMark ?? 0),
          `synced batch ${batchNumber} after ${this.#syncedMark}`,
        );
        this.#syncedMark = batchNumber;
      },
      close: () => {
        if (alive()) this.#inUse = false;
        return Promise.resolve();
      },
    };
  }
}
