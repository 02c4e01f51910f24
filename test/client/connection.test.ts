import { describe, expect, test } from 'vitest';
import { closeCodes, limits as protocolLimits } from '../../src/protocol/index.ts';
import type { ClientState } from '../../src/client/index.ts';
import { World, futureOf, randomOf, watch, welcome } from './support/world.ts';

const refused = { kind: 'unreachable', text: 'connect ECONNREFUSED 127.0.0.1:7421' } as const;

describe('reconnecting', () => {
  test('pitfall 54: waits are fully jittered, grow, and are capped at ten seconds', async () => {
    const world = new World();
    world.server('wss://a').failure = refused;
    const draws: number[] = [];
    const random = randomOf(7);
    world.random = () => {
      const drawn = random();
      draws.push(drawn);
      return drawn;
    };
    world.client();
    await world.advance(60_000);
    // The first draw shuffled the endpoints.
    const waits = world.dials.slice(1).map((dial, index) => dial.atMs - (world.dials[index]?.atMs ?? 0));
    waits.forEach((wait, attempt) => {
      const most = Math.min(10_000, 100 * 2 ** attempt);
      expect(Math.abs(wait - (draws[attempt + 1] ?? 0) * most)).toBeLessThanOrEqual(1);
    });
    expect(waits.length).toBeGreaterThan(8);
  });

  test('pitfall 54: a drained server is left at a random moment of the first half of its grace', async () => {
    const world = new World();
    world.server('wss://a');
    world.server('wss://b');
    world.random = () => 0.9;
    world.client();
    await world.settle();
    const first = [...world.servers.values()].find((server) => server.open.length > 0);
    first?.connection.sendFrame({ goaway: { graceMs: 10_000, reason: 'drain' } });
    await world.advance(4_499);
    expect(world.dials).toHaveLength(1);
    await world.advance(1);
    expect(world.dials).toHaveLength(2);
  });

  test('pitfall 54: comes back no sooner than it was told, and not together with the others that were', async () => {
    const returns = new Set<number>();
    for (let seed = 0; seed < 20; seed += 1) {
      const world = new World();
      world.server('wss://a').failure = {
        kind: 'unreachable',
        text: 'HTTP status 503',
        retryAfterMs: 15_000,
      };
      world.random = randomOf(seed);
      world.client();
      await world.advance(60_000);
      const waits = world.dials.slice(1).map((dial, index) => dial.atMs - (world.dials[index]?.atMs ?? 0));
      expect(waits.length).toBeGreaterThanOrEqual(2);
      for (const wait of waits) {
        expect(wait).toBeGreaterThanOrEqual(15_000);
        expect(wait).toBeLessThanOrEqual(22_501);
        returns.add(Math.round(wait));
      }
    }
    expect(returns.size).toBeGreaterThan(20);
  });

  test('a close that says when to come back is heeded, and goes elsewhere at once where there is an elsewhere', async () => {
    const world = new World();
    const [full, free] = [world.server('wss://a'), world.server('wss://b')];
    world.random = () => 0.5;
    world.client();
    await world.settle();
    const reason = 'retry-after=30; web1 has 1 connections, as many as it may';
    for (const server of [full, free])
      for (const one of server.open) one.end(closeCodes.tooManyConnections, reason);
    await world.advance(1_000);
    expect(world.dials).toHaveLength(2);
    expect(world.dials[1]?.endpoint).not.toBe(world.dials[0]?.endpoint);
    for (const server of [full, free])
      for (const one of server.open) one.end(closeCodes.tooManyConnections, reason);
    await world.advance(36_000);
    expect(world.dials).toHaveLength(2);
    await world.advance(1_500);
    expect(world.dials).toHaveLength(3);
    expect(world.dials[2]?.endpoint).toBe(world.dials[0]?.endpoint);
  });

  test('goes through all endpoints, in an order that differs from client to client', async () => {
    const firsts = new Set<string>();
    for (let seed = 0; seed < 20; seed += 1) {
      const world = new World();
      world.random = randomOf(seed);
      for (const endpoint of ['wss://a', 'wss://b', 'wss://c']) world.server(endpoint).failure = refused;
      world.client();
      await world.advance(5_000);
      expect(new Set(world.dials.slice(0, 3).map(({ endpoint }) => endpoint)).size).toBe(3);
      firsts.add(world.dials[0]?.endpoint ?? '');
    }
    expect(firsts.size).toBe(3);
  });

  test('short-lived connections do not start the waits anew, long-lived ones do', async () => {
    const world = new World();
    const server = world.server('wss://a');
    world.random = () => 0.999;
    world.client();
    const waits: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      await world.settle();
      const before = world.now();
      const { length } = server.connections;
      server.connection.break();
      while (server.connections.length === length) await world.advance(1);
      waits.push(world.now() - before);
    }
    expect(waits).toEqual([100, 200, 400, 800, 1599]);
    await world.advance(10_000);
    const before = world.now();
    server.connection.break();
    while (server.open.length === 0) await world.advance(1);
    expect(world.now() - before).toBe(100);
  });

  test('a server that never welcomes is left after the connect timeout', async () => {
    const world = new World();
    world.server('wss://a').silent = true;
    world.server('wss://b').welcome = undefined;
    const client = world.client({ connectTimeoutMs: 1_000 });
    const get = watch(client.get('a', { timeoutMs: 10_000 }));
    await world.advance(2_200);
    expect(new Set(world.dials.slice(0, 2).map(({ endpoint }) => endpoint)).size).toBe(2);
    expect(get.state).toBe('pending');
  });

  test('silence of 45 s ends a connection, pings and frames keep it', async () => {
    const world = new World();
    const server = world.server('wss://a');
    world.client();
    for (let round = 0; round < 4; round += 1) {
      await world.advance(40_000);
      if (round % 2 === 0) server.connection.ping();
      else server.connection.sendFrame({ revision: 11 });
    }
    expect(server.connections).toHaveLength(1);
    await world.advance(44_999);
    expect(server.connections).toHaveLength(1);
    await world.advance(500);
    expect(server.connections).toHaveLength(2);
    expect(server.open).toHaveLength(1);
  });

  test.each([
    ['no frame at all', Buffer.from([0xff, 0xff])],
    ['a second welcome', undefined],
  ])('a server that sends %s is left, and another connection made', async (_, bytes) => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    await world.settle();
    const get = watch(client.get('a'));
    await world.settle();
    if (bytes !== undefined) server.connection.sendBytes(bytes);
    else server.connection.sendFrame({ welcome });
    await world.advance(1_000);
    expect(server.connections[0]?.closedWith).toBe(closeCodes.protocolError);
    expect(server.connections).toHaveLength(2);
    expect(server.connection.of('get')).toHaveLength(1);
    expect(get.state).toBe('pending');
  });
});

