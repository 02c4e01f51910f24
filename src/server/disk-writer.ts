/**
 * One batch on disk at a time: while one is being written the next one fills, merged from everything that raft and the
 * state ask for meanwhile.
 *
 * What nobody waits for (the state of applied entries, the commit index, what peers have told) rides with the next batch that has to be
 * synced, so that under load each turn's entries cost one write, and none waits behind a write of state. The tick
 * writes it when there is no such batch; a crash before that only makes the restart replay a little more of the log.
 */
import assert from 'node:assert/strict';
import type { Entry, HardState, LogIndex, Message, Persist, SnapshotPoint } from '../raft/index.ts';
import type { PeerWrite, StateWrite, Storage, WriteBatch } from '../storage/index.ts';
import type { Environment, ServerMetrics } from './environment.ts';

/** More of it is not kept waiting for a batch to ride with. */
const stateBytesMax = 1024 * 1024;

/** What a finished write makes possible. */
export interface Written {
  /** Of raft's last `Persist` in it; undefined: there was none. */
  readonly sequence: number | undefined;
  readonly afterDurable: readonly Message[];
  readonly activated: SnapshotPoint | undefined;
  readonly compactedTo: SnapshotPoint | undefined;
}

interface StateOnDisk {
  readonly index: LogIndex;
  readonly revision: number;
}

interface DiskWriterOptions {
  readonly storage: Storage;
  readonly environment: Environment;
  readonly metrics: ServerMetrics;
  readonly onWritten: (written: Written) => void;
  /** The disk can't be trusted any more: the process must end. */
  readonly onFailed: (error: unknown) => void;
}

class NextBatch {
  hardState: HardState | undefined;
  truncateFrom: LogIndex | undefined;
  entries: Entry[] = [];
  activate: SnapshotPoint | undefined;
  stateWrites: StateWrite[] = [];
  applied: WriteBatch['applied'];
  revision = 0;
  compactTo: SnapshotPoint | undefined;
  peerWrites: PeerWrite[] = [];
  sync = false;
  sequence: number | undefined;
  afterDurable: Message[] = [];
  empty = true;
  stateBytes = 0;

  /** Somebody waits for it, or it has grown large. */
  get urgent(): boolean {
    return this.sync || this.afterDurable.length > 0 || this.stateBytes > stateBytesMax;
  }

  addPersist(persist: Persist): void {
    this.empty = false;
    this.sequence = persist.sequence;
    this.sync ||= persist.mustSync;
    this.hardState = persist.hardState ?? this.hardState;
    const { truncateFrom, snapshot } = persist;
    if (snapshot) {
      // All that was to be written of the old state and log goes with them.
      this.activate = snapshot;
      this.truncateFrom = undefined;
      this.entries = [];
      this.stateWrites = [];
      this.stateBytes = 0;
      this.applied = { index: snapshot.index, term: snapshot.term };
      this.compactTo = undefined;
    }
    if (truncateFrom !== undefined && !snapshot) {
      this.entries = this.entries.filter((entry) => entry.index < truncateFrom);
      this.truncateFrom =
        this.truncateFrom === undefined || truncateFrom < this.truncateFrom
          ? truncateFrom
          : this.truncateFrom;
    }
    for (const entry of persist.entries) this.entries.push(entry);
    for (const message of persist.afterDurable) this.afterDurable.push(message);
  }
}

export class DiskWriter {
  readonly #options: DiskWriterOptions;
  #next = new NextBatch();
  #writing = false;
  /** Writes so far. */
  #begun = 0;
  #finished = 0;
  #startedMs = 0;
  #activating = false;
  #idleWaiters: (() => void)[] = [];
  #onDisk: StateOnDisk | undefined;
  #beingWritten: StateOnDisk | undefined;

  constructor(options: DiskWriterOptions) {
    this.#options = options;
  }

  addPersist(persist: Persist): void {
    this.#next.addPersist(persist);
  }

  /**
   * The changes of all entries up to `applied`, with which the state has this revision; never from a state that an
   * activation in this batch replaces.
   */
  addState(
    writes: readonly StateWrite[],
    applied: NonNullable<WriteBatch['applied']>,
    revision: number,
  ): void {
    assert(
      this.#next.activate === undefined || applied.index >= this.#next.activate.index,
      `state of index ${applied.index} must not be written over the snapshot of index ${this.#next.activate?.index}`,
    );
    this.#next.empty = false;
    for (const write of writes) {
      this.#next.stateWrites.push(write);
      this.#next.stateBytes += write.value?.length ?? 0;
    }
    this.#next.applied = applied;
    this.#next.revision = revision;
  }

