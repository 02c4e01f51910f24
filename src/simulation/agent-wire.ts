/** One agent's connection: both of its ends, and the line between them. */
import type { RawData } from 'ws';
import type { ClientSocket, SocketFailure, SocketHandlers } from '../client/index.ts';
import type { AgentStream, AgentWebSocket, Arrival } from '../gateway/index.ts';
import type { FrameCodec } from '../protocol/index.ts';
import type { AgentNetwork } from './agent-network.ts';
import type { Life } from './clock.ts';
import { SendBuffer } from './send-buffer.ts';

export interface ListeningDoor {
  readonly life: Life;
  readonly server: number;
  accepting: boolean;
  readonly arrived: (arrival: Arrival) => void;
  readonly sockets: Set<Wire>;
}

export const abnormal = 1006;
/** How long a side waits for the other's half of a close. */
const closeTimeoutMs = 1000;
const drainedBelowBytes = 64 * 1024;

type Listener = (...parameters: never[]) => void;
type OnMessage = (data: RawData, isBinary: boolean) => void;
type OnClose = (code: number) => void;
type OnData = (chunk: Uint8Array) => void;
type OnNothing = () => void;

/** Who opens a socket: an agent's process. */
export interface Caller {
  readonly agent: number;
  readonly client: Life;
  readonly codec: FrameCodec;
}

/** Both ends of one connection. */
export class Wire {
  readonly network: AgentNetwork;
  readonly client: Life;
  readonly door: ListeningDoor;
  readonly handlers: SocketHandlers;
  readonly codec: FrameCodec;
  readonly clientEnd: ClientEnd;
  readonly gatewayEnd: GatewayEnd;
  /** No way between them: what is sent waits. */
  readonly agent: number;
  /** Bytes under way to the gateway and not there yet. */
  toGatewayBytes = 0;
  lastToClientMs = 0;
  lastToGatewayMs = 0;
  clientOver = false;
  gatewayOver = false;
  /** The line is dead and neither end has been told. */
  dead = false;
  waitingForWay: (() => void)[] = [];
  acceptedAtMs: number | undefined;

  constructor(
    network: AgentNetwork,
    { agent, client, codec }: Caller,
    door: ListeningDoor,
    handlers: SocketHandlers,
  ) {
    this.network = network;
    this.agent = agent;
    this.client = client;
    this.codec = codec;
    this.door = door;
    this.handlers = handlers;
    this.clientEnd = new ClientEnd(this);
    this.gatewayEnd = new GatewayEnd(this);
  }

  get name(): string {
    return `agent ${this.agent}–server ${this.door.server}`;
  }

  get open(): boolean {
    return !this.clientOver && !this.gatewayOver;
  }

  toClient(deliver: () => void): void {
    if (this.dead) return;
    if (this.network.isBlocked(this.agent, this.door.server)) {
      this.waitingForWay.push(() => this.toClient(deliver));
      return;
    }
    const atMs = Math.max(this.network.arrivalMs(), this.lastToClientMs);
    this.lastToClientMs = atMs;
    this.network.time.at(atMs, this.client, 'input', () => {
      if (!this.dead) deliver();
    });
  }

  toGateway(deliver: () => void): void {
    if (this.dead) return;
    if (this.network.isBlocked(this.agent, this.door.server)) {
      this.waitingForWay.push(() => this.toGateway(deliver));
      return;
    }
    const atMs = Math.max(this.network.arrivalMs(), this.lastToGatewayMs);
    this.lastToGatewayMs = atMs;
    this.network.time.at(atMs, this.door.life, 'input', () => {
      if (!this.dead) deliver();
    });
  }

  endClient(code: number, reason: string, failure?: SocketFailure): void {
    if (this.clientOver) return;
    this.clientOver = true;
    this.network.forget(this);
    if (this.client.alive) this.handlers.onClose(code, reason, failure);
  }

  endGateway(code: number): void {
    if (this.gatewayOver) return;
    this.gatewayOver = true;
    this.door.sockets.delete(this);
    this.network.forget(this);
    if (this.door.life.alive) this.gatewayEnd.emitClose(code);
  }
}

class ClientEnd implements ClientSocket {
  readonly #wire: Wire;
  #blocked = false;

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  get bufferedBytes(): number {
    return this.#wire.toGatewayBytes;
  }

  send(bytes: Uint8Array): void {
    const wire = this.#wire;
    if (wire.clientOver) return;
    const copy = Buffer.from(bytes);
    wire.toGatewayBytes += copy.length;
    this.#blocked ||= wire.toGatewayBytes > drainedBelowBytes;
    wire.toGateway(() => wire.gatewayEnd.arrived(copy));
  }

