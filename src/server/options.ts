/** What a server is given, and what it tells of itself. */
import type { PeerLineage, PeerStatus, PeerTransport } from '../peers/index.ts';
import type { Raft } from '../raft/index.ts';
import type { Storage } from '../storage/index.ts';
import type { Store, StoreOptions } from '../store/index.ts';
import type { Environment, Logger, ServerMetrics, ServerObserver } from './environment.ts';
import type { MemberDescription } from './member-directory.ts';
import type { AgentsDoor } from './port.ts';

export interface ServerOptions {
  readonly clusterId: string;
  readonly self: MemberDescription;
  /**
   * As the configuration file names them, itself included. They begin a new cluster; afterwards the log says who the
   * members are, and the file where those that it names are found.
   */
  readonly members: readonly MemberDescription[];
  readonly version: string;
  readonly electionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  /** How much of the log is kept for followers that were away for a moment. */
  readonly logRetainBytes: number;
  readonly environment: Environment;
  readonly logger: Logger;
  readonly metrics: ServerMetrics;
  /**
   * A failed write, or a bug: nothing here can be trusted any more, the process must end. DATA_OUTDATED: neither, but the
   * disk has forgotten what the cluster knows; it is marked, and all is closed.
   */
  readonly onFatal: (error: unknown) => void;
  readonly observer?: ServerObserver;
  /** Absent: there are no agents to be sent away, or this server has no say over them. */
  readonly agentsDoor?: AgentsDoor;
  /** Once: the cluster has removed this server. It is of no use any more and should be stopped. */
  readonly onRemoved?: (reason: string) => void;
}

/** What a server is made of, as `startServer` put it together. */
export interface ServerParts {
  readonly storage: Storage;
  readonly transport: PeerTransport;
  readonly raft: Raft;
  /** See `makeRun`. */
  readonly run: number;
  readonly lineage: PeerLineage;
  readonly store: Store;
  readonly storeOptions: StoreOptions;
}

/** For operators and tests: where this server stands. */
export interface ServerStatus extends PeerStatus {
  readonly leader: number | undefined;
  readonly revision: number;
  readonly pendingCommands: number;
  readonly sessions: number;
  readonly waits: number;
  readonly subscriptions: number;
}
