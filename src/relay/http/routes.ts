/** The local interface, route by route. What is here is in proto/relay.openapi.yaml, and the other way round. */
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import type { ClusterStatus, Operation } from '../../protocol/index.ts';
import { FuturestoreError, limits } from '../../protocol/index.ts';
import type { Follower } from '../follower.ts';
import type { Entry, Outcome, Outgoing } from '../outgoing.ts';
import type { Reads } from '../reads.ts';
import { after } from '../timeouts.ts';
import type { Uplink } from '../uplink.ts';
import { DetailedError, answerJson, answerWith, errorAsJson } from './answers.ts';
import { availableRequest, awaitRequest, prefetchRequest, writeRequest } from './bodies.ts';
import type { Bodies } from './incoming.ts';
import { booleanParameter, checkQuery, decoded, numberParameter, startParameter } from './incoming.ts';
import { writeWatch } from './watch.ts';
import type { FormatFuture } from './watch.ts';

/** How long a request may take that does not say so: an election and a reconnect. */
const defaultTimeoutMs = 30_000;

/** Things of which there may be so many at one time. */
interface Places {
  readonly most: number;
  taken: number;
}

export interface Interface {
  readonly uplink: Uplink;
  readonly reads: Reads;
  readonly follower: Follower;
  readonly outgoing: Outgoing;
  readonly bodies: Bodies;
  readonly registry: Registry;
  readonly formatFuture: FormatFuture;
  readonly watches: Places;
  readonly status: () => Record<string, unknown>;
}

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What the path has where the route has a name in braces. */
  readonly rest: string;
  readonly query: URLSearchParams;
  /** Aborted when the caller has gone. */
  readonly signal: AbortSignal;
}

export interface Route {
  readonly method: 'GET' | 'POST';
  /** As OpenAPI writes it; a name in braces at the end is all the rest of the path, slashes too. */
  readonly path: string;
  /** Served on the read-only socket, too. */
  readonly reads: boolean;
  readonly parameters?: readonly string[];
  readonly serve: (relay: Interface, call: Call) => Promise<void>;
}

const openApiFile = new URL('../../../proto/relay.openapi.yaml', import.meta.url);

const within = (call: Call, timeoutMs: number | undefined) =>
  timeoutMs === undefined
    ? { signal: call.signal }
    : { signal: call.signal, timeoutMs: Math.max(1, timeoutMs) };

const timeoutOf = (query: URLSearchParams): number =>
  numberParameter(query, 'timeout_ms', limits.durationMsMax) ?? defaultTimeoutMs;

const get = async (relay: Interface, call: Call): Promise<void> => {
  const key = decoded(call.rest);
  const stale = booleanParameter(call.query, 'stale');
  const { future, fromCache } = await relay.reads.get(key, stale, within(call, timeoutOf(call.query)));
  if (future === undefined) {
    const text = `there is no key ${key}: wait for it with await`;
    throw new FuturestoreError('NOT_FOUND', text);
  }
  answerJson(call.response, 200, {
    future: relay.formatFuture(future, true),
    ...(fromCache && { from: 'cache' }),
  });
};

const list = async (relay: Interface, call: Call): Promise<void> => {
  const { query } = call;
  const after = query.get('after');
  const limit = numberParameter(query, 'limit', limits.listPageFuturesMax);
  const page = await relay.uplink.client.list(query.get('pattern') ?? '**', {
    ...within(call, timeoutOf(query)),
    values: booleanParameter(query, 'values'),
    ...(after !== null && { after }),
    ...(limit !== undefined && { limit }),
  });
  answerJson(call.response, 200, {
    futures: page.futures.map((future) => relay.formatFuture(future, false)),
    ...(page.next !== undefined && { next: page.next }),
  });
};

const awaitKeys = async (relay: Interface, call: Call): Promise<void> => {
  const asked = awaitRequest(await relay.bodies.json(call.request));
  const { alternatives, leastGeneration } = asked;
  const { alternative, futures, fromCache } = await relay.reads.await(
    alternatives,
    leastGeneration,
    within(call, asked.timeoutMs),
  );
  answerJson(call.response, 200, {
    alternative,
    futures: futures.map((future) => relay.formatFuture(future, true)),
    ...(fromCache && { from: 'cache' }),
  });
};