  taken(bytes: number): void {
    const wire = this.#wire;
    wire.toGatewayBytes -= bytes;
    if (!this.#blocked || wire.toGatewayBytes > drainedBelowBytes || wire.clientOver) return;
    this.#blocked = false;
    wire.network.time.after(0, wire.client, 'input', () => {
      if (!wire.clientOver) wire.handlers.onDrain();
    });
  }

  close(code: number, reason: string): void {
    const wire = this.#wire;
    if (wire.clientOver) return;
    wire.toGateway(() => {
      wire.endGateway(code);
      wire.toClient(() => wire.endClient(code, reason));
    });
    wire.network.time.after(closeTimeoutMs, wire.client, 'timer', () => wire.endClient(abnormal, ''));
  }

  terminate(): void {
    const wire = this.#wire;
    if (wire.clientOver) return;
    wire.toGateway(() => wire.endGateway(abnormal));
    wire.network.time.after(0, wire.client, 'input', () => wire.endClient(abnormal, ''));
  }
}

class GatewayEnd implements AgentWebSocket, AgentStream {
  readonly #wire: Wire;
  #message: OnMessage | undefined;
  #pong: OnNothing | undefined;
  #close: OnClose | undefined;
  #drain: OnNothing | undefined;
  #data: OnData | undefined;
  #paused = false;
  #unread: Buffer[] = [];
  readonly #buffer = new SendBuffer();
  #goesOn = false;
  /** The gateway has done with it, though the other side may not know yet. */
  ended = false;

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  get bufferedAmount(): number {
    return this.#buffer.bytes;
  }

  on(event: string, listener: Listener): this {
    switch (event) {
      case 'message':
        this.#message = listener as OnMessage;
        break;
      case 'pong':
        this.#pong = listener;
        break;
      case 'close':
        this.#close = listener as OnClose;
        break;
      case 'drain':
        this.#drain = listener;
        break;
      case 'data':
        this.#data = listener as OnData;
        break;
      default:
    }
    return this;
  }

  off(_event: 'data', _listener: (chunk: Uint8Array) => void): this {
    this.#data = undefined;
    return this;
  }

  emitClose(code: number): void {
    this.#close?.(code);
  }

  arrived(bytes: Buffer): void {
    if (this.#wire.gatewayOver) return;
    if (this.#paused) {
      this.#unread.push(bytes);
      return;
    }
    this.#read(bytes);
  }

  #read(bytes: Buffer): void {
    this.#wire.clientEnd.taken(bytes.length);
    this.#message?.(bytes, this.#wire.codec.binary);
    this.#data?.(bytes);
  }

  send(data: Uint8Array): void {
    const wire = this.#wire;
    if (wire.gatewayOver || this.ended) return;
    const bytes = Buffer.from(data);
    const frame = { door: wire.door.life, agent: wire.agent, codec: wire.codec, bytes };
    wire.network.onSent(frame);
    let waited = false;
    this.#buffer.give({
      bytes: bytes.length,
      leave: () => {
        if (waited) wire.network.onLeaving(frame);
        wire.toClient(() => this.#deliver(bytes));
      },
    });
    waited = true;
  }

  #deliver(bytes: Buffer): void {
    const wire = this.#wire;
    const mayGoOn = this.#buffer.arrived(bytes.length);
    if (!wire.clientOver) wire.handlers.onMessage(bytes, wire.codec.binary);
    if (!mayGoOn || this.#goesOn) return;
    this.#goesOn = true;
    wire.network.time.after(0, wire.door.life, 'input', () => {
      this.#goesOn = false;
      if (wire.gatewayOver) return;
      if (this.#buffer.goOn() && !this.ended) this.#drain?.();
    });
  }

  ping(): void {
    const wire = this.#wire;
    const leave = (): void =>
      wire.toClient(() => {
        if (wire.clientOver) return;
        wire.handlers.onActivity();
        wire.toGateway(() => {
          if (!wire.gatewayOver) this.#pong?.();
        });
      });
    this.#buffer.give({ bytes: 0, leave });
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const wire = this.#wire;
    wire.network.time.after(0, wire.door.life, 'input', () => {
      while (!this.#paused && !wire.gatewayOver) {
        const next = this.#unread.shift();
        if (next === undefined) return;
        this.#read(next);
      }
    });
  }

  close(code: number, reason: string): void {
    const wire = this.#wire;
    if (wire.gatewayOver) return;
    this.ended = true;
    wire.network.note(wire, `closed by the gateway with ${code} (${reason})`);
    if (reason.includes('has lasted longer than it may')) wire.network.overstayed += 1;
    const leave = (): void =>
      wire.toClient(() => {
        wire.endClient(code, reason);
        wire.toGateway(() => wire.endGateway(code));
      });
    this.#buffer.give({ bytes: 0, leave });
    wire.network.time.after(5 * closeTimeoutMs, wire.door.life, 'timer', () => wire.endGateway(abnormal));
  }

  terminate(): void {
    const wire = this.#wire;
    if (wire.gatewayOver) return;
    this.ended = true;
    this.#buffer.clear();
    wire.toClient(() => wire.endClient(abnormal, '', lineBroken));
    wire.network.time.after(0, wire.door.life, 'input', () => wire.endGateway(abnormal));
  }
}

export const lineBroken: SocketFailure = { kind: 'unreachable', text: 'ECONNRESET (simulated)' };
