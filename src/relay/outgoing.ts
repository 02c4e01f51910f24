/**
 * Writes on their way to the servers. Each is on disk, synced, before anybody is told that it was accepted; they go out
 * one after the other, in the order in which they were accepted, also over restarts of this process.
 *
 * Each happens once. An entry's number is its sequence in the idempotency session, and before it is sent for the first
 * time the name of the session is on disk, too (`mark`): sent again, by this process or the next one, it has the same
 * name, and the cluster gives the answer that it gave before. Only when the session is gone (the relay was away for longer
 * than its grace) while a sent entry was unanswered, or policies that have changed refuse it when it is sent again, nobody
 * can tell; then the key is read. Where it shows just what was asked for, that is the answer, else OUTCOME_UNKNOWN. There
 * is at most one such entry.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { FuturestoreError, isErrorCode, requestProblem } from '../protocol/index.ts';
import type { Future, FutureState, Operation } from '../protocol/index.ts';
import { Bell, until } from './bell.ts';
import { elapsedMs } from './clock.ts';
import type { ClusterClock, Moment } from './clock.ts';
import { operationFromRecord, operationToRecord } from './future-record.ts';
import type { StateDirectory } from './state-directory.ts';
import type { RelayLogger, Uplink } from './uplink.ts';

const entryPrefix = 'queue/';
const outcomePrefix = 'outcome/';
const markName = 'mark';
const nextName = 'next';

/** Sixteen digits hold every safe integer, so that texts are ordered as their numbers are. */
const numberName = (number: number): string => String(number).padStart(16, '0');

/** Of an entry beside key and value. */
const overheadBytes = 512;
/** After a failure that may pass and that the client has not waited for itself. */
const retryMs = 1_000;
const sessionGone =
  'the relay was away from the servers for longer than its session lasts, in the middle of it';
/** A shorter wait takes nothing from a TTL: it is what any write takes. */
const agedFromMs = 1_000;

export interface Entry {
  readonly id: number;
  readonly operation: Operation;
  readonly acceptedAt: Moment;
  readonly bytes: number;
  /** How often it was sent. */
  attempts: number;
  lastError: FuturestoreError | undefined;
}

export interface Committed {
  readonly state: FutureState;
  readonly generation: number;
  readonly revision: number;
  readonly unchanged: boolean;
}

export type Outcome = { readonly id: number; readonly kind: Operation['kind']; readonly key: string } & (
  | { readonly state: 'committed'; readonly result: Committed }
  | { readonly state: 'failed'; readonly error: FuturestoreError }
);

/** Under which session the first entry was sent, or may have been. */
interface Mark {
  readonly id: number;
  readonly session: string;
}

/** What is stored of an error; a code that a later version knows becomes INTERNAL here. */
const errorToRecord = ({ code, message }: FuturestoreError): unknown => ({ code, message });

