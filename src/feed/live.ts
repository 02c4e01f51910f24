import assert from 'node:assert/strict';
import type { Change, SharedChange } from '../protocol/index.ts';
import { SegmentTrie, type Pattern } from '../scopes/index.ts';
import type { Encodings } from './encodings.ts';
import type { Schedule } from './schedule.ts';
import type { Subscription } from './subscription.ts';

const failOrder = (revision: number, before: number): never =>
  assert.fail(`revision ${revision} came after ${before}: changes must be passed in once and in order`);

/**
 * Routes changes to live subscriptions as they happen. A revision is admitted to a subscription as a whole or not at
 * all, because a position names a revision; one that finds no room falls behind, with its cursor before that revision.
 */
export class Live {
  readonly #encodings: Encodings;
  readonly #schedule: Schedule;
  readonly #trie = new SegmentTrie<Subscription>();
  /** All changes up to it have been routed. */
  #revision: number;
  /** The change being routed: its number, itself, and its encoding once somebody needed it. */
  #number = 0;
  #change: Change | undefined;
  #shared: SharedChange | undefined;
  /** Those to whom the revision being routed matters. */
  readonly #touched: Subscription[] = [];
  /** One closure for all changes. */
  readonly #visit = (subscription: Subscription): void => this.#admit(subscription);

  constructor(encodings: Encodings, schedule: Schedule, revision: number) {
    this.#encodings = encodings;
    this.#schedule = schedule;
    this.#revision = revision;
  }

  get revision(): number {
    return this.#revision;
  }

  jump(revision: number): void {
    this.#revision = revision;
  }

  add(patterns: readonly Pattern[], subscription: Subscription): void {
    for (const pattern of patterns) this.#trie.add(pattern, subscription);
  }

  remove(patterns: readonly Pattern[], subscription: Subscription): void {
    for (const pattern of patterns) this.#trie.remove(pattern, subscription);
  }

  route(changes: readonly Change[]): void {
    const first = changes[0];
    if (first === undefined) return;
    if (first.revision <= this.#revision) failOrder(first.revision, this.#revision);
    let { revision } = first;
    for (const change of changes) {
      if (change.revision !== revision) {
        if (change.revision < revision) failOrder(change.revision, revision);
        this.#closeRevision(revision);
        revision = change.revision;
      }
      this.#number += 1;
      this.#change = change;
      this.#trie.match(change.key, this.#visit);
      this.#shared = undefined;
    }
    this.#closeRevision(revision);
    this.#change = undefined;
    this.#revision = revision;
  }

  #admit(subscription: Subscription): void {
    const change = this.#change;
    assert(change !== undefined, 'a subscription was visited while no change was routed');
    // A subscription may have read a revision from the state before it was routed.
    if (!subscription.live || subscription.seen === this.#number || change.revision <= subscription.cursor)
      return;
    subscription.seen = this.#number;
    this.#shared ??= this.#encodings.of(change, change.kind === 'future' ? change.future : undefined);
    subscription.pending ??= [];
    if (subscription.groupStart < 0) {
      subscription.groupStart = subscription.pending.length;
      this.#touched.push(subscription);
    }
    subscription.pending.push(this.#shared);
    subscription.groupBytes += this.#shared.encoded.length;
    subscription.connection.outstanding += this.#shared.encoded.length;
  }

  /** The revision is whole: it stays where it fits, and is taken back where it does not. */
  #closeRevision(revision: number): void {
    for (const subscription of this.#touched) {
      const { connection, groupBytes, groupStart, pending } = subscription;
      subscription.groupStart = -1;
      subscription.groupBytes = 0;
      connection.outstanding -= groupBytes;
      if (this.#schedule.fits(connection, groupBytes)) {
        connection.outstanding += groupBytes;
        this.#schedule.flush(subscription);
      } else {
        if (groupStart === 0) subscription.pending = undefined;
        else if (pending !== undefined) pending.length = groupStart;
        subscription.cursor = revision - 1;
        this.#schedule.block(connection, groupBytes);
        this.#schedule.lag(subscription);
      }
    }
    this.#touched.length = 0;
  }
}
