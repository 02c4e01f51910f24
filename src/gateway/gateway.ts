/** All connections of one gateway: what arrives, what the server delivers, the one timer, the end. */
import type {
  AgentsMove,
  ConnectionId,
  Gateway as DeliveryGateway,
  GatewayEvent,
  GatewayNotice,
  ServerStanding,
} from '../server/index.ts';
import { closeCodes } from '../protocol/index.ts';
import type { RealmDocument, Scope } from '../scopes/index.ts';
import { accessAfter, accessOfFile } from './access.ts';
import type { AccessInForce } from './access.ts';
import { AgentConnection, revokedProblem } from './connection.ts';
import type { ConnectionOwner } from './connection.ts';
import { departures } from './departures.ts';
import type { Arrival, CertificateAndKey, Door, Listening, OpenDoor, SharedSocket } from './door.ts';
import { Elsewhere } from './elsewhere.ts';
import { Farewells } from './farewells.ts';
import { FrontDoor } from './front-door.ts';
import { principalText } from './identity.ts';
import type { Identity } from './identity.ts';
import { PageBudget } from './page-budget.ts';
import { RequestRates } from './request-rates.ts';
import { SpreadClosing } from './spread-closing.ts';
import { setupOf } from './settings.ts';
import type { GatewayCoreOptions, GatewayOptions, GatewaySetup } from './settings.ts';
import { SoleConnections } from './sole-connections.ts';

/** The agents' side of a server, in its own thread or in others. */
export interface AgentGateway {
  /** Starts to accept agents. Rejects where the address cannot be listened on. */
  listen(): Promise<Listening>;
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
  replaceCertificate(certificate: CertificateAndKey): void | Promise<void>;
  /**
   * Realms of the policy file whose certificates or keys have changed. Rejects with CONFIGURATION_INVALID for what cannot
   * be used, and then keeps what it had. Who is connected is judged again within a second.
   */
  replaceFileRealms(realms: Readonly<Record<string, RealmDocument>>): Promise<void>;
  /** Looks now whether revocation lists have changed, which it does every few seconds by itself. */
  lookForLists(): Promise<void>;
}

/** One that the server speaks to itself. */
export interface LocalGateway extends AgentGateway, DeliveryGateway {
  /** How many have said hello and are connected. */
  readonly connections: number;
  /** `shared`: on a socket that another gateway of this process has opened. */
  listen(shared?: SharedSocket): Promise<Listening>;
  /** Those who are here stay. `keepDescriptor`: that of the listening socket is somebody else's by now. */
  stopAccepting(keepDescriptor?: boolean): void;
  /** Ends a drain for those who are here: they stay, and nobody comes. */
  stay(): void;
  /** `shared`: as for `listen`. */
  admit(shared?: SharedSocket): Promise<void>;
  /** As of the last time that it began to. */
  readonly listening: Listening | undefined;
  /** A connection at another gateway, so old, takes the place of the one that the principal may have, if that is older. */
  replaced(principal: string, newerAgeMs: number): void;
  replaceCertificate(certificate: CertificateAndKey): void;
}

export const createGateway = (options: GatewayOptions): LocalGateway =>
  new Agents(options, (setup, arrived, changed) => new FrontDoor(options, setup, arrived, changed));

/** The same behind sockets of the caller's own making: a simulation has no TLS. */
export const createGatewayBehind = (openDoor: OpenDoor, options: GatewayCoreOptions): LocalGateway =>
  new Agents(options, openDoor);

/** Deadlines are met to within it. */
const tickMs = 1000;

/** 20,000 connections are judged anew within half a second, in steps of two milliseconds or so. */
const reviewEveryMs = 5;
const reviewedAtOnce = 256;

const drainReason = 'the server takes no agents any more: connect to another one';

const moveReason = 'the server has more agents than others: connect to another one';

class Agents implements LocalGateway, ConnectionOwner {
  readonly #setup: GatewaySetup;
  #access: AccessInForce;
  #standing: ServerStanding;
  #standingSaidAtMs: number;
  /** Not looked at since the last change of access, or of what says who they are. */
  readonly #unreviewed = new Set<AgentConnection>();
  #stopReviewing: (() => void) | undefined;
  readonly #rates = new RequestRates();
  readonly pages: PageBudget;
  readonly #door: Door;
  readonly #connections = new Map<ConnectionId, AgentConnection>();
  /** Without hello, in the order of their arrival. */
  readonly #waiting = new Set<AgentConnection>();
  readonly #congested = new Set<AgentConnection>();
  /** Ended in good order, with something in their sockets that leaves as long as these are open. */
  readonly #emptying = new Set<AgentConnection>();
  /** Connections by the second of the heartbeat's round in which they have theirs. */
  readonly #rounds: readonly Set<AgentConnection>[];
  #listening: Listening | undefined;
  #ticks = 0;
  #lastId = 0;
  #greeted = 0;
  /** While the server delivers, notices wait for its end and go together. */
  #notices: GatewayNotice[] | undefined;
  readonly #elsewhere: Elsewhere;
  readonly #farewells: Farewells;
  readonly #sole = new SoleConnections();
  #stopTicking: (() => void) | undefined;
  #accepts = true;
  #draining = false;
  readonly #closing: SpreadClosing;

