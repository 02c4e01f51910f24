/** What a server keeps on disk, and the one way to write it. */
import type { FuturestoreError } from '../protocol/index.ts';
import type { Configuration, Entry, HardState, LogIndex, SnapshotPoint, Term } from '../raft/index.ts';

/** A key within the state's keyspace (ASCII), and its bytes or its removal. */
export interface StateWrite {
  readonly key: string;
  readonly value: Uint8Array | undefined;
}

/** What is remembered of a peer, by a key of printable ASCII: its bytes or its removal. */
export interface PeerWrite {
  readonly key: string;
  readonly value: Uint8Array | undefined;
}

/** One turn of the loop: written atomically, all of it or nothing. */
export interface WriteBatch {
  readonly hardState?: HardState;
  /** Delete the entries from here on (before the new ones are put). */
  readonly truncateFrom?: LogIndex;
  readonly entries: readonly Entry[];
  /**
   * Replace the whole state by the staged snapshot of this point, and the whole log by nothing (before the new
   * entries are put). It must have been staged completely.
   */
  readonly activate?: SnapshotPoint;
  readonly stateWrites: readonly StateWrite[];
  /** The last entry whose changes are in `stateWrites` or in earlier ones. */
  readonly applied?: { readonly index: LogIndex; readonly term: Term };
  /** Forget the log up to and including this index; the point becomes the log's new beginning. */
  readonly compactTo?: SnapshotPoint;
  /** All runs of this directory that are to be remembered, the present one included; in place of those before. */
  readonly lineage?: readonly number[];
  /** Belongs to this directory alone: in no snapshot, and not replaced by one. */
  readonly peerWrites?: readonly PeerWrite[];
  /** Marks the directory as one that must never be used again, and why: the next `open` throws DATA_OUTDATED. */
  readonly outdated?: string;
  /** On disk before the write is answered. */
  readonly sync: boolean;
}

export interface Recovered {
  /** undefined: nothing was ever written here; the caller bootstraps. */
  readonly hardState: HardState | undefined;
  /** Where the log begins (index 0 if nothing was compacted). */
  readonly snapshot: SnapshotPoint | undefined;
  /** Follow `snapshot.index` (or 0) without a gap. */
  readonly entries: readonly Entry[];
  readonly applied: { readonly index: LogIndex; readonly term: Term };
  /** How often this directory has been opened, this time included: the server's run number. */
  readonly run: number;
  /** As they were written last, oldest first; without the present one, which the caller makes and writes. */
  readonly lineage: readonly number[];
  /**
   * The first opening since which each was by a program that keeps the lineage: one of a version before may have been in
   * between, and left no trace there.
   */
  readonly lineageSince: number;
  /** By key, as they were written last (see `WriteBatch.peerWrites`). */
  readonly peerRecords: ReadonlyMap<string, Uint8Array>;
  /** 16 random bytes made with the directory. */
  readonly diskId: Uint8Array;
}

/** One part of a snapshot under way: records as storage keeps them, with a checksum over all of them. */
export interface SnapshotPart {
  /** 0, 1, 2, … */
  readonly number: number;
  readonly records: Uint8Array;
  /** CRC-32 of `records`. */
  readonly checksum: number;
  readonly last: boolean;
  /** In the last one: how many records there were in all. */
  readonly recordsTotal: number;
}

/** A consistent view of the state at one applied index, read part by part. Close it. */
export interface SnapshotReader {
  readonly point: SnapshotPoint;
  /** Up to about 256 KiB; undefined after the last part. */
  next(): Promise<SnapshotPart | undefined>;
  close(): Promise<void>;
}

export interface StagedRecord {
  readonly key: string;
  readonly value: Uint8Array;
}

/** Receives a snapshot beside the present state. Only `WriteBatch.activate` makes it the state. */
export interface SnapshotStaging {
  readonly point: SnapshotPoint;
  /**
   * Parts in order; rejects with DATA_DAMAGED for a wrong checksum, number or total. `take` is given the records while they
   * are being written, to feed them to a store; they are views of the part, to be copied if they are kept. Rejects with
   * what it throws.
   */
  add(part: SnapshotPart, take?: (records: readonly StagedRecord[]) => void): Promise<void>;
  /** True once the last part has been added. */
  readonly complete: boolean;
  /** Removes what was staged. */
  discard(): Promise<void>;
}

export interface Storage {
  readonly recovered: Recovered;
  /** All records of the state as of `recovered.applied`, in key order, in batches. Only before the first write. */
  readState(): AsyncIterable<readonly { readonly key: string; readonly value: Uint8Array }[]>;
  /**
   * At most one write at a time (asserted). A rejected promise means that nothing on this disk can be trusted any
   * more: the process must end.
   */
  write(batch: WriteBatch): Promise<void>;
  /**
   * As of the last completed write (the one under way is waited for). `configuration` is the one at that index; a
   * function is told the index. Writes go on meanwhile; LevelDB keeps what the view needs until it is closed.
   */
  openSnapshot(
    configuration: Configuration | ((applied: LogIndex) => Configuration),
  ): Promise<SnapshotReader>;
  /** An older staging that was not activated is discarded. */
  stageSnapshot(point: SnapshotPoint): Promise<SnapshotStaging>;
  /**
   * Why nothing is written any more: any write has failed, one of a staged snapshot or of what is cleared away too, of
   * which no `write` may come to tell. The process must end.
   */
  readonly failure: FuturestoreError | undefined;
  close(): Promise<void>;
}

export interface StorageIdentity {
  readonly clusterId: string;
  readonly member: number;
}
