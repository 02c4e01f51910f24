/** Load on stores that have keys and values. */
import type { FuturestoreOperation } from './futurestore-jobs.ts';
import type { KeyValueEndpoint } from './key-value-client.ts';
import type { LoadResult, LoadShape } from './load.ts';
import { loadProcess } from './load-process.ts';

export interface KeyValueJob extends LoadShape {
  readonly endpoints: readonly KeyValueEndpoint[];
  readonly operation: FuturestoreOperation;
}

export const keyValueLoad = (job: KeyValueJob): Promise<LoadResult> =>
  loadProcess('key-value-worker.js', job);
