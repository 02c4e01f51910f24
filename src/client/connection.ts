/** Performs what connection-state.ts decides: opens and drops sockets, keeps the alarm, listens for silence. */
import { strict as assert } from 'node:assert';
import { FuturestoreError, closeCodes, mayReconnect, retryAfterMsOfReason } from '../protocol/index.ts';
import type { ErrorCode, ReceivedServerFrame, Welcome } from '../protocol/index.ts';
import { fullJitter, reconnectBackoff } from './backoff.ts';
import { endpointProblem } from './endpoints.ts';
import { alarmAtMs, initialTransition, transition } from './connection-state.ts';
import type {
  ConnectionEffect,
  ConnectionEvent,
  ConnectionState,
  LinkId,
  Problem,
  Transition,
  World,
} from './connection-state.ts';
import type { ClientEnvironment, ClientLogger, SocketFailure } from './environment.ts';
import { Link } from './link.ts';
import type { ClientIdentity } from './link.ts';
import type { Timed, Timers } from './timers.ts';
import { currentToken, tokenError } from './tokens.ts';
import type { TokenSource } from './tokens.ts';

/** Servers ping every 15 s; three missed ones are a dead line. */
const silenceMsMax = 45_000;
/** How long the other side may take to confirm a close. */
const closeTimeoutMs = 1_000;
const normalClosure = 1000;

export interface ConnectionHandlers {
  /** The socket is open: send the first frame, with requests as far as they fit. */
  dialed(link: Link): void;
  adopted(link: Link, server: Welcome): void;
  orphaned(): void;
  failed(error: FuturestoreError): void;
  /** From the link that requests go over. */
  received(frame: ReceivedServerFrame): void;
  drained(): void;
  changed(state: ConnectionState): void;
}

export interface ConnectionOptions {
  readonly endpoints: readonly string[];
  readonly identity: ClientIdentity;
  readonly connectTimeoutMs: number;
  readonly token: TokenSource | undefined;
  readonly logger: ClientLogger | undefined;
}

class Alarm implements Timed {
  dueAtMs = 0;
  heapIndex = -1;
  readonly due: (nowMs: number) => void;

  constructor(due: (nowMs: number) => void) {
    this.due = due;
  }
}

