import { cpSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Client } from '../../src/client/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { StateDirectory } from '../../src/relay/state-directory.ts';
import { Site, eventually } from './support/site.ts';
import type { RunningRelay } from './support/site.ts';

let site: Site;

beforeEach(async () => {
  site = await Site.start();
});
afterEach(() => site.close());

const hourMs = 3_600_000;

const queue = async (
  relay: RunningRelay,
  value: string,
  key = `nodes/${value}`,
  more: object = {},
): Promise<number> => {
  const { status, body } = await relay.post('/v1/resolve', { key, value, wait: 'queued', ...more });
  expect({ status, body }).toMatchObject({ status: 202 });
  return (body as { queued: { id: number } }).queued.id;
};

const drained = (relay: RunningRelay): Promise<void> =>
  eventually('all that was queued has been sent', async () => (await relay.status()).queue.entries === 0);

const outcome = async (relay: RunningRelay, id: number): Promise<unknown> =>
  (await relay.ask(`/v1/queue/${id}`)).body;

const values = async (
  relay: RunningRelay,
): Promise<(readonly [key: string, revision: number, generation: number])[]> => {
  const { body } = await relay.ask('/v1/futures?pattern=nodes/**');
  const { futures } = body as { futures: { key: string; revision: number; generation: number }[] };
  return futures.map(({ key, revision, generation }) => [key, revision, generation]);
};

/** A relay that had its first connection, and has none any more. */
const offlineRelay = async (options: Parameters<Site['relay']>[0] = {}): Promise<RunningRelay> => {
  const relay = await site.relay(options);
  await relay.connected();
  await site.away();
  await relay.connected(false);
  return relay;
};

test('a write is answered when it is on disk, and not before', async () => {
  const relay = await offlineRelay();
  let onDisk = (): void => undefined;
  const disk = new Promise<void>((resolve) => (onDisk = resolve));
  const descriptor = Object.getOwnPropertyDescriptor(StateDirectory.prototype, 'synced');
  const synced = descriptor?.value as (this: StateDirectory) => Promise<void>;
  const asked = vi.spyOn(StateDirectory.prototype, 'synced').mockImplementation(async function (
    this: StateDirectory,
  ) {
    await disk;
    await synced.call(this);
  });
  let answered = false;
  const queued = queue(relay, 'a').then((id) => {
    answered = true;
    return id;
  });
  await eventually('the disk is asked', () => asked.mock.calls.length === 1);
  // A request that came later has been answered long since.
  await relay.status();
  expect(answered).toBe(false);
  onDisk();
  expect(await queued).toBe(1);
  asked.mockRestore();
});

test('what is on disk was synced, if anybody waited for that', async () => {
  const writes: unknown[] = [];
  const state = await StateDirectory.open(join(site.directory, 'other'), (error) => {
    throw error;
  });
  const batches = vi.spyOn(Level.prototype, 'batch').mockImplementation(function (this: unknown) {
    const operations: unknown[] = [];
    const batch = {
      put: (...put: unknown[]) => operations.push(put),
      del: (...removed: unknown[]) => operations.push(removed),
      write: (options: unknown) => Promise.resolve(writes.push([operations, options])),
    };
    return batch as never;
  });
  state.put('a', 1);
  await state.synced();
  state.put('b', 2);
  state.put('c', 3);
  state.remove('c');
  await state.close();
  batches.mockRestore();
  expect(writes).toEqual([
    [[['a', '1']], { sync: true }],
    [[['b', '2'], ['c']], { sync: false }],
  ]);
});

