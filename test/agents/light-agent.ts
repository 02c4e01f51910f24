/**
 * An agent that costs little: the shipped codec over a WebSocket, three awaits and a subscription that it resumes by its
 * position. Thousands fit into a process.
 */
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
import { AgentRecord, machineMs } from './agent-record.ts';
import type { FleetAgent } from './fleet-agent.ts';
import { patternOf, waitsOf } from './plan.ts';
import type { PlannedAgent } from './plan.ts';
import type { Turnstile } from './turnstile.ts';

export interface LightAgentOptions {
  readonly ports: readonly number[];
  /** From which it connects: one has 28,000 ports. */
  readonly localAddress: string;
  readonly turnstile: Turnstile;
}

const handshakeTimeoutMs = 20_000;
const backoffBaseMs = 200;
const backoffCapMs = 5_000;

type Asked =
  | { readonly kind: 'await'; readonly key: string }
  | { readonly kind: 'subscribe' }
  | { readonly kind: 'other'; readonly answer: (body: AnswerBody) => void };

export class LightAgent implements FleetAgent {
  readonly plan: PlannedAgent;
  readonly record: AgentRecord;
  readonly #options: LightAgentOptions;
  readonly #context: SecureContext;
  /** The next one to try, as an index of the ports. */
  #server: number;
  readonly #tickets = new Map<number, Buffer>();
  #ws: WebSocket | undefined;
  #connectedTo: number | undefined;
  #leave: (() => void) | undefined;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #lastId = 0;
  readonly #asked = new Map<number, Asked>();
  readonly #unanswered = new Set<string>();
  #subscription: number | undefined;
  #position: Position | undefined;
  #servedAtMs: number | undefined;
  #shutOut = false;
  #stopped = false;

  constructor(plan: PlannedAgent, context: SecureContext, options: LightAgentOptions) {
    this.plan = plan;
    this.record = new AgentRecord(plan.name);
    this.#context = context;
    this.#options = options;
    this.#server = plan.index % options.ports.length;
  }

  get servedAtMs(): number | undefined {
    return this.#servedAtMs;
  }

  get shutOut(): boolean {
    return this.#shutOut;
  }

  /** Where it is served, as an index of the ports. */
  get server(): number | undefined {
    return this.#connectedTo;
  }

  start(): void {
    void this.#connect();
  }

  beginRound(round: number): void {
    this.record.beginRound(round);
    this.#unanswered.clear();
    for (const key of waitsOf(this.plan)) this.#unanswered.add(key);
    if (this.#connectedTo !== undefined) this.#send([...this.#unanswered].map((key) => this.#await(key)));
  }

  /** Reads nothing more, whatever comes. */
  sleep(): void {
    this.#ws?.pause();
  }

  wake(): void {
    this.#ws?.resume();
  }

  /** Only while it is served. */
  ask(body: RequestBody): Promise<AnswerBody> {
    return new Promise((resolve) => {
      this.#send([this.#request(body, { kind: 'other', answer: resolve })]);
    });
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
      secureContext: this.#context,
      ...(session !== undefined && { session }),
    };
    const socket = connectTls(options);
    socket.on('session', (ticket: Buffer) => {
      this.#tickets.set(server, ticket);
    });
    return socket;
  }

  #begin(ws: WebSocket): void {
    this.#asked.clear();
    const start: SubscriptionStart =
      this.#position === undefined ? { kind: 'present_state' } : { kind: 'after', position: this.#position };
    const requests = [...this.#unanswered].map((key) => this.#await(key));
    if (this.record.subscriptionEnd === undefined) {
      const subscribe = { kind: 'subscribe', patterns: [patternOf(this.plan)], start } as const;
      requests.push(this.#request(subscribe, { kind: 'subscribe' }));
    }
    const hello = { clientName: this.plan.name, clientVersion: '1' };
    ws.send(protobufCodec.encodeClientFrame({ hello, requests }), { binary: true });
  }

  #await(key: string): Request {
    const body = { kind: 'await', alternatives: [[key]], leastGeneration: this.record.round } as const;
    return this.#request(body, { kind: 'await', key });
  }

  #request(body: RequestBody, asked: Asked): Request {
    this.#lastId += 1;
    this.#asked.set(this.#lastId, asked);
    return { id: this.#lastId, body };
  }

  #send(requests: readonly Request[]): void {
    this.#ws?.send(protobufCodec.encodeClientFrame({ requests }), { binary: true });
  }

  #received(server: number, bytes: Buffer): void {
    const frame = protobufCodec.decodeServerFrame(bytes);
    if (frame.welcome !== undefined) {
      this.#connectedTo = server;
      this.#failures = 0;
      this.#left();
      if (this.record.subscriptionEnd !== undefined) this.#servedAtMs = machineMs();
    }
    for (const { id, body } of frame.answers) this.#answered(id, body);
    for (const push of frame.pushes) this.#pushed(push);
  }

  #answered(id: number, body: AnswerBody): void {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    switch (asked?.kind) {
      case 'await':
        this.#awaited(asked.key, body);
        return;
      case 'subscribe':
        this.#subscribed(id, body);
        return;
      case 'other':
        asked.answer(body);
        return;
      case undefined:
        this.record.problem(`an answer to ${id}, which was not asked`);
        return;
      default:
        asked satisfies never;
    }
  }

  #awaited(key: string, body: AnswerBody): void {
    if (body.kind === 'awaited') {
      const [future, ...more] = body.futures;
      if (future === undefined || more.length > 0 || future.key !== key)
        this.record.problem(`the await of ${key} was answered with something else`);
      else this.record.answer(future);
    } else if (body.kind !== 'failed') {
      this.record.problem(`the await of ${key} was answered with ${body.kind}`);
    } else if (body.failure.code === 'UNAVAILABLE') {
      this.#send([this.#await(key)]);
      return;
    } else {
      this.record.refused.set(key, body.failure.code);
    }
    this.#unanswered.delete(key);
  }

  #subscribed(id: number, body: AnswerBody): void {
    if (body.kind === 'subscribed') {
      if (body.reset) this.record.problem('the subscription could not be resumed');
      this.#subscription = id;
      this.#position = body.position;
      return;
    }
    const code = body.kind === 'failed' ? body.failure.code : body.kind;
    if (code === 'UNAVAILABLE') {
      this.#ws?.close();
      return;
    }
    this.record.subscriptionEnd = code;
    this.#servedAtMs = machineMs();
  }

  #pushed({ subscription, changes, revision, caughtUp, ended }: Push): void {
    if (subscription !== this.#subscription || this.#position === undefined) {
      this.record.problem(`a push of ${subscription}, which is no subscription of this connection`);
      return;
    }
    for (const change of changes) {
      if (change.kind === 'future') this.record.push(change.future);
      else this.record.problem(`${change.key} was deleted, by nobody`);
    }
    this.#position = { ...this.#position, revision };
    if (caughtUp) this.#servedAtMs = machineMs();
    if (ended === undefined) return;
    this.#subscription = undefined;
    this.record.subscriptionEnd = ended.code;
  }

  #left(): void {
    this.#leave?.();
    this.#leave = undefined;
  }

  #closed(code: number): void {
    this.#left();
    const wasConnected = this.#connectedTo !== undefined;
    if (wasConnected) this.record.ended(code);
    this.#connectedTo = undefined;
    this.#servedAtMs = undefined;
    this.#ws = undefined;
    this.#subscription = undefined;
    if (this.#stopped) return;
    if (!mayReconnect(code)) {
      this.#shutOut = true;
      if (!wasConnected) this.record.ended(code);
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
