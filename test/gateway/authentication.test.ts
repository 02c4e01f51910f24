import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTls } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { connect } from '../../src/client/index.ts';
import type { GatewayLimits, GatewayOptions } from '../../src/gateway/index.ts';
import { jsonCodec, protobufCodec } from '../../src/protocol/index.ts';
import type { PolicyDocument } from '../../src/scopes/index.ts';
import { issue, makeAuthority, makeRevocationList } from './certificates.ts';
import { hello, startGateway, theWorld } from './harness.ts';
import type { Rig } from './harness.ts';
import { token, tokenKey, tokenRealm } from './token-issuer.ts';
import type { TokenKey } from './token-issuer.ts';

const rigs: Rig[] = [];
let key: TokenKey;
let ci: PolicyDocument['realms'];

beforeAll(async () => {
  key = await tokenKey();
  ci = { ci: { ...tokenRealm([key.jwk]), vars: { node: 'cn' } } };
});

const start = async (
  realms: PolicyDocument['realms'] = ci,
  limits: Partial<GatewayLimits> = {},
  more: Partial<GatewayOptions> = {},
): Promise<Rig> => {
  const rig = await startGateway(limits, more, realms);
  rigs.push(rig);
  return rig;
};

afterEach(async () => {
  await Promise.all(rigs.splice(0).map((rig) => rig.close()));
});

/** Of `ci:build-7`, by the clock of the gateway. */
const tokenFor = (rig: Rig, expiresIn = 600, claims: Readonly<Record<string, unknown>> = {}) =>
  token({ key: key.key, expiresIn, claims, nowMs: rig.clock.wallMs() });

describe('a token in hello', () => {
  test.each([protobufCodec, jsonCodec])(
    'makes its bearer a principal without a certificate, $subprotocol',
    async (codec) => {
      const rig = await start();
      const agent = await rig.greeted({ credentials: 'none', token: await tokenFor(rig), codec });
      expect(agent.frames[0]?.welcome?.principal).toBe('ci:build-7');
      const mine = agent.request({ kind: 'get', key: 'nodes/build-7/x', stale: false });
      const other = agent.request({ kind: 'get', key: 'nodes/web1/x', stale: false });
      expect((await agent.failure(other)).code).toBe('PERMISSION_DENIED');
      expect(rig.port.requests).toMatchObject([{ kind: 'get', request: mine }]);
    },
  );

  test('is waited for by all that comes with it, in order', async () => {
    const rig = await start();
    const agent = await rig.agent({ credentials: 'none' });
    const get = { kind: 'get', key: 'nodes/build-7/x', stale: false } as const;
    agent.send({ hello: { ...hello, token: await tokenFor(rig) }, requests: [{ id: 1, body: get }] });
    agent.send({ requests: [{ id: 2, body: get }] });
    await rig.port.until(({ requests }) => requests.length === 2);
    expect(rig.port.requests.map(({ request }) => request)).toEqual([1, 2]);
  });

  test('that is refused ends the connection, and is in no log', async () => {
    const rig = await start();
    const text = await tokenFor(rig, 600, { aud: 'other' });
    const agent = await rig.agent({ credentials: 'none' });
    agent.send({ hello: { ...hello, token: text }, requests: [] });
    expect(await agent.closed).toMatchObject({
      code: 4501,
      reason: expect.stringContaining('no realm here'),
    });
    const expired = await rig.agent({ credentials: 'none' });
    expired.send({ hello: { ...hello, token: await tokenFor(rig, -100) }, requests: [] });
    expect((await expired.closed).code).toBe(4001);
    expect(JSON.stringify(rig.log.lines)).not.toContain(text);
    expect(rig.counts.all).toContain('turned away identity');
  });

  test('and a certificate must be of one principal', async () => {
    const { puppet } = await theWorld();
    const both = {
      puppet: { tls: { issuer: puppet.pem, identity: 'cn' as const }, ...tokenRealm([key.jwk]) },
    };
    const rig = await start(both);
    const agreed = await rig.greeted({ token: await tokenFor(rig, 600, { sub: 'web1' }) });
    expect(agreed.frames[0]?.welcome?.principal).toBe('puppet:web1');
    const forged = await rig.agent();
    forged.send({ hello: { ...hello, token: await tokenFor(rig, 600, { sub: 'admin' }) }, requests: [] });
    expect(await forged.closed).toMatchObject({ code: 4501, reason: expect.stringContaining('puppet:web1') });
  });

  test('is needed by who has no certificate, and a certificate where no realm takes tokens', async () => {
    const rig = await start();
    const nobody = await rig.agent({ credentials: 'none' });
    nobody.send({ hello, requests: [] });
    expect(await nobody.closed).toMatchObject({ code: 4501, reason: expect.stringContaining('no token') });
    const closed = await start({});
    await expect(closed.agent({ credentials: 'none' })).rejects.toThrow(/401/);
  });

  test('does not keep its bearer among the unknown, and its lack does', async () => {
    const rig = await start(ci, { unauthenticatedMax: 1 });
    const known = await rig.greeted({ credentials: 'none', token: await tokenFor(rig) });
    const unknown = await rig.agent({ credentials: 'none' });
    await rig.agent({ credentials: 'none' });
    expect((await unknown.closed).code).toBe(1006);
    const id = known.request({ kind: 'get', key: 'nodes/web1/x', stale: false });
    expect((await known.failure(id)).code).toBe('PERMISSION_DENIED');
  });
});

