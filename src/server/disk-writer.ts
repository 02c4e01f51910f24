/**
 * One batch on disk at a time: while one is being written the next one fills, merged from everything that raft and the
 * state ask for meanwhile.
 *
 * Nobody waits for the state of applied entries, so it is left to some ticks: a key or session that changes with every
 * entry is encoded and written once for all of them. It rides with the first batch after them that has to be
 * synced, so that no entries wait behind a write of state; the next tick writes it if there was none. A crash before
 * that makes the restart replay a little more of the log: 1 MiB, or what was applied within five ticks. (The commit
 * index and what peers have told go with the next batch in any case: the seal of a configuration relies on the first.)
 */
import assert from 'node:assert/strict';
import type { Entry, HardState, LogIndex, Message, Persist, SnapshotPoint } from '../raft/index.ts';
import type { PeerWrite, StateWrite, Storage, WriteBatch } from '../storage/index.ts';
import type { Environment, ServerMetrics } from './environment.ts';

/**
 * The state is written with every so many ticks: a session that writes all the time has a record less to write for each
 * tick that is left out.
 */
export const ticksPerState = 4;

/** When so much of the log has been applied since the state was written, it does not wait for a tick. */
const appliedBytesMax = 1024 * 1024;

/** What the state has become since it was asked last. */
export interface StateChanges {
  readonly writes: readonly StateWrite[];
  readonly applied: NonNullable<WriteBatch['applied']>;
  readonly revision: number;
}

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
  /** Of all entries up to `applied`. Asked for when it is written, and never while a snapshot takes the state's place. */
  readonly takeState: () => StateChanges;
  readonly onWritten: (written: Written) => void;
  /** The disk can't be trusted any more: the process must end. */
  readonly onFailed: (error: unknown) => void;
}

class NextBatch {
  hardState: HardState | undefined;
  truncateFrom: LogIndex | undefined;
  entries: Entry[] = [];
  activate: SnapshotPoint | undefined;
  stateWrites: readonly StateWrite[] = [];
  applied: WriteBatch['applied'];
  revision = 0;
  compactTo: SnapshotPoint | undefined;
  peerWrites: PeerWrite[] = [];
  sync = false;
  sequence: number | undefined;
  afterDurable: Message[] = [];
  empty = true;

  /** Somebody waits for it. */
  get urgent(): boolean {
    return this.sync || this.afterDurable.length > 0;
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
  /** As it was at the last tick, if there was something in it. */
  #nextAtTick: NextBatch | undefined;
  #writing = false;
  /** Writes so far. */
  #begun = 0;
  #finished = 0;
  #startedMs = 0;
  #activating = false;
  #idleWaiters: (() => void)[] = [];
  /** The write under way will never be done, and none after it. */
  #failure: { readonly error: unknown } | undefined;
  /** Whether there is state that was not taken yet, and whether the next batch takes it. */
  #state: 'written' | 'changed' | 'due' = 'written';
  /** Of those that what has changed still waits for. */
  #ticksLeft = 0;
  /** Of entries, since the state was taken. */
  #appliedBytes = 0;
  #onDisk: StateOnDisk | undefined;
  #beingWritten: StateOnDisk | undefined;

  constructor(options: DiskWriterOptions) {
    this.#options = options;
  }

  addPersist(persist: Persist): void {
    this.#next.addPersist(persist);
    if (persist.snapshot === undefined) return;
    this.#state = 'written';
    this.#appliedBytes = 0;
  }

  /** Entries of so many bytes were applied; or there is more of the state to write without any (0). */
  stateChanged(entryBytes: number): void {
    assert(
      this.mayAddState || entryBytes === 0,
      'entries were applied to a state that a snapshot is about to replace',
    );
    if (this.#state === 'written') {
      this.#state = 'changed';
      this.#ticksLeft = ticksPerState;
    }
    if (entryBytes === 0) this.#ticksLeft = 1;
    this.#appliedBytes += entryBytes;
    if (this.#appliedBytes > appliedBytesMax) this.#state = 'due';
  }

  /** The state that has changed goes with the next batch, whichever it is. */
  stateIsDue(): void {
    if (this.#state === 'changed') this.#state = 'due';
  }

  /** Time has passed: what nobody waits for is written with the next batch, or now if there was none since the last time. */
  tick(): void {
    const isOverdue = this.#state === 'due';
    if (this.#state === 'changed') {
      this.#ticksLeft -= 1;
      if (this.#ticksLeft <= 0) this.#state = 'due';
    }
    if (isOverdue || (this.#state === 'written' && !this.#next.empty)) this.flushAll();
    else if (this.#nextAtTick === this.#next) this.#write(false);
    this.#nextAtTick = this.#next.empty ? undefined : this.#next;
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
    // The log must not begin behind the state that is on disk.
    this.stateIsDue();
  }

  /** What is to be remembered of peers; a snapshot that is activated leaves it as it is. */
  addPeers(writes: readonly PeerWrite[]): void {
    if (writes.length === 0) return;
    this.#next.empty = false;
    for (const write of writes) this.#next.peerWrites.push(write);
  }

  /** Starts the next write if none is under way and somebody waits for it. */
  flush(): void {
    if (this.#next.urgent || this.#appliedBytes > appliedBytesMax) this.#write(this.#state === 'due');
  }

  /** Starts the next write if none is under way and there is anything to write. */
  flushAll(): void {
    this.#write(true);
  }

  #write(withState: boolean): void {
    if (this.#writing || !this.#hasWork) return;
    const next = this.#next;
    this.#next = new NextBatch();
    if (withState && this.#state !== 'written' && next.activate === undefined) this.#takeState(next);
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
        this.#failure = { error };
        this.#options.onFailed(error);
        this.#settleIdle();
      },
    );
  }

  /**
   * Resolves when all that has been added up to now is on disk; what is added meanwhile is not waited for. Rejects when
   * the disk fails.
   */
  async whenOnDisk(): Promise<void> {
    this.stateIsDue();
    const last = this.#begun + (this.#hasWork ? 1 : 0);
    this.flushAll();
    while (this.#finished < last) await this.#nextWritten();
  }

  /** How long the present write has been under way; 0: none is. */
  busyMs(nowMs: number): number {
    return this.#writing ? nowMs - this.#startedMs : 0;
  }

  /** Resolves when no write is under way and none is waiting. Rejects when the disk fails. */
  async whenIdle(): Promise<void> {
    this.flushAll();
    while (this.#writing) await this.#nextWritten();
  }

  async #nextWritten(): Promise<void> {
    if (this.#failure === undefined) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    if (this.#failure !== undefined) throw this.#failure.error;
    this.flushAll();
  }

  get #hasWork(): boolean {
    return !this.#next.empty || (this.#state !== 'written' && this.mayAddState);
  }

  #takeState(next: NextBatch): void {
    const { writes, applied, revision } = this.#options.takeState();
    next.stateWrites = writes;
    next.applied = applied;
    next.revision = revision;
    this.#state = 'written';
    this.#appliedBytes = 0;
  }

  #settleIdle(): void {
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const resolve of waiters) resolve();
  }
}
