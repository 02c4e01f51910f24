/**
 * Agents' sockets: a WebSocket between a real client and a real gateway without TLS and TCP. Messages arrive in order;
 * of what the client does not take a little is on its way, and arrives whatever the server does; the rest waits in the
 * server's process, is counted, and is gone when that ends the connection without a word. Ends may die unnoticed.
 */
import type { ClientSocket, SocketFailure, SocketHandlers } from '../client/index.ts';
import type { AgentStream, AgentWebSocket, Arrival, Door, OpenDoor } from '../gateway/index.ts';
import { protocolLevel, type FrameCodec } from '../protocol/index.ts';
import type { RawData } from 'ws';
import { agentRealm, nameOf } from './agent-policies.ts';
import type { Life, VirtualTime } from './clock.ts';
import type { Random } from './random.ts';
import { SendBuffer } from './send-buffer.ts';
import type { Counts } from './statistics.ts';
import type { Trace } from './trace.ts';

export interface AgentNetworkConditions {
  latencyMs: number;
  jitterMs: number;
}

export interface SentFrame {
  /** The server's process. */
  readonly door: Life;
  readonly agent: number;
  readonly codec: FrameCodec;
  readonly bytes: Uint8Array;
}

/** One that had to wait in the server's process, and leaves it. */
export interface LeavingFrame extends SentFrame {
  /** What `toldRevision` was when the gateway closed the connection in good order; undefined: it has not. */
  readonly closedToldRevision: number | undefined;
}

/** A gateway's way in. */
export interface OpenConnection {
  readonly server: number;
  readonly sinceMs: number;
}

interface ListeningDoor {
  readonly life: Life;
  readonly server: number;
  accepting: boolean;
  readonly arrived: (arrival: Arrival) => void;
  readonly sockets: Set<Wire>;
}

const abnormal = 1006;
/** How long a side waits for the other's half of a close. */
const closeTimeoutMs = 1000;
const drainedBelowBytes = 64 * 1024;

type Listener = (...parameters: never[]) => void;
type OnMessage = (data: RawData, isBinary: boolean) => void;
type OnClose = (code: number) => void;
type OnData = (chunk: Uint8Array) => void;
type OnNothing = () => void;

/** Who opens a socket: an agent's process. */
interface Caller {
  readonly agent: number;
  readonly client: Life;
  readonly codec: FrameCodec;
}

