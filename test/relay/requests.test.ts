import { once } from 'node:events';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { errorDefinitions } from '../../src/protocol/index.ts';
import { statusOf } from '../../src/relay/http/answers.ts';
import { routes } from '../../src/relay/http/routes.ts';
import { relayLimits } from '../../src/relay/index.ts';
import { Site, eventually } from './support/site.ts';
import type { RunningRelay } from './support/site.ts';

let site: Site;
let relay: RunningRelay;

beforeEach(async () => {
  site = await Site.start();
  relay = await site.relay();
  await relay.connected();
});
afterEach(() => site.close());

const error = (code: string, details: unknown = {}) => ({
  error: expect.objectContaining({ code, details }) as unknown,
});

/** The lines of a watch, as they come. */
const watchLines = async (
  path: string,
): Promise<{ readonly response: IncomingMessage; next(): Promise<Record<string, unknown>>; end(): void }> => {
  const request = httpRequest({ socketPath: relay.socket, path, agent: false });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const lines = createInterface({ input: response })[Symbol.asyncIterator]();
  return {
    response,
    next: async () => JSON.parse((await lines.next()).value as string) as Record<string, unknown>,
    end: () => request.destroy(),
  };
};

describe('a local program', () => {
  test('gives values and gets them, in every way that a value can be given', async () => {
    expect(await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' })).toMatchObject({
      status: 200,
      body: { result: { key: 'nodes/a', generation: 1, state: 'resolved', unchanged: false } },
    });
    await relay.post('/v1/resolve', {
      key: 'nodes/b',
      value_base64: Buffer.from([0, 255]).toString('base64'),
    });
    await relay.post('/v1/resolve', { key: 'nodes/c', json: { port: [5432, null] } });
    await relay.post('/v1/resolve', { key: 'nodes/d', value: '<a/>', content_type: 'text/xml' });
    const futures = ['a', 'b', 'c', 'd'].map(async (name) => {
      const { status, body } = await relay.ask(`/v1/futures/nodes%2F${name}`);
      expect(status).toBe(200);
      return (body as { future: unknown }).future;
    });
    expect(await Promise.all(futures)).toMatchObject([
      { key: 'nodes/a', value: 'one', contentType: 'text/plain; charset=utf-8', producer: 'agents:web1' },
      { key: 'nodes/b', valueBase64: 'AP8=', contentType: 'application/octet-stream' },
      { key: 'nodes/c', value: '{"port":[5432,null]}', contentType: 'application/json' },
      { key: 'nodes/d', value: '<a/>', contentType: 'text/xml' },
    ]);
  });

  test('declares, rejects, touches and deletes', async () => {
    expect(await relay.post('/v1/declare', { key: 'nodes/a', deadline_ms: 60_000 })).toMatchObject({
      body: { result: { state: 'pending' } },
    });
    expect(await relay.post('/v1/reject', { key: 'nodes/a', code: 'NO_CA', message: 'none' })).toMatchObject({
      body: { result: { state: 'rejected' } },
    });
    expect(await relay.post('/v1/touch', { key: 'nodes/a', ttl_ms: 60_000 })).toMatchObject({
      body: { result: { state: 'rejected' } },
    });
    expect((await relay.ask('/v1/futures/nodes/a')).body).toMatchObject({
      future: {
        state: 'rejected',
        rejection: { code: 'NO_CA', message: 'none' },
        expiresAt: expect.any(String) as unknown,
      },
    });
    expect(await relay.post('/v1/delete', { key: 'nodes/a' })).toMatchObject({ status: 200 });
    expect(await relay.ask('/v1/futures/nodes/a')).toMatchObject({ status: 404, body: error('NOT_FOUND') });
  });

  test('lists page by page', async () => {
    for (const name of ['a', 'b', 'c'])
      await relay.post('/v1/resolve', { key: `nodes/${name}`, value: name });
    const first = await relay.ask('/v1/futures?pattern=nodes/**&limit=2&values=true');
    expect(first.body).toMatchObject({
      futures: [{ key: 'nodes/a', value: 'a' }, { key: 'nodes/b' }],
      next: 'nodes/b',
    });
    const { body } = await relay.ask('/v1/futures?pattern=nodes/**&after=nodes/b');
    expect(body).toEqual({ futures: [expect.not.objectContaining({ value: 'c' })] });
  });

  test('waits until a value is there', async () => {
    const waiting = relay.post('/v1/await', { keys: ['nodes/a', 'nodes/b'] });
    const any = relay.post('/v1/await', { any_of: [['nodes/x'], ['nodes/b']] });
    await relay.post('/v1/resolve', { key: 'nodes/a', value: '1' });
    await relay.post('/v1/resolve', { key: 'nodes/b', value: '2' });
    expect(await waiting).toMatchObject({
      status: 200,
      body: { alternative: 0, futures: [{ value: '1' }, { value: '2' }] },
    });
    expect(await any).toMatchObject({ status: 200, body: { alternative: 1, futures: [{ value: '2' }] } });
  });

  test('is told which key was rejected, by whom, and why', async () => {
    await relay.post('/v1/reject', { key: 'nodes/b', code: 'NO_CA', message: 'none' });
    expect(await relay.post('/v1/await', { keys: ['nodes/a', 'nodes/b'] })).toMatchObject({
      status: 424,
      body: error('FUTURE_REJECTED', {
        key: 'nodes/b',
        generation: 1,
        code: 'NO_CA',
        message: 'none',
        producer: 'agents:web1',
      }),
    });
  });

  test('that hangs up has its await cancelled at the servers', async () => {
    const caller = new AbortController();
    const waiting = relay.post('/v1/await', { keys: ['nodes/a'] }, { signal: caller.signal });
    waiting.catch(() => undefined);
    await eventually('the server has the await', () => site.server.status().waits === 1);
    caller.abort();
    await eventually('the server has forgotten it', () => site.server.status().waits === 0);
  });

  test('sees a sensitive value only by asking for its key', async () => {
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 's3cret', sensitive: true });
    expect(JSON.stringify((await relay.ask('/v1/futures/nodes/a')).body)).toContain('s3cret');
    expect(JSON.stringify((await relay.post('/v1/await', { keys: ['nodes/a'] })).body)).toContain('s3cret');
    expect(JSON.stringify((await relay.ask('/v1/futures?pattern=nodes/**&values=true')).body)).not.toContain(
      's3cret',
    );
    const watch = await watchLines('/v1/watch?pattern=nodes/**');
    expect(JSON.stringify(await watch.next())).not.toContain('s3cret');
    watch.end();
    expect(JSON.stringify((await relay.ask('/v1/queue/1')).body)).not.toContain('s3cret');
  });

  test('asks what became of a write', async () => {
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    expect(await relay.ask('/v1/queue/1')).toMatchObject({
      body: { state: 'committed', result: { key: 'nodes/a' } },
    });
    expect(await relay.ask('/v1/queue/2')).toMatchObject({ status: 404, body: error('NOT_FOUND') });
  });

  test('sees how the relay stands', async () => {
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    await relay.ask('/v1/futures/nodes/a');
    expect((await relay.ask('/v1/status')).body).toMatchObject({
      connected: true,
      server: 'server-1',
      cluster_id: 'c'.repeat(32),
      principal: 'agents:web1',
      revision: 1,
      queue: { entries: 0, bytes: 0, oldest_ms: 0 },
      cache: { entries: 1 },
      prefetched: 0,
      version: 'test',
    });
    expect((await relay.ask('/v1/cluster')).body).toMatchObject({
      members: [{ name: 'server-1', role: 'leader' }],
    });
    expect((await relay.ask('/metrics')).body).toMatch(/^futurestore_relay_connected 1$/m);
  });
});

