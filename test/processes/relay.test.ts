import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ProcessCluster, command, eventually, run } from '../support/process-cluster.ts';
import { ask } from '../relay/support/site.ts';

let cluster: ProcessCluster;
let relay: ChildProcess | undefined;

const socket = (): string => cluster.path('run', 'relay.sock');
const notified = (): string => cluster.path('notified');

/** systemd's own command, as far as it is used. */
const fakeSystemd = (): Record<string, string> => {
  const bin = cluster.path('bin');
  mkdirSync(bin, { recursive: true });
  writeFileSync(`${bin}/systemd-notify`, `#!/bin/sh\necho "$@" >> ${notified()}\n`);
  chmodSync(`${bin}/systemd-notify`, 0o755);
  return { PATH: `${bin}:${process.env['PATH'] ?? ''}`, NOTIFY_SOCKET: '/run/systemd/notify' };
};

const startRelay = async (): Promise<ChildProcess> => {
  const log = openSync(cluster.path('relay.log'), 'a');
  const args = ['relay', '--profile', cluster.path('admin.yaml'), '--socket', socket()];
  const child = spawn(process.execPath, [command, ...args, '--state', cluster.path('relay-state')], {
    stdio: ['ignore', log, log],
    env: { ...process.env, ...fakeSystemd() },
  });
  relay = child;
  await eventually('the relay answers', async () => {
    if (child.exitCode !== null) throw new Error(readFileSync(cluster.path('relay.log'), 'utf8'));
    return ask(socket(), '/v1/status').then(
      () => true,
      () => false,
    );
  });
  return child;
};

