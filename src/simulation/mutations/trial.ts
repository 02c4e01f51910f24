/**
 * Runs seeds one after the other until one fails; a process of its own, since a mutation may do anything to it.
 * Writes lines of JSON: each seed as it begins; in the end which one failed by which check, or that all went through.
 */
import { writeSync } from 'node:fs';
import { drawPlan, run } from '../index.ts';
import type { Seeds, TrialLine } from './trial-process.ts';

const problemCharactersMax = 2000;

/** At once: nothing may come after it. */
const tell = (line: TrialLine): void => void writeSync(1, `${JSON.stringify(line)}\n`);

const judge = async (seed: number): Promise<Seeds['failure']> => {
  const result = await run(drawPlan(seed));
  if (result.failure === undefined) return undefined;
  const { check, problem } = result.failure;
  return { seed, check, problem: problem.slice(0, problemCharactersMax) };
};

const main = async (): Promise<void> => {
  const first = Number(process.argv[2] ?? 1);
  const count = Number(process.argv[3] ?? 1);
  let failure: Seeds['failure'];
  let seeds = 0;
  while (seeds < count && failure === undefined) {
    tell({ begins: first + seeds });
    failure = await judge(first + seeds);
    seeds += 1;
  }
  tell({ seeds, ...(failure && { failure }) });
};

await main();
