/**
 * The log since the last compaction, in memory, and how far it is committed, applied and on this disk.
 *
 * Invariants: base <= applied <= applying <= min(commit, durable); commit <= last; durable <= handed <= last;
 * the entries follow base without a gap and their terms never fall.
 */

import { violated } from './assert.ts';
import { asLogIndex, asTerm } from './types.ts';
import type { Entry, LogIndex, SnapshotPoint, Term } from './types.ts';

/** A write under way, and the last index that its completion makes durable. */
interface OutstandingWrite {
  readonly sequence: number;
  lastIndex: LogIndex;
}

interface LogStart {
  readonly snapshot: SnapshotPoint;
  readonly entries: readonly Entry[];
  readonly commit: LogIndex;
  readonly applied: LogIndex;
}

export interface Unsaved {
  readonly truncateFrom: LogIndex | undefined;
  readonly entries: readonly Entry[];
}

const payloadBytes = (entries: readonly Entry[]): number => {
  let sum = 0;
  for (const entry of entries) sum += entry.payload.byteLength;
  return sum;
};

export class Log {
  /** What the log was compacted up to: its term is still known. */
  #baseIndex: LogIndex;
  #baseTerm: Term;
  #entries: Entry[];
  /** Where among them the configuration entries are, ascending: few, and asked for in every turn. */
  #configurations: LogIndex[] = [];
  #commit: LogIndex;
  /** Given out to be applied. */
  #applying: LogIndex;
  #applied: LogIndex;
  #durable: LogIndex;
  /** Given out to be written. */
  #handed: LogIndex;
  /** The disk has, or will have, entries from here on that are no longer in this log. */
  #truncateFrom: LogIndex | undefined;
  #outstanding: OutstandingWrite[] = [];
  #bytes: number;
  #uncommittedBytes: number;
  #truncations = 0;

  constructor({ snapshot, entries, commit, applied }: LogStart) {
    this.#baseIndex = snapshot.index;
    this.#baseTerm = snapshot.term;
    this.#entries = [];
    this.#bytes = 0;
    this.#uncommittedBytes = 0;
    this.#commit = snapshot.index;
    this.#applying = applied;
    this.#applied = applied;
    this.#durable = asLogIndex(snapshot.index + entries.length);
    this.#handed = this.#durable;
    for (const entry of entries) this.append(entry);
    const last = this.last;
    if (applied < snapshot.index || applied > last) {
      violated(
        `applied index ${applied} is outside of the log (${snapshot.index}..${last}): ` +
          'the state and the log on this disk do not belong together; replace this member',
      );
    }
    if (commit > last) {
      violated(
        `commit index ${commit} is beyond the last entry ${last}: ` +
          'the disk lost entries that were durable; replace this member',
      );
    }
    this.commitTo(asLogIndex(Math.max(commit, applied)));
  }

