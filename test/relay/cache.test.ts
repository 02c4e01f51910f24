import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fc, test as property } from '@fast-check/vitest';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ClusterClock } from '../../src/relay/clock.ts';
import { Machine, Site, eventually } from './support/site.ts';
import type { Reply, RunningRelay } from './support/site.ts';

let site: Site;

beforeEach(async () => {
  site = await Site.start();
});
afterEach(() => site.close());

const hourMs = 3_600_000;

const get = (relay: RunningRelay, key: string): Promise<Reply> =>
  relay.ask(`/v1/futures/${key}?timeout_ms=50`);
const awaited = (relay: RunningRelay, key: string): Promise<Reply> =>
  relay.post('/v1/await', { keys: [key], timeout_ms: 50 });

const fromCache = (value: string): object => ({ status: 200, body: { from: 'cache', future: { value } } });
const unreachable = { status: 503, body: { error: { code: 'UNAVAILABLE', retryable: true } } };

/** A relay that has seen these values, knows cluster time, and has no server any more. */
const knowing = async (
  values: Readonly<Record<string, object>>,
  options: Parameters<Site['relay']>[0] = {},
): Promise<RunningRelay> => {
  const relay = await site.relay(options);
  await relay.connected();
  for (const [key, more] of Object.entries(values)) {
    expect(await relay.post('/v1/resolve', { key, value: `value of ${key}`, ...more })).toMatchObject({
      status: 200,
    });
    expect(await get(relay, key)).toMatchObject({ status: 200 });
  }
  await site.away();
  await relay.connected(false);
  return relay;
};

/** A new process on the same directory, without servers. */
const restarted = async (relay: RunningRelay): Promise<RunningRelay> => {
  await relay.close();
  const next = await site.relay();
  expect((await next.status()).connected).toBe(false);
  return next;
};

