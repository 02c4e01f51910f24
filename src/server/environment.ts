/** What a server needs from the outside world besides disk and network; tests and the simulator give their own. */
import { randomBytes } from 'node:crypto';
import type { Entry, SnapshotPoint } from '../raft/index.ts';
import type { Applied, LogEntry } from '../store/index.ts';

export interface Timer {
  readonly cancel: () => void;
}

export interface Environment {
  /** Milliseconds since 1970; may jump. */
  wallMs(): number;
  /** Milliseconds since some start; never goes backwards. */
  monotonicMs(): number;
  /** Uniform in [0, 1). */
  random(): number;
  /** For secrets. */
  randomBytes(count: number): Uint8Array;
  /** Runs the callback once all input that is already there has been taken in. */
  defer(callback: () => void): void;
  setTimer(delayMs: number, callback: () => void): Timer;
}

export const nodeEnvironment: Environment = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  random: () => Math.random(),
  randomBytes: (count) => randomBytes(count),
  defer: (callback) => {
    setImmediate(callback);
  },
  setTimer: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};

/** What the server tells about itself as it goes. Pino's loggers fit. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/** What the server measures as it goes; everything else is in its status. */
export interface ServerMetrics {
  /** One synced write of the storage. */
  diskSynced(seconds: number): void;
  /** One turn's committed entries were applied. */
  applied(seconds: number, entries: number): void;
  /** Proposals that raft did not take, or commands that ended without an outcome. */
  proposalsFailed(count: number): void;
  /** Values whose TTL has passed, as the log decided. */
  expired(count: number): void;
  leaderChanged(): void;
  snapshotSent(ok: boolean): void;
  snapshotReceived(ok: boolean): void;
  requests(kind: string, count: number): void;
}

export const noMetrics: ServerMetrics = {
  diskSynced() {},
  applied() {},
  proposalsFailed() {},
  expired() {},
  leaderChanged() {},
  snapshotSent() {},
  snapshotReceived() {},
  requests() {},
};

/** Sees what becomes of the state as it happens, to judge it. Must not call the server back. */
export interface ServerObserver {
  /** `log` and `outcome`: of an entry with commands. */
  applied(entry: Entry, log: LogEntry | undefined, outcome: Applied | undefined): void;
  /** A snapshot has become the state. */
  restored(point: SnapshotPoint): void;
}
