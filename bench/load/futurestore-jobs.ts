/** What a process that makes load on futurestore can be told to do; plain data, since it goes through a pipe. */
import type { LoadShape } from './load.ts';

export type FuturestoreOperation =
  /** A new future each time. */
  | { readonly kind: 'settle'; readonly prefix: string }
  /** Of so many keys, again and again. */
  | { readonly kind: 'overwrite'; readonly keys: number }
  | { readonly kind: 'get'; readonly key: string; readonly stale: boolean };

export interface FuturestoreJob extends LoadShape {
  readonly profile: string;
  readonly endpoints: readonly string[];
  readonly operation: FuturestoreOperation;
}

/** The answer; latencies in ms. */
export interface FuturestoreJobDone {
  readonly latenciesMs: readonly number[];
  readonly processorMs: number;
}

/** 32 bytes and 256 bytes, as etcd's own tool has them by default in comparisons. */
export const keyOf = (prefix: string, lane: number, number: number): string =>
  `${prefix}/${lane}/${number}`.padEnd(32, '_');
export const value = 'v'.repeat(256);
