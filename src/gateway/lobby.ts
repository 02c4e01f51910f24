/**
 * Sockets from their accept to their TLS handshake, and whose they are. Nothing is spent on one that says nothing: it waits
 * for its first byte, and while there are too many such the one that waited longest makes room. A balancer that is trusted
 * says first whose connection it is. Who has begun to speak TLS waits in line for the handshake.
 */
import type { Socket } from 'node:net';
import { Networks, WaitingRoom } from '../protocol/index.ts';
import { HandshakeLine } from './handshake-line.ts';
import { readProxyHeader } from './proxy-protocol.ts';
import type { GatewayLimits, TurnedAwayStage } from './settings.ts';

/** A socket, or the TLS socket around it: both have the same peer. */
interface Peer {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

export interface LobbyOptions {
  readonly limits: GatewayLimits;
  /** Whose connections begin with a PROXY header: IP addresses and networks. */
  readonly proxies: readonly string[];
  readonly nowMs: () => number;
  /** How many without an identity the other gateways of the server have: they take up places. */
  readonly unknownElsewhere: () => number;
  /** The handshake begins: the first bytes are to be read from the socket. */
  readonly handOver: (socket: Socket) => void;
  readonly turnedAway: (stage: TurnedAwayStage, problem: string, remote: string | undefined) => void;
}

/** How far one has come that has not begun its handshake. */
interface Newcomer {
  readonly socket: Socket;
  readonly deadline: NodeJS.Timeout;
  /** What has come of the PROXY header; undefined: none is expected, or all of it has been read. */
  header: Buffer | undefined;
  readonly onReadable: () => void;
}

export class Lobby {
  readonly #options: LobbyOptions;
  readonly #proxies: Networks;
  /** Those of all open sockets that have no identity yet, but for those in line. */
  readonly #unknown: WaitingRoom<Socket>;
  readonly #newcomers = new Map<Socket, Newcomer>();
  readonly #line: HandshakeLine<Socket>;
  /** By the name of the connection; only of those that a balancer has told of. */
  readonly #clients = new Map<string, string>();

  constructor(options: LobbyOptions) {
    const { limits, proxies, nowMs } = options;
    this.#options = options;
    this.#proxies = new Networks(proxies);
    this.#unknown = new WaitingRoom(limits.unauthenticatedMax);
    this.#line = new HandshakeLine({
      placesMax: limits.handshakesWaitingMax,
      perTurnMax: limits.handshakesPerTurnMax,
      waitMs: limits.handshakeWaitMs,
      nowMs,
      nextTurn: setImmediate,
      begin: (socket) => this.#begin(socket),
      tooLate: (socket) => this.#refuse(socket, 'capacity', 'it waited too long in line for a TLS handshake'),
    });
  }

  /** How many wait in line for their handshakes. */
  get inLine(): number {
    return this.#line.length;
  }

  /** How many have no identity yet, but for those in line. */
  get unknown(): number {
    return this.#unknown.size;
  }

  enter(socket: Socket): void {
    const name = nameOf(socket);
    socket.on('error', ignoreBrokenSocket);
    socket.once('close', () => {
      this.#unknown.leave(socket);
      this.#line.leave(socket);
      this.#settle(socket);
      this.#clients.delete(name);
    });
    this.#wait(socket);
    const { tlsHandshakeMs } = this.#options.limits;
    const newcomer: Newcomer = {
      socket,
      deadline: setTimeout(() => this.#tooSlow(newcomer), tlsHandshakeMs),
      header: this.#proxies.has(socket.remoteAddress) ? Buffer.alloc(0) : undefined,
      onReadable: () => this.#read(newcomer),
    };
    this.#newcomers.set(socket, newcomer);
    socket.on('readable', newcomer.onReadable);
  }

  /** It is known who is there, so it may stay. */
  known(socket: Peer): void {
    this.#unknown.leave(socket);
  }

  /** Where the agent is: as the balancer says, where one is trusted and says it. */
  remoteOf(socket: Peer): string | undefined {
    return this.#clients.get(nameOf(socket)) ?? socket.remoteAddress;
  }

  #wait(socket: Socket): void {
    const { limits, unknownElsewhere } = this.#options;
    // The last place here is this socket's.
    const evicted = this.#unknown.enter(socket, Math.max(1, limits.unauthenticatedMax - unknownElsewhere()));
    if (evicted === undefined) return;
    const problem = 'it waited longest of too many that had not shown an identity';
    this.#options.turnedAway('capacity', problem, this.remoteOf(evicted));
  }

  #read(newcomer: Newcomer): void {
    const { socket } = newcomer;
    // At the end of what comes there is nothing to read, and the socket closes by itself.
    const bytes = socket.read() as Buffer | null;
    if (bytes === null) return;
    if (newcomer.header === undefined) {
      socket.unshift(bytes);
      this.#enterLine(socket);
      return;
    }
    newcomer.header = Buffer.concat([newcomer.header, bytes]);
    const header = readProxyHeader(newcomer.header);
    switch (header.kind) {
      case 'incomplete':
        return;
      case 'refused':
        this.#refuse(socket, 'proxy', header.problem);
        return;
      case 'complete': {
        const { client } = header;
        if (client !== undefined) this.#clients.set(nameOf(socket), client.address);
        const rest = newcomer.header.subarray(header.bytes);
        newcomer.header = undefined;
        if (rest.length === 0) return;
        socket.unshift(rest);
        this.#enterLine(socket);
        return;
      }
      default:
        header satisfies never;
    }
  }

  /** From here on it is our fault that it waits: it gives its place to those who say nothing. */
  #enterLine(socket: Socket): void {
    this.#settle(socket);
    this.#unknown.leave(socket);
    if (this.#line.enter(socket)) return;
    this.#refuse(socket, 'capacity', 'as many wait for a TLS handshake as may');
  }

  #begin(socket: Socket): void {
    if (socket.destroyed) return;
    this.#wait(socket);
    this.#options.handOver(socket);
  }

  #tooSlow({ socket, header }: Newcomer): void {
    const { tlsHandshakeMs } = this.#options.limits;
    if (header === undefined)
      this.#refuse(socket, 'tls', `no TLS handshake was begun within ${tlsHandshakeMs} ms`);
    else this.#refuse(socket, 'proxy', `no whole PROXY header came within ${tlsHandshakeMs} ms`);
  }

  #refuse(socket: Socket, stage: TurnedAwayStage, problem: string): void {
    this.#options.turnedAway(stage, problem, this.remoteOf(socket));
    socket.destroy();
  }

  /** It has begun, or is gone. */
  #settle(socket: Socket): void {
    const newcomer = this.#newcomers.get(socket);
    if (newcomer === undefined) return;
    this.#newcomers.delete(socket);
    clearTimeout(newcomer.deadline);
    socket.off('readable', newcomer.onReadable);
  }
}

const nameOf = ({ remoteAddress, remotePort }: Peer): string => `${remoteAddress} ${remotePort}`;

const ignoreBrokenSocket = (): void => {
  // Its 'close' follows, and that is what counts.
};