export class Outgoing {
  readonly #state: StateDirectory;
  readonly #uplink: Uplink;
  readonly #clock: ClusterClock;
  readonly #logger: RelayLogger;
  readonly #limits: {
    readonly queueEntriesMax: number;
    readonly queueBytesMax: number;
    readonly outcomesMax: number;
  };
  readonly #entries = new Map<number, Entry>();
  readonly #outcomes = new Map<number, Outcome>();
  readonly #stopping = new AbortController();
  #bytes = 0;
  #revision = 0;
  /** Of what is being written to disk: counted, but not sent yet. */
  #accepting = 0;
  #next = 1;
  #mark: Mark | undefined;
  /** The mark was made by this process, and its entry never left it. */
  #unsent = false;
  #sender: Promise<void> | undefined;
  readonly changed = new Bell();

  constructor(options: {
    readonly state: StateDirectory;
    readonly uplink: Uplink;
    readonly clock: ClusterClock;
    readonly logger: RelayLogger;
    readonly limits: {
      readonly queueEntriesMax: number;
      readonly queueBytesMax: number;
      readonly outcomesMax: number;
    };
  }) {
    this.#state = options.state;
    this.#uplink = options.uplink;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#limits = options.limits;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Of the last write that was answered. */
  get revision(): number {
    return this.#revision;
  }

  /** How long the first one has been waiting, in milliseconds; undefined: there is none. */
  get oldestMs(): number | undefined {
    const [first] = this.#entries.values();
    return first === undefined ? undefined : this.#ageMs(first);
  }

  /** In the order in which they are sent. */
  entries(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  entry(id: number): Entry | undefined {
    return this.#entries.get(id);
  }

  /** What became of it; undefined: it waits, never was, or was forgotten. */
  outcome(id: number): Outcome | undefined {
    return this.#outcomes.get(id);
  }

  async start(): Promise<void> {
    const next = await this.#state.read(nextName);
    if (typeof next === 'number') this.#next = next;
    this.#mark = (await this.#state.read(markName)) as Mark | undefined;
    for await (const [name, record] of this.#state.readAll(entryPrefix))
      this.#loadEntry(Number(name), record);
    for await (const [name, record] of this.#state.readAll(outcomePrefix)) {
      this.#outcomes.set(Number(name), this.#outcomeFromRecord(record));
    }
    this.#sender = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#sender;
  }

  /**
   * Takes a write; when this is done it is on disk, and will be sent whatever happens to this process. QUEUE_FULL, or what
   * is wrong with it.
   */
  async accept(operation: Operation): Promise<Entry> {
    const body = { kind: 'write', sequence: 1, answeredBelow: 1, operations: [operation] } as const;
    const problem = requestProblem({ id: 1, body });
    if (problem !== undefined) throw new FuturestoreError(problem.code, problem.message);
    const bytes =
      overheadBytes + operation.key.length + (operation.kind === 'resolve' ? operation.value.length : 0);
    this.#checkRoom(bytes);
    const id = this.#next;
    this.#next += 1;
    const entry: Entry = {
      id,
      operation,
      acceptedAt: this.#clock.moment(),
      bytes,
      attempts: 0,
      lastError: undefined,
    };
    this.#bytes += bytes;
    this.#accepting += 1;
    const record = { operation: operationToRecord(operation), acceptedAt: entry.acceptedAt };
    this.#state.put(entryPrefix + numberName(id), record);
    this.#state.put(nextName, this.#next);
    const { session } = this.#uplink;
    // The only one there is goes out at once: its mark shares the sync.
    const marked = this.#accepting === 1 && this.#entries.size === 0 && session !== undefined;
    if (marked) this.#setMark({ id, session });
    await this.#state.synced();
    // In the order of their numbers: a batch keeps it, and promises settle in order.
    this.#accepting -= 1;
    this.#entries.set(id, entry);
    this.changed.ring();
    return entry;
  }

  /** Its outcome, when there is one. Rejects with the signal's reason. */
  settled(id: number, signal: AbortSignal): Promise<Outcome> {
    return until([this.changed], () => this.outcome(id), signal);
  }

  #checkRoom(bytes: number): void {
    const { queueEntriesMax, queueBytesMax } = this.#limits;
    const count = this.#entries.size + this.#accepting;
    if (count < queueEntriesMax && this.#bytes + bytes <= queueBytesMax) return;
    const text = `the relay holds ${count} writes (${this.#bytes} bytes) for servers that are away, and may hold ${queueEntriesMax} (${queueBytesMax} bytes): try again when it reaches them`;
    throw new FuturestoreError('QUEUE_FULL', text);
  }

  #loadEntry(id: number, record: unknown): void {
    const { operation: stored, acceptedAt } = record as { operation: unknown; acceptedAt: Moment };
    const operation = operationFromRecord(stored);
    if (operation === undefined) throw this.#state.damaged('a queued write is not what was written');
    const value = operation.kind === 'resolve' ? operation.value.length : 0;
    const bytes = overheadBytes + operation.key.length + value;
    this.#entries.set(id, { id, operation, acceptedAt, bytes, attempts: 0, lastError: undefined });
    this.#bytes += bytes;
    this.#next = Math.max(this.#next, id + 1);
  }

  #outcomeFromRecord(record: unknown): Outcome {
    const stored = record as Outcome & {
      readonly error?: { readonly code: string; readonly message: string };
    };
    if (stored.state === 'committed') return stored;
    const { code, message } = stored.error;
    return { ...stored, error: new FuturestoreError(isErrorCode(code) ? code : 'INTERNAL', message) };
  }

  // ---- sending

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        const entry = await until([this.changed], () => this.#first(), signal);
        const session = await until([this.#uplink.changed], () => this.#uplink.session, signal);
        await this.#sendUnder(entry, session);
      } catch (error) {
        if (signal.aborted) return;
        // A bug must not keep what was accepted from being sent.
        this.#logger.error({ err: error }, 'sending failed');
        await this.#pause();
      }
    }
  }

  #first(): Entry | undefined {
    const [first] = this.#entries.values();
    return first;
  }

  async #sendUnder(entry: Entry, session: string): Promise<void> {
    if (this.#mark?.id !== entry.id) {
      this.#setMark({ id: entry.id, session });
      await this.#state.synced();
      // Another session by now: no harm, it was not sent.
    }
    if (this.#mark?.session !== session) {
      if (this.#unsent) this.#clearMark();
      else await this.#settleInDoubt(entry);
      return;
    }
    await this.#send(entry, session);
  }

  async #send(entry: Entry, session: string): Promise<void> {
    const { client } = this.#uplink;
    const wasUnsent = this.#unsent;
    this.#unsent = false;
    entry.attempts += 1;
    try {
      const { results } = await client.batch([this.#aged(entry)], {
        name: { session, sequence: entry.id },
      });
      const [result] = results;
      if (result === undefined)
        throw new FuturestoreError('PROTOCOL_ERROR', 'a write was answered without result');
      this.#settle(entry, { state: 'committed', result });
    } catch (error) {
      if (!(error instanceof FuturestoreError)) throw error;
      entry.lastError = error;
      // The client is over, the write is not: the next client sends it again.
      if (client.state.kind === 'closed') {
        await until(
          [this.#uplink.changed],
          () => (this.#uplink.client === client ? undefined : true),
          this.#stopping.signal,
        );
        return;
      }
      await this.#refused(entry, error, wasUnsent);
    }
  }

  async #refused(entry: Entry, error: FuturestoreError, wasUnsent: boolean): Promise<void> {
    switch (error.code) {
      case 'SESSION_EXPIRED':
        // This client never sent it; an earlier one may have.
        this.#unsent = wasUnsent;
        if (wasUnsent) this.#clearMark();
        else await this.#settleInDoubt(entry);
        return;
      case 'OUTCOME_UNKNOWN':
        await this.#settleInDoubt(entry);
        return;
      case 'TIMED_OUT':
      case 'UNAVAILABLE':
      case 'TOO_MANY_REQUESTS':
      case 'CANCELLED':
      case 'CONNECTION_CLOSED':
        await this.#pause();
        return;
      case 'PERMISSION_DENIED':
      case 'VALUE_TOO_LARGE':
        // Policies are asked before the session is: they may have changed since it was sent.
        if (wasUnsent) this.#settle(entry, { state: 'failed', error });
        else await this.#settleInDoubt(entry, `it is refused now (${error.message}), and was sent before`);
        return;
      default:
        this.#settle(entry, { state: 'failed', error });
    }
  }

  /** It was sent without an answer, and will get none: its session is no more, or it is not let through again. */
  async #settleInDoubt(entry: Entry, why: string = sessionGone): Promise<void> {
    const { key, kind } = entry.operation;
    let future: Future | undefined;
    try {
      future = await this.#uplink.client.get(key, { signal: this.#stopping.signal });
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      if (!(error instanceof FuturestoreError)) throw error;
      if (error.code !== 'PERMISSION_DENIED') {
        entry.lastError = error;
        await this.#pause();
        return;
      }
    }
    if (future !== undefined && shows(entry.operation, future, this.#uplink.connected?.principal)) {
      const { state, generation, revision } = future;
      this.#settle(entry, { state: 'committed', result: { state, generation, revision, unchanged: true } });
      return;
    }
    const text = `whether ${kind} ${key} happened cannot be known: ${why}; read the key, then write again`;
    this.#settle(entry, { state: 'failed', error: new FuturestoreError('OUTCOME_UNKNOWN', text) });
  }

  #settle(
    entry: Entry,
    how: { state: 'committed'; result: Committed } | { state: 'failed'; error: FuturestoreError },
  ): void {
    const { id, operation } = entry;
    const { kind, key } = operation;
    const outcome: Outcome = { id, kind, key, ...how };
    if (outcome.state === 'committed') this.#revision = outcome.result.revision;
    if (outcome.state === 'failed') {
      this.#logger.warn({ id, kind, key, code: outcome.error.code }, 'a write was refused');
    }
    this.#entries.delete(id);
    this.#bytes -= entry.bytes;
    this.#state.remove(entryPrefix + numberName(id));
    // Unsynced: what is lost of it is asked about again, under the same name.
    const record = outcome.state === 'failed' ? { ...outcome, error: errorToRecord(outcome.error) } : outcome;
    this.#state.put(outcomePrefix + numberName(id), record);
    this.#clearMark();
    this.#outcomes.set(id, outcome);
    for (const old of this.#outcomes.keys()) {
      if (this.#outcomes.size <= this.#limits.outcomesMax) break;
      this.#outcomes.delete(old);
      this.#state.remove(outcomePrefix + numberName(old));
    }
    this.changed.ring();
  }

  #setMark(mark: Mark): void {
    this.#mark = mark;
    this.#unsent = true;
    this.#state.put(markName, mark);
  }

  #clearMark(): void {
    this.#mark = undefined;
    this.#unsent = false;
    this.#state.remove(markName);
  }

  #ageMs({ acceptedAt }: Entry): number {
    const now = this.#clock.moment();
    return Math.max(0, elapsedMs(acceptedAt, now) ?? now.wallMs - acceptedAt.wallMs);
  }

  /** TTLs and deadlines are counted from when it was accepted: what has passed since is taken off. */
  #aged(entry: Entry): Operation {
    const { operation } = entry;
    const ageMs = Math.floor(this.#ageMs(entry));
    if (ageMs < agedFromMs) return operation;
    const left = (ms: number): number => Math.max(1, ms - ageMs);
    switch (operation.kind) {
      case 'resolve':
      case 'reject':
        return operation.ttlMs === undefined ? operation : { ...operation, ttlMs: left(operation.ttlMs) };
      case 'touch':
        return { ...operation, ttlMs: left(operation.ttlMs) };
      case 'declare':
        return operation.deadlineMs === undefined
          ? operation
          : { ...operation, deadlineMs: left(operation.deadlineMs) };
      case 'delete':
        return operation;
      default:
        return operation satisfies never;
    }
  }

  /** Ends early when the relay stops. */
  async #pause(): Promise<void> {
    const { signal } = this.#stopping;
    await sleep(retryMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Whether the key looks just as it does after this operation by this principal. */
const shows = (operation: Operation, future: Future, principal: string | undefined): boolean => {
  switch (operation.kind) {
    case 'resolve':
      return (
        future.state === 'resolved' &&
        future.value !== undefined &&
        Buffer.compare(future.value, operation.value) === 0 &&
        future.contentType === operation.contentType &&
        future.sensitive === operation.sensitive
      );
    case 'reject':
      return (
        future.state === 'rejected' &&
        future.rejection?.code === operation.rejection.code &&
        future.rejection.message === operation.rejection.message
      );
    case 'declare':
      return future.state === 'pending' && future.producer === principal;
    case 'delete':
    case 'touch':
      return false;
    default:
      return operation satisfies never;
  }
};
