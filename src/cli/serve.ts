/** One server process: all rooms put together, its start, and its end. */
import process from 'node:process';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Logger } from 'pino';
import { createAdminServer, createMetrics } from '../admin/index.ts';
import type { AdminServer, Metrics } from '../admin/index.ts';
import {
  createGateway,
  createGatewayThreads,
  fileReader,
  lookEveryMs,
  revocationListThread,
} from '../gateway/index.ts';
import type { AgentGateway, GatewayOptions, LocalGateway } from '../gateway/index.ts';
import { createTlsTransport } from '../peers/index.ts';
import type { TlsTransport } from '../peers/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import { asMemberId } from '../raft/index.ts';
import { nodeEnvironment, startServer } from '../server/index.ts';
import type { Gateway, MemberDescription, Server, StartServerOptions } from '../server/index.ts';
import { openStorage } from '../storage/index.ts';
import type { Storage } from '../storage/index.ts';
import { CertificateReload } from './certificate-reload.ts';
import { formatHostAndPort } from './configuration/scalars.ts';
import type { ServerConfiguration } from './configuration/server-configuration.ts';
import type { ThreadStart } from './gateway-thread.ts';
import { createLogger } from './logger.ts';
import { packageVersion } from './package-version.ts';
import { removedText } from './removed-server.ts';
import type { ServerFiles } from './server-files.ts';
import { readServerConfiguration, readServerFiles } from './server-files.ts';
import { letHeapGrow } from './server-memory.ts';

/** A listen error in words; anything else as it is. */
const startError = (error: unknown, { file, agents, peers, adminListen }: ServerConfiguration): unknown => {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error) || error.syscall !== 'listen')
    return error;
  const port = 'port' in error ? error.port : undefined;
  const listens = { agents: agents.listen, peers: peers.listen, admin: adminListen };
  const [name, address] = Object.entries(listens).find(([, listen]) => listen.port === port) ?? [
    '',
    undefined,
  ];
  const where = address === undefined ? 'an address' : `${formatHostAndPort(address)} (${name}.listen)`;
  const why = error.code === 'EADDRINUSE' ? 'another process uses it' : String(error.code);
  return new Error(`cannot listen on ${where}: ${why}; stop what uses it or change ${file}`, {
    cause: error,
  });
};

/** What has been started, in the order of starting. */
interface Running {
  readonly metrics: Metrics;
  /** Its agents are being sent to the others: a load balancer is to give it no new ones. */
  stopping: boolean;
  storage?: Storage;
  server?: Server;
  gateway?: AgentGateway;
  transport?: TlsTransport;
  stopReloading?: () => void;
  admin?: AdminServer;
}

const descriptionOf = ({ id, name, peers, agents }: ServerConfiguration['self']): MemberDescription => ({
  id,
  name,
  peersAddress: formatHostAndPort(peers),
  agentsUrl: agents,
});

const startStorageAndServer = async (
  running: Running,
  configuration: ServerConfiguration,
  files: ServerFiles,
  logger: Logger,
  { onFatal, onRemoved, join }: Pick<StartServerOptions, 'onFatal' | 'onRemoved' | 'join'>,
): Promise<Server> => {
  const gateway = (): AgentGateway => {
    if (running.gateway === undefined) throw new Error('agents are not served yet');
    return running.gateway;
  };
  const { clusterId, self, members, metrics } = { ...configuration, ...running };
  const storage = await openStorage({
    directory: configuration.dataDirectory,
    identity: { clusterId, member: self.id },
  });
  running.storage = storage;
  const server = await startServer({
    clusterId,
    self: descriptionOf(self),
    members: members.map(descriptionOf),
    ...(join !== undefined && { join }),
    version: packageVersion(),
    electionTimeoutMs: configuration.electionTimeoutMs,
    heartbeatIntervalMs: configuration.heartbeatIntervalMs,
    logRetainBytes: configuration.logRetainBytes,
    environment: nodeEnvironment,
    logger,
    metrics,
    onFatal,
    ...(onRemoved && { onRemoved }),
    agentsDoor: {
      drain: (graceMs) => gateway().drain(graceMs),
      admit: () => gateway().admit(),
      sendAway: (moves, graceMs) => gateway().sendAway(moves, graceMs),
    },
    storage,
    transport: (acceptPeer, run, standing, lineage) => {
      const transport = createTlsTransport({
        memberId: asMemberId(self.id),
        memberName: self.name,
        address: formatHostAndPort(self.peers),
        clusterId,
        run,
        standing,
        lineage,
        diskId: storage.recovered.diskId,
        // The server says who they are before it starts the transport.
        members: [],
        listen: configuration.peers.listen,
        ...files.peers,
        acceptPeer,
        logger,
        random: () => nodeEnvironment.random(),
        roundTrip: (peer, ms) => metrics.roundTrip(peer, ms),
      });
      running.transport = transport;
      return transport;
    },
  });
  running.server = server;
  return server;
};

