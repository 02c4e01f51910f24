import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { command, eventually, ProcessCluster, run, sleep } from '../support/process-cluster.ts';

let cluster: ProcessCluster;
beforeAll(async () => {
  cluster = await ProcessCluster.start();
});
afterAll(async () => {
  await cluster?.close();
});

const admin = (): string[] => ['--profile', cluster.path('admin.yaml')];

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

describe('the way of a future', () => {
  test('an await ends within 50 ms of the resolve, whichever servers the two are connected to', async () => {
    for (const waitsAt of cluster.ids) {
      for (const resolvesAt of cluster.ids) {
        const waiter = await cluster.connect({ server: waitsAt });
        const producer = await cluster.connect({ server: resolvesAt });
        const tookMs: number[] = [];
        for (let round = 0; round < 7; round += 1) {
          const key = `pairs/${waitsAt}/${resolvesAt}/${round}`;
          const awaited = waiter.await(key).then((future) => ({ future, atMs: performance.now() }));
          await producer.get(key);
          await waiter.get(key);
          const startedMs = performance.now();
          await producer.resolve(key, 'value');
          const { future, atMs } = await awaited;
          expect(Buffer.from(future.value ?? []).toString()).toBe('value');
          tookMs.push(atMs - startedMs);
        }
        expect(median(tookMs), `${waitsAt} waits, ${resolvesAt} resolves: ${tookMs.join(' ')}`).toBeLessThan(
          50,
        );
      }
    }
  });

  test('the command awaits, resolves, prints the bare value', async () => {
    const waiting = run(['await', 'nodes/web1/out/url', ...admin()]);
    await sleep(300);
    const resolved = await run(['resolve', 'nodes/web1/out/url', 'http://web1:8080', ...admin()]);
    expect(resolved).toMatchObject({ code: 0, stderr: '' });
    expect(await waiting).toEqual({ code: 0, stdout: 'http://web1:8080', stderr: '' });
    expect(await run(['get', 'nodes/web1/out/url', ...admin()])).toMatchObject({
      code: 0,
      stdout: 'http://web1:8080',
    });
  });

  test('the command tells by its exit code what happened', async () => {
    const code = async (...args: string[]): Promise<number> => {
      const result = await run([...args, ...admin()]);
      if (result.code !== 0) expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
      return result.code;
    };
    expect(await code('resolve', 'codes/a', '1')).toBe(0);
    expect(await code('resolve', 'codes/a', '1')).toBe(0);
    expect(await code('resolve', 'codes/a', '2')).toBe(7);
    expect(await code('resolve', 'codes/a', '2', '--supersede', '--if-revision', '1')).toBe(7);
    expect(await code('resolve', 'codes/a', '2', '--supersede')).toBe(0);
    expect(await code('reject', 'codes/r', '--message', 'the disk is full', '--code', 'DISK_FULL')).toBe(0);
    expect(await code('await', 'codes/r')).toBe(3);
    expect(await code('await', 'codes/none', '--timeout', '200ms')).toBe(4);
    expect(await code('get', 'codes/none')).toBe(8);
    expect(await code('declare', 'codes/p')).toBe(0);
    expect(await code('get', 'codes/p')).toBe(8);
    expect(await code('get', 'no such key')).not.toBe(0);
    expect(await code('get')).toBe(2);
    expect(await code('touch', 'codes/a', '--ttl', '1h')).toBe(0);
    expect(await code('delete', 'codes/a')).toBe(0);
    expect(await code('delete', 'codes/a')).toBe(8);
    expect(await code('status')).toBe(0);
  });

  test('the status names members, leader, term, indices, lag, keys and connections', async () => {
    const result = await run(['status', '--json', ...admin()]);
    const status = JSON.parse(result.stdout) as { members: Record<string, unknown>[] };
    expect(status.members).toHaveLength(3);
    expect(status.members.filter((member) => member['role'] === 'leader')).toHaveLength(1);
    for (const member of status.members) {
      expect(member).toMatchObject({
        name: expect.stringMatching(/^server-[123]$/),
        term: expect.any(Number),
        commitIndex: expect.any(Number),
        appliedIndex: expect.any(Number),
        lag: expect.any(Number),
        keys: expect.any(Number),
        connections: expect.any(Number),
      });
    }
  });

  test('a watch prints what changes until it is interrupted', async () => {
    const child = spawn(process.execPath, [command, 'watch', 'watched/**', '--json', ...admin()]);
    let output = '';
    child.stdout.on('data', (data: Buffer) => {
      output += data.toString();
    });
    await sleep(500);
    await run(['resolve', 'watched/a', 'first', ...admin()]);
    await eventually('the change is printed', async () => output.includes('watched/a'));
    const ended = once(child, 'exit');
    child.kill('SIGINT');
    expect(await ended).toEqual([0, null]);
  });
});

