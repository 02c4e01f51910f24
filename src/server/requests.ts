/** The requests in flight: who asked, and until when an answer is worth anything. */
import type { Subject } from '../store/index.ts';
import type { GatewayRequest, ConnectionId } from './port.ts';

/** A request that has not been answered yet. */
export interface InFlight {
  readonly gateway: number;
  readonly request: GatewayRequest;
  /** Answered, cancelled, timed out or its connection closed: nobody waits any more. */
  done: boolean;
  /** Of a list that has found nothing yet: behind which key it reads on. */
  readOnAfter: string | undefined;
  /** A write's number in the table of commands. */
  command: number | undefined;
  /** By the monotonic clock; Infinity: none. */
  readonly deadlineMs: number;
}

export interface AttachedSession {
  readonly id: string;
  readonly principal: string;
  readonly graceMs: number;
  readonly subject: Subject;
}

/** What the server knows of a connection that has something in flight or a session. */
export interface Connection {
  readonly requests: Map<number, InFlight>;
  session: AttachedSession | undefined;
}

/** A binary min-heap by deadline. Requests that were answered stay in it until they come up or outnumber the rest. */
class Deadlines {
  #heap: InFlight[] = [];

  add(request: InFlight): void {
    const heap = this.#heap;
    heap.push(request);
    this.#up(heap.length - 1);
  }

  #up(from: number): void {
    const heap = this.#heap;
    let child = from;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      const a = heap[parent] as InFlight;
      const b = heap[child] as InFlight;
      if (a.deadlineMs <= b.deadlineMs) return;
      heap[parent] = b;
      heap[child] = a;
      child = parent;
    }
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop() as InFlight;
    if (heap.length === 0) return;
    heap[0] = last;
    let parent = 0;
    for (;;) {
      let least = parent;
      for (const child of [2 * parent + 1, 2 * parent + 2]) {
        if (
          child < heap.length &&
          (heap[child] as InFlight).deadlineMs < (heap[least] as InFlight).deadlineMs
        )
          least = child;
      }
      if (least === parent) return;
      const a = heap[parent] as InFlight;
      heap[parent] = heap[least] as InFlight;
      heap[least] = a;
      parent = least;
    }
  }

  /** The earliest deadline of a request that still waits; Infinity: none. */
  next(): number {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined) return Infinity;
      if (!first.done) return first.deadlineMs;
      this.#removeFirst();
    }
  }

  passed(nowMs: number): InFlight[] {
    const result: InFlight[] = [];
    while (this.next() <= nowMs) {
      result.push(this.#heap[0] as InFlight);
      this.#removeFirst();
    }
    return result;
  }

  /** Drops what is done when that is most of it. */
  tidy(living: number): void {
    if (this.#heap.length < 1024 || this.#heap.length < living * 2) return;
    this.#heap = this.#heap.filter((request) => !request.done).sort((a, b) => a.deadlineMs - b.deadlineMs);
  }

  get size(): number {
    return this.#heap.length;
  }
}

export class Requests {
  /** By gateway number. */
  readonly #gateways: Map<ConnectionId, Connection>[] = [];
  readonly #deadlines = new Deadlines();
  #count = 0;

  addGateway(): number {
    this.#gateways.push(new Map());
    return this.#gateways.length - 1;
  }

  add(gateway: number, request: GatewayRequest, nowMs: number): InFlight {
    const timeoutMs = 'timeoutMs' in request ? request.timeoutMs : undefined;
    const inFlight: InFlight = {
      gateway,
      request,
      done: false,
      readOnAfter: undefined,
      command: undefined,
      deadlineMs: timeoutMs === undefined ? Infinity : nowMs + timeoutMs,
    };
    this.connection(gateway, request.connection).requests.set(request.request, inFlight);
    this.#count += 1;
    if (timeoutMs !== undefined) {
      this.#deadlines.add(inFlight);
      this.#deadlines.tidy(this.#count);
    }
    return inFlight;
  }

  connection(gateway: number, id: ConnectionId): Connection {
    const connections = this.#connections(gateway);
    let connection = connections.get(id);
    if (connection === undefined) {
      connection = { requests: new Map(), session: undefined };
      connections.set(id, connection);
    }
    return connection;
  }

  find(gateway: number, id: ConnectionId, request: number): InFlight | undefined {
    return this.#connections(gateway).get(id)?.requests.get(request);
  }

  /** Nobody waits for it any more. */
  finish(inFlight: InFlight): void {
    if (inFlight.done) return;
    inFlight.done = true;
    this.#count -= 1;
    const { connection, request } = inFlight.request;
    this.#connections(inFlight.gateway).get(connection)?.requests.delete(request);
  }

  /** Everything of the connection is over; gives what was in flight. */
  close(gateway: number, id: ConnectionId): InFlight[] {
    const connections = this.#connections(gateway);
    const requests = [...(connections.get(id)?.requests.values() ?? [])];
    for (const inFlight of requests) this.finish(inFlight);
    connections.delete(id);
    return requests;
  }

  timedOut(nowMs: number): InFlight[] {
    return this.#deadlines.passed(nowMs);
  }

  /** When the next one times out, by the monotonic clock; Infinity: none does. */
  nextDeadlineMs(): number {
    return this.#deadlines.next();
  }

  *sessions(): IterableIterator<{
    gateway: number;
    connection: ConnectionId;
    session: AttachedSession;
  }> {
    for (const [gateway, connections] of this.#gateways.entries()) {
      for (const [connection, { session }] of connections)
        if (session) yield { gateway, connection, session };
    }
  }

  #connections(gateway: number): Map<ConnectionId, Connection> {
    const connections = this.#gateways[gateway];
    if (connections === undefined) throw new RangeError(`no gateway number ${gateway} is attached`);
    return connections;
  }
}
