/** A load generator in a process of its own, so that what it costs is known and nobody waits for it. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { LoadResult } from './load.ts';
import type { LoadDone } from './operations.ts';

/** `worker`: the built module beside this one that does the job, and gives a `Done`. */
export const childProcess = async <Done>(worker: string, job: object): Promise<Done> => {
  const child = fork(fileURLToPath(new URL(worker, import.meta.url)), { serialization: 'advanced' });
  return await new Promise<Done>((resolve, reject) => {
    child.once('message', (message) => resolve(message as Done));
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the load generator ended with ${code}`)));
    child.send(job);
  });
};

/** As `childProcess`, for one that gives latencies. */
export const loadProcess = async (
  worker: string,
  job: object & { readonly seconds: number },
): Promise<LoadResult> => {
  const done = await childProcess<LoadDone>(worker, job);
  return {
    operations: done.latenciesMs.length,
    seconds: job.seconds,
    latenciesMs: done.latenciesMs,
    generatorSeconds: done.processorMs / 1000,
  };
};