const end = (child: ChildProcess, signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> => {
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  child.kill(signal);
  return ended;
};

beforeAll(async () => {
  cluster = await ProcessCluster.start({ servers: 1 });
});
afterAll(async () => {
  if (relay?.exitCode === null && relay.signalCode === null) await end(relay, 'SIGKILL');
  await cluster?.close();
});

interface Listed {
  readonly futures: readonly {
    readonly key: string;
    readonly revision: number;
    readonly generation: number;
  }[];
}

describe('relays of three agents', () => {
  const names = ['one', 'two', 'three'];
  const running: ChildProcess[] = [];
  const of = (name: string): string => cluster.path(`${name}.sock`);

  beforeAll(async () => {
    await Promise.all(
      names.map(async (name) => {
        const made = await run(['cert', name, '--dir', cluster.path()]);
        if (made.code !== 0) throw new Error(made.stderr);
        const log = openSync(cluster.path(`${name}.log`), 'a');
        const profile = cluster.path('agents', `${name}.yaml`);
        const args = ['--profile', profile, '--socket', of(name), '--state', cluster.path(`${name}-state`)];
        running.push(spawn(process.execPath, [command, 'relay', ...args], { stdio: ['ignore', log, log] }));
        const isConnected = ({ body }: { readonly body: unknown }): boolean =>
          (body as { readonly connected: boolean }).connected;
        await eventually(`the relay of ${name} is connected`, () =>
          ask(of(name), '/v1/status').then(isConnected, () => false),
        );
        const body = { key: `nodes/${name}/out/secret`, value: `secret of ${name}`, sensitive: true };
        expect(await ask(of(name), '/v1/resolve', { body })).toMatchObject({ status: 200 });
      }),
    );
  });
  afterAll(async () => {
    await Promise.all(
      running.filter((child) => child.exitCode === null).map((child) => end(child, 'SIGKILL')),
    );
  });

  test("give each its own secret, and no other's, whatever is asked; nor do they write below another's name", async () => {
    for (const name of names) {
      for (const other of names) {
        const key = `nodes/${other}/out/secret`;
        const asked = {
          get: await ask(of(name), `/v1/futures/${key}`),
          await: await ask(of(name), '/v1/await', { body: { keys: [key], timeout_ms: 5000 } }),
          list: await ask(of(name), `/v1/futures?pattern=nodes/${other}/**&limit=10`),
        };
        if (name === other) {
          expect(asked.get).toMatchObject({ status: 200, body: { future: { value: `secret of ${name}` } } });
          expect(asked.await.status).toBe(200);
          expect(asked.list.status).toBe(200);
          continue;
        }
        await ask(of(name), '/v1/prefetch', { body: { keys: [key] } });
        const body = { alternatives: [[key]], timeout_ms: 200 };
        const all = {
          ...asked,
          again: await ask(of(name), `/v1/futures/${key}`),
          available: await ask(of(name), '/v1/available', { body }),
          watch: await ask(of(name), `/v1/watch?pattern=nodes/${other}/**`),
          everything: await ask(of(name), '/v1/futures?pattern=**&limit=10'),
          resolve: await ask(of(name), '/v1/resolve', { body: { key, value: 'forged', supersede: true } }),
          reject: await ask(of(name), '/v1/reject', { body: { key, code: 'NO', message: 'forged' } }),
        };
        const { available, ...refused } = all;
        for (const [request, answer] of Object.entries(refused)) {
          const said = JSON.stringify(answer.body);
          expect(said, `${name}: ${request} of ${key}`).toContain('PERMISSION_DENIED');
        }
        // Awaiting it need not wait, since it is refused; so it is for a key that is not there.
        const absent = { alternatives: [[`nodes/${other}/out/none`]], timeout_ms: 200 };
        const { body: ofAbsent } = await ask(of(name), '/v1/available', { body: absent });
        expect(available.body).toEqual(ofAbsent);
        expect(JSON.stringify(all)).not.toContain(`secret of ${other}`);
      }
    }
  });
});

describe('a relay process', () => {
  test('that is killed again and again, while servers are too, sends all that it accepted, in order, each once', async () => {
    let child = await startRelay();
    const answered: number[] = [];
    let last = 0;
    const load = { over: false };
    const program = async (): Promise<void> => {
      while (!load.over) {
        last += 1;
        const number = last;
        const body = {
          key: `run/${String(number).padStart(5, '0')}`,
          value: 'v',
          supersede: true,
          wait: 'queued',
        };
        try {
          const { status } = await ask(socket(), '/v1/resolve', { body });
          if (status === 200 || status === 202) answered.push(number);
          else throw new Error(`HTTP status ${status}`);
        } catch (error) {
          // Killed: whether it was accepted is not known.
          const code = error instanceof Error && 'code' in error ? error.code : error;
          expect(['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE']).toContain(code);
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }
    };
    const programs = program();
    for (let round = 0; round < 6; round += 1) {
      const before = answered.length;
      await eventually('some are accepted', () => Promise.resolve(answered.length > before + 15));
      if (round === 1) await cluster.kill(1);
      await end(child, 'SIGKILL');
      child = await startRelay();
      if (round === 3) {
        cluster.startServer(1);
        await cluster.ready();
      }
    }
    load.over = true;
    await programs;
    await eventually('all are sent', async () => {
      const { body } = await ask(socket(), '/v1/status');
      const { connected, queue } = body as { connected: boolean; queue: { entries: number } };
      return connected && queue.entries === 0;
    });
    const found: Listed['futures'][number][] = [];
    let after = '';
    for (;;) {
      const { body } = await ask(socket(), `/v1/futures?pattern=run/*&limit=1000&after=${after}`);
      const page = body as Listed & { readonly next?: string };
      found.push(...page.futures);
      if (page.next === undefined) break;
      after = page.next;
    }
    // Sent twice it would be in its second generation.
    expect(found.filter(({ generation }) => generation !== 1)).toEqual([]);
    const revisions = found.map(({ revision }) => revision);
    expect(revisions).toEqual(revisions.toSorted((a, b) => a - b));
    const there = new Set(found.map(({ key }) => Number(key.slice(4))));
    expect(answered.filter((number) => !there.has(number))).toEqual([]);
    expect(answered.length).toBeGreaterThan(90);
    await end(child, 'SIGTERM');
  });

  test('keeps its files to its user, tells systemd when it is ready, and ends in order', async () => {
    const child = await startRelay();
    await eventually('systemd is told', () => Promise.resolve(existsSync(notified())));
    expect(readFileSync(notified(), 'utf8')).toContain('--ready\n');
    for (const name of readdirSync(cluster.path('relay-state')))
      expect({ name, mode: statSync(cluster.path('relay-state', name)).mode & 0o077 }).toEqual({
        name,
        mode: 0,
      });
    expect(statSync(cluster.path('run')).mode & 0o777).toBe(0o755);
    expect(await end(child, 'SIGTERM')).toBe(0);
    expect(existsSync(socket())).toBe(false);
  });

  test('serves the command, which finds it by the variable', async () => {
    const child = await startRelay();
    const env = { FUTURESTORE_SOCKET: socket() };
    expect(await run(['resolve', 'cli/a', 'one'], { env })).toMatchObject({ code: 0 });
    expect(await run(['get', 'cli/a'], { env })).toMatchObject({ code: 0, stdout: 'one' });
    expect(await run(['get', 'cli/b'], { env })).toMatchObject({ code: 8 });
    expect(
      await run([
        'relay',
        '--socket',
        cluster.path('other.sock'),
        '--state',
        cluster.path('relay-state'),
        '--profile',
        cluster.path('admin.yaml'),
      ]),
    ).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('in use by another process') as unknown,
    });
    await end(child, 'SIGTERM');
  });

  test('says in its help what it is for, who may use it and where its files are', async () => {
    const { code, stdout } = await run(['relay', '--help']);
    expect(code).toBe(0);
    for (const word of [
      'FUTURESTORE_SOCKET',
      '0660',
      '/var/lib/futurestore-relay',
      'SIGTERM',
      '--session-grace',
    ])
      expect(stdout).toContain(word);
  });
});
