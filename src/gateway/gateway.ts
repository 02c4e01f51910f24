/** All connections of one gateway: what arrives, what the server delivers, the one timer, the end. */
import type {
  AgentsMove,
  ConnectionId,
  Gateway as DeliveryGateway,
  GatewayEvent,
  GatewayNotice,
} from '../server/index.ts';
import { closeCodes, reasonWithRetryAfter } from '../protocol/index.ts';
import type { RealmDocument } from '../scopes/index.ts';
import { accessAfter, accessOfFile } from './access.ts';
import type { AccessInForce } from './access.ts';
import { AgentConnection } from './connection.ts';
import type { ConnectionOwner } from './connection.ts';
import { departures } from './departures.ts';
import type { Arrival, CertificateAndKey, Door, OpenDoor } from './door.ts';
import { Elsewhere } from './elsewhere.ts';
import { Farewells } from './farewells.ts';
import { FrontDoor } from './front-door.ts';
import type { Identity } from './identity.ts';
import { RequestRates } from './request-rates.ts';
import { SpreadClosing } from './spread-closing.ts';
import { setupOf } from './settings.ts';
import type { GatewayCoreOptions, GatewayOptions, GatewaySetup } from './settings.ts';
import { SoleConnections } from './sole-connections.ts';

export interface AgentGateway extends DeliveryGateway {
  /** Starts to accept agents. Rejects where the address cannot be listened on. */
  listen(): Promise<{ readonly port: number }>;
  /** How many have said hello and are connected. */
  readonly connections: number;
  /**
   * Accepts nobody any more, tells all to go elsewhere, and closes them one by one spread over the grace, so that the
   * other servers don't get all their handshakes at once. Resolves when all are gone, at the latest after the grace, or
   * when `admit` has ended it. Once more: those who are left get the new grace.
   */
  drain(graceMs: number): Promise<void>;
  /**
   * Ends a drain: accepts agents again, on the same port; who is still here stays, if it does not leave by itself. Rejects
   * where the port cannot be listened on any more, and then stays drained.
   */
  admit(): Promise<void>;
  /**
   * Asks so many agents to go, each to an endpoint of the moves if it knows it, and closes nobody: who finds no other
   * server stays. Gives how many are on their way, those included who were asked before and have some of their grace left.
   */
  sendAway(moves: readonly AgentsMove[], graceMs: number): Promise<number>;
  /** At once, without a word. */
  close(): Promise<void>;
  /** The server's own certificate, for new connections. Throws CONFIGURATION_INVALID, and then keeps what it had. */
  replaceCertificate(certificate: CertificateAndKey): void;
  /**
   * Realms of the policy file whose certificates or keys have changed. Rejects with CONFIGURATION_INVALID for what cannot
   * be used, and then keeps what it had. Who is connected is judged again within the heartbeat's time.
   */
  replaceFileRealms(realms: Readonly<Record<string, RealmDocument>>): Promise<void>;
  /** Looks now whether revocation lists have changed, which it does every few seconds by itself. */
  lookForLists(): Promise<void>;
}

export const createGateway = (options: GatewayOptions): AgentGateway =>
  new Agents(options, (setup, arrived) => new FrontDoor(options, setup, arrived));

/** The same behind sockets of the caller's own making: a simulation has no TLS. */
export const createGatewayBehind = (openDoor: OpenDoor, options: GatewayCoreOptions): AgentGateway =>
  new Agents(options, openDoor);

/** Deadlines are met to within it. */
const tickMs = 1000;

/** 20,000 connections are judged anew within half a second, in steps of two milliseconds or so. */
const reviewEveryMs = 5;
const reviewedAtOnce = 256;

const drainReason = 'the server takes no agents any more: connect to another one';

const moveReason = 'the server has more agents than others: connect to another one';

