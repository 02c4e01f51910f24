import { describe, expect, test } from 'vitest';
import { limits } from '../../src/protocol/index.ts';
import { failed, watch, World } from './support/world.ts';

/** They only have to look like tokens here. */
const tokenOf = (number: number): string => `e30.token${number}.c2ln`;

const worldWithServer = () => {
  const world = new World();
  const server = world.server('wss://a');
  return { world, server };
};

describe('a token', () => {
  test('is in hello, and what does not fit beside it comes in the next frame', async () => {
    const { world, server } = worldWithServer();
    const long = `e30.${'a'.repeat(limits.tokenBytesMax - 10)}.c2ln`;
    const client = world.client({ token: long });
    const keys = Array.from({ length: 60 }, (_, index) => `k/${'x'.repeat(100)}/${index}`);
    for (const key of keys) watch(client.get(key));
    await world.settle();
    expect(server.connection.hello?.token).toBe(long);
    expect(server.connection.of('get')).toHaveLength(60);
    expect(server.connection.frames.length).toBeGreaterThan(1);
  });

  test('is asked for anew for each connection, and requests wait for it', async () => {
    const { world, server } = worldWithServer();
    const given: ((token: string) => void)[] = [];
    const client = world.client({ token: () => new Promise((resolve) => given.push(resolve)) });
    watch(client.get('k'));
    await world.settle();
    expect(server.connection.frames).toHaveLength(0);
    given[0]?.(tokenOf(1));
    await world.settle();
    expect(server.connection.hello?.token).toBe(tokenOf(1));
    expect(server.connection.of('get')).toHaveLength(1);
    server.connection.break();
    await world.advance(10_000);
    given[1]?.(tokenOf(2));
    await world.settle();
    expect(server.connection.hello?.token).toBe(tokenOf(2));
  });

  test('that cannot be had, or is none, is tried again like a server that is away, and told', async () => {
    const { world, server } = worldWithServer();
    const answers = [() => Promise.reject(new Error('no such file')), () => 'none', () => tokenOf(3)];
    const client = world.client({ token: () => (answers.shift() ?? (() => tokenOf(4)))() });
    await world.settle();
    expect(client.state).toMatchObject({
      kind: 'waiting',
      lastError: { code: 'UNAVAILABLE', message: expect.stringContaining('no such file') as string },
    });
    await world.advance(30_000);
    expect(server.connection.hello?.token).toBe(tokenOf(3));
    expect(client.state.kind).toBe('connected');
  });

  test('that comes after its connection was lost is not used for another', async () => {
    const { world, server } = worldWithServer();
    const given: ((token: string) => void)[] = [];
    world.client({ token: () => new Promise((resolve) => given.push(resolve)), connectTimeoutMs: 1_000 });
    await world.advance(20_000);
    expect(given.length).toBeGreaterThan(1);
    const first = server.connections[0];
    given[0]?.(tokenOf(1));
    await world.settle();
    expect(first?.frames).toEqual([]);
  });

  test('is renewed in band when the server says that it expires, and again when that failed', async () => {
    const { world, server } = worldWithServer();
    let number = 0;
    let fails = false;
    world.client({
      token: () => {
        number += 1;
        if (fails) throw new Error('the issuer is away');
        return tokenOf(number);
      },
    });
    server.handle = ({ body }) =>
      body.kind === 'authenticate' ? { kind: 'authenticated', expiresInMs: 1000 } : undefined;
    await world.settle();
    const { connection } = server;
    fails = true;
    connection.sendFrame({ authExpiring: { remainingMs: 60_000 } });
    await world.settle();
    expect(connection.of('authenticate')).toEqual([]);
    fails = false;
    connection.sendFrame({ authExpiring: { remainingMs: 45_000 } });
    connection.sendFrame({ authExpiring: { remainingMs: 30_000 } });
    await world.settle();
    expect(connection.of('authenticate').map(({ body }) => body.token)).toEqual([tokenOf(3)]);
    expect(world.dials).toHaveLength(1);
  });

  test('that never comes does not keep a later connection from renewing its own', async () => {
    const { world, server } = worldWithServer();
    let asked = 0;
    world.client({
      token: () => {
        asked += 1;
        return asked === 2 ? new Promise<string>(() => undefined) : tokenOf(asked);
      },
    });
    await world.settle();
    server.connection.sendFrame({ authExpiring: { remainingMs: 60_000 } });
    await world.settle();
    expect(asked).toBe(2);
    server.connection.end(4001, 'the token has expired');
    await world.advance(20_000);
    expect(server.connection.hello?.token).toBe(tokenOf(3));
    server.connection.sendFrame({ authExpiring: { remainingMs: 60_000 } });
    await world.settle();
    expect(server.connection.of('authenticate').map(({ body }) => body.token)).toEqual([tokenOf(4)]);
  });

  test('whose renewal is refused is warned of without showing it', async () => {
    const { world, server } = worldWithServer();
    const warnings: object[] = [];
    const logger = { debug() {}, info() {}, warn: (fields: object) => warnings.push(fields) };
    world.client({ token: () => tokenOf(1), logger });
    server.handle = ({ body }) => (body.kind === 'authenticate' ? failed('UNAUTHENTICATED') : undefined);
    await world.settle();
    server.connection.sendFrame({ authExpiring: { remainingMs: 60_000 } });
    await world.settle();
    expect(warnings).toEqual([{ problem: 'said the test' }]);
    expect(JSON.stringify(warnings)).not.toContain(tokenOf(1));
  });

  test('that has expired ends a client that has no other, and one that gets them comes back', async () => {
    const { world, server } = worldWithServer();
    const fixed = world.client({ token: tokenOf(1) });
    await world.settle();
    server.connection.end(4001, 'the token has expired');
    await world.advance(20_000);
    expect(fixed.state).toMatchObject({ kind: 'closed', error: { code: 'UNAUTHENTICATED' } });
    let number = 1;
    const renewing = world.client({ token: () => tokenOf((number += 1)) });
    await world.settle();
    server.connection.end(4001, 'the token has expired');
    await world.advance(20_000);
    expect(renewing.state.kind).toBe('connected');
    expect(server.connection.hello?.token).toBe(tokenOf(3));
  });

  test('must look like one, and is not shown where it does not', () => {
    const { world } = worldWithServer();
    for (const token of ['secret', `a.${'b'.repeat(limits.tokenBytesMax)}.c`, 'a b.c.d']) {
      let message = '';
      try {
        world.client({ token });
      } catch (error) {
        message = String(error);
      }
      expect(message).toContain('JWT');
      expect(message).not.toContain(token);
    }
  });
});
