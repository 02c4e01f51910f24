/**
 * npm run bench [-- [--quick] [NAME…]]: runs the workloads, each on a fresh cluster of three servers on this machine,
 * and prints a table. Servers and load share the machine: the figures are for comparison within one run.
 */
import process from 'node:process';
import { cpus } from 'node:os';
import { ProcessCluster } from '../test/support/process-cluster.ts';
import { matcherWorkload } from './matcher.ts';
import type { Figure, LocalWorkload, Workload } from './workload.ts';
import { workloads } from './workloads.ts';

const all: readonly (LocalWorkload | Workload)[] = [matcherWorkload, ...workloads];

const args = process.argv.slice(2);
const quick = args.includes('--quick');
const names = args.filter((arg) => !arg.startsWith('--'));
const unknown = names.filter((name) => !all.some((workload) => workload.name === name));
if (unknown.length > 0 || args.some((arg) => arg.startsWith('--') && arg !== '--quick')) {
  console.error(`usage: npm run bench -- [--quick] [${all.map(({ name }) => name).join('|')}]…`);
  process.exit(2);
}

const line = ({ workload, figure, value, unit, limit }: Figure): string => {
  const verdict = limit === undefined ? '' : `  (limit ${limit}: ${value <= limit ? 'kept' : 'MISSED'})`;
  return `${workload.padEnd(12)} ${figure.padEnd(28)} ${value.toFixed(value < 10 ? 2 : 0).padStart(8)} ${unit}${verdict}`;
};

console.log(
  `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, all servers and the load on this machine`,
);
for (const workload of all) {
  if (names.length > 0 && !names.includes(workload.name)) continue;
  console.log(`\n${workload.name}: ${workload.about}`);
  const report = (figure: Omit<Figure, 'workload'>): void => {
    console.log(line({ workload: workload.name, ...figure }));
  };
  if ('measure' in workload) {
    workload.measure({ quick, report });
    continue;
  }
  const cluster = await ProcessCluster.start({ servers: workload.servers ?? 3 });
  try {
    await workload.run({ quick, cluster, report });
  } finally {
    await cluster.close();
  }
}