describe('a value that was seen', () => {
  test('is given from the cache while no server can be reached, and only then', async () => {
    const relay = await knowing({ 'nodes/a': {} });
    expect(await get(relay, 'nodes/a')).toMatchObject(fromCache('value of nodes/a'));
    expect(await awaited(relay, 'nodes/a')).toMatchObject({
      status: 200,
      body: { from: 'cache', alternative: 0, futures: [{ value: 'value of nodes/a' }] },
    });
    expect(await get(relay, 'nodes/b')).toMatchObject(unreachable);
    await site.back();
    await relay.connected();
    const { status, body } = await relay.ask('/v1/futures/nodes/a');
    expect(status).toBe(200);
    expect(body).not.toHaveProperty('from');
  });

  test('is given to those who wait for a server at the moment when it is lost', async () => {
    const relay = await site.relay();
    await relay.connected();
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    await get(relay, 'nodes/a');
    const other = site.connect();
    // The server would not answer: the future is pending again.
    await other.declare('nodes/a', { renew: true, ifRevision: 1 }).catch(() => undefined);
    const waiting = relay.post('/v1/await', { keys: ['nodes/a'], least_generation: 1 });
    await site.away();
    expect(await waiting).toMatchObject({ status: 200 });
  });

  test('is still known to the next process', async () => {
    const relay = await restarted(await knowing({ 'nodes/a': {}, 'nodes/t': { ttl_ms: hourMs } }));
    expect(await get(relay, 'nodes/a')).toMatchObject(fromCache('value of nodes/a'));
    expect(await get(relay, 'nodes/t')).toMatchObject(fromCache('value of nodes/t'));
  });

  test('is given until its TTL is over, and not later, by this process and the next one', async () => {
    let relay = await knowing({ 'nodes/t': { ttl_ms: hourMs } });
    site.machine.aheadMs += hourMs * 0.99;
    expect(await get(relay, 'nodes/t')).toMatchObject(fromCache('value of nodes/t'));
    relay = await restarted(relay);
    expect(await get(relay, 'nodes/t')).toMatchObject(fromCache('value of nodes/t'));
    site.machine.aheadMs += hourMs * 0.01;
    expect(await get(relay, 'nodes/t')).toMatchObject(unreachable);
    expect(await awaited(relay, 'nodes/t')).toMatchObject(unreachable);
    expect(await get(await restarted(relay), 'nodes/t')).toMatchObject(unreachable);
  });

  test('is not fresh again because the wall clock was set back, by this process or the next one', async () => {
    let relay = await knowing({ 'nodes/t': { ttl_ms: hourMs } });
    site.machine.aheadMs += hourMs;
    site.machine.wallWrongMs -= 10 * hourMs;
    expect(await get(relay, 'nodes/t')).toMatchObject(unreachable);
    relay = await restarted(relay);
    expect(await get(relay, 'nodes/t')).toMatchObject(unreachable);
  });

  test('is not trusted when the wall clock was set forward: more may have passed than the machine says', async () => {
    const relay = await knowing({ 'nodes/a': {}, 'nodes/t': { ttl_ms: hourMs } });
    site.machine.wallWrongMs += hourMs;
    expect(await get(relay, 'nodes/t')).toMatchObject(unreachable);
    expect(await get(relay, 'nodes/a')).toMatchObject(fromCache('value of nodes/a'));
  });

  test('with a TTL is not given after a reboot until a server has told the time', async () => {
    let relay = await knowing({ 'nodes/a': {}, 'nodes/t': { ttl_ms: hourMs } });
    site.machine.bootId = 'boot-2';
    site.machine.aheadMs -= performance.now();
    relay = await restarted(relay);
    expect(await get(relay, 'nodes/t')).toMatchObject(unreachable);
    expect(await get(relay, 'nodes/a')).toMatchObject(fromCache('value of nodes/a'));
    await site.back();
    await relay.connected();
    // Not asked for again: it is the old entry that counts.
    await eventually('the time is known', async () => {
      await site.away();
      await relay.connected(false);
      const { status } = await get(relay, 'nodes/t');
      if (status === 200) return true;
      await site.back();
      await relay.connected();
      return false;
    });
  });

  test('is forgotten when it has gone', async () => {
    const relay = await site.relay();
    await relay.connected();
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    await get(relay, 'nodes/a');
    await relay.post('/v1/delete', { key: 'nodes/a' });
    expect(await get(relay, 'nodes/a')).toMatchObject({ status: 404 });
    await site.away();
    await relay.connected(false);
    expect(await get(await restarted(relay), 'nodes/a')).toMatchObject(unreachable);
  });

  test('that is a rejection is not given while no server can be reached: it may have been made good', async () => {
    const relay = await site.relay();
    await relay.connected();
    await relay.post('/v1/reject', { key: 'nodes/a', code: 'NO' });
    await get(relay, 'nodes/a');
    await site.away();
    await relay.connected(false);
    expect(await awaited(relay, 'nodes/a')).toMatchObject(unreachable);
  });

  test('that is sensitive is in memory only', async () => {
    const relay = await knowing({ 'nodes/a': {}, 'nodes/s': { sensitive: true } });
    expect(await get(relay, 'nodes/s')).toMatchObject(fromCache('value of nodes/s'));
    const next = await restarted(relay);
    expect(await get(next, 'nodes/s')).toMatchObject(unreachable);
    expect(await get(next, 'nodes/a')).toMatchObject(fromCache('value of nodes/a'));
  });

  test('makes room for others when there are too many, or too many bytes', async () => {
    const values = { 'nodes/a': {}, 'nodes/b': {}, 'nodes/c': {} };
    const few = await knowing(values, { limits: { cacheEntriesMax: 2 } });
    expect((await get(few, 'nodes/a')).status).toBe(503);
    expect((await get(few, 'nodes/b')).status).toBe(200);
    expect((await get(few, 'nodes/c')).status).toBe(200);
    await few.close();
    const small = await site.relay({ limits: { cacheBytesMax: 600 } });
    expect((await get(small, 'nodes/b')).status).toBe(503);
    expect((await get(small, 'nodes/c')).status).toBe(200);
  });

  test('of another cluster is not given', async () => {
    const before = await knowing({ 'nodes/a': {}, 'nodes/t': { ttl_ms: hourMs } });
    await before.close();
    const other = await Site.start({ clusterId: 'd'.repeat(32) });
    try {
      const relay = await other.relay({ stateDirectory: join(site.directory, 'state'), clock: site.machine });
      expect(await get(relay, 'nodes/a')).toMatchObject({ status: 404 });
      await other.away();
      await relay.connected(false);
      expect(await get(relay, 'nodes/a')).toMatchObject(unreachable);
      expect(await get(relay, 'nodes/t')).toMatchObject(unreachable);
    } finally {
      await other.close();
    }
  });
});

test('no sensitive value is ever among what is cached on disk', async () => {
  const relay = await knowing({ 'nodes/a': {}, 'nodes/s': { sensitive: true } });
  await relay.close();
  const state = join(site.directory, 'state');
  const onDisk = readdirSync(state)
    .map((name) => readFileSync(join(state, name), 'latin1'))
    .join('\n');
  expect(onDisk).toContain('cache/nodes/a');
  expect(onDisk).not.toContain('cache/nodes/s');
});

