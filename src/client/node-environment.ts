/** The real world for the client: ws over TLS 1.3, the process's clock, the system's randomness. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { connect as connectTls, createSecureContext } from 'node:tls';
import type { SecureContext, TLSSocket } from 'node:tls';
import { WebSocket } from 'ws';
import {
  FuturestoreError,
  levelToken,
  limits,
  protobufCodec,
  retryAfterMsOfField,
} from '../protocol/index.ts';
import { Client } from './client.ts';
import type { ClientOptions } from './client.ts';
import { endpointProblem } from './endpoints.ts';
import type { ClientEnvironment, ClientSocket, SocketFailure, SocketHandlers } from './environment.ts';
import { loadProfile } from './profile.ts';

export interface ConnectOptions extends ClientOptions {
  /** PEM: the CA of the servers' certificates. No other is trusted. */
  readonly ca: string | Buffer;
  /** PEM: this client's certificate, with its chain if there is one. May be left out where there is a token. */
  readonly cert?: string | Buffer;
  /** PEM: the certificate's private key. */
  readonly key?: string | Buffer;
}

/**
 * Makes a client. Returns at once: the connection is made in the background, and requests wait for it as long as their
 * timeouts allow. Throws INVALID_ARGUMENT for options that cannot work.
 */
export function connect(options: ConnectOptions): Client {
  for (const endpoint of options.endpoints) {
    const problem = endpointProblem(endpoint);
    if (problem !== undefined) throw new FuturestoreError('INVALID_ARGUMENT', `endpoints: ${problem}`);
  }
  const { connectTimeoutMs = handshakeTimeoutMs } = options;
  return new Client(options, new NodeEnvironment(secureContextOf(options), connectTimeoutMs));
}

export interface ProfileOptions extends Omit<ClientOptions, 'endpoints'> {
  /** A file with a token, in place of the profile's own. Read for each connection, and again before the token expires. */
  readonly tokenFile?: string;
}

/** `connect` with the endpoints and certificates of a profile; `options` adds to it. */
export function connectWithProfile(file: string, options: ProfileOptions = {}): Client {
  const { tokenFile, ...rest } = options;
  const { tokenFile: ofProfile, ...profile } = loadProfile(file, tokenFile !== undefined);
  const path = tokenFile ?? ofProfile;
  try {
    return connect({ ...rest, ...profile, ...(path !== undefined && { token: () => readToken(path) }) });
  } catch (error) {
    if (!(error instanceof FuturestoreError)) throw error;
    throw new FuturestoreError('CONFIGURATION_INVALID', `${file}: ${error.message}`, { cause: error });
  }
}

async function readToken(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new FuturestoreError('CONFIGURATION_INVALID', `the token file ${path} cannot be read (${code})`);
  }
}

const handshakeTimeoutMs = 10_000;
/** After a close frame, the other side's must come within this time. */
const closeTimeoutMs = 1_000;
/** Below it the core may send again. */
const drainedBelowBytes = 1024 * 1024;

