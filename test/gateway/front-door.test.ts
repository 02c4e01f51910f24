import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { issue } from './certificates.ts';
import { hello, startGateway, theWorld } from './harness.ts';
import type { Rig } from './harness.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import type { GatewayLimits, GatewayOptions } from '../../src/gateway/index.ts';

const rigs: Rig[] = [];

const start = async (limits?: Partial<GatewayLimits>, more?: Partial<GatewayOptions>): Promise<Rig> => {
  const rig = await startGateway(limits, more);
  rigs.push(rig);
  return rig;
};

afterEach(async () => {
  await Promise.all(rigs.splice(0).map((rig) => rig.close()));
});

const tlsOptions = async (rig: Rig): Promise<ConnectionOptions> => ({
  host: '127.0.0.1',
  port: rig.tcpPort,
  ca: rig.world.serverAuthority.pem,
  ...rig.world.web1,
});

interface Refused {
  readonly status: number;
  readonly text: string;
}

/** What a request over HTTPS with the agent's certificate is answered. */
const ask = async (
  rig: Rig,
  path: string,
  headers: Record<string, string>,
  method = 'GET',
): Promise<Refused> => {
  const options = { ...(await tlsOptions(rig)), path, method, headers, agent: false };
  return new Promise((resolve, reject) => {
    const sent = request(options, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    sent.on('upgrade', () => reject(new Error('it was upgraded')));
    sent.on('error', reject);
    sent.end();
  });
};

const upgrade = (protocols: string | undefined): Record<string, string> => ({
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
  ...(protocols !== undefined && { 'sec-websocket-protocol': protocols }),
});

const stillServes = async (rig: Rig): Promise<void> => {
  const agent = await rig.greeted();
  agent.ws.close();
  await agent.closed;
};

describe('the front door', () => {
  test('tells plain HTTP what it is for', async () => {
    const rig = await start();
    expect(await ask(rig, '/', {})).toMatchObject({
      status: 426,
      text: expect.stringContaining('WebSocket only'),
    });
    expect(await ask(rig, '/anything', {}, 'POST')).toMatchObject({ status: 426 });
    await stillServes(rig);
  });

  test.each([undefined, 'futurestore.v2.protobuf', 'chat, superchat', ''])(
    'refuses an upgrade that offers %s',
    async (protocols) => {
      const rig = await start();
      const refused = await ask(rig, '/', upgrade(protocols));
      expect(refused.status).toBe(400);
      expect(refused.text).toContain('VERSION_NOT_SUPPORTED');
      expect(refused.text).toContain('futurestore.v1.protobuf and futurestore.v1.json');
      await stillServes(rig);
    },
  );

  test('refuses other paths, other methods, and pages of other origins', async () => {
    const rig = await start();
    const offered = upgrade('futurestore.v1.json');
    expect(await ask(rig, '/x', offered)).toMatchObject({ status: 404 });
    expect(await ask(rig, '/', offered, 'PUT')).toMatchObject({ status: 405 });
    const foreign = await ask(rig, '/', { ...offered, origin: 'https://evil.example' });
    expect(foreign).toMatchObject({ status: 403, text: expect.stringContaining('https://evil.example') });
  });

  test('lets in pages of the origins that are listed', async () => {
    const rig = await start({}, { origins: ['https://console.example'] });
    const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, ['futurestore.v1.json'], {
      ...(await tlsOptions(rig)),
      origin: 'https://console.example',
    });
    await once(ws, 'open');
    ws.terminate();
  });

  test("takes the first subprotocol of the client's that it knows", async () => {
    const rig = await start();
    const offered = ['other', 'futurestore.v1.json', 'futurestore.v1.protobuf'];
    const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, offered, { ...(await tlsOptions(rig)) });
    await once(ws, 'open');
    expect(ws.protocol).toBe('futurestore.v1.json');
    ws.terminate();
  });

  test('pitfall 53: compresses nothing, whoever offers to', async () => {
    const rig = await start();
    const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, ['futurestore.v1.protobuf'], {
      ...(await tlsOptions(rig)),
      perMessageDeflate: { threshold: 0 },
    });
    await once(ws, 'open');
    expect(ws.extensions).toBe('');
    ws.terminate();
  });

  test.each([
    ['a wildcard', 'CN=*', 'no segment'],
    ['a slash', 'CN=a/b', 'no segment'],
    ['two names', 'CN=web1, CN=admin', 'more than one'],
    ['no name', 'O=web1', 'no common name'],
  ])('closes with 4501 and says why: a certificate with %s', async (_what, subject, why) => {
    const rig = await start();
    const credentials = await issue(rig.world.puppet, { subject });
    const agent = await rig.agent({ credentials });
    const closed = await agent.closed;
    expect(closed.code).toBe(4501);
    expect(closed.reason).toContain(why);
    expect(rig.counts.all).toContain('turned away identity');
    expect(rig.port.requests).toEqual([]);
    await stillServes(rig);
  });

  test('refuses a certificate of an unknown CA, or none, and says so to both sides', async () => {
    const rig = await start();
    const { cert, key } = await issue(rig.world.stranger, { subject: 'CN=web1' });
    const refusal = async (credentials: { cert?: string; key?: string }): Promise<string> => {
      const options = { ca: rig.world.serverAuthority.pem, ...credentials };
      const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, [protobufCodec.subprotocol], options);
      const [, response] = (await once(ws, 'unexpected-response')) as [unknown, IncomingMessage];
      expect(response.statusCode).toBe(401);
      const chunks = (await response.toArray()) as Buffer[];
      return Buffer.concat(chunks).toString();
    };
    expect(await refusal({ cert, key })).toMatch(/UNAUTHENTICATED.*CN=web1.*signed by no CA of a realm/);
    expect(await refusal({})).toMatch(/UNAUTHENTICATED: a client certificate of a realm is required/);
    await rig.log.until((lines) => lines.filter((line) => line.fields['stage'] === 'http').length === 2);
    await stillServes(rig);
  });

  test('ends what speaks an older TLS, or none', async () => {
    const rig = await start();
    const old = connectTls({ ...(await tlsOptions(rig)), maxVersion: 'TLSv1.2' });
    await expect(once(old, 'secureConnect')).rejects.toThrow();
    const plain = connectTcp(rig.tcpPort, '127.0.0.1');
    plain.write('GET / HTTP/1.1\r\n\r\n');
    plain.resume();
    plain.on('error', () => undefined);
    await once(plain, 'close');
    await stillServes(rig);
  });

  test('pitfall 51: knows who it is after a resumed handshake as well', async () => {
    const rig = await start();
    const options = await tlsOptions(rig);
    const first = connectTls(options);
    const [ticket] = (await once(first, 'session')) as [Buffer];
    first.destroy();
    const resuming = { ...options, session: ticket };
    const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, [protobufCodec.subprotocol], resuming);
    let socket: TLSSocket | undefined;
    ws.on('upgrade', (response) => (socket = response.socket as TLSSocket));
    await once(ws, 'open');
    expect(socket?.isSessionReused()).toBe(true);
    ws.send(protobufCodec.encodeClientFrame({ hello, requests: [] }));
    const [data] = (await once(ws, 'message')) as [Buffer];
    expect(protobufCodec.decodeServerFrame(data).welcome?.principal).toBe('puppet:web1');
    ws.terminate();
  });

  test("tells agents every server's address, or those that are advertised in their place", async () => {
    const plain = await (await start()).greeted();
    expect(plain.frames[0]?.welcome?.endpoints).toEqual(['wss://one:7421', 'wss://two:7421']);
    const behind = await (await start({}, { advertise: ['wss://agents.example.com'] })).greeted();
    expect(behind.frames[0]?.welcome?.endpoints).toEqual(['wss://agents.example.com']);
  });

  test('tells realms apart by the key of their CA, though both CAs have one name', async () => {
    const { lab } = await theWorld();
    const rig = await start();
    const agent = await rig.greeted({ credentials: await issue(lab, { subject: 'CN=web1' }) });
    expect(agent.frames[0]?.welcome?.principal).toBe('lab:web1');
  });

  test('pitfall 52: ends a TLS handshake that does not go on', async () => {
    const rig = await start({ tlsHandshakeMs: 100 });
    const silent = connectTcp(rig.tcpPort, '127.0.0.1');
    silent.resume();
    await once(silent, 'close');
    await rig.log.until((lines) => lines.some((line) => line.fields['stage'] === 'tls'));
  });

  test('pitfall 52: ends a connection that says nothing after TLS', async () => {
    const rig = await start({ httpRequestMs: 100 });
    const silent = connectTls(await tlsOptions(rig));
    silent.resume();
    silent.on('error', () => undefined);
    await once(silent, 'close');
    await stillServes(rig);
  });

  test('pitfall 52: a hello that never comes ends with 4010', async () => {
    const rig = await start();
    const agent = await rig.agent();
    await agentArrived(rig);
    rig.clock.advance(6_000);
    expect(await agent.closed).toMatchObject({ code: 4010, reason: expect.stringContaining('hello') });
    expect(rig.counts.all).toEqual(['turned away hello']);
    expect(rig.port.notices).toEqual([]);
    await stillServes(rig);
  });

  test('closes at once who was still in the middle of a handshake when a drain began', async () => {
    const rig = await start();
    const stays = await rig.greeted();
    const late = connectTls(await tlsOptions(rig));
    late.on('error', () => undefined);
    await once(late, 'secureConnect');
    const headers = Object.entries(upgrade('futurestore.v1.json')).map(
      ([name, value]) => `${name}: ${value}\r\n`,
    );
    late.write('GET / HTTP/1.1\r\nhost: x\r\n');
    // The beginning of the request has arrived when another one's whole exchange is over.
    await stillServes(rig);
    const drained = rig.gateway.drain(1_000);
    late.write(`${headers.join('')}\r\n`);
    let received = Buffer.alloc(0);
    late.on('data', (chunk: Buffer) => (received = Buffer.concat([received, chunk])));
    await once(late, 'close');
    expect(received.toString('latin1')).toContain('101 Switching Protocols');
    expect(received.includes(Buffer.from([4090 >> 8, 4090 & 255]))).toBe(true);
    stays.ws.close();
    await drained;
  });

  test('logs only so many of those it turns away', async () => {
    const rig = await start({ turnedAwayLinesPerSecondMax: 2 });
    for (let times = 0; times < 5; times++) await ask(rig, '/', {});
    expect(rig.counts.all).toHaveLength(5);
    expect(rig.log.lines).toHaveLength(2);
    rig.clock.advance(1_000);
    await ask(rig, '/', {});
    expect(rig.log.lines.at(-1)?.fields).toMatchObject({ stage: 'http', suppressed: 3 });
  });

  test('pitfall 52: keeps only so many sockets without an identity, and these keep nobody out', async () => {
    const rig = await start({ unauthenticatedMax: 2 });
    const held = [connectTcp(rig.tcpPort, '127.0.0.1'), connectTcp(rig.tcpPort, '127.0.0.1')];
    await Promise.all(held.map((socket) => once(socket, 'connect')));
    const [longest] = held.map((socket) => once(socket.resume(), 'close'));
    // It takes the place of the one that has waited longest; those with an identity take none.
    await rig.greeted();
    await longest;
    expect(rig.counts.all).toContain('turned away capacity');
    expect(held[1]?.destroyed).toBe(false);
    await rig.greeted();
    await rig.greeted();
    expect(rig.gateway.connections).toBe(3);
    for (const socket of held) socket.destroy();
  });

  test('one principal has only so many connections, and others have theirs', async () => {
    const rig = await start({ connectionsPerPrincipalMax: 2 });
    const first = await rig.greeted();
    await rig.greeted();
    const third = await rig.agent();
    const reason = 'retry-after=15; puppet:web1 has 2 connections, as many as it may';
    expect(await third.closed).toEqual({ code: 4031, reason });
    first.ws.close();
    await first.closed;
    await untilServed(rig);
  });

  test('pitfall 52: takes on only so many connections at all', async () => {
    const rig = await start({ connectionsMax: 2 });
    await rig.greeted();
    const second = await rig.greeted();
    await expect(rig.agent()).rejects.toThrow();
    second.ws.close();
    await second.closed;
    await untilServed(rig);
  });
});

