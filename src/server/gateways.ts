/**
 * Everything between the server's loop and its gateways: what they ask, which reads wait for a confirmation, what has
 * timed out, and what is handed to them at the end of a turn.
 */
import assert from 'node:assert/strict';
import type { Feed, FeedEvent } from '../feed/index.ts';
import { FuturestoreError, limits, type AnswerBody, type ClusterStatus } from '../protocol/index.ts';
import type { LogIndex } from '../raft/index.ts';
import { parsePattern } from '../scopes/index.ts';
import type { Command, CommandBody, CommandResult, Store, Subject, TicketKeys } from '../store/index.ts';
import type { AccessRequests } from './access-requests.ts';
import type { AgentsRequests } from './agents-requests.ts';
import type { Commands } from './commands.ts';
import { DueReads } from './due-reads.ts';
import type { Environment, ServerMetrics, Timer } from './environment.ts';
import type { Leadership } from './leadership.ts';
import type { MemberRequests } from './member-requests.ts';
import type {
  ConnectionId,
  Gateway,
  GatewayEvent,
  GatewayNotice,
  GatewayPort,
  GatewayRequest,
  OpenedSession,
  ServerIdentity,
} from './port.ts';
import type { Reads } from './reads.ts';
import { Requests, type AttachedSession, type InFlight } from './requests.ts';
import type { SnapshotViews } from './snapshot-views.ts';
import { Standings } from './standings.ts';
import { timedOut } from './timed-out.ts';

/** So that a connection of any gateway has one number in the log, unique in one run of a server. */
const gatewaysMax = 64;

/** A timer takes no more; what is due later is looked at again then. */
const timerMsMax = 0x7fff_ffff;

export interface GatewaysOptions {
  readonly self: number;
  readonly environment: Environment;
  readonly metrics: ServerMetrics;
  readonly commands: Commands;
  readonly reads: Reads;
  readonly feed: Feed;
  readonly store: () => Store;
  readonly clusterMs: () => number;
  readonly identity: () => ServerIdentity;
  readonly clusterStatus: () => ClusterStatus;
  readonly members: MemberRequests;
  readonly access: AccessRequests;
  readonly leadership: Leadership;
  readonly agents: AgentsRequests;
  readonly views: SnapshotViews;
  /** By the monotonic clock; undefined: a leader is known. */
  readonly leaderlessSinceMs: () => number | undefined;
  /** Another turn of the loop is needed. */
  readonly schedule: () => void;
  /** Runs what a gateway or a timer asks for; a bug in it ends the server. */
  readonly guard: (work: () => void) => void;
}

interface Attached {
  readonly gateway: Gateway;
  events: GatewayEvent[];
  /** As it was told last. */
  ticketKeys: TicketKeys | undefined;
  /** Asked about since the last turn. */
  progressWanted: ConnectionId[];
  /** The last event of its kind: openings that follow each other share one. */
  opened: { readonly event: GatewayEvent; readonly sessions: OpenedSession[] } | undefined;
}

export class Gateways {
  readonly #options: GatewaysOptions;
  readonly #requests = new Requests();
  readonly #attached: Attached[] = [];
  readonly #standings: Standings;
  #deadlineTimer: { readonly timer: Timer; readonly atMs: number } | undefined;
  readonly #due: DueReads;
  #late: { readonly inFlight: InFlight; readonly body: AnswerBody }[] = [];

  constructor(options: GatewaysOptions) {
    this.#options = options;
    this.#standings = new Standings(options);
    this.#due = new DueReads(options.environment);
  }

