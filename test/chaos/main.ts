/**
 * npm run chaos [-- --servers 3|5 --seconds N --seed S --faults LIST --history FILE]: real servers under load from real
 * clients while processes, disks and network fail, then a check of all that was promised. Ends with 1 if something
 * was not kept; the servers' files and logs are kept then.
 *
 * The seed draws faults and load; what real processes make of them differs from run to run.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { faultKinds } from './faults.ts';
import { faultHead, runChaos } from './run.ts';
import type { ChaosOptions, ChaosReport } from './run.ts';

const usage = `usage: npm run chaos -- [--servers 3|5] [--seconds N] [--seed S] [--faults ${faultKinds.map(({ name }) => name).join(',')}] [--history FILE]`;

const wholeNumber = (name: string, text: string): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`--${name} ${text} is no whole number`);
  return value;
};

const optionsOf = (args: readonly string[]): ChaosOptions => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      servers: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string' },
      faults: { type: 'string', default: '' },
      history: { type: 'string' },
    },
  });
  const servers = wholeNumber('servers', values.servers);
  if (servers !== 3 && servers !== 5) throw new RangeError(`--servers ${servers}: 3 or 5`);
  return {
    servers,
    seconds: wholeNumber('seconds', values.seconds),
    seed: values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : wholeNumber('seed', values.seed),
    faults: values.faults.split(',').filter((name) => name !== ''),
    ...(values.history === undefined ? {} : { history: values.history }),
    log: (line) => console.log(line),
  };
};

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

const print = (report: ChaosReport): void => {
  const { load, faults, durationsMs } = report;
  const counts = new Map<string, number>();
  for (const { name } of faults) counts.set(name, (counts.get(name) ?? 0) + 1);
  const unknown = load.history.filter((operation) => operation.output === 'unknown').length;
  const rows: readonly (readonly [string, string])[] = [
    ['faults', [...counts].map(([name, count]) => `${name} ${count}`).join(', ')],
    [
      'skipped',
      report.skipped.length === 0 ? 'none' : report.skipped.map((line) => line.split(':')[0]).join(', '),
    ],
    ['operations', `${load.history.length} on contended keys, ${unknown} of them of unknown outcome`],
    ['once', `${load.acknowledged.length} futures acknowledged`],
    ['awaits', `${load.awaitsEnded} of ${load.awaitsMade} ended`],
    ['pushes', `${load.pushes}, ${load.resets} resets`],
    ['reconnects', `${load.reconnects}`],
    ['outage', `the longest without an acknowledged write: ${seconds(report.longestOutageMs)}`],
    [
      'durations',
      Object.entries(durationsMs)
        .map(([name, ms]) => `${name} ${seconds(ms)}`)
        .join(', '),
    ],
    ...report.notes.map((note) => ['note', note] as const),
    ...report.violations.map((violation) => ['VIOLATION', violation] as const),
  ];
  for (const [name, text] of rows) console.log(`${name.padEnd(12)} ${text}`);
  if (report.directory !== undefined) console.log(`${'kept'.padEnd(12)} ${report.directory}`);
};

let options: ChaosOptions;
try {
  options = optionsOf(process.argv.slice(2));
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
  process.exit(2);
}
console.log(`${options.servers} servers, ${options.seconds} s, seed ${options.seed}`);
console.log(faultHead);
// Namespaces and mounts are to be gone in the end, whatever the end is; a second signal does not wait for that.
const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interruption.abort());
try {
  const report = await runChaos({ ...options, signal: interruption.signal });
  console.log('');
  print(report);
  console.log(report.violations.length === 0 ? 'all kept' : `${report.violations.length} NOT KEPT`);
  process.exitCode = report.violations.length === 0 ? 0 : 1;
} catch (error) {
  console.error(error);
  process.exitCode = error instanceof RangeError ? 2 : 1;
}