/** Both ends of one connection. */
class Wire {
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
  #closedToldRevision: number | undefined;
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
        if (waited) wire.network.onLeaving({ ...frame, closedToldRevision: this.#closedToldRevision });
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
    this.#closedToldRevision = wire.network.toldRevision(wire.door.life);
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

const lineBroken: SocketFailure = { kind: 'unreachable', text: 'ECONNRESET (simulated)' };
const nobodyThere: SocketFailure = { kind: 'unreachable', text: 'ECONNREFUSED (simulated)' };

export class AgentNetwork {
  readonly time: VirtualTime;
  readonly conditions: AgentNetworkConditions;
  readonly onSent: (sent: SentFrame) => void;
  readonly onLeaving: (leaving: LeavingFrame) => void;
  readonly toldRevision: (door: Life) => number;
  readonly #random: Random;
  readonly #trace: Trace;
  readonly #counts: Counts;
  readonly #doors = new Map<number, ListeningDoor>();
  /** Connections that gateways have closed because their agents did not go when they were asked to. */
  overstayed = 0;
  readonly #wires = new Set<Wire>();
  readonly #blocked = new Set<number>();

  constructor(options: {
    readonly time: VirtualTime;
    readonly random: Random;
    readonly trace: Trace;
    readonly counts: Counts;
    readonly conditions: AgentNetworkConditions;
    /** A gateway gives a frame to a socket. */
    readonly onSent: (sent: SentFrame) => void;
    readonly onLeaving: (leaving: LeavingFrame) => void;
    /** Of the last change of access that the process's gateway has been told. */
    readonly toldRevision: (door: Life) => number;
  }) {
    this.time = options.time;
    this.#random = options.random;
    this.#trace = options.trace;
    this.#counts = options.counts;
    this.conditions = options.conditions;
    this.onSent = options.onSent;
    this.onLeaving = options.onLeaving;
    this.toldRevision = options.toldRevision;
  }

  static endpointOf(server: number): string {
    return `wss://server-${server}:7421`;
  }

  arrivalMs(): number {
    const { latencyMs, jitterMs } = this.conditions;
    const delayMs = latencyMs + (jitterMs > 0 ? this.#random.exponential(jitterMs) : 0);
    return this.time.nowMs + Math.max(1, Math.round(delayMs));
  }

  note(wire: Wire, text: string): void {
    this.#trace.say(`${wire.name}: ${text}`);
  }

  forget(wire: Wire): void {
    if (wire.clientOver && wire.gatewayOver) this.#wires.delete(wire);
  }

  // ---- faults ----

  isBlocked(agent: number, server: number): boolean {
    return this.#blocked.has(agent * 1024 + server);
  }

  block(agent: number, server: number): void {
    this.#blocked.add(agent * 1024 + server);
  }

  unblock(agent: number, server: number): void {
    if (!this.#blocked.delete(agent * 1024 + server)) return;
    for (const wire of this.#wires) {
      if (wire.agent !== agent || wire.door.server !== server) continue;
      const waiting = wire.waitingForWay;
      wire.waitingForWay = [];
      for (const again of waiting) again();
    }
  }

  unblockAll(): void {
    for (const name of Array.from(this.#blocked)) this.unblock(Math.floor(name / 1024), name % 1024);
  }

  /** Agents with connections that the server's process has, and has not ended. */
  agentsOf(door: Life): readonly number[] {
    const open = this.#wiresNow().filter((wire) => wire.door.life === door && wire.door.sockets.has(wire));
    return open.filter(({ gatewayEnd }) => !gatewayEnd.ended).map(({ agent }) => agent);
  }

  /** Those connections that both sides take for open, by agent. */
  get openConnections(): ReadonlyMap<number, readonly OpenConnection[]> {
    const open = new Map<number, OpenConnection[]>();
    for (const wire of this.#wires) {
      const isOpen = wire.open && wire.door.sockets.has(wire) && !wire.gatewayEnd.ended && wire.client.alive;
      if (!isOpen || wire.acceptedAtMs === undefined) continue;
      const connection = { server: wire.door.server, sinceMs: wire.acceptedAtMs };
      const others = open.get(wire.agent);
      if (others === undefined) open.set(wire.agent, [connection]);
      else others.push(connection);
    }
    return open;
  }

  /** Whoever has a connection that could be lost, each once. */
  get connected(): readonly number[] {
    const living = this.#wiresNow().filter((wire) => wire.open && !wire.dead);
    return [...new Set(living.map(({ agent }) => agent))];
  }

  /** As they are now: ending one changes the set. */
  #wiresNow(): Wire[] {
    return Array.from(this.#wires);
  }

  /** Connections break; both ends see it. Returns how many. */
  reset(agents: (agent: number) => boolean): number {
    let count = 0;
    for (const wire of this.#wiresNow()) {
      if (!wire.open || !agents(wire.agent)) continue;
      count += 1;
      this.#breakWire(wire);
    }
    return count;
  }

  /** Connections die, and nobody is told: both ends have to find out. */
  kill(agents: (agent: number) => boolean): number {
    let count = 0;
    for (const wire of this.#wiresNow()) {
      if (!wire.open || wire.dead || !agents(wire.agent)) continue;
      count += 1;
      wire.dead = true;
      this.note(wire, 'dies without a word');
    }
    return count;
  }

  /** Those that nobody has been told of are told. */
  resetDead(): void {
    for (const wire of this.#wiresNow()) if (wire.dead) this.#breakWire(wire);
  }

  #breakWire(wire: Wire): void {
    wire.dead = true;
    this.time.after(0, wire.client, 'input', () => wire.endClient(abnormal, '', lineBroken));
    this.time.after(0, wire.door.life, 'input', () => wire.endGateway(abnormal));
  }

  /** The server's process is gone; `silently`: nobody tells its agents. */
  serverGone(server: number, silently: boolean): void {
    this.#doors.delete(server);
    for (const wire of this.#wiresNow()) {
      if (wire.door.server !== server || wire.door.life.alive) continue;
      wire.gatewayOver = true;
      wire.dead = true;
      this.forget(wire);
      // Whoever speaks to a machine that has come back is told that nobody knows it.
      const toldAfterMs = silently ? this.#random.between(1000, 60_000) : 1;
      this.time.after(toldAfterMs, wire.client, 'input', () => wire.endClient(abnormal, '', lineBroken));
    }
  }

  /** The agent's process is gone. */
  agentGone(agent: number, silently: boolean): void {
    for (const wire of this.#wiresNow()) {
      if (wire.agent !== agent || wire.client.alive) continue;
      wire.clientOver = true;
      wire.dead = true;
      this.forget(wire);
      if (!silently) this.time.after(1, wire.door.life, 'input', () => wire.endGateway(abnormal));
    }
  }

  // ---- ends ----

  /** A server's door; its agents' name is in the socket, as it would be in a certificate. */
  doorOf(server: number, life: Life): OpenDoor {
    return (_setup, arrived): Door => {
      const door: ListeningDoor = { life, server, accepting: false, arrived, sockets: new Set() };
      return {
        // There is no TLS here: who an agent is stands from its dialing, and does not change.
        judge: { version: 1, judgeAgain: (identity) => ({ ok: true, identity }) },
        replaceRealms: () => Promise.resolve(),
        replaceCertificate: () => undefined,
        replaceTicketKeys: () => undefined,
        look: () => Promise.resolve(),
        listen: () => {
          door.accepting = true;
          this.#doors.set(server, door);
          return Promise.resolve({ port: 7421 });
        },
        stopAccepting: () => {
          door.accepting = false;
        },
        close: () => {
          door.accepting = false;
          for (const wire of Array.from(door.sockets)) wire.gatewayEnd.terminate();
          return Promise.resolve();
        },
      };
    };
  }

  openSocket(caller: Caller, endpoint: string, handlers: SocketHandlers): ClientSocket {
    const { agent, client } = caller;
    const server = Number(/server-(\d+)/.exec(endpoint)?.[1]);
    const door = this.#doors.get(server);
    const blocked = this.isBlocked(agent, server);
    this.#counts.add('agent dials');
    if (door === undefined || !door.accepting || !door.life.alive || blocked) {
      return this.#refused(client, handlers, blocked);
    }
    const wire = new Wire(this, caller, door, handlers);
    this.#wires.add(wire);
    // A TLS handshake and an upgrade: two round trips.
    const handshakeMs = this.arrivalMs() - this.time.nowMs + this.arrivalMs() - this.time.nowMs;
    this.time.after(handshakeMs, door.life, 'input', () => this.#accept(wire));
    return wire.clientEnd;
  }

  #accept(wire: Wire): void {
    const { door, codec } = wire;
    if (wire.dead || wire.clientOver) return;
    if (!door.accepting) {
      wire.gatewayOver = true;
      wire.toClient(() => wire.endClient(abnormal, '', nobodyThere));
      return;
    }
    door.sockets.add(wire);
    wire.acceptedAtMs = this.time.nowMs;
    const principal = { realm: agentRealm, name: nameOf(wire.agent) };
    const identity = {
      principal,
      credential: principal,
      expiresAtMs: Number.MAX_SAFE_INTEGER,
      proof: {},
    };
    const { gatewayEnd } = wire;
    door.arrived({
      ws: gatewayEnd,
      socket: gatewayEnd,
      codec,
      identity,
      identify: undefined,
      level: protocolLevel,
    });
    wire.toClient(() => {
      if (!wire.clientOver) wire.handlers.onOpen();
    });
  }

  /** Nobody listens, or nothing comes back: then it is the client who gives up. */
  #refused(client: Life, handlers: SocketHandlers, silent: boolean): ClientSocket {
    let over = false;
    const end = (failure?: SocketFailure): void => {
      if (over) return;
      over = true;
      handlers.onClose(abnormal, '', failure);
    };
    if (!silent) this.time.at(this.arrivalMs(), client, 'input', () => end(nobodyThere));
    const end0 = (): void => {
      this.time.after(0, client, 'input', () => end());
    };
    return { send: () => undefined, bufferedBytes: 0, close: end0, terminate: end0 };
  }
}
