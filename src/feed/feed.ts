import assert from 'node:assert/strict';
import { encodeChange, type Change, type Failure } from '../protocol/index.ts';
import { parsePattern } from '../scopes/index.ts';
import { type Connection, Connections, type Entry } from './connections.ts';
import { Encodings } from './encodings.ts';
import { Notices } from './notices.ts';
import { originOf, Subscription } from './subscription.ts';
import { Subscriptions } from './subscriptions.ts';
import type {
  AwaitRequest,
  FeedCounts,
  FeedEvent,
  FeedOptions,
  FeedSource,
  SubscribeRequest,
  Waiting,
} from './types.ts';
import { Wait } from './wait.ts';
import { Waits } from './waits.ts';
import { defaultVisits, Work } from './work.ts';

/**
 * Routes changes to those who wait for them. Driven by the server's loop: requests and notices of the gateways go
 * in, then `changed` after each apply, then `take` until nothing is `pending` or the turn is over.
 */
export class Feed {
  readonly #waitingKeysMax: number;
  readonly #bytesPerTakeMax: number;
  readonly #connections = new Connections();
  readonly #notices = new Notices(this.#connections);
  readonly #waits = new Waits(this.#connections);
  readonly #subscriptions: Subscriptions;
  #source: FeedSource;

  constructor({
    source,
    windowBytes = 64 * 1024,
    waitingKeysPerConnectionMax = 65_536,
    bytesPerTakeMax = 4 * 1024 * 1024,
    encodingsBytesMax = 8 * 1024 * 1024,
    encode = encodeChange,
    admissionsPerTurn,
  }: FeedOptions) {
    assert(windowBytes >= 1, `a window of ${windowBytes} bytes is none`);
    this.#source = source;
    this.#waitingKeysMax = waitingKeysPerConnectionMax;
    this.#bytesPerTakeMax = bytesPerTakeMax;
    this.#subscriptions = new Subscriptions({
      connections: this.#connections,
      encodings: new Encodings(encode, encodingsBytesMax),
      notices: this.#notices,
      windowBytes,
      revision: source.revision,
      admissionsPerTurn,
    });
  }

  /**
   * Answered by a `take` as soon as, at that moment, all keys of one alternative are resolved and fresh (with all of
   * its futures) or any key is rejected (with that future alone). States that came and went between two `take`s are
   * not seen. Timeouts are the caller's business: it cancels. LIMIT_EXCEEDED where the connection waits for too many
   * keys already; then nothing waits, and undefined is given.
   */
  await(
    { gateway, connection: id, request, alternatives, leastGeneration }: AwaitRequest,
    nowMs: number,
  ): Waiting | undefined {
    assert(
      alternatives.length > 0 && alternatives.every((keys) => keys.length > 0),
      `request ${request} of connection ${id} awaits no alternative, or one without keys: the gateway must refuse it`,
    );
    const connection = this.#connections.findOrMake(gateway, id);
    const wait = new Wait(connection, request, alternatives, leastGeneration ?? 0);
    if (connection.waitingKeys + wait.slots <= this.#waitingKeysMax) {
      this.#waits.add(wait, this.#source, nowMs);
      return wait;
    }
    this.#refuse(connection, request, {
      code: 'LIMIT_EXCEEDED',
      message:
        `The awaits of this connection name ${connection.waitingKeys} keys and this one ${wait.slots} more; ` +
        `at most ${this.#waitingKeysMax} are allowed: wait for fewer at a time`,
    });
    return undefined;
  }

  /** Answered with the position it starts from; then pushes, until it is cancelled or ended. */
  subscribe({ gateway, connection: id, request, patterns, within, start }: SubscribeRequest): void {
    const connection = this.#connections.findOrMake(gateway, id);
    for (const text of patterns) {
      const parsed = parsePattern(text);
      if (parsed.ok) continue;
      this.#refuse(connection, request, {
        code: 'INVALID_KEY',
        message: `The pattern ${JSON.stringify(text)} ${parsed.problem}`,
      });
      return;
    }
    assert(patterns.length > 0, `subscription ${request} of connection ${id} has no pattern`);
    const different = new Map(patterns.map((text, number) => [text, within?.[number] ?? '']));
    const [text = '', ...others] = different.keys();
    const texts = others.length === 0 ? text : [text, ...others];
    const scope = { texts, within: within === undefined ? undefined : [...different.values()] };
    this.#subscriptions.add(connection, request, scope, originOf(start, this.#source), this.#source);
  }

  /** The request is over: nothing more comes of it. Unknown ones are ignored (it may just have been answered). */
  cancel(gateway: number, id: number, request: number): void {
    const connection = this.#connections.find(gateway, id);
    const entry = connection?.find(request);
    if (connection === undefined || entry === undefined) return;
    this.#remove(entry);
    this.#connections.release(connection);
  }

  /** All of the connection's requests are over. */
  closed(gateway: number, id: number): void {
    const connection = this.#connections.find(gateway, id);
    if (connection === undefined) return;
    for (const entry of connection.requests()) this.#remove(entry);
    this.#connections.remove(connection);
  }

  /** The connection's socket has taken so many bytes of pushes. */
  delivered(gateway: number, id: number, bytes: number): void {
    const connection = this.#connections.find(gateway, id);
    if (connection === undefined) return;
    this.#subscriptions.delivered(connection, bytes);
    this.#connections.release(connection);
  }

  /** After each apply, with its changes in the order of revisions; the source has them already. */
  changed(changes: readonly Change[], nowMs: number): void {
    const last = changes.at(-1);
    if (last === undefined) return;
    assert(
      last.revision <= this.#source.revision,
      `revision ${last.revision} is not applied yet: the source is at ${this.#source.revision}`,
    );
    this.#waits.changed(changes, this.#source, nowMs);
    this.#subscriptions.changed(changes);
  }

  /**
   * What is to be delivered now, at cluster time `nowMs`: no value in it is past its time. Answers come before the
   * pushes of the same subscription. It stops at the first step that makes `visitsMax` events, keys read and changes
   * looked at, or reaches the bytes of one `take`; then `pending` is left true.
   */
  take(nowMs: number, visitsMax: number = defaultVisits): FeedEvent[] {
    const work = new Work(nowMs, visitsMax, this.#bytesPerTakeMax);
    this.#notices.take(work);
    // Awaits that complete without end leave subscriptions half of each turn.
    if (this.#subscriptions.pending) work.reserveHalf();
    this.#waits.take(work, this.#source);
    work.useReserve();
    this.#subscriptions.take(work, this.#source);
    return work.events;
  }

  /** There is more to take now, without anything else happening. */
  get pending(): boolean {
    return this.#notices.pending || this.#waits.pending || this.#subscriptions.pending;
  }

  /**
   * A snapshot was installed: the state has jumped, without changes. All waits are looked at again; subscriptions
   * read on from where they stood, or are ended (UNAVAILABLE) where that would leave a gap.
   */
  replaceSource(source: FeedSource): void {
    const sameHistory = source.clusterId === this.#source.clusterId && source.epoch === this.#source.epoch;
    this.#source = source;
    this.#waits.reviewAll();
    this.#subscriptions.sourceReplaced(source, sameHistory);
  }

  /** Whether a subscription of the connection has changes to come that are known here. */
  behind(gateway: number, id: number): boolean {
    const flow = this.#connections.find(gateway, id)?.flow;
    return flow !== undefined && flow.flushing.length + flow.lagging.length > 0;
  }

  /**
   * The revision up to which all subscriptions of the connection have been served by the events taken so far, for
   * its heartbeat; undefined: one of them is behind.
   */
  progress(gateway: number, id: number): number | undefined {
    return this.behind(gateway, id) ? undefined : this.#subscriptions.revision;
  }

  get counts(): FeedCounts {
    return {
      waits: this.#waits.count,
      waitingKeys: this.#waits.keys,
      subscriptions: this.#subscriptions.count,
    };
  }

  #remove(entry: Entry): void {
    if (entry instanceof Wait) this.#waits.remove(entry);
    else if (entry instanceof Subscription) this.#subscriptions.remove(entry);
    else entry.connection.finish(entry);
  }

  #refuse(connection: Connection, request: number, failure: Failure): void {
    this.#notices.close(connection, request, {
      kind: 'answer',
      gateway: connection.gateway,
      connection: connection.id,
      request,
      body: { kind: 'failed', failure },
    });
  }
}