describe('what ends it for good', () => {
  test.each([
    [closeCodes.unauthenticated, 'UNAUTHENTICATED'],
    [closeCodes.revoked, 'UNAUTHENTICATED'],
    [closeCodes.replaced, 'CONNECTION_CLOSED'],
    [closeCodes.versionNotSupported, 'VERSION_NOT_SUPPORTED'],
    [closeCodes.protocolError, 'PROTOCOL_ERROR'],
    [4999, 'CONNECTION_CLOSED'],
  ])('close code %i fails everything with %s, and nobody comes back', async (closeCode, code) => {
    const world = new World();
    const server = world.server('wss://a');
    const states: ClientState[] = [];
    const client = world.client({ onStateChange: (state) => states.push(state) });
    const get = watch(client.get('a'));
    const next = watch(client.subscribe('a/**').next());
    await world.settle();
    server.connection.end(closeCode, 'so it is');
    await world.advance(60_000);
    expect(get).toMatchObject({ state: 'rejected', error: { code } });
    expect(String(get.error)).toContain('so it is');
    expect(next).toMatchObject({ state: 'rejected', error: { code } });
    expect(states.at(-1)).toMatchObject({ kind: 'closed', error: { code } });
    await expect(client.get('b')).rejects.toMatchObject({ code });
    expect(world.dials).toHaveLength(1);
    expect(world.timerCount).toBe(0);
  });

  test.each([closeCodes.authenticationExpired, closeCodes.slowConsumer, closeCodes.draining, 1001, 1011])(
    'close code %i is followed by another connection',
    async (closeCode) => {
      const world = new World();
      const server = world.server('wss://a');
      world.client();
      await world.settle();
      server.connection.end(closeCode, '');
      await world.advance(1_000);
      expect(server.open).toHaveLength(1);
    },
  );

  test('a server that hangs up right after TLS is suspected to refuse the certificate', async () => {
    const world = new World();
    world.server('wss://a').failure = { kind: 'dropped', text: 'socket hang up' };
    const impatient = watch(world.client().get('a', { timeoutMs: 100 }));
    const patient = watch(world.client().await('a'));
    await world.advance(100);
    expect(impatient).toMatchObject({ state: 'rejected', error: { code: 'UNAUTHENTICATED' } });
    expect(patient.state).toBe('pending');
    await world.advance(60_000);
    expect(patient).toMatchObject({ state: 'rejected', error: { code: 'UNAUTHENTICATED' } });
  });

  test('a certificate that every server refuses; one server alone may be wrong', async () => {
    const world = new World();
    const a = world.server('wss://a');
    const b = world.server('wss://b');
    a.failure = { kind: 'identity_refused', text: 'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA' };
    b.failure = refused;
    const client = world.client();
    const get = watch(client.get('a'));
    await world.advance(60_000);
    expect(get.state).toBe('pending');
    b.failure = { kind: 'server_untrusted', text: 'self-signed certificate in certificate chain' };
    await world.advance(60_000);
    expect(get).toMatchObject({ state: 'rejected', error: { code: 'UNAUTHENTICATED' } });
    expect(String(get.error)).toMatch(/certificate.*check that/);
    expect(client.state.kind).toBe('closed');
  });
});

