import { describe, expect, test } from 'vitest';
import type { ClientOptions } from '../../src/client/index.ts';
import { resolveOperation } from '../../src/client/index.ts';
import type { AnswerBody, Request } from '../../src/protocol/index.ts';
import { World, change, failed, watch, written } from './support/world.ts';

const opened: AnswerBody = { kind: 'session_opened' };

const serves = ({ body }: Request): AnswerBody | undefined => {
  if (body.kind === 'open_session') return opened;
  return body.kind === 'write' ? written(body.sequence) : undefined;
};

const first = '01'.repeat(16);
const second = '02'.repeat(16);
const earlier = 'ab'.repeat(16);

/** A session that outlives the process, and what was told of it. */
const lasting = (id?: string): { options: Partial<ClientOptions>; told: string[] } => {
  const told: string[] = [];
  const session = {
    ...(id === undefined ? {} : { id }),
    opened: (of: string) => told.push(`opened ${of}`),
    lost: (of: string, why: { readonly code: string }) => told.push(`lost ${of} ${why.code}`),
  };
  return { options: { session }, told };
};

const operation = resolveOperation('a', 'x');

describe('a session that outlives its process', () => {
  test('is opened with the connection, before any write, and not ended with the client', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = serves;
    const { options, told } = lasting();
    const client = world.client(options);
    await world.settle();
    expect(told).toEqual([`opened ${first}`]);
    expect(server.connection.of('open_session')[0]?.body).toMatchObject({ session: first, resume: false });
    const closed = watch(client.close());
    await world.advance(5_000);
    expect(closed.state).toBe('fulfilled');
    expect(server.connection.of('close_session')).toEqual([]);
  });

  test('is taken up by the next one, and its writes have the names that they were given', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = serves;
    const { options, told } = lasting(earlier);
    const client = world.client(options);
    const write = watch(client.batch([operation], { name: { session: earlier, sequence: 41 } }));
    const next = watch(client.batch([operation], { name: { session: earlier, sequence: 50 } }));
    await world.settle();
    await world.settle();
    expect(told).toEqual([`opened ${earlier}`]);
    expect(server.connection.of('open_session')[0]?.body).toMatchObject({ session: earlier, resume: true });
    expect(server.connection.of('write').map(({ body }) => [body.sequence, body.answeredBelow])).toEqual([
      [41, 41],
      [50, 41],
    ]);
    expect([write.state, next.state]).toEqual(['fulfilled', 'fulfilled']);
    // One without a name goes behind them.
    watch(client.resolve('b', 'y'));
    await world.settle();
    expect(server.connection.of('write').at(-1)?.body).toMatchObject({ sequence: 51, answeredBelow: 51 });
  });

  test('gets a write again under its name also while a later one is unanswered', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = (request) =>
      request.body.kind === 'write' && request.body.sequence === 50 ? undefined : serves(request);
    const client = world.client(lasting(earlier).options);
    const later = watch(client.batch([operation], { name: { session: earlier, sequence: 50 } }));
    await world.settle();
    const again = watch(client.batch([operation], { name: { session: earlier, sequence: 41 } }));
    await world.settle();
    expect(again.state).toBe('fulfilled');
    expect(later.state).toBe('pending');
    const last = server.connection.of('write').at(-1)?.body;
    expect(last).toMatchObject({ sequence: 41, answeredBelow: 41 });
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 53])('takes no write under the number %d', async (sequence) => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = serves;
    const client = world.client(lasting(earlier).options);
    const write = watch(client.batch([operation], { name: { session: earlier, sequence } }));
    await world.settle();
    expect(write).toMatchObject({ state: 'rejected', error: { code: 'INVALID_ARGUMENT' } });
  });

  test('that has ended is replaced, and no write goes under another name than its own', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = (request) => {
      const { body } = request;
      if (body.kind === 'open_session' && body.resume) return failed('SESSION_EXPIRED');
      return serves(request);
    };
    const { options, told } = lasting(earlier);
    const client = world.client(options);
    const write = watch(client.batch([operation], { name: { session: earlier, sequence: 41 } }));
    await world.advance(100);
    expect(told).toEqual([`lost ${earlier} SESSION_EXPIRED`, `opened ${first}`]);
    expect(write).toMatchObject({ state: 'rejected', error: { code: 'SESSION_EXPIRED' } });
    expect(server.connection.of('write')).toEqual([]);
    const again = watch(client.batch([operation], { name: { session: first, sequence: 42 } }));
    await world.advance(100);
    expect(again.state).toBe('fulfilled');
  });

  test('that ends while a write is unanswered leaves its outcome unknown', async () => {
    const world = new World();
    const server = world.server('wss://a');
    let lives = true;
    server.handle = ({ body }) => {
      if (body.kind !== 'open_session') return undefined;
      return body.resume && !lives ? failed('SESSION_EXPIRED') : opened;
    };
    const { options, told } = lasting();
    const client = world.client(options);
    await world.settle();
    const write = watch(client.batch([operation], { name: { session: first, sequence: 1 } }));
    await world.settle();
    lives = false;
    server.connection.break();
    await world.advance(1_000);
    expect(write).toMatchObject({ state: 'rejected', error: { code: 'OUTCOME_UNKNOWN' } });
    expect(told).toEqual([`opened ${first}`, `lost ${first} SESSION_EXPIRED`, `opened ${second}`]);
  });

  test('that is refused is asked for again, with pauses', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = ({ body }) => (body.kind === 'open_session' ? failed('LIMIT_EXCEEDED') : undefined);
    const { options, told } = lasting();
    world.client(options);
    await world.advance(10_000);
    const tries = server.connection.of('open_session').length;
    expect(tries).toBeGreaterThan(3);
    expect(tries).toBeLessThan(40);
    expect(told).toHaveLength(tries);
    expect(told[0]).toBe(`lost ${first} LIMIT_EXCEEDED`);
  });
});

test('cluster time is what the server says', async () => {
  const world = new World();
  world.server('wss://a').handle = ({ body }) =>
    body.kind === 'clock' ? { kind: 'clock', clusterTimeMs: 1_700_000_000_000 } : undefined;
  const time = watch(world.client().clock());
  await world.settle();
  expect(time.value).toBe(1_700_000_000_000);
});

test('a subscription is current when its reader has all that the connected server has', async () => {
  const world = new World();
  const server = world.server('wss://a');
  const position = { clusterId: 'c1', epoch: 1, revision: 10 };
  server.handle = ({ body }) =>
    body.kind === 'subscribe' ? { kind: 'subscribed', position, reset: false } : undefined;
  const subscription = world.client().subscribe('**');
  await world.settle();
  expect(subscription.isCurrent).toBe(false);
  const { request } = subscription;
  server.connection.push({ subscription: request, revision: 10, changes: [change('a', 9)], caughtUp: true });
  await world.settle();
  expect(subscription.isCurrent).toBe(false);
  await subscription.next();
  expect(subscription.isCurrent).toBe(false);
  expect((await subscription.next()).value).toMatchObject({ kind: 'caught_up' });
  expect(subscription.isCurrent).toBe(true);
  server.connection.push({ subscription: request, revision: 11, changes: [change('a', 11)] });
  await world.settle();
  expect(subscription.isCurrent).toBe(false);
  await subscription.next();
  expect(subscription.isCurrent).toBe(true);
  server.connection.break();
  await world.advance(1_000);
  expect(subscription.isCurrent).toBe(false);
  server.connection.push({ subscription: subscription.request, revision: 11, caughtUp: true });
  await world.settle();
  expect(subscription.isCurrent).toBe(true);
  await subscription.return();
});
