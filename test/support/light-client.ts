/**
 * An agent's connection that costs little: the shipped codec over a WebSocket with a certificate, and one subscription
 * that is resumed by its position when the connection is lost. Thousands fit into a process.
 */
import process from 'node:process';
import { connect as connectTls } from 'node:tls';
import type { ConnectionOptions, SecureContext, TLSSocket } from 'node:tls';
import { WebSocket } from 'ws';
import { mayReconnect, protobufCodec } from '../../src/protocol/index.ts';
import type {
  AnswerBody,
  Position,
  Push,
  Request,
  RequestBody,
  SubscriptionStart,
} from '../../src/protocol/index.ts';
import type { Turnstile } from './turnstile.ts';

export interface LightClientOptions {
  readonly name: string;
  /** What it follows. */
  readonly pattern: string;
  /** With its certificate. */
  readonly context: SecureContext;
  readonly ports: readonly number[];
  /** The first one to try, as an index of the ports. */
  readonly server: number;
  /** From which it connects: one has 28,000 ports. */
  readonly localAddress: string;
  readonly turnstile: Turnstile;
}

/** Asked on the present connection only. */
export interface Question {
  readonly body: RequestBody;
  answer(body: AnswerBody): void;
}

export type PushedChange = Push['changes'][number];

export interface LightClientEvents {
  /** What each new connection asks first, beside its subscription. */
  questions(): readonly Question[];
  changed(change: PushedChange): void;
  /** By the error's code: for good, also on later connections. */
  subscriptionEnded(code: string): void;
  /** A connection that was served, or one that was told not to come back. */
  closed(code: number): void;
  /** A server did what none may. */
  problem(text: string): void;
}

/** Of one clock for all processes of the machine, in milliseconds. */
export const machineMs = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

const handshakeTimeoutMs = 20_000;
const backoffBaseMs = 200;
const backoffCapMs = 5_000;

export class LightClient {
  readonly #options: LightClientOptions;
  readonly #events: LightClientEvents;
  /** The next one to try, as an index of the ports. */
  #server: number;
  readonly #tickets = new Map<number, Buffer>();
  #ws: WebSocket | undefined;
  #tls: TLSSocket | undefined;
  #connectedTo: number | undefined;
  #leave: (() => void) | undefined;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #lastId = 0;
  readonly #asked = new Map<number, Question>();
  #subscription: number | undefined;
  #subscriptionIsOver = false;
  #position: Position | undefined;
  #servedAtMs: number | undefined;
  #shutOut = false;
  #stopped = false;

  constructor(options: LightClientOptions, events: LightClientEvents) {
    this.#options = options;
    this.#events = events;
    this.#server = options.server;
  }

  /** Since when it is connected and its subscription has all that there is; undefined: it is not. */
  get servedAtMs(): number | undefined {
    return this.#servedAtMs;
  }

  /** It was told not to come back. */
  get shutOut(): boolean {
    return this.#shutOut;
  }

  /** Where it is served, as an index of the ports. */
  get server(): number | undefined {
    return this.#connectedTo;
  }

  /** The present connection took up a TLS session of an earlier one. */
  get isResumed(): boolean {
    return this.#connectedTo !== undefined && this.#tls?.isSessionReused() === true;
  }

  /** Again after `stop`, once `isClosed`: with the servers' tickets of before. */
  start(): void {
    this.#stopped = false;
    void this.#connect();
  }

  get isClosed(): boolean {
    return this.#ws === undefined;
  }

  /** Reads nothing more, whatever comes. */
  pause(): void {
    this.#ws?.pause();
  }

  resume(): void {
    this.#ws?.resume();
  }

