/**
 * npm run bench:micro [-- [--against REVISION] [NAME…]]: parts of the code by themselves, of this build and of another
 * commit's in turn within one run, so that noise meets both alike; what counts is the ratio.
 */
import { dirname, resolve } from 'node:path';
import process from 'node:process';
import { Command } from 'commander';
import { measure } from 'mitata';
import { buildOf } from '../../test/support/other-build.ts';
import { median } from '../statistics.ts';
import { microCases, type MicroCase } from './cases.ts';
import { modulesOf, type Modules } from './modules.ts';

const program = new Command('npm run bench:micro --')
  .argument('[NAME...]', 'only cases whose name has one of these in it')
  .option('--against <revision>', 'the other build', 'HEAD~1')
  .option('--rounds <n>', 'of each build, in turn', '5')
  .parse();
const { against, rounds } = program.opts<{ readonly against: string; readonly rounds: string }>();

/** Nanoseconds of one operation: the median of one round. */
const nanoseconds = async ({ operations }: MicroCase, work: () => unknown): Promise<number> => {
  const { p50 } = await measure(work, { min_cpu_time: 100e6 });
  return p50 / operations;
};

const compare = async (one: MicroCase, builds: readonly Modules[]): Promise<number[]> => {
  const works = builds.map((modules) => one.make(modules));
  const measured: number[][] = works.map(() => []);
  for (let round = 0; round < Number(rounds); round += 1) {
    for (const [index, work] of works.entries()) measured[index]?.push(await nanoseconds(one, work));
  }
  return measured.map(median);
};

const other = await buildOf(against);
try {
  const builds = [await modulesOf(resolve('dist'))];
  if (typeof other === 'string') console.log(`Only this build: ${other}`);
  else builds.push(await modulesOf(dirname(dirname(other.command))));
  const name = typeof other === 'string' ? '' : other.commit;
  console.log(`Node ${process.version}; ns of one operation, medians of ${rounds} rounds in turn`);
  console.log(`${''.padEnd(50)}${'this build'.padStart(12)}${name.padStart(12)}${'ratio'.padStart(8)}`);
  for (const one of microCases) {
    if (program.args.length > 0 && !program.args.some((wanted) => one.name.includes(wanted))) continue;
    const [own = Number.NaN, before] = await compare(one, builds);
    const beside =
      before === undefined ? '' : before.toFixed(0).padStart(12) + (own / before).toFixed(2).padStart(8);
    console.log(one.name.padEnd(50) + own.toFixed(0).padStart(12) + beside);
  }
} finally {
  if (typeof other !== 'string') other.close();
}
