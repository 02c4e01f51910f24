/** The sockets: who may connect is their mode, what comes in is bounded. */
import { chmodSync, chownSync, lstatSync, readFileSync, unlinkSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import process from 'node:process';
import { FuturestoreError } from '../../protocol/index.ts';
import type { RelayLogger } from '../uplink.ts';
import { answerError, answerWith } from './answers.ts';
import { targetOf } from './incoming.ts';
import { WrongMethodError, findRoute } from './routes.ts';
import type { Interface } from './routes.ts';

export interface SocketOptions {
  readonly path: string;
  /** Only what changes nothing. */
  readonly readOnly: boolean;
  /** The name or number of the group that may connect; absent: this process's. */
  readonly group?: string;
}

export interface LocalMetrics {
  requested(route: string, status: number): void;
}

/** A request's header, and with its body: who is slower is broken. */
const headersMs = 5_000;
const requestMs = 15_000;
const keepAliveMs = 30_000;
/** Owner and group. */
const socketMode = 0o660;

export class LocalServer {
  readonly #relay: Interface;
  readonly #options: SocketOptions;
  readonly #logger: RelayLogger;
  readonly #metrics: LocalMetrics;
  readonly #server: Server;
  #listening = false;

  constructor(
    relay: Interface,
    options: SocketOptions,
    bounds: { readonly headerBytesMax: number; readonly connectionsMax: number },
    logger: RelayLogger,
    metrics: LocalMetrics,
  ) {
    this.#relay = relay;
    this.#options = options;
    this.#logger = logger;
    this.#metrics = metrics;
    this.#server = createServer(
      {
        maxHeaderSize: bounds.headerBytesMax,
        headersTimeout: headersMs,
        requestTimeout: requestMs,
        keepAliveTimeout: keepAliveMs,
        connectionsCheckingInterval: 1_000,
      },
      (request, response) => void this.#serve(request, response),
    );
    this.#server.maxConnections = bounds.connectionsMax;
  }

  /** CONFIGURATION_INVALID where the socket cannot be made, DATA_IN_USE where another process answers on it. */
  async listen(): Promise<void> {
    const { path, group } = this.#options;
    const groupId = group === undefined ? undefined : groupIdOf(group);
    await removeStaleSocket(path);
    // Never open to more than its mode says, not even for a moment.
    const before = process.umask(0o777 & ~socketMode);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', (error) => reject(notListening(path, error)));
        this.#server.listen(path, resolve);
        process.umask(before);
      });
    } finally {
      process.umask(before);
    }
    this.#listening = true;
    try {
      if (groupId !== undefined) chownSync(path, -1, groupId);
      chmodSync(path, socketMode);
    } catch (error) {
      await this.close();
      throw notListening(path, error);
    }
  }

  async close(): Promise<void> {
    if (!this.#listening) return;
    this.#listening = false;
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) gone.abort(new FuturestoreError('CANCELLED', 'the caller has gone'));
    });
    let name = 'none';
    try {
      const { path, query } = targetOf(request);
      const { route, rest } = findRoute(request.method ?? '', path, query);
      name = route.path;
      if (this.#options.readOnly && !route.reads) {
        const text = `this socket only reads: ask for ${route.path} on the relay's other one`;
        throw new FuturestoreError('PERMISSION_DENIED', text);
      }
      await route.serve(this.#relay, { request, response, rest, query, signal: gone.signal });
    } catch (error) {
      if (!gone.signal.aborted) this.#failed(response, error);
    }
    this.#metrics.requested(name, gone.signal.aborted ? 499 : response.statusCode);
    this.#finish(request, response);
  }

  #failed(response: ServerResponse, error: unknown): void {
    if (error instanceof WrongMethodError) {
      answerError(response, error, { allow: error.allowed.join(', ') }, 405);
    } else if (error instanceof FuturestoreError) answerError(response, error);
    else {
      this.#logger.error({ err: error }, 'a bug: a local request failed');
      answerError(response, new FuturestoreError('INTERNAL', 'a bug in the relay: see its log'));
    }
  }

  /** What was sent along and not read would be taken for the next request. */
  #finish(request: IncomingMessage, response: ServerResponse): void {
    if (!response.headersSent && !response.destroyed) answerWith(response, 500, 'application/json', '{}\n');
    if (request.complete || request.destroyed) return;
    request.resume();
    response.once('finish', () => request.destroy());
  }
}

const codeOf = (error: unknown): unknown =>
  error instanceof Error && 'code' in error ? error.code : undefined;

const notListening = (path: string, error: unknown): FuturestoreError => {
  const why = error instanceof Error ? error.message : String(error);
  const text = `the relay cannot listen on ${path} (${why}): see that its directory is there and may be written to`;
  return new FuturestoreError('CONFIGURATION_INVALID', text, { cause: error });
};

/** What a process that was killed has left; one that is served is not touched. */
const removeStaleSocket = async (path: string): Promise<void> => {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there === undefined) return;
  if (!there.isSocket()) throw notListening(path, new Error('something else is there'));
  const answers = await new Promise<boolean>((resolve, reject) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => {
      const code = codeOf(error);
      if (code === 'ENOENT' || code === 'ECONNREFUSED') resolve(false);
      else reject(notListening(path, error));
    });
  });
  if (answers) {
    const text = `another process listens on ${path}: stop it, or name another socket`;
    throw new FuturestoreError('DATA_IN_USE', text);
  }
  try {
    unlinkSync(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw notListening(path, error);
  }
};

const groupIdOf = (group: string): number => {
  if (/^[0-9]{1,10}$/.test(group)) return Number(group);
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((candidate) => candidate.startsWith(`${group}:`));
  const id = line?.split(':')[2];
  if (id !== undefined) return Number(id);
  const text = `there is no group ${JSON.stringify(group)} in /etc/group: give its number`;
  throw new FuturestoreError('CONFIGURATION_INVALID', text);
};
