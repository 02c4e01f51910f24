/** Runs trial.ts, and tells of each seed what became of it, also where the process hangs or ends in the middle of one. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export interface Seeds {
  /** How many were begun. */
  readonly seeds: number;
  /** Absent: all of them went well. */
  readonly failure?: { readonly seed: number; readonly check: string; readonly problem: string } | undefined;
}

/** What the process says. */
export type TrialLine = { readonly begins: number } | Seeds;

export interface TrialOptions {
  /** To be run by node, with the first seed and their count. */
  readonly script: string;
  readonly directory: string;
  readonly first: number;
  readonly seeds: number;
  /** Of real time for one seed. */
  readonly seedMsMax: number;
}

const problemCharactersMax = 2000;
/** Until the first seed begins. */
const startMsMax = 60_000;

export const runTrial = ({ script, directory, first, seeds, seedMsMax }: TrialOptions): Promise<Seeds> => {
  const child = spawn(process.execPath, ['--enable-source-maps', script, `${first}`, `${seeds}`], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let seed = first;
  let result: Seeds | undefined;
  let hangs = false;
  let problem = '';
  const give = (ms: number): NodeJS.Timeout =>
    setTimeout(() => {
      hangs = true;
      child.kill('SIGKILL');
    }, ms);
  let limit = give(startMsMax);
  child.stderr.setEncoding('utf8');
  child.stderr.on('data', (text: string) => {
    problem = (problem + text).slice(-problemCharactersMax);
  });
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return;
    const said = JSON.parse(line) as TrialLine;
    clearTimeout(limit);
    limit = give(seedMsMax);
    if ('begins' in said) seed = said.begins;
    else result = said;
  });
  return new Promise((resolve) => {
    const ended = (how: string): void => {
      clearTimeout(limit);
      const begun = seed - first + 1;
      if (hangs) {
        const failure = { seed, check: 'hangs', problem: `seed ${seed} was not over after ${seedMsMax} ms` };
        resolve({ seeds: begun, failure });
      } else {
        const failure = { seed, check: 'crash of the simulation', problem: problem || how };
        resolve(result ?? { seeds: begun, failure });
      }
    };
    child.on('error', (error) => ended(error.message));
    child.on('close', (code, signal) => ended(`the process ended with ${signal ?? code}`));
  });
};
