/** Policies and revocations of a real cluster: changed with the command, felt by agents on other servers. */
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { loadProfile } from '../../src/client/index.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import { eventually, ProcessCluster, run } from '../support/process-cluster.ts';

let cluster: ProcessCluster;
beforeAll(async () => {
  cluster = await ProcessCluster.start();
  for (const name of ['web1', 'web2']) {
    const made = await run(['cert', name, '--dir', cluster.path()]);
    if (made.code !== 0) throw new Error(made.stderr);
  }
});
afterAll(async () => {
  await cluster?.close();
});

const admin = (): string[] => ['--profile', cluster.path('admin.yaml')];
const profileOf = (name: string): string => cluster.path('agents', `${name}.yaml`);
const acl = async (...args: string[]): Promise<string> => {
  const { code, stdout, stderr } = await run(['acl', ...args, ...admin()]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return stdout;
};

/** Below the library, to see the close code and when it comes. */
const connectRaw = async (
  name: string,
  server: number,
): Promise<{ closed: Promise<{ code: number; atMs: number }> }> => {
  const { ca, cert, key } = loadProfile(profileOf(name));
  const ws = new WebSocket(`wss://127.0.0.1:${cluster.port + server - 1}/`, [protobufCodec.subprotocol], {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
  });
  ws.on('error', () => undefined);
  const closed = new Promise<{ code: number; atMs: number }>((resolve) => {
    ws.once('close', (code) => resolve({ code, atMs: performance.now() }));
  });
  const welcomed = new Promise((resolve) => ws.once('message', resolve));
  ws.once('open', () =>
    ws.send(
      protobufCodec.encodeClientFrame({ hello: { clientName: 'raw', clientVersion: '1' }, requests: [] }),
      { binary: true },
    ),
  );
  await Promise.race([welcomed, closed]);
  return { closed };
};

describe('revoked', () => {
  test('a principal is cut off on every server within a second, and stays out until it is taken back', async () => {
    const connections = await Promise.all(cluster.ids.map((id) => connectRaw('web1', id)));
    const others = await cluster.connect({ profile: profileOf('web2'), server: 2 });
    await others.resolve('nodes/web2/out/x', '1');
    const operator = await cluster.connect({ server: 1 });
    await operator.status();
    const startedMs = performance.now();
    await operator.revoke({ kind: 'principal', realm: 'agents', name: 'web1' });
    for (const { closed } of connections) {
      const { code, atMs } = await closed;
      expect(code).toBe(4503);
      expect(atMs - startedMs).toBeLessThan(1000);
    }
    await others.resolve('nodes/web2/out/x', '2', { supersede: true });
    expect(await (await connectRaw('web1', 3)).closed).toMatchObject({ code: 4503 });
    expect(await acl('revocations')).toContain('agents:web1');
    await acl('restore', 'agents:web1');
    const back = await cluster.connect({ profile: profileOf('web1') });
    await back.resolve('nodes/web1/out/x', '1');
  });
});

describe('policies', () => {
  test('are applied for all servers, also for those that are away, and their files do not count any more', async () => {
    const file = cluster.path('policy.yaml');
    const text = readFileSync(file, 'utf8');
    const changed = cluster.path('changed.yaml');
    writeFileSync(changed, text.replace('"shared/**"', '"shared/**", "common/**"'));
    expect(await acl('apply', changed)).toContain('the policies count on all servers now');
    const away = cluster.ids.find((id) => id !== 1) ?? 2;
    await cluster.kill(away);
    writeFileSync(changed, text.replace('"shared/**"', '"public/**"'));
    expect(await acl('diff', changed)).toContain('public/**');
    await acl('apply', changed);
    cluster.startServer(away);
    await cluster.ready();
    const agent = await cluster.connect({ profile: profileOf('web2'), server: away });
    expect(await agent.get('public/x')).toBeUndefined();
    for (const key of ['shared/x', 'common/x'])
      await expect(agent.get(key)).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    await eventually('its log says so', async () =>
      cluster.log(away).includes('the policies of the cluster count here, the policy file does not'),
    );
    expect(await acl('check', '--as', 'agents:web2', 'get', 'public/x')).toContain('may get public/x');
    expect(await acl('get')).toContain('public/**');
  });

  test('that would lock the administrator out are refused, and change nothing', async () => {
    const file = cluster.path('locked.yaml');
    writeFileSync(
      file,
      readFileSync(cluster.path('policy.yaml'), 'utf8').replace('acl.get, acl.change', 'acl.get'),
    );
    const refused = await run(['acl', 'apply', file, ...admin()]);
    expect(refused).toMatchObject({ code: 7, stderr: expect.stringContaining('acl.change') });
    await acl('get');
  });

  test('and every change of them is in the log of every server, without their text', async () => {
    for (const id of cluster.ids) {
      const lines = cluster
        .log(id)
        .split('\n')
        .filter((line) => line.includes('"audit":"changed"'))
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      const changes = lines.map((line) => line['change']);
      expect(changes).toEqual(expect.arrayContaining(['acl_revoke', 'acl_restore', 'acl_apply']));
      expect(lines.every((line) => line['principal'] === 'agents:admin')).toBe(true);
      expect(JSON.stringify(lines)).not.toContain('BEGIN CERTIFICATE');
    }
  });
});

describe('a principal that may have one connection', () => {
  test('keeps the newer of two agents, whichever servers they are at, and the older one stays away', async () => {
    const file = cluster.path('one-connection.yaml');
    const policy = readFileSync(cluster.path('policy.yaml'), 'utf8');
    writeFileSync(file, policy.replace(/^  agent:\n/m, '  agent:\n    - limit: { connections: 1 }\n'));
    await acl('apply', file);
    const first = await cluster.connect({ profile: profileOf('web2'), server: 1 });
    const wait = first.await('nodes/web2/in/never').catch((error: unknown) => error);
    await first.resolve('nodes/web2/out/who', 'first', { supersede: true });
    const second = await cluster.connect({ profile: profileOf('web2'), server: 2 });
    await second.resolve('nodes/web2/out/who', 'second', { supersede: true });
    expect(await wait).toMatchObject({
      code: 'CONNECTION_CLOSED',
      message: expect.stringContaining('run only one'),
    });
    expect(first.state.kind).toBe('closed');
    // At the same server, without any session.
    const third = await cluster.connect({ profile: profileOf('web2'), server: 2 });
    await third.get('nodes/web2/out/who');
    await eventually('the second one has been told', async () => second.state.kind === 'closed');
    await third.resolve('nodes/web2/out/who', 'third', { supersede: true });
  });
});
