/**
 * One round of `npm run bench:cost`: three servers of a build and their load in this one process, so that nothing but
 * this process's own work is counted and the batches are those of a busy cluster. Prints a `Round` as JSON.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import type * as Serve from '../../src/cli/serve.ts';
import type * as Client from '../../src/client/index.ts';
import { freeBasePort } from '../../test/support/process-cluster.ts';
import { keyOf, value } from '../load/operations.ts';
import { percentile } from '../statistics.ts';
import type { Round, RoundOptions, Work } from './round-options.ts';

const at = <T>(list: readonly T[], index: number): T => {
  const found = list[index];
  if (found === undefined) throw new RangeError(`there is nothing at ${index} of ${list.length}`);
  return found;
};

const options = JSON.parse(process.argv[2] ?? '') as RoundOptions;
const { connections, outstanding, warm, operations, profile, heap } = options;
const built = (...path: string[]): string => resolve(options.build, 'dist', ...path);
const load = async (...path: string[]): Promise<unknown> => await import(pathToFileURL(built(...path)).href);

const { serve } = (await load('cli', 'serve.js')) as Pick<typeof Serve, 'serve'>;
const client = (await load('client', 'index.js')) as Pick<typeof Client, 'connect' | 'loadProfile'>;

const directory = mkdtempSync(join(tmpdir(), 'futurestore-cost-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true, maxRetries: 10 }));
const cluster = join(directory, 'cluster');
const port = await freeBasePort();
execFileSync(process.execPath, [
  built('cli', 'futurestore.js'),
  'init',
  cluster,
  '--servers',
  '3',
  '--port',
  `${port}`,
]);

for (const server of [1, 2, 3]) {
  const file = join(cluster, `server-${server}`, 'server.yaml');
  writeFileSync(file, readFileSync(file, 'utf8').replace('level: info', 'level: error'));
  serve(file, new AbortController().signal).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
}

const administrator = client.loadProfile(join(cluster, 'admin.yaml'));
const clients = Array.from({ length: connections }, (_, index) =>
  client.connect({ ...administrator, endpoints: [`wss://127.0.0.1:${port + (index % 3)}`] }),
);
await Promise.all(clients.map((one) => one.get('warm/up')));

const lanes = connections * outstanding;
const readKey = 'bench/read'.padEnd(32, '_');

/** Closed loop, over all lanes together so many. Gives the latencies. */
const inLanes = async (
  count: number,
  width: number,
  operation: (own: Client.Client, lane: number, number: number) => Promise<unknown>,
): Promise<number[]> => {
  const latenciesMs: number[] = [];
  let left = count;
  const lane = async (index: number): Promise<void> => {
    const own = at(clients, index % connections);
    for (let number = 0; left > 0; number += 1) {
      left -= 1;
      const startedMs = performance.now();
      await operation(own, index, number);
      latenciesMs.push(performance.now() - startedMs);
    }
  };
  await Promise.all(Array.from({ length: width }, (_, index) => lane(index)));
  return latenciesMs;
};

/** A new value for one key that all connections follow, as often as each has requests, when all were told the last. */
const fanOut = async (): Promise<(deliveries: number) => Promise<number[]>> => {
  const subscriptions = Array.from({ length: lanes }, (_, index) =>
    at(clients, index % connections).subscribe(readKey, { from: 'new' }),
  );
  let told = 0;
  let goal = 0;
  let reached = (): void => {};
  for (const subscription of subscriptions) {
    void (async () => {
      for await (const event of subscription) {
        if (event.kind === 'future') told += 1;
        if (told === goal) reached();
      }
    })();
  }
  // A read is answered behind the subscriptions of the same connection.
  await Promise.all(clients.map((one) => one.get('warm/up')));
  return async (deliveries) => {
    const latenciesMs: number[] = [];
    for (let change = 0; change < deliveries / lanes; change += 1) {
      goal = told + lanes;
      const all = new Promise<void>((resolve) => (reached = resolve));
      const startedMs = performance.now();
      await at(clients, 0).resolve(readKey, `${change}${value}`, { supersede: true });
      await all;
      latenciesMs.push(performance.now() - startedMs);
    }
    return latenciesMs;
  };
};

/** Does so many of what is measured; gives the latencies. */
const prepare = async (work: Work): Promise<(count: number, prefix: string) => Promise<number[]>> => {
  switch (work) {
    case 'settle':
      return (count, prefix) =>
        // A single lane would take minutes to compile the code.
        inLanes(count, prefix === 'warm' ? Math.max(lanes, 64) : lanes, (own, lane, number) =>
          own.resolve(keyOf(prefix, lane, number), value),
        );
    case 'get':
    case 'get-stale': {
      await at(clients, 0).resolve(readKey, value);
      // A read that asks nobody may come to a server before the write does.
      await Promise.all(clients.map((one) => one.await(readKey)));
      return (count) => inLanes(count, lanes, (own) => own.get(readKey, { stale: work === 'get-stale' }));
    }
    case 'fan-out':
      return await fanOut();
    default:
      return work satisfies never;
  }
};

// Until the code is compiled as it will be.
const measured = await prepare(options.work);
await measured(warm, 'warm');
const session = new Session();
if (profile !== undefined) {
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
}
if (heap !== undefined) {
  session.connect();
  await session.post('HeapProfiler.startSampling', {
    samplingInterval: 4096,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  });
}
const before = process.cpuUsage();
const startedMs = performance.now();
const latenciesMs = await measured(operations, 'measured');
const { user, system } = process.cpuUsage(before);
const perSecond = (operations / (performance.now() - startedMs)) * 1000;
if (profile !== undefined)
  writeFileSync(profile, JSON.stringify((await session.post('Profiler.stop')).profile));
if (heap !== undefined)
  writeFileSync(heap, JSON.stringify((await session.post('HeapProfiler.stopSampling')).profile));
const round: Round = {
  processorUs: (user + system) / operations,
  kernelUs: system / operations,
  perSecond,
  p50Ms: percentile(latenciesMs, 0.5),
  p99Ms: percentile(latenciesMs, 0.99),
};
console.log(JSON.stringify(round));
process.exit(0);