/** Parsed once, so that a bad PEM is told at once and a reconnect costs less. */
function secureContextOf({ ca, cert, key, token }: ConnectOptions): SecureContext {
  if ((cert === undefined || key === undefined) && (cert !== key || token === undefined)) {
    const text = 'cert and key belong together, and only with a token both may be left out';
    throw new FuturestoreError('INVALID_ARGUMENT', text);
  }
  try {
    return createSecureContext({
      ca,
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
      minVersion: 'TLSv1.3',
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const text = `ca, cert and key must be PEM that belong together (${why})`;
    throw new FuturestoreError('INVALID_ARGUMENT', text);
  }
}

class NodeEnvironment implements ClientEnvironment {
  readonly codec = protobufCodec;
  readonly #secureContext: SecureContext;
  readonly #handshakeTimeoutMs: number;
  /** The last ticket of each endpoint: a resumed handshake costs the server half. */
  readonly #tickets = new Map<string, Buffer>();

  constructor(secureContext: SecureContext, connectTimeoutMs: number) {
    this.#secureContext = secureContext;
    this.#handshakeTimeoutMs = connectTimeoutMs;
  }

  openSocket(endpoint: string, handlers: SocketHandlers): ClientSocket {
    const progress: Progress = { secured: false };
    const socket = new WebSocket(endpoint, [this.codec.subprotocol, levelToken], {
      createConnection: () => this.#openTls(endpoint, progress),
      perMessageDeflate: false,
      followRedirects: false,
      handshakeTimeout: this.#handshakeTimeoutMs,
      maxPayload: limits.serverFrameBytesMax,
      // Masking guards proxies that do not see into TLS anyway; zeros nearly halve its cost.
      generateMask: zeroMask,
    });
    return new NodeSocket(socket, handlers, progress);
  }

  #openTls(endpoint: string, progress: Progress): TLSSocket {
    const url = new URL(endpoint);
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const session = this.#tickets.get(endpoint);
    const socket = connectTls({
      host,
      port: url.port === '' ? 443 : Number(url.port),
      // An IP address is no legal server name.
      servername: isIP(host) === 0 ? host : '',
      secureContext: this.#secureContext,
      rejectUnauthorized: true,
      ...(session === undefined ? {} : { session }),
    });
    socket.once('secureConnect', () => {
      progress.secured = true;
    });
    socket.on('session', (ticket: Buffer) => {
      this.#tickets.set(endpoint, ticket);
    });
    return socket;
  }

  now(): number {
    return performance.timeOrigin + performance.now();
  }

  setTimer(delayMs: number, callback: () => void): NodeJS.Timeout {
    return setTimeout(callback, delayMs);
  }

  clearTimer(handle: unknown): void {
    clearTimeout(handle as NodeJS.Timeout);
  }

  defer(callback: () => void): void {
    setImmediate(callback);
  }

  random(): number {
    return Math.random();
  }

  randomBytes(count: number): Uint8Array {
    return randomBytes(count);
  }
}

const zeroMask = (mask: Buffer): void => {
  mask.fill(0);
};

/** How far a socket has come. */
interface Progress {
  /** The TLS handshake is done, as this side sees it: with TLS 1.3 the server may still refuse our certificate. */
  secured: boolean;
}

class NodeSocket implements ClientSocket {
  readonly #socket: WebSocket;
  readonly #handlers: SocketHandlers;
  #failure: SocketFailure | undefined;
  #blocked = false;
  #closeTimer: NodeJS.Timeout | undefined;
  readonly #sent = (): void => {
    if (!this.#blocked || this.#socket.bufferedAmount > drainedBelowBytes) return;
    this.#blocked = false;
    this.#handlers.onDrain();
  };

  constructor(socket: WebSocket, handlers: SocketHandlers, progress: Progress) {
    this.#socket = socket;
    this.#handlers = handlers;
    let opened = false;
    socket.on('open', () => {
      opened = true;
      handlers.onOpen();
    });
    socket.on('message', (data, binary) => {
      // With the default binaryType it is one Buffer.
      if (Buffer.isBuffer(data)) handlers.onMessage(data, binary);
    });
    socket.on('ping', () => {
      handlers.onActivity();
    });
    socket.on('unexpected-response', (request, response) => {
      this.#failure = failureOfStatus(response.statusCode ?? 0, response.headers['retry-after']);
      request.destroy();
      socket.terminate();
    });
    socket.on('error', (error) => {
      this.#failure ??= failureOf(error, progress.secured && !opened);
    });
    socket.on('close', (code, reason) => {
      clearTimeout(this.#closeTimer);
      // A close code of the server says more than the error that may have followed it.
      const failure = code === abnormalClosure ? this.#failure : undefined;
      handlers.onClose(code, reason.toString(), failure);
    });
  }

  get bufferedBytes(): number {
    return this.#socket.bufferedAmount;
  }

  send(bytes: Uint8Array): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(bytes, { binary: true }, this.#sent);
    this.#blocked ||= this.#socket.bufferedAmount > drainedBelowBytes;
  }

  close(code: number, reason: string): void {
    this.#socket.close(code, reason);
    this.#closeTimer ??= setTimeout(() => {
      this.#socket.terminate();
    }, closeTimeoutMs);
  }

  terminate(): void {
    this.#socket.terminate();
  }
}

/** What ws gives where no close frame came. */
const abnormalClosure = 1006;

/** OpenSSL's alerts from a server that does not like our certificate. */
const identityRefusedCodes: ReadonlySet<string> = new Set([
  'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED',
  'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA',
  'ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE',
  'ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE',
  'ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN',
  'ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_UNKNOWN',
  'ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED',
  'ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_EXPIRED',
  'ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED',
  'ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_REVOKED',
  'ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE',
  'ERR_SSL_SSL/TLS_ALERT_UNSUPPORTED_CERTIFICATE',
  'ERR_SSL_TLSV1_ALERT_ACCESS_DENIED',
]);

/** Node's names for what is wrong with a server's certificate. */
const serverUntrustedCodes: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'CERT_SIGNATURE_FAILURE',
  'CERT_NOT_YET_VALID',
  'CERT_HAS_EXPIRED',
  'CERT_REVOKED',
  'CERT_UNTRUSTED',
  'CERT_REJECTED',
  'CERT_CHAIN_TOO_LONG',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'PATH_LENGTH_EXCEEDED',
  'HOSTNAME_MISMATCH',
  'ERR_TLS_CERT_ALTNAME_INVALID',
]);

function failureOf(error: Error, unanswered: boolean): SocketFailure {
  const code = 'code' in error ? String(error.code) : '';
  const text = error.message === '' ? code : error.message;
  if (identityRefusedCodes.has(code)) return { kind: 'identity_refused', text: code };
  if (serverUntrustedCodes.has(code)) return { kind: 'server_untrusted', text };
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER' || code === 'HPE_INVALID_CONSTANT') {
    return { kind: 'not_futurestore', text: code };
  }
  if (unanswered && (code === 'ECONNRESET' || code === 'EPIPE')) return { kind: 'dropped', text };
  return { kind: 'unreachable', text };
}

function failureOfStatus(status: number, retryAfter: string | undefined): SocketFailure {
  const text = `the server answered with HTTP status ${String(status)}`;
  if (status === 401 || status === 403) return { kind: 'identity_refused', text };
  // Overload and the like pass; a server that knows no such upgrade will not learn it.
  if (status >= 500 || status === 429)
    return { kind: 'unreachable', text, retryAfterMs: retryAfterMsOfField(retryAfter) };
  return { kind: 'not_futurestore', text };
}