describe('a token that expires', () => {
  test('is told of in time, renewed in band, and else ends the connection with 4001', async () => {
    // Time is the test's, the answers to pings are not.
    const rig = await start(ci, { silenceMs: Infinity });
    const renewing = await rig.greeted({ credentials: 'none', token: await tokenFor(rig) });
    const idle = await rig.greeted({ credentials: 'none', token: await tokenFor(rig) });
    rig.clock.advance(470_000);
    expect(renewing.frames).toHaveLength(1);
    rig.clock.advance(60_000);
    await renewing.until((frames) => frames.some(({ authExpiring }) => authExpiring !== undefined));
    const told = renewing.frames.find(({ authExpiring }) => authExpiring !== undefined)?.authExpiring;
    expect(told?.remainingMs).toBeGreaterThan(60_000);
    expect(told?.remainingMs).toBeLessThanOrEqual(160_000);
    const id = renewing.request({ kind: 'authenticate', token: await tokenFor(rig, 600, { jti: 't2' }) });
    expect(await renewing.answer(id)).toMatchObject({ kind: 'authenticated' });
    rig.clock.advance(130_000);
    expect(await idle.closed).toMatchObject({ code: 4001, reason: expect.stringContaining('expired') });
    const other = renewing.request({ kind: 'get', key: 'nodes/web1/x', stale: false });
    expect((await renewing.failure(other)).code).toBe('PERMISSION_DENIED');
  });

  test('is renewed by one of the same principal only, and what was there before stays', async () => {
    const rig = await start();
    const agent = await rig.greeted({ credentials: 'none', token: await tokenFor(rig) });
    rig.clock.advance(1_000);
    const id = agent.request({ kind: 'authenticate', token: await tokenFor(rig, 600, { sub: 'admin' }) });
    expect(await agent.failure(id)).toMatchObject({
      code: 'UNAUTHENTICATED',
      message: expect.stringContaining('ci:admin'),
    });
    const get = agent.request({ kind: 'get', key: 'nodes/admin/x', stale: false });
    expect((await agent.failure(get)).message).toContain('ci:build-7 may not get');
  });

  test('cannot be renewed as often as one likes: verifying costs everybody', async () => {
    const rig = await start();
    const agent = await rig.greeted({ credentials: 'none', token: await tokenFor(rig) });
    const text = await tokenFor(rig);
    const first = agent.request({ kind: 'authenticate', token: text });
    const second = agent.request({ kind: 'authenticate', token: text });
    expect((await agent.failure(second)).code).toBe('TOO_MANY_REQUESTS');
    // The one in hello was only just verified as well.
    expect((await agent.failure(first)).code).toBe('TOO_MANY_REQUESTS');
    rig.clock.advance(1_000);
    const third = agent.request({ kind: 'authenticate', token: text });
    expect(await agent.answer(third)).toMatchObject({ kind: 'authenticated' });
  });
});

