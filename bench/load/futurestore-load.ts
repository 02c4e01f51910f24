/** Load on futurestore. */
import type { FuturestoreJob } from './futurestore-jobs.ts';
import type { LoadResult } from './load.ts';
import { loadProcess } from './load-process.ts';

export const futurestoreLoad = (job: FuturestoreJob): Promise<LoadResult> =>
  loadProcess('futurestore-worker.js', job);