describe('a server that has no room', () => {
  test('pitfall 54: says so to agents, and when to come back', async () => {
    const rig = await start({ connectionsMax: 1, retryAfterMs: 12_000 });
    await rig.greeted();
    const options = { ca: rig.world.serverAuthority.pem, ...rig.world.web1 };
    const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, [protobufCodec.subprotocol], options);
    const [, response] = (await once(ws, 'unexpected-response')) as [unknown, IncomingMessage];
    expect(response.statusCode).toBe(503);
    expect(response.headers['retry-after']).toBe('12');
    expect(Buffer.concat((await response.toArray()) as Buffer[]).toString()).toMatch(/UNAVAILABLE.*12 s/);
    expect(rig.counts.all).toEqual(['turned away capacity']);
  });

  test('drops even those who would be told, above a second bound', async () => {
    const rig = await start({ connectionsMax: 1, refusalsMax: 1 });
    await rig.greeted();
    const held = connectTcp(rig.tcpPort, '127.0.0.1');
    await once(held, 'connect');
    await expect(rig.agent()).rejects.toThrow(/hang up|ECONNRESET|disconnected/);
    expect(rig.counts.all).toEqual(['turned away capacity']);
    held.destroy();
  });

  test('pitfall 54: a storm of handshakes is served in turn, and nobody in it is sent away', async () => {
    const rig = await start({ handshakesPerTurnMax: 1, unauthenticatedMax: 20, handshakesWaitingMax: 100 });
    const agents = await Promise.all(Array.from({ length: 40 }, () => rig.greeted()));
    expect(agents).toHaveLength(40);
    expect(rig.counts.all).toEqual([]);
  });
});

/** The gateway has made a connection of the client's, which the client's own 'open' does not tell. */
const agentArrived = async (rig: Rig): Promise<void> => {
  await rig.greeted().then((other) => other.ws.close());
  await rig.port.until((port) => port.notices.some((notice) => notice.kind === 'closed'));
  rig.port.notices.length = 0;
  rig.counts.all.length = 0;
};

/** Tries again until the server has noticed that there is room. */
const untilServed = async (rig: Rig): Promise<Awaited<ReturnType<Rig['greeted']>>> => {
  for (;;) {
    try {
      return await rig.greeted();
    } catch {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
};