describe('a key that is followed', () => {
  const prefetch = async (relay: RunningRelay, keys: readonly string[]): Promise<void> => {
    expect(await relay.post('/v1/prefetch', { keys })).toMatchObject({ status: 202 });
    const alternatives = { alternatives: keys.map((key) => [key]), timeout_ms: 0 };
    expect(await relay.post('/v1/available', alternatives)).toMatchObject({ status: 200 });
  };

  test('is awaited without asking a server, with its latest value', async () => {
    const relay = await site.relay();
    await relay.connected();
    await prefetch(relay, ['nodes/a', 'nodes/b']);
    const other = site.connect();
    await other.resolve('nodes/a', 'one');
    await other.resolve('nodes/a', 'two', { supersede: true });
    await eventually('it has come', async () => {
      const { status, body } = await awaited(relay, 'nodes/a');
      return status === 200 && JSON.stringify(body).includes('"two"');
    });
    expect(await awaited(relay, 'nodes/a')).toMatchObject({
      body: { from: 'cache', futures: [{ generation: 2 }] },
    });
    // Of the next generation there is nothing yet.
    const later = relay.post('/v1/await', { keys: ['nodes/a'], least_generation: 3 });
    await other.resolve('nodes/a', 'three', { supersede: true });
    expect(await later).toMatchObject({ body: { futures: [{ generation: 3 }] } });
  });

  test('is not given any more when it was deleted, or has expired', async () => {
    const relay = await site.relay();
    await relay.connected();
    await prefetch(relay, ['nodes/a', 'nodes/t']);
    const other = site.connect();
    await other.resolve('nodes/a', 'one');
    await other.resolve('nodes/t', 'one', { ttlMs: hourMs });
    for (const key of ['nodes/a', 'nodes/t'])
      expect(await relay.post('/v1/await', { keys: [key] })).toMatchObject({ status: 200 });
    await other.delete('nodes/a');
    site.passes(hourMs);
    for (const key of ['nodes/a', 'nodes/t'])
      await eventually(`${key} has gone`, async () => (await awaited(relay, key)).status === 408);
  });

  test('is not given from an older time of the cache when it has gone meanwhile', async () => {
    const relay = await site.relay();
    await relay.connected();
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    await get(relay, 'nodes/a');
    await relay.close();
    await site.connect().delete('nodes/a');
    const next = await site.relay();
    await next.connected();
    await prefetch(next, ['nodes/a']);
    expect(await awaited(next, 'nodes/a')).toMatchObject({ status: 408 });
    const available = await next.post('/v1/available', { alternatives: [['nodes/a']], timeout_ms: 0 });
    expect(available.body).toEqual({ available: [], rejected: [] });
  });

  test('is followed again after the connection was lost, and nothing older than the loss is given meanwhile', async () => {
    const relay = await site.relay();
    await relay.connected();
    await prefetch(relay, ['nodes/a']);
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    expect(await relay.post('/v1/await', { keys: ['nodes/a'] })).toMatchObject({ status: 200 });
    await site.away();
    await relay.connected(false);
    expect(await awaited(relay, 'nodes/a')).toMatchObject({
      body: { from: 'cache', futures: [{ value: 'one' }] },
    });
    await site.back();
    const other = site.connect();
    await other.resolve('nodes/a', 'two', { supersede: true });
    await relay.connected();
    // Whether it has caught up or asks the servers: it is the latest.
    expect(await relay.post('/v1/await', { keys: ['nodes/a'] })).toMatchObject({
      body: { futures: [{ value: 'two' }] },
    });
    await eventually(
      'it is followed again',
      async () => 'from' in ((await awaited(relay, 'nodes/a')).body as object),
    );
  });

  test('that must not be subscribed is awaited, and one that must not even be awaited is said to be', async () => {
    const relay = await site.relay();
    await relay.connected();
    const alternatives = [['nodes/a'], ['awaited/a'], ['other/a']];
    const available = await relay.post('/v1/available', { alternatives, timeout_ms: 0 });
    expect(available).toMatchObject({ body: { available: [2], rejected: [] } });
    expect(await relay.post('/v1/await', { keys: ['other/a'] })).toMatchObject({ status: 403 });
    await relay.post('/v1/resolve', { key: 'awaited/a', value: 'one' });
    const later = await relay.post('/v1/available', { alternatives: [['awaited/a']] });
    expect(later).toMatchObject({ body: { available: [0] } });
  });

  test('makes room for others when there are too many', async () => {
    const relay = await site.relay({ limits: { followedKeysMax: 3 } });
    await relay.connected();
    await prefetch(relay, ['nodes/a', 'nodes/b']);
    await prefetch(relay, ['nodes/c', 'nodes/d']);
    expect((await relay.ask('/v1/status')).body).toMatchObject({ prefetched: 2 });
    await eventually('one subscription is left', () => site.server.status().subscriptions === 1);
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    await relay.post('/v1/resolve', { key: 'nodes/c', value: 'one' });
    expect((await relay.post('/v1/await', { keys: ['nodes/a'] })).body).not.toHaveProperty('from');
    await eventually(
      'the other is followed',
      async () => 'from' in ((await awaited(relay, 'nodes/c')).body as object),
    );
  });
});

