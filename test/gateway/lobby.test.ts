import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { gatewayLimits } from '../../src/gateway/index.ts';
import { Lobby } from '../../src/gateway/lobby.ts';

let server: Server | undefined;
const clients: Socket[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.destroy();
  server?.close();
});

test('who waits in line for a handshake makes no room for others, and those who say nothing do', async () => {
  const turnedAway: string[] = [];
  const lobby = new Lobby({
    // Nobody's turn comes.
    limits: { ...gatewayLimits, unauthenticatedMax: 2, handshakesPerTurnMax: 0, handshakesWaitingMax: 4 },
    proxies: [],
    nowMs: () => 0,
    unknownElsewhere: () => 0,
    handOver: () => expect.unreachable(),
    turnedAway: (stage, problem) => turnedAway.push(`${stage}: ${problem}`),
  });
  const listening = createServer((socket) => lobby.enter(socket));
  server = listening;
  await once(listening.listen(0, '127.0.0.1'), 'listening');
  const open = async (text: string): Promise<Socket> => {
    const client = connect((listening.address() as AddressInfo).port, '127.0.0.1');
    clients.push(client);
    client.on('error', () => undefined);
    await once(client, 'connect');
    client.write(text);
    return client;
  };
  const closed: Socket[] = [];
  for (let inLine = 1; inLine <= 4; inLine += 1) {
    const client = await open('x');
    client.resume().once('close', () => closed.push(client));
    while (lobby.inLine < inLine) await new Promise((resolve) => setImmediate(resolve));
  }
  const silent = [await open(''), await open('')];
  const first = new Promise((resolve) => silent[0]?.resume().once('close', resolve));
  await open('');
  await first;
  expect(closed).toEqual([]);
  expect(turnedAway).toEqual(['capacity: it waited longest of too many that had not shown an identity']);
  // The line has an end, too.
  const late = await open('x');
  await new Promise((resolve) => late.resume().once('close', resolve));
  expect(closed).toEqual([]);
  expect(turnedAway.at(-1)).toBe('capacity: as many wait for a TLS handshake as may');
  expect(lobby.inLine).toBe(4);
});
