/** The subscriptions of one connection that are live: from the server's answer until they end. */
import type { Failure } from '../protocol/index.ts';
import type { Outbox } from './outbox.ts';

interface Subscription {
  /** The only one, or all: an array around one would be 56 bytes. */
  readonly patterns: string | readonly string[];
  /** Up to it everything has been sent. */
  revision: number;
}

export class Subscriptions {
  readonly #outbox: Outbox;
  /** By the id of the request that made it. */
  readonly #live = new Map<number, Subscription>();
  /** What heartbeats said last. */
  #servedRevision = 0;

  constructor(outbox: Outbox) {
    this.#outbox = outbox;
  }

  get size(): number {
    return this.#live.size;
  }

  has(subscription: number): boolean {
    return this.#live.has(subscription);
  }

  /** What each asked for. Some may end while they are gone through. */
  *followed(): Generator<readonly [subscription: number, patterns: readonly string[]]> {
    for (const [subscription, { patterns }] of this.#live)
      yield [subscription, typeof patterns === 'string' ? [patterns] : patterns];
  }

  begin(subscription: number, patterns: readonly string[], revision: number): void {
    const [only, ...others] = patterns;
    const kept = only !== undefined && others.length === 0 ? only : patterns;
    this.#live.set(subscription, { patterns: kept, revision });
  }

  /** All its changes up to the revision have been sent. */
  sent(subscription: number, revision: number): void {
    const live = this.#live.get(subscription);
    if (live !== undefined) live.revision = revision;
  }

  /** A heartbeat said that all of them have everything up to this revision. */
  served(revision: number): void {
    this.#servedRevision = revision;
  }

  /** Up to it every subscription has been sent. */
  get sentRevision(): number {
    let lowest = Infinity;
    for (const { revision } of this.#live.values()) lowest = Math.min(lowest, revision);
    return Math.max(this.#servedRevision, lowest);
  }

  /** Says so to the client, with the position to resume from. Without effect where it is not live. */
  end(subscription: number, failure: Failure): void {
    const live = this.#live.get(subscription);
    if (live === undefined) return;
    this.#live.delete(subscription);
    this.#outbox.add({ kind: 'ended', subscription, revision: live.revision, failure });
  }

  clear(): void {
    this.#live.clear();
  }
}
