/**
 * npm run bench [-- [--quick] [--rounds N] [--alone] [--node FILE] [--parts] [--json FILE] [--svg FILE] [NAME…]]: runs the workloads on three
 * servers of this build and on three of each other store that is installed here, in turn, round by round, and prints
 * the medians. Servers and load share the machine, so ratios within one run are what counts.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { chartOf } from './chart.ts';
import { h2loadVersion } from './load/h2load.ts';
import { describeMachine, measureSyncs } from './machine.ts';
import { jsonOf, resultsOf, tableLines, type FigureResult, type SystemRounds } from './report.ts';
import { bareParts } from './systems/bare-parts.ts';
import { etcd, etcdWithoutTls } from './systems/etcd.ts';
import { futurestore, futurestoreOn } from './systems/futurestore.ts';
import { nats } from './systems/nats.ts';
import type { System } from './systems/system.ts';
import { zookeeper } from './systems/zookeeper.ts';
import type { Conditions, LocalWorkload, Measured, SystemsWorkload, Workload } from './workload.ts';
import { workloads } from './workloads/index.ts';

interface Options {
  readonly quick?: boolean;
  readonly alone?: boolean;
  readonly rounds?: string;
  readonly node?: string;
  readonly parts?: boolean;
  readonly json?: string;
  readonly svg?: string;
}

const program = new Command('npm run bench --')
  .argument('[NAME...]', `of ${workloads.map(({ name }) => name).join(', ')}; none: all`)
  .option('--quick', 'shorter rounds, one of each: a first look')
  .option('--alone', 'only this build, without the others')
  .option('--node <file>', 'beside this build, the same with servers on another Node (its program)')
  .option('--parts', 'beside this build, what sockets, TLS, codec and disks take for a write by themselves')
  .option('--rounds <n>', 'rounds of each workload (default 3, with --quick 1)')
  .option('--json <file>', 'write all results there')
  .option('--svg <file>', 'draw the ratios there')
  .parse();
const options = program.opts<Options>();
const quick = options.quick ?? false;
const rounds = Number(options.rounds ?? (quick ? 1 : 3));
const unknown = program.args.find((name) => !workloads.some((workload) => workload.name === name));
if (unknown !== undefined) program.error(`there is no workload '${unknown}'`);
if (!Number.isInteger(rounds) || rounds < 1)
  program.error(`--rounds: ${String(options.rounds)} is no number of rounds`);

/** A column: a system, started for a workload, and what of the workload is done on it. */
interface Column {
  readonly name: string;
  readonly version: string;
  start(workload: SystemsWorkload): Promise<Started | undefined>;
}
interface Started {
  round(conditions: Conditions): Promise<Measured>;
  stop(): Promise<void>;
}

const column = <Running extends { stop(): Promise<void> }>(
  system: Pick<System, 'name' | 'version'> & { start(): Promise<Running> },
  work: (
    workload: SystemsWorkload,
  ) => ((running: Running, conditions: Conditions) => Promise<Measured>) | undefined,
): Column | undefined => {
  const version = system.version();
  if (version === undefined) return undefined;
  return {
    name: system.name,
    version,
    start: async (workload) => {
      const run = work(workload);
      if (run === undefined) return undefined;
      const running = await system.start();
      return { round: (conditions) => run(running, conditions), stop: () => running.stop() };
    },
  };
};

const packages = 'etcd-server, nghttp2-client, nats-server, zookeeper';
const columns: Column[] = [];
const absent: string[] = [];
const add = (name: string, found: Column | undefined): void => {
  if (found === undefined) absent.push(name);
  else columns.push(found);
};
add(
  futurestore.name,
  column(futurestore, (workload) => workload.futurestore),
);
const onOtherNode = options.node === undefined ? undefined : futurestoreOn(options.node);
if (onOtherNode !== undefined) {
  if (onOtherNode.version() === undefined)
    program.error(`--node: ${String(options.node)} does not run this build`);
  add(
    onOtherNode.name,
    column(onOtherNode, (workload) => workload.futurestore),
  );
}
if (options.parts) {
  add(
    bareParts.name,
    column(bareParts, (workload) => workload.parts),
  );
}
if (!options.alone) {
  const withLoad = h2loadVersion() !== undefined;
  for (const system of [etcd, etcdWithoutTls]) {
    add(system.name, withLoad ? column(system, (workload) => workload.etcd) : undefined);
  }
  for (const system of [nats, zookeeper])
    add(
      system.name,
      column(system, (workload) => workload.keyValue),
    );
}

