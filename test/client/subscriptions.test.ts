import { describe, expect, test } from 'vitest';
import type { Subscription, SubscriptionEvent } from '../../src/client/index.ts';
import type { Change } from '../../src/protocol/index.ts';
import { World, change, failed, watch } from './support/world.ts';
import type { Server } from './support/world.ts';

const position = (revision: number, clusterId = 'c1', epoch = 1) => ({ clusterId, epoch, revision });

/** Takes all that is there. */
async function drain(world: World, subscription: Subscription): Promise<SubscriptionEvent[]> {
  const events: SubscriptionEvent[] = [];
  for (;;) {
    const next = watch(subscription.next());
    await world.settle();
    if (next.state === 'rejected') throw next.error;
    if (next.value === undefined || next.value.done === true) {
      // The pending one stays behind; the next event goes to it.
      return events;
    }
    events.push(next.value.value);
  }
}

/** Gathers events as they come. */
function follow(subscription: Subscription): { events: SubscriptionEvent[]; end: unknown } {
  const followed: { events: SubscriptionEvent[]; end: unknown } = { events: [], end: undefined };
  void (async () => {
    try {
      for await (const event of subscription) followed.events.push(event);
      followed.end = 'done';
    } catch (error) {
      followed.end = error;
    }
  })();
  return followed;
}

const shown = (events: readonly SubscriptionEvent[]): string[] =>
  events.map((event) =>
    event.kind === 'future' || event.kind === 'deleted'
      ? `${event.kind} ${event.key}@${String(event.revision)}`
      : `${event.kind}@${String(event.position.revision)}`,
  );

/** Accepts the subscriptions of the latest connection that are not accepted yet. */
function accept(server: Server, revision: number, reset = false, clusterId = 'c1'): number {
  const request = server.connection.of('subscribe').at(-1);
  if (request === undefined) throw new Error('nobody subscribed');
  server.connection.answer(request.id, {
    kind: 'subscribed',
    position: position(revision, clusterId),
    reset,
  });
  return request.id;
}

async function subscribed(
  options?: Parameters<ReturnType<World['client']>['subscribe']>[1],
): Promise<{ world: World; server: Server; subscription: Subscription; id: number }> {
  const world = new World();
  const server = world.server('wss://a');
  const subscription = world.client().subscribe(['k/**'], options);
  await world.settle();
  return { world, server, subscription, id: accept(server, 0) };
}

const deletion = (key: string, revision: number): Change => ({ kind: 'deleted', key, revision });