describe('going away', () => {
  test('requests are served by the old server until the new one is there, then move', async () => {
    const world = new World();
    world.server('wss://a');
    world.server('wss://b');
    const client = world.client();
    await world.settle();
    const servers = [...world.servers.values()];
    const old = servers.find((server) => server.open.length > 0);
    const other = servers.find((server) => server !== old);
    if (old === undefined || other === undefined) throw new Error('one of two is connected to');
    other.silent = true;
    const waiting = watch(client.await('a'));
    await world.settle();
    old.connection.sendFrame({ goaway: { graceMs: 4_000, reason: 'drain' } });
    await world.advance(2_000);
    const get = watch(client.get('b'));
    await world.settle();
    old.connection.answer(old.connection.of('get')[0]?.id ?? 0, {
      kind: 'got',
      revision: 1,
      future: undefined,
    });
    await world.settle();
    expect(get.state).toBe('fulfilled');
    expect(client.state).toMatchObject({ kind: 'connected', endpoint: old.endpoint });
    other.silent = false;
    await world.advance(30_000);
    expect(client.state).toMatchObject({ kind: 'connected', endpoint: other.endpoint });
    expect(old.open).toEqual([]);
    expect(old.connection.closedWith).toBe(1000);
    expect(other.connection.of('await')).toHaveLength(1);
    expect(other.connection.frames[0]).toMatchObject({ hello: {}, requests: [] });
    expect(waiting.state).toBe('pending');
  });

  test('a server that takes it again, and is the only one, keeps it without a gap', async () => {
    const world = new World();
    world.random = () => 0.99;
    const endpoints = ['wss://a', 'wss://b', 'wss://c'];
    for (const endpoint of endpoints) world.server(endpoint).failure = refused;
    const here = world.server('wss://b');
    here.failure = undefined;
    const states: string[] = [];
    const client = world.client({ endpoints, onStateChange: ({ kind }) => states.push(kind) });
    await world.advance(1_000);
    states.length = 0;
    const old = here.connection;
    const waiting = watch(client.await('a'));
    await world.settle();
    old.sendFrame({ goaway: { graceMs: 4_000, reason: 'old', here: true } });
    await world.advance(4_000);
    expect(old.closedWith).toBe(1000);
    expect(here.open).toHaveLength(1);
    expect(here.connection).not.toBe(old);
    expect(here.connection.of('await')).toHaveLength(1);
    expect(waiting.state).toBe('pending');
    expect(states.filter((kind) => kind !== 'connected')).toEqual([]);
  });

  describe('with a hint where to go', () => {
    const endpoints = ['wss://a:1', 'wss://b:2', 'wss://c:3'];

    /** Connected to the first of its endpoints; `named`: what the welcome says of all servers. */
    const connected = async (named: readonly string[] = []) => {
      const world = new World();
      for (const endpoint of [...endpoints, 'wss://d:4', 'wss://e:5'])
        world.server(endpoint).welcome = { ...welcome, endpoints: named };
      const client = world.client({ endpoints });
      await world.settle();
      const from = world.dials[0]?.endpoint ?? '';
      const others = endpoints.filter((endpoint) => endpoint !== from);
      const goaway = (hints: readonly string[]): void => {
        const server = world.servers.get(from);
        server?.connection.sendFrame({ goaway: { graceMs: 1000, reason: 'moved', endpoints: hints } });
      };
      return { world, client, from, others, goaway };
    };

    test('goes there first, if the configuration names it, however it is written', async () => {
      for (const which of [0, 1]) {
        const { world, client, others, goaway } = await connected();
        const waiting = watch(client.await('a'));
        await world.settle();
        goaway([`${others[which] ?? ''}/`]);
        await world.advance(2000);
        expect(client.state).toMatchObject({ kind: 'connected', endpoint: others[which] });
        expect(world.servers.get(others[which] ?? '')?.connection.of('await')).toHaveLength(1);
        expect(waiting.state).toBe('pending');
      }
    });

    test('goes to a server that the welcome named, and to no other', async () => {
      const known = await connected(['wss://d:4']);
      known.goaway(['wss://e:5', 'wss://d:4']);
      await known.world.advance(2000);
      expect(known.client.state).toMatchObject({ kind: 'connected', endpoint: 'wss://d:4' });

      const unknown = await connected();
      unknown.goaway(['wss://e:5', 'wss://d:4', 'no address', unknown.from]);
      await unknown.world.advance(2000);
      expect(unknown.world.dials).toHaveLength(2);
      expect(unknown.others).toContain(unknown.world.dials[1]?.endpoint);
    });

    test('goes to any of its own where it is not to be had there, and never gives up for it', async () => {
      const refusal = { kind: 'identity_refused', text: 'no' } as const;
      const { world, client, from, others, goaway } = await connected(['wss://d:4']);
      const hinted = world.servers.get('wss://d:4');
      if (hinted !== undefined) hinted.failure = refusal;
      const [bad, good] = others.map((endpoint) => world.servers.get(endpoint));
      if (bad === undefined || good === undefined) throw new Error('there are two others');
      bad.failure = refusal;
      good.silent = true;
      goaway(['wss://d:4']);
      await world.advance(700);
      expect(world.dials[1]?.endpoint).toBe('wss://d:4');
      world.servers.get(from)?.connection.end(1006, '');
      await world.advance(5000);
      expect(client.state.kind).not.toBe('closed');
      good.silent = false;
      await world.advance(60_000);
      expect(client.state.kind).toBe('connected');
    });
  });

  test('the old server may call a moved session replaced without ending the client', async () => {
    const world = new World();
    world.server('wss://a');
    world.server('wss://b').welcome = undefined;
    world.random = () => 0;
    const client = world.client();
    await world.advance(0);
    const [a, b] = [...world.servers.values()];
    if (a === undefined || b === undefined) throw new Error('there are two');
    await world.advance(30_000);
    a.connection.sendFrame({ goaway: { graceMs: 1_000, reason: 'drain' } });
    await world.advance(10);
    b.welcome = welcome;
    a.connection.end(closeCodes.replaced, '');
    await world.advance(30_000);
    expect(client.state.kind).toBe('connected');
  });
});

