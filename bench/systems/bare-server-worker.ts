/** One of three servers of bare parts, in a process of its own: see bare-parts.ts. */
import { createServer } from 'node:https';
import process from 'node:process';
import { connect, createServer as createPeersServer, type TLSSocket } from 'node:tls';
import { Level } from 'level';
import { WebSocketServer, type WebSocket } from 'ws';
import { protobufCodec } from '../../src/protocol/index.ts';
import type { Answer, Operation, Request } from '../../src/protocol/index.ts';
import { sleep } from '../../test/support/process-cluster.ts';

export interface BareServerJob {
  readonly directory: string;
  readonly agentsPort: number;
  readonly peersPort: number;
  /** The others' peers ports. */
  readonly others: readonly number[];
  /** PEM; of servers and clients alike. */
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string };
}

type Operations = readonly Operation[];

/** One synced batch at a time; while it is written the next one fills. */
class Disk {
  readonly #database: Level<string, Buffer>;
  #waiting: { readonly operations: Operations; readonly done: () => void }[] = [];
  #writing = false;

  constructor(directory: string) {
    this.#database = new Level(directory, {
      keyEncoding: 'utf8',
      valueEncoding: 'buffer',
      compression: false,
      writeBufferSize: 32 * 1024 * 1024,
    });
  }

  open(): Promise<void> {
    return this.#database.open();
  }

  add(operations: Operations, done: () => void): void {
    this.#waiting.push({ operations, done });
    if (!this.#writing) this.#write();
  }

  #write(): void {
    const now = this.#waiting;
    this.#waiting = [];
    this.#writing = true;
    const batch = this.#database.batch();
    for (const { operations } of now) {
      for (const operation of operations) {
        if (operation.kind !== 'resolve') continue;
        const { buffer, byteOffset, length } = operation.value;
        batch.put(operation.key, Buffer.from(buffer, byteOffset, length));
      }
    }
    const written = (): void => {
      this.#writing = false;
      for (const { done } of now) done();
      if (this.#waiting.length > 0) this.#write();
    };
    batch.write({ sync: true }).then(written, (error: unknown) => {
      console.error(error);
      process.exit(1);
    });
  }
}

const numberBytes = 4;

/** Byte strings, each behind its length. */
const framed = (frames: readonly Buffer[]): Buffer => {
  const bytes = Buffer.allocUnsafe(frames.reduce((sum, { length }) => sum + numberBytes + length, 0));
  let at = 0;
  for (const frame of frames) {
    at = bytes.writeUInt32LE(frame.length, at);
    at += frame.copy(bytes, at);
  }
  return bytes;
};

function* unframed(bytes: Buffer): Generator<Buffer, void, undefined> {
  for (let at = 0; at < bytes.length;) {
    const from = at + numberBytes;
    at = from + bytes.readUInt32LE(at);
    yield bytes.subarray(from, at);
  }
}

/** Calls `take` with each whole frame that the socket gives. */
const readFrames = (socket: TLSSocket, take: (frame: Buffer) => void): void => {
  let unread: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    unread = unread.length === 0 ? chunk : Buffer.concat([unread, chunk]);
    while (unread.length >= numberBytes) {
      const end = numberBytes + unread.readUInt32LE(0);
      if (unread.length < end) return;
      take(unread.subarray(numberBytes, end));
      unread = unread.subarray(end);
    }
  });
};

const requestsIn = (frame: Buffer): readonly Request[] =>
  protobufCodec.decodeClientFrame(frame).requests.flatMap((request) => ('body' in request ? [request] : []));

const operationsIn = (frame: Buffer): Operations =>
  requestsIn(frame).flatMap(({ body }) => (body.kind === 'write' ? body.operations : []));

/** What came in one turn. */
class Round {
  readonly frames: Buffer[] = [];
  readonly operations: Operation[] = [];
  readonly #answers = new Map<WebSocket, Answer[]>();
  #acknowledged = 0;

  take(ws: WebSocket, frame: Buffer): void {
    this.frames.push(frame);
    for (const { id, body } of requestsIn(frame)) {
      if (body.kind === 'open_session') answer(ws, [{ id, body: { kind: 'session_opened' } }]);
      if (body.kind !== 'write') continue;
      this.operations.push(...body.operations);
      const results = body.operations.map(() => {
        return { generation: 1, state: 'resolved' as const, revision: 1, unchanged: false };
      });
      const written: Answer = { id, body: { kind: 'written', result: { revision: 1, results } } };
      const answers = this.#answers.get(ws);
      if (answers === undefined) this.#answers.set(ws, [written]);
      else answers.push(written);
    }
  }

  /** One more server has it on disk: two are a majority. */
  acknowledge(): void {
    this.#acknowledged += 1;
    if (this.#acknowledged !== 2) return;
    for (const [ws, answers] of this.#answers) answer(ws, answers);
  }
}

const answer = (ws: WebSocket, answers: readonly Answer[]): void =>
  ws.send(protobufCodec.encodeServerFrame({ answers, pushes: [] }), { binary: true });

/** Resolves once the other server is there. */
const connectTo = async (port: number, tls: BareServerJob['tls']): Promise<TLSSocket> => {
  for (;;) {
    const socket = connect({ ...tls, host: '127.0.0.1', port, servername: 'localhost' });
    socket.setNoDelay(true);
    const connected = await new Promise<boolean>((resolve) => {
      socket.once('secureConnect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    if (connected) return socket;
    await sleep(50);
  }
};

const serve = async ({ directory, agentsPort, peersPort, others, tls }: BareServerJob): Promise<void> => {
  const disk = new Disk(directory);
  await disk.open();
  createPeersServer({ ...tls, requestCert: true }, (socket) => {
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    readFrames(socket, (message) => {
      const operations = [...unframed(message.subarray(numberBytes))].flatMap(operationsIn);
      const number = Buffer.from(message.subarray(0, numberBytes));
      disk.add(operations, () => socket.write(framed([number])));
    });
  }).listen(peersPort, '127.0.0.1');

  const rounds = new Map<number, Round>();
  const peers = await Promise.all(others.map((port) => connectTo(port, tls)));
  for (const peer of peers) readFrames(peer, (number) => rounds.get(number.readUInt32LE(0))?.acknowledge());

  let lastNumber = 0;
  let round = new Round();
  const endTurn = (): void => {
    const now = round;
    round = new Round();
    if (now.operations.length === 0) return;
    lastNumber += 1;
    const number = Buffer.allocUnsafe(numberBytes);
    number.writeUInt32LE(lastNumber);
    rounds.set(lastNumber, now);
    // Nobody asks for the acknowledgement of one that is so old.
    rounds.delete(lastNumber - 10_000);
    const message = framed([Buffer.concat([number, framed(now.frames)])]);
    for (const peer of peers) peer.write(message);
    disk.add(now.operations, () => now.acknowledge());
  };
  const server = createServer({ ...tls, requestCert: true });
  const webSockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
  webSockets.on('connection', (ws, { socket }) => {
    socket.setNoDelay(true);
    ws.on('message', (data) => {
      if (!Buffer.isBuffer(data)) return;
      if (round.frames.length === 0) setImmediate(endTurn);
      round.take(ws, data);
    });
    ws.on('error', () => ws.terminate());
  });
  server.listen(agentsPort, '127.0.0.1', () => process.send?.('serves'));
};

process.once('message', (job) => {
  serve(job as BareServerJob).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
process.once('disconnect', () => process.exit(0));
