/**
 * One server's loop: it drives raft with storage, peers and store, and serves gateways through a port of plain
 * messages. The only room that knows all of these together.
 *
 * It owns the turn (what happens in which order), the tables of what is in flight, cluster time, and the leader's
 * chores. It may call raft, store, feed, storage, peers, scopes and protocol. Time, randomness, disk and network come
 * from outside, so that the simulator runs this very code.
 *
 * It promises: every request of a gateway gets exactly one answer, unless it is cancelled or its connection closed;
 * what was answered as written is on the disks of a majority; reads that are not `stale` see every write that was
 * answered before they were asked, wherever.
 */
export {
  nodeEnvironment,
  noMetrics,
  silentLogger,
  type Environment,
  type Logger,
  type ServerMetrics,
  type ServerObserver,
  type Timer,
} from './environment.ts';
export type * from './port.ts';
export type { AgentsMove } from '../peers/index.ts';
export type { Subject } from '../store/index.ts';
export { restoreSnapshotFile, type Restored, type RestoreOptions } from './restore.ts';
export type { MemberDescription } from './member-directory.ts';
export type { ServerOptions, ServerStatus } from './options.ts';
export { Server } from './server.ts';
export { startServer, type StartServerOptions } from './start.ts';
