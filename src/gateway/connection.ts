/** One agent's connection from its hello to its end: what it may ask, what is in flight, what it follows. */
import type { RawData } from 'ws';
import { FuturestoreError, closeCodes, limits as protocolLimits } from '../protocol/index.ts';
import type { Failure, FrameCodec, Hello, ReceivedClientFrame, Request } from '../protocol/index.ts';
import type { Scope } from '../scopes/index.ts';
import type { ConnectionId, GatewayEvent, GatewayNotice, GatewayRequest } from '../server/index.ts';
import { Audit } from './audit.ts';
import { refusalOf } from './authorise.ts';
import { closeReason } from './close-reason.ts';
import type { AgentStream, AgentWebSocket } from './door.ts';
import { Flights, firstSessionNumber, flights } from './flights.ts';
import type { Identity } from './identity.ts';
import { Outbox } from './outbox.ts';
import type { OutboxOwner } from './outbox.ts';
import type { GatewaySetup } from './settings.ts';

/** What a connection asks of its gateway. */
export interface ConnectionOwner {
  notify(notice: GatewayNotice): void;
  saidHello(connection: AgentConnection): void;
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
  readonly identity: Identity;
  readonly scope: Scope;
  readonly setup: GatewaySetup;
  readonly owner: ConnectionOwner;
}

/** The WebSocket's own framing of a hello, even in small fragments. */
const framingSlackBytes = 1024;

/** Of one connection: each holds about 256 KiB of the state, or one large value, until it has been sent. */
const snapshotReadsMax = 2;

const openFirst = 'open a session first (open_session), writes and close_session belong to one';
const openAgain = 'the session of this connection could not be opened: open it again (open_session)';

export class AgentConnection implements OutboxOwner {
  readonly id: ConnectionId;
  readonly principal: string;
  readonly acceptedAtMs: number;
  readonly #ws: AgentWebSocket;
  readonly #socket: AgentStream;
  readonly #codec: FrameCodec;
  readonly #expiresAtMs: number;
  readonly #scope: Scope;
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
  /** What heartbeats said last. */
  #servedRevision = 0;
  #session: string | undefined;
  /** Counts the sessions that this connection had, so that late answers to one don't end the next. */
  #sessionNumber = firstSessionNumber;
  /** Whose loss is to be told when the connection ends, even if its opening was given up here. */
  #sessionToDetach: string | undefined;

  constructor(parts: ConnectionParts) {
    const { id, ws, socket, codec, identity, scope, setup, owner } = parts;
    const nowMs = setup.clock.nowMs();
    this.id = id;
    this.principal = `${identity.realm}:${identity.name}`;
    this.acceptedAtMs = nowMs;
    this.#heardAtMs = nowMs;
    this.#ws = ws;
    this.#socket = socket;
    this.#codec = codec;
    this.#expiresAtMs = identity.expiresAtMs;
    this.#scope = scope;
    this.#setup = setup;
    this.#owner = owner;
    this.#audit = new Audit(setup, id, this.principal);
    this.#outbox = new Outbox(ws, codec, setup.limits, this, nowMs);
    this.#listen();
  }

  get greeted(): boolean {
    return this.#hello !== undefined;
  }

