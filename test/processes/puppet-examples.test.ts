import { Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { LiveTable } from '../../puppet/examples/live-table.ts';
import { runExample } from '../../puppet/examples/run-example.ts';
import { examples, hasProgram } from '../../puppet/examples/scenarios.ts';
import { puppetVersion } from '../support/puppet-agents.ts';

const missing = [...new Set(examples.flatMap(({ programs }) => programs))].filter(
  (name) => !hasProgram(name),
);
if (!puppetVersion || missing.length > 0) {
  console.warn(
    `SKIPPED: the Puppet examples, or some, need ${[...(puppetVersion ? [] : ['puppet']), ...missing].join(', ')}`,
  );
}

const runs = (name: string): boolean =>
  Boolean(puppetVersion) &&
  !examples.some((one) => one.name === name && one.programs.some((of) => missing.includes(of)));

/** To its end; gives what was shown. */
const shown = async (name: string): Promise<string> => {
  const example = examples.find((one) => one.name === name);
  if (example === undefined) throw new Error(`there is no example ${name}`);
  let text = '';
  const output = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      text += chunk.toString();
      done();
    },
  });
  const result = await runExample(
    example,
    new LiveTable(
      output,
      example.agents.map((agent) => agent.name),
    ),
  );
  expect(result.worked, `${text}\n${result.said}`).toBe(true);
  return `${text}${result.said}`;
};

describe('Puppet agents that need each other are done in one run each', () => {
  test.skipIf(!runs('etcd'))('a real etcd of three, and a fourth member that joins it', async () => {
    const text = await shown('etcd');
    expect(text).toContain('four etcd members are started');
    expect(text).toContain('etcd1 changed, etcd2 changed, etcd3 changed, etcd4 changed');
  });

  test.skipIf(!runs('kubernetes') || !runs('database'))(
    'workers that join by a token, a database and its web tier that wait for each other',
    async () => {
      const [kubernetes, database] = await Promise.all([shown('kubernetes'), shown('database')]);
      expect(kubernetes).toContain('the API knows worker1 and worker2');
      expect(database).toContain('42 rows for web1; 42 rows for web2');
    },
  );
});