describe('frames', () => {
  test('requests made in one turn share one', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    await world.settle();
    for (let index = 0; index < 100; index += 1) watch(client.get(`k/${String(index)}`));
    await world.settle();
    expect(server.connection.frames).toHaveLength(2);
    expect(server.connection.frames[1]?.requests).toHaveLength(100);
  });

  test('are cut where the server says they are full, and the first one at 16 KiB', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = (request) =>
      request.body.kind === 'open_session' ? { kind: 'session_opened' } : undefined;
    const sizes: number[] = [];
    const { codec } = world;
    Object.defineProperty(world, 'codec', {
      value: {
        ...codec,
        encodeClientFrame: (frame: Parameters<typeof codec.encodeClientFrame>[0]) => {
          const bytes = codec.encodeClientFrame(frame);
          sizes.push(bytes.length);
          return bytes;
        },
      },
    });
    const client = world.client();
    for (let index = 0; index < 10; index += 1) watch(client.resolve('k', Buffer.alloc(300 * 1024)));
    for (let index = 0; index < 200; index += 1) watch(client.get(`${'k'.repeat(100)}/${String(index)}`));
    await world.settle();
    expect(sizes[0]).toBeLessThanOrEqual(16 * 1024);
    expect(sizes.every((size) => size <= welcome.limits.frameBytesMax)).toBe(true);
    expect(server.connection.of('write')).toHaveLength(10);
    expect(server.connection.of('get')).toHaveLength(200);
    expect(sizes.length).toBeGreaterThan(3);
  });

  test('no frame has more requests than a server takes, however many subscriptions begin and end at once', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    await world.settle();
    const count = 5_000;
    const subscriptions = Array.from({ length: count }, () => client.subscribe('k'));
    await world.settle();
    for (const subscription of subscriptions) await subscription.return();
    await world.settle();
    expect(server.connection.of('subscribe')).toHaveLength(count);
    expect(server.connection.of('cancel')).toHaveLength(count);
    const most = protocolLimits.requestsInFlightPerConnectionMax;
    expect(server.connection.frames.every(({ requests }) => requests.length <= most)).toBe(true);
  });

  test('awaits leave room in flight for everything else', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.welcome = { ...welcome, limits: { ...welcome.limits, requestsInFlightMax: 132 } };
    const client = world.client();
    await world.settle();
    for (let index = 0; index < 500; index += 1) watch(client.await(`k/${String(index)}`));
    await world.settle();
    watch(client.get('a'));
    await world.settle();
    expect(server.connection.of('await')).toHaveLength(75);
    expect(server.connection.of('get')).toHaveLength(1);
    const [first] = server.connection.of('await');
    if (first === undefined) throw new Error('an await was sent');
    server.connection.answer(first.id, {
      kind: 'awaited',
      alternative: 0,
      futures: [futureOf('k/0', 3)],
    });
    await world.settle();
    expect(server.connection.of('await')).toHaveLength(76);
  });

  test('are held back while the socket has much to send', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    await world.settle();
    server.connection.bufferedBytes = 5 * 1024 * 1024;
    watch(client.get('a'));
    await world.settle();
    expect(server.connection.of('get')).toEqual([]);
    server.connection.drain();
    await world.settle();
    expect(server.connection.of('get')).toHaveLength(1);
  });
});