  /** The state that was read or activated: what is on disk without having been added here. */
  stateIsOnDisk(index: LogIndex, revision: number): void {
    this.#onDisk = { index, revision };
  }

  /**
   * Tells the revision of the state on disk as a view that is opened now will find it, by the last entry in it;
   * undefined: it is another one.
   */
  revisionsNow(): (index: LogIndex) => number | undefined {
    // The view waits for a write under way. The disk may be done with one of which nothing has been heard yet.
    const states = [this.#onDisk, this.#beingWritten];
    return (index) => states.find((state) => state?.index === index)?.revision;
  }

  /** false: a snapshot is about to replace the state, or is doing so; what is written of the old one goes with it. */
  get mayAddState(): boolean {
    return this.#next.activate === undefined && !this.#activating;
  }

  addCompaction(point: SnapshotPoint): void {
    this.#next.empty = false;
    this.#next.compactTo = point;
  }

  /** What is to be remembered of peers; a snapshot that is activated leaves it as it is. */
  addPeers(writes: readonly PeerWrite[]): void {
    if (writes.length === 0) return;
    this.#next.empty = false;
    for (const write of writes) this.#next.peerWrites.push(write);
  }

  /** Starts the next write if none is under way and somebody waits for it. */
  flush(): void {
    if (this.#next.urgent) this.flushAll();
  }

  /** Starts the next write if none is under way and there is anything to write. */
  flushAll(): void {
    if (this.#writing || this.#next.empty) return;
    const next = this.#next;
    this.#next = new NextBatch();
    this.#writing = true;
    this.#begun += 1;
    const startedMs = this.#options.environment.monotonicMs();
    this.#startedMs = startedMs;
    this.#activating = next.activate !== undefined;
    // Of a snapshot nothing is known before it is activated.
    this.#beingWritten =
      next.applied && next.activate?.index !== next.applied.index
        ? { index: next.applied.index, revision: next.revision }
        : undefined;
    const batch: WriteBatch = {
      ...(next.hardState && { hardState: next.hardState }),
      ...(next.truncateFrom !== undefined && { truncateFrom: next.truncateFrom }),
      entries: next.entries,
      ...(next.activate && { activate: next.activate }),
      stateWrites: next.stateWrites,
      ...(next.applied && { applied: next.applied }),
      ...(next.compactTo && { compactTo: next.compactTo }),
      ...(next.peerWrites.length > 0 && { peerWrites: next.peerWrites }),
      sync: next.sync,
    };
    this.#options.storage.write(batch).then(
      () => {
        this.#writing = false;
        this.#finished += 1;
        this.#activating = false;
        this.#onDisk = this.#beingWritten ?? this.#onDisk;
        this.#beingWritten = undefined;
        if (next.sync) {
          this.#options.metrics.diskSynced((this.#options.environment.monotonicMs() - startedMs) / 1000);
        }
        this.#options.onWritten({
          sequence: next.sequence,
          afterDurable: next.afterDurable,
          activated: next.activate,
          compactedTo: next.compactTo,
        });
        this.#settleIdle();
      },
      (error: unknown) => {
        this.#options.onFailed(error);
        this.#settleIdle();
      },
    );
  }

  /** Resolves when all that has been added up to now is on disk; what is added meanwhile is not waited for. */
  async whenOnDisk(): Promise<void> {
    const last = this.#begun + (this.#next.empty ? 0 : 1);
    this.flushAll();
    while (this.#finished < last) {
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
      this.flushAll();
    }
  }

  /** How long the present write has been under way; 0: none is. */
  busyMs(nowMs: number): number {
    return this.#writing ? nowMs - this.#startedMs : 0;
  }

  /** Resolves when no write is under way and none is waiting. */
  async whenIdle(): Promise<void> {
    this.flushAll();
    while (this.#writing) {
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
      this.flushAll();
    }
  }

  #settleIdle(): void {
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const resolve of waiters) resolve();
  }
}