export class Connection {
  readonly #environment: ClientEnvironment;
  readonly #timers: Timers;
  readonly #options: ConnectionOptions;
  readonly #handlers: ConnectionHandlers;
  readonly #links = new Map<LinkId, Link>();
  readonly #alarm = new Alarm(() => {
    this.#dispatch({ kind: 'alarm' });
  });
  readonly #silence = new Alarm((nowMs) => {
    this.#listen(nowMs);
  });
  /** Shuffled once: agents with one configuration spread over the servers. */
  readonly #endpoints: readonly string[];
  #state: ConnectionState;
  #endpointIndex = 0;
  #linkCount = 0;
  /** Effects of `start` have run. */
  #started: Transition | undefined;

  constructor(
    environment: ClientEnvironment,
    timers: Timers,
    options: ConnectionOptions,
    handlers: ConnectionHandlers,
  ) {
    this.#environment = environment;
    this.#timers = timers;
    this.#options = options;
    this.#handlers = handlers;
    this.#endpoints = shuffled(options.endpoints, environment);
    this.#started = initialTransition(this.#world());
    this.#state = this.#started.state;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  start(): void {
    const first = this.#started;
    if (first === undefined || this.#state.kind === 'closed') return;
    this.#started = undefined;
    this.#follow(first);
  }

  /** Ends it: unanswered requests fail with the error. */
  close(error: FuturestoreError): void {
    this.#dispatch({ kind: 'close', error });
  }

  /** Gives the present connection up for another. */
  recycle(error: FuturestoreError): void {
    const state = this.#state;
    if (state.kind !== 'connected' && state.kind !== 'moving') return;
    this.#lose(state.link, { verdict: 'retry', error }, normalClosure);
  }

  #world(): World {
    const environment = this.#environment;
    return {
      nowMs: environment.now(),
      endpointCount: this.#endpoints.length,
      connectTimeoutMs: this.#options.connectTimeoutMs,
      closeTimeoutMs,
      nextLink: () => {
        this.#linkCount += 1;
        return this.#linkCount;
      },
      nextEndpoint: (leaving, full) => this.#nextEndpoint(leaving, full),
      backoffMs: (attempt) => fullJitter(reconnectBackoff, attempt, environment.random()),
      comeBackMs: (toldMs) => toldMs * (1 + environment.random() / 2),
      // The first half of the grace: the second is for the handshake, should the first try fail.
      spreadMs: (graceMs) => (environment.random() * graceMs) / 2,
    };
  }

  #nextEndpoint(leaving: string | undefined, full: readonly string[]): string {
    const inTurn = this.#endpoints.map((_, skip) => this.#endpointAt(skip));
    const open = inTurn.filter((endpoint) => !full.includes(endpoint));
    const endpoint = open.find((candidate) => candidate !== leaving) ?? open[0] ?? this.#endpointAt(0);
    this.#endpointIndex += inTurn.indexOf(endpoint) + 1;
    return endpoint;
  }

  #endpointAt(skip: number): string {
    const endpoint = this.#endpoints[(this.#endpointIndex + skip) % this.#endpoints.length];
    assert(endpoint !== undefined, 'a client has at least one endpoint');
    return endpoint;
  }

  #dispatch(event: ConnectionEvent): void {
    const before = this.#state;
    const next = transition(before, event, this.#world());
    if (next.state === before && next.effects.length === 0) return;
    this.#follow(next);
  }

  #follow(next: Transition): void {
    const before = this.#state;
    this.#state = next.state;
    const dueAtMs = alarmAtMs(next.state);
    if (dueAtMs === undefined) this.#timers.clear(this.#alarm);
    else this.#timers.set(this.#alarm, dueAtMs);
    for (const effect of next.effects) this.#perform(effect);
    this.#log(before, next.state);
    this.#handlers.changed(next.state);
  }

  #perform(effect: ConnectionEffect): void {
    switch (effect.kind) {
      case 'open':
        this.#open(effect.link, effect.endpoint);
        return;
      case 'close':
        this.#links.get(effect.link)?.close(normalClosure, '');
        return;
      case 'terminate':
        this.#links.get(effect.link)?.terminate();
        return;
      case 'adopt': {
        const link = this.#links.get(effect.link);
        if (link === undefined) return;
        this.#timers.set(this.#silence, link.heardAtMs + silenceMsMax);
        this.#handlers.adopted(link, effect.server);
        return;
      }
      case 'orphan':
        this.#timers.clear(this.#silence);
        this.#handlers.orphaned();
        return;
      case 'fail':
        this.#timers.clear(this.#silence);
        this.#handlers.failed(effect.error);
        return;
      default:
        effect satisfies never;
    }
  }

  #open(id: LinkId, endpoint: string): void {
    const environment = this.#environment;
    const link = new Link(id, endpoint, environment.codec, this.#options.identity, environment.now());
    this.#links.set(id, link);
    link.socket = environment.openSocket(endpoint, {
      onOpen: () => {
        this.#withToken(link);
      },
      onMessage: (bytes, binary) => {
        this.#received(link, bytes, binary);
      },
      onActivity: () => {
        link.heardAtMs = environment.now();
      },
      onDrain: () => {
        this.#handlers.drained();
      },
      onClose: (code, reason, failure) => {
        this.#links.delete(id);
        const problem = problemOf(endpoint, code, reason, failure, this.#options.token);
        this.#dispatch({ kind: 'lost', link: id, problem });
      },
    });
  }

  /** Where tokens come from somewhere, each connection asks for one: the last may have expired since. */
  #withToken(link: Link): void {
    const { token } = this.#options;
    if (typeof token !== 'function') {
      link.token = token;
      this.#opened(link);
      return;
    }
    // Until it comes the time for connecting runs on.
    currentToken(token).then(
      (text) => {
        if (this.#links.get(link.id) !== link) return;
        link.token = text;
        this.#opened(link);
      },
      (error: unknown) => {
        if (this.#links.get(link.id) !== link) return;
        this.#lose(link.id, { verdict: 'retry', error: tokenError(error) }, normalClosure);
      },
    );
  }

  #opened(link: Link): void {
    const state = this.#state;
    if (state.kind === 'connecting' && state.link === link.id) this.#handlers.dialed(link);
    // While another one serves, hello goes alone: the requests move when this one is welcome.
    else if (state.kind === 'moving' && state.next.kind === 'connecting' && state.next.link === link.id)
      link.send([]);
  }

  #received(link: Link, bytes: Uint8Array, binary: boolean): void {
    link.heardAtMs = this.#environment.now();
    let frame: ReceivedServerFrame;
    try {
      frame = this.#decode(link, bytes, binary);
    } catch (error) {
      if (!(error instanceof FuturestoreError)) throw error;
      this.#lose(link.id, { verdict: 'retry', error }, closeCodes.protocolError);
      return;
    }
    if (frame.welcome !== undefined) {
      link.welcomed = true;
      this.#dispatch({ kind: 'welcomed', link: link.id, server: frame.welcome });
    }
    if (this.#serves(link.id)) this.#handlers.received(frame);
    if (frame.goaway !== undefined) {
      const { graceMs, endpoints = [], here } = frame.goaway;
      const hint = this.#known(endpoints, link.endpoint);
      this.#dispatch({
        kind: 'goaway',
        link: link.id,
        graceMs,
        ...(hint !== undefined && { hint }),
        ...(here && { here }),
      });
    }
  }

  /**
   * The first of the endpoints that we know ourselves, by configuration or as one of all servers that the welcome named;
   * any other could be anybody's.
   */
  #known(endpoints: readonly string[], present: string): string | undefined {
    const state = this.#state;
    const named = state.kind === 'connected' ? state.server.endpoints : [];
    const known = [...this.#endpoints, ...named].filter((one) => endpointProblem(one) === undefined);
    for (const endpoint of endpoints) {
      const found = known.find((one) => isSame(one, endpoint));
      if (found !== undefined && !isSame(found, present)) return found;
    }
    return undefined;
  }

  #decode(link: Link, bytes: Uint8Array, binary: boolean): ReceivedServerFrame {
    if (binary !== this.#environment.codec.binary) {
      throw new FuturestoreError('PROTOCOL_ERROR', `${link.endpoint} sent a message of the wrong kind`);
    }
    const frame = this.#environment.codec.decodeServerFrame(bytes);
    if ((frame.welcome === undefined) !== link.welcomed) {
      const what = link.welcomed ? 'a second welcome' : 'no welcome first';
      throw new FuturestoreError('PROTOCOL_ERROR', `${link.endpoint} sent ${what}`);
    }
    return frame;
  }

  #serves(link: LinkId): boolean {
    const state = this.#state;
    return (state.kind === 'connected' || state.kind === 'moving') && state.link === link;
  }

  #lose(id: LinkId, problem: Problem, code: number): void {
    const link = this.#links.get(id);
    // Out of the map first: nothing it still says counts.
    this.#links.delete(id);
    link?.close(code, '');
    this.#dispatch({ kind: 'lost', link: id, problem });
  }

  #listen(nowMs: number): void {
    const state = this.#state;
    if (state.kind !== 'connected' && state.kind !== 'moving') return;
    const link = this.#links.get(state.link);
    if (link === undefined) return;
    if (nowMs - link.heardAtMs < silenceMsMax) {
      this.#timers.set(this.#silence, link.heardAtMs + silenceMsMax);
      return;
    }
    const text = `${link.endpoint} was not heard for ${String(silenceMsMax / 1000)} s`;
    this.#links.delete(link.id);
    link.terminate();
    const error = new FuturestoreError('UNAVAILABLE', text);
    this.#dispatch({ kind: 'lost', link: link.id, problem: { verdict: 'retry', error } });
  }

  #log(before: ConnectionState, now: ConnectionState): void {
    const { logger } = this.#options;
    if (logger === undefined || before.kind === now.kind) return;
    if (now.kind === 'connected') {
      logger.info({ endpoint: now.endpoint, server: now.server.serverName }, 'connected');
    } else if (now.kind === 'waiting') {
      const retryInMs = Math.round(now.retryAtMs - this.#environment.now());
      logger.warn({ problem: now.lastError.message, retryInMs }, 'not connected');
    } else logger.debug({ state: now.kind }, 'connection');
  }
}

