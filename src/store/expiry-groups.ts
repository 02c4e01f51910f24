/**
 * Futures that ended by themselves in one command are written down together: one record names them, and their own
 * records are rewritten later, a few at a time. A hundred thousand that end at once would otherwise cost the disk and
 * the loop two thirds of all that they cost.
 *
 * A record of a key always wins over a group of an older or the same revision; so a group may stay behind.
 */
import type { KeyRecord } from './future-table.ts';

export interface ExpiryGroup {
  readonly revision: number;
  /** Cluster time of the change. */
  readonly atMs: number;
  /** As they were when they ended: keys and generations, in order. */
  readonly keys: string[];
  readonly generations: number[];
  /** How many of them have this as their latest change and no record of their own that says so. */
  live: number;
  /** Is on disk, or about to be. */
  written: boolean;
}

/** Keeps account of the groups; the table of keys tells it what happens to their members. */
export class ExpiryGroups {
  /** Members whose own records are to be rewritten, oldest first; those that were rewritten otherwise stay in it. */
  #waiting: KeyRecord[] = [];
  #next = 0;
  #begun: ExpiryGroup[] = [];
  #ended: ExpiryGroup[] = [];
  #live = 0;

  begin(revision: number, atMs: number): ExpiryGroup {
    const group: ExpiryGroup = { revision, atMs, keys: [], generations: [], live: 0, written: false };
    this.#begun.push(group);
    return group;
  }

  /** From disk; `add` follows for each member that counts, then `loaded`. */
  static fromDisk(revision: number, atMs: number, keys: string[], generations: number[]): ExpiryGroup {
    return { revision, atMs, keys, generations, live: 0, written: true };
  }

  loaded(group: ExpiryGroup): void {
    if (group.live === 0) this.#ended.push(group);
  }

  add(group: ExpiryGroup, record: KeyRecord): void {
    record.expiry = group;
    group.live += 1;
    this.#live += 1;
    this.#waiting.push(record);
  }

  /** Its own record is written now, or it is gone. */
  leave(record: KeyRecord): void {
    const group = record.expiry;
    if (group === undefined) return;
    record.expiry = undefined;
    group.live -= 1;
    this.#live -= 1;
    if (group.live === 0) this.#ended.push(group);
  }

  /** Records wait for being rewritten. */
  get waiting(): boolean {
    return this.#live > 0;
  }

  /** Visits at most so many of those that wait; they leave their groups. */
  takeWaiting(max: number, visit: (record: KeyRecord) => void): void {
    for (let left = max; left > 0 && this.#next < this.#waiting.length; this.#next += 1) {
      const record = this.#waiting[this.#next];
      if (record?.expiry === undefined) continue;
      this.leave(record);
      visit(record);
      left -= 1;
    }
    if (this.#next * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
  }

  /** Visits the groups that are to be written or removed since the last call. */
  takeChanged(visit: (group: ExpiryGroup, present: boolean) => void): void {
    for (const group of this.#begun) {
      if (group.live === 0) continue;
      group.written = true;
      visit(group, true);
    }
    this.#begun = [];
    for (const group of this.#ended) if (group.written) visit(group, false);
    this.#ended = [];
  }
}
