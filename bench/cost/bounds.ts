/**
 * npm run bench:cost -- --bounds: what the parts that nobody can do without cost on this machine, in µs of a processor:
 * a message over TLS, alone and with others, and the coding of a write; and how often the disk syncs.
 */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { protobufCodec, type Request } from '../../src/protocol/index.ts';
import { keyOf, value } from '../load/operations.ts';
import { measureSyncs } from '../machine.ts';
import { makeCertificates } from '../systems/certificates.ts';

const usOf = (before: NodeJS.CpuUsage, count: number): number => {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / count;
};

/** Of a message that goes to another socket of this process and back, `together` of them in one write. */
const echoUs = async (together: number): Promise<number> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-bounds-'));
  const files = await makeCertificates(directory);
  const [ca, cert, key] = [files.ca, files.cert, files.key].map((file) => readFileSync(file));
  rmSync(directory, { recursive: true });
  const server = createServer({ ca, cert, key, requestCert: true }, (socket) => {
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => socket.write(chunk));
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect({
    port: (server.address() as AddressInfo).port,
    ca,
    cert,
    key,
    servername: 'localhost',
  });
  await once(socket, 'secureConnect');
  socket.setNoDelay(true);
  const message = Buffer.alloc(350 * together, 1);
  const round = async (count: number): Promise<void> => {
    for (let sent = 0; sent < count; sent += together) {
      let missing = message.length;
      const back = new Promise<void>((resolve) => {
        const take = (chunk: Buffer): void => {
          missing -= chunk.length;
          if (missing > 0) return;
          socket.off('data', take);
          resolve();
        };
        socket.on('data', take);
      });
      socket.write(message);
      await back;
    }
  };
  const count = 4000 * Math.sqrt(together);
  await round(count);
  const before = process.cpuUsage();
  await round(count);
  // There and back.
  const us = usOf(before, count * 2);
  socket.destroy();
  server.close();
  return us;
};

/** Of a frame to each of a hundred sockets, to the last byte that is read there: what no fan-out can do without. */
const fanOutUs = async (bytes: number): Promise<number> => {
  const sockets = 100;
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-bounds-'));
  const files = await makeCertificates(directory);
  const [ca, cert, key] = [files.ca, files.cert, files.key].map((file) => readFileSync(file));
  rmSync(directory, { recursive: true });
  const accepted: TLSSocket[] = [];
  const server = createServer({ ca, cert, key, noDelay: true }, (socket) => {
    accepted.push(socket);
    socket.on('error', () => undefined);
    if (accepted.length === sockets) server.emit('all');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let missing = 0;
  let reached = (): void => {};
  const all = once(server, 'all');
  const readers = Array.from({ length: sockets }, () =>
    connect({ port, ca, servername: 'localhost' }).on('data', (chunk: Buffer) => {
      missing -= chunk.length;
      if (missing === 0) reached();
    }),
  );
  await all;
  const frame = Buffer.alloc(bytes, 1);
  const rounds = async (count: number): Promise<void> => {
    for (let round = 0; round < count; round += 1) {
      missing = sockets * bytes;
      const read = new Promise<void>((resolve) => (reached = resolve));
      for (const socket of accepted) socket.write(frame);
      await read;
    }
  };
  await rounds(200);
  const before = process.cpuUsage();
  await rounds(200);
  const us = usOf(before, 200 * sockets);
  for (const reader of readers) reader.destroy();
  server.close();
  return us;
};

const requests: readonly Request[] = Array.from({ length: 16 }, (_, number) => ({
  id: number + 1,
  body: {
    kind: 'write',
    sequence: number + 1,
    answeredBelow: 1,
    operations: [
      {
        kind: 'resolve',
        key: keyOf('bound', 1, number),
        preconditions: {},
        value: Buffer.from(value),
        contentType: 'text/plain; charset=utf-8',
        sensitive: false,
        supersede: false,
      },
    ],
  },
}));

const codecUs = (): { readonly encode: number; readonly decode: number } => {
  const frame = protobufCodec.encodeClientFrame({ requests });
  const measured = (work: () => unknown): number => {
    const rounds = 20_000;
    for (let round = 0; round < rounds; round += 1) work();
    const before = process.cpuUsage();
    for (let round = 0; round < rounds; round += 1) work();
    return usOf(before, rounds * requests.length);
  };
  return {
    encode: measured(() => protobufCodec.encodeClientFrame({ requests })),
    decode: measured(() => protobufCodec.decodeClientFrame(frame)),
  };
};

export const boundLines = async (): Promise<readonly string[]> => {
  const alone = await echoUs(1);
  const together = await echoUs(16);
  const told = await fanOutUs(350);
  const toldTen = await fanOutUs(3500);
  const { encode, decode } = codecUs();
  return [
    `${alone.toFixed(1).padStart(8)} µs  a message of 350 bytes over TLS to another socket, alone`,
    `${together.toFixed(1).padStart(8)} µs  the same, 16 in one write`,
    `${told.toFixed(1).padStart(8)} µs  350 bytes to one of a hundred sockets, one way`,
    `${toldTen.toFixed(1).padStart(8)} µs  3,500 bytes, ten changes`,
    `${encode.toFixed(2).padStart(8)} µs  a write encoded by a client`,
    `${decode.toFixed(2).padStart(8)} µs  a write decoded and checked by a gateway`,
    `${measureSyncs().toFixed(0).padStart(8)}     syncs of 4 KiB in a second`,
  ];
};