class Agents implements AgentGateway, ConnectionOwner {
  readonly #setup: GatewaySetup;
  #access: AccessInForce;
  /** Not looked at since the last change of access. */
  readonly #unreviewed = new Set<AgentConnection>();
  #stopReviewing: (() => void) | undefined;
  readonly #rates = new RequestRates();
  readonly #door: Door;
  readonly #connections = new Map<ConnectionId, AgentConnection>();
  /** Without hello, in the order of their arrival. */
  readonly #waiting = new Set<AgentConnection>();
  readonly #congested = new Set<AgentConnection>();
  /** How many connections each has. */
  readonly #byPrincipal = new Map<string, number>();
  /** Connections by the second of the heartbeat's round in which they have theirs. */
  readonly #rounds: readonly Set<AgentConnection>[];
  #ticks = 0;
  #lastId = 0;
  #greeted = 0;
  /** While the server delivers, notices wait for its end and go together. */
  #notices: GatewayNotice[] | undefined;
  readonly #elsewhere: Elsewhere;
  readonly #farewells: Farewells;
  readonly #sole = new SoleConnections();
  #stopTicking: (() => void) | undefined;
  #draining = false;
  readonly #closing: SpreadClosing;

  constructor(options: GatewayCoreOptions, openDoor: OpenDoor) {
    this.#setup = setupOf(options);
    this.#access = accessOfFile(options.policies);
    this.#elsewhere = new Elsewhere(this.#setup.limits.leaderlessMs);
    this.#farewells = new Farewells(this.#setup.limits);
    this.#closing = new SpreadClosing(this.#setup.clock, (count) => this.#closeDownTo(count));
    this.#door = openDoor(this.#setup, (arrival) => this.#arrived(arrival));
    const rounds = Math.max(1, Math.round(this.#setup.limits.heartbeatMs / tickMs));
    this.#rounds = Array.from({ length: rounds }, () => new Set<AgentConnection>());
  }

  get connections(): number {
    return this.#greeted;
  }

  async listen(): Promise<{ readonly port: number }> {
    const address = await this.#door.listen();
    this.#stopTicking = this.#setup.clock.every(tickMs, () => this.#tick());
    return address;
  }

  deliver(events: readonly GatewayEvent[]): void {
    const notices: GatewayNotice[] = [];
    this.#notices = notices;
    const touched = new Set<AgentConnection>();
    for (const event of events) {
      if (event.kind === 'access') {
        this.#accessChanged(event);
        continue;
      }
      if (event.kind === 'ticket_keys') {
        this.#door.replaceTicketKeys(event.keys);
        continue;
      }
      if (event.kind === 'sessions_opened') {
        const replaced = this.#sole.replacedBy(event.sessions, this.#setup.clock.nowMs());
        for (const connection of replaced) replace(connection);
        continue;
      }
      const connection = this.#connections.get(event.connection);
      if (connection === undefined) continue;
      connection.take(event);
      touched.add(connection);
    }
    for (const connection of touched) connection.flush();
    this.#notices = undefined;
    if (notices.length > 0) this.#setup.port.notify(notices);
  }

  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    this.#door.stopAccepting();
    for (const connection of this.#waiting) connection.close(closeCodes.draining, drainReason);
    for (const connection of this.#connections.values()) connection.goaway(graceMs, drainReason);
    if (this.#connections.size > 0) await this.#closing.begin(this.#connections.size, graceMs);
  }

  async admit(): Promise<void> {
    if (!this.#draining) return;
    await this.#door.listen();
    this.#draining = false;
    this.#closing.over();
  }

  sendAway(moves: readonly AgentsMove[], graceMs: number): Promise<number> {
    const nowMs = this.#setup.clock.nowMs();
    const greeted = [...this.#connections.values()].filter((connection) => connection.greeted);
    const leaving = greeted.filter((connection) => connection.isLeaving(nowMs)).length;
    const left = departures(greeted, leaving, moves);
    for (const { connection, endpoint } of left) {
      connection.goaway(graceMs, moveReason, endpoint === '' ? [] : [endpoint]);
    }
    return Promise.resolve(leaving + left.length);
  }

  async close(): Promise<void> {
    this.#stopTicking?.();
    this.#stopTicking = undefined;
    this.#stopReviewing?.();
    this.#stopReviewing = undefined;
    for (const connection of this.#connections.values()) connection.terminate();
    await this.#door.close();
  }

  replaceCertificate(certificate: CertificateAndKey): void {
    this.#door.replaceCertificate(certificate);
  }

  async replaceFileRealms(realms: Readonly<Record<string, RealmDocument>>): Promise<void> {
    // The cluster's count.
    if (!this.#access.replicated) await this.#door.replaceRealms(realms);
  }

  lookForLists(): Promise<void> {
    return this.#door.look();
  }

  notify(notice: GatewayNotice): void {
    if (this.#notices === undefined) this.#setup.port.notify([notice]);
    else this.#notices.push(notice);
  }

  saidHello(connection: AgentConnection): void {
    this.#waiting.delete(connection);
    this.#greeted += 1;
    this.#farewells.add(connection);
  }

  congested(connection: AgentConnection): void {
    this.#congested.add(connection);
  }

  relieved(connection: AgentConnection): void {
    this.#congested.delete(connection);
  }

  ended(connection: AgentConnection): void {
    this.#connections.delete(connection.id);
    this.#countPrincipal(connection, -1);
    this.#sole.leave(connection);
    this.#waiting.delete(connection);
    this.#unreviewed.delete(connection);
    this.#congested.delete(connection);
    this.#farewells.remove(connection);
    this.#roundOf(connection.id).delete(connection);
    if (connection.greeted) this.#greeted -= 1;
    if (this.#connections.size === 0) this.#closing.over();
  }

  identified(connection: AgentConnection, identity: Identity): void {
    this.#unreviewed.delete(connection);
    const { policies, revocations } = this.#access;
    const isNew = connection.identity === undefined;
    const scope = policies.scopeFor(identity.principal);
    if (revocations.find(identity.credential) !== undefined) {
      // Its principal is not counted, so it must not be known to have one.
      if (isNew) connection.close(closeCodes.revoked, 'the credential is revoked');
      else connection.revoke();
      return;
    }
    connection.become(identity, scope);
    const connectionsPerPrincipalMax = Math.min(
      this.#setup.limits.connectionsPerPrincipalMax,
      scope.limits.connections,
    );
    const isSole = connectionsPerPrincipalMax === 1;
    const count = isNew ? this.#countPrincipal(connection, 1) : 0;
    if (!isSole) this.#sole.leave(connection);
    else if (!connection.ended) {
      const older = this.#sole.enter(connection);
      if (older !== undefined) replace(older);
    }
    if (isSole || count <= connectionsPerPrincipalMax) return;
    const reason = `${connection.principal} has ${connectionsPerPrincipalMax} connections, as many as it may`;
    const { retryAfterMs } = this.#setup.limits;
    connection.close(closeCodes.tooManyConnections, reasonWithRetryAfter(retryAfterMs, reason));
  }

  #arrived({ ws, socket, codec, remote, level, identity, identify }: Arrival): void {
    this.#lastId += 1;
    const id = this.#lastId;
    const connection = new AgentConnection({
      id,
      ws,
      socket,
      codec,
      remote,
      level,
      judge: this.#door.judge,
      identify,
      setup: this.#setup,
      owner: this,
    });
    this.#connections.set(id, connection);
    this.#waiting.add(connection);
    this.#roundOf(id).add(connection);
    // It was in the middle of its handshake when the doors were closed.
    if (this.#draining) connection.close(closeCodes.draining, drainReason);
    else if (identity !== undefined) this.identified(connection, identity);
  }

  get access(): AccessInForce {
    return this.#access;
  }

  rateWaitMs(principal: string, perSecond: number): number {
    return this.#rates.waitFor(principal, perSecond, this.#setup.clock.nowMs());
  }

  /**
   * The revoked are closed at once, which costs a look-up each, and those with much unsent are judged anew. All others are judged anew before anything else is sent
   * to them or taken from them, and a few at a time where nothing is.
   */
  #accessChanged(event: Extract<GatewayEvent, { readonly kind: 'access' }>): void {
    const before = this.#access;
    this.#access = accessAfter(before, event);
    const { policies, revocations, replicated, revision } = this.#access;
    if (replicated && policies !== before.policies) {
      this.#setup.logger.info(
        { revision },
        'the policies of the cluster count here, the policy file does not',
      );
      this.#door.replaceRealms(policies.document.realms).catch((error: unknown) => {
        this.#setup.logger.error(
          { err: error },
          'the realms of the policies cannot be used: those before stay',
        );
      });
    }
    for (const connection of this.#connections.values()) {
      const { identity } = connection;
      if (identity === undefined) continue;
      if (revocations.find(identity.credential) === undefined) this.#unreviewed.add(connection);
      else connection.revoke();
    }
    // What their sockets hold leaves meanwhile.
    for (const connection of this.#congested) connection.review();
    if (this.#unreviewed.size > 0)
      this.#stopReviewing ??= this.#setup.clock.every(reviewEveryMs, () => this.#reviewSome());
  }

  #reviewSome(): void {
    let left = reviewedAtOnce;
    for (const connection of this.#unreviewed) {
      if (left === 0) return;
      left -= 1;
      this.#unreviewed.delete(connection);
      connection.flush();
    }
    this.#stopReviewing?.();
    this.#stopReviewing = undefined;
  }

  /** How many connections its principal has now. */
  #countPrincipal(connection: AgentConnection, change: number): number {
    if (connection.identity === undefined) return 0;
    const count = (this.#byPrincipal.get(connection.principal) ?? 0) + change;
    if (count > 0) this.#byPrincipal.set(connection.principal, count);
    else this.#byPrincipal.delete(connection.principal);
    return count;
  }

  #roundOf(id: ConnectionId): Set<AgentConnection> {
    const round = this.#rounds[id % this.#rounds.length];
    if (round === undefined) throw new Error(`no round for connection ${id}`);
    return round;
  }

  #tick(): void {
    const nowMs = this.#setup.clock.nowMs();
    const wallMs = this.#setup.clock.wallMs();
    for (const connection of this.#waiting) connection.checkHello(nowMs);
    for (const connection of this.#congested) connection.checkStalled(nowMs);
    this.#ticks += 1;
    for (const connection of this.#roundOf(this.#ticks))
      if (connection.greeted) connection.heartbeat(nowMs, wallMs);
    this.#farewells.tick(nowMs);
    if (!this.#draining) this.#sendElsewhere(this.#setup.port.leaderlessMs());
  }

  #sendElsewhere(leaderlessMs: number): void {
    if (!this.#elsewhere.isDue(leaderlessMs)) return;
    const staying = [...this.#connections.values()].filter(({ greeted, sentAway }) => greeted && !sentAway);
    if (staying.length === 0) return;
    const graceMs = this.#elsewhere.graceMs(staying.length);
    const seconds = Math.round(leaderlessMs / 1000);
    const reason = `the server has known no leader for ${seconds} s: connect to another one`;
    this.#setup.logger.warn({ agents: staying.length, graceMs, leaderlessMs }, 'sending agents elsewhere');
    for (const connection of staying) connection.goaway(graceMs, reason);
  }

  #closeDownTo(count: number): void {
    // Deleting from a Map while going through it is sound: every entry is still visited at most once.
    for (const connection of this.#connections.values()) {
      if (this.#connections.size <= count) return;
      connection.close(closeCodes.draining, drainReason);
    }
  }
}

const replace = (connection: AgentConnection): void =>
  connection.close(
    closeCodes.replaced,
    `${connection.principal} may have one connection, and a newer one took this one's place`,
  );
