/** Sockets that break off anywhere on their way in: nothing of them is left, and the others are served. */
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls, TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { OwnPrincipals } from '../../src/gateway/principals.ts';
import { SocketCounts } from '../../src/gateway/socket-counts.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import { hello, startGateway } from './harness.ts';
import type { Rig } from './harness.ts';
import { fromClient, ipv4Addresses, ownConnection, proxyHeader } from './proxy-headers.ts';

let rig: Rig;
afterEach(() => rig.close());

class CountedPrincipals extends OwnPrincipals {
  present = 0;
  override enter(principal: string, max: number, told: (admitted: boolean) => void): void {
    super.enter(principal, max, (admitted) => {
      if (admitted) this.present += 1;
      told(admitted);
    });
  }
  override leave(principal: string): void {
    this.present -= 1;
    super.leave(principal);
  }
}

const closed = (socket: Socket | TLSSocket): Promise<unknown> =>
  new Promise((resolve) => {
    if (socket.destroyed) resolve(undefined);
    else socket.once('close', resolve);
  });

const quiet = <Some extends Socket>(socket: Some): Some => {
  socket.on('error', () => undefined);
  socket.resume();
  return socket;
};

const tcp = async (): Promise<Socket> => {
  const socket = quiet(connectTcp(rig.tcpPort, '127.0.0.1'));
  socket.setNoDelay();
  await once(socket, 'connect');
  return socket;
};

/** A reset from below TLS is more than this Node's client survives. */
const end = (socket: Socket, how: number): void => {
  if (how % 3 === 0 && !(socket instanceof TLSSocket)) socket.resetAndDestroy();
  else if (how % 3 === 1) socket.end();
  else socket.destroy();
};

/** Behind a PROXY header. */
const tls = async (certificate = true): Promise<TLSSocket> => {
  const socket = await tcp();
  socket.pause();
  socket.write(fromClient('192.0.2.7', 4000));
  const secure = connectTls({
    socket,
    ca: rig.world.serverAuthority.pem,
    ...(certificate && rig.world.web1),
    servername: '',
  });
  quiet(secure);
  await Promise.race([once(secure, 'secureConnect'), closed(secure)]).catch(() => undefined);
  return secure;
};

const upgrade = (key = 'AAAAAAAAAAAAAAAAAAAAAA=='): string =>
  `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Protocol: ${protobufCodec.subprotocol}\r\n\r\n`;

const openings: readonly Uint8Array[] = [
  new Uint8Array(),
  Buffer.from('GET / HTTP/1.1\r\n\r\n'),
  Buffer.from('PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n'),
  ownConnection(),
  Buffer.concat([ownConnection(), Buffer.from([0x16])]),
  Buffer.concat([fromClient('192.0.2.1', 1), Buffer.from([0x16, 3, 1, 0, 5])]),
  Buffer.concat([fromClient('192.0.2.1', 1), Buffer.alloc(100_000, 0x16)]),
  proxyHeader({ addresses: ipv4Addresses([1, 2, 3, 4], 5), length: 2048 }),
  proxyHeader({ addresses: ipv4Addresses([1, 2, 3, 4], 5), length: 65535 }),
  proxyHeader({ addresses: ipv4Addresses([1, 2, 3, 4], 5), length: 3 }),
  proxyHeader({ family: 0x21, addresses: ipv4Addresses([1, 2, 3, 4], 5) }),
  proxyHeader({ addresses: ipv4Addresses([1, 2, 3, 4], 5), tlvs: Uint8Array.of(1, 0, 9) }),
  proxyHeader({ version: 1, addresses: new Uint8Array() }),
  Buffer.concat([ownConnection(), ownConnection()]),
];

/** What one does after its handshake. */
const requests: readonly string[] = [
  '',
  'GET / HT',
  'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc',
  'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
  upgrade('short'),
  upgrade().replace('futurestore', 'nothing'),
  upgrade(),
  `${upgrade()}\x82\x85`,
];

const early = async (number: number): Promise<void> => {
  const bytes = openings[number % openings.length] ?? new Uint8Array();
  const socket = await tcp();
  const cut = number % 2 === 0 ? bytes.length : Math.floor((bytes.length * (number % 7)) / 7);
  socket.write(bytes.subarray(0, cut));
  if (number % 5 !== 0) await new Promise((resolve) => setImmediate(resolve));
  end(socket, number);
  await closed(socket);
};

const late = async (number: number): Promise<void> => {
  const socket = await tls(number % 4 !== 0);
  if (socket.destroyed) return;
  socket.write(requests[number % requests.length] ?? '');
  if (number % 5 !== 0) await new Promise((resolve) => setTimeout(resolve, number % 20));
  end(socket, number);
  await closed(socket);
};

const greeted = async (number: number): Promise<void> => {
  const socket = await tls();
  const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, [protobufCodec.subprotocol], {
    createConnection: () => socket,
  });
  ws.on('error', () => undefined);
  await once(ws, 'open').catch(() => undefined);
  const requested = { id: 1, body: { kind: 'get', key: 'nodes/web1/x', stale: false } } as const;
  if (number % 3 !== 0) ws.send(protobufCodec.encodeClientFrame({ hello, requests: [requested] }));
  if (number % 2 === 0) ws.ping();
  if (number % 7 !== 0) await new Promise((resolve) => setTimeout(resolve, number % 10));
  end(socket, number);
  await closed(socket);
};

describe('sockets that break off on their way in', () => {
  test('leave nothing behind, wherever that is', async () => {
    const memory = SocketCounts.memory(2);
    const others = new SocketCounts(memory, 1);
    const principals = new CountedPrincipals();
    const limits = { tlsHandshakeMs: 400, httpRequestMs: 400, handshakeWaitMs: 60_000 };
    rig = await startGateway(limits, {
      proxies: ['127.0.0.1'],
      sockets: new SocketCounts(memory, 0),
      principals,
    });
    for (let round = 0; round < 3; round += 1) {
      const numbers = Array.from({ length: 42 }, (_, index) => round * 42 + index);
      await Promise.all(numbers.flatMap((number) => [early(number), late(number), greeted(number)]));
    }
    await expect.poll(() => [others.othersOpen, others.othersWaiting], { timeout: 10_000 }).toEqual([0, 0]);
    expect(principals.present).toBe(0);
    expect(rig.gateway.connections).toBe(0);
    expect(rig.log.lines.filter(({ level }) => level === 'error')).toEqual([]);
    const asked = new Set(rig.port.requests.map(({ connection }) => connection));
    const told = rig.port.notices.flatMap((notice) => (notice.kind === 'closed' ? [notice.connection] : []));
    for (const connection of asked) expect(told).toContain(connection);
    expect(new Set(told).size).toBe(told.length);
    await greeted(1);
  }, 60_000);
});