describe('a watch', () => {
  test('gives the present state, then each change, and can be continued', async () => {
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    const watch = await watchLines('/v1/watch?pattern=nodes/**&pattern=shared/**');
    expect(watch.response.headers['content-type']).toBe('application/x-ndjson');
    expect(await watch.next()).toMatchObject({ kind: 'future', key: 'nodes/a', value: 'one', revision: 1 });
    const { kind, position } = await watch.next();
    expect(kind).toBe('caught_up');
    await relay.post('/v1/resolve', { key: 'shared/b', value: 'two' });
    await relay.post('/v1/delete', { key: 'shared/b' });
    const changes = [await watch.next(), await watch.next()];
    expect(changes).toMatchObject([
      { kind: 'future', key: 'shared/b', revision: 2 },
      { kind: 'deleted', key: 'shared/b', revision: 3 },
    ]);
    watch.end();
    await relay.post('/v1/resolve', { key: 'nodes/c', value: 'three' });
    const continued = await watchLines(`/v1/watch?pattern=nodes/**&from=${String(position)}`);
    expect(await continued.next()).toMatchObject({ kind: 'future', key: 'nodes/c', revision: 4 });
    continued.end();
  });

  test('that is not allowed says so in its last line', async () => {
    const watch = await watchLines('/v1/watch?pattern=**');
    expect(await watch.next()).toMatchObject({ kind: 'ended', error: { code: 'PERMISSION_DENIED' } });
  });

  test('ends at the servers when its caller goes, and then makes room for another', async () => {
    await relay.close();
    relay = await site.relay({ limits: { watchesMax: 1 } });
    const watch = await watchLines('/v1/watch?pattern=nodes/**');
    expect(await relay.ask('/v1/watch?pattern=shared/**')).toMatchObject({
      status: 429,
      body: error('TOO_MANY_REQUESTS'),
    });
    await eventually('the server has it', () => site.server.status().subscriptions === 1);
    watch.end();
    await eventually('the server has forgotten it', () => site.server.status().subscriptions === 0);
    const another = await watchLines('/v1/watch?pattern=shared/**');
    expect(another.response.statusCode).toBe(200);
    another.end();
  });

  test('whose caller takes nothing skips states, and misses no key', async () => {
    const watch = await watchLines('/v1/watch?pattern=nodes/**');
    expect(await watch.next()).toMatchObject({ kind: 'caught_up' });
    watch.response.pause();
    const value = 'x'.repeat(300_000);
    for (let i = 0; i < 20; i += 1) {
      const written = { key: `nodes/k${i % 4}`, value: `${i}${value}`, supersede: true };
      expect((await relay.post('/v1/resolve', written)).status).toBe(200);
    }
    const last = new Map<string, number>();
    let lines = 0;
    watch.response.resume();
    while (last.size < 4 || Math.min(...last.values()) < 17) {
      const { key, revision } = (await watch.next()) as { key: string; revision: number };
      last.set(key, revision);
      lines += 1;
    }
    expect([...last].toSorted(([a], [b]) => (a < b ? -1 : 1))).toEqual([
      ['nodes/k0', 17],
      ['nodes/k1', 18],
      ['nodes/k2', 19],
      ['nodes/k3', 20],
    ]);
    expect(lines).toBeLessThan(20);
    watch.end();
  });
});

