import assert from 'node:assert/strict';
import type { Connection, Flow } from './connections.ts';
import { Queue } from './queue.ts';
import type { Subscription } from './subscription.ts';

const hasWork = ({ flushing, lagging, needed }: Flow): boolean =>
  flushing.length > 0 || (lagging.length > 0 && needed === 0);

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

  /** What is under way to the connection, to be changed. */
  flowOf(connection: Connection): Flow {
    return (connection.flow ??= { outstanding: 0, needed: 0, flushing: [], lagging: [], scheduled: false });
  }

  /** Something always fits into an empty window: else what is larger than the window would never go. */
  fits({ outstanding }: Flow, bytes: number): boolean {
    return outstanding === 0 || outstanding + bytes <= this.#windowBytes;
  }

  /** The subscription has admitted changes to be taken. */
  flush(subscription: Subscription): void {
    const { connection, pending } = subscription;
    assert(pending !== undefined, 'nothing was admitted that could be flushed');
    if (pending.flushing) return;
    pending.flushing = true;
    this.flowOf(connection).flushing.push(subscription);
    this.again(connection);
  }

  /** The subscription, which is not live, reads on from its cursor when it is its turn. */
  lag(subscription: Subscription): void {
    const { connection } = subscription;
    this.flowOf(connection).lagging.push(subscription);
    this.again(connection);
  }

  /** The connection's lagging subscriptions wait until so many bytes fit. */
  block(flow: Flow, bytes: number): void {
    assert(flow.outstanding > 0 && bytes > 0, 'a connection without outstanding bytes would wait forever');
    flow.needed = Math.max(flow.needed, bytes);
  }

  /** So many outstanding bytes were taken by the socket, or will never be sent. */
  release(connection: Connection, bytes: number): void {
    const { flow } = connection;
    const outstanding = (flow?.outstanding ?? 0) - bytes;
    if (outstanding < 0) {
      assert.fail(
        `connection ${connection.id} gave back ${-outstanding} bytes more than it was sent: the gateway counts wrongly`,
      );
    }
    if (flow === undefined) return;
    flow.outstanding = outstanding;
    // Half a window at once: a reader that takes little by little would cost a look at the state each time.
    const roomy = outstanding * 2 <= this.#windowBytes;
    if (flow.needed > 0 && roomy && this.fits(flow, flow.needed)) {
      flow.needed = 0;
      this.again(connection);
    }
    this.#dropIdle(connection);
  }

  next(): Connection | undefined {
    const connection = this.#ring.shift();
    if (connection?.flow !== undefined) connection.flow.scheduled = false;
    return connection;
  }

  /** Behind all others, if there is something to be done. */
  again(connection: Connection): void {
    const { flow } = connection;
    if (flow === undefined || flow.scheduled) return;
    if (hasWork(flow)) {
      flow.scheduled = true;
      this.#ring.push(connection);
    } else this.#dropIdle(connection);
  }

  forget(subscription: Subscription): void {
    const { connection, pending } = subscription;
    const { flow } = connection;
    if (flow === undefined) return;
    const flushingAt = flow.flushing.indexOf(subscription);
    if (flushingAt >= 0) flow.flushing.splice(flushingAt, 1);
    const laggingAt = flow.lagging.indexOf(subscription);
    if (laggingAt >= 0) flow.lagging.splice(laggingAt, 1);
    let bytes = 0;
    for (const shared of pending?.changes ?? []) bytes += shared.encoded.length;
    subscription.pending = undefined;
    this.release(connection, bytes);
  }

  #dropIdle(connection: Connection): void {
    const { flow } = connection;
    if (flow === undefined || flow.scheduled || flow.outstanding > 0) return;
    if (flow.flushing.length === 0 && flow.lagging.length === 0) connection.flow = undefined;
  }
}
