/**
 * npm run bench:cost -- [--work settle] [--shape 100x10] [--count N] [--warm N] [--rounds N] [--profile FILE] [--heap FILE] [BUILD…]: the processor
 * time of a settle, a read or a delivery, of several builds round by round in turn. Each round is a process of its own with three servers and
 * their load, so the figure hardly depends on what else the machine does: two rounds of one build differ by two or three
 * per cent also where the machine has ten times more to do than processors. See bench/PROFILE.md.
 */
import { execFileSync } from 'node:child_process';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import { median } from '../statistics.ts';
import { boundLines } from './bounds.ts';
import { hopLines } from './hops.ts';
import { heapLines, profileLines } from './profile.ts';
import { works, type Round, type RoundOptions, type Work } from './round-options.ts';

interface Options {
  readonly shape: string;
  readonly work: Work;
  readonly count: string;
  readonly warm: string;
  readonly rounds: string;
  readonly profile?: string;
  readonly heap?: string;
  readonly bounds?: boolean;
  readonly hops?: boolean;
}

const program = new Command('npm run bench:cost --')
  .argument('[BUILD...]', 'folders with dist/, package.json and node_modules; none: this one')
  .option('--shape <c>x<o>', 'connections x outstanding requests, or subscriptions, of each', '100x10')
  .addOption(new Option('--work <what>', 'what is measured').choices(works).default('settle'))
  .option('--count <n>', 'operations that are measured', '15000')
  .option('--warm <n>', 'before them', '15000')
  .option('--rounds <n>', 'of each build', '3')
  .option(
    '--profile <file>',
    'a processor profile of the last round is written there, and its shares are printed',
  )
  .option('--heap <file>', 'as --profile, of what is allocated; what is measured beside it means nothing')
  .option('--bounds', 'only what the parts cost that nobody can do without')
  .option('--hops', 'only where a single write is at which time, on servers that are processes of their own')
  .parse();
const options = program.opts<Options>();
const [connections = 1, outstanding = 1] = options.shape.split('x').map(Number);
const script = fileURLToPath(new URL('round.js', import.meta.url));

const run = (build: string): Round => {
  const told: RoundOptions = {
    build,
    connections,
    outstanding,
    warm: Number(options.warm),
    operations: Number(options.count),
    work: options.work,
    ...(options.profile !== undefined && { profile: options.profile }),
    ...(options.heap !== undefined && { heap: options.heap }),
  };
  const printed = execFileSync(process.execPath, [script, JSON.stringify(told)], { encoding: 'utf8' });
  return JSON.parse(printed) as Round;
};

if (options.bounds) {
  for (const line of await boundLines()) console.log(line);
  process.exit(0);
}

const builds = program.args.length === 0 ? ['.'] : program.args;
if (options.hops) {
  // One by one: what suffices for many at a time would take minutes.
  const settles = Math.min(Number(options.count), 1000);
  for (const line of await hopLines(builds, Number(options.rounds), settles)) console.log(line);
  process.exit(0);
}

const rounds = new Map<string, Round[]>(builds.map((build) => [build, []]));
for (let round = 0; round < Number(options.rounds); round += 1) {
  for (const [build, own] of rounds) own.push(run(build));
}
console.log(
  `${options.work} ${options.shape}, ${options.count} operations, medians of ${options.rounds} rounds; three servers and the load`,
);
console.log(
  `${'processor µs'.padStart(14)}${'in kernel'.padStart(12)}${'p50 ms'.padStart(10)}${'/s'.padStart(8)}`,
);
let first: number | undefined;
for (const [build, own] of rounds) {
  const of = (figure: keyof Round): number => median(own.map((round) => round[figure]));
  const us = of('processorUs');
  first ??= us;
  console.log(
    `${us.toFixed(1).padStart(14)}${of('kernelUs').toFixed(1).padStart(12)}${of('p50Ms').toFixed(2).padStart(10)}` +
      `${of('perSecond').toFixed(0).padStart(8)}  × ${(us / first).toFixed(2)}  ${build}` +
      `  (${own.map(({ processorUs }) => processorUs.toFixed(0)).join(', ')})`,
  );
}
if (options.profile !== undefined) for (const line of profileLines(options.profile, 40)) console.log(line);
if (options.heap !== undefined)
  for (const line of heapLines(options.heap, Number(options.count), 60)) console.log(line);