describe('what is wrong is refused with a reason', () => {
  test.each<[string, string, unknown, number, string]>([
    ['no JSON', '/v1/resolve', '{"key":', 400, 'INVALID_ARGUMENT'],
    ['no UTF-8', '/v1/resolve', '\ud800', 400, 'INVALID_ARGUMENT'],
    ['no object', '/v1/resolve', [1], 400, 'INVALID_ARGUMENT'],
    ['an unknown field', '/v1/resolve', { key: 'nodes/a', value: 'v', vale: 1 }, 400, 'INVALID_ARGUMENT'],
    ['no value', '/v1/resolve', { key: 'nodes/a' }, 400, 'INVALID_ARGUMENT'],
    ['two values', '/v1/resolve', { key: 'nodes/a', value: '', json: 1 }, 400, 'INVALID_ARGUMENT'],
    ['no base64', '/v1/resolve', { key: 'nodes/a', value_base64: 'a!b' }, 400, 'INVALID_ARGUMENT'],
    ['a value that is no text', '/v1/resolve', { key: 'nodes/a', value: 1 }, 400, 'INVALID_ARGUMENT'],
    ['a key that is none', '/v1/resolve', { key: 'nodes//a', value: '' }, 400, 'INVALID_KEY'],
    ['another wait', '/v1/resolve', { key: 'nodes/a', value: '', wait: 'no' }, 400, 'INVALID_ARGUMENT'],
    ['half a millisecond', '/v1/touch', { key: 'nodes/a', ttl_ms: 0.5 }, 400, 'INVALID_ARGUMENT'],
    ['a rejection code that is none', '/v1/reject', { key: 'nodes/a', code: 'no' }, 400, 'INVALID_ARGUMENT'],
    ['no keys', '/v1/await', { keys: [] }, 400, 'INVALID_ARGUMENT'],
    ['keys twice', '/v1/await', { keys: ['a'], any_of: [['a']] }, 400, 'INVALID_ARGUMENT'],
    ['no alternatives', '/v1/available', { alternatives: [] }, 400, 'INVALID_ARGUMENT'],
    [
      'more alternatives than can be followed',
      '/v1/available',
      {
        alternatives: Array.from({ length: 64 }, (_, i) =>
          Array.from({ length: 65 }, (_each, j) => `nodes/${i}/${j}`),
        ),
      },
      400,
      'INVALID_ARGUMENT',
    ],
    ['a prefetch of patterns', '/v1/prefetch', { keys: ['nodes/*'] }, 400, 'INVALID_KEY'],
    ['another key', '/v1/resolve', { key: 'other/a', value: '' }, 403, 'PERMISSION_DENIED'],
    ['a touch of nothing', '/v1/touch', { key: 'nodes/a', ttl_ms: 5 }, 404, 'NOT_FOUND'],
    [
      'a condition that does not hold',
      '/v1/resolve',
      { key: 'nodes/a', value: '', if_revision: 7 },
      409,
      'PRECONDITION_FAILED',
    ],
    ['an await that is too long', '/v1/await', { keys: ['nodes/a'], timeout_ms: 1 }, 408, 'TIMED_OUT'],
    [
      'too large a value',
      '/v1/resolve',
      { key: 'nodes/a', value: 'x'.repeat(1024 * 1024 + 1) },
      413,
      'VALUE_TOO_LARGE',
    ],
    ['too large a body', '/v1/resolve', 'x'.repeat(relayLimits.bodyBytesMax + 1), 413, 'LIMIT_EXCEEDED'],
    ['no such route', '/v2/resolve', {}, 404, 'NOT_FOUND'],
  ])('in a body: %s', async (_what, path, body, status, code) => {
    const reply = await relay.post(path, body);
    expect(reply).toMatchObject({ status });
    expect((reply.body as { error: { code: string } }).error).toMatchObject({ code });
    // The connection, the relay and its queue are well.
    expect((await relay.status()).queue.entries).toBe(0);
  });

  test.each<[string, string, number]>([
    ['an unknown parameter', '/v1/futures?patern=a', 400],
    ['a number that is none', '/v1/futures?limit=many', 400],
    ['neither true nor false', '/v1/futures?values=1', 400],
    ['bad percent-encoding', '/v1/futures/%zz', 400],
    ['a key that is none', '/v1/futures/a//b', 400],
    ['a watch of nothing', '/v1/watch', 400],
    ['a position that is none', '/v1/watch?pattern=nodes/**&from=here', 400],
    ['too long a header', `/v1/futures/${'x'.repeat(relayLimits.headerBytesMax)}`, 431],
  ])('in a path or its parameters: %s', async (_what, path, status) => {
    expect(await relay.ask(path)).toMatchObject({ status });
  });

  test('another value where one is', async () => {
    await relay.post('/v1/resolve', { key: 'nodes/a', value: '1' });
    const reply = await relay.post('/v1/resolve', { key: 'nodes/a', value: '2' });
    expect(reply).toMatchObject({
      status: 409,
      body: { error: { code: 'ALREADY_SETTLED', retryable: false } },
    });
    expect(await relay.ask('/v1/queue/2')).toMatchObject({
      body: { state: 'failed', error: { code: 'ALREADY_SETTLED' } },
    });
  });

  test('a method that a route does not take, with those that it takes', async () => {
    expect(await relay.ask('/v1/resolve')).toMatchObject({ status: 405, headers: { allow: 'POST' } });
    expect(await relay.ask('/v1/status', { method: 'DELETE' })).toMatchObject({
      status: 405,
      headers: { allow: 'GET' },
    });
    expect(await relay.ask('/v1/status', { method: 'HEAD' })).toMatchObject({ status: 200, body: '' });
  });

  test('more bodies at once than it has memory for', async () => {
    await relay.close();
    relay = await site.relay({ limits: { bodiesBytesMax: 1000 } });
    expect(await relay.post('/v1/resolve', 'x'.repeat(1001))).toMatchObject({ status: 429 });
    await relay.connected();
    expect(await relay.post('/v1/resolve', { key: 'nodes/a', value: 'x' })).toMatchObject({ status: 200 });
  });
});

