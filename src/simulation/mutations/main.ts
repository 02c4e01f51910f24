/**
 * The simulation on trial: each known bug is put into a copy of the code, and has to be found within so many seeds.
 * Ends with 1 if one survives, or if the code without any bug fails.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { mutations } from './list.ts';
import type { Mutation } from './mutation.ts';
import { Workshop, type Trial } from './workshop.ts';

/** Of the short form, for every change: what is found quickly must stay so. */
const shortSeeds = 40;

interface Options {
  readonly seeds?: number;
  readonly first: number;
  readonly jobs: number;
  readonly only?: string;
  readonly short: boolean;
  readonly problems: boolean;
}

interface Outcome extends Trial {
  readonly mutation: Mutation;
  readonly seconds: number;
}

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

const wholeNumber = (text: string): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${text} is no whole number above 0`);
  return value;
};

const rowOf = ({ mutation, failure, seeds, seconds }: Outcome): string => {
  const result = failure === undefined ? `SURVIVED ${seeds}` : `${seeds}`;
  const check = failure?.check === 'hangs' ? `hangs at seed ${failure.seed}` : (failure?.check ?? '-');
  return `${mutation.name.padEnd(34)} ${result.padStart(13)} ${seconds.toFixed(0).padStart(6)} s  ${check.padEnd(26)} ${mutation.rule}`;
};

const print = (line: string): void => void process.stdout.write(`${line}\n`);

const tryAll = async (chosen: readonly Mutation[], options: Options, seeds: number): Promise<Outcome[]> => {
  const waiting = [...chosen];
  const outcomes: Outcome[] = [];
  const work = async (): Promise<void> => {
    const workshop = new Workshop(root);
    try {
      for (let mutation = waiting.shift(); mutation !== undefined; mutation = waiting.shift()) {
        const startedMs = performance.now();
        const trial = await workshop.try(mutation, options.first, seeds);
        const outcome = { ...trial, mutation, seconds: (performance.now() - startedMs) / 1000 };
        outcomes.push(outcome);
        print(rowOf(outcome));
        if (options.problems && trial.failure !== undefined) print(`    ${trial.failure.problem}`);
      }
    } finally {
      workshop.close();
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, work));
  return outcomes;
};

const main = async (options: Options): Promise<void> => {
  const seeds = options.seeds ?? (options.short ? shortSeeds : 500);
  const names = options.only?.split(',');
  const chosen = mutations.filter(
    ({ name, quick }) => (names?.includes(name) ?? true) && (!options.short || quick === true),
  );
  if (chosen.length === 0) throw new Error(`there is no mutation ${options.only}`);
  print(`${chosen.length} mutations, at most ${seeds} seeds from ${options.first} on for each`);
  print(
    `${'mutation'.padEnd(34)} ${'found after'.padStart(13)} ${'took'.padStart(8)}  ${'by'.padEnd(26)} rule`,
  );
  const outcomes = await tryAll(chosen, options, seeds);
  const survivors = outcomes.filter(({ failure }) => failure === undefined);
  print(`${outcomes.length - survivors.length} of ${outcomes.length} found`);
  if (survivors.length > 0) {
    print(`survived: ${survivors.map(({ mutation }) => mutation.name).join(', ')}`);
    process.exitCode = 1;
  }
  const unsound = new Set(outcomes.flatMap((outcome) => outcome.unsound));
  if (unsound.size > 0) {
    print(`failed without any mutation: seeds ${[...unsound].sort((a, b) => a - b).join(', ')}`);
    process.exitCode = 1;
  }
};

const program = new Command('mutate')
  .description('Puts known bugs into a copy of the code, one at a time: the simulation must find each.')
  .option('--seeds <number>', 'seeds for each at most (default: 500, with --short 40)', wholeNumber)
  .option('--first <number>', 'the first seed', wholeNumber, 1)
  .option('--jobs <number>', 'how many at once', wholeNumber, 2)
  .option('--only <names>', 'these only, separated by commas')
  .option('--short', 'those that are found quickly', false)
  .option('--problems', 'tell what was found', false)
  .action(main);

await program.parseAsync();
