/** One agent's connection from its hello to its end: what it may ask, what is in flight, what it follows. */
import type { RawData } from 'ws';
import { FuturestoreError, closeCodes, denied, limits as protocolLimits } from '../protocol/index.ts';
import type { Failure, FrameCodec, Hello, ReceivedClientFrame, Request } from '../protocol/index.ts';
import { canonicalJson } from '../scopes/index.ts';
import type { Scope, ScopeLimits } from '../scopes/index.ts';
import type {
  ConnectionEvent,
  ConnectionId,
  GatewayNotice,
  GatewayRequest,
  Subject,
} from '../server/index.ts';
import { checkDocument } from './access.ts';
import type { AccessInForce } from './access.ts';
import { Audit } from './audit.ts';
import { refusalOf } from './authorise.ts';
import { closeReason } from './close-reason.ts';
import { Authentication } from './authentication.ts';
import type { AuthenticationOwner } from './authentication.ts';
import type { AgentStream, AgentWebSocket, Identify, IdentityJudge } from './door.ts';
import { Flights, firstSessionNumber, flights } from './flights.ts';
import type { Identity } from './identity.ts';
import { Outbox } from './outbox.ts';
import type { OutboxOwner } from './outbox.ts';
import type { GatewaySetup } from './settings.ts';

/** What a connection asks of its gateway. */
export interface ConnectionOwner {
  notify(notice: GatewayNotice): void;
  saidHello(connection: AgentConnection): void;
  /** Who may do what now. */
  readonly access: AccessInForce;
  /** Milliseconds until the principal may make one more request; 0: it may, and it counts. */
  rateWaitMs(principal: string, perSecond: number): number;
  /** It is known who it is: calls `become`, or closes it. */
  identified(connection: AgentConnection, identity: Identity): void;
  /** Its socket has so much unsent that it is to be looked at every second; until `relieved`. */
  congested(connection: AgentConnection): void;
  relieved(connection: AgentConnection): void;
  ended(connection: AgentConnection): void;
}

export interface ConnectionParts {
  readonly id: ConnectionId;
  readonly ws: AgentWebSocket;
  readonly socket: AgentStream;
  readonly codec: FrameCodec;
  readonly judge: IdentityJudge;
  readonly identify: Identify | undefined;
  readonly setup: GatewaySetup;
  readonly owner: ConnectionOwner;
}

/** The WebSocket's own framing of a hello, even in small fragments. */
const framingSlackBytes = 1024;

/** Of one connection: each holds about 256 KiB of the state, or one large value, until it has been sent. */
const snapshotReadsMax = 2;

const openAgain = 'the session could not be opened: open it again (open_session), then send this again';
const openFirst = 'open a session first (open_session), writes and close_session belong to one';

export class AgentConnection implements OutboxOwner {
  readonly id: ConnectionId;
  readonly acceptedAtMs: number;
  readonly #ws: AgentWebSocket;
  readonly #socket: AgentStream;
  readonly #codec: FrameCodec;
  readonly #authentication: Authentication;
  /** Undefined until it is known who it is. */
  #scope: Scope | undefined;
  #limits: ScopeLimits | undefined;
  /** By what `scope` was made. */
  #access: AccessInForce | undefined;
  /** Frames that came while the token in hello is being verified, hello's own first. */
  #held: ReceivedClientFrame[] | undefined;
  readonly #setup: GatewaySetup;
  readonly #owner: ConnectionOwner;
  readonly #audit: Audit;
  readonly #outbox: Outbox;
  #hello: Hello | undefined;
  #endedWith: number | undefined;
  #rawBytesBeforeHello = 0;
  #heardAtMs: number;
  #paused = false;
  #watched = false;
  #sentAway = false;
  readonly #inFlight = new Flights();
  /** Live ones: the id of the request that made it → the revision up to which it has been sent. */
  readonly #subscriptions = new Map<number, number>();
  /** Of the same: what it asked for. */
  readonly #followed = new Map<number, readonly string[]>();
  /** What heartbeats said last. */
  #servedRevision = 0;
  #session: string | undefined;
  /** Counts the sessions that this connection had, so that late answers to one don't end the next. */
  #sessionNumber = firstSessionNumber;
  /** Whose loss is to be told when the connection ends, even if its opening was given up here. */
  #sessionToDetach: string | undefined;

