/** Load on futurestore, made by a process of its own. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { FuturestoreJob, FuturestoreJobDone } from './futurestore-jobs.ts';
import type { LoadResult } from './load.ts';

const worker = fileURLToPath(new URL('futurestore-worker.js', import.meta.url));

export const futurestoreLoad = async (job: FuturestoreJob): Promise<LoadResult> => {
  const child = fork(worker, { serialization: 'advanced' });
  const done = await new Promise<FuturestoreJobDone>((resolve, reject) => {
    child.once('message', (message) => resolve(message as FuturestoreJobDone));
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the load generator ended with ${code}`)));
    child.send(job);
  });
  return {
    operations: done.latenciesMs.length,
    seconds: job.seconds,
    latenciesMs: done.latenciesMs,
    generatorSeconds: done.processorMs / 1000,
  };
};
