import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { fc, test } from '@fast-check/vitest';
import { afterEach, describe, expect } from 'vitest';
import { WebSocket } from 'ws';
import { proxyHeaderBytesMax, readProxyHeader } from '../../src/gateway/proxy-protocol.ts';
import { isNetwork, Networks, protobufCodec } from '../../src/protocol/index.ts';
import { hello, startGateway } from './harness.ts';
import type { Rig } from './harness.ts';
import { fromClient, ipv4Addresses, ownConnection, proxyHeader, tcp4, tcp6 } from './proxy-headers.ts';

const byte = fc.integer({ min: 0, max: 255 });
const port = fc.integer({ min: 0, max: 65_535 });
const tlv = fc.tuple(byte, fc.uint8Array({ maxLength: 200 })).map(([type, value]) => {
  const head = Buffer.from([type, value.length >> 8, value.length & 255]);
  return Buffer.concat([head, value]);
});
const tlvs = fc.array(tlv, { maxLength: 4 }).map((list) => Buffer.concat(list));

describe('the header of the PROXY protocol', () => {
  test.prop([fc.tuple(byte, byte, byte, byte), port, tlvs, fc.uint8Array({ maxLength: 40 })])(
    'tells where the agent is, and where the header ends',
    (address, clientPort, more, tls) => {
      const header = proxyHeader({ addresses: ipv4Addresses(address, clientPort), tlvs: more });
      expect(readProxyHeader(Buffer.concat([header, tls]))).toEqual({
        kind: 'complete',
        bytes: header.length,
        client: { address: address.join('.'), port: clientPort },
      });
    },
  );

  test.prop([fc.ipV6(), port])('tells addresses of IPv6 in their one short form', (text, clientPort) => {
    const url = new URL(`http://[${text}]`).hostname.slice(1, -1);
    const ports = Buffer.from([clientPort >> 8, clientPort & 255, 0, 1]);
    const addresses = Buffer.concat([ipv6Bytes(url), randomBytes(16), ports]);
    const read = readProxyHeader(proxyHeader({ family: tcp6, addresses }));
    expect(read).toMatchObject({ kind: 'complete', client: { address: url, port: clientPort } });
  });

  test.prop([fc.tuple(byte, byte, byte, byte), port, tlvs])(
    'is not taken before all of it is there, however it is cut',
    (address, clientPort, more) => {
      const header = proxyHeader({ addresses: ipv4Addresses(address, clientPort), tlvs: more });
      for (let bytes = 0; bytes < header.length; bytes++)
        expect(readProxyHeader(header.subarray(0, bytes))).toEqual({ kind: 'incomplete' });
    },
  );

  test.prop([fc.uint8Array({ maxLength: 4096 })])(
    'noise is refused or waited for, and never thrown at',
    (bytes) => {
      const read = readProxyHeader(bytes);
      expect(['incomplete', 'refused']).toContain(read.kind);
      if (bytes.length >= 12) expect(read.kind).toBe('refused');
    },
  );

  test.prop([
    byte,
    byte,
    fc.integer({ min: 0, max: 65_535 }),
    fc.uint8Array({ minLength: 2100, maxLength: 2100 }),
  ])(
    'whatever follows the signature, it is decided within the bound',
    (versionAndCommand, family, length, rest) => {
      const header = proxyHeader({ family, addresses: rest, length });
      header[12] = versionAndCommand;
      const read = readProxyHeader(header);
      expect(read.kind).not.toBe('incomplete');
      if (read.kind === 'complete') expect(read.bytes).toBe(16 + length);
      if (read.kind === 'complete') expect(read.bytes).toBeLessThanOrEqual(proxyHeaderBytesMax);
    },
  );

  test('is skipped where the connection is of the balancer itself, or it does not know', () => {
    const known = ipv4Addresses([192, 0, 2, 7], 4000);
    const skipped = { kind: 'complete', client: undefined };
    expect(readProxyHeader(ownConnection())).toMatchObject(skipped);
    expect(readProxyHeader(proxyHeader({ command: 0, addresses: known }))).toMatchObject(skipped);
    expect(readProxyHeader(proxyHeader({ family: 0, addresses: known }))).toMatchObject(skipped);
  });

  test.each([
    ['version 1, in words', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 4000 7421\r\n'), 'version 2'],
    ['another version', proxyHeader({ version: 3, addresses: ipv4Addresses([1, 2, 3, 4], 1) }), 'version 3'],
    ['another command', proxyHeader({ command: 2, addresses: ipv4Addresses([1, 2, 3, 4], 1) }), 'command 2'],
    ['datagrams', proxyHeader({ family: 0x12, addresses: ipv4Addresses([1, 2, 3, 4], 1) }), '0x12'],
    ['a Unix socket', proxyHeader({ family: 0x31, addresses: new Uint8Array(216) }), '0x31'],
    ['half an address', proxyHeader({ family: tcp4, addresses: new Uint8Array(11) }), 'need 12'],
    ['half an address of IPv6', proxyHeader({ family: tcp6, addresses: new Uint8Array(35) }), 'need 36'],
    [
      'a TLV beyond its end',
      proxyHeader({ addresses: new Uint8Array(12), tlvs: Buffer.from([1, 0, 2, 0]) }),
      'fit',
    ],
    ['half a TLV', proxyHeader({ addresses: new Uint8Array(12), tlvs: Buffer.from([1, 0]) }), 'fit'],
    ['more than is read', proxyHeader({ addresses: new Uint8Array(12), length: 2049 }), '2048'],
  ])('is refused, with the reason: %s', (_what, bytes, reason) => {
    expect(readProxyHeader(bytes)).toEqual({ kind: 'refused', problem: expect.stringContaining(reason) });
  });
});

const ipv6Bytes = (text: string): Buffer => {
  const [before = '', after] = text.split('::');
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'));
  const left = groups(before);
  const right = groups(after ?? '');
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0');
  return Buffer.from([...left, ...zeros, ...right].map((group) => group.padStart(4, '0')).join(''), 'hex');
};

describe('lists of networks', () => {
  test('hold addresses and networks of both families', () => {
    const networks = new Networks(['192.0.2.7', '10.0.0.0/8', '2001:db8::/32', '::1']);
    for (const inside of ['192.0.2.7', '10.255.0.1', '::ffff:10.1.2.3', '2001:db8:1::5', '::1'])
      expect(networks.has(inside), inside).toBe(true);
    for (const outside of ['192.0.2.8', '11.0.0.1', '::ffff:11.1.2.3', '2001:db9::1', '::2', undefined])
      expect(networks.has(outside), String(outside)).toBe(false);
    expect(new Networks([]).has('127.0.0.1')).toBe(false);
  });

  test.each([
    '',
    'localhost',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0/8',
    '::/129',
    '10.0.0.0/08',
    '1.2.3.4/8/8',
    'fe80::1%lo',
  ])('%s is none', (text) => {
    expect(isNetwork(text)).toBe(false);
    expect(() => new Networks([text])).toThrow(RangeError);
  });
});

const rigs: Rig[] = [];

afterEach(async () => {
  await Promise.all(rigs.splice(0).map((rig) => rig.close()));
});

const start = async (proxies: readonly string[], limits = {}): Promise<Rig> => {
  const rig = await startGateway(limits, { proxies });
  rigs.push(rig);
  return rig;
};

/** TCP on which the bytes have been written. */
const open = async (rig: Rig, ...chunks: readonly Uint8Array[]): Promise<Socket> => {
  const socket = connectTcp(rig.tcpPort, '127.0.0.1');
  socket.setNoDelay();
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  for (const chunk of chunks) {
    socket.write(chunk);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return socket;
};

/** However it comes about. */
const closeOf = (socket: Socket): Promise<void> =>
  new Promise((resolve) => socket.resume().once('close', () => resolve()));

/** An agent that comes through the socket, as far as its welcome. */
const greet = async (rig: Rig, socket: Socket): Promise<void> => {
  const ws = new WebSocket(`wss://127.0.0.1:${rig.tcpPort}`, [protobufCodec.subprotocol], {
    createConnection: () =>
      connectTls({ socket, ca: rig.world.serverAuthority.pem, ...rig.world.web1, servername: '' }),
  });
  await once(ws, 'open');
  ws.send(protobufCodec.encodeClientFrame({ hello, requests: [] }));
  const [data] = (await once(ws, 'message')) as [Buffer];
  expect(protobufCodec.decodeServerFrame(data).welcome?.principal).toBe('puppet:web1');
  ws.terminate();
};

const connectedFrom = (rig: Rig): unknown[] =>
  rig.log.lines
    .filter(({ message }) => message === 'an agent connected')
    .map(({ fields }) => fields['remote']);

const turnedAway = async (rig: Rig, stage: string): Promise<Readonly<Record<string, unknown>>> => {
  const isIt = ({ fields }: { readonly fields: Readonly<Record<string, unknown>> }): boolean =>
    fields['stage'] === stage;
  await rig.log.until((lines) => lines.some(isIt));
  return rig.log.lines.find(isIt)?.fields ?? {};
};

describe('agents that come through a load balancer', () => {
  test('are logged with their own addresses, and served', async () => {
    const rig = await start(['127.0.0.0/8']);
    await greet(rig, await open(rig, fromClient('192.0.2.7', 4000)));
    expect(connectedFrom(rig)).toEqual(['192.0.2.7']);
  });

  test('are served however the header is cut, and where it and TLS come as one', async () => {
    const rig = await start(['127.0.0.1']);
    const header = fromClient('192.0.2.8', 4001);
    const bytes = Array.from(header, (value) => Uint8Array.of(value));
    await greet(rig, await open(rig, ...bytes));
    const socket = await open(rig);
    // Corked, the header leaves with the first bytes of TLS.
    socket.cork();
    socket.write(header);
    const served = greet(rig, socket);
    setImmediate(() => socket.uncork());
    await served;
    expect(connectedFrom(rig)).toEqual(['192.0.2.8', '192.0.2.8']);
  });

  test("a balancer's own connection is served, as its own", async () => {
    const rig = await start(['127.0.0.1']);
    await greet(rig, await open(rig, ownConnection()));
    expect(connectedFrom(rig)).toEqual(['127.0.0.1']);
  });

  test('a header from an address that is not trusted is noise, and no address is believed', async () => {
    const rig = await start(['192.0.2.1', '10.0.0.0/8']);
    const socket = await open(rig, fromClient('192.0.2.7', 4000));
    await closeOf(socket);
    expect(await turnedAway(rig, 'tls')).toMatchObject({ remote: '127.0.0.1' });
    await greet(rig, await open(rig));
  });

  test('a trusted balancer must send one', async () => {
    const rig = await start(['127.0.0.1']);
    await expect(rig.agent()).rejects.toThrow();
    expect(await turnedAway(rig, 'proxy')).toMatchObject({ problem: expect.stringContaining('version 2') });
    expect(rig.counts.all).toEqual(['turned away proxy']);
  });

  test('pitfall 52: a header that does not come in time ends the connection, also one that comes byte by byte', async () => {
    const rig = await start(['127.0.0.1'], { tlsHandshakeMs: 150 });
    const silent = await open(rig);
    const slow = await open(rig);
    const header = fromClient('192.0.2.7', 1);
    let sent = 0;
    const dripping = setInterval(() => slow.write(header.subarray(sent, ++sent)), 20);
    await Promise.all([closeOf(silent), closeOf(slow)]);
    clearInterval(dripping);
    expect(rig.counts.all).toEqual(['turned away proxy', 'turned away proxy']);
  });

  test('pitfall 52: nothing after the header ends it, too', async () => {
    const rig = await start(['127.0.0.1'], { tlsHandshakeMs: 150 });
    const silent = await open(rig, fromClient('192.0.2.9', 1));
    await closeOf(silent);
    expect(await turnedAway(rig, 'tls')).toMatchObject({ remote: '192.0.2.9' });
  });

  test('what is refused after the header is told of the agent, not of the balancer', async () => {
    const rig = await start(['127.0.0.1']);
    const socket = await open(rig, fromClient('192.0.2.10', 1), Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await closeOf(socket);
    expect(await turnedAway(rig, 'tls')).toMatchObject({ remote: '192.0.2.10' });
  });
});
