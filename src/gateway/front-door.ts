/**
 * The agents' way in: TLS 1.3 with a client certificate of some realm, then one WebSocket upgrade on '/'. All the
 * deadlines and caps that hold before anybody has said hello are here.
 */
import { createHash } from 'node:crypto';
import type { X509Certificate } from 'node:crypto';
import { createServer } from 'node:https';
import type { Server } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { SecureContextOptions } from 'node:tls';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { codecFor, codecs, FuturestoreError, levelAmong, retryAfterSeconds } from '../protocol/index.ts';
import type { FrameCodec } from '../protocol/index.ts';
import { closeReason } from './close-reason.ts';
import type { RealmDocument } from '../scopes/index.ts';
import type {
  Arrival,
  CertificateAndKey,
  Door,
  Identify,
  IdentityJudge,
  Listening,
  SharedSocket,
} from './door.ts';
import { Realms } from './identity.ts';
import { revocationListReader } from './revocation-list-reader.ts';
import type { IdentityVerdict, Proof, ProvenCertificate } from './identity.ts';
import { Lobby } from './lobby.ts';
import type { GatewayOptions, GatewaySetup, TurnedAwayStage } from './settings.ts';
import { fileReader, lookEveryMs } from './watched-files.ts';

const codecNames = codecs.map((codec) => codec.subprotocol).join(' and ');

const upgradeText = `This is Futurestore's port for agents: it speaks WebSocket only (${codecNames}, GET / with Upgrade).
Use the command futurestore or the client library; operators find /livez, /readyz and /metrics on the admin port.
`;

/** An upgrade's headers are few; certificates come before. */
const headerBytesMax = 8 * 1024;

/** A message of the greatest size in TLS records of 1 KiB is 1,400 chunks. */
const bufferedChunksMax = 8 * 1024;
const fragmentsMax = 4 * 1024;

/**
 * How long a client may resume a TLS session. When a server dies its agents come to the others all at once, on
 * connections that may be hours old: a resumed handshake costs half. Who it is is judged anew each time.
 */
const ticketLifetimeSeconds = 24 * 3600;

export class FrontDoor implements Door {
  readonly #setup: GatewaySetup;
  /** With the port that it was at first, where any free one was asked for. */
  #listenAt: { readonly host: string; readonly port: number };
  readonly #realms: Realms;
  #certificate: CertificateAndKey;
  #ticketKeys: Buffer | undefined;
  #stopLooking: (() => void) | undefined;
  readonly #origins: ReadonlySet<string>;
  readonly #server: Server;
  readonly #webSockets: WebSocketServer;
  readonly #arrived: (arrival: Arrival) => void;
  /** Every open socket, from its TCP accept on. */
  readonly #sockets = new Set<Socket>();
  readonly #lobby: Lobby;
  #accepting = false;
  /** The server is not closed, because that would close what is somebody else's. */
  #keptDescriptor = false;

