/** What processes that make load do again and again; plain data, since it goes through a pipe. */

export type LoadOperation =
  /** A new key each time. */
  | { readonly kind: 'settle'; readonly prefix: string }
  /** Of so many keys, again and again. */
  | { readonly kind: 'overwrite'; readonly keys: number }
  | { readonly kind: 'get'; readonly key: string; readonly stale: boolean };

/** What became of them. */
export interface LoadDone {
  readonly latenciesMs: readonly number[];
  readonly processorMs: number;
}

/** 32 bytes and 256 bytes, as etcd's own tool has them by default in comparisons. */
export const keyOf = (prefix: string, lane: number, number: number): string =>
  `${prefix}/${lane}/${number}`.padEnd(32, '_');
export const value = 'v'.repeat(256);
