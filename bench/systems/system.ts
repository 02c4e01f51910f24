/** A store that is measured: three durable servers of it on this machine. */

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
