/** The requests of one connection that are in flight: from their admission until their answer has been sent. */
import type { Operation, RequestBody } from '../protocol/index.ts';

/** What a request is, as far as its end matters to the connection. Those of a session carry its number instead. */
export const flights = { plain: 0, subscribing: 1, opening: 2, answered: 3 } as const;

/** Sessions of a connection are numbered from here on. */
export const firstSessionNumber = 4;

/** Smaller writes are bounded well enough by the number of requests in flight. */
const largeWriteBytes = 4 * 1024;

export class Flights {
  /** Request id → one of `flights`, or the number (≥ 4) of the session that it belongs to. */
  readonly #requests = new Map<number, number>();
  /** What is read by those of them that read: looked at again when policies change. */
  readonly #reads = new Map<number, RequestBody>();
  /** Of the large writes among them that have no answer yet. Made when there is one: thousands of agents only wait. */
  #writeBytes: Map<number, number> | undefined;
  #writeBytesSum = 0;
  #subscribing = 0;
  #opening = 0;
  /** Their answers are large: they count until they have been sent. */
  #snapshotReads: Set<number> | undefined;

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

  /** The values of large writes that have no answer yet. */
  get writeBytes(): number {
    return this.#writeBytesSum;
  }

  has(request: number): boolean {
    return this.#requests.has(request);
  }

  /** What it is; undefined: it is not in flight. */
  kindOf(request: number): number | undefined {
    return this.#requests.get(request);
  }

  /** By request, up to when its answer has been sent. */
  get reads(): ReadonlyMap<number, RequestBody> {
    return this.#reads;
  }

  /** `body` of what reads. */
  begin(request: number, flight: number, body?: RequestBody): void {
    this.#requests.set(request, flight);
    if (body !== undefined) this.#reads.set(request, body);
    if (flight === flights.subscribing) this.#subscribing += 1;
    if (flight === flights.opening) this.#opening += 1;
  }

  beginSnapshotRead(request: number, body: RequestBody): void {
    this.begin(request, flights.plain, body);
    (this.#snapshotReads ??= new Set()).add(request);
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
    const flight = this.#requests.get(request);
    if (flight === undefined || flight === flights.answered) return undefined;
    this.#requests.set(request, flights.answered);
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
    this.#reads.delete(request);
    this.#snapshotReads?.delete(request);
  }

  clear(): void {
    this.#requests.clear();
    this.#reads.clear();
    this.#writeBytes = undefined;
    this.#writeBytesSum = 0;
    this.#subscribing = 0;
    this.#opening = 0;
    this.#snapshotReads = undefined;
  }
}
