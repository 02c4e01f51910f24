/** The client as its users see it: arguments checked, requests made, answers turned into results. */
import { FuturestoreError, helloProblem, limits } from '../protocol/index.ts';
import type {
  AccessState,
  AnswerBody,
  ClusterStatus,
  DrainStanding,
  Future,
  MemberList,
  Operation,
  OperationResult,
  Position,
  Rebalanced,
  Revocation,
  SnapshotReadPart,
  SubscriptionStart,
  Welcome,
  WriteResult,
} from '../protocol/index.ts';
import type { ConnectionState } from './connection-state.ts';
import { Engine } from './engine.ts';
import type { ClientEnvironment, ClientLogger } from './environment.ts';
import { FutureRejectedError, errorOf } from './errors.ts';
import {
  BatchBuilder,
  declareOperation,
  deleteOperation,
  rejectOperation,
  resolveOperation,
  touchOperation,
} from './operations.ts';
import type { ConditionOptions, DeclareOptions, RejectOptions, ResolveOptions, Value } from './operations.ts';
import { unexpectedAnswer } from './requests.ts';
import type { Content, RequestOptions, WriteOptions } from './requests.ts';
import type { LastingSession } from './session.ts';
import { readSnapshotParts, snapshotPartGiven } from './snapshot.ts';
import type { Subscription } from './subscription.ts';
import { tokenProblem } from './tokens.ts';
import type { TokenSource } from './tokens.ts';

export interface ClientOptions {
  /** The servers' addresses: wss://host:port. One connection is held, to any of them. */
  readonly endpoints: readonly string[];
  /** For the servers' logs and status: at most 128 printable ASCII characters. Default "futurestore-client". */
  readonly name?: string;
  /** How long a request may take that does not say so itself, in milliseconds. Default: for ever. */
  readonly timeoutMs?: number;
  /**
   * How long the cluster keeps this client's session without a connection, in milliseconds: after it, pending futures
   * tied to it are rejected with PRODUCER_LOST. 1 s to 24 h; default 60 s.
   */
  readonly sessionGraceMs?: number;
  /** How long one server may take from the first packet to its welcome, in milliseconds. Default 10 s. */
  readonly connectTimeoutMs?: number;
  /**
   * A JWT of a realm: for clients without a certificate, or for what theirs does not say. A function is asked for each
   * connection and again before the token expires; with a text the client is over when that has expired.
   */
  readonly token?: TokenSource;
  readonly logger?: ClientLogger;
  /** One that outlives this process; absent: the client's own, which ends with it. */
  readonly session?: LastingSession;
  /** Told of every change of `state`. */
  readonly onStateChange?: (state: ClientState) => void;
}

/** How the client stands to the cluster. Only `closed` is final. */
export type ClientState =
  | { readonly kind: 'connecting'; readonly endpoint: string }
  | { readonly kind: 'connected'; readonly endpoint: string; readonly server: Welcome }
  /** No server could be had; the next try is at `retryAtMs`, in milliseconds since 1970. */
  | { readonly kind: 'waiting'; readonly retryAtMs: number; readonly lastError: FuturestoreError }
  | { readonly kind: 'closed'; readonly error: FuturestoreError };

export interface GetOptions extends RequestOptions {
  /** Answered by the connected server alone, possibly from the past. Default false: the latest state. */
  readonly stale?: boolean;
}

export interface ListOptions extends GetOptions {
  /** Continue behind this key: the last page's `next`. */
  readonly after?: string;
  /** Futures in the page: 1 to 1000, default 100. A page also ends at 256 KiB. */
  readonly limit?: number;
  /** With values (never those of sensitive futures). Default false. */
  readonly values?: boolean;
}

export interface ListPage {
  readonly futures: readonly Future[];
  /** Pass as `after` for the next page; undefined: this was the last. */
  readonly next: string | undefined;
  readonly revision: number;
}

export interface AwaitOptions extends RequestOptions {
  /** Earlier generations don't count. */
  readonly leastGeneration?: number;
}