const available = async (relay: Interface, call: Call): Promise<void> => {
  const { alternatives, timeoutMs } = availableRequest(await relay.bodies.json(call.request));
  const waiting = timeoutMs === undefined ? { signal: call.signal } : { signal: call.signal, timeoutMs };
  answerJson(call.response, 200, await relay.reads.available(alternatives, waiting));
};

const prefetch = async (relay: Interface, call: Call): Promise<void> => {
  relay.follower.follow(prefetchRequest(await relay.bodies.json(call.request)));
  answerJson(call.response, 202, {});
};

const committed = (outcome: Extract<Outcome, { state: 'committed' }>) => ({
  key: outcome.key,
  ...outcome.result,
});

/** Waits for its outcome until the time is over, the caller goes, or (`connectedOnly`) no server can be reached. */
const outcomeOf = async (
  relay: Interface,
  call: Call,
  entry: Entry,
  timeoutMs: number,
  connectedOnly: boolean,
): Promise<Outcome | undefined> => {
  const cut = new AbortController();
  const cutOff = (): void => {
    if (connectedOnly && relay.uplink.connected === undefined) cut.abort();
  };
  const leave = relay.uplink.changed.listen(cutOff);
  const inTime = after(timeoutMs, () => cut.abort());
  cutOff();
  try {
    return await relay.outgoing.settled(entry.id, AbortSignal.any([call.signal, cut.signal]));
  } catch (error) {
    if (call.signal.aborted || !cut.signal.aborted) throw error;
    return undefined;
  } finally {
    inTime();
    leave();
  }
};

const write =
  (kind: Operation['kind']) =>
  async (relay: Interface, call: Call): Promise<void> => {
    const asked = writeRequest(kind, await relay.bodies.json(call.request));
    const { wait, timeoutMs = defaultTimeoutMs, operation } = asked;
    const entry = await relay.outgoing.accept(operation);
    const outcome = await outcomeOf(relay, call, entry, timeoutMs, wait === 'queued');
    if (outcome?.state === 'committed') answerJson(call.response, 200, { result: committed(outcome) });
    else if (outcome !== undefined) throw outcome.error;
    else if (wait === 'queued') answerJson(call.response, 202, { queued: { id: entry.id } });
    else {
      const text = `${kind} ${operation.key} was not answered within ${timeoutMs} ms${whyNot(relay)}; it is queued as ${entry.id} and will still be sent`;
      throw new DetailedError('TIMED_OUT', text, { queued: entry.id });
    }
  };

const whyNot = ({ uplink }: Interface): string =>
  uplink.connected === undefined && uplink.lastError !== undefined ? `: ${uplink.lastError.message}` : '';

const queue = (relay: Interface, call: Call): Promise<void> => {
  const entries = [...relay.outgoing.entries()].map(({ id, operation, acceptedAt, attempts, lastError }) => ({
    id,
    kind: operation.kind,
    key: operation.key,
    queued_at_ms: Math.round(acceptedAt.wallMs),
    attempts,
    ...(lastError !== undefined && { last_error: errorAsJson(lastError) }),
  }));
  answerJson(call.response, 200, { entries });
  return Promise.resolve();
};

const queued = (relay: Interface, call: Call): Promise<void> => {
  const id = /^[0-9]{1,16}$/.test(call.rest) ? Number(call.rest) : 0;
  const outcome = relay.outgoing.outcome(id);
  if (outcome?.state === 'committed') {
    answerJson(call.response, 200, { state: 'committed', result: committed(outcome) });
  } else if (outcome !== undefined) {
    answerJson(call.response, 200, { state: 'failed', error: errorAsJson(outcome.error) });
  } else if (relay.outgoing.entry(id) !== undefined) answerJson(call.response, 200, { state: 'queued' });
  else {
    const text = `there is no queued write ${call.rest.slice(0, 20)}: outcomes are forgotten after a while`;
    return Promise.reject(new FuturestoreError('NOT_FOUND', text));
  }
  return Promise.resolve();
};

const watch = async (relay: Interface, call: Call): Promise<void> => {
  const patterns = call.query.getAll('pattern');
  if (patterns.length === 0)
    throw new FuturestoreError('INVALID_ARGUMENT', 'pattern must be given, once or more');
  const { watches } = relay;
  if (watches.taken >= watches.most) {
    const text = `the relay serves ${watches.taken} watches, and may serve ${watches.most}: end some before beginning more`;
    throw new FuturestoreError('TOO_MANY_REQUESTS', text);
  }
  const from = startParameter(call.query);
  const subscription = relay.uplink.client.subscribe(patterns, { from, signal: call.signal });
  watches.taken += 1;
  try {
    await writeWatch(call.response, subscription, relay.formatFuture, call.signal);
  } finally {
    watches.taken -= 1;
  }
};

