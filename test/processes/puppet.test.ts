import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { command, eventually, ProcessCluster, run, sleep } from '../support/process-cluster.ts';

const puppetVersion = spawnSync('puppet', ['--version'], { encoding: 'utf8' }).stdout?.trim();
if (!puppetVersion) {
  console.warn(
    'SKIPPED: there is no puppet on this machine, so no catalog is applied (Debian: puppet-agent)',
  );
}

const policy = `
realms:
  agents: { tls: { issuer: ca/agents.pem, identity: cn }, vars: { node: cn } }
policies:
  agent:
    - allow: [get, await, list, subscribe]
      on: nodes/\${node}/**
    - allow: [declare, resolve, reject]
      on: nodes/\${node}/out/**
  web-clients:
    - allow: [get, await]
      on: nodes/web1/out/url
  admin:
    - allow: ['*']
      on: '**'
    - allow: [cluster.status]
bindings:
  - { realm: agents, policies: [agent] }
  - { realm: agents, principal: web2, policies: [web-clients] }
  - { realm: agents, principal: admin, policies: [admin] }
`;

describe.skipIf(!puppetVersion)(`a real Puppet (${puppetVersion})`, () => {
  let cluster: ProcessCluster;

  beforeAll(async () => {
    cluster = await ProcessCluster.create();
    writeFileSync(cluster.path('policy.yaml'), policy);
    for (const id of cluster.ids) cluster.startServer(id);
    await cluster.ready();
    for (const name of ['web1', 'web2']) {
      expect(await run(['cert', name, '--dir', cluster.path()])).toMatchObject({ code: 0 });
    }
  });
  afterAll(async () => {
    await cluster?.close();
  });

  /** Applies a manifest as the agent of that name, with directories of its own. */
  const apply = (
    name: string,
    manifest: string,
  ): { ended: Promise<{ code: number | null; output: string }> } => {
    const home = cluster.path(`puppet-${name}`);
    mkdirSync(home, { recursive: true });
    const file = join(home, 'site.pp');
    writeFileSync(file, manifest);
    const child = spawn(
      'puppet',
      [
        'apply',
        '--no-preprocess_deferred',
        '--detailed-exitcodes',
        '--confdir',
        join(home, 'conf'),
        '--vardir',
        join(home, 'var'),
        '--certname',
        name,
        file,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let output = '';
    child.stdout.on('data', (data: Buffer) => (output += data.toString()));
    child.stderr.on('data', (data: Buffer) => (output += data.toString()));
    return { ended: new Promise((resolve) => child.once('exit', (code) => resolve({ code, output }))) };
  };

  const profile = (name: string): string => cluster.path('agents', `${name}.yaml`);

  const waiting = (directory: string, key: string): string => `
    file { '${directory}/first': ensure => file, content => 'applied before the wait' }
    -> file { '${directory}/second':
      ensure  => file,
      content => Deferred('generate', ['${command}', 'await', '${key}', '--profile', '${profile('web2')}', '--timeout', '60s']),
    }`;

  test('waits in the middle of its catalog for the value that another one publishes', async () => {
    const directory = cluster.path('web2-files');
    mkdirSync(directory);
    const waiter = apply('web2', waiting(directory, 'nodes/web1/out/url'));
    await eventually(
      'the first resource is applied',
      async () => existsSync(join(directory, 'first')),
      60_000,
    );
    await sleep(1000);
    expect(existsSync(join(directory, 'second'))).toBe(false);
    const producer = apply(
      'web1',
      `exec { 'publish':
        command => '${command} resolve nodes/web1/out/url http://web1:8080 --profile ${profile('web1')}',
        path    => $facts['path'],
      }`,
    );
    expect(await producer.ended).toMatchObject({ code: 2 });
    const { code, output } = await waiter.ended;
    expect(code, output).toBe(2);
    expect(readFileSync(join(directory, 'second'), 'utf8')).toBe('http://web1:8080');
    expect(output.indexOf('/first]')).toBeLessThan(output.indexOf('/second]'));
  });

  test('reads only what its scope allows', async () => {
    const secret = await run(['resolve', 'nodes/web1/out/secret', 'hidden', '--profile', profile('web1')]);
    expect(secret).toMatchObject({ code: 0 });
    const directory = cluster.path('web2-forbidden');
    mkdirSync(directory);
    const { code, output } = await apply('web2', waiting(directory, 'nodes/web1/out/secret')).ended;
    expect(code).not.toBe(0);
    expect(code).not.toBe(2);
    expect(output).not.toContain('hidden');
    expect(existsSync(join(directory, 'second'))).toBe(false);
    const foreign = await run(['resolve', 'nodes/web1/out/url', 'forged', '--profile', profile('web2')]);
    expect(foreign.code).toBe(5);
    const own = await run(['get', 'nodes/web2/out/none', '--profile', profile('web1')]);
    expect(own.code).toBe(5);
  });
});
