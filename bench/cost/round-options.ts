/** What a round is told and tells; plain data, since it goes between processes. */

/**
 * What is done and counted: new futures; reads of one key, with a quorum's word or without; changes of one key that all
 * connections follow, where each delivery counts.
 */
export const works = ['settle', 'get', 'get-stale', 'fan-out'] as const;
export type Work = (typeof works)[number];

export interface RoundOptions {
  /** A folder with `dist/`, `package.json` and `node_modules`. */
  readonly build: string;
  readonly connections: number;
  readonly work: Work;
  /** Requests that each connection has under way, or its subscriptions. */
  readonly outstanding: number;
  /** Operations before those that are measured. */
  readonly warm: number;
  readonly operations: number;
  /** Where a processor profile is written; undefined: none is made. */
  readonly profile?: string;
  /** Where a profile of what is allocated is written, as `includeObjectsCollectedByMinorGC` has it; undefined: none is made. */
  readonly heap?: string;
}

export interface Round {
  /** Of all threads, for each operation: three servers, the client and the load's own loop. */
  readonly processorUs: number;
  /** Of these, in the kernel. */
  readonly kernelUs: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}