/** 'wss://a:1' and 'wss://a:1/' are one place. */
const isSame = (one: string, other: string): boolean =>
  one === other || (URL.canParse(one) && URL.canParse(other) && new URL(one).href === new URL(other).href);

function shuffled(endpoints: readonly string[], environment: ClientEnvironment): readonly string[] {
  const left = [...endpoints];
  const order: string[] = [];
  while (left.length > 0) order.push(...left.splice(Math.floor(environment.random() * left.length), 1));
  return order;
}

const fatalCodes: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [closeCodes.protocolError, 'PROTOCOL_ERROR'],
  [closeCodes.unauthenticated, 'UNAUTHENTICATED'],
  [closeCodes.revoked, 'UNAUTHENTICATED'],
  [closeCodes.replaced, 'CONNECTION_CLOSED'],
  [closeCodes.frameTooLarge, 'LIMIT_EXCEEDED'],
  [closeCodes.versionNotSupported, 'VERSION_NOT_SUPPORTED'],
]);

const fatalAdvice: ReadonlyMap<number, string> = new Map<number, string>([
  [closeCodes.protocolError, 'it calls our frame wrong: check that client and server have the same version'],
  [
    closeCodes.unauthenticated,
    "it does not accept this client's identity: check the certificate's name and issuer",
  ],
  [closeCodes.revoked, "this client's certificate or principal was revoked: have a new one issued"],
  [closeCodes.replaced, 'another process took over as this principal: run only one'],
  [closeCodes.frameTooLarge, 'our frame is larger than it allows: write less at once'],
  [
    closeCodes.versionNotSupported,
    'it speaks no version of the protocol that this client speaks: update one of them',
  ],
]);