  attach(gateway: Gateway): GatewayPort {
    assert(this.#attached.length < gatewaysMax, `a server has at most ${gatewaysMax} gateways`);
    const { guard, access, schedule } = this.#options;
    const number = this.#requests.addGateway();
    const first = access.event();
    this.#attached.push({
      gateway,
      events: first === undefined ? [] : [first],
      ticketKeys: undefined,
      progressWanted: [],
      opened: undefined,
    });
    schedule();
    return {
      submit: (requests) => guard(() => this.#submit(number, requests)),
      notify: (notices) => guard(() => this.#notify(number, notices)),
      standing: this.#standings.now(),
    };
  }

  get connections(): number {
    return this.#attached.reduce((sum, { gateway }) => sum + gateway.connections, 0);
  }

  /** The log has decided over a command that somebody here may be waiting for. */
  result(waiter: InFlight, command: Command, result: CommandResult): void {
    switch (result.kind) {
      case 'written':
        this.#answer(waiter, { kind: 'written', result: result.result });
        return;
      case 'failed':
        this.#answer(waiter, { kind: 'failed', failure: result.failure });
        return;
      case 'member':
        this.#answer(waiter, { kind: 'member_changed', member: result.member });
        return;
      case 'access':
        this.#answer(waiter, {
          kind: 'access_changed',
          revision: result.revision,
          unchanged: result.unchanged,
        });
        return;
      case 'done':
        this.#answer(waiter, {
          kind: command.kind === 'session_close' ? 'session_closed' : 'session_opened',
        });
        return;
      default:
        result satisfies never;
    }
  }

  /** At the end of this turn, or of the next one. */
  answerLater(inFlight: InFlight, body: AnswerBody): void {
    this.#late.push({ inFlight, body });
    this.#options.schedule();
  }

  /** The cluster took this server for gone, or it can't know: the sessions whose connections are here are here. */
  attachSessionsAgain(): void {
    const store = this.#options.store();
    for (const { gateway, connection, session } of this.#requests.sessions()) {
      // Its agent has gone elsewhere since; the connection here is a dead one that nobody has noticed yet.
      if (store.isAttachedElsewhere(session.id, this.#options.self)) continue;
      this.#attachAgain(session, connectionNumber(gateway, connection));
    }
  }

  #attachAgain({ id, principal, graceMs, subject }: AttachedSession, connection: number): void {
    const described = this.#described(subject);
    this.#send({
      kind: 'session_open',
      session: id,
      principal,
      graceMs,
      resume: true,
      connection,
      ...described,
    });
  }

  /** What cannot be sent is a bug, which must end no more than this request. */
  #send(command: CommandBody, waiter?: InFlight): void {
    try {
      this.#options.commands.submit(command, waiter);
    } catch (error) {
      if (!(error instanceof FuturestoreError)) throw error;
      const { code, message } = error;
      if (waiter !== undefined) this.answerLater(waiter, { kind: 'failed', failure: { code, message } });
    }
  }

  /** Only where the cluster decides over access: else servers of an earlier version would keep something else. */
  #described(subject: Subject): { readonly subject?: Subject } {
    return this.#options.store().access === undefined ? {} : { subject };
  }

  /** Policies or revocations are others now. To be called before the results of what was applied with the change. */
  accessChanged(): void {
    const event = this.#options.access.event();
    if (event !== undefined) for (const { events } of this.#attached) events.push(event);
    this.#options.schedule();
  }

  /** A connection was made through another server. To be called in the order of the log, before the results behind it. */
  sessionOpened(opened: OpenedSession): void {
    // Also where nobody is connected: how many are is known of threads as of a second ago.
    for (const attached of this.#attached) {
      const { events } = attached;
      if (attached.opened !== undefined && events.at(-1) === attached.opened.event) {
        attached.opened.sessions.push(opened);
        continue;
      }
      const sessions = [opened];
      const event: GatewayEvent = { kind: 'sessions_opened', sessions };
      attached.opened = { event, sessions };
      events.push(event);
    }
    this.#options.schedule();
  }

  /** That this session at this gateway is older than another one of its principal, at another server. */
  sessionReplaced(gateway: number, replaced: OpenedSession): void {
    this.#emit(gateway, { kind: 'sessions_opened', sessions: [replaced] });
    this.#options.schedule();
  }

  /** An opening of this run has been applied that nobody waits for any more. */
  detachIfGone({ session, connection }: { readonly session: string; readonly connection: number }): void {
    const [gateway, id] = [connection % gatewaysMax, Math.floor(connection / gatewaysMax)];
    if (this.#requests.session(gateway, id)?.id === session) return;
    // It may have moved to another connection here.
    for (const other of this.#requests.sessions()) if (other.session.id === session) return;
    this.#send({ kind: 'session_detach', session, connection });
  }

  /** The sessions of the connections that are here. */
  *sessions(): IterableIterator<{
    readonly gateway: number;
    readonly session: string;
    readonly principal: string;
    /** As in the log. */
    readonly connection: number;
  }> {
    for (const { gateway, connection, session } of this.#requests.sessions()) {
      const { id, principal } = session;
      yield { gateway, session: id, principal, connection: connectionNumber(gateway, connection) };
    }
  }

  /** The end of a turn: what may be read, told and delivered now is. */
  endTurn(appliedIndex: LogIndex, clusterMs: number): void {
    for (const { inFlight, body } of this.#late) this.#answer(inFlight, body);
    this.#late = [];
    for (const inFlight of this.#options.reads.release(appliedIndex)) this.#readLater(inFlight);
    this.#due.run((inFlight) => this.#read(inFlight, clusterMs));
    for (const event of this.#options.feed.take(clusterMs)) this.#feedEvent(event);
    this.#tellProgress();
    this.#tellTicketKeys();
    for (const attached of this.#attached) {
      if (attached.events.length === 0) continue;
      const events = attached.events;
      attached.events = [];
      attached.opened = undefined;
      attached.gateway.deliver(events);
    }
    this.#armDeadline();
  }

  /** At each tick of the server's. */
  tick(): void {
    const standing = this.#standings.takeChanged();
    if (standing === undefined) return;
    for (const { events } of this.#attached) events.push({ kind: 'standing', standing });
    this.#options.schedule();
  }

  /** Behind the pushes that it is about. */
  #tellProgress(): void {
    const { feed } = this.#options;
    for (const [gateway, attached] of this.#attached.entries()) {
      if (attached.progressWanted.length === 0) continue;
      const connections: ConnectionId[] = [];
      let revision = 0;
      for (const connection of attached.progressWanted) {
        const servedTo = feed.progress(gateway, connection);
        if (servedTo === undefined) continue;
        connections.push(connection);
        revision = servedTo;
      }
      attached.progressWanted = [];
      if (connections.length > 0) attached.events.push({ kind: 'progress', connections, revision });
    }
  }

  #tellTicketKeys(): void {
    const { ticketKeys } = this.#options.store();
    if (ticketKeys === undefined) return;
    for (const attached of this.#attached) {
      if (attached.ticketKeys === ticketKeys) continue;
      attached.ticketKeys = ticketKeys;
      attached.events.push({ kind: 'ticket_keys', keys: ticketKeys.keys });
    }
  }

  /** Reads wait for a turn of their own: too many came at once. */
  get pending(): boolean {
    return this.#due.any;
  }

  #readLater(inFlight: InFlight): void {
    this.#due.add(connectionNumber(inFlight.gateway, inFlight.request.connection), inFlight);
  }

  stop(): void {
    this.#deadlineTimer?.timer.cancel();
    this.#deadlineTimer = undefined;
  }

  #submit(gateway: number, requests: readonly GatewayRequest[]): void {
    const nowMs = this.#options.environment.monotonicMs();
    const counts = new Map<string, number>();
    for (const request of requests) {
      counts.set(request.kind, (counts.get(request.kind) ?? 0) + 1);
      this.#begin(this.#requests.add(gateway, request, nowMs));
    }
    for (const [kind, count] of counts) this.#options.metrics.requests(kind, count);
    this.#options.schedule();
  }

  #begin(inFlight: InFlight): void {
    const { request, gateway } = inFlight;
    const { reads } = this.#options;
    switch (request.kind) {
      case 'session_open': {
        const { session, principal, graceMs, resume, subject } = request;
        const attached = { id: session, principal, graceMs, subject };
        this.#requests.setSession(gateway, request.connection, attached);
        const connection = connectionNumber(gateway, request.connection);
        const described = this.#described(subject);
        const askedAtMs = Math.max(0, Math.floor(this.#options.clusterMs()));
        this.#send(
          { kind: 'session_open', session, principal, graceMs, resume, connection, askedAtMs, ...described },
          inFlight,
        );
        return;
      }
      case 'session_close': {
        this.#requests.setSession(gateway, request.connection, undefined);
        const { session, principal } = request;
        this.#send({ kind: 'session_close', session, principal }, inFlight);
        return;
      }
      case 'write': {
        const { session, principal, sequence, answeredBelow, operations } = request;
        this.#send({ kind: 'write', session, principal, sequence, answeredBelow, operations }, inFlight);
        return;
      }
      case 'get':
      case 'list':
        if (request.stale) this.#readLater(inFlight);
        else reads.add(inFlight);
        return;
      case 'await':
      case 'subscribe':
      // Confirmed as any read is: a server that is cut off may have fallen behind cluster time.
      case 'clock':
      case 'acl_get':
        reads.add(inFlight);
        return;
      case 'acl_apply':
      case 'acl_revoke':
      case 'acl_restore': {
        const checked = this.#options.access.check(request);
        if ('failure' in checked) this.answerLater(inFlight, { kind: 'failed', failure: checked.failure });
        else this.#send(checked.command, inFlight);
        return;
      }
      case 'status':
      case 'member_list':
        this.#readLater(inFlight);
        return;
      case 'member_add':
      case 'member_promote':
      case 'member_remove': {
        const checked = this.#options.members.check(request);
        if ('failure' in checked) this.answerLater(inFlight, { kind: 'failed', failure: checked.failure });
        else this.#send(checked.command, inFlight);
        return;
      }
      case 'transfer_leader':
        this.#options.leadership.request(inFlight, request.member);
        return;
      case 'drain_server':
      case 'rebalance':
        this.#options.agents.request(inFlight, request);
        return;
      case 'snapshot_read':
        // What was answered before must be in it.
        if (this.#options.views.read(inFlight, request)) reads.add(inFlight);
        return;
      default:
        request satisfies never;
    }
  }

  /** Answers from the state as it is now. */
  #read(inFlight: InFlight, clusterMs: number): void {
    const { request, gateway } = inFlight;
    const store = this.#options.store();
    const { feed } = this.#options;
    switch (request.kind) {
      case 'get': {
        const future = store.get(request.key);
        const fresh = future && store.fresh(future, clusterMs);
        this.#answer(inFlight, { kind: 'got', revision: store.revision, future: fresh });
        return;
      }
      case 'list': {
        const { pattern: text, within, after, limit, values } = request;
        const parsed = parsePattern(text);
        assert(parsed.ok, `a gateway let the pattern ${text} pass`);
        const bytesMax = limits.listPageBytesMax;
        const allowance = within === undefined ? undefined : parsePattern(within);
        const { readOnAfter, futures, next } = store.list({
          pattern: parsed.pattern,
          within: allowance?.ok === true ? allowance.pattern : undefined,
          after: inFlight.readOnAfter ?? after,
          limit,
          values,
          bytesMax,
          nowMs: clusterMs,
        });
        inFlight.readOnAfter = readOnAfter;
        if (readOnAfter !== undefined) this.#readLater(inFlight);
        else this.#answer(inFlight, { kind: 'listed', revision: store.revision, futures, next });
        return;
      }
      case 'await': {
        const { connection, request: number, alternatives, leastGeneration } = request;
        const least = leastGeneration === undefined ? {} : { leastGeneration };
        const waiting = feed.await(
          { gateway, connection, request: number, alternatives, ...least },
          clusterMs,
        );
        if (waiting === undefined) this.#requests.finish(inFlight);
        else this.#requests.takenOver(inFlight, waiting);
        return;
      }
      case 'subscribe': {
        const { connection, request: number, patterns, within, start } = request;
        feed.subscribe({ gateway, connection, request: number, patterns, within, start });
        this.#requests.finish(inFlight);
        return;
      }
      case 'clock':
        this.#answer(inFlight, { kind: 'clock', clusterTimeMs: clusterMs });
        return;
      case 'status':
        this.#answer(inFlight, { kind: 'status', status: this.#options.clusterStatus() });
        return;
      case 'member_list': {
        const { members } = this.#options;
        const failure = members.problemWithList;
        if (failure === undefined) this.#answer(inFlight, { kind: 'members', list: members.list() });
        else this.#answer(inFlight, { kind: 'failed', failure });
        return;
      }
      case 'acl_get':
        this.#answer(inFlight, { kind: 'access', access: this.#options.access.state() });
        return;
      case 'snapshot_read':
        this.#options.views.confirmed(inFlight);
        return;
      case 'session_open':
      case 'session_close':
      case 'write':
      case 'member_add':
      case 'member_promote':
      case 'member_remove':
      case 'transfer_leader':
      case 'drain_server':
      case 'rebalance':
      case 'acl_apply':
      case 'acl_revoke':
      case 'acl_restore':
        throw new Error(`a ${request.kind} is no read`);
      default:
        request satisfies never;
    }
  }

  #notify(gateway: number, notices: readonly GatewayNotice[]): void {
    const { feed, commands } = this.#options;
    for (const notice of notices) {
      if (notice.kind === 'progress_wanted') {
        this.#attached[gateway]?.progressWanted.push(...notice.connections);
        continue;
      }
      const { connection } = notice;
      switch (notice.kind) {
        case 'cancel': {
          const inFlight = this.#requests.find(gateway, connection, notice.request);
          if (inFlight) this.#forget(inFlight);
          feed.cancel(gateway, connection, notice.request);
          break;
        }
        case 'delivered':
          feed.delivered(gateway, connection, notice.bytes);
          break;
        case 'identified': {
          const known = this.#requests.session(gateway, connection);
          if (known === undefined) break;
          const session = { ...known, subject: notice.subject };
          this.#requests.setSession(gateway, connection, session);
          const access = this.#options.store().access;
          if (access !== undefined) this.#attachAgain(session, connectionNumber(gateway, connection));
          break;
        }
        case 'closed':
          for (const inFlight of this.#requests.close(gateway, connection)) this.#forget(inFlight);
          feed.closed(gateway, connection);
          if (notice.session !== undefined) {
            const number = connectionNumber(gateway, connection);
            commands.submit({ kind: 'session_detach', session: notice.session, connection: number });
          }
          break;
        default:
          notice satisfies never;
      }
    }
    this.#options.schedule();
  }

  /** Nobody waits for it any more. What has been sent may still happen; nothing is sent again for it. */
  #forget(inFlight: InFlight): void {
    this.#requests.finish(inFlight);
    if (inFlight.command !== undefined) this.#options.commands.take(inFlight.command);
  }

  #timeOut(): void {
    this.#deadlineTimer = undefined;
    const nowMs = this.#options.environment.monotonicMs();
    for (const inFlight of this.#requests.timedOut(nowMs)) {
      if (inFlight.command !== undefined) this.#options.commands.take(inFlight.command);
      this.answerLater(inFlight, { kind: 'failed', failure: timedOut(inFlight.request) });
    }
    for (const { connection, request } of this.#requests.waitsTimedOut(nowMs)) {
      const { gateway, id } = connection;
      this.#options.feed.cancel(gateway, id, request);
      // In flight here again until it is answered: it may still be cancelled.
      const again = { kind: 'await', connection: id, request, alternatives: [] } as const;
      const inFlight = this.#requests.add(gateway, again, nowMs);
      this.answerLater(inFlight, { kind: 'failed', failure: timedOut(again) });
    }
    this.#options.schedule();
  }

  #armDeadline(): void {
    const { environment, guard, feed } = this.#options;
    this.#requests.tidy(feed.counts.waits);
    const atMs = this.#requests.nextDeadlineMs();
    if (atMs === Infinity || (this.#deadlineTimer && this.#deadlineTimer.atMs <= atMs)) return;
    this.#deadlineTimer?.timer.cancel();
    const delayMs = Math.min(timerMsMax, Math.max(0, Math.ceil(atMs - environment.monotonicMs())));
    this.#deadlineTimer = { timer: environment.setTimer(delayMs, () => guard(() => this.#timeOut())), atMs };
  }

  #answer(inFlight: InFlight, body: AnswerBody): void {
    if (inFlight.over) return;
    this.#requests.finish(inFlight);
    const { connection, request } = inFlight.request;
    this.#emit(inFlight.gateway, { kind: 'answer', connection, request, body });
  }

  /** The feed answers what it has taken over, and nothing that was cancelled since. */
  #feedEvent({ gateway, ...event }: FeedEvent): void {
    this.#emit(gateway, event);
  }

  #emit(gateway: number, event: GatewayEvent): void {
    this.#attached[gateway]?.events.push(event);
  }
}

const connectionNumber = (gateway: number, connection: ConnectionId): number =>
  connection * gatewaysMax + gateway;
