/** The verbs through the relay on this machine: HTTP with JSON over its Unix socket. */
import { request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import { FutureRejectedError } from '../client/index.ts';
import { FuturestoreError, isErrorCode } from '../protocol/index.ts';
import type {
  ClusterStatus,
  Future,
  MemberStatus,
  Operation,
  OperationResult,
  WriteResult,
} from '../protocol/index.ts';
import type { SubscriptionEvent, VerbClient } from './environment.ts';

/** What the relay may take beyond the time that a request itself has. */
const slackMs = 5_000;

interface Asked {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: Readonly<Record<string, unknown>>;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface JsonFuture {
  readonly key: string;
  readonly state: Future['state'];
  readonly generation: number;
  readonly revision: number;
  readonly value?: string;
  readonly valueBase64?: string;
  readonly contentType?: string;
  readonly sensitive: boolean;
  readonly rejection?: { readonly code: string; readonly message: string };
  readonly producer: string;
  readonly changedAt: string;
  readonly expiresAt?: string;
  readonly deadlineAt?: string;
}

interface JsonError {
  readonly code: string;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

const valueOf = ({ value, valueBase64 }: JsonFuture): { value?: Uint8Array } => {
  if (value !== undefined) return { value: Buffer.from(value) };
  return valueBase64 === undefined ? {} : { value: Buffer.from(valueBase64, 'base64') };
};

/** The inverse of what the relay makes of a future. */
const futureFromJson = (json: JsonFuture): Future => ({
  key: json.key,
  generation: json.generation,
  state: json.state,
  revision: json.revision,
  ...valueOf(json),
  contentType: json.contentType ?? '',
  sensitive: json.sensitive,
  ...(json.rejection === undefined ? {} : { rejection: json.rejection }),
  producer: json.producer,
  changedAtMs: Date.parse(json.changedAt),
  ...(json.expiresAt === undefined ? {} : { expiresAtMs: Date.parse(json.expiresAt) }),
  ...(json.deadlineAt === undefined ? {} : { deadlineAtMs: Date.parse(json.deadlineAt) }),
});

const errorOf = ({ code, message, details = {} }: JsonError): FuturestoreError => {
  if (code === 'FUTURE_REJECTED') {
    const { key, generation, producer } = details;
    const rejection = { code: String(details['code']), message: String(details['message']) };
    return new FutureRejectedError(String(key), rejection, Number(generation), String(producer));
  }
  return new FuturestoreError(isErrorCode(code) ? code : 'INTERNAL', message);
};

const unreachable = (socket: string, error: NodeJS.ErrnoException): FuturestoreError => {
  const why = error.code ?? error.message;
  if (error.code === 'EACCES' || error.code === 'EPERM') {
    const text = `this user may not use the relay at ${socket} (${why}): see futurestore relay --help, --group`;
    return new FuturestoreError('PERMISSION_DENIED', text, { cause: error });
  }
  const text = `the relay at ${socket} cannot be reached (${why}): see that it runs, or name a profile with --profile to go without it`;
  return new FuturestoreError('UNAVAILABLE', text, { cause: error });
};

const bodyOf = ({ preconditions, ...operation }: Operation): Readonly<Record<string, unknown>> => {
  const { ifRevision, ifGeneration, ifAbsent } = preconditions;
  const conditions = { if_revision: ifRevision, if_generation: ifGeneration, if_absent: ifAbsent };
  switch (operation.kind) {
    case 'resolve': {
      const { key, value, contentType, sensitive, ttlMs, supersede } = operation;
      const encoded = Buffer.from(value).toString('base64');
      const settled = { sensitive, ttl_ms: ttlMs, supersede };
      return { key, value_base64: encoded, content_type: contentType, ...settled, ...conditions };
    }
    case 'reject': {
      const { key, rejection, ttlMs, supersede } = operation;
      return { key, ...rejection, ttl_ms: ttlMs, supersede, ...conditions };
    }
    case 'declare': {
      const { key, deadlineMs, renew, tied } = operation;
      return { key, deadline_ms: deadlineMs, renew, tied, ...conditions };
    }
    case 'touch':
      return { key: operation.key, ttl_ms: operation.ttlMs, ...conditions };
    case 'delete':
      return { key: operation.key, ...conditions };
    default:
      return operation satisfies never;
  }
};

export class RelayClient implements VerbClient {
  readonly #socket: string;
  #state: VerbClient['state'] = { kind: 'connected' };

  constructor(socket: string) {
    this.#socket = socket;
  }

  get state(): VerbClient['state'] {
    return this.#state;
  }

  async get(key: string, { timeoutMs }: { readonly timeoutMs?: number }): Promise<Future | undefined> {
    const path = `/v1/futures/${encodeURIComponent(key)}${queryOf({ timeout_ms: timeoutMs })}`;
    try {
      const { future } = (await this.#json({ method: 'GET', path, timeoutMs })) as { future: JsonFuture };
      return futureFromJson(future);
    } catch (error) {
      if (error instanceof FuturestoreError && error.code === 'NOT_FOUND') return undefined;
      throw error;
    }
  }

  async list(
    pattern: string,
    options: {
      readonly after?: string;
      readonly limit?: number;
      readonly values?: boolean;
      readonly timeoutMs?: number;
    },
  ): Promise<{ readonly futures: readonly Future[]; readonly next: string | undefined }> {
    const { after, limit, values, timeoutMs } = options;
    const query = queryOf({
      pattern,
      after: after === '' ? undefined : after,
      limit,
      values,
      timeout_ms: timeoutMs,
    });
    const page = await this.#json({ method: 'GET', path: `/v1/futures${query}`, timeoutMs });
    const { futures, next } = page as { futures: readonly JsonFuture[]; next?: string };
    return { futures: futures.map(futureFromJson), next };
  }

  async await(
    { anyOf }: { readonly anyOf: readonly (readonly string[])[] },
    { timeoutMs, signal }: { readonly timeoutMs?: number; readonly signal?: AbortSignal },
  ): Promise<{ readonly futures: readonly Future[] }> {
    const body = { any_of: anyOf, timeout_ms: timeoutMs };
    const answer = await this.#json({ method: 'POST', path: '/v1/await', body, timeoutMs, signal });
    const { futures } = answer as { futures: readonly JsonFuture[] };
    return { futures: futures.map(futureFromJson) };
  }

  /** One operation: the relay has no batches. */
  async batch(
    operations: readonly Operation[],
    { timeoutMs }: { readonly timeoutMs?: number },
  ): Promise<WriteResult> {
    const [operation, ...more] = operations;
    if (operation === undefined || more.length > 0)
      throw new FuturestoreError('INVALID_ARGUMENT', 'the relay takes one operation at a time');
    const body = { ...bodyOf(operation), timeout_ms: timeoutMs };
    const path = `/v1/${operation.kind}`;
    const answer = await this.#json({ method: 'POST', path, body, timeoutMs });
    const { result } = answer as { result: OperationResult };
    return { revision: result.revision, results: [result] };
  }

  async *subscribe(
    patterns: readonly string[],
    { from, signal }: { readonly from: 'present' | 'new'; readonly signal: AbortSignal },
  ): AsyncGenerator<SubscriptionEvent, void, undefined> {
    await this.#noteState();
    const query = new URLSearchParams([
      ['from', from],
      ...patterns.map((one) => ['pattern', one] as [string, string]),
    ]);
    const response = await this.#open({ method: 'GET', path: `/v1/watch?${query.toString()}`, signal });
    for await (const line of createInterface({ input: response, crlfDelay: Infinity })) {
      const event = eventFromJson(JSON.parse(line) as JsonEvent);
      if (event !== undefined) yield event;
    }
    if (signal.aborted) throw new FuturestoreError('CANCELLED', 'the watch was interrupted');
    throw new FuturestoreError(
      'UNAVAILABLE',
      `the relay at ${this.#socket} has ended the watch: watch again`,
    );
  }

  async status({ timeoutMs }: { readonly timeoutMs?: number }): Promise<ClusterStatus> {
    const path = `/v1/cluster${queryOf({ timeout_ms: timeoutMs })}`;
    const answer = await this.#json({ method: 'GET', path, timeoutMs });
    const { members, ...rest } = answer as Omit<ClusterStatus, 'members'> & {
      members: readonly (Omit<MemberStatus, 'heardMsAgo'> & { heardMsAgo: number | null })[];
    };
    return { ...rest, members: members.map((one) => ({ ...one, heardMsAgo: one.heardMsAgo ?? undefined })) };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** A watch that hears nothing should be able to say why. */
  async #noteState(): Promise<void> {
    const status = (await this.#json({ method: 'GET', path: '/v1/status', timeoutMs: slackMs })) as {
      readonly connected: boolean;
      readonly last_error?: JsonError;
    };
    if (!status.connected && status.last_error !== undefined)
      this.#state = { kind: 'waiting', lastError: errorOf(status.last_error) };
  }

  async #json(asked: Asked): Promise<unknown> {
    const chunks: Buffer[] = [];
    for await (const chunk of await this.#open(asked)) chunks.push(chunk as Buffer);
    return JSON.parse(Buffer.concat(chunks).toString()) as unknown;
  }

  /** The answer, when its header says that it is none of failure. */
  async #open(asked: Asked): Promise<IncomingMessage> {
    const response = await this.#send(asked);
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    throw errorOf(failureIn(Buffer.concat(chunks).toString(), this.#socket, status));
  }

  #send({ method, path, body, timeoutMs, signal }: Asked): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const request: ClientRequest = httpRequest({
        socketPath: this.#socket,
        method,
        path,
        agent: false,
        headers:
          text === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) },
        ...(signal !== undefined && { signal }),
        ...(timeoutMs !== undefined && { timeout: timeoutMs + slackMs }),
      });
      request.once('response', resolve);
      request.once('timeout', () => {
        const late = `the relay at ${this.#socket} did not answer within ${timeoutMs ?? 0} ms`;
        request.destroy(new FuturestoreError('TIMED_OUT', late));
      });
      request.once('error', (error) => {
        reject(
          error instanceof FuturestoreError || signal?.aborted === true
            ? error
            : unreachable(this.#socket, error),
        );
      });
      request.end(text);
    });
  }
}

