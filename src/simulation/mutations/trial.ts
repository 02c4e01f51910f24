/**
 * Runs seeds one after the other until one fails; a process of its own, since a mutation may do anything to it.
 * Writes one line of JSON: which seed failed by which check, or how many went through.
 */
import { drawPlan, run } from '../index.ts';

export interface Seeds {
  readonly seeds: number;
  /** undefined: all of them went well. */
  readonly failure: { readonly seed: number; readonly check: string; readonly problem: string } | undefined;
}

const problemCharactersMax = 2000;

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
    failure = await judge(first + seeds);
    seeds += 1;
  }
  const result: Seeds = { seeds, failure };
  process.stdout.write(`${JSON.stringify(result)}\n`);
};

await main();
