import assert from 'node:assert/strict';
import { asLogIndex } from '../raft/index.ts';
import type { Configuration, LogIndex, SnapshotPoint } from '../raft/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import { BatchChain } from './batch-chain.ts';
import { damaged } from './damage.ts';
import type { Engine, EngineBatch } from './engine.ts';
import { allRows } from './engine.ts';
import { generationRange, keys, logKey, peerPrefix, stateRange, statePrefix } from './keyspaces.ts';
import { encodeHardState, encodeSnapshotPoint } from './points.ts';
import {
  decoded,
  decodePair,
  decodePosition,
  decodeStateRecord,
  encodeEntry,
  encodeIdentity,
  encodeNumbers,
  encodePair,
  encodeStateRecord,
  formatVersion,
} from './records.ts';
import { readDisk, start } from './recovery.ts';
import type { DiskContents, Position } from './recovery.ts';
import { sealed } from './sealed.ts';
import { ViewSnapshotReader } from './snapshot-parts.ts';
import { GenerationStaging } from './staging.ts';
import type {
  Recovered,
  SnapshotReader,
  SnapshotStaging,
  Storage,
  StorageIdentity,
  WriteBatch,
} from './types.ts';

const firstGeneration = 1;

/** Keys are stored as one byte a character, and their length in snapshots has two bytes. */
const stateKeyLengthMax = 0xffff;
const ascii = /^[\x20-\x7e]+$/;

const createdDisk = (identity: StorageIdentity, diskId: Uint8Array): DiskContents => ({
  identity: { ...identity, formatVersion, diskId },
  runs: 0,
  lineage: [],
  lineageSince: 0,
  peerRecords: new Map(),
  writes: new BatchChain('writes', 0, 0),
  staging: new BatchChain('staging', 0, 0),
  hardState: undefined,
  snapshot: undefined,
  entries: [],
  applied: start,
  generation: firstGeneration,
  generationHighest: firstGeneration,
});

/**
 * The storage over an ordered map. Invariants: base <= applied <= last; exactly the log entries base + 1 … last are in
 * the map; the records of the present generation are the state as of `applied`.
 */
export class KeyValueStorage implements Storage {
  readonly recovered: Recovered;
  readonly #engine: Engine;
  readonly #writes: BatchChain;
  readonly #stagingChain: BatchChain;
  #generation: number;
  #generationHighest: number;
  #base: LogIndex;
  #last: LogIndex;
  #applied: Position;
  #staging: GenerationStaging | undefined;
  #writing: Promise<void> | undefined;
  #written = false;
  #failure: FuturestoreError | undefined;
  #closed = false;
  /** Want to look at the disk while no write is under way. */
  readonly #betweenWrites: (() => void)[] = [];
  /** Removals of what nothing refers to. */
  readonly #clearing = new Set<Promise<void>>();

  private constructor(engine: Engine, disk: DiskContents) {
    this.#engine = engine;
    this.#writes = disk.writes;
    this.#stagingChain = disk.staging;
    this.#generation = disk.generation;
    this.#generationHighest = disk.generationHighest;
    this.#base = disk.snapshot?.index ?? start.index;
    this.#last = asLogIndex(this.#base + disk.entries.length);
    this.#applied = disk.applied;
    this.recovered = {
      hardState: disk.hardState,
      snapshot: disk.snapshot,
      entries: disk.entries,
      applied: disk.applied,
      run: disk.runs + 1,
      lineage: disk.lineage,
      lineageSince: disk.lineageSince === 0 ? disk.runs + 1 : disk.lineageSince,
      peerRecords: disk.peerRecords,
      diskId: disk.identity.diskId,
    };
  }