  constructor(
    options: GatewayOptions,
    setup: GatewaySetup,
    arrived: (arrival: Arrival) => void,
    identitiesChanged: () => void,
  ) {
    this.#setup = setup;
    this.#listenAt = options.listen;
    this.#realms = new Realms(
      options.policies.document.realms,
      options.files ?? fileReader,
      setup.logger,
      revocationListReader(options.revocationListThread),
      identitiesChanged,
    );
    this.#certificate = { cert: options.cert, key: options.key };
    this.#origins = new Set(options.origins);
    this.#arrived = arrived;
    const { limits } = setup;
    this.#server = createServer({
      ...this.#secureOptions(),
      requestCert: true,
      // Node's verdict is not asked for: it wants a chain up to a root, and takes any resumed session for authorized,
      // even one that never had a certificate. Realms judges; the upgrade is refused in words (see #upgrade).
      rejectUnauthorized: false,
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout: limits.tlsHandshakeMs,
      headersTimeout: limits.httpRequestMs,
      requestTimeout: limits.httpRequestMs,
      connectionsCheckingInterval: Math.min(1000, limits.httpRequestMs),
      keepAliveTimeout: 1000,
      maxHeaderSize: headerBytesMax,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: limits.heartbeatMs,
    });
    const webSocketOptions = {
      noServer: true,
      perMessageDeflate: false,
      clientTracking: false,
      maxPayload: limits.frameBytesMax,
      maxFragments: fragmentsMax,
      maxBufferedChunks: bufferedChunksMax,
      closeTimeout: limits.closeMs,
      handleProtocols: (offered: Set<string>) => codecAmong(offered)?.subprotocol ?? false,
    };
    this.#webSockets = new WebSocketServer(webSocketOptions);
    // Node drops what is above it before it makes anything of it.
    this.#server.maxConnections = limits.connectionsMax + limits.refusalsMax;
    const beginTls = this.#server.listeners('connection');
    this.#server.removeAllListeners('connection');
    this.#lobby = new Lobby({
      limits,
      proxies: options.proxies ?? [],
      nowMs: () => setup.clock.nowMs(),
      unknownElsewhere: () => setup.sockets.othersWaiting,
      handOver: (socket) => {
        for (const listener of beginTls) listener.call(this.#server, socket);
      },
      turnedAway: (stage, problem, remote) => this.#turnAway(stage, problem, remote),
    });
    this.#attach();
  }

  get judge(): IdentityJudge {
    return this.#realms;
  }

  async replaceRealms(realms: Readonly<Record<string, RealmDocument>>): Promise<void> {
    await this.#realms.replace(realms, this.#setup.clock.wallMs());
    this.#renewContext();
  }

  replaceCertificate(certificate: CertificateAndKey): void {
    const before = this.#certificate;
    this.#certificate = certificate;
    try {
      this.#renewContext();
    } catch (error) {
      this.#certificate = before;
      const why = error instanceof Error ? error.message : String(error);
      const text = `the certificate for agents cannot be used: ${why}; give a certificate and its key`;
      throw new FuturestoreError('CONFIGURATION_INVALID', text, { cause: error });
    }
  }

  replaceTicketKeys(keys: Uint8Array): void {
    this.#ticketKeys = Buffer.from(keys);
    this.#server.setTicketKeys(this.#ticketKeys);
  }

  look(): Promise<void> {
    return this.#realms.look(this.#setup.clock.wallMs());
  }

  /** What TLS is made of anew when a certificate, an authority or a key changes; open connections keep what they have. */
  #secureOptions(): SecureContextOptions & { readonly ticketKeys?: Buffer } {
    return {
      ...this.#certificate,
      ca: this.#realms.authorities,
      minVersion: 'TLSv1.3',
      sessionTimeout: ticketLifetimeSeconds,
      // By default it is made of the process's arguments, and no other server would resume the session.
      sessionIdContext: sessionContextOf(this.#setup.port.standing.identity.clusterId),
      ...(this.#ticketKeys && { ticketKeys: this.#ticketKeys }),
    };
  }

  #renewContext(): void {
    // What cannot be a context throws, and leaves the server the one it has.
    this.#server.setSecureContext(this.#secureOptions());
  }

  async listen(shared?: SharedSocket): Promise<Listening> {
    // Before the first one comes: a realm whose list has not been read lets nobody in.
    await this.look();
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      const at = shared === undefined ? this.#listenAt : { fd: shared.descriptor };
      this.#server.listen(at, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    this.#accepting = true;
    this.#stopLooking = this.#setup.clock.every(lookEveryMs, () => void this.look());
    const { port } = this.#server.address() as AddressInfo;
    if (shared === undefined) this.#listenAt = { ...this.#listenAt, port };
    const descriptor = descriptorOf(this.#server);
    return { port, ...(descriptor !== undefined && { descriptor }) };
  }

  stopAccepting(keepDescriptor = false): void {
    if (!this.#accepting) return;
    this.#accepting = false;
    this.#stopLooking?.();
    this.#keptDescriptor = keepDescriptor;
    if (keepDescriptor) this.#server.unref();
    else this.#server.close();
  }

  /** Every socket is destroyed; resolves when none is left. */
  async close(): Promise<void> {
    const listening = this.#server.listening && !this.#keptDescriptor;
    const closed = new Promise<void>((resolve) => {
      if (this.#keptDescriptor) resolve();
      else if (listening || this.#sockets.size > 0) this.#server.once('close', resolve);
      else resolve();
    });
    this.stopAccepting();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #attach(): void {
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      const { sockets, limits } = this.#setup;
      if (this.#sockets.size + sockets.othersOpen > limits.connectionsMax + limits.refusalsMax) {
        socket.once('close', () => this.#sockets.delete(socket));
        socket.on('error', ignoreBrokenSocket);
        socket.destroy();
        this.#turnAway('capacity', tooMany, socket.remoteAddress);
        return;
      }
      this.#lobby.enter(socket);
      // After the lobby's own listener, so that it has been taken out of what is told.
      socket.once('close', () => {
        this.#sockets.delete(socket);
        this.#publish();
      });
      this.#publish();
    });
    this.#server.on('error', (error) => {
      // While it does not listen yet, whoever asked it to is told.
      if (this.#accepting) this.#setup.logger.error({ err: error }, 'accepting agents failed');
    });
    this.#server.on('drop', (data) => this.#turnAway('capacity', tooMany, data?.remoteAddress));
    this.#server.on('tlsClientError', (error: Error & { code?: string }, socket) => {
      this.#turnAway('tls', error.code ?? error.message, this.#lobby.remoteOf(socket));
      socket.destroy();
    });
    this.#server.on('clientError', (error: Error & { code?: string }, socket) => {
      this.#turnAway('http', error.code ?? error.message, this.#remoteOf(socket));
      socket.destroy();
    });
    this.#server.on('request', (request, response) => this.#refusePlain(request, response));
    this.#server.on('upgrade', (request, socket, head) => {
      try {
        this.#upgrade(request, socket, head);
      } catch (error) {
        this.#setup.logger.error({ err: error }, 'a bug: an upgrade failed');
        socket.destroy();
      }
    });
  }

  /** It is known who is there. */
  #known(socket: Socket): void {
    this.#lobby.known(socket);
    this.#publish();
  }

  #publish(): void {
    this.#setup.sockets.publish(this.#sockets.size, this.#lobby.unknown);
  }

  #refusePlain(request: IncomingMessage, response: ServerResponse): void {
    this.#turnAway('http', `${request.method ?? ''} without upgrade`, this.#lobby.remoteOf(request.socket));
    response.writeHead(426, {
      'content-type': 'text/plain; charset=utf-8',
      'content-length': Buffer.byteLength(upgradeText),
      connection: 'close, upgrade',
      upgrade: 'websocket',
    });
    response.end(request.method === 'HEAD' ? '' : upgradeText);
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', ignoreBrokenSocket);
    if (!(socket instanceof TLSSocket)) throw new Error('an upgrade came over something else than TLS');
    const leaf = socket.getPeerX509Certificate();
    const proof = leaf && this.#realms.prove(leaf);
    if (proof === undefined && (leaf !== undefined || !this.#realms.takesTokens)) {
      const problem = `UNAUTHENTICATED: ${certificateProblem(leaf)}`;
      const remote = this.#remoteOf(socket);
      this.#setup.turnedAway.identity({ stage: 'http', principal: undefined, problem, remote, code: 401 });
      endWithStatus(socket, '401 Unauthorized', problem, '');
      return;
    }
    const problem = this.#upgradeProblem(request);
    if (problem !== undefined) {
      this.#refuseUpgrade(socket, problem.status, problem.text);
      return;
    }
    const { sockets, limits } = this.#setup;
    if (this.#sockets.size + sockets.othersOpen > limits.connectionsMax) {
      this.#refuseForLackOfRoom(socket);
      return;
    }
    // Nobody yet where there is no certificate: then it stays among those who wait, and its token is to tell.
    const verdict = proof === undefined || !proof.ok ? proof : this.#judge({ certificate: proof.proved });
    this.#webSockets.handleUpgrade(request, socket, head, (ws) => {
      socket.off('error', ignoreBrokenSocket);
      const codec = codecFor(ws.protocol);
      const remote = this.#lobby.remoteOf(socket);
      if (codec === undefined) throw new Error('an upgrade without a subprotocol passed');
      if (verdict?.ok === false) {
        const { problem, closeCode: code, principal } = verdict;
        this.#setup.turnedAway.identity({ stage: 'identity', principal, problem, remote, code });
        ws.on('error', ignoreBrokenSocket);
        ws.close(code, closeReason(problem));
      } else {
        if (verdict !== undefined) this.#known(socket);
        const identify = this.#identifier(socket, proof?.ok === true ? proof.proved : undefined);
        const level = levelAmong(offeredBy(request));
        this.#arrived({ ws, socket, codec, remote, level, identity: verdict?.identity, identify });
      }
    });
  }

  #judge(proof: Proof): IdentityVerdict {
    return this.#realms.judge(proof, this.#setup.clock.wallMs(), 'fresh');
  }

  #identifier(socket: TLSSocket, certificate: ProvenCertificate | undefined): Identify {
    return async (text) => {
      const token = await this.#realms.proveToken(text, this.#setup.clock.wallMs());
      const verdict = token.ok
        ? this.#judge({ ...(certificate && { certificate }), token: token.proved })
        : token;
      // What is refused its connection tells: it knows whether it was to be let in by it, or only renewed.
      if (verdict.ok) this.#known(socket);
      return verdict;
    };
  }

  #upgradeProblem(request: IncomingMessage): { readonly status: string; readonly text: string } | undefined {
    if (request.method !== 'GET')
      return { status: '405 Method Not Allowed', text: 'only GET may be upgraded' };
    if (request.url !== '/')
      return { status: '404 Not Found', text: "agents connect to '/': leave out the path" };
    const { origin } = request.headers;
    if (origin !== undefined && !this.#origins.has(origin)) {
      const text = `pages of the origin ${printable(origin)} may not connect: add it to agents.origins if they should`;
      return { status: '403 Forbidden', text };
    }
    const offered = request.headers['sec-websocket-protocol'];
    if (codecAmong(offeredBy(request)) !== undefined) return undefined;
    const said = offered === undefined ? 'no subprotocol' : `only ${printable(offered)}`;
    const text = `VERSION_NOT_SUPPORTED: the client offers ${said}, this server speaks ${codecNames}: use a client of this version`;
    return { status: '400 Bad Request', text };
  }

  #refuseUpgrade(socket: Duplex, status: string, text: string): void {
    this.#turnAway('http', text, this.#remoteOf(socket));
    endWithStatus(socket, status, text, '');
  }

  /** Its handshake was made only to tell it so. */
  #refuseForLackOfRoom(socket: TLSSocket): void {
    const { connectionsMax, retryAfterMs } = this.#setup.limits;
    this.#turnAway('capacity', 'as many connections are open as may', this.#lobby.remoteOf(socket));
    const seconds = retryAfterSeconds(retryAfterMs);
    const text = `UNAVAILABLE: ${connectionsMax} connections are open, as many as may: try another server, or come back in ${seconds} s`;
    endWithStatus(socket, '503 Service Unavailable', text, `Retry-After: ${seconds}\r\n`);
  }

  #remoteOf(socket: Duplex): string | undefined {
    return socket instanceof TLSSocket ? this.#lobby.remoteOf(socket) : undefined;
  }

  #turnAway(stage: TurnedAwayStage, problem: string, remote: string | undefined): void {
    this.#setup.turnedAway.socket(stage, problem, remote);
  }
}

