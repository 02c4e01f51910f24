import assert from 'node:assert/strict';
import type { Change, Failure, Position, SharedChange } from '../protocol/index.ts';
import { CatchUp } from './catch-up.ts';
import type { Connection, Connections, Flow } from './connections.ts';
import type { Encodings } from './encodings.ts';
import { Live } from './live.ts';
import type { Notices } from './notices.ts';
import { Schedule } from './schedule.ts';
import { type Origin, type PatternsAsked, Subscription } from './subscription.ts';
import type { FeedSource } from './types.ts';
import type { Work } from './work.ts';

interface SubscriptionsOptions {
  readonly connections: Connections;
  readonly encodings: Encodings;
  readonly notices: Notices;
  readonly windowBytes: number;
  readonly revision: number;
  readonly admissionsPerTurn: number | undefined;
}

const cutOff = (cursor: number, source: FeedSource): Failure => ({
  code: 'UNAVAILABLE',
  message:
    `The subscription stands at revision ${cursor}, and the deletions up to ${source.forgottenUpTo} are forgotten: ` +
    'subscribe again from its position, which answers with a reset and the present state',
});

const replaced = (cursor: number, source: FeedSource): Failure => ({
  code: 'UNAVAILABLE',
  message:
    `The subscription stands at revision ${cursor} of a state that was replaced by another, at revision ` +
    `${source.revision} of epoch ${source.epoch}: subscribe again from its position, which answers with a reset`,
});

/** All subscriptions: live ones are routed to, lagging ones read on, connection by connection. */
export class Subscriptions {
  readonly #connections: Connections;
  readonly #encodings: Encodings;
  readonly #notices: Notices;
  readonly #schedule: Schedule;
  readonly #live: Live;
  readonly #catchUp: CatchUp;
  #count = 0;

  constructor({
    connections,
    encodings,
    notices,
    windowBytes,
    revision,
    admissionsPerTurn,
  }: SubscriptionsOptions) {
    this.#connections = connections;
    this.#encodings = encodings;
    this.#notices = notices;
    this.#schedule = new Schedule(windowBytes);
    this.#live = new Live(encodings, this.#schedule, revision, admissionsPerTurn);
    this.#catchUp = new CatchUp(encodings, this.#schedule, this.#live);
  }

  get count(): number {
    return this.#count;
  }

  get pending(): boolean {
    return this.#schedule.pending;
  }

  /** All changes up to it have been routed. */
  get revision(): number {
    return this.#live.revision;
  }

  add(
    connection: Connection,
    request: number,
    scope: PatternsAsked,
    origin: Origin,
    source: FeedSource,
  ): void {
    const subscription = new Subscription(connection, request, scope, origin, source.revision);
    connection.add(subscription);
    this.#count += 1;
    const position: Position = {
      clusterId: source.clusterId,
      epoch: source.epoch,
      revision: origin.cursor,
    };
    this.#notices.tell(subscription, {
      kind: 'answer',
      gateway: connection.gateway,
      connection: connection.id,
      request,
      body: { kind: 'subscribed', position, reset: origin.reset },
    });
    this.#schedule.lag(subscription);
  }

  remove(subscription: Subscription): void {
    this.#live.remove(subscription);
    this.#schedule.forget(subscription);
    subscription.connection.finish(subscription);
    this.#count -= 1;
    assert(this.#count >= 0, 'a subscription was removed that was not there');
  }

  changed(changes: readonly Change[]): void {
    this.#live.route(changes);
  }

  delivered(connection: Connection, bytes: number): void {
    this.#schedule.release(connection, bytes);
  }

  /** The state has jumped: everyone reads on from where he stands, or is told that this is no longer his history. */
  sourceReplaced(source: FeedSource, sameHistory: boolean): void {
    const routed = this.#live.revision;
    this.#live.jump(source.revision);
    for (const connection of this.#connections.all()) {
      for (const entry of connection.requests()) {
        if (!(entry instanceof Subscription)) continue;
        if (entry.reading === undefined) {
          entry.cursor = Math.max(entry.cursor, routed);
          this.#live.fallBehind(entry);
        }
        const target = entry.reading?.target ?? 0;
        if (!sameHistory || Math.max(entry.cursor, target) > source.revision) {
          this.#end(entry, replaced(entry.cursor, source));
        }
      }
    }
  }

  take(work: Work, source: FeedSource): void {
    this.#live.beginTurn();
    while (!work.exhausted) {
      const connection = this.#schedule.next();
      if (connection === undefined) return;
      const { flow } = connection;
      // Its requests may have ended since.
      if (flow === undefined) continue;
      this.#flush(connection, flow, work, source);
      if (flow.flushing.length === 0 && !work.exhausted) this.#readOn(flow, work, source);
      this.#schedule.again(connection);
    }
  }

  /** Pushes what was admitted, one push for each subscription. */
  #flush(connection: Connection, flow: Flow, work: Work, source: FeedSource): void {
    let done = 0;
    for (const subscription of flow.flushing) {
      if (work.exhausted) break;
      done += 1;
      const admitted = subscription.pending?.changes;
      subscription.pending = undefined;
      assert(admitted !== undefined && admitted.length > 0, 'nothing was admitted that could be flushed');
      const isLive = subscription.reading === undefined;
      const revision = isLive ? Math.max(subscription.cursor, this.#live.revision) : subscription.cursor;
      const bytes = this.#showAsOf(admitted, connection, work, source);
      work.spend(1 + admitted.length, bytes);
      work.events.push({
        kind: 'push',
        gateway: connection.gateway,
        connection: connection.id,
        subscription: subscription.request,
        changes: admitted,
        revision,
        caughtUp: false,
        bytes,
      });
    }
    flow.flushing.splice(0, done);
  }

  /** Replaces values whose time has passed since they were admitted. Returns the bytes of all. */
  #showAsOf(admitted: SharedChange[], connection: Connection, work: Work, source: FeedSource): number {
    let bytes = 0;
    let admittedBytes = 0;
    for (const [at, shared] of admitted.entries()) {
      admittedBytes += shared.encoded.length;
      const { change } = shared;
      const shown = change.kind === 'future' ? source.fresh(change.future, work.nowMs) : undefined;
      if (change.kind === 'future' && shown !== change.future) {
        const passed = this.#encodings.of(change, shown);
        admitted[at] = passed;
        bytes += passed.encoded.length;
      } else bytes += shared.encoded.length;
    }
    if (bytes !== admittedBytes) this.#schedule.release(connection, admittedBytes - bytes);
    return bytes;
  }

  /** Gives the first of the connection's lagging subscriptions its slice. */
  #readOn(flow: Flow, work: Work, source: FeedSource): void {
    const subscription = flow.lagging[0];
    if (subscription === undefined || flow.needed > 0) return;
    if (subscription.isCutOff(source)) {
      work.spend(1, 0);
      this.#end(subscription, cutOff(subscription.cursor, source));
      return;
    }
    this.#catchUp.advance(subscription, work, source);
    flow.lagging.shift();
    if (subscription.reading !== undefined) flow.lagging.push(subscription);
  }

  #end(subscription: Subscription, failure: Failure): void {
    const { connection, request } = subscription;
    this.remove(subscription);
    this.#notices.close(connection, request, {
      kind: 'ended',
      gateway: connection.gateway,
      connection: connection.id,
      subscription: request,
      failure,
    });
  }
}