  constructor(parts: ConnectionParts) {
    const { id, ws, socket, codec, judge, identify, setup, owner } = parts;
    const nowMs = setup.clock.nowMs();
    this.id = id;
    this.acceptedAtMs = nowMs;
    this.#heardAtMs = nowMs;
    this.#ws = ws;
    this.#socket = socket;
    this.#codec = codec;
    this.#authentication = new Authentication(setup, judge, identify, this.#authenticated());
    this.#setup = setup;
    this.#owner = owner;
    this.#audit = new Audit(setup, id);
    this.#outbox = new Outbox(ws, codec, setup.limits, this, nowMs);
    this.#listen();
  }

  get ended(): boolean {
    return this.#endedWith !== undefined;
  }

  get greeted(): boolean {
    return this.#hello !== undefined;
  }

  /** 'realm:name'; 'nobody' before that is known. */
  get principal(): string {
    return this.#authentication.principal;
  }

  get identity(): Identity | undefined {
    return this.#authentication.identity;
  }

  /** Who it is, and what that one may do; also when either has changed. */
  become(identity: Identity, scope: Scope): void {
    const before = this.identity;
    this.#authentication.become(identity);
    this.#audit.principal = this.principal;
    this.#scope = scope;
    this.#limits = scope.limits;
    this.#access = this.#owner.access;
    if (before === undefined) return;
    const subject = subjectOf(identity);
    if (this.#session !== undefined && canonicalJson(subject) !== canonicalJson(subjectOf(before)))
      this.#owner.notify({ kind: 'identified', connection: this.id, subject });
    this.#withdraw(scope);
  }

  /**
   * Policies or revocations may have changed since this connection was looked at: what it may not have any more is ended
   * before anything is sent or taken. Whether it may go on.
   */
  review(): boolean {
    if (this.#endedWith !== undefined) return false;
    const { identity } = this;
    if (identity !== undefined && this.#access !== this.#owner.access) this.#owner.identified(this, identity);
    return !this.ended;
  }

  /** Its credential has been revoked. What its socket has not sent yet cannot be taken back from it, only ended. */
  revoke(): void {
    if (this.#endedWith !== undefined) return;
    this.#setup.logger.warn(
      { audit: 'revoked', connection: this.id, principal: this.principal },
      'a connection with a revoked credential is closed',
    );
    if (this.#outbox.unsent) this.#cut(closeCodes.revoked);
    else this.close(closeCodes.revoked, 'the credential is revoked');
  }

  /** Ends what is in flight or followed and no longer allowed. */
  #withdraw(scope: Scope): void {
    let withdrawn = false;
    for (const [request, body] of this.#inFlight.reads) {
      const refusal = refusalOf(body, scope, this.principal);
      if (refusal === undefined) continue;
      withdrawn = true;
      const { failure, verb, key } = refusal;
      this.#audit.refused({ failure, verb, key });
      if (this.#inFlight.answered(request) === undefined) {
        this.#outbox.refuse(request, failure);
      } else {
        this.#owner.notify({ kind: 'cancel', connection: this.id, request });
        this.#inFlight.over(request);
        this.#outbox.add({ kind: 'own_answer', request, body: { kind: 'failed', failure } });
      }
    }
    for (const [subscription, patterns] of this.#followed) {
      const refused = patterns.find((pattern) => !scope.allowsPattern('subscribe', pattern));
      if (refused === undefined) continue;
      withdrawn = true;
      const { failure, verb, key } = denied('subscribe', refused, this.principal);
      this.#audit.refused({ failure, verb, key });
      this.#owner.notify({ kind: 'cancel', connection: this.id, request: subscription });
      const bytes = this.#outbox.withdraw(subscription);
      if (bytes > 0) this.pushesTaken(bytes);
      this.#endSubscription(subscription, failure);
    }
    // It may be of what was withdrawn, and cannot be taken back.
    if (withdrawn && this.#outbox.unsent) this.#cut(1006);
  }

  /** Nothing more leaves, not even what the socket has. */
  #cut(code: number): void {
    this.#end(code);
    this.#ws.terminate();
  }

  /** Takes what the server says to this connection; `flush` sends it. */
  take(event: ConnectionEvent): void {
    if (!this.review()) return;
    switch (event.kind) {
      case 'answer':
        this.#takeAnswer(event);
        return;
      case 'push':
        if (this.#subscriptions.has(event.subscription)) this.#outbox.add(event);
        // Cancelled meanwhile: its bytes are given back all the same, they are counted by connection.
        else this.pushesTaken(event.bytes);
        return;
      case 'ended':
        this.#endSubscription(event.subscription, event.failure);
        return;
      default:
        event satisfies never;
    }
  }

  /** Sends what there is room for, and reads on or stops reading accordingly. */
  flush(): void {
    if (!this.review()) return;
    try {
      this.#outbox.flush();
      this.#watch();
      this.#readOnOrPause();
    } catch (error) {
      this.#broken(error);
    }
  }

  /** Once a second while congested. */
  checkStalled(nowMs: number): void {
    this.flush();
    if (this.#endedWith !== undefined || !this.#outbox.stalled(nowMs)) return;
    const seconds = Math.round((nowMs - this.#outbox.progressAtMs) / 1000);
    const resume =
      this.#subscriptions.size === 0
        ? 'connect again and read faster'
        : `resume from revision ${this.#sentRevision()}`;
    this.close(closeCodes.slowConsumer, `slow consumer: nothing was read for ${seconds} s; ${resume}`);
  }

  checkHello(nowMs: number): void {
    if (nowMs - this.acceptedAtMs < this.#setup.limits.helloMs) return;
    this.close(
      closeCodes.helloTimeout,
      `no hello came within ${this.#setup.limits.helloMs} ms: send it at once`,
    );
  }

  heartbeat(nowMs: number, wallMs: number): void {
    if (this.#endedWith !== undefined) return;
    if (!this.review()) return;
    this.#authentication.check(wallMs);
    if (this.ended) return;
    // While nothing is read no pong can be seen; then only standstill counts.
    const aliveAtMs = Math.max(this.#heardAtMs, this.#outbox.progressAtMs);
    if (!this.#paused && nowMs - aliveAtMs >= this.#setup.limits.silenceMs) {
      this.close(closeCodes.noPong, `no pong for ${Math.round((nowMs - aliveAtMs) / 1000)} s`);
      return;
    }
    if (this.#outbox.congested) return;
    try {
      this.#ws.ping();
      this.#sendProgress();
    } catch (error) {
      this.#broken(error);
    }
  }

  /** It has been asked to go elsewhere. */
  get sentAway(): boolean {
    return this.#sentAway;
  }

  goaway(graceMs: number, reason: string): void {
    if (this.#endedWith !== undefined || !this.greeted) return;
    this.#sentAway = true;
    this.#outbox.sendNow({ answers: [], pushes: [], goaway: { graceMs, reason } });
  }

  /** Ends the connection; nothing of what waits is sent any more. */
  close(code: number, reason: string): void {
    if (this.#endedWith !== undefined) return;
    this.#setup.logger.info(
      { connection: this.id, principal: this.principal, code, reason },
      'closing a connection',
    );
    // The other side's close frame is to be read.
    this.#ws.resume();
    this.#ws.close(code, closeReason(reason));
    this.#end(code);
  }

  /** Without a word to the other side. */
  terminate(): void {
    this.#cut(1006);
  }

  answerSent(request: number): void {
    this.#inFlight.over(request);
  }

  pushSent(subscription: number, revision: number): void {
    if (this.#subscriptions.has(subscription)) this.#subscriptions.set(subscription, revision);
  }

  pushesTaken(bytes: number): void {
    this.#owner.notify({ kind: 'delivered', connection: this.id, bytes });
  }

  #listen(): void {
    this.#ws.on('message', (data, isBinary) => {
      try {
        this.#received(data, isBinary);
      } catch (error) {
        this.#broken(error);
      }
    });
    this.#ws.on('pong', () => {
      this.#heardAtMs = this.#setup.clock.nowMs();
    });
    this.#ws.on('close', (code) => this.#end(code));
    this.#ws.on('error', (error) => {
      // ws has closed, or is about to, with the code that fits (1002, 1007, 1009 …).
      this.#setup.logger.info(
        { connection: this.id, principal: this.principal, problem: error.message },
        'a connection broke the WebSocket protocol or was lost',
      );
    });
    this.#socket.on('drain', () => this.flush());
    // After ws's own listener: by then it has handed out the messages that are complete.
    this.#socket.on('data', this.#countBeforeHello);
  }

  /** ws has one limit for all messages of a connection; before hello this one is nearer. */
  readonly #countBeforeHello = (chunk: Uint8Array): void => {
    if (this.#hello !== undefined) return;
    this.#rawBytesBeforeHello += chunk.length;
    if (this.#rawBytesBeforeHello > this.#setup.limits.frameBytesBeforeHelloMax + framingSlackBytes) {
      this.#refuseLargeHello();
    }
  };

  #refuseLargeHello(): void {
    this.close(
      closeCodes.frameTooLarge,
      `the first frame may have ${this.#setup.limits.frameBytesBeforeHelloMax} bytes: send hello alone, then the rest`,
    );
  }

  #received(data: RawData, isBinary: boolean): void {
    if (!this.review()) return;
    this.#heardAtMs = this.#setup.clock.nowMs();
    const bytes = asBuffer(data);
    if (isBinary !== this.#codec.binary) {
      const wanted = this.#codec.binary ? 'binary' : 'text';
      this.#violated(`${this.#codec.subprotocol} has ${wanted} messages only`);
      return;
    }
    if (this.#hello === undefined && bytes.length > this.#setup.limits.frameBytesBeforeHelloMax) {
      this.#refuseLargeHello();
      return;
    }
    const frame = this.#decode(bytes);
    if (frame === undefined || this.#hold(frame) || !this.#greet(frame)) return;
    this.#handle(frame);
    this.flush();
  }

  /** Whether the frame waits for the token in hello. What it may hold is bounded as all that comes before hello is. */
  #hold(frame: ReceivedClientFrame): boolean {
    if (this.#held !== undefined) {
      this.#held.push(frame);
      return true;
    }
    const token = this.#hello === undefined ? frame.hello?.token : undefined;
    if (token === undefined) return false;
    this.#held = [frame];
    this.#ws.pause();
    this.#authentication.greet(token, () => this.#release());
    return true;
  }

  #release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const frame of held) {
      // What came before may have ended it.
      if (this.#endedWith !== undefined || !this.#greet(frame)) return;
      this.#handle(frame);
    }
    this.#ws.resume();
  }

  #authenticated(): AuthenticationOwner {
    return {
      identified: (identity) => this.#owner.identified(this, identity),
      expiring: (remainingMs) =>
        this.#outbox.sendNow({ answers: [], pushes: [], authExpiring: { remainingMs } }),
      renewed: (request, expiresInMs) => {
        this.#setup.logger.info({ connection: this.id, principal: this.principal }, 'a token was renewed');
        this.#outbox.add({ kind: 'own_answer', request, body: { kind: 'authenticated', expiresInMs } });
      },
      refuse: (request, failure) => this.#refuse(request, failure, 'authenticate'),
      close: (code, reason) => this.close(code, reason),
      later: (work) => {
        if (this.#endedWith !== undefined) return;
        try {
          work();
          this.flush();
        } catch (error) {
          this.#broken(error);
        }
      },
    };
  }

  #decode(bytes: Buffer): ReceivedClientFrame | undefined {
    try {
      return this.#codec.decodeClientFrame(bytes);
    } catch (error) {
      if (!(error instanceof FuturestoreError)) throw error;
      this.#violated(error.message);
      return undefined;
    }
  }

  /** Whether the frame's requests may be looked at. */
  #greet({ hello }: ReceivedClientFrame): boolean {
    if (this.#hello !== undefined) {
      if (hello === undefined) return true;
      this.#violated('a second hello: only the first frame has one');
      return false;
    }
    if (hello === undefined) {
      this.#violated('the first frame has no hello: send it before, or with, the first requests');
      return false;
    }
    if (this.#scope === undefined) {
      const reason = 'the client has no certificate, and hello no token: connect with either';
      this.close(closeCodes.unauthenticated, reason);
      return false;
    }
    this.#hello = hello;
    this.#socket.off('data', this.#countBeforeHello);
    this.#owner.saidHello(this);
    this.#welcome(hello);
    return true;
  }