describe('a client of the library', () => {
  test('connects with a token alone, and brings another before it expires', async () => {
    const rig = await start(ci, { silenceMs: Infinity });
    const made: string[] = [];
    const client = connect({
      endpoints: [`wss://127.0.0.1:${rig.tcpPort}`],
      ca: rig.world.serverAuthority.pem,
      token: async () => {
        const text = await tokenFor(rig);
        made.push(text);
        return text;
      },
    });
    await rig.log.until((lines) => lines.some(({ message }) => message === 'an agent connected'));
    rig.clock.advance(560_000);
    await rig.log.until((lines) => lines.some(({ message }) => message === 'a token was renewed'));
    rig.clock.advance(300_000);
    expect(client.state.kind).toBe('connected');
    expect(made).toHaveLength(2);
    for (const text of made) expect(JSON.stringify(rig.log.lines)).not.toContain(text);
    await client.close();
  });
});

describe('a running gateway', () => {
  const crl = '/puppet.crl';

  test('takes a new revocation list, which ends whom it names, within a second', async () => {
    const { puppet, web1 } = await theWorld();
    const revoked = [new X509Certificate(web1.cert).serialNumber];
    const file = { text: await makeRevocationList(puppet, { from: -0.9 }), version: '1' };
    const files = { version: () => file.version, read: () => file.text };
    const realms = { puppet: { tls: { issuer: puppet.pem, identity: 'cn' as const, crl } } };
    const rig = await start(realms, {}, { files });
    const stolen = await rig.greeted();
    const other = await rig.greeted({ credentials: await issue(puppet, { subject: 'CN=web2' }) });
    file.text = await makeRevocationList(puppet, { from: -0.5, revoked });
    file.version = '2';
    rig.clock.advance(5_000);
    await rig.log.until((lines) => lines.filter(({ fields }) => fields['file'] === crl).length === 2);
    rig.clock.advance(1_000);
    expect(await stolen.closed).toMatchObject({ code: 4503, reason: expect.stringContaining('revoked') });
    const again = await rig.agent();
    expect((await again.closed).code).toBe(4503);
    const id = other.request({ kind: 'get', key: 'nodes/web1/x', stale: false });
    expect((await other.failure(id)).code).toBe('PERMISSION_DENIED');
  });

  test('takes other authorities: old certificates end, new ones are let in', async () => {
    const rig = await start({});
    const old = await rig.greeted();
    const next = await makeAuthority('CN=Puppet CA');
    await rig.gateway.replaceFileRealms({ puppet: { tls: { issuer: next.pem, identity: 'cn' } } });
    const renewed = await rig.greeted({ credentials: await issue(next, { subject: 'CN=web1' }) });
    expect(renewed.frames[0]?.welcome?.principal).toBe('puppet:web1');
    rig.clock.advance(1_000);
    expect(await old.closed).toMatchObject({
      code: 4501,
      reason: expect.stringContaining('no CA of its realm'),
    });
    await expect(
      rig.gateway.replaceFileRealms({ puppet: { tls: { issuer: 'x', identity: 'cn' } } }),
    ).rejects.toThrow(/no PEM certificate/);
    await rig.greeted({ credentials: await issue(next, { subject: 'CN=web3' }) });
  });

  test('shows a new certificate to new connections, and keeps the old one where the new cannot be used', async () => {
    const rig = await start({});
    const { serverAuthority } = rig.world;
    const serialSeen = async (): Promise<string | undefined> => {
      const agent = await rig.agent();
      const socket = Reflect.get(agent.ws, '_socket') as TLSSocket;
      return socket.getPeerX509Certificate()?.serialNumber;
    };
    const next = await issue(serverAuthority, { subject: 'CN=server-2', server: true });
    rig.gateway.replaceCertificate(next);
    expect(await serialSeen()).toBe(new X509Certificate(next.cert).serialNumber);
    const unfit = await issue(serverAuthority, { subject: 'CN=server-2', server: true });
    expect(() => rig.gateway.replaceCertificate({ cert: unfit.cert, key: next.key })).toThrow(
      /cannot be used/,
    );
    expect(() => rig.gateway.replaceCertificate({ cert: 'x', key: 'y' })).toThrow(/cannot be used/);
    expect(await serialSeen()).toBe(new X509Certificate(next.cert).serialNumber);
  });
});

