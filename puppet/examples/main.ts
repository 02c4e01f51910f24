/** `npm run example -- NAME`: several Puppet agents of one machine, one run each, at a cluster of three servers. */
import { performance } from 'node:perf_hooks';
import { puppetVersion } from '../../test/support/puppet-agents.ts';
import { LiveTable } from './live-table.ts';
import { runExample } from './run-example.ts';
import { examples, hasProgram } from './scenarios.ts';

const usage = (): string =>
  `npm run example -- NAME\n${examples.map(({ name, title }) => `  ${name.padEnd(11)} ${title}`).join('\n')}\n`;

const main = async (): Promise<number> => {
  const [name = ''] = process.argv.slice(2);
  const example = examples.find((one) => one.name === name);
  if (example === undefined) {
    process.stderr.write(usage());
    return 2;
  }
  const missing = example.programs.filter((program) => !hasProgram(program));
  if (!puppetVersion) missing.unshift('puppet');
  if (missing.length > 0) {
    process.stderr.write(`this example needs ${missing.join(', ')}, which is not on this machine\n`);
    return 1;
  }
  console.log(`${example.title} (Puppet ${puppetVersion})`);
  const startMs = performance.now();
  const table = new LiveTable(
    process.stdout,
    example.agents.map((agent) => agent.name),
  );
  const result = await runExample(example, table);
  console.log(result.said);
  console.log(
    `${((performance.now() - startMs) / 1000).toFixed(1)} s with the cluster's start, one run for each node`,
  );
  return result.worked ? 0 : 1;
};

process.exitCode = await main();
