/** What a round is told and tells; plain data, since it goes between processes. */

export interface RoundOptions {
  /** A folder with `dist/`, `package.json` and `node_modules`. */
  readonly build: string;
  readonly connections: number;
  /** Requests that each connection has under way. */
  readonly outstanding: number;
  /** Settles before those that are measured. */
  readonly warm: number;
  readonly settles: number;
  /** Where a processor profile is written; undefined: none is made. */
  readonly profile?: string;
}

export interface Round {
  /** Of all threads, for each settle: three servers, the client and the load's own loop. */
  readonly processorUs: number;
  /** Of these, in the kernel. */
  readonly kernelUs: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}