  get baseIndex(): LogIndex {
    return this.#baseIndex;
  }
  get first(): LogIndex {
    return asLogIndex(this.#baseIndex + 1);
  }
  get last(): LogIndex {
    return asLogIndex(this.#baseIndex + this.#entries.length);
  }
  get lastTerm(): Term {
    return this.#entries.at(-1)?.term ?? this.#baseTerm;
  }
  get commit(): LogIndex {
    return this.#commit;
  }
  get applying(): LogIndex {
    return this.#applying;
  }
  get applied(): LogIndex {
    return this.#applied;
  }
  get durable(): LogIndex {
    return this.#durable;
  }
  get handed(): LogIndex {
    return this.#handed;
  }
  /** Payload bytes in memory. */
  get bytes(): number {
    return this.#bytes;
  }
  /** Payload bytes after the commit index. */
  get uncommittedBytes(): number {
    return this.#uncommittedBytes;
  }
  /** How often a suffix was cut off, for the invariant checks. */
  get truncations(): number {
    return this.#truncations;
  }

  /** undefined: outside of what is known. */
  termAt(index: LogIndex): Term | undefined {
    if (index === this.#baseIndex) return this.#baseTerm;
    return this.#entries[index - this.#baseIndex - 1]?.term;
  }

  entryAt(index: LogIndex): Entry | undefined {
    return this.#entries[index - this.#baseIndex - 1];
  }

  matches(index: LogIndex, term: Term): boolean {
    return this.termAt(index) === term;
  }

  /** Raft §5.4.1: whether a log that ends so has all that this one may have committed. */
  isUpToDate(lastIndex: LogIndex, lastTerm: Term): boolean {
    if (lastTerm !== this.lastTerm) return lastTerm > this.lastTerm;
    return lastIndex >= this.last;
  }

  /**
   * The last index at or below `index` whose term is at most `term`: a log that has `term` at `index` cannot agree
   * with this one any later. Below the base nothing is known: answers an index below it.
   */
  lastIndexOfTerm(index: LogIndex, term: Term): LogIndex {
    if (index < this.#baseIndex) return index;
    let low = this.#baseIndex - 1;
    let high = Math.min(index, this.last);
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      const there = this.termAt(asLogIndex(middle));
      if (there === undefined)
        violated(`no term for index ${middle} within ${this.#baseIndex}..${this.last}`);
      if (there <= term) low = middle;
      else high = middle - 1;
    }
    return asLogIndex(Math.max(low, 0));
  }

  append(entry: Entry): void {
    if (entry.index !== this.last + 1) {
      violated(
        `entry ${entry.index} was appended after ${this.last}: the log would have a gap or an overlap`,
      );
    }
    if (entry.term < this.lastTerm) {
      violated(
        `entry ${entry.index} has term ${entry.term}, below the ${this.lastTerm} of the entry before it`,
      );
    }
    this.#entries.push(entry);
    if (entry.kind === 'configuration') this.#configurations.push(entry.index);
    this.#bytes += entry.payload.byteLength;
    this.#uncommittedBytes += entry.payload.byteLength;
  }

  /**
   * Cuts off everything from `index` on. Writes under way no longer make any of it durable: their completion must
   * not count for what is written to the same indices later, be it the same again.
   */
  truncateFrom(index: LogIndex): void {
    if (index <= this.#commit) {
      violated(
        `entries from ${index} on conflict with a leader's, but ${this.#commit} is committed: two histories`,
      );
    }
    if (index > this.last) violated(`truncation from ${index} on, beyond the last entry ${this.last}`);
    const removed = this.#entries.splice(index - this.#baseIndex - 1);
    this.#configurations = this.#configurations.filter((at) => at < index);
    const bytes = payloadBytes(removed);
    this.#bytes -= bytes;
    this.#uncommittedBytes -= bytes;
    this.#truncations += 1;
    if (index > this.#handed) return;
    const kept = asLogIndex(index - 1);
    this.#handed = kept;
    if (this.#durable > kept) this.#durable = kept;
    for (const write of this.#outstanding) if (write.lastIndex > kept) write.lastIndex = kept;
    if (this.#truncateFrom === undefined || index < this.#truncateFrom) this.#truncateFrom = index;
  }

  /** False: it was there already. */
  commitTo(index: LogIndex): boolean {
    if (index <= this.#commit) return false;
    if (index > this.last) {
      violated(
        `commit ${index} is beyond the last entry ${this.last}: was this member's disk wiped or replaced?`,
      );
    }
    for (let i = this.#commit + 1; i <= index; i += 1) {
      this.#uncommittedBytes -= this.entryAt(asLogIndex(i))?.payload.byteLength ?? 0;
    }
    this.#commit = index;
    return true;
  }

  /** At least one entry if there is one from `from` to `to`; no more payload than `bytesMax` otherwise. */
  slice(from: LogIndex, to: LogIndex, bytesMax: number): readonly Entry[] {
    const start = from - this.#baseIndex - 1;
    const limit = to - this.#baseIndex;
    if (start < 0) violated(`entries from ${from} on were asked for, the first one here is ${this.first}`);
    let end = start;
    let bytes = 0;
    while (end < limit) {
      bytes += this.#entries[end]?.payload.byteLength ?? 0;
      if (end > start && bytes > bytesMax) break;
      end += 1;
    }
    return this.#entries.slice(start, end);
  }

  takeToApply(bytesMax: number): readonly Entry[] {
    const to = asLogIndex(Math.min(this.#commit, this.#durable));
    if (to <= this.#applying) return [];
    const entries = this.slice(asLogIndex(this.#applying + 1), to, bytesMax);
    this.#applying = asLogIndex(this.#applying + entries.length);
    return entries;
  }

  appliedTo(index: LogIndex): void {
    // Answers to what was given out before a snapshot took its place.
    if (index <= this.#applied) return;
    if (index > this.#applying) {
      violated(
        `${index} was reported as applied, but only ${this.#applying} was given out: the caller made it up`,
      );
    }
    this.#applied = index;
  }

  get hasUnsaved(): boolean {
    return this.#handed < this.last || this.#truncateFrom !== undefined;
  }

  /** What write `sequence` has to contain; its completion makes all of it durable. */
  takeUnsaved(sequence: number): Unsaved {
    const entries = this.#entries.slice(this.#handed - this.#baseIndex);
    const truncateFrom = this.#truncateFrom;
    this.#handed = this.last;
    this.#truncateFrom = undefined;
    if (entries.length > 0) this.#outstanding.push({ sequence, lastIndex: this.last });
    return { truncateFrom, entries };
  }

  /** Write `sequence` replaces the log by this snapshot: nothing of the log needs to be written any more. */
  handSnapshot(sequence: number, index: LogIndex): void {
    this.#handed = this.last;
    this.#truncateFrom = undefined;
    this.#outstanding.push({ sequence, lastIndex: index });
  }

  /** The write after which `index` is durable; `next`: it is not given out yet; 0: it is durable. */
  writeOf(index: LogIndex, next: number): number {
    if (index <= this.#durable) return 0;
    if (index > this.#handed) return next;
    for (const write of this.#outstanding) if (write.lastIndex >= index) return write.sequence;
    return violated(`entry ${index} was given out to be written, but no write under way contains it`);
  }

  /** All writes up to this sequence are on disk. */
  persisted(sequence: number): void {
    let done = 0;
    for (const write of this.#outstanding) {
      if (write.sequence > sequence) break;
      done += 1;
      const reached = asLogIndex(Math.min(write.lastIndex, this.last));
      if (reached > this.#durable) this.#durable = reached;
    }
    this.#outstanding.splice(0, done);
  }

  /** The snapshot is on disk and is all there is. */
  restore(snapshot: SnapshotPoint): void {
    if (snapshot.index <= this.#commit) {
      violated(`a snapshot at ${snapshot.index} would take back commit ${this.#commit}`);
    }
    this.#entries = [];
    this.#configurations = [];
    this.#bytes = 0;
    this.#uncommittedBytes = 0;
    this.#baseIndex = snapshot.index;
    this.#baseTerm = snapshot.term;
    this.#commit = snapshot.index;
    this.#applying = snapshot.index;
    this.#applied = snapshot.index;
    this.#durable = snapshot.index;
    this.#handed = snapshot.index;
    this.#truncateFrom = undefined;
  }

  /** Forgets everything up to `index`. */
  compact(index: LogIndex): void {
    if (index <= this.#baseIndex) return;
    if (index > this.#applied) {
      violated(`compaction up to ${index}, but only ${this.#applied} is applied: entries would be lost`);
    }
    const term = this.termAt(index) ?? violated(`no term for index ${index}, the last one is ${this.last}`);
    const removed = this.#entries.splice(0, index - this.#baseIndex);
    this.#configurations = this.#configurations.filter((at) => at > index);
    this.#bytes -= payloadBytes(removed);
    this.#baseIndex = index;
    this.#baseTerm = term;
  }

  /** Raft must not campaign before it knows a configuration that is committed already. */
  hasUnappliedConfiguration(): boolean {
    return this.#configurations.some((at) => at > this.#applied && at <= this.#commit);
  }

  /** The configuration entries after `from`, up to and including `to`. */
  configurationsBetween(from: LogIndex, to: LogIndex): readonly Entry[] {
    const entries: Entry[] = [];
    for (const at of this.#configurations) {
      if (at <= from || at > to) continue;
      entries.push(this.entryAt(at) ?? violated(`the configuration entry at ${at} is not in the log`));
    }
    return entries;
  }

  /** Throws unless what is claimed above holds. Looks at `entriesMax` of the newest entries. */
  check(entriesMax: number): void {
    const { last } = this;
    const reachable = Math.min(this.#commit, this.#durable);
    if (!(
      this.#baseIndex <= this.#applied &&
      this.#applied <= this.#applying &&
      this.#applying <= reachable
    )) {
      violated(
        `base ${this.#baseIndex} <= applied ${this.#applied} <= applying ${this.#applying} <= ` +
          `min(commit ${this.#commit}, durable ${this.#durable}) does not hold`,
      );
    }
    if (this.#commit > last) violated(`commit ${this.#commit} is beyond the last entry ${last}`);
    if (!(this.#durable <= this.#handed && this.#handed <= last)) {
      violated(`durable ${this.#durable} <= handed ${this.#handed} <= last ${last} does not hold`);
    }
    const from = last - entriesMax;
    const noted = this.#configurations.filter((at) => at > from).join();
    const newest = this.#entries.slice(-entriesMax).filter(({ kind }) => kind === 'configuration');
    if (newest.map(({ index }) => index).join() !== noted) {
      violated(`configuration entries after ${from} are noted at [${noted}], they are elsewhere`);
    }
    let term = asTerm(0);
    for (const [i, entry] of this.#entries.slice(-entriesMax).entries()) {
      const index = last - Math.min(entriesMax, this.#entries.length) + 1 + i;
      if (entry.index !== index) violated(`the entry at ${index} says that it is ${entry.index}`);
      if (entry.term < term) violated(`the term falls from ${term} to ${entry.term} at entry ${index}`);
      term = entry.term;
    }
    if (this.#entries.length > entriesMax) return;
    const uncommitted = payloadBytes(this.#entries.slice(this.#commit - this.#baseIndex));
    if (uncommitted !== this.#uncommittedBytes) {
      violated(`${this.#uncommittedBytes} uncommitted bytes are counted, there are ${uncommitted}`);
    }
    const bytes = payloadBytes(this.#entries);
    if (bytes !== this.#bytes) violated(`${this.#bytes} bytes of log are counted, there are ${bytes}`);
  }
}
