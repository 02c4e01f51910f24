/** One agent's connection from its hello to its end: its socket, who is there, when it is read and when it is cut. */
import type { RawData } from 'ws';
import { FuturestoreError, closeCodes, reasonWithRetryAfter } from '../protocol/index.ts';
import type { Failure, FrameCodec, Goaway, Hello, ReceivedClientFrame } from '../protocol/index.ts';
import { readsLess } from '../scopes/index.ts';
import type { Scope } from '../scopes/index.ts';
import type { ConnectionEvent, ConnectionId, ServerStanding } from '../server/index.ts';
import type { AccessInForce } from './access.ts';
import type { SessionStanding } from './agent-session.ts';
import { Audit } from './audit.ts';
import { closeReason } from './close-reason.ts';
import { Authentication } from './authentication.ts';
import type { AuthenticationOwner } from './authentication.ts';
import type { AgentStream, AgentWebSocket, Identify, IdentityJudge } from './door.ts';
import type { Identity } from './identity.ts';
import { Outbox } from './outbox.ts';
import type { OutboxOwner } from './outbox.ts';
import { Requests } from './requests.ts';
import type { RequestsOwner } from './requests.ts';
import type { GatewaySetup } from './settings.ts';
import { ShutOut } from './shut-out.ts';
import { drainingSince, hereSince, toldByLevel } from './told-by-level.ts';
import { welcomeOf } from './welcome.ts';

/** What a connection asks of its gateway. */
export interface ConnectionOwner extends RequestsOwner {
  saidHello(connection: AgentConnection): void;
  /** Who may do what now. */
  readonly access: AccessInForce;
  /** What the server has said of itself last. */
  readonly standing: ServerStanding;
  /** It is known who it is: calls `become`, or closes it. */
  identified(connection: AgentConnection, identity: Identity): void;
  /** Its socket has so much unsent that it is to be looked at every second; until `relieved`. */
  congested(connection: AgentConnection): void;
  relieved(connection: AgentConnection): void;
  ended(connection: AgentConnection): void;
  /** It has ended in good order, and its socket still has something: `reviewUnsent` when access changes, until `gone`. */
  emptying(connection: AgentConnection): void;
  /** Its socket is closed. */
  gone(connection: AgentConnection): void;
}

export interface ConnectionParts {
  readonly id: ConnectionId;
  readonly ws: AgentWebSocket;
  readonly socket: AgentStream;
  readonly codec: FrameCodec;
  readonly remote: string | undefined;
  readonly level: number;
  readonly judge: IdentityJudge;
  readonly identify: Identify | undefined;
  readonly setup: GatewaySetup;
  readonly owner: ConnectionOwner;
}

/** The WebSocket's own framing of a hello, even in small fragments. */
const framingSlackBytes = 1024;

export class AgentConnection implements OutboxOwner, AuthenticationOwner {
  readonly id: ConnectionId;
  readonly acceptedAtMs: number;
  /** Up to which additions to the protocol it can be told. */
  readonly level: number;
  readonly #ws: AgentWebSocket;
  readonly #socket: AgentStream;
  readonly #codec: FrameCodec;
  readonly #remote: string | undefined;
  readonly #authentication: Authentication;
  /** By what it was decided what it may do; undefined until it is known who it is. */
  #access: AccessInForce | undefined;
  #admission: 'asked' | 'admitted' | 'none' = 'none';
  /** Frames that came while the token in hello is being verified, hello's own first, or before it is admitted. */
  #held: ReceivedClientFrame[] | undefined;
  readonly #setup: GatewaySetup;
  readonly #owner: ConnectionOwner;
  readonly #audit: Audit;
  readonly #shutOut: ShutOut;
  readonly #outbox: Outbox;
  readonly #requests: Requests;
  #greeted = false;
  /** The one in hello has been verified, or is being verified. */
  #tokenTaken = false;
  #endedWith: number | undefined;
  #rawBytesBeforeHello = 0;
  #heardAtMs: number;
  #paused = false;
  #watched = false;
  #sentAway = false;
  #leavesByMs = -Infinity;