describe('a write that was accepted while no server could be reached', () => {
  test('is sent when one is back: all of them in their order, each once', async () => {
    const relay = await offlineRelay();
    const ids = [];
    for (let i = 0; i < 20; i += 1) ids.push(await queue(relay, `k${String(i).padStart(2, '0')}`));
    expect(ids).toEqual(Array.from({ length: 20 }, (_, at) => at + 1));
    expect((await relay.ask('/v1/queue')).body).toMatchObject({
      entries: ids.map((id) => ({ id, attempts: 0 })),
    });
    await site.back();
    await drained(relay);
    expect(await values(relay)).toEqual(
      ids.map((id) => [`nodes/k${String(id - 1).padStart(2, '0')}`, id, 1]),
    );
    expect(await outcome(relay, 1)).toMatchObject({
      state: 'committed',
      result: { generation: 1, unchanged: false },
    });
  });

  test('is answered when it is committed, if its sender waits for that', async () => {
    const relay = await offlineRelay();
    const committed = relay.post('/v1/resolve', { key: 'nodes/a', value: 'one' });
    await eventually('it is queued', async () => (await relay.status()).queue.entries === 1);
    await site.back();
    expect(await committed).toMatchObject({ status: 200, body: { result: { key: 'nodes/a', revision: 1 } } });
  });

  test('is still sent when its sender has waited long enough, and knows its number', async () => {
    const relay = await offlineRelay();
    const reply = await relay.post('/v1/reject', { key: 'nodes/a', code: 'NO', timeout_ms: 5 });
    expect(reply).toMatchObject({
      status: 408,
      body: { error: { code: 'TIMED_OUT', details: { queued: 1 } } },
    });
    expect(await outcome(relay, 1)).toEqual({ state: 'queued' });
    await site.back();
    await drained(relay);
    expect(await outcome(relay, 1)).toMatchObject({ state: 'committed', result: { state: 'rejected' } });
  });

  test('is sent by the next process, in its order with the next ones, under numbers that go on', async () => {
    const relay = await offlineRelay();
    await queue(relay, 'a');
    await queue(relay, 'b');
    await relay.close();
    const next = await site.relay();
    expect(await queue(next, 'c')).toBe(3);
    await next.close();
    await site.back();
    const last = await site.relay();
    await drained(last);
    expect(await values(last)).toEqual([
      ['nodes/a', 1, 1],
      ['nodes/b', 2, 1],
      ['nodes/c', 3, 1],
    ]);
    expect(await outcome(last, 2)).toMatchObject({ state: 'committed' });
    expect(await last.post('/v1/resolve', { key: 'nodes/d', value: 'd' })).toMatchObject({ status: 200 });
    expect(await outcome(last, 4)).toMatchObject({ state: 'committed' });
  });

  test('is sent also when the session of before has ended long since', async () => {
    const relay = await offlineRelay();
    await queue(relay, 'a');
    await relay.close();
    site.passes(24 * hourMs);
    const next = await site.relay();
    await queue(next, 'b');
    await site.back();
    await drained(next);
    expect((await values(next)).map(([key]) => key)).toEqual(['nodes/a', 'nodes/b']);
  });

  test('has no more of its TTL than is left', async () => {
    const relay = await offlineRelay();
    await queue(relay, 'long', 'nodes/long', { ttl_ms: 2 * hourMs });
    await queue(relay, 'short', 'nodes/short', { ttl_ms: hourMs });
    site.passes(hourMs + 1000);
    await site.back();
    await drained(relay);
    const { body } = await relay.ask('/v1/futures/nodes/long');
    const { changedAt, expiresAt } = (body as { future: { changedAt: string; expiresAt: string } }).future;
    const leftMs = Date.parse(expiresAt) - Date.parse(changedAt);
    expect(leftMs).toBeGreaterThan(hourMs - 30_000);
    expect(leftMs).toBeLessThan(hourMs);
    await eventually('the short one has expired', async () => {
      const { body: short } = await relay.ask('/v1/futures/nodes/short');
      return (short as { future: { state: string } }).future.state === 'expired';
    });
  });

  test('does not hold up the others when the servers refuse it, and says why', async () => {
    const relay = await offlineRelay();
    await queue(relay, 'x', 'other/x');
    await queue(relay, 'a');
    await site.back();
    await drained(relay);
    expect(await outcome(relay, 1)).toMatchObject({ state: 'failed', error: { code: 'PERMISSION_DENIED' } });
    expect(await outcome(relay, 2)).toMatchObject({ state: 'committed' });
  });

  test('is refused when the queue is full, by number or by bytes, and none before it is dropped', async () => {
    const full = { status: 429, body: { error: { code: 'QUEUE_FULL', retryable: true } } };
    const relay = await offlineRelay({ limits: { queueEntriesMax: 3, queueBytesMax: 5_000 } });
    await queue(relay, 'a');
    expect(
      await relay.post('/v1/resolve', { key: 'nodes/x', value: 'x'.repeat(5_000), wait: 'queued' }),
    ).toMatchObject(full);
    await queue(relay, 'b');
    await queue(relay, 'c');
    expect(await relay.post('/v1/resolve', { key: 'nodes/d', value: 'd', wait: 'queued' })).toMatchObject(
      full,
    );
    await site.back();
    await drained(relay);
    expect((await values(relay)).map(([key]) => key)).toEqual(['nodes/a', 'nodes/b', 'nodes/c']);
    expect(await relay.post('/v1/resolve', { key: 'nodes/d', value: 'd', wait: 'queued' })).toMatchObject({
      status: 200,
    });
  });

  test('of the number that may wait, as many are accepted at once as fit', async () => {
    const relay = await offlineRelay({ limits: { queueEntriesMax: 5 } });
    const replies = await Promise.all(
      Array.from({ length: 12 }, (_, at) =>
        relay.post('/v1/resolve', { key: `nodes/k${at}`, value: 'v', wait: 'queued' }),
      ),
    );
    expect(replies.filter(({ status }) => status === 202)).toHaveLength(5);
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(7);
    await site.back();
    await drained(relay);
    expect(await values(relay)).toHaveLength(5);
  });

  test('has its outcome remembered, and the oldest outcomes make room', async () => {
    const relay = await offlineRelay({ limits: { outcomesMax: 2 } });
    for (const value of ['a', 'b', 'c']) await queue(relay, value);
    await site.back();
    await drained(relay);
    expect((await relay.ask('/v1/queue/1')).status).toBe(404);
    await relay.close();
    const next = await site.relay({ limits: { outcomesMax: 2 } });
    expect((await next.ask('/v1/queue/1')).status).toBe(404);
    expect(await outcome(next, 3)).toMatchObject({ state: 'committed', result: { key: 'nodes/c' } });
  });
});

