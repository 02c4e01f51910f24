import { once } from 'node:events';
import { createServer } from 'node:https';
import type { Server } from 'node:https';
import { createServer as createTcpServer } from 'node:net';
import type { AddressInfo, Server as TcpServer } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { connect } from '../../src/client/index.ts';
import type { Client, ConnectOptions } from '../../src/client/index.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import { issue, makeCa } from '../support/certificates.ts';
import type { IssuedCertificate, TestCa } from '../support/certificates.ts';
import { welcome } from './support/world.ts';

let agentsCa: TestCa;
let serversCa: TestCa;
let serverCertificate: IssuedCertificate;
let agent: IssuedCertificate;
const servers: Server[] = [];
const tcpServers: TcpServer[] = [];
const clients: Client[] = [];

beforeAll(async () => {
  [agentsCa, serversCa] = await Promise.all([makeCa('agents'), makeCa('servers')]);
  serverCertificate = await issue(serversCa, { cn: 'server-1', server: ['127.0.0.1', 'localhost'] });
  agent = await issue(agentsCa, { cn: 'web1', client: true });
});

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
});

afterAll(() => {
  for (const server of tcpServers) server.close();
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

/** A real server that welcomes and answers every get with nothing; `status` refuses the upgrade instead, with header lines. */
async function listen(
  status?: number,
  headers = '',
): Promise<{ endpoint: string; mask: () => Buffer | undefined; resumed: () => number }> {
  const server = createServer({
    cert: serverCertificate.cert,
    key: serverCertificate.key,
    ca: agentsCa.cert,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  });
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  let mask: Buffer | undefined;
  let resumed = 0;
  server.on('secureConnection', (socket) => {
    if (socket.isSessionReused()) resumed += 1;
  });
  server.on('upgrade', (request, socket, head) => {
    if (status !== undefined) {
      socket.end(`HTTP/1.1 ${String(status)} No\r\nConnection: close\r\n${headers}Content-Length: 0\r\n\r\n`);
      return;
    }
    // The mask of the first frame: two bytes of header, perhaps two of length, four of mask.
    socket.prependOnceListener('data', (bytes: Buffer) => {
      const at = ((bytes[1] ?? 0) & 0x7f) === 126 ? 4 : 2;
      mask = Buffer.from(bytes.subarray(at, at + 4));
    });
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      webSocket.on('message', (data) => {
        if (!Buffer.isBuffer(data)) return;
        const frame = protobufCodec.decodeClientFrame(data);
        const answers = frame.requests.map(({ id }) => ({
          id,
          body: { kind: 'got' as const, revision: 1, future: undefined },
        }));
        const hello = frame.hello === undefined ? {} : { welcome };
        webSocket.send(protobufCodec.encodeServerFrame({ ...hello, answers, pushes: [] }));
      });
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { endpoint: `wss://127.0.0.1:${String(port)}`, mask: () => mask, resumed: () => resumed };
}

function client(endpoint: string, options: Partial<ConnectOptions> = {}): Client {
  const made = connect({
    endpoints: [endpoint],
    ca: serversCa.cert,
    cert: agent.cert,
    key: agent.key,
    ...options,
  });
  clients.push(made);
  return made;
}

describe('over real TLS', () => {
  test('a client connects, asks and closes, with a zero masking key', async () => {
    const { endpoint, mask } = await listen();
    const connected = client(endpoint);
    await expect(connected.get('a')).resolves.toBeUndefined();
    expect(connected.state).toMatchObject({ kind: 'connected', endpoint });
    expect(mask()).toEqual(Buffer.alloc(4));
    await connected.close();
    expect(connected.state.kind).toBe('closed');
  });

  test('a certificate of an unknown CA is refused with what to check, not tried for ever', async () => {
    const { endpoint } = await listen();
    const stranger = await issue(await makeCa('strangers'), { cn: 'web1', client: true });
    const error: unknown = await client(endpoint, { cert: stranger.cert, key: stranger.key })
      .get('a')
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(String(error)).toContain('"cert" and "key"');
  });

  test('a server of an unknown CA is not spoken to', async () => {
    const { endpoint } = await listen();
    const error: unknown = await client(endpoint, { ca: agentsCa.cert })
      .get('a')
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(String(error)).toContain('"ca"');
  });

  test('nobody listening is told with the address', async () => {
    const error: unknown = await client('wss://127.0.0.1:1')
      .get('a', { timeoutMs: 300 })
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'UNAVAILABLE' });
    expect(String(error)).toContain('ECONNREFUSED 127.0.0.1:1');
  });

  test.each(['at once', 'when it has seen how TLS begins'])(
    'pitfall 54: a server that hangs up %s, before TLS, is busy and not suspected: the client waits by chance, longer each time',
    async (when) => {
      let dials = 0;
      const server = createTcpServer((socket) => {
        dials += 1;
        socket.on('error', () => undefined);
        if (when === 'at once') socket.destroy();
        else socket.once('data', () => socket.destroy());
      });
      tcpServers.push(server);
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const endpoint = `wss://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
      const waits: number[] = [];
      // Where the servers' refusal was suspected, the fifth try would be the last.
      const tried = new Promise<void>((resolve) => {
        client(endpoint, {
          onStateChange: (state) => {
            if (state.kind === 'waiting') waits.push(state.retryAtMs - Date.now());
            if (waits.length === 6) resolve();
          },
        });
      });
      await tried;
      expect(dials).toBe(6);
      for (const [attempt, wait] of waits.entries()) expect(wait).toBeLessThanOrEqual(100 * 2 ** attempt + 1);
      expect(
        new Set(waits.map((wait, attempt) => (wait / (100 * 2 ** attempt)).toFixed(2))).size,
      ).toBeGreaterThan(2);
    },
  );

  test('a server without room is not tried again before the time that its Retry-After says', async () => {
    const { endpoint } = await listen(503, 'Retry-After: 20\r\n');
    const before = Date.now();
    const retryAtMs = await new Promise<number>((resolve) => {
      client(endpoint, {
        onStateChange: (state) => {
          if (state.kind === 'waiting') resolve(state.retryAtMs);
        },
      });
    });
    expect(retryAtMs - before).toBeGreaterThanOrEqual(20_000);
  });

  test('a server that does not speak the protocol is told apart from a busy one', async () => {
    const [stranger, busy] = [await listen(400), await listen(503)];
    await expect(client(stranger.endpoint).get('a')).rejects.toMatchObject({ code: 'VERSION_NOT_SUPPORTED' });
    await expect(client(busy.endpoint).get('a', { timeoutMs: 300 })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
  });

  test('certificate and key that do not belong together are refused at once', async () => {
    const other = await issue(agentsCa, { cn: 'web2', client: true });
    expect(() => client('wss://127.0.0.1:1', { key: other.key })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});