  constructor(parts: ConnectionParts) {
    const { id, ws, socket, codec, remote, level, judge, identify, setup, owner } = parts;
    const nowMs = setup.clock.nowMs();
    this.id = id;
    this.level = level;
    this.acceptedAtMs = nowMs;
    this.#heardAtMs = nowMs;
    this.#ws = ws;
    this.#socket = socket;
    this.#codec = codec;
    this.#remote = remote;
    this.#authentication = new Authentication(setup, judge, identify, this);
    this.#setup = setup;
    this.#owner = owner;
    this.#audit = new Audit(setup, id);
    this.#shutOut = new ShutOut(setup, this, remote);
    this.#outbox = new Outbox(ws, codec, setup.limits, this, nowMs);
    this.#requests = new Requests({
      connection: id,
      setup,
      owner,
      authentication: this.#authentication,
      audit: this.#audit,
      outbox: this.#outbox,
    });
    this.#listen();
  }

  get ended(): boolean {
    return this.#endedWith !== undefined;
  }

  get greeted(): boolean {
    return this.#greeted;
  }

  /** 'realm:name'; 'nobody' before that is known. */
  get principal(): string {
    return this.#authentication.principal;
  }

  get identity(): Identity | undefined {
    return this.#authentication.identity;
  }

  /** It counts among those of its principal. */
  get admitted(): boolean {
    return this.#admission === 'admitted';
  }

  /** Whether its principal may have one more is being asked: frames wait until `admit`. */
  awaitAdmission(): void {
    this.#admission = 'asked';
    this.#held ??= [];
    this.#ws.pause();
  }

  /** `become` has been called. */
  admit(): void {
    const asked = this.#admission === 'asked';
    this.#admission = 'admitted';
    if (asked) this.later(() => this.#release());
  }

  get standing(): SessionStanding {
    return this.#requests.sessionStanding;
  }

  /** Who it is, and what that one may do; also when either has changed. */
  become(identity: Identity, scope: Scope): void {
    const before = this.identity;
    const scopeBefore = this.#requests.scope;
    this.#authentication.become(identity);
    this.#audit.principal = this.principal;
    this.#requests.permit(scope);
    this.#access = this.#owner.access;
    if (before === undefined) return;
    this.#requests.changed(before, identity, scope);
    // It may be of what was lost, and cannot be taken back.
    if (this.#outbox.unsent && scopeBefore !== undefined && readsLess(scopeBefore, scope)) this.#cut(1006);
  }

  /** Its socket has something that has not left. */
  get unsent(): boolean {
    return this.#outbox.unsent;
  }

  /** It has ended, and what its socket has may be nothing for its reader any more. Whether it has anything. */
  reviewUnsent(): boolean {
    const { scope } = this.#requests;
    // Who was never let in was sent nothing.
    if (!this.unsent || scope === undefined) return false;
    const identity = this.#authentication.identityNow;
    const { policies, revocations } = this.#owner.access;
    const mayRead =
      identity !== undefined &&
      revocations.find(identity.credential) === undefined &&
      !readsLess(scope, policies.scopeFor(identity.principal));
    if (mayRead) return true;
    this.#setup.logger.info(
      { connection: this.id, principal: this.principal },
      'a connection that is being closed is cut: what it has unsent may not be read any more',
    );
    this.#ws.terminate();
    return false;
  }

  /**
   * Policies, revocations, or what says who it is, may have changed since this connection was looked at: what it may not
   * have any more is ended before anything is sent or taken. Whether it may go on.
   */
  review(): boolean {
    if (this.#endedWith !== undefined) return false;
    this.#authentication.review();
    const { identity } = this;
    if (this.ended) return false;
    if (identity !== undefined && this.#access !== this.#owner.access) this.#owner.identified(this, identity);
    return !this.ended;
  }

  /** Its credential counts no more. What its socket has not sent yet cannot be taken back from it, only ended. */
  revoke(code: number = closeCodes.revoked, problem = revokedProblem): void {
    if (this.#endedWith !== undefined) return;
    this.#shutOut.tell(code, problem);
    if (this.#outbox.unsent) this.#cut(code);
    else this.close(code, problem);
  }

  /** Who it is does not let it stay. `principal`: 'realm:name', as far as it was proved. */
  turnAway(code: number, problem: string, principal?: string): void {
    if (this.#endedWith !== undefined) return;
    this.#shutOut.tell(code, problem, principal);
    this.close(code, problem);
  }

  /** Its principal has as many connections as it may. */
  turnAwayForLackOfRoom(problem: string): void {
    const code = closeCodes.tooManyConnections;
    this.#shutOut.turnedAway('capacity', code, problem, this.principal);
    this.close(code, reasonWithRetryAfter(this.#setup.limits.retryAfterMs, problem));
  }

  /** Nothing more leaves, not even what the socket has. */
  #cut(code: number): void {
    this.#end(code);
    this.#ws.terminate();
  }

  /** Takes what the server says to this connection; `flush` sends it. */
  take(event: ConnectionEvent): void {
    if (!this.review()) return;
    const mayNeedLess = event.kind === 'answer' && this.level < drainingSince;
    this.#requests.take(mayNeedLess ? { ...event, body: toldByLevel(event.body, this.level) } : event);
  }

  /** Sends what there is room for, and reads on or stops reading accordingly. */
  flush(): void {
    if (!this.review()) return;
    try {
      this.#outbox.flush();
      this.#watch();
      if (!this.#outbox.congested) this.#requests.socketTaken();
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
      this.#requests.subscriptions.size === 0
        ? 'connect again and read faster'
        : `resume from revision ${this.#requests.subscriptions.sentRevision}`;
    this.close(closeCodes.slowConsumer, `slow consumer: nothing was read for ${seconds} s; ${resume}`);
  }

  checkHello(nowMs: number): void {
    if (nowMs - this.acceptedAtMs < this.#setup.limits.helloMs) return;
    this.close(
      closeCodes.helloTimeout,
      `no hello came within ${this.#setup.limits.helloMs} ms: send it at once`,
    );
  }

  /** Whether the server is to be asked how far its subscriptions have come. */
  heartbeat(nowMs: number, wallMs: number): boolean {
    if (!this.review()) return false;
    this.#authentication.check(wallMs);
    // What either has withdrawn is to be told: nothing else may happen here for long.
    this.flush();
    if (this.ended) return false;
    // While nothing is read no pong can be seen; then only standstill counts.
    const aliveAtMs = Math.max(this.#heardAtMs, this.#outbox.progressAtMs);
    if (!this.#paused && nowMs - aliveAtMs >= this.#setup.limits.silenceMs) {
      this.close(closeCodes.noPong, `no pong for ${Math.round((nowMs - aliveAtMs) / 1000)} s`);
      return false;
    }
    if (this.#outbox.congested) return false;
    try {
      this.#ws.ping();
    } catch (error) {
      this.#broken(error);
    }
    return this.#requests.subscriptions.size > 0;
  }

  /** All its subscriptions have been given everything up to this revision, by what it took before. */
  served(revision: number): void {
    if (this.review() && this.#requests.subscriptions.size > 0)
      this.#outbox.add({ kind: 'progress', revision });
  }

  /** It has been asked to go elsewhere. */
  get sentAway(): boolean {
    return this.#sentAway;
  }

  /** It was asked, and has some of its time left. */
  isLeaving(nowMs: number): boolean {
    return nowMs < this.#leavesByMs;
  }

  /** `where`: as far as its level lets it be told. */
  goaway(graceMs: number, reason: string, where: Pick<Goaway, 'endpoints' | 'here'> = {}): void {
    if (this.#endedWith !== undefined || !this.greeted) return;
    this.#sentAway = true;
    this.#leavesByMs = this.#setup.clock.nowMs() + graceMs;
    const { endpoints = [], here } = where;
    const goaway: Goaway = {
      graceMs,
      reason,
      ...(endpoints.length > 0 && this.level >= drainingSince && { endpoints }),
      ...(here && this.level >= hereSince && { here }),
    };
    this.#outbox.sendNow({ answers: [], pushes: [], goaway });
  }

  /** Ends the connection; nothing of what waits is sent any more. */
  close(code: number, reason: string): void {
    if (this.#endedWith !== undefined) return;
    this.#setup.logger.info(
      { connection: this.id, principal: this.principal, code, reason },
      'closing a connection',
    );
    // Before the close frame, which anybody may have.
    const { unsent } = this;
    // The other side's close frame is to be read.
    this.#ws.resume();
    this.#ws.close(code, closeReason(reason));
    this.#end(code);
    if (unsent) this.#owner.emptying(this);
  }

  /** Without a word to the other side. */
  terminate(): void {
    this.#cut(1006);
  }

  answerSent(request: number): void {
    this.#requests.answerSent(request);
  }

  pushSent(subscription: number, revision: number): void {
    this.#requests.subscriptions.sent(subscription, revision);
  }

  progressSent(revision: number): void {
    this.#requests.subscriptions.served(revision);
  }

  pushesTaken(bytes: number): void {
    this.#owner.notify({ kind: 'delivered', connection: this.id, bytes });
  }

  identified(identity: Identity): void {
    this.#owner.identified(this, identity);
  }

  expiring(remainingMs: number): void {
    this.#outbox.sendNow({ answers: [], pushes: [], authExpiring: { remainingMs } });
  }

  renewed(request: number, expiresInMs: number): void {
    this.#setup.logger.info({ connection: this.id, principal: this.principal }, 'a token was renewed');
    this.#outbox.add({ kind: 'own_answer', request, body: { kind: 'authenticated', expiresInMs } });
  }

  refuse(request: number, failure: Failure): void {
    this.#requests.refuse(request, failure, 'authenticate');
  }

  later(work: () => void): void {
    if (this.#endedWith !== undefined) return;
    try {
      work();
      this.flush();
    } catch (error) {
      this.#broken(error);
    }
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
    this.#ws.on('close', (code) => {
      this.#end(code);
      this.#owner.gone(this);
    });
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
    if (this.#greeted) return;
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
    if (!this.#greeted && bytes.length > this.#setup.limits.frameBytesBeforeHelloMax) {
      this.#refuseLargeHello();
      return;
    }
    const frame = this.#decode(bytes);
    if (frame === undefined || this.#hold(frame) || !this.#greet(frame)) return;
    this.#requests.handle(frame);
    this.flush();
  }

  /** Whether the frame waits for the token in hello. What it may hold is bounded as all that comes before hello is. */
  #hold(frame: ReceivedClientFrame): boolean {
    if (this.#held !== undefined) {
      this.#held.push(frame);
      return true;
    }
    const token = this.#greeted || this.#tokenTaken ? undefined : frame.hello?.token;
    if (token === undefined) return false;
    this.#tokenTaken = true;
    this.#held = [frame];
    this.#ws.pause();
    this.#authentication.greet(token, () => this.#release());
    return true;
  }

  #release(): void {
    if (this.#admission === 'asked' || !this.review()) return;
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const frame of held) {
      // What came before may have ended it.
      if (this.#endedWith !== undefined) return;
      if (this.#hold(frame)) continue;
      if (!this.#greet(frame)) return;
      this.#requests.handle(frame);
    }
    if (this.#held === undefined) this.#ws.resume();
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
    if (this.#greeted) {
      if (hello === undefined) return true;
      this.#violated('a second hello: only the first frame has one');
      return false;
    }
    if (hello === undefined) {
      this.#violated('the first frame has no hello: send it before, or with, the first requests');
      return false;
    }
    if (this.identity === undefined) {
      const problem = 'the client has no certificate, and hello no token: connect with either';
      this.turnAway(closeCodes.unauthenticated, problem);
      return false;
    }
    this.#greeted = true;
    this.#socket.off('data', this.#countBeforeHello);
    this.#owner.saidHello(this);
    this.#welcome(hello);
    return true;
  }

  #welcome(hello: Hello): void {
    const { principal } = this;
    const welcome = welcomeOf(this.#setup, this.#owner.standing, principal, this.#requests);
    this.#outbox.sendNow({ welcome, answers: [], pushes: [] });
    this.#setup.logger.info(
      {
        connection: this.id,
        principal,
        client: hello.clientName,
        version: hello.clientVersion,
        remote: this.#remote,
      },
      'an agent connected',
    );
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
    const pause = this.#outbox.full || this.#requests.writeBytes > this.#setup.limits.writeBytesInFlightMax;
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
    this.#requests.clear();
    this.#audit.ended();
    if (this.greeted) {
      this.#setup.metrics.connectionClosed(code);
      this.#owner.notify({ kind: 'closed', connection: this.id, session: this.#requests.sessionToDetach });
    } else if (!this.#shutOut.wasTurnedAway) {
      this.#setup.metrics.turnedAway('hello');
    }
    this.#setup.logger.info({ connection: this.id, principal: this.principal, code }, 'a connection ended');
    this.#owner.ended(this);
  }
}

/** As whoever is closed for it is told. */
export const revokedProblem = 'the credential is revoked';

const asBuffer = (data: RawData): Buffer => {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
};
