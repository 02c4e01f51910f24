/** The requests in flight: who asked, and until when an answer is worth anything. */
import type { Waiting } from '../feed/index.ts';
import type { Subject } from '../store/index.ts';
import { Deadlines } from './deadlines.ts';
import type { GatewayRequest, ConnectionId } from './port.ts';

/** A request that has not been answered yet. */
export interface InFlight {
  readonly gateway: number;
  readonly request: GatewayRequest;
  /** Answered, cancelled, timed out, taken over by the feed or its connection closed: nobody waits for it here. */
  over: boolean;
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

/** What the server knows of a connection that has something in flight or a session; of others, nothing. */
interface Connection {
  readonly requests: Map<number, InFlight>;
  session: AttachedSession | undefined;
}

export class Requests {
  /** By gateway number. */
  readonly #gateways: Map<ConnectionId, Connection>[] = [];
  readonly #deadlines = new Deadlines<InFlight>();
  /** Of those that the feed has taken over: no more is kept of an await than what the feed has. */
  readonly #waitDeadlines = new Deadlines<Waiting>();
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
      over: false,
      readOnAfter: undefined,
      command: undefined,
      deadlineMs: timeoutMs === undefined ? Infinity : nowMs + timeoutMs,
    };
    this.#connection(gateway, request.connection).requests.set(request.request, inFlight);
    this.#count += 1;
    if (timeoutMs !== undefined) this.#deadlines.add(inFlight, inFlight.deadlineMs);
    return inFlight;
  }

  find(gateway: number, id: ConnectionId, request: number): InFlight | undefined {
    return this.#connections(gateway).get(id)?.requests.get(request);
  }

  /** Nobody waits for it any more. */
  finish(inFlight: InFlight): void {
    if (inFlight.over) return;
    inFlight.over = true;
    this.#count -= 1;
    const { connection: id, request } = inFlight.request;
    const connections = this.#connections(inFlight.gateway);
    const connection = connections.get(id);
    if (connection === undefined) return;
    connection.requests.delete(request);
    if (connection.requests.size === 0 && connection.session === undefined) connections.delete(id);
  }

  /** The feed answers it from now on, and knows of its end; only its time is watched here. */
  takenOver(inFlight: InFlight, waiting: Waiting): void {
    this.finish(inFlight);
    if (inFlight.deadlineMs !== Infinity) this.#waitDeadlines.add(waiting, inFlight.deadlineMs);
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

  waitsTimedOut(nowMs: number): Waiting[] {
    return this.#waitDeadlines.passed(nowMs);
  }

  /** When the next one times out, by the monotonic clock; Infinity: none does. */
  nextDeadlineMs(): number {
    return Math.min(this.#deadlines.next(), this.#waitDeadlines.next());
  }

  /** Forgets deadlines of what is over; `waits`: how many the feed has. */
  tidy(waits: number): void {
    this.#deadlines.tidy(this.#count);
    this.#waitDeadlines.tidy(waits);
  }

  session(gateway: number, id: ConnectionId): AttachedSession | undefined {
    return this.#connections(gateway).get(id)?.session;
  }

  /** Undefined: it has none any more; its closing is in flight then. */
  setSession(gateway: number, id: ConnectionId, session: AttachedSession | undefined): void {
    this.#connection(gateway, id).session = session;
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

  #connection(gateway: number, id: ConnectionId): Connection {
    const connections = this.#connections(gateway);
    let connection = connections.get(id);
    if (connection === undefined) {
      connection = { requests: new Map(), session: undefined };
      connections.set(id, connection);
    }
    return connection;
  }

  #connections(gateway: number): Map<ConnectionId, Connection> {
    const connections = this.#gateways[gateway];
    if (connections === undefined) throw new RangeError(`no gateway number ${gateway} is attached`);
    return connections;
  }
}