  /** Only while it is served. */
  ask(questions: readonly Question[]): void {
    this.#ws?.send(
      protobufCodec.encodeClientFrame({ requests: questions.map((one) => this.#request(one)) }),
      { binary: true },
    );
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#ws?.terminate();
  }

  async #connect(): Promise<void> {
    this.#leave = await this.#options.turnstile.enter();
    if (this.#stopped) return this.#left();
    const server = this.#server;
    const port = this.#options.ports[server];
    if (port === undefined) throw new Error(`there is no server at ${server}`);
    const ws = new WebSocket(`wss://127.0.0.1:${port}/`, [protobufCodec.subprotocol], {
      createConnection: () => this.#openTls(server, port),
      perMessageDeflate: false,
      handshakeTimeout: handshakeTimeoutMs,
      generateMask: zeroMask,
    });
    this.#ws = ws;
    ws.on('open', () => {
      this.#begin(ws);
    });
    ws.on('message', (data) => {
      if (Buffer.isBuffer(data)) this.#received(server, data);
    });
    ws.on('error', ignoreBroken);
    ws.on('close', (code) => {
      this.#closed(code);
    });
  }

  #openTls(server: number, port: number): TLSSocket {
    const session = this.#tickets.get(server);
    const options: ConnectionOptions & { readonly localAddress: string } = {
      host: '127.0.0.1',
      port,
      localAddress: this.#options.localAddress,
      servername: '',
      secureContext: this.#options.context,
      ...(session !== undefined && { session }),
    };
    const socket = connectTls(options);
    socket.on('session', (ticket: Buffer) => {
      this.#tickets.set(server, ticket);
    });
    this.#tls = socket;
    return socket;
  }

  #begin(ws: WebSocket): void {
    this.#asked.clear();
    const requests = this.#events.questions().map((question) => this.#request(question));
    if (!this.#subscriptionIsOver) requests.push(this.#subscribe());
    const hello = { clientName: this.#options.name, clientVersion: '1' };
    ws.send(protobufCodec.encodeClientFrame({ hello, requests }), { binary: true });
  }

  #subscribe(): Request {
    const start: SubscriptionStart =
      this.#position === undefined ? { kind: 'present_state' } : { kind: 'after', position: this.#position };
    const id = this.#lastId + 1;
    return this.#request({
      body: { kind: 'subscribe', patterns: [this.#options.pattern], start },
      answer: (body) => {
        this.#subscribed(id, body);
      },
    });
  }

  #request(question: Question): Request {
    this.#lastId += 1;
    this.#asked.set(this.#lastId, question);
    return { id: this.#lastId, body: question.body };
  }

  #received(server: number, bytes: Buffer): void {
    const frame = protobufCodec.decodeServerFrame(bytes);
    if (frame.welcome !== undefined) {
      this.#connectedTo = server;
      this.#failures = 0;
      this.#left();
      if (this.#subscriptionIsOver) this.#servedAtMs = machineMs();
    }
    for (const { id, body } of frame.answers) {
      const asked = this.#asked.get(id);
      this.#asked.delete(id);
      if (asked === undefined) this.#events.problem(`an answer to ${id}, which was not asked`);
      else asked.answer(body);
    }
    for (const push of frame.pushes) this.#pushed(push);
  }

  #subscribed(id: number, body: AnswerBody): void {
    if (body.kind === 'subscribed') {
      if (body.reset) this.#events.problem('the subscription could not be resumed');
      this.#subscription = id;
      this.#position = body.position;
      return;
    }
    const code = body.kind === 'failed' ? body.failure.code : body.kind;
    if (code === 'UNAVAILABLE') {
      this.#ws?.close();
      return;
    }
    this.#endSubscription(code);
    this.#servedAtMs = machineMs();
  }

  #pushed({ subscription, changes, revision, caughtUp, ended }: Push): void {
    if (subscription !== this.#subscription || this.#position === undefined) {
      this.#events.problem(`a push of ${subscription}, which is no subscription of this connection`);
      return;
    }
    for (const change of changes) this.#events.changed(change);
    this.#position = { ...this.#position, revision };
    if (caughtUp) this.#servedAtMs = machineMs();
    if (ended === undefined) return;
    this.#subscription = undefined;
    this.#endSubscription(ended.code);
  }

  #endSubscription(code: string): void {
    this.#subscriptionIsOver = true;
    this.#events.subscriptionEnded(code);
  }

  #left(): void {
    this.#leave?.();
    this.#leave = undefined;
  }

  #closed(code: number): void {
    this.#left();
    const wasConnected = this.#connectedTo !== undefined;
    this.#connectedTo = undefined;
    this.#servedAtMs = undefined;
    this.#ws = undefined;
    this.#tls = undefined;
    this.#subscription = undefined;
    const isOver = !this.#stopped && !mayReconnect(code);
    if (wasConnected || isOver) this.#events.closed(code);
    if (this.#stopped) return;
    if (isOver) {
      this.#shutOut = true;
      return;
    }
    this.#server = (this.#server + 1) % this.#options.ports.length;
    const ceilingMs = Math.min(backoffCapMs, backoffBaseMs * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    this.#retry = setTimeout(() => void this.#connect(), Math.random() * ceilingMs);
  }
}

const zeroMask = (mask: Buffer): void => {
  mask.fill(0);
};

const ignoreBroken = (): void => {
  // Its 'close' follows.
};