/** Sets of keys, of which one is to be wholly resolved. A key alone is a set of one. */
export interface Alternatives {
  readonly anyOf: readonly (string | readonly string[])[];
}

export interface AwaitedAlternative {
  /** Which one (0-based). */
  readonly alternative: number;
  /** In the order of its keys. */
  readonly futures: readonly Future[];
}

export interface SubscribeOptions {
  /** The present state first (default); only what comes after now; or what came after a position. */
  readonly from?: 'present' | 'new' | Position;
  /** Ends the subscription; the iterator throws CANCELLED. */
  readonly signal?: AbortSignal;
}

/** A server to be added. */
export interface NewMember {
  /** The CN of its certificate. */
  readonly name: string;
  /** Where the other servers reach it: 'host:port'. */
  readonly peersAddress: string;
  /** Where agents reach it: 'wss://host:port'. */
  readonly agentsUrl: string;
  /** The id of the member in whose place it comes. */
  readonly replaces?: number;
}

export interface TransferOptions extends RequestOptions {
  /** The id of the server that is to lead. Absent: the one that is most up to date. */
  readonly to?: number;
}

export interface DrainServerOptions extends RequestOptions {
  /** Over which the agents leave, in milliseconds: 1 to an hour. Absent: as long as the others need to take them well. */
  readonly graceMs?: number;
  /** Take agents again. */
  readonly end?: boolean;
}

export interface RebalanceOptions extends RequestOptions {
  /** Over which the agents go, in milliseconds: 1 to an hour. Absent: as long as the others need to take them well. */
  readonly graceMs?: number;
}

export interface ApplyPoliciesOptions extends RequestOptions {
  /** The policies now are of exactly this revision; 0: none have been applied yet. */
  readonly ifRevision?: number;
  /** Also where this client could not change policies any more then. */
  readonly force?: boolean;
}

export interface RevokeOptions extends RequestOptions {
  readonly untilMs?: number;
}

export interface AccessChange {
  /** Of the change, or of the last one where nothing changed. */
  readonly revision: number;
  /** It was already so. */
  readonly unchanged: boolean;
}

export interface CloseOptions {
  /** How long to wait for the answers to requests in flight, in milliseconds. Default 2 s. */
  readonly graceMs?: number;
}

const defaults = { sessionGraceMs: 60_000, connectTimeoutMs: 10_000, closeGraceMs: 2_000 };

/** The package's version speaks for the client in the servers' logs. */
const clientVersion = '0.1.0';

export class Client {
  readonly #engine: Engine;
  readonly #timeoutMs: number | undefined;

