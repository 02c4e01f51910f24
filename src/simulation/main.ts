/** npm run simulate: runs seeds, tells what failed and how to see it again, and what the runs had in them. */
import { fork } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import { writeHistory } from './checks/index.ts';
import type { Plan } from './plan.ts';
import { run, type RunResult } from './run.ts';
import { benchPlan, drawPlan } from './scenario.ts';
import { shrink } from './shrink.ts';
import { Totals, type Statistics } from './statistics.ts';

interface Options {
  readonly seed: number;
  readonly seeds: number;
  readonly jobs: number;
  readonly trace?: string;
  readonly history?: string;
  readonly plan?: string;
  readonly shrink: number;
  readonly bench?: boolean;
  readonly worker?: boolean;
}

/** What a worker tells of one seed. */
interface Report {
  readonly seed: number;
  readonly statistics: Statistics;
  readonly failure: RunResult['failure'];
}

const shownLines = 60;
const traceBufferCharacters = 1024 * 1024;

const whole =
  (least: number) =>
  (text: string): number => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`a whole number of at least ${least} is needed`);
  };

const optionsOf = (argv: readonly string[]): Options =>
  new Command('simulate')
    .description('runs clusters under virtual time and faults, from seeds')
    .option('--seed <number>', 'the first seed', whole(0), 1)
    .option('--seeds <count>', 'how many, one after the other', whole(1), 1)
    .option('--jobs <count>', 'processes that run them', whole(1), 1)
    .option('--trace <file>', 'writes the whole trace (one seed only)')
    .option('--history <file>', 'writes what clients asked and were told, as JSON lines (one seed only)')
    .option('--plan <file>', 'runs a plan that a failure has printed, instead of a seed')
    .option('--shrink <runs>', 'how many runs may be spent on making a failure smaller', whole(0), 200)
    .option('--bench', 'measures the speed, with five servers under load and no faults')
    // For itself: takes seeds from its parent.
    .addOption(new Option('--worker').hideHelp())
    .parse([...argv], { from: 'user' })
    .opts<Options>();

/** A file that grows by large pieces. */
const lineWriter = (file: string): { readonly sink: (line: string) => void; readonly close: () => void } => {
  const descriptor = openSync(file, 'w');
  let pending = '';
  const flush = (): void => {
    writeSync(descriptor, pending);
    pending = '';
  };
  return {
    sink: (line) => {
      pending += `${line}\n`;
      if (pending.length > traceBufferCharacters) flush();
    },
    close: () => {
      flush();
      closeSync(descriptor);
    },
  };
};

const runOne = async (plan: Plan, { trace, history }: Options): Promise<RunResult> => {
  const writer = trace === undefined ? undefined : lineWriter(trace);
  const result = await run(plan, writer === undefined ? {} : { sink: writer.sink });
  writer?.close();
  if (history !== undefined) writeHistory(history, result.history);
  return result;
};

/** Lines that name whoever the failure names, or faults; the last ones if there are too many. */
const concerning = ({ trace, failure }: RunResult): readonly string[] => {
  const names = [
    ...(failure?.problem ?? '').matchAll(/(?:agent|server|member|k\/|subscription) ?[\d.]+/g),
  ].map(([name]) => name.replace('member', 'server'));
  const chosen = trace.filter(
    (line) => / (?:FAULT|HEAL|FAILURE) /.test(line) || names.some((name) => line.includes(name)),
  );
  const lines = chosen.length < 10 ? trace : chosen;
  return lines.slice(-shownLines);
};

const tellOfFailure = async (plan: Plan, result: RunResult, rerunsMax: number): Promise<void> => {
  const { failure, seed } = result;
  if (failure === undefined) return;
  console.log(`\nSEED ${seed} FAILED after ${(failure.atMs / 1000).toFixed(3)} s: ${failure.check}`);
  console.log(`  ${failure.problem}`);
  console.log(`  see it again: npm run simulate -- --seed ${seed} --trace trace-${seed}.txt`);
  if (rerunsMax === 0) return;
  const shrunk = await shrink(run, plan, result, rerunsMax);
  const file = `plan-${seed}.json`;
  writeFileSync(file, `${JSON.stringify(shrunk.plan, undefined, 1)}\n`);
  console.log(
    `  made smaller by ${shrunk.reruns} runs: ${plan.faults.length} → ${shrunk.plan.faults.length} faults, ` +
      `${plan.agents.length} → ${shrunk.plan.agents.length} agents, ${shrunk.plan.durationMs} ms`,
  );
  console.log(`  npm run simulate -- --plan ${file}`);
  for (const fault of shrunk.plan.faults) console.log(`    ${JSON.stringify(fault)}`);
  console.log(`  ${shrunk.result.failure?.problem ?? ''}`);
  for (const line of concerning(shrunk.result)) console.log(`  ${line}`);
};