const tooMany = 'as many connections are open as may';

/** Node has no documented way to it; where there is none, other threads cannot share the socket, and say so. */
const descriptorOf = (server: Server): number | undefined => {
  const handle: unknown = Reflect.get(server, '_handle');
  const descriptor: unknown =
    typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  return typeof descriptor === 'number' && descriptor >= 0 ? descriptor : undefined;
};

/** `headers`: more lines, each with its end. */
const endWithStatus = (socket: Duplex, status: string, text: string, headers: string): void => {
  const body = `${text}\n`;
  socket.once('finish', () => socket.destroy());
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\n${headers}Content-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
};

const ignoreBrokenSocket = (): void => {
  // Its 'close' follows, and that is what counts.
};

/** The subprotocols that a client offers, and what else it says in their place. */
const offeredBy = ({ headers }: IncomingMessage): string[] =>
  headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()) ?? [];

/** The first of what is offered, in the client's order of preference, that is spoken here. */
const codecAmong = (offered: Iterable<string>): FrameCodec | undefined => {
  for (const name of offered) {
    const codec = codecFor(name);
    if (codec !== undefined) return codec;
  }
  return undefined;
};

/** Why a socket has no identity, in words for who configured its certificate. */
const certificateProblem = (leaf: X509Certificate | undefined): string =>
  leaf === undefined
    ? 'a client certificate of a realm is required'
    : `the client certificate (${printable(leaf.subject)}) was signed by no CA of a realm: have it issued by one`;

/** OpenSSL takes 32 bytes. */
const sessionContextOf = (clusterId: string): string =>
  createHash('sha256').update(`futurestore agents ${clusterId}`).digest('hex').slice(0, 32);

/** Short, and harmless in a log and a terminal. */
const printable = (text: string): string =>
  JSON.stringify(text.slice(0, 80)).replaceAll(/[^\x20-\x7e]/g, '?');