test('more connections than there may be are closed, and those that are there go on', async () => {
  await relay.close();
  relay = await site.relay({ limits: { connectionsMax: 2 } });
  const waiting = [1, 2].map(() => relay.post('/v1/await', { keys: ['nodes/a'] }));
  await eventually('both wait', () => site.server.status().waits === 2);
  await expect(relay.ask('/v1/status')).rejects.toMatchObject({
    code: expect.stringMatching(/^(ECONNRESET|EPIPE)$/) as unknown,
  });
  await site.connect().resolve('nodes/a', 'one');
  for (const { status } of await Promise.all(waiting)) expect(status).toBe(200);
});

describe('the sockets', () => {
  test('are for owner and group, and what is on disk for the owner only', () => {
    expect(statSync(relay.socket).mode & 0o777).toBe(0o660);
    expect(statSync(relay.readOnlySocket).mode & 0o777).toBe(0o660);
    expect(statSync(join(site.directory, 'state')).mode & 0o777).toBe(0o700);
  });

  test('belong to the group that was asked for', async () => {
    await relay.close();
    const group = process.getgid?.() ?? 0;
    relay = await site.relay({ group: String(group) });
    expect(statSync(relay.socket).gid).toBe(group);
    await relay.close();
    await expect(site.relay({ group: 'no such group' })).rejects.toThrow(/no group/);
  });

  test('the read-only one answers what changes nothing', async () => {
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    for (const { method, path, reads } of routes) {
      if (path === '/v1/watch') continue;
      const at = path === '/v1/futures' ? `${path}?pattern=nodes/**` : path.replace(/\{.*\}/, 'nodes/a');
      const { status } = await relay.ask(at, {
        method,
        readOnly: true,
        ...(method === 'POST' ? { body: {} } : {}),
      });
      if (reads) expect([200, 400]).toContain(status);
      else expect({ path, status }).toEqual({ path, status: 403 });
    }
    const keys = { keys: ['nodes/a'] };
    expect(await relay.post('/v1/await', keys, { readOnly: true })).toMatchObject({ status: 200 });
    expect(await relay.post('/v1/prefetch', keys, { readOnly: true })).toMatchObject({ status: 202 });
  });

  test('of a process that was killed are replaced, those of one that lives are not', async () => {
    const path = join(site.directory, 'taken.sock');
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(path, resolve));
    await relay.close();
    await expect(site.relay({ socket: path })).rejects.toMatchObject({ code: 'DATA_IN_USE' });
    await new Promise((resolve) => other.close(resolve));
    const file = join(site.directory, 'file');
    writeFileSync(file, 'precious');
    await expect(site.relay({ socket: file })).rejects.toMatchObject({ code: 'CONFIGURATION_INVALID' });
    expect(readFileSync(file, 'utf8')).toBe('precious');
    relay = await site.relay();
    await expect(site.relay({ socket: path })).rejects.toMatchObject({ code: 'DATA_IN_USE' });
  });
});