describe('who may do what', () => {
  test('an agent sees and writes only what its policies allow', async () => {
    for (const name of ['web1', 'web2']) {
      expect(await run(['cert', name, '--dir', cluster.path()])).toMatchObject({ code: 0 });
    }
    const as = (name: string): string[] => ['--profile', cluster.path('agents', `${name}.yaml`)];
    expect(await run(['resolve', 'nodes/web1/out/port', '80', ...as('web1')])).toMatchObject({ code: 0 });
    expect(await run(['get', 'nodes/web1/out/port', ...as('web1')])).toMatchObject({ code: 0, stdout: '80' });
    const forbidden = await run(['get', 'nodes/web1/out/port', ...as('web2')]);
    const missing = await run(['get', 'nodes/web1/out/none', ...as('web2')]);
    expect(forbidden.code).toBe(5);
    expect(missing).toMatchObject({ code: 5, stderr: forbidden.stderr.replace('port', 'none') });
    expect(await run(['resolve', 'nodes/web1/out/port', '81', ...as('web2')])).toMatchObject({ code: 5 });
    expect(await run(['list', '**', ...as('web2')])).toMatchObject({ code: 5 });
    expect(await run(['status', ...as('web2')])).toMatchObject({ code: 5 });
  });

  test("an agent's certificate does not open a link between servers", async () => {
    await run(['cert', 'intruder', '--dir', cluster.path()]);
    const read = (...parts: string[]): Buffer => readFileSync(cluster.path(...parts));
    const socket = connectTls({
      host: '127.0.0.1',
      port: cluster.port + 10,
      cert: read('agents', 'intruder.pem'),
      key: read('agents', 'intruder.key'),
      rejectUnauthorized: false,
    });
    let received = 0;
    socket.on('data', (data: Buffer) => (received += data.length));
    socket.on('error', () => {});
    await once(socket, 'close');
    expect(received).toBe(0);
    await eventually('the refusal is in the log, with the name in the certificate', async () =>
      cluster
        .log(1)
        .split('\n')
        .some((line) => line.includes('intruder') && line.includes('of no peer')),
    );
    expect(await run(['status', ...admin()])).toMatchObject({ code: 0 });
  });

  test('a certificate of an unknown CA is refused with what to check', async () => {
    const other = await ProcessCluster.create({ servers: 1 });
    try {
      const profile = parse(readFileSync(other.path('admin.yaml'), 'utf8')) as {
        endpoints: string[];
        ca: string;
      };
      profile.endpoints = [`wss://127.0.0.1:${cluster.port}`];
      profile.ca = (await import('node:path')).resolve(
        cluster.path(),
        (parse(readFileSync(cluster.path('admin.yaml'), 'utf8')) as { ca: string }).ca,
      );
      writeFileSync(other.path('wrong.yaml'), stringify(profile));
      const result = await run(['get', 'k', '--profile', other.path('wrong.yaml'), '--timeout', '10s']);
      expect(result.code).toBe(5);
      expect(result.stderr).toMatch(/certificate/);
    } finally {
      await other.close();
    }
  });
});

