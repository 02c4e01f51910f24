/** Load on stores that have keys and values, made by a process of its own. */
import type { KeyValueEndpoint } from './key-value-client.ts';
import type { LoadResult, LoadShape } from './load.ts';
import { loadProcess } from './load-process.ts';
import type { LoadOperation } from './operations.ts';

export interface KeyValueJob extends LoadShape {
  readonly endpoints: readonly KeyValueEndpoint[];
  readonly operation: LoadOperation;
}

export const keyValueLoad = (job: KeyValueJob): Promise<LoadResult> =>
  loadProcess('key-value-worker.js', job);
