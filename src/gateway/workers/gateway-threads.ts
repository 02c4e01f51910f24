/** A server's gateways, each in a thread of its own, as one. */
import { availableParallelism } from 'node:os';
import type { Policies, RealmDocument } from '../../scopes/index.ts';
import type { AgentsMove, Gateway as DeliveryGateway, GatewayPort } from '../../server/index.ts';
import type { CertificateAndKey, Listening } from '../door.ts';
import type { AgentGateway } from '../gateway.ts';
import { gatewayLimits, systemClock } from '../settings.ts';
import type { GatewayClock, GatewayLimits, GatewayLogger } from '../settings.ts';
import { SocketCounts } from '../socket-counts.ts';
import type { CallName, Calls } from './calls.ts';
import { takeDescriptor } from './descriptor-place.ts';
import { PrincipalLedger } from './principal-ledger.ts';
import type { GatewayThreadData, ThreadDoor, ThreadReport } from './thread.ts';
import { ThreadLink } from './thread-link.ts';
import type { GatewayWorker, ThreadLinkOwner } from './thread-link.ts';

/**
 * More threads for one server find nothing to do: with four, what is left in the main thread (Raft, applying, the feed)
 * is what bounds it, and each holds 30 to 40 MB and a copy of the policies.
 */
const threadsMax = 4;

/** One for each core that the main thread leaves. */
export const defaultGatewayThreads = (cores = availableParallelism()): number =>
  Math.max(0, Math.min(threadsMax, cores - 1));

/** What is counted in the threads, and told once a second. */
export interface ThreadMetrics {
  refused(code: string, count: number): void;
  connectionClosed(code: number, count: number): void;
  turnedAway(stage: string, count: number): void;
  gatewayThread(
    place: number,
    state: {
      /** Agents that have said hello. */
      readonly connections: number;
      /** How late its event loop was in the last second. */
      readonly delayP99Ms: number;
      readonly delayMaxMs: number;
      /** For how long it has not answered. */
      readonly silentSeconds: number;
    },
  ): void;
}

export interface GatewayThreadsOptions {
  readonly threads: number;
  readonly startThread: (data: GatewayThreadData) => GatewayWorker;
  readonly attach: (gateway: DeliveryGateway) => GatewayPort;
  readonly gateway: ThreadDoor;
  readonly policies: Policies;
  /** Of the whole server. */
  readonly limits: Partial<GatewayLimits>;
  readonly logger: GatewayLogger;
  readonly metrics: ThreadMetrics;
  readonly clock?: GatewayClock;
  /** A thread has failed: the server must not go on without its agents. */
  readonly onFatal: (error: unknown) => void;
}

class GatewayThreads implements AgentGateway, ThreadLinkOwner {
  readonly logger: GatewayLogger;
  readonly #metrics: ThreadMetrics;
  readonly #onFatal: (error: unknown) => void;
  readonly #links: readonly ThreadLink[];
  readonly #ledger: PrincipalLedger;
  readonly #clock: GatewayClock;
  #stopTicking: (() => void) | undefined;
  /** Of the listening socket, where they share one. */
  #descriptor: number | undefined;
  #stopped: Promise<void> | undefined;
  /** Those that have it. */
  readonly #accepting = new Set<ThreadLink>();
  /** Those that could not close the socket's descriptor, because it is somebody else's by now. */
  readonly #leftOpen = new Set<ThreadLink>();