describe('the description', () => {
  const text = readFileSync('proto/relay.openapi.yaml', 'utf8');
  const described = parse(text) as {
    readonly paths: Record<
      string,
      Record<
        string,
        { readonly 'x-reads'?: boolean; readonly parameters?: readonly Record<string, string>[] }
      >
    >;
  };

  test('has every route, its parameters and whether it only reads, and nothing else', () => {
    const there = Object.entries(described.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { 'x-reads': reads = false, parameters = [] }]) => ({
        method: method.toUpperCase(),
        path,
        reads,
        parameters: parameters
          .filter((one) => one['in'] !== 'path')
          .map((one) => one['name'] ?? one['$ref']?.split('/').at(-1) ?? '')
          .toSorted((a, b) => a.localeCompare(b)),
      })),
    );
    const known = routes.map(({ method, path, reads, parameters = [] }) => ({
      method,
      path,
      reads,
      parameters: parameters.toSorted((a, b) => a.localeCompare(b)),
    }));
    const byPath = (a: { path: string }, b: { path: string }): number => (a.path < b.path ? -1 : 1);
    expect(there.sort(byPath)).toEqual(known.sort(byPath));
  });

  test('is served', async () => {
    expect(await relay.ask('/v1/openapi.yaml')).toMatchObject({ status: 200, body: text });
  });

  test('names the HTTP statuses that errors have', () => {
    for (const status of new Set(Object.values(statusOf))) {
      if (status !== 499) expect(text).toMatch(new RegExp(`\\b${status}\\b`));
    }
    expect(Object.keys(statusOf).sort()).toEqual(Object.keys(errorDefinitions).sort());
  });
});