  /** `makeDiskId`: 16 random bytes, asked for only when nothing was ever written here. */
  static async open(
    engine: Engine,
    identity: StorageIdentity,
    makeDiskId: () => Uint8Array,
  ): Promise<KeyValueStorage> {
    const found = await readDisk(engine, identity);
    const disk = found ?? createdDisk(identity, makeDiskId());
    const storage = new KeyValueStorage(engine, disk);
    // Cut short between its first batch and the mark: the second batch must not be without one.
    if (found !== undefined && engine.syncedMark === undefined) engine.markSynced(disk.writes.number);
    const batch = engine.batch();
    if (found === undefined) {
      batch.put(keys.identity, encodeIdentity(keys.identity, disk.identity));
      batch.put(keys.generation, encodePair(keys.generation, disk.generation, 0));
    }
    batch.put(keys.run, encodePair(keys.run, storage.recovered.run, storage.recovered.lineageSince));
    const number = disk.writes.link(batch, storage.#last);
    await batch.write(true);
    engine.markSynced(number);
    const present = generationRange(disk.generation);
    await engine.clear({ from: stateRange.from, below: present.from });
    await engine.clear({ from: present.below, below: stateRange.below });
    return storage;
  }

  async *readState(): AsyncGenerator<readonly { readonly key: string; readonly value: Uint8Array }[]> {
    const { where } = this.#engine;
    const prefixLength = statePrefix(this.#generation).length;
    const cursor = this.#engine.cursor(generationRange(this.#generation));
    try {
      for (;;) {
        assert(!this.#written, 'the state was read after the first write');
        const rows = await cursor.next();
        if (rows.length === 0) return;
        yield rows.map(([rawKey, record]) => {
          const key = rawKey.slice(prefixLength);
          return { key, value: decodeStateRecord(where, key, record) };
        });
      }
    } finally {
      await cursor.close();
    }
  }

  async write(batch: WriteBatch): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    assert(this.#writing === undefined, 'a write was begun before the one before was answered');
    assert(!this.#closed, 'a write was begun after the storage was closed');
    this.#written = true;
    const engineBatch = this.#engine.batch();
    const oldGeneration = this.#generation;
    try {
      this.#fill(engineBatch, batch);
    } catch (error) {
      // What this object knows of the disk is half changed.
      this.#fail(error);
      throw error;
    }
    const number = this.#writes.link(engineBatch, this.#last);
    this.#writing = this.#finish(
      engineBatch.write(batch.sync),
      batch.sync ? number : undefined,
      oldGeneration,
    );
    return this.#writing;
  }

  async #finish(
    written: Promise<void>,
    syncedNumber: number | undefined,
    oldGeneration: number,
  ): Promise<void> {
    try {
      await written;
      if (syncedNumber !== undefined) this.#engine.markSynced(syncedNumber);
    } catch (error) {
      throw this.#fail(error);
    } finally {
      this.#writing = undefined;
      // Before the writer learns of it and begins the next write.
      for (const look of this.#betweenWrites.splice(0)) look();
    }
    if (oldGeneration !== this.#generation) this.#clearSoon(oldGeneration);
  }

  #fill(into: EngineBatch, batch: WriteBatch): void {
    if (batch.activate !== undefined) this.#activate(into, batch.activate, batch.sync);
    if (batch.truncateFrom !== undefined) this.#truncate(into, batch.truncateFrom);
    let term = 0;
    for (const entry of batch.entries) {
      // Texts are made only when they are needed.
      if (entry.index !== this.#last + 1)
        assert.fail(`entry ${entry.index} was written after entry ${this.#last}`);
      if (entry.term < term)
        assert.fail(`entry ${entry.index} of term ${entry.term} was written after one of term ${term}`);
      const key = logKey(entry.index);
      into.put(key, encodeEntry(key, entry));
      this.#last = entry.index;
      ({ term } = entry);
    }
    if (batch.hardState !== undefined) {
      const { commit } = batch.hardState;
      assert(
        commit <= this.#last,
        `the commit index ${commit} is beyond the last written entry, ${this.#last}`,
      );
      into.put(keys.hardState, sealed(keys.hardState, encodeHardState(batch.hardState)));
    }
    this.#writeState(into, batch);
    if (batch.compactTo !== undefined) this.#compact(into, batch.compactTo);
    if (batch.lineage !== undefined) into.put(keys.lineage, encodeNumbers(keys.lineage, batch.lineage));
    this.#writePeers(into, batch);
    if (batch.outdated !== undefined)
      into.put(keys.outdated, sealed(keys.outdated, Buffer.from(batch.outdated)));
    assert(
      this.#base <= this.#applied.index && this.#applied.index <= this.#last,
      `applied ${this.#applied.index} is outside of the log, ${this.#base} to ${this.#last}`,
    );
  }

  #activate(into: EngineBatch, point: SnapshotPoint, sync: boolean): void {
    const staging = this.#staging;
    assert(sync, 'the activation of a snapshot must be synced');
    assert(
      staging !== undefined &&
        staging.complete &&
        staging.point.index === point.index &&
        staging.point.term === point.term,
      `the snapshot at index ${point.index} was activated, but it is not staged completely`,
    );
    assert(
      point.index > this.#applied.index,
      `the snapshot at index ${point.index} is not ahead of the state at ${this.#applied.index}`,
    );
    staging.activated();
    this.#staging = undefined;
    this.#generation = staging.generation;
    into.put(keys.generation, encodePair(keys.generation, staging.generation, this.#stagingChain.number));
    this.#removeEntries(into, this.#base + 1, this.#last);
    this.#begin(into, point);
    this.#last = point.index;
    this.#setApplied(into, point);
  }

  #truncate(into: EngineBatch, from: LogIndex): void {
    assert(
      from > this.#applied.index,
      `entry ${from} was to be truncated, ${this.#applied.index} is applied`,
    );
    this.#removeEntries(into, from, this.#last);
    if (from <= this.#last) this.#last = asLogIndex(from - 1);
  }

  #writeState(into: EngineBatch, { stateWrites, applied }: WriteBatch): void {
    const prefix = statePrefix(this.#generation);
    for (const { key, value } of stateWrites) {
      if (key.length > stateKeyLengthMax || !ascii.test(key))
        assert.fail(`the state key "${key}" is not printable ASCII`);
      if (value === undefined) into.remove(prefix + key);
      else into.put(prefix + key, encodeStateRecord(key, value));
    }
    if (applied === undefined) return;
    assert(
      applied.index >= this.#applied.index && applied.term >= this.#applied.term,
      `applied went back from ${this.#applied.index} to ${applied.index}`,
    );
    this.#setApplied(into, applied);
  }

  #writePeers(into: EngineBatch, { peerWrites = [] }: WriteBatch): void {
    for (const { key, value } of peerWrites) {
      assert(ascii.test(key), `the key "${key}" of what a peer told is not printable ASCII`);
      const fullKey = peerPrefix + key;
      if (value === undefined) into.remove(fullKey);
      else into.put(fullKey, sealed(fullKey, value));
    }
  }

  #compact(into: EngineBatch, point: SnapshotPoint): void {
    const { index } = point;
    assert(index <= this.#applied.index, `compaction to ${index}, only ${this.#applied.index} is applied`);
    assert(index >= this.#base, `compaction to ${index}, the log already begins after ${this.#base}`);
    this.#removeEntries(into, this.#base + 1, index);
    this.#begin(into, point);
  }

  #removeEntries(into: EngineBatch, from: number, last: number): void {
    for (let index = from; index <= last; index += 1) into.remove(logKey(index));
  }

  #begin(into: EngineBatch, point: SnapshotPoint): void {
    into.put(keys.logBase, sealed(keys.logBase, encodeSnapshotPoint(point)));
    this.#base = point.index;
  }

  #setApplied(into: EngineBatch, { index, term }: Position): void {
    into.put(keys.applied, encodePair(keys.applied, index, term));
    this.#applied = { index, term };
  }

  #fail(cause: unknown): FuturestoreError {
    this.#failure ??= new FuturestoreError(
      'UNAVAILABLE',
      `A write to ${this.#engine.where} failed. What is on disk is no longer known: this process must end. ` +
        'Look at the disk (space, health), then start it again.',
      { cause },
    );
    return this.#failure;
  }

