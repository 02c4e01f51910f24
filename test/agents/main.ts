/**
 * npm run agents [-- --agents N --processes P]: thousands of agents with certificates of their own on three real servers,
 * which are killed while values flow; then some of the agents lose their rights. Ends with 1 if anybody got too much, too
 * little or something wrong, or an agent costs a server too much memory; the servers' files and logs are kept then.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { runAgents } from './run.ts';

const usage = 'usage: npm run agents -- [--agents N] [--processes P]';

const countOf = (name: string, text: string, most: number): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1 || value > most)
    throw new RangeError(`--${name} ${text} is no whole number from 1 to ${most}`);
  return value;
};

/** A process has 20,000 descriptors by default, and two servers have to hold all agents. */
const agentsMax = 30_000;
const processesMax = 32;

const options = (() => {
  try {
    const { values } = parseArgs({
      options: {
        agents: { type: 'string', default: '10000' },
        processes: { type: 'string', default: '4' },
      },
    });
    return {
      agents: countOf('agents', values.agents, agentsMax),
      processes: countOf('processes', values.processes, processesMax),
    };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
    return process.exit(2);
  }
})();

const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interruption.abort());
try {
  const { violations, directory } = await runAgents({
    ...options,
    roundMs: 8_000,
    settleMs: 5_000,
    log: (line) => console.log(line),
    signal: interruption.signal,
  });
  for (const violation of violations) console.log(`${'VIOLATION'.padEnd(16)} ${violation}`);
  if (directory !== undefined) console.log(`${'kept'.padEnd(16)} ${directory}`);
  console.log(violations.length === 0 ? 'all kept' : `${violations.length} NOT KEPT`);
  process.exitCode = violations.length === 0 ? 0 : 1;
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
