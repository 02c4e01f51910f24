/**
 * As much of our own protocol as the workloads need, as the other stores are spoken to: the shipped codec over a
 * WebSocket, callbacks, one frame for all requests of a turn. Not the client library: what that costs an agent is told by
 * `npm run bench:cost`.
 */
import { randomBytes } from 'node:crypto';
import { connect as connectTls } from 'node:tls';
import { WebSocket } from 'ws';
import { limits, protobufCodec } from '../../src/protocol/index.ts';
import type { AnswerBody, Operation, Request, RequestBody } from '../../src/protocol/index.ts';
import { Gathered, whenDone, type Done, type KeyValueClient } from './key-value-client.ts';
import type { KeyValueEndpoint } from './key-value-client.ts';

const encoder = new TextEncoder();

export class FuturestoreClient implements KeyValueClient {
  readonly #ws: WebSocket;
  readonly #requests: Gathered<Request>;
  readonly #waiting = new Map<number, { readonly wanted: AnswerBody['kind']; readonly done: Done }>();
  readonly #unanswered = new Set<number>();
  #lastId = 0;
  #lastSequence = 0;

  private constructor(ws: WebSocket) {
    this.#ws = ws;
    const hello = { clientName: 'load', clientVersion: '1' };
    let isFirst = true;
    this.#requests = new Gathered((requests) => {
      ws.send(protobufCodec.encodeClientFrame({ ...(isFirst && { hello }), requests }), { binary: true });
      isFirst = false;
    });
    ws.on('message', (data) => {
      if (Buffer.isBuffer(data)) this.#read(data);
    });
    ws.on('error', () => ws.terminate());
    ws.on('close', (code) => {
      for (const { done } of this.#waiting.values())
        done(new Error(`the connection was closed with ${code}`));
      this.#waiting.clear();
    });
  }

  static async connect({ host, port, ca, identity }: KeyValueEndpoint): Promise<FuturestoreClient> {
    const ws = new WebSocket(`wss://${host}:${port}/`, [protobufCodec.subprotocol], {
      createConnection: () => connectTls({ host, port, servername: '', ca, ...identity }),
      perMessageDeflate: false,
      generateMask: zeroMask,
    });
    await new Promise((resolve, reject) => {
      ws.once('open', resolve);
      ws.once('error', reject);
    });
    const client = new FuturestoreClient(ws);
    const session = randomBytes(limits.sessionIdBytes).toString('hex');
    await whenDone((done) => {
      const body: RequestBody = { kind: 'open_session', session, graceMs: 60_000, resume: false };
      client.#ask(body, 'session_opened', done);
    });
    return client;
  }

  put(key: string, value: string, done: Done): void {
    this.#resolve(key, value, false, done);
  }

  overwrite(key: string, value: string, done: Done): void {
    this.#resolve(key, value, true, done);
  }

  get(key: string, stale: boolean, done: Done): void {
    this.#ask({ kind: 'get', key, stale }, 'got', done);
  }

  /** Each key is awaited, so it is told once. */
  async watch(keys: readonly string[], told: (key: string) => void): Promise<void> {
    for (const key of keys) {
      this.#ask({ kind: 'await', alternatives: [[key]] }, 'awaited', (error) => {
        if (error === undefined) told(key);
      });
    }
    // A read is answered behind the awaits of the same connection.
    await whenDone((done) => this.get('bench/none', true, done));
  }

  close(): void {
    this.#ws.terminate();
  }

  #resolve(key: string, text: string, supersede: boolean, done: Done): void {
    this.#lastSequence += 1;
    const sequence = this.#lastSequence;
    this.#unanswered.add(sequence);
    const operation: Operation = {
      kind: 'resolve',
      key,
      preconditions: {},
      value: encoder.encode(text),
      contentType: 'text/plain',
      sensitive: false,
      supersede,
    };
    const [answeredBelow = sequence] = this.#unanswered;
    this.#ask({ kind: 'write', sequence, answeredBelow, operations: [operation] }, 'written', (error) => {
      this.#unanswered.delete(sequence);
      done(error);
    });
  }

  #ask(body: RequestBody, wanted: AnswerBody['kind'], done: Done): void {
    this.#lastId += 1;
    this.#waiting.set(this.#lastId, { wanted, done });
    this.#requests.add({ id: this.#lastId, body });
  }

  #read(bytes: Buffer): void {
    const { answers } = protobufCodec.decodeServerFrame(bytes);
    for (const { id, body } of answers) {
      const waiting = this.#waiting.get(id);
      if (waiting === undefined) continue;
      this.#waiting.delete(id);
      waiting.done(body.kind === waiting.wanted ? undefined : new Error(problemOf(body)));
    }
  }
}

const problemOf = (body: AnswerBody): string =>
  body.kind === 'failed' ? `${body.failure.code}: ${body.failure.message}` : `answered with ${body.kind}`;

/** Masks are against proxies that confuse a browser's bytes with their own protocol; no client of another store has them. */
const zeroMask = (mask: Buffer): void => {
  mask.fill(0);
};
