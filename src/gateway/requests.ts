/**
 * What one connection asks: each request is refused here or goes to the server, and is in flight until its answer has
 * been sent.
 */
import { FuturestoreError } from '../protocol/index.ts';
import type { Failure, ReceivedClientFrame, Request } from '../protocol/index.ts';
import { canonicalJson, revokes } from '../scopes/index.ts';
import type { Scope, ScopeLimits } from '../scopes/index.ts';
import type {
  ConnectionEvent,
  ConnectionId,
  GatewayNotice,
  GatewayRequest,
  Subject,
} from '../server/index.ts';
import { checkDocument, revokesItself } from './access.ts';
import { AgentSession } from './agent-session.ts';
import type { SessionStanding } from './agent-session.ts';
import { listWithin, subscribeWithin } from './allowances.ts';
import type { Audit } from './audit.ts';
import type { Authentication } from './authentication.ts';
import { refusalOf } from './authorise.ts';
import { firstSessionNumber, Flights, flights } from './flights.ts';
import type { Identity } from './identity.ts';
import type { Outbox } from './outbox.ts';
import type { PageBudget } from './page-budget.ts';
import type { GatewaySetup } from './settings.ts';
import { Subscriptions } from './subscriptions.ts';
import { withdraw } from './withdrawal.ts';

/** What they ask of their gateway. */
export interface RequestsOwner {
  notify(notice: GatewayNotice): void;
  /** Milliseconds until the principal may make one more request; 0: it may, and it counts. */
  rateWaitMs(principal: string, perSecond: number): number;
  /** Of the pages of lists that the principal may have under way. */
  readonly pages: PageBudget;
}

export interface RequestsParts {
  readonly connection: ConnectionId;
  readonly setup: GatewaySetup;
  readonly owner: RequestsOwner;
  readonly authentication: Authentication;
  readonly audit: Audit;
  readonly outbox: Outbox;
}

/** Of every request to the server. */
interface Base {
  readonly connection: ConnectionId;
  readonly request: number;
  readonly timeoutMs?: number;
}

/** Of one connection: each holds about 256 KiB of the state, or one large value, until it has been sent. */
const snapshotReadsMax = 2;

const openAgain = 'the session could not be opened: open it again (open_session), then send this again';
const openFirst = 'open a session first (open_session), writes and close_session belong to one';

export class Requests {
  readonly #connection: ConnectionId;
  readonly #setup: GatewaySetup;
  readonly #owner: RequestsOwner;
  readonly #authentication: Authentication;
  readonly #audit: Audit;
  readonly #outbox: Outbox;
  readonly #inFlight = new Flights();
  readonly #session = new AgentSession();
  readonly #subscriptions: Subscriptions;
  /** Undefined until it is known who asks. */
  #scope: Scope | undefined;
  #limits: ScopeLimits | undefined;

  constructor({ connection, setup, owner, authentication, audit, outbox }: RequestsParts) {
    this.#connection = connection;
    this.#setup = setup;
    this.#owner = owner;
    this.#authentication = authentication;
    this.#audit = audit;
    this.#outbox = outbox;
    this.#subscriptions = new Subscriptions(outbox);
  }

  /** Those that are live. */
  get subscriptions(): Subscriptions {
    return this.#subscriptions;
  }

  /** The values of large writes that have no answer yet. */
  get writeBytes(): number {
    return this.#inFlight.writeBytes;
  }

  /** Whose loss is to be told when the connection ends. */
  get sessionToDetach(): string | undefined {
    return this.#session.toDetach;
  }

  get sessionStanding(): SessionStanding {
    return this.#session.standing(this.#inFlight.isOpening);
  }

