import type { Change, ErrorCode, Future } from '../protocol/index.ts';
import { limits } from '../protocol/index.ts';
import { AccessTable, accessRefused } from './access.ts';
import { assert, unreachable } from './assert.ts';
import { Digest } from './digest.ts';
import type { ExpiryGroup } from './expiry-groups.ts';
import { FutureTable, instantOf, type KeyRecord } from './future-table.ts';
import { StateLoader } from './loader.ts';
import { MemberTable, changeRefused, type MemberCommand } from './members.ts';
import { changesAfter, list } from './queries.ts';
import { Session, SessionTable } from './sessions.ts';
import {
  encodeCounters,
  encodeExpiry,
  encodeKeyRecord,
  encodeMember,
  encodePolicies,
  encodeRevocation,
  encodeServer,
  encodeSession,
  encodeTicketKeys,
  recordKeys,
  type Counters,
  type ServerState,
} from './state-codec.ts';
import { TicketKeyTable } from './ticket-keys.ts';
import type { TicketKeys } from './ticket-keys.ts';
import { TimerWheel } from './timer-wheel.ts';
import { expired, freshAt, producerLost, stateAt } from './transitions.ts';
import type {
  Access,
  AccessCommand,
  Applied,
  ChangesPage,
  ChangesQuery,
  Command,
  CommandBody,
  CommandResult,
  Due,
  DueFuture,
  DueSession,
  ListPage,
  ListQuery,
  LogEntry,
  MemberRecord,
  Origin,
  StateRecord,
  StateWrite,
  StoreOptions,
  Subject,
} from './types.ts';
import { QuotaCheck } from './usage.ts';
import { write } from './writes.ts';

type Body<Kind extends CommandBody['kind']> = Extract<CommandBody, { kind: Kind }>;

const sessionsPerPrincipalMaxDefault = 4096;
/** Records of what has expired, rewritten with each turn's: few, so that they don't hold up the turn. */
const deferredMaxDefault = 32;
const sessionsMaxDefault = 200_000;
const tombstonesMaxDefault = 100_000;
const tombstoneAgeMsDefault = 3600 * 1000;
/** Deletions forgotten with one entry: well below a millisecond. */
const forgetMax = 256;
/** When there are twice as many as there may be. */
const forgetFarOverMax = 4096;

const notAnnounced = new Uint8Array(0);

const done: CommandResult = { kind: 'done' };

/** Not remembered: its server describes the session as soon as it sees that the cluster decides over access. */
const notDescribed: CommandResult = {
  kind: 'failed',
  failure: {
    code: 'UNAVAILABLE',
    message:
      'the cluster has just begun to decide over access, and does not know whose session this is: send it again',
  },
};

const failed = (code: ErrorCode, message: string): CommandResult => ({
  kind: 'failed',
  failure: { code, message },
});

/**
 * The replicated state machine: `apply` is a function of the state and the entry, and of nothing else. Futures that
 * it gives out are never changed, so they may be kept and shared.
 */
