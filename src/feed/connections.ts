import assert from 'node:assert/strict';
import type { Subscription } from './subscription.ts';

/** A request that is not over yet: a wait, a subscription, or an answer that has yet to be taken. */
export interface Entry {
  readonly connection: Connection;
  readonly request: number;
  /** Answered, ended, cancelled or its connection closed: nothing more may be said about it. */
  readonly over: boolean;
  end(): void;
}

/** What is under way to a connection, or to be read for it. */
export interface Flow {
  /** Bytes of changes that were admitted and that its socket has not taken yet; some may wait for `take`. */
  outstanding: number;
  /** Bytes that did not fit into the window: while not 0, its lagging subscriptions stay where they are. */
  needed: number;
  /** With admitted changes that are to be taken. */
  readonly flushing: Subscription[];
  /** Not live: in the order in which they get their next slice. */
  readonly lagging: Subscription[];
  /** In the schedule's ring. */
  scheduled: boolean;
}

/** What the feed knows of one connection. Made with its first request, gone with its last one or its end. */
export class Connection {
  readonly gateway: number;
  readonly id: number;
  /** A lone one, which is the usual case, without a map around it: that would be 200 bytes. */
  #requests: Entry | Map<number, Entry> | undefined;
  /** Keys named by its waits; never beyond the limit. */
  waitingKeys = 0;
  /** Undefined while nothing is: so it is with most connections, and an idle one takes 64 bytes. */
  flow: Flow | undefined;

  constructor(gateway: number, id: number) {
    this.gateway = gateway;
    this.id = id;
  }

  get hasRequests(): boolean {
    return this.#requests !== undefined;
  }

  find(request: number): Entry | undefined {
    const present = this.#requests;
    if (present instanceof Map) return present.get(request);
    return present?.request === request ? present : undefined;
  }

  /** As they are now: some may end while they are gone through. */
  requests(): readonly Entry[] {
    const present = this.#requests;
    if (present === undefined) return [];
    return present instanceof Map ? [...present.values()] : [present];
  }

  add(entry: Entry): void {
    assert(
      this.find(entry.request) === undefined,
      `request ${entry.request} of connection ${this.id} is in flight already: the gateway must refuse the second`,
    );
    const present = this.#requests;
    if (present === undefined) this.#requests = entry;
    else if (present instanceof Map) present.set(entry.request, entry);
    else {
      this.#requests = new Map([
        [present.request, present],
        [entry.request, entry],
      ]);
    }
  }

  /** The entry is over: nothing more will be said about it. */
  finish(entry: Entry): void {
    assert(!entry.over && this.find(entry.request) === entry, `request ${entry.request} ended twice`);
    entry.end();
    const present = this.#requests;
    if (!(present instanceof Map)) {
      this.#requests = undefined;
      return;
    }
    present.delete(entry.request);
    if (present.size === 1) for (const lone of present.values()) this.#requests = lone;
  }
}

/** All connections that have something to wait for, or bytes to give back. */
export class Connections {
  readonly #gateways = new Map<number, Map<number, Connection>>();

  find(gateway: number, id: number): Connection | undefined {
    return this.#gateways.get(gateway)?.get(id);
  }

  findOrMake(gateway: number, id: number): Connection {
    let connections = this.#gateways.get(gateway);
    if (connections === undefined) {
      connections = new Map();
      this.#gateways.set(gateway, connections);
    }
    let connection = connections.get(id);
    if (connection === undefined) {
      connection = new Connection(gateway, id);
      connections.set(id, connection);
    }
    return connection;
  }

  /** Forgets a connection that has nothing left, so that an idle one costs nothing here. */
  release(connection: Connection): void {
    const outstanding = connection.flow?.outstanding ?? 0;
    if (!connection.hasRequests && outstanding === 0) this.remove(connection);
  }

  remove(connection: Connection): void {
    const connections = this.#gateways.get(connection.gateway);
    if (connections?.get(connection.id) !== connection) return;
    connections.delete(connection.id);
    if (connections.size === 0) this.#gateways.delete(connection.gateway);
  }

  *all(): Generator<Connection> {
    for (const connections of this.#gateways.values()) yield* connections.values();
  }
}
