/** A load generator in a process of its own, so that what it costs is known and nobody waits for it. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { LoadResult } from './load.ts';
import type { FuturestoreJobDone } from './futurestore-jobs.ts';

/** `worker`: the built module beside this one that does the job. */
export const loadProcess = async (
  worker: string,
  job: object & { readonly seconds: number },
): Promise<LoadResult> => {
  const child = fork(fileURLToPath(new URL(worker, import.meta.url)), { serialization: 'advanced' });
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
