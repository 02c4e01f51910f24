/**
 * Agents' sockets: a WebSocket between a real client and a real gateway without TLS and TCP. Messages arrive in order;
 * of what the client does not take a little is on its way, and arrives whatever the server does; the rest waits in the
 * server's process, is counted, and is gone when that ends the connection without a word. Ends may die unnoticed.
 */
import type { ClientSocket, SocketFailure, SocketHandlers } from '../client/index.ts';
import type { Door, OpenDoor } from '../gateway/index.ts';
import { protocolLevel, type FrameCodec } from '../protocol/index.ts';
import { agentRealm, nameOf } from './agent-policies.ts';
import { abnormal, lineBroken, Wire, type Caller, type ListeningDoor } from './agent-wire.ts';
import type { Life, VirtualTime } from './clock.ts';
import type { Random } from './random.ts';
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

/** A gateway's way in. */
export interface OpenConnection {
  readonly server: number;
  readonly sinceMs: number;
}

const nobodyThere: SocketFailure = { kind: 'unreachable', text: 'ECONNREFUSED (simulated)' };

export class AgentNetwork {
  readonly time: VirtualTime;
  readonly conditions: AgentNetworkConditions;
  readonly onSent: (sent: SentFrame) => void;
  readonly onLeaving: (leaving: SentFrame) => void;
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
    /** It had to wait in the server's process, and leaves it. */
    readonly onLeaving: (leaving: SentFrame) => void;
  }) {
    this.time = options.time;
    this.#random = options.random;
    this.#trace = options.trace;
    this.#counts = options.counts;
    this.conditions = options.conditions;
    this.onSent = options.onSent;
    this.onLeaving = options.onLeaving;
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
