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
import { keyOf, value } from '../load/futurestore-jobs.ts';
import { percentile } from '../statistics.ts';
import type { Round, RoundOptions } from './round-options.ts';

const options = JSON.parse(process.argv[2] ?? '') as RoundOptions;
const { connections, outstanding, warm, settles, profile } = options;
const built = (...path: string[]): string => resolve(options.build, 'dist', ...path);
const load = async (...path: string[]): Promise<unknown> => await import(pathToFileURL(built(...path)).href);

const { serve } = (await load('cli', 'serve.js')) as Pick<typeof Serve, 'serve'>;
const client = (await load('client', 'index.js')) as Pick<typeof Client, 'connect' | 'loadProfile'>;

const directory = mkdtempSync(join(tmpdir(), 'futurestore-cost-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
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

/** Closed loop, over all lanes together so many. Gives the latencies. */
const settle = async (prefix: string, count: number, lanes: number): Promise<number[]> => {
  const latenciesMs: number[] = [];
  let left = count;
  const lane = async (index: number): Promise<void> => {
    const own = clients[index % connections];
    if (own === undefined) throw new RangeError(`there is no client for lane ${index}`);
    for (let number = 0; left > 0; number += 1) {
      left -= 1;
      const startedMs = performance.now();
      await own.resolve(keyOf(prefix, index, number), value);
      latenciesMs.push(performance.now() - startedMs);
    }
  };
  await Promise.all(Array.from({ length: lanes }, (_, index) => lane(index)));
  return latenciesMs;
};

// Until the code is compiled as it will be; a single lane would take minutes for that.
await settle('warm', warm, Math.max(connections * outstanding, 64));
const session = new Session();
if (profile !== undefined) {
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
}
const before = process.cpuUsage();
const startedMs = performance.now();
const latenciesMs = await settle('measured', settles, connections * outstanding);
const { user, system } = process.cpuUsage(before);
const perSecond = (settles / (performance.now() - startedMs)) * 1000;
if (profile !== undefined)
  writeFileSync(profile, JSON.stringify((await session.post('Profiler.stop')).profile));
const round: Round = {
  processorUs: (user + system) / settles,
  kernelUs: system / settles,
  perSecond,
  p50Ms: percentile(latenciesMs, 0.5),
  p99Ms: percentile(latenciesMs, 0.99),
};
console.log(JSON.stringify(round));
process.exit(0);
