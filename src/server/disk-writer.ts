/**
 * One batch per turn of the loop, one batch on disk at a time: while one is being written the next one fills, merged
 * from everything that raft and the state ask for meanwhile.
 */
import assert from 'node:assert/strict';
import type { Entry, HardState, LogIndex, Message, Persist, SnapshotPoint } from '../raft/index.ts';
import type { StateWrite, Storage, WriteBatch } from '../storage/index.ts';
import type { Environment, ServerMetrics } from './environment.ts';

/** What a finished write makes possible. */
export interface Written {
  /** Of raft's last `Persist` in it; undefined: there was none. */
  readonly sequence: number | undefined;
  readonly afterDurable: readonly Message[];
  readonly activated: SnapshotPoint | undefined;
  readonly compactedTo: SnapshotPoint | undefined;
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
  compactTo: SnapshotPoint | undefined;
  sync = false;
  sequence: number | undefined;
  afterDurable: Message[] = [];
  empty = true;

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
  #idleWaiters: (() => void)[] = [];

  constructor(options: DiskWriterOptions) {
    this.#options = options;
  }

  addPersist(persist: Persist): void {
    this.#next.addPersist(persist);
  }

  /** The changes of all entries up to `applied`; never from a state that an activation in this batch replaces. */
  addState(writes: readonly StateWrite[], applied: NonNullable<WriteBatch['applied']>): void {
    assert(
      this.#next.activate === undefined || applied.index >= this.#next.activate.index,
      `state of index ${applied.index} must not be written over the snapshot of index ${this.#next.activate?.index}`,
    );
    this.#next.empty = false;
    for (const write of writes) this.#next.stateWrites.push(write);
    this.#next.applied = applied;
  }

  addCompaction(point: SnapshotPoint): void {
    this.#next.empty = false;
    this.#next.compactTo = point;
  }

  /** Starts the next write if none is under way and there is something to write. */
  flush(): void {
    if (this.#writing || this.#next.empty) return;
    const next = this.#next;
    this.#next = new NextBatch();
    this.#writing = true;
    const startedMs = this.#options.environment.monotonicMs();
    const batch: WriteBatch = {
      ...(next.hardState && { hardState: next.hardState }),
      ...(next.truncateFrom !== undefined && { truncateFrom: next.truncateFrom }),
      entries: next.entries,
      ...(next.activate && { activate: next.activate }),
      stateWrites: next.stateWrites,
      ...(next.applied && { applied: next.applied }),
      ...(next.compactTo && { compactTo: next.compactTo }),
      sync: next.sync,
    };
    this.#options.storage.write(batch).then(
      () => {
        this.#writing = false;
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

  /** Resolves when no write is under way and none is waiting. */
  async whenIdle(): Promise<void> {
    this.flush();
    if (!this.#writing) return;
    await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
  }

  #settleIdle(): void {
    if (this.#writing && !this.#next.empty) return;
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const resolve of waiters) resolve();
  }
}
