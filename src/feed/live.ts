import assert from 'node:assert/strict';
import type { Change, SharedChange } from '../protocol/index.ts';
import { SegmentTrie, type Pattern } from '../scopes/index.ts';
import type { Encodings } from './encodings.ts';
import type { Schedule } from './schedule.ts';
import { nothingPending, patternsOf, type Subscription } from './subscription.ts';

/** Of one turn: at 0.1–0.3 µs each this is a few milliseconds, and ten thousand may follow one key. */
const defaultAdmissionsPerTurn = 16_384;

const failOrder = (revision: number, before: number): never =>
  assert.fail(`revision ${revision} came after ${before}: changes must be passed in once and in order`);

/**
 * Routes changes to live subscriptions as they happen. A revision is admitted to a subscription as a whole or not at
 * all, because a position names a revision; one that finds no room falls behind, with its cursor before that revision.
 * So do those for whom a turn has no time left: what thousands of subscriptions are sent of thousands of changes is
 * their product, while those that are behind read on in slices and skip what was overwritten meanwhile.
 */
export class Live {
  readonly #encodings: Encodings;
  readonly #schedule: Schedule;
  readonly #admissionsPerTurn: number;
  /** Live ones only: what lags costs a change nothing. */
  readonly #trie = new SegmentTrie<Subscription>();
  /** All changes up to it have been routed. */
  #revision: number;
  #admissionsLeft: number;
  /** The change being routed: its number, itself, and its encoding once somebody needed it. */
  #number = 0;
  #change: Change | undefined;
  #shared: SharedChange | undefined;
  /** Those to whom the revision being routed matters. */
  readonly #touched: Subscription[] = [];
  /** Those who match the change being routed, and for whom there is no time. */
  readonly #late: Subscription[] = [];
  /** One closure for all changes. */
  readonly #visit = (subscription: Subscription): void => this.#admit(subscription);

  constructor(
    encodings: Encodings,
    schedule: Schedule,
    revision: number,
    admissionsPerTurn: number = defaultAdmissionsPerTurn,
  ) {
    this.#encodings = encodings;
    this.#schedule = schedule;
    this.#revision = revision;
    this.#admissionsPerTurn = admissionsPerTurn;
    this.#admissionsLeft = admissionsPerTurn;
  }

  get revision(): number {
    return this.#revision;
  }

  jump(revision: number): void {
    this.#revision = revision;
  }

  /** It is live from now on. */
  add(patterns: readonly Pattern[], subscription: Subscription): void {
    subscription.reading = undefined;
    for (const pattern of patterns) this.#trie.add(pattern, subscription);
  }

  /** It is not there any more. */
  remove(subscription: Subscription): void {
    if (subscription.reading !== undefined) return;
    for (const pattern of patternsOf(subscription.texts)) this.#trie.remove(pattern, subscription);
  }

  /** A live one reads on from its cursor. */
  fallBehind(subscription: Subscription): void {
    this.remove(subscription);
    subscription.fallBehind();
    this.#schedule.lag(subscription);
  }

  /** Others have had their turn. */
  beginTurn(): void {
    this.#admissionsLeft = this.#admissionsPerTurn;
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
      if (this.#late.length > 0) this.#leaveBehind(revision);
    }
    this.#closeRevision(revision);
    this.#change = undefined;
    this.#revision = revision;
  }

  #admit(subscription: Subscription): void {
    const change = this.#change;
    assert(change !== undefined, 'a subscription was visited while no change was routed');
    // A subscription may have read a revision from the state before it was routed.
    if (change.revision <= subscription.cursor) return;
    if (subscription.pending?.seen === this.#number) return;
    if (this.#admissionsLeft === 0) {
      this.#late.push(subscription);
      return;
    }
    this.#admissionsLeft -= 1;
    const pending = (subscription.pending ??= nothingPending());
    pending.seen = this.#number;
    this.#shared ??= this.#encodings.of(change, change.kind === 'future' ? change.future : undefined);
    if (pending.groupStart < 0) {
      pending.groupStart = pending.changes.length;
      this.#touched.push(subscription);
    }
    const bytes = this.#shared.encoded.length;
    pending.changes.push(this.#shared);
    pending.groupBytes += bytes;
    this.#schedule.flowOf(subscription.connection).outstanding += bytes;
  }

  #leaveBehind(revision: number): void {
    for (const subscription of this.#late) {
      // It may match by several of its patterns.
      if (subscription.reading === undefined) this.#takeBack(subscription, revision);
    }
    this.#late.length = 0;
  }

  /** The revision is whole: it stays where it fits, and is taken back where it does not. */
  #closeRevision(revision: number): void {
    for (const subscription of this.#touched) {
      const { pending } = subscription;
      // It was left behind.
      if (pending === undefined || pending.groupStart < 0) continue;
      const { groupBytes } = pending;
      const flow = this.#schedule.flowOf(subscription.connection);
      flow.outstanding -= groupBytes;
      const fits = this.#schedule.fits(flow, groupBytes);
      if (!fits) this.#schedule.block(flow, groupBytes);
      flow.outstanding += groupBytes;
      if (fits) {
        pending.groupStart = -1;
        pending.groupBytes = 0;
        this.#schedule.flush(subscription);
      } else this.#takeBack(subscription, revision);
    }
    this.#touched.length = 0;
  }

  /** It reads the revision from the state, when it is its turn. */
  #takeBack(subscription: Subscription, revision: number): void {
    const { pending, connection } = subscription;
    if (pending !== undefined && pending.groupStart >= 0) {
      this.#schedule.flowOf(connection).outstanding -= pending.groupBytes;
      pending.changes.length = pending.groupStart;
      pending.groupStart = -1;
      pending.groupBytes = 0;
      if (pending.changes.length === 0) subscription.pending = undefined;
    }
    subscription.cursor = revision - 1;
    this.fallBehind(subscription);
  }
}