/**
 * What a process that was killed leaves: the directory as it was just when a write was given to the client, which then
 * sends it.
 */
const killedWhileSending = async (value: string, before: object = {}): Promise<string> => {
  const left = join(site.directory, 'left');
  const relay = await site.relay({
    makeClient: (options) => {
      const client = site.connect(options);
      const batch = client.batch.bind(client);
      client.batch = (...parameters: Parameters<Client['batch']>) => {
        cpSync(join(site.directory, 'state'), left, { recursive: true });
        return batch(...parameters);
      };
      return client;
    },
  });
  await relay.connected();
  const body = { key: 'nodes/a', value, supersede: true, ...before };
  expect(await relay.post('/v1/resolve', body)).toMatchObject({ status: 200 });
  await relay.close();
  return left;
};

describe('a write that was sent and not known to be answered when the process was killed', () => {
  test('is sent again and happens once: the servers give the answer that they gave before', async () => {
    const left = await killedWhileSending('one');
    const next = await site.relay({ stateDirectory: left });
    await drained(next);
    // A second one would have opened the next generation.
    expect(await values(next)).toEqual([['nodes/a', 1, 1]]);
    expect(await outcome(next, 1)).toMatchObject({
      state: 'committed',
      result: { revision: 1, unchanged: false },
    });
  });

  test('is known by its effect when the session has ended since', async () => {
    const left = await killedWhileSending('one');
    await site.sessionsEnd();
    const next = await site.relay({ stateDirectory: left });
    await drained(next);
    expect(await values(next)).toEqual([['nodes/a', 1, 1]]);
    expect(await outcome(next, 1)).toMatchObject({
      state: 'committed',
      result: { generation: 1, unchanged: true },
    });
  });

  test('is known by its effect when policies that have changed since do not let it through again', async () => {
    const left = await killedWhileSending('one');
    const next = await site.relay({
      stateDirectory: left,
      makeClient: (options) => {
        const client = site.connect(options);
        client.batch = () =>
          Promise.reject(new FuturestoreError('PERMISSION_DENIED', 'nodes/a is not yours any more'));
        return client;
      },
    });
    await drained(next);
    expect(await outcome(next, 1)).toMatchObject({
      state: 'committed',
      result: { generation: 1, unchanged: true },
    });
  });

  test('is not sent again when nobody can tell, and that is its outcome', async () => {
    const left = await killedWhileSending('one');
    const other = site.connect();
    await other.resolve('nodes/a', 'another', { supersede: true });
    await other.close();
    await site.sessionsEnd();
    const next = await site.relay({ stateDirectory: left });
    await drained(next);
    expect(await values(next)).toEqual([['nodes/a', 2, 2]]);
    expect(await outcome(next, 1)).toMatchObject({ state: 'failed', error: { code: 'OUTCOME_UNKNOWN' } });
  });
});

describe('a future that was declared through the relay', () => {
  test('outlives a restart of it, and is lost when the relay is away for longer than its grace', async () => {
    const relay = await site.relay();
    await relay.connected();
    expect(await relay.post('/v1/declare', { key: 'nodes/a' })).toMatchObject({ status: 200 });
    await relay.close();
    site.passes(30_000);
    const next = await site.relay();
    await next.connected();
    expect((await next.ask('/v1/futures/nodes/a')).body).toMatchObject({ future: { state: 'pending' } });
    await next.close();
    const other = site.connect();
    await site.sessionsEnd();
    await expect(other.await('nodes/a', { timeoutMs: 5_000 })).rejects.toMatchObject({
      rejection: { code: 'PRODUCER_LOST' },
    });
  });
});

test('a sensitive value is on disk only while it waits to be sent, and no secret is in a name or log', async () => {
  const relay = await offlineRelay();
  await queue(relay, 's3cret', 'nodes/token', { sensitive: true });
  const encoded = Buffer.from('s3cret').toString('base64');
  const onDisk = (): string =>
    readdirSync(join(site.directory, 'state'))
      .map((name) => readFileSync(join(site.directory, 'state', name), 'latin1'))
      .join('\n');
  expect(onDisk()).toContain(encoded);
  expect(JSON.stringify((await relay.ask('/v1/queue')).body)).not.toContain('s3cret');
});