function problemOf(
  endpoint: string,
  code: number,
  reason: string,
  failure: SocketFailure | undefined,
  token: TokenSource | undefined,
): Problem {
  if (failure !== undefined) return problemOfFailure(endpoint, failure);
  // The text is the server's own: kept to one printable line.
  const words = reason.replace(/[^\x20-\x7e]/g, '?');
  const said = words === '' ? String(code) : `${String(code)}, ${words}`;
  if (code === closeCodes.authenticationExpired && typeof token === 'string') {
    const text = `${endpoint} closed the connection (${said}): this client has no other token; give it a newer one, or a function that gets one`;
    return { verdict: 'fatal', error: new FuturestoreError('UNAUTHENTICATED', text) };
  }
  if (mayReconnect(code)) {
    const error = new FuturestoreError('UNAVAILABLE', `${endpoint} closed the connection (${said})`);
    return { verdict: 'retry', error, retryAfterMs: retryAfterMsOfReason(reason) };
  }
  const advice = fatalAdvice.get(code) ?? 'it asks this client not to come back';
  const errorCode = fatalCodes.get(code) ?? 'CONNECTION_CLOSED';
  const text = `${endpoint} closed the connection (${said}): ${advice}`;
  return { verdict: 'fatal', error: new FuturestoreError(errorCode, text) };
}

function problemOfFailure(endpoint: string, failure: SocketFailure): Problem {
  const said = `${endpoint}: ${failure.text}`;
  switch (failure.kind) {
    case 'unreachable':
      return {
        verdict: 'retry',
        error: new FuturestoreError('UNAVAILABLE', said),
        retryAfterMs: failure.retryAfterMs,
      };
    case 'identity_refused': {
      const advice = `the server does not accept this client's certificate; check that "cert" and "key" were issued by the CA that the servers trust for agents, and have not expired`;
      return { verdict: 'refused', error: new FuturestoreError('UNAUTHENTICATED', `${said}: ${advice}`) };
    }
    case 'dropped': {
      const advice =
        'the server hung up right after the TLS handshake; most likely it does not accept this client\'s certificate: check that "cert" and "key" were issued by the CA that the servers trust for agents, and have not expired';
      return { verdict: 'suspected', error: new FuturestoreError('UNAUTHENTICATED', `${said}: ${advice}`) };
    }
    case 'server_untrusted': {
      const advice = `the server's certificate is not accepted; check that "ca" is the CA of the servers and that the endpoint's host name is in the certificate`;
      return { verdict: 'refused', error: new FuturestoreError('UNAUTHENTICATED', `${said}: ${advice}`) };
    }
    case 'not_futurestore': {
      const advice = 'what answers there does not speak this protocol; check the endpoint and the versions';
      return {
        verdict: 'refused',
        error: new FuturestoreError('VERSION_NOT_SUPPORTED', `${said}: ${advice}`),
      };
    }
    default:
      return failure.kind satisfies never;
  }
}
