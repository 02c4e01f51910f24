/**
 * All keys: what is known of each, and the three orders in which they are asked for: by key, by revision, and by the
 * instant at which something happens to them. Every change of a key goes through `put` or `delete`, which keep all
 * of it together.
 */
import type { Future } from '../protocol/index.ts';
import { assert, unreachable } from './assert.ts';
import { ExpiryGroups, type ExpiryGroup } from './expiry-groups.ts';
import { KeyOrder } from './key-order.ts';
import { RevisionIndex, type Placed, type RevisionChunk } from './revision-index.ts';
import type { Session } from './sessions.ts';
import { ShardedMap } from './sharded-map.ts';
import type { Timer, TimerWheel } from './timer-wheel.ts';
import { Usage } from './usage.ts';

/** A key as an operation finds or leaves it. */
export interface Slot {
  /** undefined: absent. */
  readonly future: Future | undefined;
  /** The last generation that was used for this key, or may have been. */
  readonly lastGeneration: number;
  /** At which the present generation began. */
  readonly createdRevision: number;
  /** Pending only: whose loss rejects it. */
  readonly tied: Session | undefined;
  /** Settled only: whose quota its content counts for. undefined: its producer's. */
  readonly payer: string | undefined;
}

/** What the state knows of one key. Only the table changes it. */
export class KeyRecord implements Slot, Placed {
  readonly key: string;
  /** undefined: deleted, and `tombstone` is there. */
  future: Future | undefined = undefined;
  lastGeneration = 0;
  createdRevision = 0;
  tied: Session | undefined = undefined;
  payer: string | undefined = undefined;
  tombstone: Tombstone | undefined = undefined;
  /** The deadline of a pending future, or the end of a settled one's freshness. */
  timer: Timer<KeyRecord | Session> | undefined = undefined;
  /** It ended with others, and its own record does not say so yet. */
  expiry: ExpiryGroup | undefined = undefined;
  /** Has changed since the last `takeDirty`. */
  dirty = false;
  /** The table has it no more; another one of the same key may be there. */
  forgotten = false;
  revision = 0;
  chunk: RevisionChunk | undefined = undefined;
  offset = 0;

  constructor(key: string) {
    this.key = key;
  }
}

/** A deletion that is remembered, in the order of revisions (and so of time). */
interface Tombstone extends Placed {
  readonly record: KeyRecord;
  readonly atMs: number;
}

/** When something happens to a future by itself; undefined: never. */
export const instantOf = (future: Future): number | undefined => {
  switch (future.state) {
    case 'pending':
      return future.deadlineAtMs;
    case 'resolved':
    case 'rejected':
      return future.expiresAtMs;
    case 'expired':
      return undefined;
    default:
      return unreachable(future.state, 'a state');
  }
};

/** At a quarter of a microsecond each these are a few milliseconds. */
const recordsPerStep = 16_384;

export class FutureTable {
  readonly #records = new ShardedMap<KeyRecord>();
  /** Of the keys that are there, without the deleted. */
  readonly ordered = new KeyOrder();
  /** Of the deleted that are remembered. */
  readonly deleted = new KeyOrder();
  /** Of all keys, the deleted included. */
  readonly revisions = new RevisionIndex<KeyRecord>();
  readonly #tombstones = new RevisionIndex<Tombstone>();
  readonly #wheel: TimerWheel<KeyRecord | Session>;
  /** What each principal has of all futures. */
  readonly usage = new Usage();
  /** Whose records are rewritten later. */
  readonly expiries = new ExpiryGroups();
  #dirty: KeyRecord[] = [];

  constructor(wheel: TimerWheel<KeyRecord | Session>) {
    this.#wheel = wheel;
  }

  get tombstones(): number {
    return this.#tombstones.size;
  }

  find(key: string): KeyRecord | undefined {
    return this.#records.get(key);
  }

  records(): Generator<KeyRecord, void, undefined> {
    return this.#records.values();
  }

  /** Puts what an operation made of `key`, whose record is `known` if it has one; `slot.future` has `revision`. */
  put(key: string, known: KeyRecord | undefined, slot: Slot, revision: number, nowMs: number): void {
    const record = known ?? this.#create(key);
    this.#place(record, slot, revision, nowMs);
    this.#touch(record);
  }

  /** As `put`, for one of many that end by themselves. */
  end(record: KeyRecord, slot: Slot, group: ExpiryGroup): void {
    this.#place(record, slot, group.revision, group.atMs);
    // What has changed before in this turn is written in any case.
    if (record.dirty) return;
    group.keys.push(record.key);
    group.generations.push(record.lastGeneration);
    this.expiries.add(group, record);
  }

  /** Between `load` and `placeLoaded`: what a group says of a key whose own record is older. */
  endLoaded(record: KeyRecord, future: Future, group: ExpiryGroup): void {
    this.usage.replace(record, { future, payer: undefined });
    record.future = future;
    record.payer = undefined;
    record.revision = group.revision;
    this.expiries.add(group, record);
  }