describe('a subscription', () => {
  test('gives changes in order, and caught_up once', async () => {
    const { world, server, subscription, id } = await subscribed();
    const followed = follow(subscription);
    server.connection.push({ subscription: id, changes: [change('k/a', 3), change('k/b', 4)], revision: 4 });
    server.connection.push({ subscription: id, changes: [deletion('k/c', 5)], revision: 5, caughtUp: true });
    server.connection.push({ subscription: id, changes: [change('k/a', 6)], revision: 6 });
    await world.settle();
    expect(shown(followed.events)).toEqual([
      'future k/a@3',
      'future k/b@4',
      'deleted k/c@5',
      'caught_up@5',
      'future k/a@6',
    ]);
    expect(subscription.position).toEqual(position(6));
  });

  test('continues after a reconnect from where it stands, and says nothing twice', async () => {
    const { world, server, subscription, id } = await subscribed();
    const followed = follow(subscription);
    server.connection.push({ subscription: id, changes: [change('k/a', 3)], revision: 3, caughtUp: true });
    await world.settle();
    server.connection.sendFrame({ revision: 20 });
    server.connection.break();
    await world.advance(1_000);
    expect(server.connection.of('subscribe')[0]?.body.start).toEqual({
      kind: 'after',
      position: position(20),
    });
    const again = accept(server, 20);
    server.connection.push({
      subscription: again,
      changes: [change('k/b', 21)],
      revision: 21,
      caughtUp: true,
    });
    await world.settle();
    expect(shown(followed.events)).toEqual(['future k/a@3', 'caught_up@3', 'future k/b@21']);
  });

  test('a heartbeat counts only for what has caught up on this connection', async () => {
    const { world, server, subscription, id } = await subscribed();
    follow(subscription);
    server.connection.push({ subscription: id, changes: [change('k/a', 3)], revision: 3 });
    server.connection.sendFrame({ revision: 20 });
    await world.settle();
    expect(subscription.position).toEqual(position(3));
    server.connection.break();
    await world.advance(1_000);
    server.connection.sendFrame({ revision: 30 });
    accept(server, 3);
    server.connection.sendFrame({ revision: 31 });
    server.connection.break();
    await world.advance(1_000);
    expect(server.connection.of('subscribe')[0]?.body.start).toEqual({
      kind: 'after',
      position: position(3),
    });
  });

  test('that was interrupted before its first change starts anew', async () => {
    const { world, server } = await subscribed();
    server.connection.break();
    await world.advance(1_000);
    expect(server.connection.of('subscribe')[0]?.body.start).toEqual({ kind: 'present_state' });
  });

  test('pitfall 41: a position that another cluster cannot continue gives reset, then the present state', async () => {
    const { world, server, subscription, id } = await subscribed({ from: position(900, 'other', 7) });
    expect(server.connection.of('subscribe')[0]?.body.start).toEqual({
      kind: 'after',
      position: position(900, 'other', 7),
    });
    const followed = follow(subscription);
    server.connection.push({ subscription: id, changes: [change('k/old', 2)], revision: 2 });
    await world.settle();
    server.connection.break();
    await world.advance(1_000);
    const again = accept(server, 50, true, 'c2');
    server.connection.push({ subscription: again, changes: [change('k/a', 7)], revision: 7 });
    server.connection.push({ subscription: again, changes: [], revision: 50, caughtUp: true });
    await world.settle();
    expect(shown(followed.events)).toEqual(['future k/old@2', 'reset@0', 'future k/a@7', 'caught_up@50']);
    expect(subscription.position).toEqual(position(50, 'c2'));
  });

  test('pitfall 41: an untaken reset drops what it makes wrong, and is not hidden by the position', async () => {
    const { world, server, subscription, id } = await subscribed({ from: position(4) });
    server.connection.push({ subscription: id, changes: [change('k/a', 5), change('k/b', 6)], revision: 6 });
    await world.settle();
    server.connection.break();
    await world.advance(1_000);
    const again = accept(server, 3, true, 'c2');
    server.connection.push({ subscription: again, changes: [change('k/z', 2)], revision: 3, caughtUp: true });
    await world.settle();
    expect(subscription.position?.clusterId).toBe('c1');
    expect(shown(await drain(world, subscription))).toEqual(['reset@1', 'future k/z@2', 'caught_up@3']);
  });

  test('from "new" asks for what comes', async () => {
    const { server } = await subscribed({ from: 'new' });
    expect(server.connection.of('subscribe')[0]?.body.start).toEqual({ kind: 'only_new' });
  });
});

describe('pitfall 45: every end of a subscription is told', () => {
  test('refused', async () => {
    const world = new World();
    world.server('wss://a').handle = () => failed('PERMISSION_DENIED', 'subscribe k/** is not allowed');
    const followed = follow(world.client().subscribe('k/**'));
    await world.settle();
    expect(followed.end).toMatchObject({ code: 'PERMISSION_DENIED' });
  });

  test('ended by the server, after what came before', async () => {
    const { world, server, subscription, id } = await subscribed();
    server.connection.push({ subscription: id, changes: [change('k/a', 3)], revision: 3 });
    server.connection.push({
      subscription: id,
      revision: 3,
      ended: { code: 'PERMISSION_DENIED', message: 'revoked' },
    });
    await world.settle();
    const followed = follow(subscription);
    await world.settle();
    expect(shown(followed.events)).toEqual(['future k/a@3']);
    expect(followed.end).toMatchObject({ code: 'PERMISSION_DENIED', message: 'revoked' });
    await world.advance(60_000);
    expect(server.connections.flatMap((connection) => connection.of('subscribe'))).toHaveLength(1);
    await expect(subscription.next()).resolves.toEqual({ done: true, value: undefined });
  });

  test('by its signal, and the server is told', async () => {
    const controller = new AbortController();
    const { world, server, subscription, id } = await subscribed({ signal: controller.signal });
    const followed = follow(subscription);
    await world.settle();
    controller.abort();
    await world.settle();
    expect(followed.end).toMatchObject({ code: 'CANCELLED' });
    expect(server.connection.of('cancel')[0]?.body.request).toBe(id);
  });

  test('but what may pass is tried again from where it stood', async () => {
    const { world, server, subscription, id } = await subscribed();
    const followed = follow(subscription);
    server.connection.push({ subscription: id, changes: [change('k/a', 3)], revision: 3 });
    server.connection.push({
      subscription: id,
      revision: 3,
      ended: { code: 'UNAVAILABLE', message: 'moving' },
    });
    await world.advance(1_000);
    expect(followed.end).toBeUndefined();
    expect(server.connection.of('subscribe').map(({ body }) => body.start)).toEqual([
      { kind: 'present_state' },
      { kind: 'after', position: position(3) },
    ]);
  });

  test('but what may pass later is not asked again before', async () => {
    const { world, server, subscription, id } = await subscribed();
    follow(subscription);
    const ended = { code: 'RATE_LIMITED', message: 'too many', retryAfterMs: 5_000 } as const;
    server.connection.push({ subscription: id, revision: 3, ended });
    await world.advance(4_900);
    expect(server.connection.of('subscribe')).toHaveLength(1);
    await world.advance(200);
    expect(server.connection.of('subscribe')).toHaveLength(2);
  });
});

