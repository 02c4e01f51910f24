import { describe, expect, test } from 'vitest';
import type { AnswerBody, Request } from '../../src/protocol/index.ts';
import { World, failed, futureOf, watch } from './support/world.ts';

const got: AnswerBody = { kind: 'got', revision: 5, future: undefined };

describe('reads', () => {
  test('are sent again over the next connection, with the time that is left', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    const get = watch(client.get('a', { timeoutMs: 10_000 }));
    const waiting = watch(client.await('b'));
    await world.advance(4_000);
    server.connection.break();
    await world.advance(100);
    const [again] = server.connection.of('get');
    expect(again?.timeoutMs).toBeGreaterThan(5_800);
    expect(again?.timeoutMs).toBeLessThanOrEqual(6_000);
    expect(server.connection.of('await')[0]?.timeoutMs).toBeUndefined();
    server.connection.answer(again?.id ?? 0, got);
    await world.settle();
    expect(get).toMatchObject({ state: 'fulfilled', value: undefined });
    expect(waiting.state).toBe('pending');
  });

  test('that the cluster cannot serve are tried again within their timeout: a pause, no error', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = () => failed('UNAVAILABLE', 'no leader');
    const client = world.client();
    const served = watch(client.get('a', { timeoutMs: 20_000 }));
    const impatient = watch(client.get('b', { timeoutMs: 3_000 }));
    await world.advance(5_000);
    expect(served.state).toBe('pending');
    expect(impatient).toMatchObject({ state: 'rejected', error: { code: 'UNAVAILABLE' } });
    expect(String(impatient.error)).toContain('no leader');
    const tries = server.connection.of('get').length;
    expect(tries).toBeGreaterThan(5);
    expect(tries).toBeLessThan(40);
    server.handle = () => got;
    await world.advance(3_000);
    expect(served.state).toBe('fulfilled');
  });

  test('that the server refuses fail at once', async () => {
    const world = new World();
    world.server('wss://a').handle = () => failed('PERMISSION_DENIED', 'get a is not allowed');
    const get = watch(world.client().get('a'));
    await world.settle();
    expect(get).toMatchObject({ state: 'rejected', error: { code: 'PERMISSION_DENIED' } });
  });

  test('time out by the client itself, and the server is told', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client({ timeoutMs: 700 });
    const get = watch(client.get('a'));
    await world.advance(699);
    expect(get.state).toBe('pending');
    await world.advance(1);
    expect(get).toMatchObject({ state: 'rejected', error: { code: 'TIMED_OUT', mayHaveHappened: false } });
    const [sent] = server.connection.of('get');
    expect(server.connection.of('cancel').map(({ body }) => body.request)).toEqual([sent?.id]);
    // A late answer is nobody's.
    server.connection.answer(sent?.id ?? 0, got);
    await world.settle();
    expect(world.timerCount).toBe(1);
  });

  test('that never found a server say so, with the last problem', async () => {
    const world = new World();
    for (const endpoint of ['wss://a', 'wss://b', 'wss://c']) {
      world.server(endpoint).failure = { kind: 'unreachable', text: 'connect ECONNREFUSED 127.0.0.1:7421' };
    }
    const get = watch(world.client().get('a', { timeoutMs: 2_000 }));
    await world.advance(2_000);
    expect(get).toMatchObject({ state: 'rejected', error: { code: 'UNAVAILABLE' } });
    expect(String(get.error)).toMatch(/no server of 3 could be reached .*ECONNREFUSED 127.0.0.1:7421/);
  });

  test('end with their AbortSignal, in flight and before, and leave no listener', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    await world.settle();
    const controller = new AbortController();
    const { signal } = controller;
    let listeners = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners += 1;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners -= 1;
      remove(...args);
    };
    const served = watch(client.get('a', { signal }));
    const cancelled = watch(client.await('b', { signal }));
    await world.settle();
    server.connection.answer(server.connection.of('get')[0]?.id ?? 0, got);
    await world.settle();
    expect(served.state).toBe('fulfilled');
    expect(listeners).toBe(1);
    controller.abort(new Error('enough'));
    await world.settle();
    expect(cancelled).toMatchObject({
      state: 'rejected',
      error: { code: 'CANCELLED', cause: { message: 'enough' } },
    });
    expect(listeners).toBe(0);
    expect(server.connection.of('cancel')[0]?.body.request).toBe(server.connection.of('await')[0]?.id);
    await expect(client.get('c', { signal })).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  test('listAll follows the pages', async () => {
    const world = new World();
    world.server('wss://a').handle = (request: Request) => {
      if (request.body.kind !== 'list') return undefined;
      const { after } = request.body;
      if (after === '') return { kind: 'listed', revision: 9, futures: [futureOf('a/1', 1)], next: 'a/1' };
      return { kind: 'listed', revision: 9, futures: [futureOf('a/2', 2)], next: undefined };
    };
    const client = world.client();
    const keys: string[] = [];
    const all = (async () => {
      for await (const future of client.listAll('a/**', { limit: 1 })) keys.push(future.key);
    })();
    await world.settle();
    await world.settle();
    await world.settle();
    await all;
    expect(keys).toEqual(['a/1', 'a/2']);
  });
});

