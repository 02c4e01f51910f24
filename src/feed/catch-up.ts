import assert from 'node:assert/strict';
import type { SharedChange } from '../protocol/index.ts';
import type { Encodings } from './encodings.ts';
import type { Live } from './live.ts';
import type { Schedule } from './schedule.ts';
import { patternsOf, withinOf, type Reading, type Subscription } from './subscription.ts';
import type { ChangesPage, FeedSource } from './types.ts';
import type { Work } from './work.ts';

/** A slice is what one subscription gets before it is another's turn: a fraction of a millisecond. */
const slice = { changes: 256, visits: 1024, bytes: 64 * 1024 } as const;

/** Reads lagging subscriptions on from their cursors, one slice at a time. */
export class CatchUp {
  readonly #encodings: Encodings;
  readonly #schedule: Schedule;
  readonly #live: Live;

  constructor(encodings: Encodings, schedule: Schedule, live: Live) {
    this.#encodings = encodings;
    this.#schedule = schedule;
    this.#live = live;
  }

  /**
   * Admits what is next and fits, moves the cursor, and makes the push. Afterwards the subscription is live, or it
   * has more to read, or its connection has no room.
   */
  advance(subscription: Subscription, work: Work, source: FeedSource): void {
    const { reading, connection } = subscription;
    assert(
      reading !== undefined && subscription.pending === undefined,
      'what was admitted goes before what is read',
    );
    const flow = this.#schedule.flowOf(connection);
    const admitted: SharedChange[] = [];
    const before = flow.outstanding;
    if (subscription.cursor < source.revision) {
      const page = this.#read(subscription, reading, work, source);
      this.#admit(subscription, reading, page, admitted, work, source);
    }
    const caughtUp = !reading.caughtUp && subscription.cursor >= reading.target;
    if (caughtUp) reading.caughtUp = true;
    if (subscription.cursor >= source.revision)
      this.#live.add(reading.patterns ?? patternsOf(subscription.texts), subscription);
    const bytes = flow.outstanding - before;
    work.spend(1 + admitted.length, bytes);
    if (admitted.length === 0 && !caughtUp) return;
    work.events.push({
      kind: 'push',
      gateway: connection.gateway,
      connection: connection.id,
      subscription: subscription.request,
      changes: admitted,
      revision: subscription.cursor,
      caughtUp,
      bytes,
    });
  }

  #read(subscription: Subscription, reading: Reading, work: Work, source: FeedSource): ChangesPage {
    const { cursor } = subscription;
    const patterns = (reading.patterns ??= patternsOf(subscription.texts));
    const within = (reading.within ??= withinOf(subscription.within));
    // One revision may have more changes than a slice (a lost session rejects all that was tied to it): then the
    // slice grows until the revision is whole.
    for (let times = 1; times <= 2 ** 20; times *= 4) {
      // Each record is held against each pattern.
      const visitMax = Math.ceil((slice.visits * times) / patterns.length);
      const page = source.changesAfter({
        revision: cursor,
        patterns,
        within,
        manyKeys: reading.manyKeys,
        limit: slice.changes * times,
        bytesMax: slice.bytes * times,
        visitMax,
      });
      reading.manyKeys = page.manyKeys;
      work.spend(page.looked, 0);
      if (page.upTo > cursor) return page;
    }
    return assert.fail(
      `the source gives no page after revision ${cursor} however large, though it is at ${source.revision}`,
    );
  }

  /** As much of the page as fits: then the cursor stands right before what does not. */
  #admit(
    subscription: Subscription,
    reading: Reading,
    page: ChangesPage,
    admitted: SharedChange[],
    work: Work,
    source: FeedSource,
  ): void {
    let revision = subscription.cursor;
    /** Where the revision begins in `admitted`. */
    let start = 0;
    let bytes = 0;
    for (const change of page.changes) {
      if (change.revision > page.upTo) break;
      if (change.revision < revision) {
        assert.fail(`the source gave revision ${change.revision} after ${revision}`);
      }
      if (change.revision > revision) {
        if (!this.#close(subscription, revision, bytes, admitted, start)) return;
        revision = change.revision;
        start = admitted.length;
        bytes = 0;
      }
      if (change.kind === 'deleted' && change.revision <= reading.base) continue;
      const shown = change.kind === 'future' ? source.fresh(change.future, work.nowMs) : undefined;
      const shared = this.#encodings.of(change, shown);
      admitted.push(shared);
      bytes += shared.encoded.length;
    }
    if (!this.#close(subscription, revision, bytes, admitted, start)) return;
    assert(subscription.connection.flow?.needed === 0, 'a connection without room was given a slice');
    subscription.cursor = page.upTo;
  }

  /** The revision is whole: admits it where it fits, else takes it back. */
  #close(
    subscription: Subscription,
    revision: number,
    bytes: number,
    admitted: SharedChange[],
    start: number,
  ): boolean {
    const flow = this.#schedule.flowOf(subscription.connection);
    if (bytes === 0 || this.#schedule.fits(flow, bytes)) {
      flow.outstanding += bytes;
      return true;
    }
    admitted.length = start;
    subscription.cursor = revision - 1;
    this.#schedule.block(flow, bytes);
    return false;
  }
}