describe('a server that can not start says why', () => {
  test('its data directory is in use', async () => {
    const result = await run(['server', '--config', cluster.configuration(1)]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/another process/);
    expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  test('a setting is misspelt', async () => {
    const file = cluster.path('server-1', 'misspelt.yaml');
    const settings = parse(readFileSync(cluster.configuration(1), 'utf8')) as Record<string, unknown>;
    writeFileSync(file, stringify({ ...settings, election_timout: '1s' }));
    const result = await run(['server', '--config', file]);
    expect(result.code).toBe(2);
    expect(result.stderr).toMatch(/election_timout.*election_timeout/);
  });

  test("its data belongs to another cluster's or another member's server", async () => {
    const file = cluster.path('server-1', 'foreign.yaml');
    const settings = parse(readFileSync(cluster.configuration(1), 'utf8')) as { cluster: { id: string } };
    await cluster.signal(1, 'SIGTERM');
    try {
      writeFileSync(file, stringify({ ...settings, cluster: { ...settings.cluster, id: 'f'.repeat(32) } }));
      const result = await run(['server', '--config', file]);
      expect(result.code).toBe(9);
      expect(result.stderr).toMatch(/another cluster|belongs to/);
    } finally {
      cluster.startServer(1);
      await cluster.ready();
    }
  });
});

describe('a server that is stopped', () => {
  test('hands leadership over and sends its agents elsewhere, who lose no wait', async () => {
    const leader = await cluster.someLeader();
    const other = cluster.ids.find((id) => id !== leader);
    const waiter = await cluster.connect();
    const awaited = waiter.await('stopping/key');
    const writer = await cluster.connect({ server: other as number });
    await writer.get('stopping/key');
    const code = cluster.signal(leader, 'SIGTERM');
    await eventually('another server leads', async () => {
      const found = await cluster.leader();
      return found !== undefined && found !== leader;
    });
    expect(await code).toBe(0);
    await writer.resolve('stopping/key', 'v', { timeoutMs: 5000 });
    expect((await awaited).state).toBe('resolved');
    cluster.startServer(leader);
    await cluster.ready();
  });
});

describe("the operators' port", () => {
  test('tells liveness, readiness and metrics', async () => {
    expect(await cluster.adminGet(1, '/livez')).toMatchObject({ status: 200 });
    expect(await cluster.adminGet(1, '/readyz')).toMatchObject({ status: 200 });
    const metrics = (await cluster.adminGet(1, '/metrics'))?.text ?? '';
    const names = [
      'has_leader',
      'leader_changes_total',
      'term',
      'commit_index',
      'applied_index',
      'proposals_pending',
      'proposals_failed_total',
      'disk_sync_seconds_bucket',
      'apply_seconds_bucket',
      'peer_round_trip_seconds',
      'snapshots_sent_total',
      'keys',
      'waits',
      'subscriptions',
      'connections',
      'event_loop_delay_seconds',
    ];
    for (const name of names) expect(metrics).toMatch(new RegExp(`^futurestore_${name}`, 'm'));
    expect(await cluster.metric(1, 'futurestore_has_leader')).toBe(1);
    expect(await cluster.metric(1, 'futurestore_keys')).toBeGreaterThan(0);
  });

  test('says that a server without a majority is not ready', async () => {
    const [alone, ...others] = cluster.ids as [number, ...number[]];
    await Promise.all(others.map((id) => cluster.kill(id)));
    await eventually(
      'the lone server is not ready',
      async () => (await cluster.adminGet(alone, '/readyz'))?.status === 503,
    );
    expect((await cluster.adminGet(alone, '/readyz'))?.text).toMatch(/leader/);
    expect((await run(['get', 'k', '--timeout', '500ms', ...admin()])).code).toBe(4);
    for (const id of others) cluster.startServer(id);
    await cluster.ready();
  });
});
