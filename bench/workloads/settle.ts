/** Writes: a new future each, and values that take the place of others. */
import { percentile } from '../statistics.ts';
import { h2load } from '../load/h2load.ts';
import { grpcFrame } from '../load/etcd-client.ts';
import { keyOf, value, type LoadOperation } from '../load/operations.ts';
import { whenDone } from '../load/key-value-client.ts';
import { connectKeyValue } from '../load/key-value-clients.ts';
import { keyValueLoad } from '../load/key-value-load.ts';
import type { LoadResult, LoadShape } from '../load/load.ts';
import type { RunningKeyValue } from '../systems/system.ts';
import type { Conditions, FigureDescription, Measured, SystemsWorkload } from '../workload.ts';
import { processorSeconds } from '../machine.ts';

const throughput = 'throughput (peak, closed loop)';

const measuredOf = (
  { operations, seconds, latenciesMs, generatorSeconds }: LoadResult,
  serverSeconds: number,
): Measured => ({
  [throughput]: operations / seconds,
  'latency p50': percentile(latenciesMs, 0.5),
  'latency p99': percentile(latenciesMs, 0.99),
  'processor of the servers': (serverSeconds / operations) * 1e6,
  'processor of the load': (generatorSeconds / operations) * 1e6,
});

/** Goals against etcd; what has none is told all the same. */
export interface LoadGoals {
  readonly throughput?: number;
  readonly p50?: number;
  readonly p99?: number;
}

export const loadFigures = (goals: LoadGoals): readonly FigureDescription[] => [
  { name: throughput, unit: '/s', better: 'more', ...(goals.throughput && { ratioGoal: goals.throughput }) },
  { name: 'latency p50', unit: 'ms', better: 'less', ...(goals.p50 && { ratioGoal: goals.p50 }) },
  { name: 'latency p99', unit: 'ms', better: 'less', ...(goals.p99 && { ratioGoal: goals.p99 }) },
  { name: 'processor of the servers', unit: 'µs each', better: 'less' },
  { name: 'processor of the load', unit: 'µs each', better: 'less' },
];

/** While the load runs, what the servers use of the processors. */
export const withProcessors = async (
  pids: readonly number[],
  load: () => Promise<LoadResult>,
): Promise<Measured> => {
  const before = processorSeconds(pids);
  const result = await load();
  return measuredOf(result, processorSeconds(pids) - before);
};

const secondsOf = ({ quick }: Conditions): number => (quick ? 2 : 8);

/** One lane would take minutes to have the servers' code compiled. */
const warmingShape: LoadShape = { connections: 100, outstanding: 10, seconds: 6 };

export const shapeOf = (connections: number, outstanding: number, conditions: Conditions): LoadShape =>
  conditions.warming ? warmingShape : { connections, outstanding, seconds: secondsOf(conditions) };

const putFrame = (): Buffer =>
  grpcFrame('PutRequest', { key: Buffer.from(keyOf('bench', 0, 0)), value: Buffer.from(value) });

const settleWorkload = (
  name: string,
  about: string,
  connections: number,
  outstanding: number,
  goals: LoadGoals,
  operation: (round: number) => LoadOperation = (round) => ({ kind: 'settle', prefix: `b${round}` }),
): SystemsWorkload => ({
  name,
  about: `${connections} connections × ${outstanding} outstanding, ${about}`,
  warm: true,
  figures: loadFigures(goals),
  futurestore: (system, conditions) =>
    withProcessors(system.pids, () =>
      keyValueLoad({
        endpoints: system.loadEndpoints,
        operation: operation(conditions.round),
        ...shapeOf(connections, outstanding, conditions),
      }),
    ),
  etcd: (system, conditions) =>
    withProcessors(system.pids, () =>
      h2load(
        system.endpoints,
        { method: 'etcdserverpb.KV/Put', body: putFrame() },
        shapeOf(connections, outstanding, conditions),
      ),
    ),
  keyValue: async (system, conditions) => {
    const wanted = operation(conditions.round);
    if (wanted.kind === 'overwrite') await putAll(system, wanted.keys);
    return await putting(system, wanted, connections, outstanding, conditions);
  },
  // To them a value that takes the place of another is one more.
  parts: (system, conditions) =>
    putting(system, { kind: 'settle', prefix: `b${conditions.round}` }, connections, outstanding, conditions),
});

const putting = (
  { pids, endpoints }: RunningKeyValue,
  operation: LoadOperation,
  connections: number,
  outstanding: number,
  conditions: Conditions,
): Promise<Measured> =>
  withProcessors(pids, () =>
    keyValueLoad({ endpoints, operation, ...shapeOf(connections, outstanding, conditions) }),
  );

/** The keys that are overwritten: those who make a difference between new and old are asked for the cheaper one. */
const putAll = async ({ endpoints }: RunningKeyValue, keys: number): Promise<void> => {
  const [endpoint] = endpoints;
  if (endpoint === undefined) throw new Error('the store has no server');
  const client = await connectKeyValue(endpoint);
  const numbers = Array.from({ length: keys }, (_, number) => number);
  await Promise.all(
    numbers.map((number) => whenDone((done) => client.put(keyOf('overwrite', number, 0), value, done))),
  );
  client.close();
};

const newFuture = 'a new future each (etcd: put)';

export const manySettles = settleWorkload('settle-1000', newFuture, 100, 10, { throughput: 5, p99: 0.4 });

export const settleWorkloads: readonly SystemsWorkload[] = [
  settleWorkload('settle-1', newFuture, 1, 1, { p50: 0.8 }),
  settleWorkload('settle-100', newFuture, 100, 1, { throughput: 2.5 }),
  manySettles,
  settleWorkload('settle-wide', newFuture, 1000, 1, { throughput: 2.5 }),
  settleWorkload('overwrite', 'the values of 1,000 keys replaced', 100, 10, { throughput: 5 }, () => ({
    kind: 'overwrite',
    keys: 1000,
  })),
];
