/**
 * The one connection to the servers. A client that was closed for good (told not to come back, refused by all servers)
 * is replaced after a while: a daemon outlives an expired certificate or a wrong policy.
 */
import type { Client, ClientOptions, ClientState } from '../client/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import { Bell } from './bell.ts';
import type { ClusterClock } from './clock.ts';
import type { StateDirectory } from './state-directory.ts';

export type UplinkOptions = Required<Pick<ClientOptions, 'onStateChange' | 'session' | 'sessionGraceMs'>>;

export interface RelayLogger {
  debug(details: object, message: string): void;
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

/** Who the servers are, and who we are for them: what is cached belongs to it. */
interface Identity {
  readonly clusterId: string;
  readonly epoch: number;
  readonly principal: string;
}

export type Connected = Extract<ClientState, { kind: 'connected' }>['server'];

/** Cluster time is asked for at each connection and then so often: two thousandths of it are lost from each TTL. */
const clockMs = 60_000;
/** A client that may not come back is made anew so much later, at least and at most. */
const renewMsMin = 1_000;
const renewMsMax = 60_000;
/**
 * Another one with this certificate has taken this one's place, where only one may be. It may have been somebody's command,
 * so this one comes back some times; but two daemons must not take turns for ever.
 */
const returnMs = 60_000;
const returnsMax = 5;
/** Who has kept its place for so long does not take turns: the other one would have come back by then, or stays away. */
const keptMs = returnMs * 2 ** returnsMax;

const sessionName = 'session';
const anchorName = 'anchor';
const identityName = 'identity';

export class Uplink {
  readonly #makeClient: (options: UplinkOptions) => Client;
  readonly #state: StateDirectory;
  readonly #clock: ClusterClock;
  readonly #sessionGraceMs: number;
  readonly #logger: RelayLogger;
  /** Called before anything of another cluster, or as another principal, can be learned. */
  readonly #onOtherIdentity: () => void;
  readonly #clockTimer: NodeJS.Timeout;
  #renewTimer: NodeJS.Timeout | undefined;
  #renewals = 0;
  /** How often this relay has come back to a place that another one had taken. */
  #returns = 0;
  /** When the present client was connected first. */
  #placedAtMs: number | undefined;
  #client: Client | undefined;
  #sessionId: string | undefined;
  #sessionOpen = false;
  #identity: Identity | undefined;
  #connected: Connected | undefined;
  #sinceWallMs: number;
  #lastError: FuturestoreError | undefined;
  #stopped = false;
  /** Of the connection, the session or the client itself. */
  readonly changed = new Bell();

  constructor(options: {
    readonly makeClient: (options: UplinkOptions) => Client;
    readonly state: StateDirectory;
    readonly clock: ClusterClock;
    readonly sessionGraceMs: number;
    readonly logger: RelayLogger;
    readonly onOtherIdentity: () => void;
  }) {
    this.#makeClient = options.makeClient;
    this.#state = options.state;
    this.#clock = options.clock;
    this.#sessionGraceMs = options.sessionGraceMs;
    this.#logger = options.logger;
    this.#onOtherIdentity = options.onOtherIdentity;
    this.#sinceWallMs = options.clock.moment().wallMs;
    this.#clockTimer = setInterval(() => void this.#askClock(), clockMs);
    this.#clockTimer.unref();
  }

  async start(): Promise<void> {
    this.#sessionId = (await this.#state.read(sessionName)) as string | undefined;
    this.#identity = (await this.#state.read(identityName)) as Identity | undefined;
    this.#renew();
  }

