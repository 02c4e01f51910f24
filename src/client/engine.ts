/**
 * Takes requests to their answers across connections: what is unanswered when a connection ends goes over the next
 * one, reads as they are, writes under their session and sequence, subscriptions from where they stand.
 *
 * Every request is in `#pending` from its making to its settling, in the order of making; which is the order in
 * which writes get their sequences, and in which they are sent again.
 */
import { FuturestoreError, limits as protocolLimits, requestProblem } from '../protocol/index.ts';
import type {
  Answer,
  AnswerBody,
  Failure,
  ReceivedServerFrame,
  Request,
  RequestBody,
  SubscriptionStart,
  Welcome,
} from '../protocol/index.ts';
import { fullJitter, requestBackoff } from './backoff.ts';
import { Connection } from './connection.ts';
import type { ConnectionState } from './connection-state.ts';
import type { ClientEnvironment, ClientLogger } from './environment.ts';
import { CancelledError, clientClosed, errorOf, outcomeUnknown } from './errors.ts';
import type { ClientIdentity, Link } from './link.ts';
import { notAnswered } from './not-answered.ts';
import { Outbox } from './outbox.ts';
import type { Control } from './outbox.ts';
import {
  Pending,
  PendingRequest,
  checkRequest,
  contentBytes,
  describe,
  tooLarge,
  saysNothingOfBefore,
} from './requests.ts';
import type { Content, PendingOwner, WriteOptions } from './requests.ts';
import { Session } from './session.ts';
import type { LastingSession } from './session.ts';
import { Subscription } from './subscription.ts';
import type { SubscriptionOwner } from './subscription.ts';
import { Timers } from './timers.ts';
import type { Timed } from './timers.ts';
import { TokenRenewal } from './token-renewal.ts';
import type { TokenSource } from './tokens.ts';

/** More than this in the socket's buffer, and requests wait in their queues, where they cost less. */
const socketBufferedBytesMax = 4 * 1024 * 1024;
/** Requests of one client at one time: a bound on what a caller that does not wait can pile up. */
const pendingMax = 100_000;
/** Hello, with the longest name and version. */
const helloBytes = 512;
/** How long `close` waits for the answer to its close_session. */
const closeSessionTimeoutMs = 1_000;

export interface EngineOptions {
  readonly endpoints: readonly string[];
  readonly identity: ClientIdentity;
  readonly connectTimeoutMs: number;
  readonly sessionGraceMs: number;
  readonly token: TokenSource | undefined;
  readonly logger: ClientLogger | undefined;
  changed(state: ConnectionState): void;
  readonly session: LastingSession | undefined;
}

class Reminder implements Timed {
  dueAtMs = 0;
  heapIndex = -1;
  readonly due: () => void;

  constructor(due: () => void) {
    this.due = due;
  }
}

type Closing = { readonly resolve: () => void; sessionRequest: number } | undefined;

