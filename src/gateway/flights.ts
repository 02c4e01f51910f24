/** The requests of one connection that are in flight: from their admission until their answer has been sent. */
import type { Operation, RequestBody } from '../protocol/index.ts';

/** What a request is, as far as its end matters to the connection. Those of a session carry its number instead. */
export const flights = { plain: 0, subscribing: 1, opening: 2, answered: 3 } as const;

/** Sessions of a connection are numbered from here on. */
export const firstSessionNumber = 4;

/** Smaller writes are bounded well enough by the number of requests in flight. */
const largeWriteBytes = 4 * 1024;

/** One that reads and has its answer, which may still have to be withdrawn. */
interface Answered {
  readonly read: Read;
}

/** An await of one key, the usual one, is that key: the objects around it would be 160 bytes. */
type Read = string | RequestBody;

const readOf = (body: RequestBody): Read => {
  if (body.kind !== 'await' || body.leastGeneration !== undefined) return body;
  const [first, ...others] = body.alternatives;
  const [key, ...more] = first ?? [];
  return key !== undefined && others.length + more.length === 0 ? key : body;
};

const bodyOf = (read: Read): RequestBody =>
  typeof read === 'string' ? { kind: 'await', alternatives: [[read]] } : read;

const isAnswered = (flight: RequestBody | Answered): flight is Answered => 'read' in flight;

export class Flights {
  /**
   * Request id → what it reads, which is looked at again when policies change; or, of one that reads nothing, one of
   * `flights`, or the number (≥ 4) of the session that it belongs to.
   */
  readonly #requests = new Map<number, number | Read | Answered>();
  /** Of the large writes among them that have no answer yet. Made when there is one: thousands of agents only wait. */
  #writeBytes: Map<number, number> | undefined;
  #writeBytesSum = 0;
  #subscribing = 0;
  #opening = 0;
  /** Their answers are large: they count until they have been sent. */
  #snapshotReads: Set<number> | undefined;
  /** Lists whose page has not been sent yet. */
  #lists: Set<number> | undefined;
  /** Pages that were sent and may still be in the socket. */
  #pagesSent = 0;

  get size(): number {
    return this.#requests.size;
  }

  /** Subscriptions asked for and not answered yet. */
  get subscribing(): number {
    return this.#subscribing;
  }

  /** Whether a session has been asked for and there is no answer yet. */
  get isOpening(): boolean {
    return this.#opening > 0;
  }

  /** Parts of snapshots asked for and not sent yet. */
  get snapshotReads(): number {
    return this.#snapshotReads?.size ?? 0;
  }

  /** Pages of lists that were asked for and may still be somewhere here. */
  get pages(): number {
    return (this.#lists?.size ?? 0) + this.#pagesSent;
  }

  /** The socket holds next to nothing: how many of them have left it since the last call. */
  takePagesSent(): number {
    const pages = this.#pagesSent;
    this.#pagesSent = 0;
    return pages;
  }

  /** The values of large writes that have no answer yet. */
  get writeBytes(): number {
    return this.#writeBytesSum;
  }

  has(request: number): boolean {
    return this.#requests.has(request);
  }

  /** What it is; undefined: it is not in flight. */
  kindOf(request: number): number | undefined {
    const flight = this.#requests.get(request);
    if (flight === undefined || typeof flight === 'number') return flight;
    if (typeof flight === 'string') return flights.plain;
    if (isAnswered(flight)) return flights.answered;
    return flight.kind === 'subscribe' ? flights.subscribing : flights.plain;
  }

  /** What it reads, up to when its answer has been sent; undefined: it does not read, or is not in flight. */
  readBy(request: number): RequestBody | undefined {
    const flight = this.#requests.get(request);
    if (flight === undefined || typeof flight === 'number') return undefined;
    return bodyOf(typeof flight === 'object' && isAnswered(flight) ? flight.read : flight);
  }

  /** By request: `readBy` of all that read. Some may end while they are gone through. */
  *reads(): Generator<readonly [request: number, body: RequestBody]> {
    for (const request of this.#requests.keys()) {
      const body = this.readBy(request);
      if (body !== undefined) yield [request, body];
    }
  }

  /** One that reads nothing: one of `flights`, or the number of its session. */
  begin(request: number, flight: number): void {
    this.#requests.set(request, flight);
    if (flight === flights.opening) this.#opening += 1;
  }

  beginRead(request: number, body: RequestBody): void {
    this.#requests.set(request, readOf(body));
    if (body.kind === 'subscribe') this.#subscribing += 1;
  }

  beginSnapshotRead(request: number, body: RequestBody): void {
    this.beginRead(request, body);
    (this.#snapshotReads ??= new Set()).add(request);
  }

  beginList(request: number, body: RequestBody): void {
    this.beginRead(request, body);
    (this.#lists ??= new Set()).add(request);
  }

  beginWrite(request: number, session: number, operations: readonly Operation[]): void {
    this.begin(request, session);
    let bytes = 0;
    for (const operation of operations) if (operation.kind === 'resolve') bytes += operation.value.length;
    if (bytes < largeWriteBytes) return;
    (this.#writeBytes ??= new Map()).set(request, bytes);
    this.#writeBytesSum += bytes;
  }

  /** It has its answer, which is yet to be sent. Gives what it was; undefined: it was not in flight, or has one already. */
  answered(request: number): number | undefined {
    const flight = this.kindOf(request);
    if (flight === undefined || flight === flights.answered) return undefined;
    const read = this.readBy(request);
    this.#requests.set(request, read === undefined ? flights.answered : { read });
    if (flight === flights.subscribing) this.#subscribing -= 1;
    if (flight === flights.opening) this.#opening -= 1;
    const bytes = this.#writeBytes?.get(request);
    if (bytes !== undefined) {
      this.#writeBytes?.delete(request);
      this.#writeBytesSum -= bytes;
    }
    return flight;
  }

  /** Its answer has been sent: the id is free again. */
  over(request: number): void {
    this.#requests.delete(request);
    this.#snapshotReads?.delete(request);
    if (this.#lists?.delete(request) === true) this.#pagesSent += 1;
  }

  clear(): void {
    this.#requests.clear();
    this.#lists = undefined;
    this.#pagesSent = 0;
    this.#writeBytes = undefined;
    this.#writeBytesSum = 0;
    this.#subscribing = 0;
    this.#opening = 0;
    this.#snapshotReads = undefined;
  }
}