const machine = describeMachine();
console.log(
  `Node ${machine.node}, ${machine.processors} × ${machine.processor}, ${machine.memoryGiB} GiB, ${machine.syncsPerSecond} syncs/s of 4 KiB; all servers and the load on this machine`,
);
for (const { name, version } of columns) console.log(`${name} ${version}`);
for (const name of absent)
  console.log(`${name}: not installed here (Debian: ${packages}), its column is left out`);

/** What a round left to be written later, its own or another system's, must not slow the next one's syncs. */
const writeAllToDisk = (): void => {
  execFileSync('sync');
};

/** Round by round on each system in turn, so that what else happens on the machine meets all of them alike. */
const runOnSystems = async (workload: SystemsWorkload): Promise<SystemRounds[]> => {
  const started: { readonly column: Column; readonly system: Started; readonly rounds: Measured[] }[] = [];
  try {
    for (const one of columns) {
      const system = await one.start(workload);
      if (system !== undefined) started.push({ column: one, system, rounds: [] });
    }
    if (workload.warm) {
      for (const { system } of started) await system.round({ quick, round: rounds, warming: true });
    }
    for (let round = 0; round < rounds; round += 1) {
      for (const one of started) {
        writeAllToDisk();
        one.rounds.push(await one.system.round({ quick, round }));
      }
    }
  } finally {
    for (const { system } of started) await system.stop();
  }
  return started.map((one) => ({ system: one.column.name, rounds: one.rounds }));
};

const runLocally = (workload: LocalWorkload): SystemRounds[] => {
  const own = { system: futurestore.name, rounds: [workload.local({ quick, round: 0 })] };
  if (onOtherNode === undefined || options.node === undefined) return [own];
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-'));
  const file = join(directory, 'results.json');
  const args = [fileURLToPath(import.meta.url), workload.name, '--alone', '--json', file];
  execFileSync(options.node, quick ? [...args, '--quick'] : args);
  const { results } = JSON.parse(readFileSync(file, 'utf8')) as { readonly results: readonly FigureResult[] };
  rmSync(directory, { recursive: true });
  const measured = results.flatMap(({ figure, values }) => {
    const found = values[futurestore.name];
    return found === undefined ? [] : [[figure, found.value] as const];
  });
  return [own, { system: onOtherNode.name, rounds: [Object.fromEntries(measured)] }];
};

const runWorkload = async (workload: Workload): Promise<SystemRounds[]> =>
  'local' in workload ? runLocally(workload) : await runOnSystems(workload);

const beside = [onOtherNode?.name ?? [], options.parts ? bareParts.name : []].flat();
const all: FigureResult[] = [];
for (const workload of workloads) {
  if (program.args.length > 0 && !program.args.includes(workload.name)) continue;
  console.log(`\n${workload.name}: ${workload.about}`);
  const systems = await runWorkload(workload);
  const results = resultsOf({ workload, systems }, beside);
  const names = systems.map(({ system }) => system);
  console.log(`  ${''.padEnd(30)} ${''.padEnd(8)}${names.map((name) => name.padStart(16)).join('')}`);
  for (const line of tableLines(results, names)) console.log(line);
  all.push(...results);
}
console.log(`\nAt the end: ${measureSyncs()} syncs/s of 4 KiB`);
const missed = all.filter(({ kept }) => kept === false);
console.log(
  missed.length === 0
    ? 'No goal was missed.'
    : `Missed: ${missed.map(({ workload, figure }) => `${workload} (${figure})`).join(', ')}`,
);
const versions = Object.fromEntries(columns.map(({ name, version }) => [name, version]));
if (options.json !== undefined) writeFileSync(options.json, jsonOf(machine, versions, all));
if (options.svg !== undefined) writeFileSync(options.svg, chartOf(all));
process.exit(0);