  #clearSoon(generation: number): void {
    const clearing = this.#engine
      .clear(generationRange(generation))
      .catch((error: unknown) => void this.#fail(error))
      .finally(() => this.#clearing.delete(clearing));
    this.#clearing.add(clearing);
  }

  openSnapshot(
    configuration: Configuration | ((applied: LogIndex) => Configuration),
  ): Promise<SnapshotReader> {
    assert(!this.#closed, 'a snapshot was opened after the storage was closed');
    return new Promise((resolve, reject) => {
      const open = (): void => {
        if (this.#failure !== undefined) return reject(this.#failure);
        this.#openView(configuration).then(resolve, reject);
      };
      if (this.#writing === undefined) open();
      else this.#betweenWrites.push(open);
    });
  }

  async #openView(
    configuration: Configuration | ((applied: LogIndex) => Configuration),
  ): Promise<SnapshotReader> {
    const { where } = this.#engine;
    const generation = this.#generation;
    const view = this.#engine.view();
    try {
      const read = async <Value>(
        key: string,
        decode: (content: Buffer) => Value,
      ): Promise<Value | undefined> => {
        const [row] = await allRows(view, { from: key, below: `${key}\0` });
        return row === undefined ? undefined : decoded(where, key, row[1], decode);
      };
      const [found] = (await read(keys.generation, decodePair)) ?? [0, 0];
      if (found !== generation)
        throw damaged(where, `the generation number is ${found} instead of ${generation}`);
      const { index, term } = (await read(keys.applied, decodePosition)) ?? start;
      const point = {
        index,
        term,
        configuration: typeof configuration === 'function' ? configuration(index) : configuration,
      };
      const cursor = view.cursor(generationRange(generation));
      return new ViewSnapshotReader(where, point, view, cursor, statePrefix(generation).length);
    } catch (error) {
      await view.close();
      throw error;
    }
  }

  get failure(): FuturestoreError | undefined {
    return this.#failure;
  }

  async stageSnapshot(point: SnapshotPoint): Promise<SnapshotStaging> {
    if (this.#failure !== undefined) throw this.#failure;
    assert(!this.#closed, 'a snapshot was staged after the storage was closed');
    const older = this.#staging;
    this.#generationHighest += 1;
    const staging = new GenerationStaging(
      this.#engine,
      this.#stagingChain,
      this.#generationHighest,
      point,
      (error) => void this.#fail(error),
    );
    this.#staging = staging;
    // Its last write must be answered before the next one of this lane begins.
    await older?.discard();
    return staging;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#writing?.catch(() => undefined);
    await this.#staging?.settled();
    await Promise.all(this.#clearing);
    await this.#engine.close();
  }
}