/** An election takes one or two, with bad luck a few more. */
const leaderlessTimeouts = 5;

const logOptionsOf = ({ logLevel, self }: ServerConfiguration): ThreadStart['log'] => ({
  level: logLevel,
  server: self.name,
});

const startGateway = async (
  running: Running,
  server: Server,
  configuration: ServerConfiguration,
  files: ServerFiles,
  logger: Logger,
  onFatal: (error: unknown) => void,
): Promise<void> => {
  const limits = {
    connectionsMax: configuration.connectionsMax,
    unauthenticatedMax: configuration.unauthenticatedConnectionsMax,
    connectionMaxAgeMs: configuration.agents.connectionMaxAgeMs,
    leaderlessMs: leaderlessTimeouts * configuration.electionTimeoutMs,
  };
  const { policies, agents } = files;
  const { listen, origins, proxies, advertise } = configuration.agents;
  const door = { listen, origins, proxies, advertise, ...agents };
  const { metrics } = running;
  running.gateway =
    configuration.gatewayThreads === 0
      ? localGateway(server, { ...door, revocationListThread, policies, limits, logger, metrics })
      : createGatewayThreads({
          threads: configuration.gatewayThreads,
          startThread: (gateway) => {
            const workerData: ThreadStart = { gateway, log: logOptionsOf(configuration) };
            const script = new URL(`./gateway-thread${extname(import.meta.url)}`, import.meta.url);
            return new Worker(script, { workerData });
          },
          attach: (gateway) => server.attachGateway(gateway),
          gateway: { ...door, revocationListThread: revocationListThread.href },
          policies,
          limits,
          logger,
          metrics,
          onFatal,
        });
  await running.gateway.listen();
};

const localGateway = (server: Server, options: Omit<GatewayOptions, 'port'>): LocalGateway => {
  // Each needs the other: the server gets this one, which passes on to the gateway that is made with the server's port.
  const forward: Gateway = {
    deliver: (events) => gateway.deliver(events),
    get connections() {
      return gateway.connections;
    },
  };
  const gateway: LocalGateway = createGateway({ ...options, port: server.attachGateway(forward) });
  return gateway;
};

const startReloading = (
  running: Running,
  configuration: ServerConfiguration,
  logger: Logger,
  onHangup: ServeOptions['onHangup'],
): void => {
  const { gateway, transport } = running;
  if (gateway === undefined || transport === undefined)
    throw new Error('nothing runs that could be reloaded');
  const now = (): number => Date.now();
  const parts = { configuration, gateway, transport, files: fileReader, logger, now };
  const reload = new CertificateReload(parts);
  const timer = setInterval(() => void reload.look(), lookEveryMs);
  running.stopReloading = () => clearInterval(timer);
  onHangup?.(() => {
    logger.info({}, 'asked (SIGHUP) to read certificates and revocation lists again');
    void reload.takeAll();
  });
};

const startAdmin = async (
  running: Running,
  server: Server,
  configuration: ServerConfiguration,
  logger: Logger,
): Promise<void> => {
  running.metrics.observe(() => {
    const { leader, role, term, commitIndex, appliedIndex, pendingCommands, ...rest } = server.status();
    return {
      hasLeader: leader !== undefined,
      isLeader: role === 'leader',
      term,
      commitIndex,
      appliedIndex,
      proposalsPending: pendingCommands,
      keys: rest.keys,
      waits: rest.waits,
      subscriptions: rest.subscriptions,
      connections: running.gateway?.connections ?? 0,
      draining: rest.draining ?? false,
      sessions: rest.sessions,
    };
  });
  const admin = createAdminServer({
    listen: configuration.adminListen,
    readiness: () =>
      running.stopping ? { ready: false, reasons: ['the server is stopping'] } : server.readiness(),
    // A process whose loop hangs does not answer, one that cannot trust its disk ends: who answers lives.
    liveness: () => ({ live: true, reasons: [] }),
    registry: running.metrics.registry,
    logger,
  });
  running.admin = admin;
  await admin.listen();
};