const status = (relay: Interface, call: Call): Promise<void> => {
  answerJson(call.response, 200, relay.status());
  return Promise.resolve();
};

const clusterAsJson = ({ clusterId, epoch, revision, serverId, members }: ClusterStatus) => ({
  clusterId,
  epoch,
  revision,
  serverId,
  members: members.map((member) => ({ ...member, heardMsAgo: member.heardMsAgo ?? null })),
});

const cluster = async (relay: Interface, call: Call): Promise<void> => {
  const answer = await relay.uplink.client.status(within(call, timeoutOf(call.query)));
  answerJson(call.response, 200, clusterAsJson(answer));
};

const metrics = async (relay: Interface, call: Call): Promise<void> => {
  answerWith(call.response, 200, relay.registry.contentType, await relay.registry.metrics());
};

const openApi = async (_relay: Interface, call: Call): Promise<void> => {
  answerWith(call.response, 200, 'application/yaml', await readFile(openApiFile, 'utf8'));
};

export const routes: readonly Route[] = [
  { method: 'GET', path: '/v1/status', reads: true, serve: status },
  { method: 'GET', path: '/v1/cluster', reads: true, parameters: ['timeout_ms'], serve: cluster },
  {
    method: 'GET',
    path: '/v1/futures',
    reads: true,
    parameters: ['pattern', 'after', 'limit', 'values', 'timeout_ms'],
    serve: list,
  },
  { method: 'GET', path: '/v1/futures/{key}', reads: true, parameters: ['stale', 'timeout_ms'], serve: get },
  { method: 'POST', path: '/v1/await', reads: true, serve: awaitKeys },
  { method: 'POST', path: '/v1/available', reads: true, serve: available },
  { method: 'POST', path: '/v1/prefetch', reads: true, serve: prefetch },
  { method: 'GET', path: '/v1/watch', reads: true, parameters: ['pattern', 'from'], serve: watch },
  { method: 'POST', path: '/v1/resolve', reads: false, serve: write('resolve') },
  { method: 'POST', path: '/v1/reject', reads: false, serve: write('reject') },
  { method: 'POST', path: '/v1/declare', reads: false, serve: write('declare') },
  { method: 'POST', path: '/v1/touch', reads: false, serve: write('touch') },
  { method: 'POST', path: '/v1/delete', reads: false, serve: write('delete') },
  { method: 'GET', path: '/v1/queue', reads: false, serve: queue },
  { method: 'GET', path: '/v1/queue/{id}', reads: false, serve: queued },
  { method: 'GET', path: '/metrics', reads: true, serve: metrics },
  { method: 'GET', path: '/v1/openapi.yaml', reads: true, serve: openApi },
];

/** The route of a path and what the path has in its place in braces; undefined: there is none. */
const matched = (route: Route, path: string): string | undefined => {
  const brace = route.path.indexOf('{');
  if (brace < 0) return route.path === path ? '' : undefined;
  const before = route.path.slice(0, brace);
  return path.startsWith(before) && path.length > before.length ? path.slice(before.length) : undefined;
};

/** INVALID_ARGUMENT with the methods that there are, or NOT_FOUND. */
export const findRoute = (
  method: string,
  path: string,
  query: URLSearchParams,
): { readonly route: Route; readonly rest: string } => {
  const asked = method === 'HEAD' ? 'GET' : method;
  const there: string[] = [];
  for (const route of routes) {
    const rest = matched(route, path);
    if (rest === undefined) continue;
    if (route.method === asked) {
      checkQuery(query, route.parameters ?? []);
      return { route, rest };
    }
    there.push(route.method);
  }
  if (there.length > 0) throw new WrongMethodError(path, there);
  const text = `there is no ${path.slice(0, 100)} here: see /v1/openapi.yaml`;
  throw new FuturestoreError('NOT_FOUND', text);
};

export class WrongMethodError extends FuturestoreError {
  readonly allowed: readonly string[];

  constructor(path: string, allowed: readonly string[]) {
    super('INVALID_ARGUMENT', `${path.slice(0, 100)} takes ${allowed.join(', ')}`);
    this.name = 'WrongMethodError';
    this.allowed = allowed;
  }
}
