import assert from 'node:assert/strict';
import type { Connection } from './connections.ts';
import { Queue } from './queue.ts';
import type { Subscription } from './subscription.ts';

/**
 * Whose turn it is: a ring of the connections that have something to be done for, each once. And what a connection's
 * window admits, because a connection without room has nothing to be done for until `delivered`.
 */
export class Schedule {
  readonly #windowBytes: number;
  readonly #ring = new Queue<Connection>();

  constructor(windowBytes: number) {
    this.#windowBytes = windowBytes;
  }

  get pending(): boolean {
    return this.#ring.length > 0;
  }

  /** Something always fits into an empty window: else what is larger than the window would never go. */
  fits(connection: Connection, bytes: number): boolean {
    return connection.outstanding === 0 || connection.outstanding + bytes <= this.#windowBytes;
  }

  /** The subscription has admitted changes to be taken. */
  flush(subscription: Subscription): void {
    if (subscription.flushing) return;
    subscription.flushing = true;
    subscription.connection.flushing.push(subscription);
    this.again(subscription.connection);
  }

  /** The subscription reads on from its cursor when it is its turn. */
  lag(subscription: Subscription): void {
    subscription.live = false;
    subscription.connection.lagging.push(subscription);
    this.again(subscription.connection);
  }

  /** The connection's lagging subscriptions wait until so many bytes fit. */
  block(connection: Connection, bytes: number): void {
    assert(
      connection.outstanding > 0 && bytes > 0,
      'a connection without outstanding bytes would wait forever',
    );
    connection.needed = Math.max(connection.needed, bytes);
  }

  /** So many outstanding bytes were taken by the socket, or will never be sent. */
  release(connection: Connection, bytes: number): void {
    connection.outstanding -= bytes;
    if (connection.outstanding < 0) {
      assert.fail(
        `connection ${connection.id} gave back ${-connection.outstanding} bytes more than it was sent: the gateway counts wrongly`,
      );
    }
    // Half a window at once: a reader that takes little by little would cost a look at the state each time.
    const roomy = connection.outstanding * 2 <= this.#windowBytes;
    if (connection.needed === 0 || !roomy || !this.fits(connection, connection.needed)) return;
    connection.needed = 0;
    this.again(connection);
  }

  next(): Connection | undefined {
    const connection = this.#ring.shift();
    if (connection !== undefined) connection.scheduled = false;
    return connection;
  }

  /** Behind all others, if there is something to be done. */
  again(connection: Connection): void {
    const work = connection.flushing.length > 0 || (connection.lagging.length > 0 && connection.needed === 0);
    if (!work || connection.scheduled) return;
    connection.scheduled = true;
    this.#ring.push(connection);
  }

  forget(subscription: Subscription): void {
    const { connection } = subscription;
    const flushingAt = connection.flushing.indexOf(subscription);
    if (flushingAt >= 0) connection.flushing.splice(flushingAt, 1);
    const laggingAt = connection.lagging.indexOf(subscription);
    if (laggingAt >= 0) connection.lagging.splice(laggingAt, 1);
    let bytes = 0;
    for (const shared of subscription.pending ?? []) bytes += shared.encoded.length;
    subscription.pending = undefined;
    subscription.flushing = false;
    this.release(connection, bytes);
  }
}
