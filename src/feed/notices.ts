import type { Connection, Connections, Entry } from './connections.ts';
import { Queue } from './queue.ts';
import type { FeedEvent } from './types.ts';
import type { Work } from './work.ts';

/** A request of which only its last word is left to be taken. */
class Closing implements Entry {
  readonly connection: Connection;
  readonly request: number;
  over = false;

  constructor(connection: Connection, request: number) {
    this.connection = connection;
    this.request = request;
  }

  end(): void {
    this.over = true;
  }
}

/** Answers and ends that are known already, in order; those of requests that are over by then are not given out. */
export class Notices {
  readonly #connections: Connections;
  readonly #queue = new Queue<{ readonly entry: Entry; readonly event: FeedEvent }>();

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  get pending(): boolean {
    return this.#queue.length > 0;
  }

  /** Says something about a request that goes on. */
  tell(entry: Entry, event: FeedEvent): void {
    this.#queue.push({ entry, event });
  }

  /** Says the last word about a request that no entry stands for (any more). */
  close(connection: Connection, request: number, event: FeedEvent): void {
    const entry = new Closing(connection, request);
    connection.add(entry);
    this.#queue.push({ entry, event });
  }

  take(work: Work): void {
    while (!work.exhausted) {
      const notice = this.#queue.shift();
      if (notice === undefined) return;
      const { entry, event } = notice;
      if (entry.over) continue;
      work.events.push(event);
      work.spend(1, 0);
      if (!(entry instanceof Closing)) continue;
      entry.connection.finish(entry);
      this.#connections.release(entry.connection);
    }
  }
}
