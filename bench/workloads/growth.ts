/** Whether it stays as quick when there is more of it: more futures, more servers. */
import { connect, loadProfile } from '../../src/client/index.ts';
import { fill } from '../load/fill.ts';
import { keyValueLoad } from '../load/key-value-load.ts';
import type { LoadOperation } from '../load/operations.ts';
import { another, type RunningFuturestore } from '../systems/futurestore.ts';
import type { Conditions, FigureDescription, Measured, SystemsWorkload } from '../workload.ts';

const connections = 100;
const outstanding = 10;
const warmingSeconds = 4;

const perSecond = async (
  { loadEndpoints }: RunningFuturestore,
  operation: LoadOperation,
  seconds: number,
): Promise<number> => {
  const result = await keyValueLoad({
    endpoints: loadEndpoints,
    operation,
    connections,
    outstanding,
    seconds,
  });
  return result.operations / result.seconds;
};

const leastOfMost = (values: readonly number[]): number => Math.min(...values) / Math.max(...values);

const sizesOf = (quick: boolean): readonly number[] =>
  quick ? [10_000, 100_000] : [10_000, 100_000, 1_000_000, 3_000_000];

const sizeNames = new Map([
  [10_000, '10⁴'],
  [100_000, '10⁵'],
  [1_000_000, '10⁶'],
  [3_000_000, '3·10⁶'],
]);

const figuresOfSizes = (what: string): readonly FigureDescription[] => [
  ...[...sizeNames.values()].map((name): FigureDescription => {
    return { name: `${what} at ${name} futures`, unit: '/s', better: 'more' };
  }),
  // Flat within a quarter.
  { name: `${what}: least by most`, unit: '', better: 'more', limit: 0.75 },
];

export const growthWorkload: SystemsWorkload = {
  name: 'growth',
  about: `a cluster of its own for each round, ${connections} connections × ${outstanding} outstanding, with 10⁴, 10⁵, 10⁶ and 3·10⁶ futures there (--quick: the first two)`,
  figures: [...figuresOfSizes('settles'), ...figuresOfSizes('reads')],
  futurestore: (system, conditions) => inAnother(system, 3, (own) => growing(own, conditions)),
};

const growing = async (system: RunningFuturestore, { quick, round }: Conditions): Promise<Measured> => {
  const seconds = quick ? 2 : 6;
  const client = connect({ ...loadProfile(system.profile), endpoints: system.endpoints });
  await fill(client, 1);
  const read: LoadOperation = { kind: 'get', key: 'fill/0', stale: false };
  // The least size would be the one that waits for compilers.
  await perSecond(system, { kind: 'settle', prefix: `warm${round}` }, warmingSeconds);
  await perSecond(system, read, warmingSeconds);
  const measured: Record<string, number> = {};
  const settles: number[] = [];
  const reads: number[] = [];
  let filled = 1;
  for (const size of sizesOf(quick)) {
    await fill(client, size, { from: filled });
    filled = size;
    const prefix = `g${round}-${size}`;
    settles.push(await perSecond(system, { kind: 'settle', prefix }, seconds));
    reads.push(await perSecond(system, read, seconds));
    const name = sizeNames.get(size) ?? `${size}`;
    measured[`settles at ${name} futures`] = settles.at(-1) ?? Number.NaN;
    measured[`reads at ${name} futures`] = reads.at(-1) ?? Number.NaN;
  }
  await client.close();
  if (settles.length > 1) measured['settles: least by most'] = leastOfMost(settles);
  if (reads.length > 1) measured['reads: least by most'] = leastOfMost(reads);
  return measured;
};

const inAnother = async (
  system: RunningFuturestore,
  servers: number,
  work: (system: RunningFuturestore) => Promise<Measured>,
): Promise<Measured> => {
  const own = await another(system, servers);
  try {
    return await work(own);
  } finally {
    await own.stop();
  }
};

const serverCounts = [3, 5, 7];

export const serversWorkload: SystemsWorkload = {
  name: 'servers',
  about: `${connections} connections × ${outstanding} outstanding, a new future each, in clusters of 3, 5 and 7 servers, all of them on this machine`,
  figures: serverCounts.map((count) => {
    return { name: `settles with ${count} servers`, unit: '/s', better: 'more' };
  }),
  futurestore: async (system, { quick, round }) => {
    const measured: Record<string, number> = {};
    for (const count of serverCounts) {
      const alone = await inAnother(system, count, async (own) => {
        await perSecond(own, { kind: 'settle', prefix: `warm${round}` }, warmingSeconds);
        const settles = await perSecond(own, { kind: 'settle', prefix: `s${round}` }, quick ? 2 : 6);
        return { [`settles with ${count} servers`]: settles };
      });
      Object.assign(measured, alone);
    }
    return measured;
  },
};
