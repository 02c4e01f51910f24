import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runTrial, type Seeds } from '../../../src/simulation/mutations/trial-process.ts';

/** Says what trial.ts does, and at the 7th seed what a mutation may do. */
const trialThat = (does: string): Promise<Seeds> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-trial-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const script = join(directory, 'trial.mjs');
  writeFileSync(
    script,
    `import { writeSync } from 'node:fs';
     const tell = (line) => writeSync(1, JSON.stringify(line) + '\\n');
     const [first, count] = process.argv.slice(2).map(Number);
     let seeds = 0;
     let failure;
     while (seeds < count && failure === undefined) {
       const seed = first + seeds;
       tell({ begins: seed });
       seeds += 1;
       if (seed === 7) { ${does} }
     }
     tell({ seeds, failure });`,
  );
  return runTrial({ script, directory, first: 5, seeds: 400, seedMsMax: 1500 });
};

test('a mutation that hangs is ended after the time for one seed, and told with the seed', async () => {
  const { seeds, failure } = await trialThat('for (;;);');
  expect(seeds).toBe(3);
  expect(failure).toMatchObject({ seed: 7, check: 'hangs' });
});

test.each([
  ["throw new Error('it broke')", 'it broke'],
  ['process.exit(3)', 'ended with 3'],
  ["process.kill(process.pid, 'SIGKILL')", 'ended with SIGKILL'],
])('one that ends the process (%s) is told with the seed at which it did', async (does, problem) => {
  const { seeds, failure } = await trialThat(does);
  expect(seeds).toBe(3);
  expect(failure).toMatchObject({ seed: 7, check: 'crash of the simulation' });
  expect(failure?.problem).toContain(problem);
});

test('one that a check finds is told by it, and one that nothing finds has gone through all seeds', async () => {
  const found = await trialThat("failure = { seed, check: 'some check', problem: 'p' };");
  expect(found).toEqual({ seeds: 3, failure: { seed: 7, check: 'some check', problem: 'p' } });
  expect(await trialThat('')).toEqual({ seeds: 400 });
});