const queryOf = (parameters: Readonly<Record<string, string | number | boolean | undefined>>): string => {
  const given = Object.entries(parameters).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, String(value)] as [string, string]],
  );
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`;
};

const failureIn = (text: string, socket: string, status: number): JsonError => {
  try {
    const { error } = JSON.parse(text) as { readonly error: JsonError };
    if (typeof error.code === 'string') return error;
  } catch {
    // Told below.
  }
  const message = `what answers at ${socket} is no relay: it said HTTP status ${status}`;
  return { code: 'VERSION_NOT_SUPPORTED', message };
};

type JsonEvent =
  | ({ readonly kind: 'future' } & JsonFuture)
  | { readonly kind: 'deleted'; readonly key: string; readonly revision: number }
  | { readonly kind: 'reset' | 'caught_up' | 'progress' }
  | { readonly kind: 'ended'; readonly error: JsonError };

/** Undefined: nothing that a watch shows. */
const eventFromJson = (event: JsonEvent): SubscriptionEvent | undefined => {
  switch (event.kind) {
    case 'future':
      return { kind: 'future', key: event.key, revision: event.revision, future: futureFromJson(event) };
    case 'deleted':
    case 'reset':
    case 'caught_up':
      return event as SubscriptionEvent;
    case 'progress':
      return undefined;
    case 'ended':
      throw errorOf(event.error);
    default:
      return event satisfies never;
  }
};
