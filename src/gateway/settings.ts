/** What a gateway is made with: its options, its limits with their reasons, and what it needs from outside. */
import { limits } from '../protocol/index.ts';
import type { ErrorCode } from '../protocol/index.ts';
import type { Policies } from '../scopes/index.ts';
import type { GatewayPort } from '../server/index.ts';
import { OwnPrincipals } from './principals.ts';
import type { Principals } from './principals.ts';
import { SocketCounts } from './socket-counts.ts';
import { TurnedAway } from './turned-away.ts';
import type { FileReader } from './watched-files.ts';

/** Pino's loggers fit. */
export interface GatewayLogger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

const silentLogger: GatewayLogger = { debug() {}, info() {}, warn() {}, error() {} };

/** What the gateway counts as it goes. */
export interface GatewayMetrics {
  /** A request was answered with this failure, by whomever. */
  refused(code: ErrorCode): void;
  /** A connection that had said hello is over; `code` is the WebSocket's close code (1006: broken). */
  connectionClosed(code: number): void;
  /** A socket that did not get as far as hello, and where it ended. */
  turnedAway(stage: TurnedAwayStage): void;
}

export type TurnedAwayStage = 'capacity' | 'proxy' | 'tls' | 'http' | 'identity' | 'hello';

const noMetrics: GatewayMetrics = { refused() {}, connectionClosed() {}, turnedAway() {} };

export interface GatewayClock {
  /** Milliseconds since some start; never goes backwards. */
  nowMs(): number;
  /** Milliseconds since 1970: only to judge whether certificates have expired. */
  wallMs(): number;
  /** Runs the callback again and again; gives the function that ends it. */
  every(intervalMs: number, callback: () => void): () => void;
}

export const systemClock: GatewayClock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  every: (intervalMs, callback) => {
    const timer = setInterval(callback, intervalMs);
    return () => clearInterval(timer);
  },
};

export const gatewayLimits = {
  /** A process has 20,000 descriptors by default on common systems. */
  connectionsMax: 20_000,
  /** Above it, so many are let through their handshakes all the same, to be told when to come back; the rest are dropped. */
  refusalsMax: 128,
  /** When those who find no room are told to come back; clients add chance to it. */
  retryAfterMs: 15_000,
  /** Sockets without an identity: each costs a handshake (3 ms) and 50 KB, and may be anybody's. */
  unauthenticatedMax: 1_000,
  /** After about this time an agent is asked to connect again; 0: never. Else much longer than a hello takes. */
  connectionMaxAgeMs: 0,
  /** How long it may take for that. */
  farewellGraceMs: 30_000,
  /** One certificate, copied to a whole fleet or in the wrong hands, must leave room for the others. */
  connectionsPerPrincipalMax: 1_000,
  /** Until the first byte (and the PROXY header before it, where one is due); and once more for the handshake. */
  tlsHandshakeMs: 5_000,
  /** Begun between two turns of everybody else: with all that follows 3 ms each, on the thread that serves all others. */
  handshakesPerTurnMax: 4,
  /** How long one that has begun to speak TLS waits in line: clients give up after ten seconds. */
  handshakeWaitMs: 5_000,
  /** In line: a processor that does nothing else has fewer handshakes done in that time. */
  handshakesWaitingMax: 2_000,
  httpRequestMs: 5_000,
  helloMs: 5_000,
  /** A token is verified at most so often on a connection: it costs half a millisecond of everybody's time. */
  authenticateEveryMs: 1_000,
  /** How long a peer may take to answer the WebSocket's close before its socket is destroyed. */
  closeMs: 5_000,
  heartbeatMs: 15_000,
  /** Three heartbeats unanswered. */
  silenceMs: 45_000,
  /** Pushes: the server stops reading on for a connection that has so much unsent. */
  pushBufferedBytesMax: 64 * 1024,
  /** Answers: later ones wait unencoded, and nothing more is read, while so much is unsent. */
  answerBufferedBytesMax: 1024 * 1024,
  /** How long a socket may take nothing … */
  stallMs: 10_000,
  /** … and longer in proportion to what is unsent, because progress within one large write cannot be seen. */
  stallBytesPerSecond: 64 * 1024,
  /** A server that has known no leader for so long sends its agents elsewhere: elections are over long before. */
  leaderlessMs: 5_000,
  frameBytesBeforeHelloMax: limits.frameBytesBeforeHelloMax,
  frameBytesMax: limits.frameBytesMax,
  /** Beyond it nothing more is read from the connection until answers have left. */
  writeBytesInFlightMax: 8 * 1024 * 1024,
  requestsInFlightMax: limits.requestsInFlightPerConnectionMax,
  /** Of one principal, over all its connections: 256 KiB each, or one large value. */
  listPagesPerPrincipalMax: 64,
  subscriptionsMax: limits.subscriptionsPerConnectionMax,
  /** Of each connection; what is above is only counted, so that nobody fills the disk by asking for what is forbidden. */
  auditLinesPerSecondMax: 20,
  /** Likewise for sockets that nobody has answered for. */
  turnedAwayLinesPerSecondMax: 50,
};

export type GatewayLimits = Readonly<Record<keyof typeof gatewayLimits, number>>;

/** What a gateway needs wherever its sockets come from. */
export interface GatewayCoreOptions {
  readonly policies: Policies;
  readonly port: GatewayPort;
  /** What agents are told as the cluster's addresses; none: every server's own. */
  readonly advertise?: readonly string[];
  readonly limits?: Partial<GatewayLimits>;
  readonly clock?: GatewayClock;
  readonly logger?: GatewayLogger;
  readonly metrics?: GatewayMetrics;
  /** What it shares with the other gateways of its server; default: it is the only one. */
  readonly principals?: Principals;
  readonly sockets?: SocketCounts;
}

export interface GatewayOptions extends GatewayCoreOptions {
  /** Port 0: any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** PEM: the server's own certificate (with what chain it needs) and its private key. */
  readonly cert: string;
  readonly key: string;
  /** Reads revocation lists; default: the file system. */
  readonly files?: FileReader;
  /** The program of a thread that reads long revocation lists; default: they are read here, and hold everything up. */
  readonly revocationListThread?: URL;
  /**
   * Load balancers: IP addresses and networks (CIDR) whose connections begin with a PROXY header of version 2, which says
   * where the agent is. From anybody else such a header is what it looks like to TLS: noise. Default: none.
   */
  readonly proxies?: readonly string[];
  /**
   * Web origins whose pages may connect. None by default: a browser sends its client certificate for any page that
   * asks, so a page of somebody else's must not get to use it. Agents send no origin and are not concerned.
   */
  readonly origins?: readonly string[];
}

/** What all connections of a gateway share. */
export interface GatewaySetup {
  readonly port: GatewayPort;
  readonly advertise: readonly string[];
  readonly limits: GatewayLimits;
  readonly clock: GatewayClock;
  readonly logger: GatewayLogger;
  readonly metrics: GatewayMetrics;
  readonly principals: Principals;
  readonly sockets: SocketCounts;
  readonly turnedAway: TurnedAway;
}

export const setupOf = (options: GatewayCoreOptions): GatewaySetup => {
  const limits = { ...gatewayLimits, ...options.limits };
  const { clock = systemClock, logger = silentLogger, metrics = noMetrics } = options;
  return {
    port: options.port,
    advertise: options.advertise ?? [],
    limits,
    clock,
    logger,
    metrics,
    principals: options.principals ?? new OwnPrincipals(),
    sockets: options.sockets ?? new SocketCounts(),
    turnedAway: new TurnedAway({ clock, limits, logger, metrics }),
  };
};