/** A stop that takes longer than its grace and this hangs. */
const stopTimeoutMs = 15_000;

/** The reverse of the start: agents are told and leave, leadership is handed over, then links and disk are closed. */
const stopAll = async (running: Running, graceMs: number): Promise<void> => {
  const { gateway, server, storage, admin, metrics } = running;
  running.stopping = true;
  running.stopReloading?.();
  if (gateway !== undefined) await (server ?? gateway).drain(graceMs);
  await gateway?.close();
  await (server === undefined ? storage?.close() : server.stop());
  await admin?.close();
  metrics.close();
};

export interface ServeOptions {
  /** With an empty data directory: wait until the cluster adds this server, instead of beginning a new cluster. */
  readonly join?: boolean;
  /** Takes what is to be done whenever the process is asked to read its files again (SIGHUP). */
  readonly onHangup?: (listener: () => void) => void;
}

const whenAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve());
  });

/**
 * Runs the server that this file configures until it is interrupted, or removed from its cluster; then stops it cleanly.
 *
 * Rejects when it cannot start: CONFIGURATION_INVALID, DATA_DAMAGED, DATA_FOREIGN, DATA_OUTDATED, DATA_IN_USE, or an
 * address that is taken; and with DATA_OUTDATED when the cluster finds its data to be so. What else happens to a running
 * server that it cannot survive ends the process with code 1.
 */
export const serve = async (
  file: string,
  interruption: AbortSignal,
  { join = false, onHangup }: ServeOptions = {},
): Promise<void> => {
  letHeapGrow();
  const configuration = readServerConfiguration(file);
  const files = readServerFiles(configuration, Date.now());
  const logger = createLogger(logOptionsOf(configuration));
  const ending = new AbortController();
  let outdatedData: FuturestoreError | undefined;
  const onFatal = (error: unknown): void => {
    if (error instanceof FuturestoreError && error.code === 'DATA_OUTDATED') {
      logger.error({ code: error.code }, error.message);
      outdatedData = error;
      return ending.abort();
    }
    logger.fatal(
      { err: error },
      'the server cannot go on and ends: nothing in this process is trusted any more',
    );
    process.exit(1);
  };
  process.on('uncaughtException', onFatal);
  process.on('unhandledRejection', onFatal);
  const running: Running = { metrics: createMetrics(), stopping: false };
  const removal = new AbortController();
  const onRemoved = (): void => removal.abort();
  try {
    const ends = { onFatal, onRemoved, join: join || configuration.join };
    const server = await startStorageAndServer(running, configuration, files, logger, ends);
    await startGateway(running, server, configuration, files, logger, onFatal);
    await startAdmin(running, server, configuration, logger);
    startReloading(running, configuration, logger, onHangup);
  } catch (error) {
    // Why it could not start is what is told; that parts of it cannot be stopped then follows from it.
    await stopAll(running, 0).catch(() => undefined);
    throw startError(error, configuration);
  }
  const { self, agents, peers, adminListen } = configuration;
  logger.info(
    {
      version: packageVersion(),
      cluster: configuration.clusterId,
      member: self.id,
      agents: formatHostAndPort(agents.listen),
      peers: formatHostAndPort(peers.listen),
      admin: formatHostAndPort(adminListen),
      data: configuration.dataDirectory,
    },
    'listening',
  );
  await whenAborted(AbortSignal.any([interruption, removal.signal, ending.signal]));
  // Its agents can do nothing here any more.
  const graceMs = outdatedData === undefined ? configuration.stopGraceMs : 0;
  logger.info({ graceMs }, 'stopping');
  const hung = setTimeout(() => onFatal(new Error('the stop hangs')), graceMs + stopTimeoutMs);
  await stopAll(running, graceMs);
  clearTimeout(hung);
  if (outdatedData !== undefined) throw outdatedData;
  logger.info(removal.signal.aborted ? removedText : 'stopped');
};
