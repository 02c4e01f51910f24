import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { jsonOf, textOf, type Client } from '../../src/client/index.ts';
import { command, eventually, ProcessCluster, run, sleep } from '../support/process-cluster.ts';
import { PuppetAgents, puppetVersion } from '../support/puppet-agents.ts';

if (!puppetVersion) {
  console.warn(
    'SKIPPED: there is no puppet on this machine, so the Puppet module is not tried (Debian: puppet-agent)',
  );
}

const policy = `
realms:
  agents: { tls: { issuer: ca/agents.pem, identity: cn }, vars: { node: cn } }
policies:
  agent:
    - allow: [get, await, list, subscribe]
      on: ['nodes/\${node}/**', 'nodes/*/run', 'nodes/*/out/pub/**']
    - allow: [declare, resolve, reject, touch, delete]
      on: ['nodes/\${node}/out/**', 'nodes/\${node}/run']
  admin:
    - allow: ['*']
      on: '**'
    - allow: [cluster.status]
bindings:
  - { realm: agents, policies: [agent] }
  - { realm: agents, principal: admin, policies: [admin] }
`;

const awaiting = (key: string, options = ''): string =>
  `Deferred('futurestore::await', ['${key}'${options === '' ? '' : `, { ${options} }`}])`;

describe.skipIf(!puppetVersion)(`the Puppet module, with Puppet ${puppetVersion}`, () => {
  let cluster: ProcessCluster;
  let agents: PuppetAgents;
  let admin: Client;

  beforeAll(async () => {
    cluster = await ProcessCluster.create();
    writeFileSync(cluster.path('policy.yaml'), policy);
    for (const id of cluster.ids) cluster.startServer(id);
    await cluster.ready();
    agents = new PuppetAgents(cluster);
    await Promise.all(['a', 'b', 'c'].map((name) => agents.add(name, 'relay_patience: 30s\n')));
    admin = await cluster.connect();
  });
  afterAll(async () => {
    await agents?.close();
    await cluster?.close();
  });

  const work = (name: string, file: string): string => agents.path(name, 'work', file);
  const content = (name: string, file: string): string | undefined =>
    existsSync(work(name, file)) ? readFileSync(work(name, file), 'utf8') : undefined;
  const file = (name: string, title: string, value: string, more = ''): string =>
    `file { '${work(name, title)}': ensure => file, content => ${value}, ${more} }\n`;
  const applied = (name: string, title: string): Promise<void> =>
    eventually(`${title} of ${name} is applied`, async () => existsSync(work(name, title)), 60_000);
  const settled = async (key: string): Promise<void> => {
    await admin.await(key, { timeoutMs: 60_000 });
  };

  test('an agent does everything else, waits, and goes on within 100 ms of the publication; a second run changes nothing', async () => {
    const waiter = ['first', 'second', 'third']
      .map((title) => file('b', `one-${title}`, awaiting(`nodes/a/out/pub/${title}`)))
      .join('');
    const b = `${waiter}
      ${file('b', 'one-structured', `Deferred('inline_epp', ['<%= $d[port] + 1 %>', { 'd' => ${awaiting('nodes/a/out/pub/data')} }])`)}
      ${file('b', 'one-dependant', "'after'", `require => File['${work('b', 'one-first')}']`)}
      ${file('b', 'one-else', "'independent, and last in the manifest'")}
      futurestore_value { 'nodes/b/out/pub/done': value => 'yes', require => File['${work('b', 'one-third')}'] }`;
    const waiting = agents.apply('b', b);
    await applied('b', 'one-else');
    await sleep(300);
    for (const title of ['first', 'second', 'third', 'dependant'])
      expect(content('b', `one-${title}`)).toBeUndefined();
    const a = `
      exec { 'slow': command => '/bin/sleep 1', unless => '/usr/bin/test -e ${work('a', 'one')}' }
      -> futurestore_value { 'nodes/a/out/pub/first': value => 'one' }
      -> exec { 'slower': command => '/bin/sleep 0.5', unless => '/usr/bin/test -e ${work('a', 'one')}' }
      -> futurestore_value { 'nodes/a/out/pub/second': source => '/etc/hostname', content_type => 'text/plain; charset=utf-8' }
      -> futurestore_value { 'nodes/a/out/pub/data': value => { 'port' => 5432, 'hosts' => ['x', 'y'] } }
      -> exec { 'slowest': command => '/bin/sleep 0.5', unless => '/usr/bin/test -e ${work('a', 'one')}' }
      -> futurestore_value { 'nodes/a/out/pub/third': command => '/bin/echo three' }
      -> ${file('a', 'one', "'done'")}`;
    const producing = agents.apply('a', a);
    const [atA, atB] = await Promise.all([producing.ended, waiting.ended]);
    expect(atA.code, atA.output).toBe(2);
    expect(atB.code, atB.output).toBe(2);
    expect(content('b', 'one-first')).toBe('one');
    expect(content('b', 'one-second')).toBe(readFileSync('/etc/hostname', 'utf8'));
    expect(content('b', 'one-third')).toBe('three');
    expect(content('b', 'one-structured')).toBe('5433');
    const delays: number[] = [];
    for (const title of ['first', 'second', 'third']) {
      const future = await admin.get(`nodes/a/out/pub/${title}`);
      delays.push(statSync(work('b', `one-${title}`)).mtimeMs - (future?.changedAtMs ?? 0));
    }
    console.log(
      `from the publication to the applied resource: ${delays.map((ms) => `${ms.toFixed(0)} ms`).join(', ')}`,
    );
    expect(delays.toSorted((one, other) => one - other)[1]).toBeLessThan(100);

    expect(await admin.get('nodes/b/run')).toMatchObject({ state: 'resolved' });
    const again = await Promise.all([agents.apply('a', a).ended, agents.apply('b', b).ended]);
    expect(again.map(({ code, output }) => (code === 0 ? 0 : output))).toEqual([0, 0]);
    const outcome = await admin.get('nodes/a/run');
    expect(outcome && jsonOf(outcome)).toMatchObject({
      status: 'unchanged',
      counts: { failed: 0 },
      failed: [],
    });
  });

  test('where the producer fails, the waiting resource fails with its reason and the rest is applied', async () => {
    const waiting = agents.apply(
      'b',
      `${file('b', 'two-needs', awaiting('nodes/a/out/pub/never'))}
       ${file('b', 'two-dependant', "'x'", `require => File['${work('b', 'two-needs')}']`)}
       ${file('b', 'two-late', awaiting('nodes/a/out/pub/never', "'default' => 'without'"))}
       ${file('b', 'two-else', "'x'")}`,
    );
    await applied('b', 'two-else');
    const producing = agents.apply(
      'a',
      `exec { 'install': command => '/bin/false' }
       -> futurestore_value { 'nodes/a/out/pub/never': value => 'x' }`,
    );
    const [a, b] = await Promise.all([producing.ended, waiting.ended]);
    expect(a.code).toBe(4);
    expect(b.code, b.output).toBe(6);
    expect(b.output).toContain(
      'nodes/a/out/pub/never was rejected by agents:a with PRODUCER_FAILED: Exec[install] failed on a:',
    );
    expect(b.output).toMatch(/two-dependant\].*Skipping because of failed dependencies/);
    expect(content('b', 'two-late')).toBe('without');
    expect(agents.report('b')).toContain('transaction_completed: true');
    const outcome = await admin.get('nodes/a/run');
    expect(outcome && jsonOf(outcome)).toMatchObject({
      status: 'failed',
      counts: { failed: 1, skipped: 1 },
      failed: [{ resource: 'Exec[install]' }],
    });
  });

  // This one and the next have an agent each, and so run side by side.
  test.concurrent(
    'a timeout, a key out of scope, wrong options and an unwrapped secret each fail one resource, and show nothing',
    async () => {
      const secret = 'tr0ub4dor';
      await admin.resolve('nodes/a/out/secret', secret, { sensitive: true });
      await admin.resolve('nodes/a/out/pub/secret', secret, { sensitive: true });
      await admin.resolve('nodes/c/out/secret', 'of c', { sensitive: true });
      const { code, output } = await agents.apply(
        'b',
        `${file('b', 'three-slow', awaiting('nodes/a/out/pub/nobody', "'timeout' => '500ms'"))}
       ${file('b', 'three-default', awaiting('nodes/a/out/pub/nobody', "'timeout' => 1, 'default' => 'instead'"))}
       ${file('b', 'three-denied', awaiting('nodes/a/out/secret'))}
       ${file('b', 'three-denied-too', `Sensitive(${awaiting('nodes/c/out/secret')})`)}
       ${file('b', 'three-wrong', awaiting('nodes/a/out/pub/nobody', "'patience' => 3"))}
       ${file('b', 'three-open', awaiting('nodes/a/out/pub/secret'))}
       ${file('b', 'three-epp', `Deferred('inline_epp', ['<%= $s %>', { 's' => Sensitive(${awaiting('nodes/a/out/pub/secret')}) }])`)}
       ${file('b', 'three-right', `Sensitive(${awaiting('nodes/a/out/pub/secret')})`)}
       ${file('b', 'three-right-epp', `Sensitive(Deferred('inline_epp', ['<<%= $s %>>', { 's' => ${awaiting('nodes/a/out/pub/secret')} }]))`)}
       file { '${work('b', 'three-unfit')}': ensure => file, mode => Sensitive(${awaiting('nodes/a/out/pub/secret')}) }
       ${file('b', 'three-get', "Deferred('futurestore::get', ['nodes/b/out/pub/none', { 'default' => 'nothing yet' }])")}
       ${file('b', 'three-else', "'x'")}`,
        { args: ['--debug', '--trace', '--evaltrace', '--show_diff'] },
      ).ended;
      expect(code, output).toBe(6);
      expect(output).toContain('no value for nodes/a/out/pub/nobody within 500ms');
      expect(output).toContain('agents:b may not await nodes/a/out/secret: no policy allows it');
      expect(output).toContain('agents:b may not await nodes/c/out/secret: no policy allows it');
      expect(output).toContain(
        'there is no option "patience": there are timeout, default, any, least_generation',
      );
      expect(output).toContain(
        "nodes/a/out/pub/secret is sensitive: write Sensitive(Deferred('futurestore::await', ['nodes/a/out/pub/secret']))",
      );
      expect(output).toContain('a value that is sensitive, and so not shown, does not fit its parameter');
      for (const title of ['slow', 'denied', 'denied-too', 'wrong', 'open', 'epp'])
        expect(content('b', `three-${title}`), title).toBeUndefined();
      expect(content('b', 'three-default')).toBe('instead');
      expect(content('b', 'three-right')).toBe(secret);
      expect(content('b', 'three-right-epp')).toBe(`<${secret}>`);
      expect(content('b', 'three-get')).toBe('nothing yet');
      expect(content('b', 'three-else')).toBe('x');
      expect(output).not.toContain(secret);
      const found = (where: string): string =>
        execFileSync('sh', ['-c', `grep -rlaF ${secret} "$0" || true`, where], { encoding: 'utf8' });
      expect(found(agents.path('b', 'var'))).toBe('');
      expect(readFileSync(agents.path('b', 'relay.log'), 'utf8')).not.toContain(secret);
      for (const id of cluster.ids) expect(cluster.log(id)).not.toContain(secret);
      expect(agents.report('b')).toContain('transaction_completed: true');
    },
  );

  test.concurrent('a run that is ended early rejects what it owes', async () => {
    const waiting = agents.apply(
      'a',
      `exec { '/bin/touch ${work('a', 'nine-started')}': } -> exec { '/bin/sleep 60': }
       -> futurestore_value { 'nodes/a/out/pub/nine': value => 'x' }`,
    );
    await applied('a', 'nine-started');
    expect(await admin.get('nodes/a/out/pub/nine')).toMatchObject({ state: 'pending', producer: 'agents:a' });
    process.kill(waiting.pid, 'SIGTERM');
    await waiting.ended;
    expect(await admin.get('nodes/a/out/pub/nine')).toMatchObject({ rejection: { code: 'OMITTED' } });
    const { code } = await run([
      'get',
      'nodes/a/out/pub/nine',
      '--profile',
      cluster.path('agents', 'b.yaml'),
    ]);
    expect(code).not.toBe(0);
  });

  test('the wait survives the death of a server and of the relay', async () => {
    const waiting = agents.apply(
      'b',
      `${file('b', 'four-needs', awaiting('nodes/a/out/pub/late'))}
       ${file('b', 'four-else', "'x'")}`,
    );
    await applied('b', 'four-else');
    const leader = await cluster.someLeader();
    await cluster.kill(leader);
    await agents.stopRelay('b');
    await sleep(500);
    agents.startRelay('b');
    await agents.connected('b');
    const producing = agents.apply('a', `futurestore_value { 'nodes/a/out/pub/late': value => 'at last' }`);
    expect((await producing.ended).code).toBe(2);
    const { code, output } = await waiting.ended;
    expect(code, output).toBe(2);
    expect(content('b', 'four-needs')).toBe('at last');
    cluster.startServer(leader);
    await cluster.ready();
  });

  test('what is published while no server can be reached is delivered once, when one is back', async () => {
    await Promise.all(cluster.ids.map((id) => cluster.kill(id)));
    await agents.connected('a', false);
    const { code, output } = await agents.apply(
      'a',
      `futurestore_value { 'nodes/a/out/pub/queued': value => 'kept' }`,
    ).ended;
    expect(code, output).toBe(2);
    expect(output).toContain('published (queued: no server can be reached now');
    for (const id of cluster.ids) cluster.startServer(id);
    await cluster.ready();
    await settled('nodes/a/out/pub/queued');
    const future = await admin.get('nodes/a/out/pub/queued');
    expect(future && textOf(future)).toBe('kept');
    expect(future).toMatchObject({ generation: 1, producer: 'agents:a' });
    await agents.connected('a');
    expect(await admin.get('nodes/a/out/pub/queued')).toMatchObject({ revision: future?.revision });
  });

  test('nodes that wait for each other never deadlock, in whatever order they wait and publish', async () => {
    const node = (name: string, other: string): string =>
      `${file(name, 'six-peer', awaiting(`nodes/${other}/out/pub/key`))}
       futurestore_value { 'nodes/${name}/out/pub/joined': value => true, require => File['${work(name, 'six-peer')}'] }
       ${file(name, 'six-joined', `Deferred('inline_epp', ['<%= $j %>', { 'j' => ${awaiting(`nodes/${other}/out/pub/joined`)} }])`)}
       futurestore_value { 'nodes/${name}/out/pub/key': value => 'key of ${name}' }`;
    const ended = await Promise.all([
      agents.apply('a', node('a', 'b')).ended,
      agents.apply('b', node('b', 'a')).ended,
    ]);
    expect(ended.map(({ code, output }) => (code === 2 ? 2 : output))).toEqual([2, 2]);
    expect(content('a', 'six-peer')).toBe('key of b');
    expect(content('b', 'six-peer')).toBe('key of a');
    expect(content('a', 'six-joined')).toBe('true');
  });

  test('in noop and for resources that tags or failures skip nobody waits, and nothing is published', async () => {
    const nobody = awaiting('nodes/a/out/pub/nobody', "'timeout' => '60s'");
    const manifest = (name: string): string =>
      `${file(name, 'seven-needs', nobody, "tag => 'needs'")}
       file { '${work(name, 'seven-mode')}': ensure => file, mode => ${nobody}, tag => 'needs' }
       ${file(name, 'seven-else', "'x'", "tag => 'else'")}
       futurestore_value { 'nodes/${name}/out/pub/seven': value => 'x' }
       futurestore_value { 'nodes/${name}/out/pub/seven-nested': value => { 'x' => ${nobody} } }`;
    const noop = agents.apply('a', manifest('a'), { args: ['--noop'] });
    const tagged = agents.apply('b', manifest('b'), { args: ['--tags', 'else'] });
    const broken = agents.apply(
      'c',
      `exec { 'broken': command => '/bin/false' }
       -> ${file('c', 'seven-needs', nobody)}
       ${file('c', 'seven-noop', nobody, 'noop => true')}
       ${file('c', 'seven-else', "'x'")}`,
    );
    const startMs = performance.now();
    const [a, b, c] = await Promise.all([noop.ended, tagged.ended, broken.ended]);
    expect(performance.now() - startMs).toBeLessThan(45_000);
    expect(a.code, a.output).toBe(0);
    expect(a.output).toMatch(/seven\]\/ensure: current_value.*should be 'resolved' \(noop\)/);
    expect(await admin.get('nodes/a/out/pub/seven')).toBeUndefined();
    expect(b.code, b.output).toBe(2);
    expect(content('b', 'seven-else')).toBe('x');
    expect(content('b', 'seven-needs')).toBeUndefined();
    expect(await admin.get('nodes/b/out/pub/seven')).toMatchObject({
      state: 'rejected',
      rejection: { code: 'OMITTED' },
    });
    expect(c.code, c.output).toBe(6);
    expect(content('c', 'seven-needs')).toBeUndefined();
    expect(content('c', 'seven-else')).toBe('x');
  });

  test('a compiled catalog and the gate resource wait without lazy Deferreds; rejections, secrets and TTLs are published', async () => {
    await admin.resolve('nodes/c/out/pub/early', 'was there');
    const catalog = await agents.compile(
      'b',
      `futurestore_wait { 'gate': keys => ['nodes/c/out/pub/gate', 'nodes/c/out/pub/other'], any => true }
       -> ${file('b', 'eight-gated', "'x'")}
       ${file('b', 'eight-lazy', awaiting('nodes/c/out/pub/gate'))}
       ${file('b', 'eight-else', "'x'")}`,
    );
    const lazily = agents.apply('b', '', { args: ['--catalog', catalog] });
    const eagerly = agents.apply(
      'a',
      `futurestore_wait { 'nodes/c/out/pub/gate': } -> ${file('a', 'eight-gated', "'x'")}
       ${file('a', 'eight-eager', awaiting('nodes/c/out/pub/early'))}
       ${file('a', 'eight-else', "'x'")}`,
      { preprocess: true },
    );
    await Promise.all([applied('a', 'eight-else'), applied('b', 'eight-else')]);
    await sleep(200);
    for (const name of ['a', 'b']) expect(content(name, 'eight-gated')).toBeUndefined();
    const manifest = `
      futurestore_value { 'nodes/c/out/pub/gate': value => 'open' }
      futurestore_value { 'nodes/c/out/pub/no': ensure => rejected, code => 'NO_CA', reason => 'the CA did not answer' }
      futurestore_value { 'nodes/c/out/token': command => '/bin/echo s3cr3t-\`/bin/date +%N\`', sensitive => true, ttl => '1h' }
      futurestore_value { 'nodes/c/out/password': value => Sensitive('s3cr3t-too') }`;
    const published = await agents.apply('c', manifest, { args: ['--debug'] }).ended;
    expect(published.code, published.output).toBe(2);
    const [a, b] = await Promise.all([eagerly.ended, lazily.ended]);
    expect(a.code, a.output).toBe(2);
    expect(b.output).toContain('eight-gated');
    expect(content('b', 'eight-gated')).toBe('x');
    expect(content('b', 'eight-lazy')).toBe('open');
    expect(content('a', 'eight-eager')).toBe('was there');
    expect(await admin.get('nodes/c/out/pub/no')).toMatchObject({ rejection: { code: 'NO_CA' } });
    const token = await admin.get('nodes/c/out/token');
    expect(token).toMatchObject({ sensitive: true, state: 'resolved' });
    expect((token?.expiresAtMs ?? 0) - (token?.changedAtMs ?? 0)).toBe(3_600_000);
    expect(await admin.get('nodes/c/out/password')).toMatchObject({ sensitive: true });
    const again = await agents.apply('c', manifest, { args: ['--debug'] }).ended;
    expect(again.code, again.output).toBe(0);
    expect(published.output + again.output + agents.report('c')).not.toContain('s3cr3t');
    expect(await admin.get('nodes/c/out/token')).toMatchObject({ revision: token?.revision });
  });

  test('keys may be Deferred, one of several enough, a generation the least; what a program gives is declared, a command notified, a TTL renewed', async () => {
    await admin.resolve('nodes/c/out/pub/which', 'nodes/c/out/pub/target');
    await admin.resolve('nodes/c/out/pub/gen', 'old');
    await admin.reject('nodes/c/out/pub/any-no', { code: 'NO', message: 'not this one' });
    await admin.resolve('nodes/b/out/pub/renewed', 'holds', { ttlMs: 600_000 });
    await admin.resolve('nodes/b/out/pub/counted', 'from an earlier run');
    const before = await admin.get('nodes/b/out/pub/renewed');
    const waiting = agents.apply(
      'b',
      `${file('b', 'ten-late', `Deferred('futurestore::await', [${awaiting('nodes/c/out/pub/which')}])`)}
       ${file('b', 'ten-any', "Deferred('futurestore::await', [['nodes/c/out/pub/any-no', 'nodes/c/out/pub/any-yes'], { 'any' => true }])")}
       ${file('b', 'ten-gen', awaiting('nodes/c/out/pub/gen', "'least_generation' => 2"))}
       ${file('b', 'ten-else', "'x'")}
       notify { 'by a program': message => Deferred('futurestore::declare', ['nodes/b/out/pub/program']) }
       notify { 'not in time': message => Deferred('futurestore::declare', ['nodes/b/out/pub/omitted']) }
       futurestore_value { 'nodes/b/out/pub/counted': command => '/bin/echo x >> ${work('b', 'count')}; /usr/bin/wc -l < ${work('b', 'count')}' }
       file { '${work('b', 'ten-config')}': ensure => file, content => 'new', notify => Futurestore_value['nodes/b/out/pub/counted'] }
       futurestore_value { 'nodes/b/out/pub/renewed': value => 'holds', ttl => '1h', renew => true }`,
      { args: ['--verbose'] },
    );
    await applied('b', 'ten-else');
    await eventually('it waits', async () => waiting.output().includes('nothing else is left to do'));
    expect(await admin.get('nodes/b/out/pub/program')).toMatchObject({
      state: 'pending',
      producer: 'agents:b',
    });
    for (const title of ['late', 'any', 'gen']) expect(content('b', `ten-${title}`), title).toBeUndefined();
    await admin.resolve('nodes/b/out/pub/program', 'by itself');
    await admin.resolve('nodes/c/out/pub/gen', 'new', { supersede: true });
    await applied('b', 'ten-gen');
    await admin.resolve('nodes/c/out/pub/any-yes', 'this one');
    await applied('b', 'ten-any');
    await admin.resolve('nodes/c/out/pub/target', 'reached');
    const { code, output } = await waiting.ended;
    expect(code, output).toBe(2);
    expect(['late', 'any', 'gen'].map((title) => content('b', `ten-${title}`))).toEqual([
      'reached',
      'this one',
      'new',
    ]);
    expect(await admin.get('nodes/b/out/pub/program')).toMatchObject({ state: 'resolved' });
    expect(await admin.get('nodes/b/out/pub/omitted')).toMatchObject({ rejection: { code: 'OMITTED' } });
    const counted = await admin.get('nodes/b/out/pub/counted');
    expect(counted && textOf(counted)).toBe('1');
    const renewed = await admin.get('nodes/b/out/pub/renewed');
    expect(renewed).toMatchObject({ generation: before?.generation });
    expect(renewed?.expiresAtMs ?? 0).toBeGreaterThan((before?.expiresAtMs ?? 0) + 1_000_000);
  });

  test('without the module, programs of a catalog publish and wait in their turn, each in its scope', async () => {
    const generate = (title: string, key: string): string =>
      file(
        'b',
        title,
        `Deferred('generate', ['${command}', 'await', '${key}', '--profile', '${cluster.path('agents', 'b.yaml')}', '--timeout', '60s'])`,
      );
    const waiting = agents.apply(
      'b',
      `${file('b', 'eleven-first', "'x'")} -> ${generate('eleven-second', 'nodes/a/out/pub/eleven')}
       -> ${generate('eleven-denied', 'nodes/c/out/eleven')}`,
    );
    await applied('b', 'eleven-first');
    const producing = agents.apply(
      'a',
      `exec { '${command} resolve nodes/a/out/pub/eleven http://a:8080 --profile ${cluster.path('agents', 'a.yaml')}':
         path => $facts['path'] }`,
    );
    expect(content('b', 'eleven-second')).toBeUndefined();
    const [a, b] = await Promise.all([producing.ended, waiting.ended]);
    expect(a.code, a.output).toBe(2);
    expect(b.code, b.output).toBe(1);
    expect(content('b', 'eleven-second')).toBe('http://a:8080');
    expect(content('b', 'eleven-denied')).toBeUndefined();
    expect(b.output.indexOf('/eleven-first]')).toBeLessThan(b.output.indexOf('/eleven-second]'));
  });
});