export class Store {
  readonly clusterId: string;
  readonly #sessionsMax: number;
  readonly #sessionsPerPrincipalMax: number;
  readonly #tombstonesMax: number;
  readonly #tombstoneAgeMs: number;
  readonly #wheel = new TimerWheel<KeyRecord | Session>();
  readonly #futures = new FutureTable(this.#wheel);
  readonly #sessions = new SessionTable(this.#wheel);
  readonly #servers = new Map<number, ServerState>();
  readonly #counters: Counters = {
    revision: 0,
    timeMs: 0,
    epoch: 1,
    forgottenUpTo: 0,
    generationFloor: 0,
    lastMember: 0,
    members: [],
  };
  readonly #members = new MemberTable(this.#counters);
  readonly #access = new AccessTable(this.#counters);
  readonly #ticketKeys = new TicketKeyTable();
  readonly #dirtyServers = new Set<number>();
  #countersDirty = false;
  #loader: StateLoader | undefined;
  /** Of the last applied entry; 0: none since the start. */
  #index = 0;

  constructor(options: StoreOptions) {
    this.clusterId = options.clusterId;
    this.#sessionsMax = options.sessionsMax ?? sessionsMaxDefault;
    this.#sessionsPerPrincipalMax = options.sessionsPerPrincipalMax ?? sessionsPerPrincipalMaxDefault;
    this.#tombstonesMax = options.tombstonesMax ?? tombstonesMaxDefault;
    this.#tombstoneAgeMs = options.tombstoneAgeMs ?? tombstoneAgeMsDefault;
  }

  /** Of the last change. */
  get revision(): number {
    return this.#counters.revision;
  }

  /** Cluster time as of the last applied entry. */
  get timeMs(): number {
    return this.#counters.timeMs;
  }

  get epoch(): number {
    return this.#counters.epoch;
  }

  /** Deletions up to this revision are forgotten: who stands before it cannot be told of them any more. */
  get forgottenUpTo(): number {
    return this.#counters.forgottenUpTo;
  }

  /** Keys that are there; the deleted don't count. */
  get keys(): number {
    return this.#futures.ordered.size;
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  /** Deletions that are remembered. */
  get tombstones(): number {
    return this.#futures.tombstones;
  }

  /** By id: those that a command was about. The same array until something changes. */
  get members(): readonly MemberRecord[] {
    return this.#members.sorted;
  }

  /** The highest id that the log gave to a member, or showed as one; 0: none. */
  get lastMember(): number {
    return this.#counters.lastMember;
  }

  /** Policies and revocations that commands have made; undefined: there was no such command. The same until one changes them. */
  get access(): Access | undefined {
    return this.#access.active ? this.#access.current : undefined;
  }

  /** For TLS session tickets of agents; undefined: none yet. The same object until there are others. */
  get ticketKeys(): TicketKeys | undefined {
    return this.#ticketKeys.current;
  }

  // ---- changing ----

  /** `index` must be above that of every entry applied before, here or in what was loaded. */
  apply(entry: LogEntry, index: number): Applied {
    assert(this.#loader === undefined, 'an entry is applied before the state is loaded');
    assert(index > this.#index, `entry ${index} is applied after entry ${this.#index}`);
    this.#index = index;
    const counters = this.#counters;
    if (entry.timeMs > counters.timeMs) counters.timeMs = entry.timeMs;
    this.#countersDirty = true;
    this.#access.expire(counters.timeMs);
    const results: CommandResult[] = [];
    const changes: Change[] = [];
    for (const command of entry.commands) {
      const before = changes.length;
      const result = this.#run(command, changes);
      results.push(result);
      if (changes.length > before || (result.kind === 'access' && !result.unchanged)) counters.revision++;
    }
    this.#forget();
    this.#wheel.keepUp(counters.timeMs);
    return { results, changes };
  }

  /**
   * A configuration entry of the log was applied: these are the members now, all lists of a joint one. Who was to be
   * removed and is not among them has left: its records go, and the grace of its sessions begins.
   */
  applyConfiguration(members: readonly number[]): void {
    assert(this.#loader === undefined, 'a configuration is applied before the state is loaded');
    for (const member of this.#members.applyConfiguration(members)) this.#dropServer(member);
    this.#countersDirty = true;
  }

  /**
   * Makes the loaded state the beginning of another cluster, in the next epoch: positions of the old one mean nothing
   * there. Its servers and members are gone and no session is attached; answers are remembered as long as before.
   * `keepAccess`: policies and revocations stay, else the policy files of the new servers count.
   * Only right after `finishLoad`: `takeStateWrites` then gives what differs from what was loaded.
   */
  prepareRestored({ keepAccess }: { readonly keepAccess: boolean }): void {
    assert(this.#loader === undefined && this.#index === 0, 'a state that is in use is restored');
    for (const session of this.#sessions.all()) if (session.member !== 0) this.#detach(session);
    for (const member of this.#servers.keys()) this.#dropServer(member);
    this.#members.clear();
    if (!keepAccess) {
      this.#access.clear();
      for (const session of this.#sessions.all()) this.#describe(session, undefined);
    }
    // The old cluster's, and whoever has the snapshot has them.
    this.#ticketKeys.clear();
    this.#counters.epoch += 1;
    this.#countersDirty = true;
  }

  /** Records of what has expired wait for being rewritten: `takeStateWrites` has something to do without an entry. */
  get hasDeferredWrites(): boolean {
    return this.#futures.expiries.waiting;
  }

  /**
   * All records that changed since the last call, each once, as they are now; of those whose rewriting was deferred at
   * most `deferredMax`.
   */
  takeStateWrites(deferredMax: number = deferredMaxDefault): readonly StateWrite[] {
    const writes: StateWrite[] = [];
    const write = (key: string, record: KeyRecord | undefined): void => {
      writes.push({ key: recordKeys.future(key), value: record && encodeKeyRecord(record) });
    };
    this.#futures.takeDirty(write);
    const { expiries } = this.#futures;
    expiries.takeWaiting(deferredMax, (record) => write(record.key, record));
    expiries.takeChanged((group, present) => {
      writes.push({
        key: recordKeys.expiry(group.revision),
        value: present ? encodeExpiry(group) : undefined,
      });
    });
    this.#sessions.takeDirty((id, session) => {
      writes.push({ key: recordKeys.session(id), value: session && encodeSession(session) });
    });
    for (const member of this.#dirtyServers) {
      const server = this.#servers.get(member);
      writes.push({ key: recordKeys.server(member), value: server && encodeServer(server) });
    }
    this.#dirtyServers.clear();
    this.#members.takeDirty((member, record) => {
      writes.push({ key: recordKeys.member(member), value: record && encodeMember(record) });
    });
    this.#access.takeDirty(
      (present) => {
        const { revision, document } = this.#access;
        writes.push({
          key: recordKeys.policies,
          value: present ? encodePolicies(revision, document) : undefined,
        });
      },
      (key, record) =>
        writes.push({ key: recordKeys.revocation(key), value: record && encodeRevocation(record) }),
    );
    this.#ticketKeys.takeDirty((keys) => {
      writes.push({ key: recordKeys.ticketKeys, value: keys && encodeTicketKeys(keys) });
    });
    if (this.#countersDirty) {
      writes.push({ key: recordKeys.counters, value: encodeCounters(this.#counters) });
      this.#countersDirty = false;
    }
    return writes;
  }

  /**
   * Takes records of a state, from disk or a snapshot, in any order and number of calls. Only on a new store; then
   * `finishLoad`. Throws DATA_DAMAGED, naming the record, for what cannot be a part of a state.
   */
  load(records: readonly StateRecord[]): void {
    assert(
      this.#index === 0 && this.#counters.revision === 0,
      'records are loaded into a store that is in use',
    );
    this.#loader ??= new StateLoader({
      futures: this.#futures,
      sessions: this.#sessions,
      servers: this.#servers,
      members: this.#members,
      access: this.#access,
      ticketKeys: this.#ticketKeys,
      counters: this.#counters,
    });
    this.#loader.add(records);
  }

  /** All records are there. Throws DATA_DAMAGED if they contradict each other. */
  finishLoad(): void {
    this.#loader?.finish((timeMs) => this.#wheel.keepUp(timeMs));
    this.#loader = undefined;
    // What was loaded is on disk.
    this.#futures.takeDirty(() => undefined);
    this.#sessions.takeDirty(() => undefined);
  }

  // ---- reading ----

  /** As applied: whoever shows it to a reader asks `fresh`. */
  get(key: string): Future | undefined {
    return this.#futures.find(key)?.future;
  }

  /** The future as a reader may see it at `nowMs` by cluster time: past its freshness it has no value any more. */
  fresh(future: Future, nowMs: number): Future {
    return freshAt(future, nowMs);
  }

  list(query: ListQuery): ListPage {
    return list(this.#futures, query);
  }

  /** What came after a revision, the deletions that are remembered included. */
  changesAfter(query: ChangesQuery): ChangesPage {
    return changesAfter(this.#futures, query, this.#counters.revision);
  }

  /** Whether the session is attached to another member than this one: its agent has moved. */
  isAttachedElsewhere(session: string, member: number): boolean {
    const at = this.#sessions.find(session)?.member ?? 0;
    return at !== 0 && at !== member;
  }

  /** As it has announced itself; undefined: it has not yet, or has left. */
  server(member: number): { readonly run: number; readonly diskId: Uint8Array } | undefined {
    const server = this.#servers.get(member);
    return server === undefined || server.diskId.length === 0 ? undefined : server;
  }

  /**
   * What an `expire` command should name: up to `limit` futures and sessions whose instant is not after `nowMs`. Each
   * is named once until `resetDue`. Fewer may come although more are due: ask again in the next turn.
   */
  due(nowMs: number, limit: number): Due {
    const futures: DueFuture[] = [];
    const sessions: DueSession[] = [];
    this.#wheel.due(nowMs, limit, ({ target, atMs }) => {
      if (target instanceof Session) {
        sessions.push({ session: target.id, atMs });
        return;
      }
      assert(target.future !== undefined, 'a timer stands for a future that is not there');
      futures.push({ key: target.key, generation: target.future.generation, atMs });
    });
    return { futures, sessions };
  }

  /** For a new leader: what was named before and is still due is named again, in case its command was lost. */
  resetDue(): void {
    this.#wheel.rearm();
  }

  /** Of all records of the state in the order of their keys: replicas that have applied the same have the same. */
  digest(): string {
    const records: { key: string; bytes: Uint8Array }[] = [];
    for (const record of this.#futures.records()) {
      records.push({ key: recordKeys.future(record.key), bytes: encodeKeyRecord(record) });
    }
    for (const session of this.#sessions.all()) {
      records.push({ key: recordKeys.session(session.id), bytes: encodeSession(session) });
    }
    for (const server of this.#servers.values()) {
      records.push({ key: recordKeys.server(server.member), bytes: encodeServer(server) });
    }
    for (const member of this.#members.sorted) {
      records.push({ key: recordKeys.member(member.member), bytes: encodeMember(member) });
    }
    if (this.#access.active) {
      const { revision, document } = this.#access;
      records.push({ key: recordKeys.policies, bytes: encodePolicies(revision, document) });
    }
    for (const [key, record] of this.#access.revocations) {
      records.push({ key: recordKeys.revocation(key), bytes: encodeRevocation(record) });
    }
    const { current } = this.#ticketKeys;
    if (current !== undefined) records.push({ key: recordKeys.ticketKeys, bytes: encodeTicketKeys(current) });
    records.push({ key: recordKeys.counters, bytes: encodeCounters(this.#counters) });
    records.sort((a, b) => (a.key < b.key ? -1 : 1));
    const digest = new Digest();
    for (const { key, bytes } of records) {
      digest.addText(key);
      digest.addBytes(bytes);
    }
    return digest.hex();
  }

  // ---- commands ----

  #run(command: Command, changes: Change[]): CommandResult {
    switch (command.kind) {
      case 'write':
        return this.#write(command, changes);
      case 'session_open':
        return this.#openSession(command, command.origin, changes);
      case 'session_close':
        return this.#closeSession(command);
      case 'session_detach':
        return this.#detachSession(command, command.origin);
      case 'server_started':
        return this.#startServer(command);
      case 'server_lost':
        return this.#loseServer(command);
      case 'member_add':
      case 'member_promote':
      case 'member_remove':
        return this.#changeMembers(command, command.origin);
      case 'acl_apply':
      case 'acl_revoke':
      case 'acl_restore':
        return this.#changeAccess(command, command.origin);
      case 'ticket_keys':
        this.#ticketKeys.replace(command.number, command.keys, this.#counters.timeMs);
        return done;
      case 'expire':
        return this.#expire(command, changes);
      default:
        return unreachable(command, 'a command');
    }
  }

  #write(command: Body<'write'>, changes: Change[]): CommandResult {
    const { principal, sequence } = command;
    const session = this.#sessions.find(command.session);
    if (session === undefined || session.principal !== principal) {
      return failed('SESSION_EXPIRED', 'the session of this write does not exist: open a new one');
    }
    this.#sessions.forgetAnswers(session, command.answeredBelow);
    if (sequence < session.answeredBelow) {
      return failed(
        'STALE_REQUEST',
        `write ${sequence} is below ${session.answeredBelow}, up to where the client has all answers: give it a new number`,
      );
    }
    const remembered = session.answers?.get(sequence);
    if (remembered !== undefined) return remembered.answer;
    if ((session.answers?.size ?? 0) >= limits.rememberedAnswersMax) {
      return failed(
        'LIMIT_EXCEEDED',
        `the session has ${limits.rememberedAnswersMax} remembered answers: say with answered_below which have arrived`,
      );
    }
    const { revision, timeMs, generationFloor } = this.#counters;
    let quota: QuotaCheck | undefined;
    if (this.#access.active) {
      const { subject } = session;
      if (subject === undefined) return notDescribed;
      const judgement = this.#access.judge(subject, session.judgement);
      session.judgement = judgement;
      const refusal = this.#access.refusal(judgement, command.operations, principal);
      if (refusal !== undefined) {
        const answer = { kind: 'failed', failure: refusal } as const;
        this.#sessions.remember(session, sequence, answer);
        return answer;
      }
      if (judgement.limits !== undefined)
        quota = new QuotaCheck(principal, judgement.limits, this.#futures.usage.of(principal));
    }
    const at = { nowMs: timeMs, revision: revision + 1, principal, session };
    const answer = write(this.#futures, generationFloor, command.operations, at, revision, changes, quota);
    this.#sessions.remember(session, sequence, answer);
    return answer;
  }

  /** Nobody's are told where the cluster does not decide: servers of an earlier version would not remember them. */
  #describe(session: Session, subject: Subject | undefined): void {
    const told = this.#access.active ? subject : undefined;
    if (told !== session.subject) this.#sessions.describe(session, told);
  }

  #openSession(command: Body<'session_open'>, origin: Origin, changes: Change[]): CommandResult {
    const { principal, graceMs, connection } = command;
    let session = this.#sessions.find(command.session);
    if (session === undefined && !command.resume) {
      if (this.#sessions.countOf(principal) >= this.#sessionsPerPrincipalMax) {
        return failed(
          'LIMIT_EXCEEDED',
          `${principal} has ${this.#sessionsPerPrincipalMax} sessions: close some, or wait until their grace has passed`,
        );
      }
      if (this.#sessions.size >= this.#sessionsMax) {
        const longest = this.#sessions.longestDetached;
        if (longest === undefined) {
          return failed('LIMIT_EXCEEDED', `there are ${this.#sessionsMax} sessions, all in use: close some`);
        }
        this.#endSession(longest, changes);
      }
      session = this.#sessions.create(command.session, principal, graceMs);
    }
    if (session === undefined || session.principal !== principal) {
      return failed('SESSION_EXPIRED', 'the session does not exist: open a new one, with a new id');
    }
    this.#sessions.attach(session, origin.member, origin.run, connection, graceMs);
    this.#describe(session, command.subject);
    // Nobody will ever say of a server that has left that it is lost.
    if (this.#members.isGone(origin.member)) this.#detach(session);
    return done;
  }

  /** Of a session that is not there, or not the principal's, nothing is told. */
  #closeSession(command: Body<'session_close'>): CommandResult {
    const session = this.#sessions.find(command.session);
    if (session === undefined || session.principal !== command.principal) return done;
    if ((session.tied?.size ?? 0) === 0) this.#sessions.remove(session);
    else if (session.member !== 0) this.#detach(session);
    return done;
  }

  #detachSession(command: Body<'session_detach'>, origin: Origin): CommandResult {
    const session = this.#sessions.find(command.session);
    const attachedThere =
      session !== undefined &&
      session.member === origin.member &&
      session.run === origin.run &&
      session.connection === command.connection;
    if (attachedThere && session.member !== 0) this.#detach(session);
    return done;
  }

  #startServer({ member, run, diskId }: Body<'server_started'>): CommandResult {
    const known = this.#servers.get(member);
    // An old run's announcement that was late.
    if ((known !== undefined && known.run > run) || this.#members.isGone(member)) return done;
    const change = known?.run === run ? known.change : undefined;
    this.#servers.set(member, { member, run, diskId, change });
    this.#dirtyServers.add(member);
    for (const session of this.#sessions.attachedTo(member)) if (session.run < run) this.#detach(session);
    return done;
  }

  #loseServer({ member, run }: Body<'server_lost'>): CommandResult {
    if (this.#servers.get(member)?.run !== run) return done;
    for (const session of this.#sessions.attachedTo(member)) this.#detach(session);
    return done;
  }

  /**
   * Once, however often the server that was asked has sent it, and whatever has become of the member since. What waits
   * no longer for its result, because its run is over or its server has left, is not begun any more.
   */
  #changeMembers(command: MemberCommand, { member, run, request }: Origin): CommandResult {
    const known = this.#servers.get(member);
    if (this.#members.isGone(member) || (known !== undefined && known.run > run))
      return changeRefused(`member ${member}, which was asked, has left or has been started again: ask anew`);
    const last = known?.run === run ? known.change : undefined;
    if (last !== undefined && request <= last.request) {
      if (request < last.request || last.member === 0)
        return changeRefused(
          'this was asked for before, and decided: see in the list of members what it is now',
        );
      return { kind: 'member', member: last.member };
    }
    const refused = this.#access.refusalToChange(command.by, 'member.change');
    const result = refused ?? this.#members.change(command);
    const change = { request, member: result.kind === 'member' ? result.member : 0 };
    // Numbers begin at 1. It may come before the announcement of its run, when that was lost on its way.
    assert(request > 0, 'a command about members has no number');
    this.#servers.set(member, { member, run, diskId: known?.diskId ?? notAnnounced, change });
    this.#dirtyServers.add(member);
    return result;
  }

  /** Once, as the commands about members: sent again later it would undo what others have changed since. */
  #changeAccess(command: AccessCommand, { member, run, request }: Origin): CommandResult {
    const known = this.#servers.get(member);
    if (this.#members.isGone(member) || (known !== undefined && known.run > run))
      return accessRefused(`member ${member}, which was asked, has left or has been started again: ask anew`);
    const last = known?.run === run ? known.change : undefined;
    if (last !== undefined && request <= last.request)
      return accessRefused('this was asked for before, and decided: see with acl get what holds now');
    const result = this.#access.change(command);
    // Numbers begin at 1.
    assert(request > 0, 'a command about access has no number');
    this.#servers.set(member, {
      member,
      run,
      diskId: known?.diskId ?? notAnnounced,
      change: { request, member: 0 },
    });
    this.#dirtyServers.add(member);
    return result;
  }

  #expire({ futures, sessions }: Body<'expire'>, changes: Change[]): CommandResult {
    const { timeMs, revision } = this.#counters;
    let group: ExpiryGroup | undefined;
    for (const { key, generation, atMs } of futures) {
      const record = this.#futures.find(key);
      const present = record?.future;
      if (record === undefined || present === undefined) continue;
      if (present.generation !== generation || instantOf(present) !== atMs || atMs > timeMs) continue;
      const future = expired(present, revision + 1, timeMs);
      const { lastGeneration, createdRevision } = record;
      group ??= this.#futures.expiries.begin(revision + 1, timeMs);
      this.#futures.end(record, { future, lastGeneration, createdRevision, tied: undefined }, group);
      changes.push({ kind: 'future', revision: revision + 1, key, future });
    }
    for (const { session: id, atMs } of sessions) {
      const session = this.#sessions.find(id);
      if (session === undefined || session.member !== 0) continue;
      if (session.expiresAtMs !== atMs || atMs > timeMs) continue;
      this.#endSession(session, changes);
    }
    return done;
  }

  // ---- what commands have in common ----

  #dropServer(member: number): void {
    if (this.#servers.delete(member)) this.#dirtyServers.add(member);
    for (const session of this.#sessions.attachedTo(member)) this.#detach(session);
  }

  #detach(session: Session): void {
    this.#sessions.detach(session, this.#counters.timeMs + session.graceMs);
  }

  #endSession(session: Session, changes: Change[]): void {
    const { timeMs, revision } = this.#counters;
    // Each takes itself out of the set, which an iteration of a Set allows.
    for (const record of session.tied ?? []) {
      const { future } = record;
      assert(future?.state === 'pending', 'a future that is not pending is tied to a session');
      // Had its deadline been applied in time, that would have been the reason.
      const late = stateAt(future, timeMs) !== 'pending';
      this.#changeAlone(record, (late ? expired : producerLost)(future, revision + 1, timeMs), changes);
    }
    this.#sessions.remove(session);
  }

  /** A change that no operation made: the generation stays. */
  #changeAlone(record: KeyRecord, future: Future, changes: Change[]): void {
    const { key, lastGeneration, createdRevision } = record;
    const { revision } = future;
    const slot = { future, lastGeneration, createdRevision, tied: undefined };
    this.#futures.put(key, record, slot, revision, this.timeMs);
    changes.push({ kind: 'future', revision, key, future });
  }

  /** A bounded part of it with each entry, decided by the state alone. */
  #forget(): void {
    const counters = this.#counters;
    const futures = this.#futures;
    let left = futures.tombstones > 2 * this.#tombstonesMax ? forgetFarOverMax : forgetMax;
    while (left > 0) {
      const forgotten = futures.forgetOldest(
        ({ atMs }) =>
          futures.tombstones > this.#tombstonesMax || atMs + this.#tombstoneAgeMs <= counters.timeMs,
      );
      if (forgotten === undefined) return;
      counters.forgottenUpTo = forgotten.revision;
      counters.generationFloor = Math.max(counters.generationFloor, forgotten.generation);
      left -= forgotten.count;
    }
  }
}