  get requestsInFlightMax(): number {
    return Math.min(this.#setup.limits.requestsInFlightMax, this.#limits?.requestsInFlight ?? Infinity);
  }

  get subscriptionsMax(): number {
    return Math.min(this.#setup.limits.subscriptionsMax, this.#limits?.subscriptions ?? Infinity);
  }

  /** By what is said to it; undefined until it is known who asks. */
  get scope(): Scope | undefined {
    return this.#scope;
  }

  /** What may be asked from now on. */
  permit(scope: Scope): void {
    this.#scope = scope;
    this.#limits = scope.limits;
  }

  /** Who asks, or what that one may do, has changed: ends what is in flight or followed and no longer allowed. */
  changed(before: Identity, now: Identity, scope: Scope): void {
    const subject = subjectOf(now);
    if (this.#session.id !== undefined && canonicalJson(subject) !== canonicalJson(subjectOf(before)))
      this.#owner.notify({ kind: 'identified', connection: this.#connection, subject });
    withdraw({
      scope,
      connection: this.#connection,
      principal: this.#principal,
      inFlight: this.#inFlight,
      subscriptions: this.#subscriptions,
      outbox: this.#outbox,
      audit: this.#audit,
      owner: this.#owner,
    });
  }

  handle({ requests }: ReceivedClientFrame): void {
    const admitted: GatewayRequest[] = [];
    let cancels: (readonly [id: number, target: number])[] | undefined;
    for (const request of requests) {
      if ('refused' in request) {
        this.refuse(request.id, request.refused, 'malformed');
      } else if (request.body.kind === 'cancel') {
        (cancels ??= []).push([request.id, request.body.request]);
      } else if (request.body.kind === 'authenticate') {
        const { id, body } = request;
        if (this.#isTaken(id)) this.#refuseTaken(id, body.kind);
        else this.#authentication.renew(id, body.token);
      } else {
        const made = this.#admit(request);
        if (made !== undefined) admitted.push(made);
      }
    }
    if (admitted.length > 0) this.#setup.port.submit(admitted);
    // Behind the rest: what is cancelled may be in the same frame.
    if (cancels !== undefined) for (const [id, target] of cancels) this.#cancel(id, target);
  }

  /** What the server says to this connection. */
  take(event: ConnectionEvent): void {
    switch (event.kind) {
      case 'answer':
        this.#takeAnswer(event);
        return;
      case 'push':
        if (this.#subscriptions.has(event.subscription)) this.#outbox.add(event);
        // Cancelled meanwhile: its bytes are given back all the same, they are counted by connection.
        else this.#owner.notify({ kind: 'delivered', connection: this.#connection, bytes: event.bytes });
        return;
      case 'ended':
        this.#subscriptions.end(event.subscription, event.failure);
        return;
      default:
        event satisfies never;
    }
  }

  refuse(id: number, failure: Failure, verb: string, key?: string): undefined {
    this.#setup.metrics.refused(failure.code);
    this.#audit.refused({ failure, verb, ...(key !== undefined && { key }) });
    this.#outbox.add({ kind: 'own_answer', request: id, body: { kind: 'failed', failure } });
  }

  /** The id is free again. */
  answerSent(request: number): void {
    this.#inFlight.over(request);
  }

  /** The socket holds next to nothing of what was sent. */
  socketTaken(): void {
    const pages = this.#inFlight.takePagesSent();
    if (pages > 0) this.#owner.pages.giveBack(this.#principal, pages);
  }

  clear(): void {
    const { pages } = this.#inFlight;
    if (pages > 0) this.#owner.pages.giveBack(this.#principal, pages);
    this.#inFlight.clear();
    this.#subscriptions.clear();
  }

  get #principal(): string {
    return this.#authentication.principal;
  }

  /** What to ask of the server; undefined: the request has been answered here. */
  #admit(request: Request): GatewayRequest | undefined {
    const { id, body } = request;
    if (this.#isTaken(id)) return this.#refuseTaken(id, body.kind);
    const requestsInFlightMax = this.requestsInFlightMax;
    if (this.#inFlight.size >= requestsInFlightMax) {
      const message = `${requestsInFlightMax} requests are in flight, as many as a connection may have: wait for answers`;
      return this.#putOff(id, { code: 'TOO_MANY_REQUESTS', message }, body.kind);
    }
    const limited = this.#rateRefusal();
    if (limited !== undefined) return this.#putOff(id, limited, body.kind);
    if (this.#scope === undefined) throw new Error('a request was looked at before it was known whose it is');
    const refusal = refusalOf(body, this.#scope, this.#principal);
    if (refusal !== undefined) return this.refuse(id, refusal.failure, refusal.verb, refusal.key);
    return this.#toServer(request);
  }

  /** It may be asked again later, and so may what needs the session that it would have opened. */
  #putOff(id: number, failure: Failure, kind: Request['body']['kind']): undefined {
    if (kind === 'open_session') this.#session.putOff();
    return this.refuse(id, failure, kind);
  }

  #rateRefusal(): Failure | undefined {
    const perSecond = this.#limits?.requestsPerSecond ?? Infinity;
    if (perSecond === Infinity) return undefined;
    const retryAfterMs = this.#owner.rateWaitMs(this.#principal, perSecond);
    if (retryAfterMs === 0) return undefined;
    const message = `${this.#principal} makes more than ${perSecond} requests a second, as many as its policies allow: wait ${retryAfterMs} ms`;
    return { code: 'RATE_LIMITED', message, retryAfterMs };
  }

  #toServer(request: Request): GatewayRequest | undefined {
    const { id, body, timeoutMs } = request;
    if (body.kind === 'write') return this.#write(id, body, timeoutMs);
    if (body.kind === 'get') return this.#get(id, body, timeoutMs);
    const base = { connection: this.#connection, request: id, ...(timeoutMs !== undefined && { timeoutMs }) };
    switch (body.kind) {
      case 'open_session':
        return this.#openSession(base, body);
      case 'close_session':
        if (this.#session.id === undefined) return this.#refuseWithoutSession(id, body.kind);
        this.#inFlight.begin(id, this.#session.number);
        return { ...base, kind: 'session_close', session: this.#session.id, principal: this.#principal };
      case 'subscribe':
        return this.#subscribe(id, body);
      case 'list':
        if (!this.#owner.pages.take(this.#principal)) return this.#refusePage(id);
        this.#inFlight.beginList(id, body);
        return { ...base, ...body, ...listWithin(body.pattern, this.#scope) };
      case 'await':
      case 'clock':
      case 'status':
      case 'member_list':
      case 'acl_get':
        this.#inFlight.beginRead(id, body);
        return { ...base, ...body };
      case 'drain_server':
      case 'rebalance':
      case 'transfer_leader':
        this.#audit.asked(id, body);
        this.#inFlight.begin(id, flights.plain);
        return { ...base, ...body };
      case 'acl_apply':
        return this.#applyPolicies(base, body);
      case 'member_add':
      case 'member_promote':
      case 'member_remove':
      case 'acl_revoke':
      case 'acl_restore':
        if (body.kind === 'acl_revoke' && revokes(body.revocation, this.#subject.credential))
          return this.refuse(id, revokesItself, 'acl.change');
        this.#audit.asked(id, body);
        this.#inFlight.begin(id, flights.plain);
        return { ...base, ...body, by: this.#subject };
      case 'snapshot_read':
        return this.#readSnapshot(base, body);
      case 'cancel':
      case 'authenticate':
        throw new Error(`${body.kind} is handled apart`);
      default:
        return body satisfies never;
    }
  }

  #refusePage(id: number): undefined {
    const { listPagesPerPrincipalMax } = this.#setup.limits;
    const message = `${listPagesPerPrincipalMax} pages of lists are on their way to ${this.#principal}, as many as a principal may have at a server: read them, then ask again`;
    return this.refuse(id, { code: 'TOO_MANY_REQUESTS', message }, 'list');
  }

  /** Nearly all requests are gets and writes: their objects are made at once, not from others. */
  #get(
    id: number,
    body: Extract<Request['body'], { kind: 'get' }>,
    timeoutMs: number | undefined,
  ): GatewayRequest {
    this.#inFlight.beginRead(id, body);
    const { key, stale } = body;
    const connection = this.#connection;
    return timeoutMs === undefined
      ? { connection, request: id, kind: 'get', key, stale }
      : { connection, request: id, timeoutMs, kind: 'get', key, stale };
  }

  #write(
    id: number,
    { sequence, answeredBelow, operations }: Extract<Request['body'], { kind: 'write' }>,
    timeoutMs: number | undefined,
  ): GatewayRequest | undefined {
    const session = this.#session.id;
    if (session === undefined) return this.#refuseWithoutSession(id, 'write');
    this.#inFlight.beginWrite(id, this.#session.number, operations);
    const principal = this.#principal;
    const connection = this.#connection;
    const write = { kind: 'write', session, principal, sequence, answeredBelow, operations } as const;
    return timeoutMs === undefined
      ? { connection, request: id, ...write }
      : { connection, request: id, timeoutMs, ...write };
  }

  get #subject(): Subject {
    const { identity } = this.#authentication;
    if (identity === undefined) throw new Error('a request was looked at before it was known whose it is');
    return subjectOf(identity);
  }

  #applyPolicies(
    base: Base,
    body: Extract<Request['body'], { kind: 'acl_apply' }>,
  ): GatewayRequest | undefined {
    const { document, ifRevision, force } = body;
    const { identity } = this.#authentication;
    if (identity === undefined) throw new Error('a request was looked at before it was known whose it is');
    let checked;
    try {
      checked = checkDocument(document, identity, this.#setup.clock.wallMs());
    } catch (error) {
      if (!(error instanceof FuturestoreError)) throw error;
      const { code, message } = error;
      return this.refuse(base.request, { code, message }, 'acl.change');
    }
    if (!checked.keepsAuthor && !force) {
      const message = `with these policies ${this.#principal} could not change policies any more (acl.change): allow it, or force it`;
      return this.refuse(base.request, { code: 'ACCESS_REFUSED', message }, 'acl.change');
    }
    this.#audit.asked(base.request, body);
    this.#inFlight.begin(base.request, flights.plain);
    return {
      ...base,
      kind: 'acl_apply',
      by: subjectOf(identity),
      document: checked.document,
      ...(ifRevision !== undefined && { ifRevision }),
    };
  }

  #openSession(
    base: Base,
    body: Extract<Request['body'], { kind: 'open_session' }>,
  ): GatewayRequest | undefined {
    const refusal = this.#session.refusalToOpen(body.session);
    if (refusal !== undefined)
      return this.refuse(base.request, { code: 'INVALID_ARGUMENT', message: refusal }, body.kind);
    const { session, graceMs, resume } = body;
    this.#session.open(session);
    this.#inFlight.begin(base.request, flights.opening);
    const principal = this.#principal;
    return { ...base, kind: 'session_open', session, principal, graceMs, resume, subject: this.#subject };
  }

  #readSnapshot(
    base: Base,
    body: Extract<Request['body'], { kind: 'snapshot_read' }>,
  ): GatewayRequest | undefined {
    if (this.#inFlight.snapshotReads >= snapshotReadsMax) {
      const message = `${snapshotReadsMax} parts of snapshots are on their way to this connection, as many as may be: wait for one`;
      return this.refuse(base.request, { code: 'TOO_MANY_REQUESTS', message }, body.kind);
    }
    if (body.snapshot === undefined) this.#audit.asked(base.request, body);
    this.#inFlight.beginSnapshotRead(base.request, body);
    return { ...base, ...body };
  }

  #subscribe(id: number, body: Extract<Request['body'], { kind: 'subscribe' }>): GatewayRequest | undefined {
    const subscriptionsMax = this.subscriptionsMax;
    if (this.#subscriptions.size + this.#inFlight.subscribing >= subscriptionsMax) {
      const message = `the connection has ${subscriptionsMax} subscriptions, as many as it may: cancel one, or put more patterns into one`;
      return this.refuse(id, { code: 'LIMIT_EXCEEDED', message }, body.kind);
    }
    this.#inFlight.beginRead(id, body);
    return {
      connection: this.#connection,
      request: id,
      ...body,
      ...subscribeWithin(body.patterns, this.#scope),
    };
  }

  #refuseTaken(id: number, kind: string): undefined {
    const message = `request id ${id} is in flight or names a subscription: use another, 1 up to 2^53-1`;
    return this.refuse(id, { code: 'PROTOCOL_ERROR', message }, kind);
  }

  #refuseWithoutSession(id: number, kind: string): undefined {
    // It may have been sent before its sender knew that the opening failed: the same again, behind another opening, is right.
    const failure: Failure =
      this.#session.toDetach === undefined && !this.#session.isPutOff
        ? { code: 'INVALID_ARGUMENT', message: openFirst }
        : { code: 'UNAVAILABLE', message: openAgain };
    return this.refuse(id, failure, kind);
  }

  #cancel(id: number, target: number): void {
    if (this.#isTaken(id)) {
      const message = `request id ${id} is in flight or names a subscription: give the cancel an id of its own`;
      this.refuse(id, { code: 'PROTOCOL_ERROR', message }, 'cancel');
      return;
    }
    if (this.#subscriptions.has(target)) {
      this.#owner.notify({ kind: 'cancel', connection: this.#connection, request: target });
      this.#subscriptions.end(target, {
        code: 'CANCELLED',
        message: 'the subscription was cancelled by its client',
      });
    } else {
      this.#cancelInFlight(target);
    }
    this.#outbox.add({ kind: 'own_answer', request: id, body: { kind: 'cancelled' } });
  }

  /** Without effect where nothing is in flight under this id, or its answer is on its way: cancelling is idempotent. */
  #cancelInFlight(target: number): void {
    // It is on its way into the log, and nobody would know of the session: its own answer follows.
    if (this.#inFlight.kindOf(target) === flights.opening) return;
    const flight = this.#inFlight.answered(target);
    if (flight === undefined) return;
    this.#owner.notify({ kind: 'cancel', connection: this.#connection, request: target });
    this.#inFlight.over(target);
    const message = 'the request was cancelled by its client; a write may have happened, or may still happen';
    const body = { kind: 'failed', failure: { code: 'CANCELLED', message } } as const;
    this.#audit.answered(target, body);
    this.#outbox.add({ kind: 'own_answer', request: target, body });
  }

  #takeAnswer(event: Extract<ConnectionEvent, { kind: 'answer' }>): void {
    const { request, body } = event;
    const flight = this.#inFlight.answered(request);
    // Cancelled meanwhile.
    if (flight === undefined) return;
    this.#audit.answered(request, body);
    if (body.kind === 'subscribed') {
      const asked = this.#inFlight.readBy(request);
      const patterns = asked?.kind === 'subscribe' ? asked.patterns : [];
      this.#subscriptions.begin(request, patterns, body.position.revision);
    } else if (body.kind === 'session_closed') {
      this.#session.closed(flight);
    } else if (body.kind === 'failed') {
      this.#setup.metrics.refused(body.failure.code);
      this.#auditRefusal(flight, body.failure);
      this.#session.failed(flight, body.failure.code, this.#inFlight.isOpening);
    }
    this.#outbox.add(event);
  }

  /** Policies and quotas are judged once more where a command is applied, and may be others by then. */
  #auditRefusal(flight: number, failure: Failure): void {
    const { code, message } = failure;
    if (code !== 'PERMISSION_DENIED' && code !== 'QUOTA_EXCEEDED' && code !== 'VALUE_TOO_LARGE') return;
    const verb = flight >= firstSessionNumber ? 'write' : 'change';
    this.#audit.refused({ failure, verb, reason: message });
  }

  #isTaken(request: number): boolean {
    return (
      this.#inFlight.has(request) ||
      this.#subscriptions.has(request) ||
      this.#authentication.isRenewedBy(request)
    );
  }
}

const subjectOf = ({ principal, credential }: Identity): Subject => ({ principal, credential });
