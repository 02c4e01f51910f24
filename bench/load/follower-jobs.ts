/** What a process of followers can be told to do; plain data, since it goes through a pipe. */

interface Shape {
  readonly endpoints: readonly string[];
  /** Of the servers. */
  readonly pids: readonly number[];
  readonly key: string;
  readonly connections: number;
  /** Subscriptions, or watches, of each connection. */
  readonly each: number;
  /** One after the other, each when all were told the last. */
  readonly changes: number;
}

export type FollowerJob = Shape &
  (
    | { readonly system: 'futurestore'; readonly profile: string }
    /** `ca`: PEM; undefined: without TLS. */
    | { readonly system: 'etcd'; readonly ca: string | undefined }
  );

/** The answer, of the changes alone, without what it took to connect. */
export interface FollowerJobDone {
  /** From the write of each change to the last who was told. */
  readonly changesMs: readonly number[];
  readonly loadSeconds: number;
  readonly serverSeconds: number;
}
