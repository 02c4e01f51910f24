/** Virtual time and in-memory sockets for a client, with servers that do what a test tells them. */
import { setImmediate as turn } from 'node:timers/promises';
import { encodeChange, limits, protobufCodec } from '../../../src/protocol/index.ts';
import type {
  AnswerBody,
  Change,
  Failure,
  Hello,
  Push,
  ReceivedClientFrame,
  Request,
  ServerFrame,
  Welcome,
} from '../../../src/protocol/index.ts';
import { Client } from '../../../src/client/index.ts';
import type {
  ClientEnvironment,
  ClientOptions,
  ClientSocket,
  SocketFailure,
  SocketHandlers,
} from '../../../src/client/index.ts';

interface Timer {
  readonly atMs: number;
  readonly callback: () => void;
}

const startMs = 1_000_000;

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export class World implements ClientEnvironment {
  readonly codec = protobufCodec;
  readonly servers = new Map<string, Server>();
  /** Every attempt to open a socket. */
  readonly dials: { readonly endpoint: string; readonly atMs: number }[] = [];
  /** What chance gives; tests replace it. */
  random: () => number = () => 0.5;
  #nowMs = startMs;
  readonly #timers = new Set<Timer>();
  #deferred: (() => void)[] = [];
  #bytes = 0;

  get timerCount(): number {
    return this.#timers.size;
  }

  server(endpoint: string): Server {
    const server = new Server(this, endpoint);
    this.servers.set(endpoint, server);
    return server;
  }

  client(options: Partial<ClientOptions> = {}): Client {
    return new Client({ endpoints: [...this.servers.keys()], ...options }, this);
  }

  openSocket(endpoint: string, handlers: SocketHandlers): ClientSocket {
    this.dials.push({ endpoint, atMs: this.#nowMs });
    const server = this.servers.get(endpoint);
    if (server === undefined) throw new Error(`no server ${endpoint} in this world`);
    return server.accept(handlers);
  }

  now(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return timer;
  }

  clearTimer(handle: unknown): void {
    this.#timers.delete(handle as Timer);
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  randomBytes(count: number): Uint8Array {
    this.#bytes += 1;
    return new Uint8Array(count).fill(this.#bytes);
  }

  /** Until nothing more happens at this instant. */
  async settle(): Promise<void> {
    do {
      const deferred = this.#deferred;
      this.#deferred = [];
      for (const callback of deferred) callback();
      // Promises settle in between.
      await turn();
    } while (this.#deferred.length > 0);
  }

  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    for (;;) {
      await this.settle();
      const [next] = [...this.#timers].sort((a, b) => a.atMs - b.atMs);
      if (next === undefined || next.atMs > endMs) break;
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
    }
    this.#nowMs = endMs;
    await this.settle();
  }
}

export const welcome: Welcome = {
  clusterId: 'c1',
  epoch: 1,
  revision: 10,
  serverId: 1,
  serverName: 'server-1',
  principal: 'puppet:web1',
  limits: {
    frameBytesMax: limits.frameBytesMax,
    valueBytesMax: limits.valueBytesMax,
    requestsInFlightMax: 4096,
    subscriptionsMax: 1024,
    operationsPerWriteMax: 256,
  },
  endpoints: [],
};

export class Server {
  readonly endpoint: string;
  readonly #world: World;
  /** In the order of their making, closed ones too. */
  readonly connections: ServerConnection[] = [];
  /** Sockets are refused with it. */
  failure: SocketFailure | undefined;
  /** Sockets are never opened. */
  silent = false;
  welcome: Welcome | undefined = welcome;
  /** Called for every request; what it returns is the answer. */
  handle: (request: Request, connection: ServerConnection) => AnswerBody | undefined = () => undefined;

  constructor(world: World, endpoint: string) {
    this.#world = world;
    this.endpoint = endpoint;
  }

  /** The latest connection. */
  get connection(): ServerConnection {
    const connection = this.connections.at(-1);
    if (connection === undefined) throw new Error(`nobody connected to ${this.endpoint}`);
    return connection;
  }

  get open(): readonly ServerConnection[] {
    return this.connections.filter((connection) => connection.open);
  }

  accept(handlers: SocketHandlers): ClientSocket {
    const connection = new ServerConnection(this.#world, this, handlers);
    if (this.failure === undefined && !this.silent) this.connections.push(connection);
    this.#world.defer(() => {
      if (this.failure !== undefined) connection.end(1006, '', this.failure);
      else if (!this.silent) handlers.onOpen();
    });
    return connection;
  }
}

/** Both ends of one socket: the client's methods, and what a server does with it. */
export class ServerConnection implements ClientSocket {
  readonly #world: World;
  readonly #server: Server;
  readonly #handlers: SocketHandlers;
  readonly frames: ReceivedClientFrame[] = [];
  readonly requests: Request[] = [];
  hello: Hello | undefined;
  open = true;
  /** What the client closed it with. */
  closedWith: number | undefined;
  bufferedBytes = 0;

  constructor(world: World, server: Server, handlers: SocketHandlers) {
    this.#world = world;
    this.#server = server;
    this.#handlers = handlers;
  }

  // ---- the client's end

  send(bytes: Uint8Array): void {
    const copy = Uint8Array.from(bytes);
    this.#world.defer(() => {
      if (this.open) this.#receive(copy);
    });
  }

  close(code: number, reason: string): void {
    this.closedWith ??= code;
    this.#world.defer(() => {
      this.end(code, reason);
    });
  }

  terminate(): void {
    this.#world.defer(() => {
      this.end(1006, '');
    });
  }

  // ---- the server's end

  end(code: number, reason: string, failure?: SocketFailure): void {
    if (!this.open) return;
    this.open = false;
    this.#handlers.onClose(code, reason, failure);
  }

  /** The line breaks. */
  break(): void {
    this.end(1006, '', { kind: 'unreachable', text: 'read ECONNRESET' });
  }

  ping(): void {
    this.#handlers.onActivity();
  }

  drain(): void {
    this.bufferedBytes = 0;
    this.#handlers.onDrain();
  }

  sendFrame(frame: Partial<ServerFrame>): void {
    this.sendBytes(protobufCodec.encodeServerFrame({ answers: [], pushes: [], ...frame }));
  }

  sendBytes(bytes: Uint8Array, binary = true): void {
    if (this.open) this.#handlers.onMessage(bytes, binary);
  }

  answer(id: number, body: AnswerBody): void {
    this.sendFrame({ answers: [{ id, body }] });
  }

  push(push: Partial<Push> & { readonly subscription: number; readonly revision: number }): void {
    const { changes = [], caughtUp = false, ...rest } = push;
    const shared = changes.map((change) => ({ change, encoded: encodeChange(change) }));
    this.sendFrame({ pushes: [{ caughtUp, ...rest, changes: shared }] });
  }

  /** The requests of one kind, in the order they came. */
  of<K extends Request['body']['kind']>(
    kind: K,
  ): (Request & { readonly body: Extract<Request['body'], { kind: K }> })[] {
    return this.requests.filter(
      (request): request is Request & { readonly body: Extract<Request['body'], { kind: K }> } =>
        request.body.kind === kind,
    );
  }

  #receive(bytes: Uint8Array): void {
    const frame = protobufCodec.decodeClientFrame(bytes);
    this.frames.push(frame);
    if (frame.hello !== undefined) {
      this.hello = frame.hello;
      if (this.#server.welcome !== undefined) this.sendFrame({ welcome: this.#server.welcome });
    }
    const answers = [];
    for (const request of frame.requests) {
      if ('refused' in request) throw new Error(`the client sent a bad request: ${request.refused.message}`);
      this.requests.push(request);
      const body = this.#server.handle(request, this);
      if (body !== undefined) answers.push({ id: request.id, body });
    }
    if (answers.length > 0) this.sendFrame({ answers });
  }
}