describe('close', () => {
  test('waits for answers, ends the session, closes with 1000', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = (request) =>
      request.body.kind === 'open_session' ? { kind: 'session_opened' } : undefined;
    const client = world.client();
    const write = watch(client.resolve('a', 'x'));
    const waiting = watch(client.await('b'));
    const events = watch(client.subscribe('a/**').next());
    await world.settle();
    const closed = watch(client.close());
    await world.advance(1_500);
    expect(waiting).toMatchObject({ state: 'rejected', error: { code: 'CONNECTION_CLOSED' } });
    expect(events).toMatchObject({ state: 'fulfilled', value: { done: true } });
    expect(closed.state).toBe('pending');
    await expect(client.get('c')).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
    const id = server.connection.of('write')[0]?.id ?? 0;
    server.connection.answer(id, {
      kind: 'written',
      result: { revision: 1, results: [{ generation: 1, state: 'resolved', revision: 1, unchanged: false }] },
    });
    await world.settle();
    expect(write.state).toBe('fulfilled');
    const [end] = server.connection.of('close_session');
    expect(end).toBeDefined();
    expect(server.connection.closedWith).toBeUndefined();
    server.connection.answer(end?.id ?? 0, { kind: 'session_closed' });
    await world.settle();
    expect(server.connection.closedWith).toBe(1000);
    expect(closed.state).toBe('fulfilled');
    expect(world.timerCount).toBe(0);
  });

  test('gives up waiting after its grace, and a second close waits for the same end', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    const get = watch(client.get('a'));
    await world.settle();
    const closes = [watch(client.close({ graceMs: 500 })), watch(client.close())];
    await world.advance(499);
    expect(get.state).toBe('pending');
    await world.advance(1_100);
    expect(get).toMatchObject({ state: 'rejected', error: { code: 'CONNECTION_CLOSED' } });
    expect(closes.map(({ state }) => state)).toEqual(['fulfilled', 'fulfilled']);
    expect(server.open).toEqual([]);
    await client.close();
  });

  test('without a connection and requests is immediate', async () => {
    const world = new World();
    world.server('wss://a').failure = refused;
    const client = world.client();
    await world.advance(10);
    await Promise.all([client.close(), world.settle()]);
    expect(client.state.kind).toBe('closed');
    await world.advance(60_000);
    expect(world.timerCount).toBe(0);
  });
});