  constructor(options: ClientOptions, environment: ClientEnvironment) {
    const { name = 'futurestore-client', onStateChange, logger } = options;
    const { sessionGraceMs = defaults.sessionGraceMs, connectTimeoutMs = defaults.connectTimeoutMs } =
      options;
    checkOptions(options, name);
    this.#timeoutMs = options.timeoutMs;
    this.#engine = new Engine(environment, {
      endpoints: options.endpoints,
      identity: { clientName: name, clientVersion },
      connectTimeoutMs,
      sessionGraceMs,
      token: options.token,
      logger,
      session: options.session,
      changed: (state) => {
        this.#changed(state, onStateChange, logger);
      },
    });
  }

  get state(): ClientState {
    return stateOf(this.#engine.state);
  }

  /** The key's future, whatever its state; undefined: there is none (or this client may not know). */
  async get(key: string, options: GetOptions = {}): Promise<Future | undefined> {
    return this.#request({ kind: 'get', key, stale: options.stale ?? false }, gotten, options);
  }

  /** One page of the futures whose keys match, in the order of keys. */
  async list(pattern: string, options: ListOptions = {}): Promise<ListPage> {
    const { after = '', limit = limits.listPageFuturesDefault, values = false, stale = false } = options;
    return this.#request({ kind: 'list', pattern, after, limit, values, stale }, listed, options);
  }

  /** All pages, one request each; `limit` is a page's. */
  async *listAll(pattern: string, options: ListOptions = {}): AsyncGenerator<Future, void, undefined> {
    let after = options.after;
    do {
      const page: ListPage = await this.list(pattern, after === undefined ? options : { ...options, after });
      yield* page.futures;
      after = page.next;
    } while (after !== undefined);
  }

  /**
   * Waits until the key is resolved and fresh: also for a key that nobody has declared yet. One key gives its future,
   * several give theirs in their order, `{anyOf}` gives the first alternative that is wholly resolved.
   *
   * Throws FutureRejectedError as soon as one of the keys is rejected, TimedOutError after `timeoutMs`.
   */
  await(key: string, options?: AwaitOptions): Promise<Future>;
  await(keys: readonly string[], options?: AwaitOptions): Promise<readonly Future[]>;
  await(alternatives: Alternatives, options?: AwaitOptions): Promise<AwaitedAlternative>;
  async await(
    what: string | readonly string[] | Alternatives,
    options: AwaitOptions = {},
  ): Promise<Future | readonly Future[] | AwaitedAlternative> {
    if (typeof what === 'string') return this.#request(awaitOf([[what]], options), awaitedOne, options);
    if (!('anyOf' in what)) return this.#request(awaitOf([what], options), awaitedAll, options);
    const sets = what.anyOf.map((set) => (typeof set === 'string' ? [set] : set));
    return this.#request(awaitOf(sets, options), awaited, options);
  }

  /** Gives the future its value. A fresh other value there: ALREADY_SETTLED, unless `supersede`. */
  async resolve(
    key: string,
    value: Value,
    options: ResolveOptions & RequestOptions = {},
  ): Promise<OperationResult> {
    return this.#writeOne(resolveOperation(key, value, options), options);
  }

  /** Settles the future with an error, which those who await it get. */
  async reject(key: string, options: RejectOptions & RequestOptions = {}): Promise<OperationResult> {
    return this.#writeOne(rejectOperation(key, options), options);
  }

  /** Says that the value will come, from this client unless `tied` is false. */
  async declare(key: string, options: DeclareOptions & RequestOptions = {}): Promise<OperationResult> {
    return this.#writeOne(declareOperation(key, options), options);
  }

  /** NOT_FOUND if there is no such key. */
  async delete(key: string, options: ConditionOptions & RequestOptions = {}): Promise<OperationResult> {
    return this.#writeOne(deleteOperation(key, options), options);
  }

  /** Lets a settled value stay fresh for `ttlMs` milliseconds from now. NO_VALUE if it is pending or expired. */
  async touch(
    key: string,
    ttlMs: number,
    options: ConditionOptions & RequestOptions = {},
  ): Promise<OperationResult> {
    return this.#writeOne(touchOperation(key, ttlMs, options), options);
  }

  /** 1 to 256 operations, applied in order, together or not at all; an OperationFailedError names which one failed. */
  async batch(
    make: ((batch: BatchBuilder) => unknown) | readonly Operation[],
    options: WriteOptions = {},
  ): Promise<WriteResult> {
    let operations: readonly Operation[];
    if (typeof make === 'function') {
      const builder = new BatchBuilder();
      make(builder);
      operations = builder.operations;
    } else operations = make;
    return this.#request({ kind: 'write', operations: [...operations] }, written, options);
  }

  /**
   * Follows all keys that match: each key's latest state in the order of revisions, never a gap, never twice, over
   * reconnects too; a slow reader skips intermediate states. Throws at once for a bad pattern or a closed client.
   */
  subscribe(patterns: string | readonly string[], options: SubscribeOptions = {}): Subscription {
    const list = typeof patterns === 'string' ? [patterns] : [...patterns];
    return this.#engine.subscribe(list, startOf(options.from), options.signal);
  }

  /**
   * Cluster time, by which TTLs and deadlines are measured, in milliseconds since 1970: of some moment between this call
   * and its answer.
   */
  async clock(options: RequestOptions = {}): Promise<number> {
    return this.#request({ kind: 'clock' }, clockTold, options);
  }

  /** The cluster's members as the connected server knows them. */
  async status(options: RequestOptions = {}): Promise<ClusterStatus> {
    return this.#request({ kind: 'status' }, statusGiven, options);
  }

  /** The servers of the cluster, how it counts them, and whether that is about to change. */
  async members(options: RequestOptions = {}): Promise<MemberList> {
    return this.#request({ kind: 'member_list' }, membersGiven, options);
  }

  /**
   * Adds a server, as a learner that gets the state and does not vote; or, where it replaces another, as a voter in its
   * place. Gives its id: known before the server is started, because its configuration needs it. Answered when the wish
   * is in the log; `members` tells how far it has been carried out. MEMBERSHIP_REFUSED where it would not be safe.
   */
  async addMember(member: NewMember, options: RequestOptions = {}): Promise<number> {
    const { name, peersAddress, agentsUrl, replaces } = member;
    const content: Content = { kind: 'member_add', name, peersAddress, agentsUrl };
    const whole = replaces === undefined ? content : { ...content, replaces };
    return this.#request(whole, memberChanged, options);
  }

  /** Makes a learner a voter. MEMBERSHIP_REFUSED while it is behind. As for the rest, see `addMember`. */
  async promoteMember(member: number, options: RequestOptions = {}): Promise<void> {
    await this.#request({ kind: 'member_promote', member }, memberChanged, options);
  }

  /** MEMBERSHIP_REFUSED where those that are left could not go on. As for the rest, see `addMember`. */
  async removeMember(member: number, options: RequestOptions = {}): Promise<void> {
    await this.#request({ kind: 'member_remove', member }, memberChanged, options);
  }

  /** Hands leadership over. Gives the id of the new leader, when it leads. */
  async transferLeader(options: TransferOptions = {}): Promise<number> {
    const { to } = options;
    const content: Content =
      to === undefined ? { kind: 'transfer_leader' } : { kind: 'transfer_leader', member: to };
    return this.#request(content, leaderTransferred, options);
  }

  /**
   * Has a server take no agents any more, send those that it has elsewhere within `graceMs` (default: as long as the
   * others need to take them well), and not lead while another one can; `end`: it takes agents again. A restart of the
   * server ends it, too. DRAIN_REFUSED: they would have nowhere to go.
   */
  async drainServer(member: number, options: DrainServerOptions = {}): Promise<DrainStanding> {
    const { graceMs, end = false } = options;
    const content: Content = { kind: 'drain_server', member, end };
    return this.#request(graceMs === undefined ? content : { ...content, graceMs }, drained, options);
  }

  /** Asks as many agents of the servers that have many to go to those that have few as make their numbers even. */
  async rebalance(options: RebalanceOptions = {}): Promise<Rebalanced> {
    const { graceMs } = options;
    const content: Content = { kind: 'rebalance' };
    return this.#request(graceMs === undefined ? content : { ...content, graceMs }, rebalanced, options);
  }

  /** The policies and revocations that the whole cluster goes by. */
  async access(options: RequestOptions = {}): Promise<AccessState> {
    return this.#request({ kind: 'acl_get' }, accessGiven, options);
  }

  /**
   * Replaces the policies of the whole cluster; `document` is a policy document as JSON, with certificates and keys as
   * text. CONFIGURATION_INVALID names what is wrong with it, ACCESS_REFUSED where this client could not change policies
   * any more then, PRECONDITION_FAILED where `ifRevision` does not hold, OUTCOME_UNKNOWN where an answer was lost and
   * what is there now is not this document.
   */
  async applyPolicies(document: Uint8Array, options: ApplyPoliciesOptions = {}): Promise<AccessChange> {
    const { ifRevision, force = false } = options;
    const content: Content = { kind: 'acl_apply', document, force };
    const whole = ifRevision === undefined ? content : { ...content, ifRevision };
    return this.#request(whole, accessChanged, options);
  }

  /**
   * Takes a credential's power away: its connections are closed everywhere, and new ones refused. `untilMs` (since 1970):
   * forgotten then, because the credential has expired by itself.
   */
  async revoke(revocation: Revocation, options: RevokeOptions = {}): Promise<AccessChange> {
    const { untilMs } = options;
    const content: Content = { kind: 'acl_revoke', revocation };
    return this.#request(untilMs === undefined ? content : { ...content, untilMs }, accessChanged, options);
  }

  /** Takes a revocation back. */
  async restore(revocation: Revocation, options: RequestOptions = {}): Promise<AccessChange> {
    return this.#request({ kind: 'acl_restore', revocation }, accessChanged, options);
  }

  /**
   * Reads all keys and values, and what else the cluster remembers, as of one revision: each part when the one before
   * has been taken. `timeoutMs` is for each part. The snapshot is one server's: where the connection to it is lost in
   * between, it fails with UNAVAILABLE, and has to be begun again.
   */
  readSnapshot(options: RequestOptions = {}): AsyncGenerator<SnapshotReadPart, void, undefined> {
    return readSnapshotParts((content) => this.#request(content, snapshotPartGiven, options));
  }

  /**
   * Ends awaits and subscriptions, waits a little for the other answers, ends the session and the connection. Futures
   * that are tied to this client and still pending are rejected when the session's grace has passed.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    await this.#engine.close(options.graceMs ?? defaults.closeGraceMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #request<R>(content: Content, convert: (body: AnswerBody) => R, options: WriteOptions): Promise<R> {
    const { timeoutMs = this.#timeoutMs, signal, name } = options;
    return this.#engine.request(content, convert, {
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(signal === undefined ? {} : { signal }),
      ...(name === undefined ? {} : { name }),
    });
  }

  #writeOne(operation: Operation, options: RequestOptions): Promise<OperationResult> {
    return this.#request({ kind: 'write', operations: [operation] }, writtenOne, options);
  }

  #changed(
    state: ConnectionState,
    onStateChange: ((state: ClientState) => void) | undefined,
    logger: ClientLogger | undefined,
  ): void {
    try {
      onStateChange?.(stateOf(state));
    } catch (error) {
      // The caller's fault must not stop the client's own steps.
      logger?.warn({ err: error }, 'onStateChange threw');
    }
  }
}

function checkOptions(options: ClientOptions, name: string): void {
  const { endpoints, sessionGraceMs, connectTimeoutMs, timeoutMs } = options;
  if (!Array.isArray(endpoints) || endpoints.length === 0) {
    throw new FuturestoreError(
      'INVALID_ARGUMENT',
      'endpoints must name at least one server, as wss://host:port',
    );
  }
  const problem = helloProblem({ clientName: name, clientVersion });
  if (problem !== undefined) throw errorOf(problem);
  if (options.token !== undefined && typeof options.token !== 'function') {
    const unfit = tokenProblem(options.token);
    if (unfit !== undefined) throw new FuturestoreError('INVALID_ARGUMENT', unfit);
  }
  checkMilliseconds('sessionGraceMs', sessionGraceMs, limits.sessionGraceMsMin, limits.sessionGraceMsMax);
  checkMilliseconds('connectTimeoutMs', connectTimeoutMs, 1, limits.durationMsMax);
  checkMilliseconds('timeoutMs', timeoutMs, 1, limits.durationMsMax);
}

function checkMilliseconds(name: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= least && value <= most)) return;
  const text = `${name} is ${String(value)}: it must be a whole number of milliseconds, ${String(least)}..${String(most)}`;
  throw new FuturestoreError('INVALID_ARGUMENT', text);
}

function stateOf(state: ConnectionState): ClientState {
  switch (state.kind) {
    case 'connecting':
      return { kind: 'connecting', endpoint: state.endpoint };
    case 'connected':
    case 'moving':
      return { kind: 'connected', endpoint: state.endpoint, server: state.server };
    case 'waiting':
      return { kind: 'waiting', retryAtMs: state.retryAtMs, lastError: state.lastError };
    case 'closing':
    case 'closed':
      return { kind: 'closed', error: state.error };
    default:
      return state satisfies never;
  }
}

function startOf(from: 'present' | 'new' | Position | undefined): SubscriptionStart {
  if (from === undefined || from === 'present') return { kind: 'present_state' };
  if (from === 'new') return { kind: 'only_new' };
  const { clusterId, epoch, revision } = from;
  return { kind: 'after', position: { clusterId, epoch, revision } };
}

function awaitOf(sets: readonly (readonly string[])[], options: AwaitOptions): Content {
  const { leastGeneration } = options;
  const alternatives = sets.map((set) => [...set]);
  return { kind: 'await', alternatives, ...(leastGeneration === undefined ? {} : { leastGeneration }) };
}

function gotten(body: AnswerBody): Future | undefined {
  if (body.kind !== 'got') throw unexpectedAnswer(body, 'got');
  return body.future;
}

function listed(body: AnswerBody): ListPage {
  if (body.kind !== 'listed') throw unexpectedAnswer(body, 'listed');
  return { futures: body.futures, next: body.next, revision: body.revision };
}

function awaited(body: AnswerBody): AwaitedAlternative {
  if (body.kind !== 'awaited') throw unexpectedAnswer(body, 'awaited');
  const rejected = body.futures.find((future) => future.state === 'rejected');
  if (rejected !== undefined) {
    const rejection = rejected.rejection ?? { code: 'REJECTED', message: '' };
    throw new FutureRejectedError(rejected.key, rejection, rejected.generation, rejected.producer);
  }
  return { alternative: body.alternative, futures: body.futures };
}

const awaitedAll = (body: AnswerBody): readonly Future[] => awaited(body).futures;

function awaitedOne(body: AnswerBody): Future {
  const [future] = awaitedAll(body);
  if (future === undefined) throw unexpectedAnswer(body, 'one future');
  return future;
}

function written(body: AnswerBody): WriteResult {
  if (body.kind !== 'written') throw unexpectedAnswer(body, 'written');
  return body.result;
}

function writtenOne(body: AnswerBody): OperationResult {
  const [result] = written(body).results;
  if (result === undefined) throw unexpectedAnswer(body, 'one result');
  return result;
}

function clockTold(body: AnswerBody): number {
  if (body.kind !== 'clock') throw unexpectedAnswer(body, 'clock');
  return body.clusterTimeMs;
}

function statusGiven(body: AnswerBody): ClusterStatus {
  if (body.kind !== 'status') throw unexpectedAnswer(body, 'status');
  return body.status;
}

function membersGiven(body: AnswerBody): MemberList {
  if (body.kind !== 'members') throw unexpectedAnswer(body, 'members');
  return body.list;
}

function accessGiven(body: AnswerBody): AccessState {
  if (body.kind !== 'access') throw unexpectedAnswer(body, 'access');
  return body.access;
}

function accessChanged(body: AnswerBody): AccessChange {
  if (body.kind !== 'access_changed') throw unexpectedAnswer(body, 'access_changed');
  return { revision: body.revision, unchanged: body.unchanged };
}

function memberChanged(body: AnswerBody): number {
  if (body.kind !== 'member_changed') throw unexpectedAnswer(body, 'member_changed');
  return body.member;
}

function drained(body: AnswerBody): DrainStanding {
  if (body.kind !== 'drained') throw unexpectedAnswer(body, 'drained');
  return body.standing;
}

function rebalanced(body: AnswerBody): Rebalanced {
  if (body.kind !== 'rebalanced') throw unexpectedAnswer(body, 'rebalanced');
  return body.rebalanced;
}

function leaderTransferred(body: AnswerBody): number {
  if (body.kind !== 'leader_transferred') throw unexpectedAnswer(body, 'leader_transferred');
  return body.member;
}