  constructor(options: GatewayCoreOptions, openDoor: OpenDoor) {
    this.#setup = setupOf(options);
    this.#access = accessOfFile(options.policies);
    this.#standing = options.port.standing;
    this.#standingSaidAtMs = this.#setup.clock.nowMs();
    this.#elsewhere = new Elsewhere(this.#setup.limits.leaderlessMs);
    this.#farewells = new Farewells(this.#setup.limits);
    this.pages = new PageBudget(this.#setup.limits.listPagesPerPrincipalMax);
    this.#closing = new SpreadClosing(this.#setup.clock, (count) => this.#closeDownTo(count));
    this.#door = openDoor(
      this.#setup,
      (arrival) => this.#arrived(arrival),
      () => this.#identitiesChanged(),
    );
    const rounds = Math.max(1, Math.round(this.#setup.limits.heartbeatMs / tickMs));
    this.#rounds = Array.from({ length: rounds }, () => new Set<AgentConnection>());
  }

  get connections(): number {
    return this.#greeted;
  }

  async listen(shared?: SharedSocket): Promise<Listening> {
    this.#listening = await this.#door.listen(shared);
    this.#stopTicking = this.#setup.clock.every(tickMs, () => this.#tick());
    return this.#listening;
  }

  get listening(): Listening | undefined {
    return this.#listening;
  }

  stopAccepting(keepDescriptor = false): void {
    this.#accepts = false;
    this.#door.stopAccepting(keepDescriptor);
  }

  deliver(events: readonly GatewayEvent[]): void {
    const notices: GatewayNotice[] = [];
    this.#notices = notices;
    const touched = new Set<AgentConnection>();
    for (const event of events) {
      switch (event.kind) {
        case 'access':
          this.#accessChanged(event);
          break;
        case 'ticket_keys':
          this.#door.replaceTicketKeys(event.keys);
          break;
        case 'standing':
          this.#standing = event.standing;
          this.#standingSaidAtMs = this.#setup.clock.nowMs();
          break;
        case 'sessions_opened':
          for (const connection of this.#sole.replacedBy(event.sessions, this.#setup.clock.nowMs()))
            replace(connection);
          break;
        case 'progress':
          for (const id of event.connections) {
            const connection = this.#connections.get(id);
            if (connection === undefined) continue;
            connection.served(event.revision);
            touched.add(connection);
          }
          break;
        case 'answer':
        case 'push':
        case 'ended': {
          const connection = this.#connections.get(event.connection);
          if (connection === undefined) break;
          connection.take(event);
          touched.add(connection);
          break;
        }
        default:
          event satisfies never;
      }
    }
    for (const connection of touched) connection.flush();
    this.#notices = undefined;
    if (notices.length > 0) this.#setup.port.notify(notices);
  }

  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    this.stopAccepting();
    for (const connection of this.#waiting) connection.close(closeCodes.draining, drainReason);
    for (const connection of this.#connections.values()) connection.goaway(graceMs, drainReason);
    if (this.#connections.size > 0) await this.#closing.begin(this.#connections.size, graceMs);
  }

  async admit(shared?: SharedSocket): Promise<void> {
    if (this.#accepts) return;
    this.#listening = await this.#door.listen(shared);
    this.#accepts = true;
    this.stay();
  }

  stay(): void {
    this.#draining = false;
    this.#closing.over();
  }

  sendAway(moves: readonly AgentsMove[], graceMs: number): Promise<number> {
    const nowMs = this.#setup.clock.nowMs();
    const greeted = [...this.#connections.values()].filter((connection) => connection.greeted);
    const leaving = greeted.filter((connection) => connection.isLeaving(nowMs)).length;
    const left = departures(greeted, leaving, moves);
    for (const { connection, endpoint } of left) {
      connection.goaway(graceMs, moveReason, { endpoints: endpoint === '' ? [] : [endpoint] });
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
    if (connection.admitted) this.#setup.principals.leave(connection.principal);
    this.#sole.leave(connection);
    this.#waiting.delete(connection);
    this.#unreviewed.delete(connection);
    this.#congested.delete(connection);
    this.#farewells.remove(connection);
    this.#roundOf(connection.id).delete(connection);
    if (connection.greeted) this.#greeted -= 1;
    if (this.#connections.size === 0) this.#closing.over();
  }

  emptying(connection: AgentConnection): void {
    this.#emptying.add(connection);
  }

  gone(connection: AgentConnection): void {
    this.#emptying.delete(connection);
  }

  identified(connection: AgentConnection, identity: Identity): void {
    this.#unreviewed.delete(connection);
    const { policies, revocations } = this.#access;
    const isNew = connection.identity === undefined;
    const scope = policies.scopeFor(identity.principal);
    if (revocations.find(identity.credential) !== undefined) {
      // Its principal is not counted, so it must not be known to have one.
      if (isNew) connection.turnAway(closeCodes.revoked, revokedProblem, principalText(identity));
      else connection.revoke();
      return;
    }
    if (!isNew) {
      connection.become(identity, scope);
      // One whose admission is being asked for is placed when that is answered.
      if (connection.admitted) this.#placeSole(connection, this.#connectionsMax(scope), undefined);
      return;
    }
    const max = this.#connectionsMax(scope);
    let decided = false;
    this.#setup.principals.enter(principalText(identity), max, (admitted) => {
      decided = true;
      this.#admit(connection, identity, max, admitted);
    });
    if (!decided) connection.awaitAdmission();
  }

  #connectionsMax({ limits }: Scope): number {
    return Math.min(this.#setup.limits.connectionsPerPrincipalMax, limits.connections);
  }

  #admit(connection: AgentConnection, identity: Identity, max: number, admitted: boolean): void {
    const { principals } = this.#setup;
    const principal = principalText(identity);
    // Policies and revocations may be others than when it was asked.
    const { policies, revocations } = this.#access;
    const revoked = revocations.find(identity.credential) !== undefined;
    if (admitted && (revoked || connection.ended)) principals.leave(principal);
    if (connection.ended) return;
    if (revoked) {
      connection.turnAway(closeCodes.revoked, revokedProblem, principal);
      return;
    }
    const scope = policies.scopeFor(identity.principal);
    connection.become(identity, scope);
    if (admitted) {
      connection.admit();
      this.#placeSole(connection, this.#connectionsMax(scope), max);
    } else {
      connection.turnAwayForLackOfRoom(`${principal} has ${max} connections, as many as it may`);
    }
  }

  /** Where it is the one that its principal may have, the older one goes. `asked`: as how many it has just been admitted. */
  #placeSole(connection: AgentConnection, max: number, asked: number | undefined): void {
    const { principal } = connection;
    if (max !== 1) {
      this.#sole.leave(connection);
      return;
    }
    if (connection.ended || this.#sole.of(principal) === connection) return;
    const older = this.#sole.enter(connection);
    if (older !== undefined) replace(older);
    // With an admission as the only one the other gateways have been told.
    if (asked !== 1 && older !== connection)
      this.#setup.principals.sole(principal, this.#setup.clock.nowMs() - connection.acceptedAtMs);
  }

  replaced(principal: string, newerAgeMs: number): void {
    const connection = this.#sole.of(principal);
    if (connection === undefined) return;
    // It may be another one than the one that was compared: that had to go, too, for a newer one here.
    if (this.#setup.clock.nowMs() - connection.acceptedAtMs >= newerAgeMs) replace(connection);
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

  get standing(): ServerStanding {
    return this.#standing;
  }

  get access(): AccessInForce {
    return this.#access;
  }

  rateWaitMs(principal: string, perSecond: number): number {
    const share = this.#setup.principals.shareOf(principal);
    return this.#rates.waitFor(principal, perSecond * share, this.#setup.clock.nowMs());
  }

  /**
   * The revoked are closed at once, which costs a look-up each, and those with something unsent are judged anew. All others
   * are judged anew before anything else is sent to them or taken from them, and a few at a time where nothing is.
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
    this.#reviewAll();
  }

  /** Another revocation list, other authorities or keys. Judging one anew costs some microseconds. */
  #identitiesChanged(): void {
    for (const connection of this.#connections.values())
      if (connection.identity !== undefined) this.#unreviewed.add(connection);
    this.#reviewAll();
  }

  #reviewAll(): void {
    // What their sockets hold leaves meanwhile.
    for (const connection of this.#unreviewed) if (connection.unsent) connection.review();
    // After those, who may have been closed by that.
    for (const connection of this.#emptying)
      if (!connection.reviewUnsent()) this.#emptying.delete(connection);
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
    const followers: ConnectionId[] = [];
    for (const connection of this.#roundOf(this.#ticks))
      if (connection.greeted && connection.heartbeat(nowMs, wallMs)) followers.push(connection.id);
    if (followers.length > 0) this.#setup.port.notify([{ kind: 'progress_wanted', connections: followers }]);
    // In a drain all have been asked, and nobody can come back here.
    this.#farewells.tick(nowMs, !this.#draining);
    const { leaderlessMs } = this.#standing;
    if (!this.#draining)
      this.#sendElsewhere(leaderlessMs === 0 ? 0 : leaderlessMs + nowMs - this.#standingSaidAtMs);
  }

  #sendElsewhere(leaderlessMs: number): void {
    if (!this.#elsewhere.isDue(leaderlessMs)) return;
    const staying = [...this.#connections.values()].filter(({ greeted, sentAway }) => greeted && !sentAway);
    if (staying.length === 0) return;
    // Those of the other threads go at the same time.
    const graceMs = this.#elsewhere.graceMs(staying.length * this.#setup.sockets.gateways);
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