  /** Takes what the server says to this connection; `flush` sends it. */
  take(event: GatewayEvent): void {
    if (this.#endedWith !== undefined) return;
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
    if (this.#endedWith !== undefined) return;
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
    if (wallMs >= this.#expiresAtMs) {
      this.close(closeCodes.authenticationExpired, "the client's certificate has expired: renew it");
      return;
    }
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
    this.#end(1006);
    this.#ws.terminate();
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
    if (this.#endedWith !== undefined) return;
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
    if (frame === undefined || !this.#greet(frame)) return;
    this.#handle(frame);
    this.flush();
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
          requestsInFlightMax: limits.requestsInFlightMax,
          subscriptionsMax: limits.subscriptionsMax,
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
    if (this.#isTaken(id)) {
      const message = `request id ${id} is in flight or names a subscription: use another, 1 up to 2^53-1`;
      return this.#refuse(id, { code: 'PROTOCOL_ERROR', message }, body.kind);
    }
    const { requestsInFlightMax } = this.#setup.limits;
    if (this.#inFlight.size >= requestsInFlightMax) {
      const message = `${requestsInFlightMax} requests are in flight, as many as a connection may have: wait for answers`;
      return this.#refuse(id, { code: 'TOO_MANY_REQUESTS', message }, body.kind);
    }
    const refusal = refusalOf(body, this.#scope, this.principal);
    if (refusal !== undefined) return this.#refuse(id, refusal.failure, refusal.verb, refusal.key);
    return this.#toServer(request);
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
      case 'status':
      case 'member_list':
      case 'member_add':
      case 'member_promote':
      case 'member_remove':
      case 'transfer_leader':
        this.#inFlight.begin(id, flights.plain);
        return { ...base, ...body };
      case 'snapshot_read':
        return this.#readSnapshot(base, body);
      case 'cancel':
        throw new Error('cancel is handled apart');
      default:
        return body satisfies never;
    }
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
    return { ...base, kind: 'session_open', session, principal: this.principal, graceMs, resume };
  }

  #readSnapshot(
    base: { readonly connection: ConnectionId; readonly request: number; readonly timeoutMs?: number },
    body: Extract<Request['body'], { kind: 'snapshot_read' }>,
  ): GatewayRequest | undefined {
    if (this.#inFlight.snapshotReads >= snapshotReadsMax) {
      const message = `${snapshotReadsMax} parts of snapshots are on their way to this connection, as many as may be: wait for one`;
      return this.#refuse(base.request, { code: 'TOO_MANY_REQUESTS', message }, body.kind);
    }
    this.#inFlight.beginSnapshotRead(base.request);
    return { ...base, ...body };
  }

  #subscribe(id: number, body: Extract<Request['body'], { kind: 'subscribe' }>): GatewayRequest | undefined {
    const { subscriptionsMax } = this.#setup.limits;
    if (this.#subscriptions.size + this.#inFlight.subscribing >= subscriptionsMax) {
      const message = `the connection has ${subscriptionsMax} subscriptions, as many as it may: cancel one, or put more patterns into one`;
      return this.#refuse(id, { code: 'LIMIT_EXCEEDED', message }, body.kind);
    }
    this.#inFlight.begin(id, flights.subscribing);
    return { connection: this.id, request: id, ...body };
  }

  #refuseWithoutSession(id: number, kind: string): undefined {
    // It was sent before its client could know that the opening has failed.
    const failure: Failure =
      this.#sessionToDetach === undefined
        ? { code: 'INVALID_ARGUMENT', message: openFirst }
        : { code: 'SESSION_EXPIRED', message: openAgain };
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

  #takeAnswer(event: Extract<GatewayEvent, { kind: 'answer' }>): void {
    const { request, body } = event;
    const flight = this.#inFlight.answered(request);
    // Cancelled meanwhile.
    if (flight === undefined) return;
    if (body.kind === 'subscribed') {
      this.#subscriptions.set(request, body.position.revision);
    } else if (body.kind === 'session_closed') {
      if (flight === this.#sessionNumber) this.#forgetSession();
    } else if (body.kind === 'failed') {
      this.#setup.metrics.refused(body.failure.code);
      // A write may be applied before the opening that it followed, which was lost on its way and is sent again.
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
    this.#outbox.add({ kind: 'ended', subscription, revision, failure });
  }

  #isTaken(request: number): boolean {
    return this.#inFlight.has(request) || this.#subscriptions.has(request);
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
    this.#outbox.clear();
    this.#inFlight.clear();
    this.#subscriptions.clear();
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

const asBuffer = (data: RawData): Buffer => {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
};