export const failed = (code: Failure['code'], message = 'said the test'): AnswerBody => ({
  kind: 'failed',
  failure: { code, message },
});

export const written = (revision: number, count = 1): AnswerBody => ({
  kind: 'written',
  result: {
    revision,
    results: Array.from({ length: count }, () => ({
      generation: 1,
      state: 'resolved' as const,
      revision,
      unchanged: false,
    })),
  },
});

export function change(key: string, revision: number, text = `v${String(revision)}`): Change {
  const future = {
    key,
    generation: 1,
    state: 'resolved' as const,
    revision,
    value: Buffer.from(text),
    contentType: 'text/plain',
    sensitive: false,
    producer: 'puppet:web2',
    changedAtMs: 5,
  };
  return { kind: 'future', revision, key, future };
}

/** The future of `change`. */
export function futureOf(
  key: string,
  revision: number,
  text?: string,
): Extract<Change, { kind: 'future' }>['future'] {
  const made = change(key, revision, text);
  if (made.kind !== 'future') throw new Error('a change of a future was made');
  return made.future;
}

/** How a promise stands, without waiting for it. */
export interface Watched<T> {
  state: 'pending' | 'fulfilled' | 'rejected';
  value: T | undefined;
  error: unknown;
}

export function watch<T>(promise: Promise<T>): Watched<T> {
  const watched: Watched<T> = { state: 'pending', value: undefined, error: undefined };
  promise.then(
    (value) => {
      watched.state = 'fulfilled';
      watched.value = value;
    },
    (error: unknown) => {
      watched.state = 'rejected';
      watched.error = error;
    },
  );
  return watched;
}