const work = (): void => {
  process.on('message', (seed: number) => {
    run(drawPlan(seed)).then(
      ({ statistics, failure }) => {
        const report: Report = { seed, statistics, failure };
        process.send?.(report);
      },
      (error: unknown) => {
        console.error(error);
        process.exit(1);
      },
    );
  });
};

/** Hands out seeds to processes; calls back with each report, in the order in which they end. */
const runInProcesses = ({ seed, seeds, jobs }: Options, done: (report: Report) => void): Promise<void> =>
  new Promise((resolve, reject) => {
    let next = seed;
    let left = seeds;
    const end = seed + seeds;
    for (let job = 0; job < Math.min(jobs, seeds); job += 1) {
      const child = fork(fileURLToPath(import.meta.url), ['--worker'], { execArgv: process.execArgv });
      let current: number | undefined;
      const give = (): void => {
        if (next >= end) {
          current = undefined;
          child.disconnect();
          return;
        }
        current = next;
        next += 1;
        child.send(current);
      };
      child.on('message', (report: Report) => {
        left -= 1;
        done(report);
        give();
        if (left === 0) resolve();
      });
      child.on('exit', (code) => {
        if (current !== undefined)
          reject(new Error(`the process that ran seed ${current} ended with ${code}`));
      });
      give();
    }
  });

/** The first run is for the compiler. */
const benchRuns = 3;
/** How long each of the 20 agents thinks between two things that it asks for: 20 and 100 a second together. */
const benchThinkMs = [1000, 200];

/** Of the part with load: what comes afterwards is nearly idle. */
const bench = async (): Promise<void> => {
  for (const thinkMs of benchThinkMs) {
    for (let number = 1; number <= benchRuns; number += 1) {
      const agents = benchPlan.agents.map((agent) => ({ ...agent, thinkMs }));
      const { failure, statistics } = await run({ ...benchPlan, seed: number, agents });
      if (failure !== undefined) throw new Error(`${failure.check}: ${failure.problem}`);
      const { simulatedMs, processorMs, loaded, events } = statistics;
      console.log(
        `5 servers, 20 agents, ${(agents.length * 1000) / thinkMs} operations a second, run ${number}: ` +
          `${(loaded.simulatedMs / loaded.processorMs).toFixed(1)} simulated seconds per processor second ` +
          `(${(simulatedMs / processorMs).toFixed(1)} with the quiet end; ${events} events)`,
      );
    }
  }
};

const main = async (): Promise<void> => {
  const options = optionsOf(process.argv.slice(2));
  if (options.worker === true) {
    work();
    return;
  }
  if (options.bench === true) {
    await bench();
    return;
  }
  const startedMs = performance.now();
  const totals = new Totals();
  const failed: number[] = [];
  const single = options.plan !== undefined || options.seeds === 1;
  if (!single && (options.trace !== undefined || options.history !== undefined)) {
    console.error('--trace and --history are of one seed: leave out --seeds');
    process.exitCode = 2;
    return;
  }
  if (single || options.jobs === 1) {
    for (let seed = options.seed; seed < options.seed + (single ? 1 : options.seeds); seed += 1) {
      const plan =
        options.plan === undefined
          ? drawPlan(seed)
          : (JSON.parse(readFileSync(options.plan, 'utf8')) as Plan);
      const result = await runOne(plan, options);
      totals.add(seed, result.statistics);
      if (result.ok) continue;
      failed.push(seed);
      await tellOfFailure(plan, result, options.shrink);
    }
  } else {
    await runInProcesses(options, ({ seed, statistics, failure }) => {
      totals.add(seed, statistics);
      if (failure !== undefined) failed.push(seed);
    });
    for (const seed of failed) {
      const plan = drawPlan(seed);
      await tellOfFailure(plan, await run(plan), options.shrink);
    }
  }
  console.log(totals.table(performance.now() - startedMs));
  if (failed.length > 0) {
    console.log(`\n${failed.length} of ${totals.seeds} seeds failed: ${failed.join(', ')}`);
    process.exitCode = 1;
  }
  const { undecided } = totals;
  if (undecided !== undefined) {
    console.log(`\n${undecided}`);
    process.exitCode = 1;
  }
};

await main();