  #place(record: KeyRecord, slot: Slot, revision: number, nowMs: number): void {
    if (record.chunk !== undefined) this.revisions.remove(record);
    this.#fill(record, slot, revision, nowMs);
    this.revisions.append(record);
  }

  /**
   * As read from a record of the state; the caller calls `placeLoaded` once, with all of them in the order of
   * revisions. undefined: the key was there already.
   */
  load(key: string, slot: Slot, revision: number, deletedAtMs: number): KeyRecord | undefined {
    const record = new KeyRecord(key);
    if (!this.#records.add(key, record)) return undefined;
    this.#fill(record, slot, revision, deletedAtMs, false);
    return record;
  }

  /** Between `load` and `placeLoaded`. */
  tieLoaded(record: KeyRecord, session: Session): void {
    assert(record.tied === undefined && record.future?.state === 'pending', 'a loaded key cannot be tied');
    record.tied = session;
    (session.tied ??= new Set()).add(record);
  }

  /** In steps. */
  *placeLoaded(records: readonly KeyRecord[]): Generator<void, void, undefined> {
    let placed = 0;
    for (const record of records) {
      placed += 1;
      if (placed % recordsPerStep === 0) yield;
      this.revisions.append(record);
      if (record.tombstone !== undefined) this.#tombstones.append(record.tombstone);
      this.#schedule(record);
    }
  }

  /**
   * Forgets the oldest deletion, and all others of the same revision: what is remembered must not depend on an order
   * within a revision, which a snapshot does not keep. Gives what the floors must be raised to; undefined: the oldest
   * one is to be kept.
   */
  forgetOldest(mayForget: (oldest: Tombstone) => boolean): Forgotten | undefined {
    const oldest = this.#tombstones.first;
    if (oldest === undefined || !mayForget(oldest)) return undefined;
    const group: Tombstone[] = [];
    this.#tombstones.walk(oldest.revision - 1, (tombstone) => {
      if (tombstone.revision !== oldest.revision) return false;
      group.push(tombstone);
      return true;
    });
    let generation = 0;
    for (const tombstone of group) {
      const { record } = tombstone;
      generation = Math.max(generation, record.lastGeneration);
      this.#tombstones.remove(tombstone);
      this.deleted.delete(record.key);
      record.tombstone = undefined;
      this.revisions.remove(record);
      this.#records.delete(record.key);
      record.forgotten = true;
      this.#touch(record);
    }
    return { revision: oldest.revision, generation, count: group.length };
  }

  /** Visits every key that changed or was forgotten since the last call, once; undefined: it is not known any more. */
  takeDirty(visit: (key: string, record: KeyRecord | undefined) => void): void {
    const dirty = this.#dirty;
    this.#dirty = [];
    for (const record of dirty) {
      record.dirty = false;
      if (!record.forgotten) visit(record.key, record);
      // Begun anew since: the new record is dirty itself.
      else if (!this.#records.has(record.key)) visit(record.key, undefined);
    }
  }

  #create(key: string): KeyRecord {
    const record = new KeyRecord(key);
    assert(this.#records.add(key, record), 'a key has two records');
    return record;
  }

  #touch(record: KeyRecord): void {
    this.expiries.leave(record);
    if (record.dirty) return;
    record.dirty = true;
    this.#dirty.push(record);
  }

  #fill(record: KeyRecord, slot: Slot, revision: number, nowMs: number, place = true): void {
    const { future, tied } = slot;
    assert(
      future === undefined || future.revision === revision,
      'a future has another revision than its change',
    );
    assert(
      tied === undefined || future?.state === 'pending',
      'a future that is not pending is tied to a session',
    );
    if (record.tombstone !== undefined) {
      this.#tombstones.remove(record.tombstone);
      this.deleted.delete(record.key);
      record.tombstone = undefined;
    }
    if (future === undefined) {
      if (record.future !== undefined) this.ordered.delete(record.key);
      record.tombstone = { record, atMs: nowMs, revision, chunk: undefined, offset: 0 };
      this.deleted.add(record.key);
      if (place) this.#tombstones.append(record.tombstone);
    } else if (record.future === undefined) {
      this.ordered.add(record.key);
    }
    this.usage.replace(record, slot);
    record.future = future;
    record.payer = slot.payer;
    record.lastGeneration = slot.lastGeneration;
    record.createdRevision = slot.createdRevision;
    record.revision = revision;
    if (record.tied !== tied) {
      record.tied?.tied?.delete(record);
      if (tied !== undefined) (tied.tied ??= new Set()).add(record);
      record.tied = tied;
    }
    if (place) this.#schedule(record);
  }

  #schedule(record: KeyRecord): void {
    if (record.timer !== undefined) {
      this.#wheel.cancel(record.timer);
      record.timer = undefined;
    }
    const atMs = record.future === undefined ? undefined : instantOf(record.future);
    if (atMs !== undefined) record.timer = this.#wheel.add(atMs, record);
  }
}

interface Forgotten {
  readonly revision: number;
  /** The highest among them. */
  readonly generation: number;
  readonly count: number;
}
