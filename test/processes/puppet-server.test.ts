import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve as resolvePath } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { jsonOf, textOf, type Client } from '../../src/client/index.ts';
import { eventually, ProcessCluster, sleep } from '../support/process-cluster.ts';
import { PuppetAgents, puppetVersion } from '../support/puppet-agents.ts';
import { PuppetServer } from '../support/puppet-server.ts';

if (!puppetVersion) {
  console.warn(
    'SKIPPED: there is no puppet on this machine, so no agent runs against a Puppet server (Debian: puppet-agent)',
  );
}

const policy = (directory: string): string => `
realms:
  agents: { tls: { issuer: ca/agents.pem, identity: cn } }
  puppet: { tls: { issuer: ${directory}/ca.pem, crl: ${directory}/crl.pem, identity: cn }, vars: { node: cn } }
policies:
  agent:
    - allow: [get, await, list, subscribe]
      on: ['nodes/\${node}/**', 'nodes/*/out/**']
    - allow: [declare, resolve, reject, touch, delete]
      on: ['nodes/\${node}/out/**', 'nodes/\${node}/run']
  admin:
    - { allow: ['*'], on: '**' }
bindings:
  - { realm: puppet, policies: [agent] }
  - { realm: agents, principal: admin, policies: [admin] }
`;

const secret = 'tr0ub4dor';
const db = 'db.example.com';
const web = 'web.example.com';

describe.skipIf(!puppetVersion)(`puppet agent ${puppetVersion}, with a server's catalogs`, () => {
  let cluster: ProcessCluster;
  let server: PuppetServer;
  let agents: PuppetAgents;
  let admin: Client;

  beforeAll(async () => {
    const version = puppetVersion ?? '';
    [cluster, server] = await Promise.all([
      ProcessCluster.create({ servers: 1 }),
      PuppetServer.start({ plugins: resolvePath('puppet', 'lib'), version }),
    ]);
    writeFileSync(cluster.path('ca.pem'), server.authorities);
    writeFileSync(cluster.path('crl.pem'), server.revocations);
    writeFileSync(cluster.path('policy.yaml'), policy(cluster.path()));
    cluster.startServer(1);
    await cluster.ready();
    agents = new PuppetAgents(cluster);
    admin = await cluster.connect();
    await Promise.all([db, web].map((name) => agents.addServed(name, server.port)));
  });
  afterAll(async () => {
    await agents?.close();
    await server?.close();
    await cluster?.close();
  });

  const work = (file: string): string => agents.path(web, 'work', file);

  test("plugins are synchronised, the certificate of Puppet's CA is the identity, values flow in the run, and outcome and report are published", async () => {
    const [producing, waiting] = await Promise.all([
      agents.compile(
        db,
        `futurestore_value { 'nodes/${db}/out/settings': value => { 'port' => 5432 } }
         -> futurestore_value { 'nodes/${db}/out/password': command => '/bin/echo -n ${secret}', sensitive => true }
         -> file { '${agents.path(db, 'work', 'done')}': ensure => file }`,
      ),
      agents.compile(
        web,
        `file { '${work('port')}': ensure => file,
           content => Deferred('inline_epp', ['<%= $s[port] %>', { 's' => Deferred('futurestore::await', ['nodes/${db}/out/settings']) }]) }
         -> notify { 'after the port': }
         file { '${work('password')}': ensure => file, content => Sensitive(Deferred('futurestore::await', ['nodes/${db}/out/password'])) }
         file { '${work('denied')}': ensure => file, content => Deferred('futurestore::await', ['nodes/${db}/run']) }
         file { '${work('else')}': ensure => file, content => 'independent' }`,
      ),
    ]);
    server.setCatalog(db, readFileSync(producing, 'utf8'));
    server.setCatalog(web, readFileSync(waiting, 'utf8'));

    const atWeb = agents.runServed(web);
    const waits = (): Promise<boolean> =>
      Promise.resolve(atWeb.output().includes('nothing else is left to do'));
    const over = atWeb.ended.then(({ output }) => {
      throw new Error(`it did not wait: ${output}`);
    });
    await Promise.race([eventually('it waits', waits, 60_000), over]);
    expect(readFileSync(work('else'), 'utf8')).toBe('independent');
    for (const file of ['port', 'password']) expect(existsSync(work(file)), file).toBe(false);
    await sleep(200);
    const [first, second] = await Promise.all([agents.runServed(db).ended, atWeb.ended]);
    expect(first.code, first.output).toBe(2);
    expect(second.code, second.output).toBe(6);
    expect(readFileSync(work('port'), 'utf8')).toBe('5432');
    expect(readFileSync(work('password'), 'utf8')).toBe(secret);
    expect(second.output).toContain(`puppet:${web} may not await nodes/${db}/run: no policy allows it`);

    expect(await admin.get(`nodes/${db}/out/settings`)).toMatchObject({ producer: `puppet:${db}` });
    const outcome = await admin.get(`nodes/${web}/run`);
    expect(outcome && jsonOf(outcome)).toMatchObject({
      status: 'failed',
      completed: true,
      counts: { failed: 1, skipped: 0 },
      failed: [{ resource: `File[${work('denied')}]` }],
      started_at: expect.stringMatching(/^\d{4}-.*Z$/),
      ended_at: expect.stringMatching(/^\d{4}-.*Z$/),
    });
    expect(JSON.parse(server.reports.get(web) ?? '{}')).toMatchObject({
      host: web,
      status: 'failed',
      transaction_completed: true,
    });
    expect(existsSync(agents.path(web, 'var', 'lib', 'puppet_x', 'futurestore', 'hooks.rb'))).toBe(true);
    expect(server.requests).toContain(`POST /puppet/v3/catalog/${web}`);

    const value = await admin.get(`nodes/${db}/out/password`);
    expect(value && textOf(value)).toBe(secret);
    expect(second.output + [...server.reports.values()].join()).not.toContain(secret);
    const kept = execFileSync('sh', ['-c', `grep -rlaF ${secret} "$0" || true`, agents.path(web, 'var')]);
    expect(kept.toString()).toBe('');
  });
});
