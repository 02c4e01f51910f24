/** One key that very many follow. */
import type { FollowerJob, FollowerJobDone } from '../load/follower-jobs.ts';
import { childProcess } from '../load/load-process.ts';
import type { Measured, SystemsWorkload } from '../workload.ts';

const key = 'fan/out'.padEnd(32, '_');

type Shape = Pick<FollowerJob, 'key' | 'connections' | 'each' | 'changes'>;

const shape = (quick: boolean): Shape =>
  quick
    ? { key, connections: 500, each: 10, changes: 20 }
    : { key, connections: 1000, each: 10, changes: 20 };

const figures = {
  deliveries: 'deliveries',
  servers: 'processor of the servers',
  load: 'processor of the load',
} as const;

const run = async (job: FollowerJob): Promise<Measured> => {
  const done = await childProcess<FollowerJobDone>('follower-worker.js', job);
  const { changesMs, serverSeconds, loadSeconds } = done;
  const deliveries = job.connections * job.each * job.changes;
  const seconds = changesMs.reduce((sum, ms) => sum + ms, 0) / 1000;
  return {
    [figures.deliveries]: deliveries / seconds,
    [figures.servers]: (serverSeconds / deliveries) * 1e6,
    [figures.load]: (loadSeconds / deliveries) * 1e6,
  };
};

export const fanOutWorkload: SystemsWorkload = {
  name: 'fan-out',
  about:
    'one key, 10,000 subscriptions on 1,000 connections (--quick: 5,000 on 500), 20 changes one after the other, each when all were told the last',
  warm: true,
  figures: [
    { name: figures.deliveries, unit: '/s', better: 'more', ratioGoal: 5 },
    { name: figures.servers, unit: 'µs each', better: 'less' },
    { name: figures.load, unit: 'µs each', better: 'less' },
  ],
  futurestore: ({ pids, endpoints, profile }, { quick }) =>
    run({ ...shape(quick), system: 'futurestore', pids, endpoints, profile }),
  etcd: ({ pids, endpoints, ca }, { quick }) => run({ ...shape(quick), system: 'etcd', pids, endpoints, ca }),
};
