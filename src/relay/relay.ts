/** The relay: its parts put together, its start and its end. */
import type { Client } from '../client/index.ts';
import { Cache } from './cache.ts';
import { ClusterClock, linuxClock } from './clock.ts';
import type { Anchor, MachineClock } from './clock.ts';
import { Follower } from './follower.ts';
import { Bodies } from './http/incoming.ts';
import type { Interface } from './http/routes.ts';
import { LocalServer } from './http/server.ts';
import type { FormatFuture } from './http/watch.ts';
import { relayLimits } from './limits.ts';
import type { RelayLimits } from './limits.ts';
import { createRelayMetrics } from './metrics.ts';
import type { RelayMetrics } from './metrics.ts';
import { Outgoing } from './outgoing.ts';
import { Reads } from './reads.ts';
import { StateDirectory } from './state-directory.ts';
import { Uplink, readAnchor } from './uplink.ts';
import type { RelayLogger, UplinkOptions } from './uplink.ts';

export interface RelayOptions {
  /** Where local programs connect: made with mode 0660. */
  readonly socket: string;
  /** A second one that changes nothing. */
  readonly readOnlySocket?: string;
  /** The group of both sockets, by name or number; absent: this process's. */
  readonly group?: string;
  /** Made with mode 0700; of this relay alone. */
  readonly stateDirectory: string;
  /** Makes the client of the servers, again when one was closed for good. */
  readonly makeClient: (options: UplinkOptions) => Client;
  /**
   * How long the servers keep this relay's session without a connection, in milliseconds: after it pending futures tied
   * to it are rejected with PRODUCER_LOST, and a write that was in flight may become OUTCOME_UNKNOWN.
   */
  readonly sessionGraceMs: number;
  /** A future as local programs see it; `reveal`: with the value of a sensitive one. */
  readonly formatFuture: FormatFuture;
  readonly version: string;
  readonly logger: RelayLogger;
  /** What is on disk is not known any more: the process must end. */
  readonly onFatal: (error: unknown) => void;
  readonly limits?: Partial<RelayLimits>;
  readonly clock?: MachineClock;
}

export interface Relay {
  close(): Promise<void>;
}

/** How long a write that is under way may still take when the relay stops. */
const stopGraceMs = 1_000;

/** Rejects when it cannot start: DATA_IN_USE, DATA_DAMAGED, CONFIGURATION_INVALID. */
export const startRelay = async (options: RelayOptions): Promise<Relay> => {
  const state = await StateDirectory.open(options.stateDirectory, options.onFatal);
  const running: Running = { state, servers: [] };
  try {
    await startParts(running, options);
  } catch (error) {
    // Why it could not start is what is told.
    await stopParts(running).catch(() => undefined);
    throw error;
  }
  let closed: Promise<void> | undefined;
  return { close: () => (closed ??= stopParts(running)) };
};

/** What has been started, in the order of starting. */
interface Running {
  readonly state: StateDirectory;
  uplink?: Uplink;
  follower?: Follower;
  outgoing?: Outgoing;
  metrics?: RelayMetrics;
  readonly servers: LocalServer[];
}

const startParts = async (running: Running, options: RelayOptions): Promise<void> => {
  const { state } = running;
  const { logger } = options;
  const limits: RelayLimits = { ...relayLimits, ...options.limits };
  const anchor = (await readAnchor(state)) as Anchor | undefined;
  const clock = new ClusterClock(options.clock ?? linuxClock(), anchor);
  const cache = new Cache(state, clock, limits);
  await cache.load();
  const uplink = new Uplink({
    makeClient: options.makeClient,
    state,
    clock,
    sessionGraceMs: options.sessionGraceMs,
    logger,
    onOtherIdentity: () => cache.clear(),
  });
  running.uplink = uplink;
  const follower = new Follower(uplink, cache, logger, limits);
  running.follower = follower;
  const outgoing = new Outgoing({ state, uplink, clock, logger, limits });
  await uplink.start();
  await outgoing.start();
  running.outgoing = outgoing;
  const watches = { most: limits.watchesMax, taken: 0 };
  running.metrics = createRelayMetrics(() => ({
    connected: uplink.connected !== undefined,
    queueEntries: outgoing.size,
    queueBytes: outgoing.bytes,
    queueOldestMs: outgoing.oldestMs ?? 0,
    cacheEntries: cache.entries,
    cacheBytes: cache.bytes,
    followedKeys: follower.size,
    watches: watches.taken,
  }));
  const served: Interface = {
    uplink,
    reads: new Reads(uplink, cache, follower),
    follower,
    outgoing,
    bodies: new Bodies(limits),
    registry: running.metrics.registry,
    formatFuture: options.formatFuture,
    watches,
    status: () => statusOf({ uplink, outgoing, cache, follower, version: options.version }),
  };
  await listen(running, served, options, limits, running.metrics);
};

const listen = async (
  running: Running,
  served: Interface,
  { socket, readOnlySocket, group, logger }: RelayOptions,
  limits: RelayLimits,
  metrics: RelayMetrics,
): Promise<void> => {
  const groups = group === undefined ? {} : { group };
  const sockets = [
    { path: socket, readOnly: false },
    ...(readOnlySocket === undefined ? [] : [{ path: readOnlySocket, readOnly: true }]),
  ];
  for (const one of sockets) {
    const server = new LocalServer(served, { ...one, ...groups }, limits, logger, metrics);
    await server.listen();
    running.servers.push(server);
  }
};

const statusOf = ({
  uplink,
  outgoing,
  cache,
  follower,
  version,
}: {
  readonly uplink: Uplink;
  readonly outgoing: Outgoing;
  readonly cache: Cache;
  readonly follower: Follower;
  readonly version: string;
}): Record<string, unknown> => {
  const { connected, identity, lastError } = uplink;
  return {
    connected: connected !== undefined,
    server: connected?.serverName ?? null,
    cluster_id: identity?.clusterId ?? null,
    principal: identity?.principal ?? null,
    revision:
      connected === undefined ? null : Math.max(connected.revision, cache.revision, outgoing.revision),
    since: new Date(uplink.sinceWallMs).toISOString(),
    queue: {
      entries: outgoing.size,
      bytes: outgoing.bytes,
      oldest_ms: Math.round(outgoing.oldestMs ?? 0),
    },
    cache: { entries: cache.entries, bytes: cache.bytes },
    prefetched: follower.size,
    version,
    ...(lastError !== undefined && { last_error: { code: lastError.code, message: lastError.message } }),
  };
};

/** The reverse of the start. The session and what is queued are kept for the next process. */
const stopParts = async ({ state, uplink, follower, outgoing, metrics, servers }: Running): Promise<void> => {
  await Promise.all(servers.map((server) => server.close()));
  follower?.stop();
  const sent = outgoing?.stop();
  await uplink?.stop(stopGraceMs);
  await sent;
  metrics?.registry.clear();
  await state.close();
};