describe('await', () => {
  const answering = (body: AnswerBody): World => {
    const world = new World();
    world.server('wss://a').handle = (request) => (request.body.kind === 'await' ? body : undefined);
    return world;
  };

  test('of one key gives its future, of several theirs, of alternatives which one', async () => {
    const world = answering({
      kind: 'awaited',
      alternative: 1,
      futures: [futureOf('a', 1), futureOf('b', 2)],
    });
    const client = world.client();
    const one = watch(client.await('a'));
    const all = watch(client.await(['a', 'b']));
    const any = watch(client.await({ anyOf: ['x', ['a', 'b']] }, { leastGeneration: 3 }));
    await world.settle();
    expect(one.value?.key).toBe('a');
    expect(all.value?.map(({ key }) => key)).toEqual(['a', 'b']);
    expect(any.value).toMatchObject({ alternative: 1, futures: [{ key: 'a' }, { key: 'b' }] });
    const sent = world.servers.get('wss://a')?.connection.of('await') ?? [];
    expect(sent.map(({ body }) => body.alternatives)).toEqual([[['a']], [['a', 'b']], [['x'], ['a', 'b']]]);
    expect(sent[2]?.body.leastGeneration).toBe(3);
  });

  test('of a rejected future throws its rejection', async () => {
    const { value, ...rest } = futureOf('a', 1);
    expect(value).toBeDefined();
    const rejected = {
      ...rest,
      state: 'rejected' as const,
      rejection: { code: 'NO_DISK', message: 'it is full' },
    };
    const world = answering({ kind: 'awaited', alternative: 0, futures: [rejected] });
    const result = watch(world.client().await(['a', 'b']));
    await world.settle();
    expect(result).toMatchObject({
      state: 'rejected',
      error: {
        code: 'FUTURE_REJECTED',
        key: 'a',
        generation: 1,
        rejection: { code: 'NO_DISK', message: 'it is full' },
      },
    });
  });

  test('without a timeout outlives the server saying TIMED_OUT; with one it is the answer', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = () => failed('TIMED_OUT');
    const client = world.client();
    const forever = watch(client.await('a'));
    const limited = watch(client.await('b', { timeoutMs: 5_000 }));
    await world.advance(4_000);
    expect(forever.state).toBe('pending');
    expect(limited).toMatchObject({ state: 'rejected', error: { code: 'TIMED_OUT' } });
    server.handle = () => ({ kind: 'awaited', alternative: 0, futures: [futureOf('a', 1)] });
    await world.advance(5_000);
    expect(forever.state).toBe('fulfilled');
  });

  test('refuses what the protocol does not allow', async () => {
    const world = new World();
    world.server('wss://a');
    const client = world.client();
    await expect(client.await([])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(client.await({ anyOf: [] })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(client.await(Array.from({ length: 257 }, (_, i) => `k/${String(i)}`))).rejects.toMatchObject(
      {
        code: 'LIMIT_EXCEEDED',
      },
    );
  });
});