  constructor(options: GatewayThreadsOptions) {
    const { threads, logger, metrics, onFatal, clock = systemClock } = options;
    this.logger = logger;
    this.#metrics = metrics;
    this.#onFatal = onFatal;
    this.#clock = clock;
    this.#ledger = new PrincipalLedger({
      tellShare: (place, principal, share) => this.#link(place).tellShare(principal, share),
      tellReplaced: (place, principal, sinceMs) =>
        this.#link(place).tellReplaced(principal, Math.max(0, this.#clock.nowMs() - sinceMs)),
    });
    const sockets = SocketCounts.memory(threads);
    this.#links = Array.from({ length: threads }, (_, place) => startLink(options, place, sockets, this));
  }

  get connections(): number {
    return this.#links.reduce((sum, { connections }) => sum + connections, 0);
  }

  async listen(): Promise<Listening> {
    const listening = await this.#open('listen');
    this.#stopTicking = this.#clock.every(1000, () => this.#tick());
    return listening;
  }

  /** The first one opens the socket, the others share it. */
  async #open(how: 'listen' | 'admit'): Promise<Listening> {
    const [first, ...others] = this.#links.filter((link) => !this.#leftOpen.has(link));
    if (first === undefined) throw new Error('there is no gateway thread that could listen');
    const listening = await first.call(how, null);
    this.#accepting.add(first);
    const { descriptor } = listening;
    if (others.length > 0) {
      if (descriptor === undefined)
        throw new Error('this Node does not tell the number of a listening socket: set gateway.workers to 1');
      this.#descriptor = descriptor;
      for (const link of others) {
        await link.call(how, { descriptor });
        this.#accepting.add(link);
      }
    }
    return listening;
  }

  async drain(graceMs: number): Promise<void> {
    await this.#stopAccepting();
    await this.#all('drain', graceMs);
  }

  async admit(): Promise<void> {
    const stopped = this.#stopped;
    if (stopped === undefined) return;
    await stopped;
    try {
      await this.#open('admit');
    } catch (error) {
      // Some may have opened it: a server that stays drained takes nobody.
      this.#stopped = this.#closeSocket();
      await this.#stopped;
      throw error;
    }
    this.#stopped = undefined;
    await Promise.all(Array.from(this.#leftOpen, (link) => link.call('stay', null)));
  }

  async sendAway(moves: readonly AgentsMove[], graceMs: number): Promise<number> {
    const shares = shareOut(
      moves,
      this.#links.map(({ connections }) => connections),
    );
    const leaving = await Promise.all(
      this.#links.map((link, place) => link.call('sendAway', { moves: shares[place] ?? [], graceMs })),
    );
    return leaving.reduce((sum, count) => sum + count, 0);
  }

  async close(): Promise<void> {
    this.#stopTicking?.();
    try {
      await this.#stopAccepting();
      await this.#all('close', null);
    } finally {
      // Whatever has failed: one that is left would keep the process.
      await Promise.all(this.#links.map((link) => link.end(this.#leftOpen.has(link))));
    }
  }

  replaceCertificate(certificate: CertificateAndKey): Promise<void> {
    return this.#all('replaceCertificate', certificate);
  }

  replaceFileRealms(realms: Readonly<Record<string, RealmDocument>>): Promise<void> {
    return this.#all('replaceFileRealms', realms);
  }

  lookForLists(): Promise<void> {
    return this.#all('lookForLists', null);
  }

  enters(place: number, ticket: number, principal: string, max: number): void {
    const admitted = this.#ledger.enter(place, principal, max, this.#clock.nowMs());
    this.#link(place).admit(ticket, admitted);
    if (!admitted) return;
    // Behind the admission: before it the thread has nobody of that name.
    this.#ledger.tellShares(principal);
    if (max === 1) this.#ledger.tellReplaced(place, principal, this.#clock.nowMs());
  }

  sole(place: number, principal: string, ageMs: number): void {
    this.#ledger.sole(place, principal, this.#clock.nowMs() - ageMs);
  }

  leaves(place: number, principal: string): void {
    this.#ledger.leave(place, principal);
  }

  reported(place: number, report: ThreadReport): void {
    const { refused, closed, turnedAway, connections, delayP99Ms, delayMaxMs } = report;
    const metrics = this.#metrics;
    for (const [code, count] of Object.entries(refused)) metrics.refused(code, count);
    for (const [code, count] of Object.entries(closed)) metrics.connectionClosed(Number(code), count);
    for (const [stage, count] of Object.entries(turnedAway)) metrics.turnedAway(stage, count);
    metrics.gatewayThread(place, { connections, delayP99Ms, delayMaxMs, silentSeconds: 0 });
  }

  failed(error: Error): void {
    this.#onFatal(error);
  }

  #tick(): void {
    for (const link of this.#links) {
      link.tick();
      const { place, connections, silentSeconds } = link;
      if (silentSeconds > 0)
        this.#metrics.gatewayThread(place, { connections, delayP99Ms: 0, delayMaxMs: 0, silentSeconds });
    }
  }

  /** The socket is closed with the first one; the others close what has its number. */
  #stopAccepting(): Promise<void> {
    return (this.#stopped ??= this.#closeSocket());
  }

  async #closeSocket(): Promise<void> {
    const [first, ...others] = this.#accepting;
    this.#accepting.clear();
    await first?.call('stopAccepting', { keepDescriptor: false });
    for (const link of others) {
      const descriptor = this.#descriptor;
      const keepDescriptor = descriptor !== undefined && !(await takeDescriptor(descriptor));
      if (keepDescriptor) this.#leftOpen.add(link);
      await link.call('stopAccepting', { keepDescriptor });
    }
  }

  /** All have done it, or one could not. */
  async #all<Name extends CallName>(name: Name, argument: Calls[Name]['argument']): Promise<void> {
    const outcomes = await Promise.allSettled(this.#links.map((link) => link.call(name, argument)));
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #link(place: number): ThreadLink {
    const link = this.#links[place];
    if (link === undefined) throw new RangeError(`there is no gateway thread ${place}`);
    return link;
  }
}

/** Each thread gets the part of each move that its agents are of all, in whole ones. */
const shareOut = (moves: readonly AgentsMove[], connections: readonly number[]): AgentsMove[][] => {
  const total = connections.reduce((sum, count) => sum + count, 0);
  const shares: AgentsMove[][] = connections.map(() => []);
  for (const { endpoint, agents } of moves) {
    let before = 0;
    let given = 0;
    for (const [place, count] of connections.entries()) {
      before += count;
      const upTo = total === 0 ? 0 : Math.round((agents * before) / total);
      if (upTo > given) shares[place]?.push({ endpoint, agents: upTo - given });
      given = upTo;
    }
  }
  return shares;
};

const startLink = (
  { attach, startThread, threads, policies, gateway, limits }: GatewayThreadsOptions,
  place: number,
  sockets: SharedArrayBuffer,
  owner: ThreadLinkOwner,
): ThreadLink => {
  // Each needs the other: the server gets this one, which passes on to the link that is made with the server's port.
  const forward: DeliveryGateway = {
    deliver: (events) => link.deliver(events),
    get connections() {
      return link.connections;
    },
  };
  const port = attach(forward);
  const all = { ...gatewayLimits, ...limits };
  const worker = startThread({
    place,
    sockets,
    standing: port.standing,
    policies: policies.document,
    gateway,
    limits: {
      ...limits,
      // Lines of the log have a budget, which has to be shared beforehand.
      turnedAwayLinesPerSecondMax: Math.ceil(all.turnedAwayLinesPerSecondMax / threads),
    },
  });
  const link = new ThreadLink(place, worker, port, owner);
  return link;
};

/** `threads`: at least 1. */
export const createGatewayThreads = (options: GatewayThreadsOptions): AgentGateway =>
  new GatewayThreads(options);