const resumed = async (rig: Rig, session: Buffer | undefined, withCertificate = true) => {
  const options: ConnectionOptions = {
    host: '127.0.0.1',
    port: rig.tcpPort,
    ca: rig.world.serverAuthority.pem,
    ...(withCertificate ? rig.world.web1 : {}),
    ...(session && { session }),
  };
  const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, [protobufCodec.subprotocol], options);
  let socket: TLSSocket | undefined;
  ws.on('upgrade', (response) => (socket = response.socket as TLSSocket));
  ws.on('error', () => undefined);
  const closed = new Promise<number>((resolve) => ws.once('close', resolve));
  await Promise.race([new Promise((resolve) => ws.once('open', resolve)), closed]);
  return { ws, closed, reused: socket?.isSessionReused() ?? false };
};

const ticketOf = async (rig: Rig, withCertificate = true): Promise<Buffer> => {
  const socket = connectTls({
    host: '127.0.0.1',
    port: rig.tcpPort,
    ca: rig.world.serverAuthority.pem,
    ...(withCertificate ? rig.world.web1 : {}),
  });
  const [ticket] = (await once(socket, 'session')) as [Buffer];
  socket.destroy();
  return ticket;
};

describe('a resumed TLS session', () => {
  test('of one server is taken by another that has the same ticket keys, and judged as a new one', async () => {
    const keys = new Uint8Array(48).fill(7);
    const [first, second] = [await start({}), await start({})];
    const ticket = await ticketOf(first);
    expect((await resumed(second, ticket)).reused).toBe(false);
    for (const rig of [first, second]) rig.gateway.deliver([{ kind: 'ticket_keys', keys }]);
    const shared = await ticketOf(first);
    const taken = await resumed(second, shared);
    expect(taken.reused).toBe(true);
    taken.ws.send(protobufCodec.encodeClientFrame({ hello, requests: [] }));
    const [data] = (await once(taken.ws, 'message')) as [Buffer];
    expect(protobufCodec.decodeServerFrame(data).welcome?.principal).toBe('puppet:web1');
    taken.ws.terminate();
    await second.gateway.replaceFileRealms({});
    expect(await (await resumed(second, shared)).closed).toBe(1006);
  });

  test('is kept by a new certificate of the server', async () => {
    const rig = await start({});
    rig.gateway.deliver([{ kind: 'ticket_keys', keys: new Uint8Array(48).fill(7) }]);
    const ticket = await ticketOf(rig);
    rig.gateway.replaceCertificate(
      await issue(rig.world.serverAuthority, { subject: 'CN=server-2', server: true }),
    );
    const taken = await resumed(rig, ticket);
    expect(taken.reused).toBe(true);
    taken.ws.terminate();
  });

  test('of another cluster is not taken, whatever its keys', async () => {
    const keys = new Uint8Array(48).fill(7);
    const [first, second] = [await start({}), await start({})];
    for (const rig of [first, second]) rig.gateway.deliver([{ kind: 'ticket_keys', keys }]);
    Reflect.set(second.port.identity, 'clusterId', 'another');
    second.gateway.replaceCertificate(second.world.server);
    const taken = await resumed(second, await ticketOf(first));
    expect(taken.reused).toBe(false);
    taken.ws.terminate();
  });

  test('that never had a certificate is nobody', async () => {
    const rig = await start({});
    const ticket = await ticketOf(rig, false);
    expect(await (await resumed(rig, ticket)).closed).toBe(1006);
  });

  test('is refused where its certificate has been revoked since', async () => {
    const { puppet, web1 } = await theWorld();
    const revoked = [new X509Certificate(web1.cert).serialNumber];
    const file = { text: await makeRevocationList(puppet, { from: -0.9 }), version: '1' };
    const files = { version: () => file.version, read: () => file.text };
    const realms = {
      puppet: { tls: { issuer: puppet.pem, identity: 'cn' as const, crl: '/puppet.crl' } },
    };
    const rig = await start(realms, {}, { files });
    const ticket = await ticketOf(rig);
    file.text = await makeRevocationList(puppet, { from: -0.5, revoked });
    file.version = '2';
    await rig.gateway.lookForLists();
    const taken = await resumed(rig, ticket);
    expect(taken.reused).toBe(true);
    expect(await taken.closed).toBe(4503);
  });
});