export class Engine implements PendingOwner, SubscriptionOwner {
  readonly #environment: ClientEnvironment;
  readonly #options: EngineOptions;
  readonly #timers: Timers;
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #renewal: TokenRenewal;
  readonly #pending = new Set<Pending>();
  readonly #subscriptions = new Set<Subscription>();
  readonly #outbox: Outbox;
  /** On the present link. */
  readonly #subscribed = new Map<number, Subscription>();
  #link: Link | undefined;
  #flushing = false;
  #everConnected = false;
  #finalError: FuturestoreError | undefined;
  #closing: Closing;
  readonly #flush = (): void => {
    this.#flushing = false;
    this.#send();
  };
  readonly #sessionRetry = new Reminder(() => {
    this.#scheduleFlush();
  });
  readonly #closeDeadline = new Reminder(() => {
    this.#connection.close(clientClosed());
  });
  #sessionRetries = 0;

  constructor(environment: ClientEnvironment, options: EngineOptions) {
    this.#environment = environment;
    this.#options = options;
    this.#timers = new Timers(environment);
    const newId = (): string =>
      Buffer.from(environment.randomBytes(protocolLimits.sessionIdBytes)).toString('hex');
    this.#session = new Session(options.sessionGraceMs, newId, options.session?.id);
    this.#outbox = new Outbox(
      this.#session,
      (pending, bytesMax) => {
        this.#settleFailed(pending, tooLarge(pending.content, pending.bytes, bytesMax));
      },
      (pending) => {
        const text = `${describe(pending.content)} belongs to a session that is no more: it was not sent`;
        this.#settleFailed(pending, new FuturestoreError('SESSION_EXPIRED', text));
      },
    );
    this.#renewal = new TokenRenewal(options, {
      link: () => this.#link,
      authenticate: (token) => {
        this.#control({ kind: 'authenticate', token });
      },
    });
    this.#connection = new Connection(environment, this.#timers, options, {
      dialed: (link) => {
        this.#use(link);
        this.#send();
      },
      adopted: (link, server) => {
        this.#adopted(link, server);
      },
      orphaned: () => {
        this.#leaveLink();
      },
      failed: (error) => {
        this.#failed(error);
      },
      received: (frame) => {
        this.#received(frame);
      },
      drained: () => {
        this.#scheduleFlush();
      },
      changed: (state) => {
        this.#changed(state);
      },
    });
    environment.defer(() => {
      this.#connection.start();
    });
  }

  get state(): ConnectionState {
    return this.#connection.state;
  }

  request<R>(content: Content, convert: (body: AnswerBody) => R, options: WriteOptions): Promise<R> {
    checkRequest(content, options);
    const bytes = contentBytes(content);
    this.#checkAcceptable(bytes, content, options.signal);
    const pending = new PendingRequest(content, bytes, options, this.#environment.now(), this, convert);
    this.#pending.add(pending);
    if (pending.deadlineAtMs !== Infinity) this.#timers.set(pending, pending.deadlineAtMs);
    this.#enqueue(pending);
    return pending.promise;
  }

  subscribe(
    patterns: readonly string[],
    start: SubscriptionStart,
    signal: AbortSignal | undefined,
  ): Subscription {
    const problem = requestProblem({ id: 1, body: { kind: 'subscribe', patterns, start } });
    if (problem !== undefined) throw errorOf(problem);
    this.#checkOpen(signal);
    const subscription = new Subscription(patterns, start, this, signal);
    this.#subscriptions.add(subscription);
    this.resubscribe(subscription);
    return subscription;
  }

  /** Waits for answers at most `graceMs`, ends the session, closes. Awaits and subscriptions end at once. */
  close(graceMs: number): Promise<void> {
    const error = clientClosed();
    for (const subscription of this.#subscriptions) this.#endSubscription(subscription, undefined);
    for (const pending of this.#pending)
      if (pending.content.kind === 'await') this.#settleFailed(pending, error);
    this.#finalError ??= error;
    if (this.#connection.state.kind === 'closed') return Promise.resolve();
    return new Promise((resolve) => {
      const before = this.#closing?.resolve;
      this.#closing = {
        resolve: () => {
          before?.();
          resolve();
        },
        sessionRequest: this.#closing?.sessionRequest ?? 0,
      };
      if (before === undefined) this.#timers.set(this.#closeDeadline, this.#environment.now() + graceMs);
      this.#closeWhenIdle();
    });
  }

  // ---- PendingOwner

  due(pending: Pending, nowMs: number): void {
    if (pending.phase === 'done') return;
    if (pending.deadlineAtMs <= nowMs) {
      this.#withdraw(pending);
      this.#settleFailed(pending, this.#timedOut(pending));
      return;
    }
    this.#armDeadline(pending);
    if (pending.phase !== 'backing_off') return;
    pending.phase = 'queued';
    this.#enqueue(pending);
  }

  aborted(pending: Pending): void {
    if (pending.phase === 'done') return;
    this.#withdraw(pending);
    const { content, sent } = pending;
    const doubt = content.kind === 'write' && sent ? '; it was sent, and may happen all the same' : '';
    const text = `${describe(content)} was cancelled by its signal${doubt}`;
    this.#settleFailed(
      pending,
      new CancelledError(text, content.kind === 'write' && sent, pending.abortReason),
    );
  }

  // ---- SubscriptionOwner

  resubscribe(subscription: Subscription): void {
    if (this.#link === undefined || !subscription.wanting || subscription.heapIndex >= 0) return;
    this.#subscribed.set(this.#outbox.subscribe(subscription), subscription);
    this.#scheduleFlush();
  }

  unsubscribe(subscription: Subscription, over: boolean): void {
    this.#timers.clear(subscription);
    const { request } = subscription;
    if (request !== 0 && this.#subscribed.delete(request)) this.#control({ kind: 'cancel', request });
    if (over) this.#subscriptions.delete(subscription);
  }

  // ---- the link

  #adopted(link: Link, server: Welcome): void {
    this.#everConnected = true;
    this.#outbox.limits = server.limits;
    if (this.#link !== link) {
      this.#leaveLink();
      this.#use(link);
    }
    this.#scheduleFlush();
  }

  #use(link: Link): void {
    this.#link = link;
    for (const subscription of this.#subscriptions) this.resubscribe(subscription);
    for (const pending of this.#pending) if (pending.phase === 'queued') this.#enqueue(pending);
  }

  #leaveLink(): void {
    this.#link = undefined;
    this.#outbox.clear();
    for (const subscription of this.#subscribed.values()) subscription.detach();
    this.#subscribed.clear();
    this.#timers.clear(this.#sessionRetry);
    this.#session.detached(this.#environment.now());
    if (this.#closing !== undefined) this.#closing.sessionRequest = 0;
  }

  /** The connection is over for good. */
  #failed(error: FuturestoreError): void {
    this.#finalError ??= error;
    this.#leaveLink();
    for (const pending of this.#pending) this.#settleFailed(pending, this.#finalErrorFor(pending, error));
    for (const subscription of this.#subscriptions) this.#endSubscription(subscription, error);
  }

  #finalErrorFor(pending: Pending, error: FuturestoreError): FuturestoreError {
    if (pending.sequence === 0) return error;
    // The cause keeps why; that the write may have happened is what the caller must know first.
    return new FuturestoreError(
      error.code,
      `${error.message} (${describe(pending.content)} was sent, and may have happened)`,
      { cause: error },
    );
  }

  #changed(state: ConnectionState): void {
    if (state.kind === 'closed') {
      this.#timers.clear(this.#closeDeadline);
      this.#closing?.resolve();
      this.#closing = undefined;
    }
    this.#options.changed(state);
  }

  // ---- sending

  #checkOpen(signal: AbortSignal | undefined): void {
    if (this.#finalError !== undefined) throw this.#finalError;
    if (signal?.aborted === true)
      throw new CancelledError('the signal was aborted before', false, signal.reason);
  }

  #checkAcceptable(bytes: number, content: Content, signal: AbortSignal | undefined): void {
    this.#checkOpen(signal);
    if (this.#pending.size >= pendingMax) {
      const text = `this client has ${String(pendingMax)} requests unanswered: wait for some before making more`;
      throw new FuturestoreError('LIMIT_EXCEEDED', text);
    }
    if (bytes > protocolLimits.frameBytesMax) throw tooLarge(content, bytes, protocolLimits.frameBytesMax);
  }

  #enqueue(pending: Pending): void {
    if (this.#link === undefined) return;
    this.#outbox.enqueue(pending);
    this.#scheduleFlush();
  }

  #control(body: RequestBody): number {
    if (this.#link === undefined) return 0;
    const id = this.#outbox.control(body);
    this.#scheduleFlush();
    return id;
  }

  #scheduleFlush(): void {
    if (this.#flushing || this.#link === undefined) return;
    this.#flushing = true;
    this.#environment.defer(this.#flush);
  }

  #send(): void {
    for (;;) {
      const link = this.#link;
      if (link === undefined || link.bufferedBytes >= socketBufferedBytesMax) return;
      const first = !link.greeted;
      if (!first && !link.welcomed) return;
      const nowMs = this.#environment.now();
      const room = first
        ? protocolLimits.frameBytesBeforeHelloMax - helloBytes - link.tokenBytes
        : this.#outbox.limits.frameBytesMax;
      const requests = this.#outbox.nextRequests(this.#openSession(nowMs), room, nowMs);
      if (requests.length === 0 && !first) return;
      link.send(requests);
    }
  }

  /** One that outlives this process is opened before any write, unless it has just been refused. */
  get #wantsSession(): boolean {
    return this.#options.session !== undefined && this.#sessionRetry.heapIndex < 0;
  }

  #openSession(nowMs: number): Request | undefined {
    if (this.#session.isDoubtful(nowMs)) {
      this.#sessionLost('the session may have been forgotten meanwhile, and made anew by a late opening');
    }
    if (this.#session.state.kind === 'retrying' && this.#sessionRetry.heapIndex >= 0) return undefined;
    const id = this.#outbox.takeId();
    const body = this.#session.open(id, this.#outbox.hasWrites || this.#wantsSession);
    return body === undefined ? undefined : { id, body };
  }

  // ---- receiving

  #received(frame: ReceivedServerFrame): void {
    for (const answer of frame.answers) this.#answer(answer);
    for (const push of frame.pushes) {
      const subscription = this.#subscribed.get(push.subscription);
      if (subscription === undefined) continue;
      subscription.pushed(push);
      if (push.ended !== undefined) this.#subscriptionFailed(subscription, push.ended);
    }
    if (frame.revision !== undefined) {
      for (const subscription of this.#subscribed.values()) subscription.heard(frame.revision);
    }
    if (frame.authExpiring !== undefined) this.#renewal.begin(frame.authExpiring.remainingMs);
    if (this.#closing !== undefined) this.#closeWhenIdle();
    this.#scheduleFlush();
  }

  #answer(answer: Answer): void {
    const taker = this.#outbox.answered(answer.id);
    if (taker === undefined) return;
    if (!(taker instanceof Pending)) {
      this.#answerControl(taker, answer.body);
      return;
    }
    if (taker.phase === 'done') return;
    if (answer.body.kind === 'failed') {
      this.#answeredFailure(taker, answer.body.failure);
      return;
    }
    this.#finish(taker);
    taker.succeed(answer.body);
  }

  #answeredFailure(pending: Pending, failure: Failure): void {
    if (pending.content.kind === 'write') {
      if (failure.code === 'STALE_REQUEST') {
        this.#settleFailed(pending, outcomeUnknown('its answer was forgotten by the cluster'));
        return;
      }
      if (failure.code === 'SESSION_EXPIRED') {
        this.#writeWithoutSession(pending, failure);
        return;
      }
    }
    if (isTransient(failure) || (failure.code === 'TIMED_OUT' && pending.deadlineAtMs === Infinity)) {
      pending.answerLost ||= failure.code === 'TIMED_OUT';
      this.#retryLater(pending, failure);
      return;
    }
    if (pending.answerLost && saysNothingOfBefore(pending.content, failure)) {
      const why = `${failure.message} (${failure.code}), but it was sent before, and its answer was lost`;
      this.#settleFailed(pending, outcomeUnknown(why, describe(pending.content)));
      return;
    }
    if (failure.code === 'TIMED_OUT') this.#settleFailed(pending, this.#timedOut(pending));
    else this.#settleFailed(pending, errorOf(failure));
  }

  #writeWithoutSession(pending: Pending, failure: Failure): void {
    // An answer from before, when this connection had a session that was lost since: nothing has happened.
    if (this.#session.state.kind !== 'attached') {
      this.#retryLater(pending, failure);
      return;
    }
    const why = 'the session has expired';
    this.#sessionLost(why);
    // Late answers to writes of the lost session could unbind a new one on the same connection.
    this.#connection.recycle(new FuturestoreError('SESSION_EXPIRED', `${why}: a new one is opened`));
  }

  #retryLater(pending: Pending, failure: Failure): void {
    const jitterMs = fullJitter(requestBackoff, pending.retries, this.#environment.random());
    const waitMs = jitterMs + (failure.retryAfterMs ?? 0);
    pending.retries += 1;
    pending.lastFailure = failure;
    pending.phase = 'backing_off';
    pending.retryAtMs = this.#environment.now() + waitMs;
    this.#timers.set(pending, Math.min(pending.retryAtMs, pending.deadlineAtMs));
  }

  #answerControl(control: Control, body: AnswerBody): void {
    const { subscription, request } = control;
    if (subscription !== undefined) {
      if (this.#subscribed.get(request.id) !== subscription) return;
      if (body.kind === 'subscribed') subscription.subscribed(body.position, body.reset);
      else if (body.kind === 'failed') this.#subscriptionFailed(subscription, body.failure);
      return;
    }
    if (request.body.kind === 'authenticate') {
      if (body.kind === 'failed') this.#renewal.refused(body.failure.message);
      return;
    }
    if (request.body.kind === 'open_session') this.#sessionAnswered(request, body);
    else if (this.#closing !== undefined && request.id === this.#closing.sessionRequest) {
      this.#connection.close(clientClosed());
    }
  }

  // ---- the session

  #sessionAnswered(request: Request, body: AnswerBody): void {
    const { state } = this.#session;
    if (state.kind !== 'opening' || state.request !== request.id) return;
    if (body.kind === 'session_opened') {
      this.#sessionRetries = 0;
      this.#session.opened();
      this.#options.session?.opened(state.identity.id);
      return;
    }
    if (body.kind !== 'failed') return;
    const { failure } = body;
    if (failure.code === 'SESSION_EXPIRED' && state.identity.confirmed) {
      this.#sessionLost('the session has expired');
    } else if (isTransient(failure) || failure.code === 'TIMED_OUT') {
      this.#session.postponed();
      this.#retrySession(failure.retryAfterMs);
    } else this.#sessionRefused(errorOf(failure));
  }

  /** Writes that were sent may have happened; the others go under a new session. */
  #sessionLost(why: string): void {
    this.#forgetSession(new FuturestoreError('SESSION_EXPIRED', why));
    const sent = this.#outbox.unansweredWrites;
    this.#options.logger?.warn(
      { unanswered: sent.length },
      `${why}: pending futures tied to it are rejected`,
    );
    for (const pending of sent) {
      this.#withdraw(pending);
      this.#settleFailed(pending, outcomeUnknown(why));
    }
    this.#scheduleFlush();
  }

  #retrySession(notBeforeMs = 0): void {
    const jitterMs = fullJitter(requestBackoff, this.#sessionRetries, this.#environment.random());
    this.#sessionRetries += 1;
    this.#timers.set(this.#sessionRetry, this.#environment.now() + notBeforeMs + jitterMs);
  }

  #forgetSession(why: FuturestoreError): void {
    const { id } = this.#session;
    this.#session.lost();
    if (id !== undefined) this.#options.session?.lost(id, why);
  }

  /** There can be no session: no write is possible now. */
  #sessionRefused(error: FuturestoreError): void {
    this.#forgetSession(error);
    if (this.#options.session !== undefined) this.#retrySession();
    for (const pending of this.#pending) {
      if (pending.content.kind !== 'write') continue;
      this.#withdraw(pending);
      this.#settleFailed(pending, pending.sequence !== 0 ? outcomeUnknown(error.message) : error);
    }
  }

  // ---- endings

  #finish(pending: Pending): void {
    pending.finish();
    this.#pending.delete(pending);
    this.#timers.clear(pending);
    this.#outbox.forget(pending);
  }

  #settleFailed(pending: Pending, error: FuturestoreError): void {
    if (pending.phase === 'done') return;
    this.#finish(pending);
    pending.fail(error);
    if (this.#closing !== undefined) this.#closeWhenIdle();
  }

  /** Tells the server that the answer is not wanted any more. */
  #withdraw(pending: Pending): void {
    if (pending.phase === 'in_flight') this.#control({ kind: 'cancel', request: pending.id });
  }

  #armDeadline(pending: Pending): void {
    if (pending.deadlineAtMs !== Infinity) this.#timers.set(pending, pending.deadlineAtMs);
  }

  #timedOut(pending: Pending): FuturestoreError {
    const state = this.#connection.state;
    const endpoints = this.#options.endpoints.length;
    return notAnswered(pending, { state, endpoints, everConnected: this.#everConnected });
  }

  #subscriptionFailed(subscription: Subscription, failure: Failure): void {
    this.#subscribed.delete(subscription.request);
    if (!isTransient(failure)) {
      this.#subscriptions.delete(subscription);
      subscription.failed(failure);
      return;
    }
    subscription.detach();
    const jitterMs = fullJitter(requestBackoff, subscription.retries, this.#environment.random());
    const waitMs = jitterMs + (failure.retryAfterMs ?? 0);
    subscription.retries += 1;
    this.#timers.set(subscription, this.#environment.now() + waitMs);
  }

  #endSubscription(subscription: Subscription, error: FuturestoreError | undefined): void {
    this.unsubscribe(subscription, true);
    subscription.end(error);
  }

  /** The steps of `close`: wait for answers, end the session, close the connection. */
  #closeWhenIdle(): void {
    const closing = this.#closing;
    if (closing === undefined || closing.sessionRequest !== 0 || this.#pending.size > 0) return;
    if (this.#session.state.kind === 'attached' && this.#options.session === undefined) {
      closing.sessionRequest = this.#control({ kind: 'close_session' });
      if (closing.sessionRequest !== 0) {
        this.#timers.set(this.#closeDeadline, this.#environment.now() + closeSessionTimeoutMs);
        return;
      }
    }
    this.#connection.close(clientClosed());
  }
}

const isTransient = (failure: Failure): boolean =>
  failure.code === 'UNAVAILABLE' || failure.code === 'TOO_MANY_REQUESTS' || failure.code === 'RATE_LIMITED';