  #welcome(hello: Hello): void {
    const { port, limits } = this.#setup;
    const { clusterId, epoch, serverId, serverName, endpoints } = port.identity;
    this.#outbox.sendNow({
      welcome: {
        clusterId,
        epoch,
        revision: port.revision(),
        serverId,
        serverName,
        principal: this.principal,
        limits: {
          frameBytesMax: limits.frameBytesMax,
          valueBytesMax: protocolLimits.valueBytesMax,
          requestsInFlightMax: this.#requestsInFlightMax,
          subscriptionsMax: this.#subscriptionsMax,
          operationsPerWriteMax: protocolLimits.operationsPerWriteMax,
        },
        endpoints,
      },
      answers: [],
      pushes: [],
    });
    this.#setup.logger.info(
      {
        connection: this.id,
        principal: this.principal,
        client: hello.clientName,
        version: hello.clientVersion,
      },
      'an agent connected',
    );
  }

  #handle({ requests }: ReceivedClientFrame): void {
    const admitted: GatewayRequest[] = [];
    let cancels: (readonly [id: number, target: number])[] | undefined;
    for (const request of requests) {
      if ('refused' in request) {
        this.#refuse(request.id, request.refused, 'malformed');
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

  /** What to ask of the server; undefined: the request has been answered here. */
  #admit(request: Request): GatewayRequest | undefined {
    const { id, body } = request;
    if (this.#isTaken(id)) return this.#refuseTaken(id, body.kind);
    const requestsInFlightMax = this.#requestsInFlightMax;
    if (this.#inFlight.size >= requestsInFlightMax) {
      const message = `${requestsInFlightMax} requests are in flight, as many as a connection may have: wait for answers`;
      return this.#refuse(id, { code: 'TOO_MANY_REQUESTS', message }, body.kind);
    }
    const limited = this.#rateRefusal();
    if (limited !== undefined) return this.#refuse(id, limited, body.kind);
    if (this.#scope === undefined) throw new Error('a request was looked at before it was known whose it is');
    const refusal = refusalOf(body, this.#scope, this.principal);
    if (refusal !== undefined) return this.#refuse(id, refusal.failure, refusal.verb, refusal.key);
    return this.#toServer(request);
  }

  get #requestsInFlightMax(): number {
    return Math.min(this.#setup.limits.requestsInFlightMax, this.#limits?.requestsInFlight ?? Infinity);
  }

  get #subscriptionsMax(): number {
    return Math.min(this.#setup.limits.subscriptionsMax, this.#limits?.subscriptions ?? Infinity);
  }

  #rateRefusal(): Failure | undefined {
    const perSecond = this.#limits?.requestsPerSecond ?? Infinity;
    if (perSecond === Infinity) return undefined;
    const retryAfterMs = this.#owner.rateWaitMs(this.principal, perSecond);
    if (retryAfterMs === 0) return undefined;
    const message = `${this.principal} makes more than ${perSecond} requests a second, as many as its policies allow: wait ${retryAfterMs} ms`;
    return { code: 'RATE_LIMITED', message, retryAfterMs };
  }

  #toServer(request: Request): GatewayRequest | undefined {
    const { id, body, timeoutMs } = request;
    const base = { connection: this.id, request: id, ...(timeoutMs !== undefined && { timeoutMs }) };
    switch (body.kind) {
      case 'open_session':
        return this.#openSession(base, body);
      case 'close_session':
        if (this.#session === undefined) return this.#refuseWithoutSession(id, body.kind);
        this.#inFlight.begin(id, this.#sessionNumber);
        return { ...base, kind: 'session_close', session: this.#session, principal: this.principal };
      case 'write': {
        if (this.#session === undefined) return this.#refuseWithoutSession(id, body.kind);
        this.#inFlight.beginWrite(id, this.#sessionNumber, body.operations);
        const { sequence, answeredBelow, operations } = body;
        const { principal } = this;
        return {
          ...base,
          kind: 'write',
          session: this.#session,
          principal,
          sequence,
          answeredBelow,
          operations,
        };
      }
      case 'subscribe':
        return this.#subscribe(id, body);
      case 'get':
      case 'list':
      case 'await':
      case 'clock':
      case 'status':
      case 'member_list':
      case 'acl_get':
        this.#inFlight.begin(id, flights.plain, body);
        return { ...base, ...body };
      case 'member_add':
      case 'member_promote':
      case 'member_remove':
      case 'transfer_leader':
        this.#audit.asked(body.kind);
        this.#inFlight.begin(id, flights.plain);
        return { ...base, ...body };
      case 'acl_apply':
        return this.#applyPolicies(base, body);
      case 'acl_revoke':
      case 'acl_restore':
        this.#audit.asked(body.kind);
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

  get #subject(): Subject {
    const { identity } = this;
    if (identity === undefined) throw new Error('a request was looked at before it was known whose it is');
    return subjectOf(identity);
  }

  #applyPolicies(
    base: { readonly connection: ConnectionId; readonly request: number; readonly timeoutMs?: number },
    { document, ifRevision, force }: Extract<Request['body'], { kind: 'acl_apply' }>,
  ): GatewayRequest | undefined {
    const { identity } = this;
    if (identity === undefined) throw new Error('a request was looked at before it was known whose it is');
    let checked;
    try {
      checked = checkDocument(document, identity, this.#setup.clock.wallMs());
    } catch (error) {
      if (!(error instanceof FuturestoreError)) throw error;
      const { code, message } = error;
      return this.#refuse(base.request, { code, message }, 'acl.change');
    }
    if (!checked.keepsAuthor && !force) {
      const message = `with these policies ${this.principal} could not change policies any more (acl.change): allow it, or force it`;
      return this.#refuse(base.request, { code: 'ACCESS_REFUSED', message }, 'acl.change');
    }
    this.#audit.asked('acl_apply');
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
    base: { readonly connection: ConnectionId; readonly request: number; readonly timeoutMs?: number },
    body: Extract<Request['body'], { kind: 'open_session' }>,
  ): GatewayRequest | undefined {
    if (this.#session !== undefined) {
      const message =
        'this connection has a session already: close it first (close_session), or connect again';
      return this.#refuse(base.request, { code: 'INVALID_ARGUMENT', message }, body.kind);
    }
    if (this.#sessionToDetach !== undefined && this.#sessionToDetach !== body.session) {
      const message =
        'whether the session that was asked for before has been opened is not known: open the same one again, or connect again';
      return this.#refuse(base.request, { code: 'INVALID_ARGUMENT', message }, body.kind);
    }
    const { session, graceMs, resume } = body;
    this.#session = session;
    this.#sessionToDetach = session;
    this.#sessionNumber += 1;
    this.#inFlight.begin(base.request, flights.opening);
    const { principal } = this;
    return { ...base, kind: 'session_open', session, principal, graceMs, resume, subject: this.#subject };
  }

  #readSnapshot(
    base: { readonly connection: ConnectionId; readonly request: number; readonly timeoutMs?: number },
    body: Extract<Request['body'], { kind: 'snapshot_read' }>,
  ): GatewayRequest | undefined {
    if (this.#inFlight.snapshotReads >= snapshotReadsMax) {
      const message = `${snapshotReadsMax} parts of snapshots are on their way to this connection, as many as may be: wait for one`;
      return this.#refuse(base.request, { code: 'TOO_MANY_REQUESTS', message }, body.kind);
    }
    this.#inFlight.beginSnapshotRead(base.request, body);
    return { ...base, ...body };
  }

  #subscribe(id: number, body: Extract<Request['body'], { kind: 'subscribe' }>): GatewayRequest | undefined {
    const subscriptionsMax = this.#subscriptionsMax;
    if (this.#subscriptions.size + this.#inFlight.subscribing >= subscriptionsMax) {
      const message = `the connection has ${subscriptionsMax} subscriptions, as many as it may: cancel one, or put more patterns into one`;
      return this.#refuse(id, { code: 'LIMIT_EXCEEDED', message }, body.kind);
    }
    this.#inFlight.begin(id, flights.subscribing, body);
    return { connection: this.id, request: id, ...body };
  }

  #refuseTaken(id: number, kind: string): undefined {
    const message = `request id ${id} is in flight or names a subscription: use another, 1 up to 2^53-1`;
    return this.#refuse(id, { code: 'PROTOCOL_ERROR', message }, kind);
  }

  #refuseWithoutSession(id: number, kind: string): undefined {
    // It may have been sent before its sender knew that the opening failed: the same again, behind another opening, is right.
    const failure: Failure =
      this.#sessionToDetach === undefined
        ? { code: 'INVALID_ARGUMENT', message: openFirst }
        : { code: 'UNAVAILABLE', message: openAgain };
    return this.#refuse(id, failure, kind);
  }

  #refuse(id: number, failure: Failure, verb: string, key?: string): undefined {
    this.#setup.metrics.refused(failure.code);
    this.#audit.refused({ failure, verb, ...(key !== undefined && { key }) });
    this.#outbox.add({ kind: 'own_answer', request: id, body: { kind: 'failed', failure } });
  }

  #cancel(id: number, target: number): void {
    if (this.#isTaken(id)) {
      const message = `request id ${id} is in flight or names a subscription: give the cancel an id of its own`;
      this.#refuse(id, { code: 'PROTOCOL_ERROR', message }, 'cancel');
      return;
    }
    if (this.#subscriptions.has(target)) {
      this.#owner.notify({ kind: 'cancel', connection: this.id, request: target });
      this.#endSubscription(target, {
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
    this.#owner.notify({ kind: 'cancel', connection: this.id, request: target });
    this.#inFlight.over(target);
    const message = 'the request was cancelled by its client; a write may have happened, or may still happen';
    this.#outbox.add({
      kind: 'own_answer',
      request: target,
      body: { kind: 'failed', failure: { code: 'CANCELLED', message } },
    });
  }

  #takeAnswer(event: Extract<ConnectionEvent, { kind: 'answer' }>): void {
    const { request, body } = event;
    const flight = this.#inFlight.answered(request);
    // Cancelled meanwhile.
    if (flight === undefined) return;
    if (body.kind === 'subscribed') {
      const asked = this.#inFlight.reads.get(request);
      if (asked?.kind === 'subscribe') this.#followed.set(request, asked.patterns);
      this.#subscriptions.set(request, body.position.revision);
    } else if (body.kind === 'session_closed') {
      if (flight === this.#sessionNumber) this.#forgetSession();
    } else if (body.kind === 'failed') {
      this.#setup.metrics.refused(body.failure.code);
      // A write that overtook the opening of its session ends nothing: the opening's answer is to come, and decides.
      const ofSession = flight === this.#sessionNumber && !this.#inFlight.isOpening;
      if (body.failure.code === 'SESSION_EXPIRED' && (ofSession || flight === flights.opening)) {
        this.#forgetSession();
      } else if (flight === flights.opening) {
        // It may have been opened all the same: its end is still told, and the client may ask again.
        this.#session = undefined;
      }
    }
    this.#outbox.add(event);
  }

  #forgetSession(): void {
    this.#session = undefined;
    this.#sessionToDetach = undefined;
  }

  #endSubscription(subscription: number, failure: Failure): void {
    const revision = this.#subscriptions.get(subscription);
    if (revision === undefined) return;
    this.#subscriptions.delete(subscription);
    this.#followed.delete(subscription);
    this.#outbox.add({ kind: 'ended', subscription, revision, failure });
  }

  #isTaken(request: number): boolean {
    return (
      this.#inFlight.has(request) ||
      this.#subscriptions.has(request) ||
      this.#authentication.isRenewedBy(request)
    );
  }

  #sendProgress(): void {
    if (this.#subscriptions.size === 0) return;
    const revision = this.#setup.port.progress(this.id);
    if (revision === undefined) return;
    this.#servedRevision = revision;
    this.#outbox.sendNow({ answers: [], pushes: [], revision });
  }

  /** Up to it every subscription has been sent. */
  #sentRevision(): number {
    return Math.max(this.#servedRevision, Math.min(...this.#subscriptions.values()));
  }

  #watch(): void {
    const congested = this.#outbox.congested;
    if (congested === this.#watched) return;
    this.#watched = congested;
    if (congested) {
      this.#outbox.watchFrom(this.#setup.clock.nowMs());
      this.#owner.congested(this);
    } else {
      this.#owner.relieved(this);
    }
  }

  #readOnOrPause(): void {
    const pause = this.#outbox.full || this.#inFlight.writeBytes > this.#setup.limits.writeBytesInFlightMax;
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) {
      this.#ws.pause();
    } else {
      this.#heardAtMs = this.#setup.clock.nowMs();
      this.#ws.resume();
    }
  }

  #violated(problem: string): void {
    this.#setup.metrics.refused('PROTOCOL_ERROR');
    this.#audit.refused({ failure: { code: 'PROTOCOL_ERROR', message: problem }, verb: 'frame' });
    this.close(closeCodes.protocolError, problem);
  }

  /** A bug here must not end more than this connection. */
  #broken(error: unknown): void {
    this.#setup.logger.error(
      { connection: this.id, principal: this.principal, err: error },
      'a bug: handling a connection failed',
    );
    this.close(1011, 'INTERNAL: a bug in the server, please report it');
  }

  #end(code: number): void {
    if (this.#endedWith !== undefined) return;
    this.#endedWith = code;
    this.#held = undefined;
    this.#outbox.clear();
    this.#inFlight.clear();
    this.#subscriptions.clear();
    this.#followed.clear();
    this.#audit.tellSuppressed();
    if (this.greeted) {
      this.#setup.metrics.connectionClosed(code);
      this.#owner.notify({ kind: 'closed', connection: this.id, session: this.#sessionToDetach });
    } else {
      this.#setup.metrics.turnedAway('hello');
    }
    this.#setup.logger.info({ connection: this.id, principal: this.principal, code }, 'a connection ended');
    this.#owner.ended(this);
  }
}

const subjectOf = ({ principal, credential }: Identity): Subject => ({ principal, credential });

const asBuffer = (data: RawData): Buffer => {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
};