  /** CONNECTION_CLOSED once stopped. */
  get client(): Client {
    if (this.#client === undefined || this.#stopped)
      throw new FuturestoreError('CONNECTION_CLOSED', 'the relay is stopping: ask again when it runs');
    return this.#client;
  }

  /** Who serves us; undefined: nobody just now. */
  get connected(): Connected | undefined {
    return this.#connected;
  }

  /** Who the servers are and who we are for them, as last heard, maybe by an earlier process. */
  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** Since when it is connected, or is not. */
  get sinceWallMs(): number {
    return this.#sinceWallMs;
  }

  get lastError(): FuturestoreError | undefined {
    return this.#lastError;
  }

  /** The session that writes may be named by; undefined: none just now. */
  get session(): string | undefined {
    return this.#connected !== undefined && this.#sessionOpen ? this.#sessionId : undefined;
  }

  /** The session is kept: what was sent and not answered is asked about by the next process. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#clockTimer);
    clearTimeout(this.#renewTimer);
    this.changed.ring();
    await this.#client?.close({ graceMs });
  }

  #renew(): void {
    const known = this.#sessionId;
    this.#placedAtMs = undefined;
    try {
      this.#client = this.#makeClient({
        sessionGraceMs: this.#sessionGraceMs,
        onStateChange: (state) => this.#changed(state),
        session: {
          ...(known === undefined ? {} : { id: known }),
          opened: (id) => this.#opened(id),
          lost: (id, why) => this.#lost(id, why),
        },
      });
    } catch (error) {
      // At the first time it is told at once; later the profile may be in the middle of a change.
      if (this.#client === undefined || !(error instanceof FuturestoreError)) throw error;
      this.#failed(error);
      return;
    }
    this.changed.ring();
  }

  #changed(state: ClientState): void {
    if (state.kind === 'connected') this.#nowConnected(state.server);
    else {
      if (this.#connected !== undefined) this.#sinceWallMs = this.#clock.moment().wallMs;
      this.#connected = undefined;
      this.#sessionOpen = false;
      if (state.kind === 'waiting') this.#lastError = state.lastError;
      if (state.kind === 'closed' && !this.#stopped) this.#failed(state.error);
    }
    this.changed.ring();
  }

  #nowConnected(server: Connected): void {
    const other = this.#connected?.serverId !== server.serverId;
    if (this.#connected === undefined) this.#sinceWallMs = this.#clock.moment().wallMs;
    this.#connected = server;
    this.#lastError = undefined;
    this.#renewals = 0;
    this.#placedAtMs ??= performance.now();
    this.#identify(server);
    if (other) void this.#askClock();
  }

  #identify({ clusterId, epoch, principal }: Connected): void {
    const before = this.#identity;
    if (before?.clusterId === clusterId && before.epoch === epoch && before.principal === principal) return;
    this.#identity = { clusterId, epoch, principal };
    this.#clock.forget();
    this.#state.remove(anchorName);
    this.#onOtherIdentity();
    this.#state.put(identityName, this.#identity);
  }

  #opened(id: string): void {
    if (id !== this.#sessionId) this.#state.put(sessionName, id);
    this.#sessionId = id;
    this.#sessionOpen = true;
    this.changed.ring();
  }

  #lost(id: string, why: FuturestoreError): void {
    if (id === this.#sessionId) {
      this.#sessionId = undefined;
      this.#state.remove(sessionName);
    }
    this.#sessionOpen = false;
    this.#lastError = why;
    this.#logger.warn({ problem: why.message }, 'the session is lost');
    this.changed.ring();
  }

  /** The client is closed for good. */
  #failed(error: FuturestoreError): void {
    this.#lastError = error;
    if (error.code === 'CONNECTION_CLOSED') {
      this.#replaced(error);
      return;
    }
    const waitMs = Math.min(renewMsMax, renewMsMin * 2 ** Math.min(this.#renewals, 10));
    this.#renewals += 1;
    this.#logger.warn({ problem: error.message, retryInMs: waitMs }, 'the servers turn this relay away');
    this.#renewTimer = setTimeout(() => this.#renew(), waitMs);
    this.#renewTimer.unref();
  }

  #replaced(error: FuturestoreError): void {
    if (this.#placedAtMs !== undefined && performance.now() - this.#placedAtMs >= keptMs) this.#returns = 0;
    if (this.#returns >= returnsMax) {
      this.#logger.error(
        { problem: error.message },
        'another one has taken the place of this relay again and again: it stays away until it is restarted',
      );
      return;
    }
    const waitMs = returnMs * 2 ** this.#returns;
    this.#returns += 1;
    this.#logger.error(
      { problem: error.message, retryInMs: waitMs },
      'another one has taken the place of this relay',
    );
    this.#renewTimer = setTimeout(() => this.#renew(), waitMs);
    this.#renewTimer.unref();
  }

  async #askClock(): Promise<void> {
    if (this.#connected === undefined || this.#stopped) return;
    const identity = this.#identity;
    const asked = this.#clock.moment();
    try {
      const timeMs = await this.client.clock({ timeoutMs: clockMs });
      if (this.#identity !== identity) return;
      this.#state.put(anchorName, this.#clock.told(timeMs, asked));
    } catch (error) {
      this.#logger.debug({ err: error }, 'cluster time is not known anew');
    }
  }
}

/** The one that an earlier process was told, for the clock. */
export const readAnchor = (state: StateDirectory): Promise<unknown> => state.read(anchorName);
