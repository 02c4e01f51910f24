/** All workloads, in the order of the table. */
import type { Workload } from '../workload.ts';
import { awaitWorkload } from './await.ts';
import { catchUpWorkload } from './catch-up.ts';
import { failoverWorkload, restartWorkload, stormWorkload } from './faults.ts';
import { fanOutWorkload } from './fan-out.ts';
import { growthWorkload, serversWorkload } from './growth.ts';
import { matcherWorkload } from './matcher.ts';
import { readWorkloads } from './read.ts';
import { settleWorkloads } from './settle.ts';

export const workloads: readonly Workload[] = [
  ...settleWorkloads,
  ...readWorkloads,
  awaitWorkload,
  fanOutWorkload,
  stormWorkload,
  failoverWorkload,
  restartWorkload,
  catchUpWorkload,
  growthWorkload,
  serversWorkload,
  matcherWorkload,
];