test('leaving the loop cancels it at the server', async () => {
  const { world, server, subscription, id } = await subscribed();
  const left = (async () => {
    for await (const event of subscription) if (event.kind === 'future') break;
  })();
  server.connection.push({ subscription: id, changes: [change('k/a', 3)], revision: 3 });
  await world.settle();
  await left;
  await world.settle();
  expect(server.connection.of('cancel')[0]?.body.request).toBe(id);
  server.connection.break();
  await world.advance(1_000);
  expect(server.connection.of('subscribe')).toEqual([]);
});

test('a reader that takes nothing costs bounded memory: the server is stopped, and continues when it reads', async () => {
  const { world, server, subscription, id } = await subscribed();
  for (let index = 1; index <= 20_000; index += 1) {
    server.connection.push({
      subscription: id,
      changes: [change(`k/${String(index)}`, index)],
      revision: index,
    });
  }
  await world.settle();
  expect(server.connection.of('cancel').map(({ body }) => body.request)).toEqual([id]);
  const taken = new Set<string>();
  const followed = follow(subscription);
  await world.settle();
  await world.settle();
  const [, second] = server.connection.of('subscribe');
  expect(second?.body.start).toEqual({ kind: 'after', position: position(16_385) });
  const again = accept(server, 16_385);
  for (let index = 16_386; index <= 20_000; index += 1) {
    server.connection.push({
      subscription: again,
      changes: [change(`k/${String(index)}`, index)],
      revision: index,
    });
  }
  server.connection.push({ subscription: again, revision: 20_000, caughtUp: true });
  for (let round = 0; round < 5; round += 1) await world.settle();
  for (const event of followed.events) if (event.kind === 'future') taken.add(event.key);
  expect(taken.size).toBe(20_000);
  expect(followed.events).toHaveLength(20_001);
  expect(followed.events.at(-1)?.kind).toBe('caught_up');
});

test('a slow reader of a state from which it could not be continued arrives at caught_up all the same', async () => {
  const { world, server, subscription, id } = await subscribed();
  const count = 80;
  const text = 'v'.repeat(512 * 1024);
  const send = (to: number): void => {
    for (let index = 1; index <= count; index += 1) {
      const whole = change(`k/${String(index)}`, index, text);
      const caughtUp = index === count;
      server.connection.push({ subscription: to, changes: [whole], revision: index, caughtUp });
    }
  };
  send(id);
  await world.settle();
  const taken: SubscriptionEvent[] = [];
  let answered = 1;
  while (taken.length < 10 * count && taken.at(-1)?.kind !== 'caught_up') {
    const next = await subscription.next();
    if (next.done === true) break;
    taken.push(next.value);
    await world.settle();
    if (server.connection.of('subscribe').length === answered) continue;
    answered += 1;
    const start = server.connection.of('subscribe').at(-1)?.body.start;
    const at = start?.kind === 'after' ? start.position.revision : 0;
    // Deletions before the last change are forgotten.
    if (at < count) send(accept(server, 0, true));
    else {
      const again = accept(server, count);
      server.connection.push({ subscription: again, revision: count, caughtUp: true });
    }
  }
  expect(taken.at(-1)?.kind).toBe('caught_up');
  const last = taken.findLastIndex(({ kind }) => kind === 'reset');
  expect(taken.slice(last + 1)).toHaveLength(count + 1);
  expect(taken.filter(({ kind }) => kind === 'reset')).toHaveLength(1);
});
