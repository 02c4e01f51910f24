/** A store that is measured: three durable servers of it on this machine. */
import type { KeyValueEndpoint } from '../load/key-value-client.ts';

export interface RunningSystem {
  /** One for each server, in their order. */
  readonly pids: readonly number[];
  /** In the same order: 'https://127.0.0.1:2379', 'wss://127.0.0.1:7421'. */
  readonly endpoints: readonly string[];
  /** The index of the server that leads. */
  leader(): Promise<number>;
  kill(index: number): Promise<void>;
  /** Again, on the same disk; resolves when it takes part. */
  restart(index: number): Promise<void>;
  stop(): Promise<void>;
}

export interface System<Running extends RunningSystem = RunningSystem> {
  /** The column's name. */
  readonly name: string;
  /** undefined: it is not installed here. */
  version(): string | undefined;
  /** Three servers, their disks empty, one of them leading. */
  start(): Promise<Running>;
}

/** A store of keys and values that is only spoken to as such: not killed, not asked who leads. */
export interface RunningKeyValue {
  readonly pids: readonly number[];
  readonly endpoints: readonly KeyValueEndpoint[];
  stop(): Promise<void>;
}

export interface KeyValueSystem {
  readonly name: string;
  /** undefined: it is not installed here. */
  version(): string | undefined;
  /** Three servers, their disks empty, ready for clients. */
  start(): Promise<RunningKeyValue>;
}
