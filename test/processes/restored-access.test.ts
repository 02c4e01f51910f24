/** A restore at three in the morning: what it prints is done as it is printed, with real servers. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { spawn, type ChildProcess } from 'node:child_process';
import { afterAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { command, eventually, freeBasePort, ProcessCluster, run } from '../support/process-cluster.ts';

let cluster: ProcessCluster | undefined;
let server: ChildProcess | undefined;
afterAll(async () => {
  server?.kill('SIGKILL');
  await cluster?.close();
});

const done = async (...args: readonly string[]): Promise<string> => {
  const { code, stdout, stderr } = await run(args);
  expect(`${code} ${stderr}`, args.join(' ')).toBe('0 ');
  return stdout;
};

describe('a cluster with applied policies that is restored', () => {
  test('works as the restore prints it, for the administrator, for agents of before and for new ones', async () => {
    cluster = await ProcessCluster.start({ servers: 1 });
    const admin = ['--profile', cluster.path('admin.yaml')];
    await done('cert', 'web1', '--dir', cluster.path());
    await done('acl', 'apply', cluster.path('policy.yaml'), ...admin);
    await done('resolve', 'nodes/web1/out/url', 'http://web1:8080', ...admin);
    const backup = join(cluster.directory, 'backup');
    await done('snapshot', 'save', backup, ...admin);
    await cluster.kill(1);

    const made = join(cluster.directory, 'new');
    const port = await freeBasePort();
    const said = await done('snapshot', 'restore', backup, made, '--servers', '1', '--port', `${port}`);
    const printed = [...said.matchAll(/^ {2}futurestore (.*)$/gm)].map(([, line = '']) => line.split(' '));
    const [serve = [], status = []] = printed;
    expect([serve[0], status[0]]).toEqual(['server', 'status']);
    server = spawn(process.execPath, [command, ...serve], { stdio: 'ignore' });
    await eventually('it serves', async () => (await run(status)).code === 0);
    expect(await done(...status)).toContain('server-1');

    // An agent of before, with the endpoints and the ca that were printed.
    const profile = join(cluster.directory, 'web1');
    mkdirSync(profile);
    const before = parse(readFileSync(cluster.path('agents', 'web1.yaml'), 'utf8')) as object;
    const [, ca = ''] = /endpoints, and (\S+) as their ca/.exec(said) ?? [];
    const endpoints = [`wss://127.0.0.1:${port}`];
    const credentials = { cert: cluster.path('agents', 'web1.pem'), key: cluster.path('agents', 'web1.key') };
    const agent = join(profile, 'web1.yaml');
    writeFileSync(agent, stringify({ ...before, ...credentials, endpoints, ca }));
    expect(await done('get', 'nodes/web1/out/url', '--profile', agent)).toContain('http://web1:8080');

    await done('cert', 'web2', '--dir', made);
    const other = join(made, 'agents', 'web2.yaml');
    await done('resolve', 'nodes/web2/out/url', 'http://web2:8080', '--profile', other);
    expect((await run(['get', 'nodes/web1/out/url', '--profile', other])).code).toBe(5);
  });
});