describe('what is available', () => {
  test('are the alternatives whose await would end at once', async () => {
    const relay = await site.relay();
    await relay.connected();
    const alternatives = [['nodes/a'], ['nodes/b', 'nodes/c'], ['nodes/d', 'nodes/e'], ['nodes/f']];
    expect(await relay.post('/v1/available', { alternatives, timeout_ms: 0 })).toMatchObject({
      status: 200,
      body: { available: [], rejected: [] },
    });
    const waiting = relay.post('/v1/available', { alternatives });
    await relay.post('/v1/resolve', { key: 'nodes/b', value: '1' });
    await relay.post('/v1/resolve', { key: 'nodes/c', value: '1' });
    expect(await waiting).toMatchObject({ body: { available: [1], rejected: [] } });
    await relay.post('/v1/reject', { key: 'nodes/e', code: 'NO', message: 'why' });
    const rejected = {
      index: 2,
      key: 'nodes/e',
      generation: 1,
      code: 'NO',
      message: 'why',
      producer: 'agents:web1',
    };
    await eventually('the rejection has come', async () => {
      const { body } = await relay.post('/v1/available', { alternatives, timeout_ms: 0 });
      return JSON.stringify(body) === JSON.stringify({ available: [1, 2], rejected: [rejected] });
    });
  });

  test('are none when the time is over', async () => {
    const relay = await site.relay();
    await relay.connected();
    const startMs = performance.now();
    const reply = await relay.post('/v1/available', { alternatives: [['nodes/a']], timeout_ms: 1200 });
    expect(reply).toMatchObject({ status: 200, body: { available: [], rejected: [] } });
    expect(performance.now() - startMs).toBeGreaterThan(1100);
  });

  test('are waited for as long as the caller says, be it years', async () => {
    const relay = await site.relay();
    await relay.connected();
    const waiting = relay.post('/v1/available', { alternatives: [['nodes/a']], timeout_ms: 1e11 });
    await eventually('it is followed', () => site.server.status().subscriptions === 1);
    await relay.post('/v1/resolve', { key: 'nodes/a', value: 'one', timeout_ms: 1e11 });
    expect(await waiting).toMatchObject({ status: 200, body: { available: [0] } });
  });

  test('are those with fresh values while no server can be reached', async () => {
    const relay = await knowing({ 'nodes/a': {}, 'nodes/t': { ttl_ms: hourMs } });
    const ask = async () =>
      (await relay.post('/v1/available', { alternatives: [['nodes/a'], ['nodes/t']], timeout_ms: 0 })).body;
    expect(await ask()).toMatchObject({ available: [0, 1] });
    site.machine.aheadMs += hourMs;
    expect(await ask()).toMatchObject({ available: [0] });
  });
});

describe('the estimate of cluster time', () => {
  property.prop([
    fc.integer({ min: 0, max: 1e9 }),
    fc.array(
      fc.record({
        passedMs: fc.integer({ min: 0, max: 1e8 }),
        wallJumpMs: fc.integer({ min: -1e9, max: 1e9 }),
        driftPerMille: fc.float({ min: Math.fround(-1), max: 1, noNaN: true }),
      }),
      { maxLength: 8 },
    ),
  ])('is never before what it is in the cluster, whatever the wall clock does', (answerMs, steps) => {
    const machine = {
      bootId: 'b',
      ms: 5_000,
      wall: 1e12,
      sinceBootMs: () => machine.ms,
      wallMs: () => machine.wall,
    };
    const clock = new ClusterClock(machine);
    expect(clock.latestMs()).toBeUndefined();
    const asked = clock.moment();
    // The question is on its way, then the server says what time it is, then the answer is.
    let clusterMs = 2e12;
    machine.ms += answerMs;
    clock.told(clusterMs, asked);
    for (const { passedMs, wallJumpMs, driftPerMille } of steps) {
      machine.ms += passedMs;
      machine.wall += passedMs + wallJumpMs;
      clusterMs += passedMs * (1 + driftPerMille / 1000);
      expect(clock.latestMs()).toBeGreaterThanOrEqual(clusterMs);
    }
  });

  test('is not known after a reboot, nor when the uptime has begun anew', () => {
    const machine = new Machine();
    const clock = new ClusterClock(machine);
    clock.told(1000, clock.moment());
    expect(clock.latestMs()).toBeGreaterThan(999);
    machine.aheadMs -= 1_000;
    expect(clock.latestMs()).toBeUndefined();
    machine.aheadMs += 2_000;
    expect(clock.latestMs()).toBeGreaterThan(1999);
    machine.bootId = 'another';
    expect(clock.latestMs()).toBeUndefined();
    expect(clock.isFresh(undefined)).toBe(true);
    expect(clock.isFresh(1e15)).toBe(false);
  });
});
