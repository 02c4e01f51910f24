import type { Change, Future } from '../protocol/index.ts';
import { assert } from './assert.ts';
import { runCommand } from './commands.ts';
import { StateLoader } from './loader.ts';
import { changesAfter, list } from './queries.ts';
import { dropServer } from './server-commands.ts';
import { describeSubject, detach, placeOf } from './session-commands.ts';
import { Session, type Attachment } from './sessions.ts';
import { digestOf, takeStateWrites } from './state-records.ts';
import { Tables } from './tables.ts';
import type { TicketKeys } from './ticket-keys.ts';
import { freshAt } from './transitions.ts';
import type {
  Access,
  Applied,
  ChangesPage,
  ChangesQuery,
  CommandResult,
  Due,
  DueFuture,
  DueSession,
  ListPage,
  ListQuery,
  LogEntry,
  MemberRecord,
  StateRecord,
  StateWrite,
  StoreOptions,
} from './types.ts';

const sessionsPerPrincipalMaxDefault = 4096;
/** Records of what has expired, rewritten with all that have changed: a part of a millisecond. */
const deferredMaxDefault = 96;
const sessionsMaxDefault = 200_000;
const tombstonesMaxDefault = 100_000;
const tombstoneAgeMsDefault = 3600 * 1000;
/** Deletions forgotten with one entry: well below a millisecond. */
const forgetMax = 256;
/** When there are twice as many as there may be. */
const forgetFarOverMax = 4096;

/**
 * The replicated state machine: `apply` is a function of the state and the entry, and of nothing else. Futures that
 * it gives out are never changed, so they may be kept and shared.
 */
export class Store {
  readonly clusterId: string;
  readonly #tables: Tables;
  #loader: StateLoader | undefined;
  /** Of the last applied entry; 0: none since the start. */
  #index = 0;

  constructor(options: StoreOptions) {
    this.clusterId = options.clusterId;
    this.#tables = new Tables({
      sessionsMax: options.sessionsMax ?? sessionsMaxDefault,
      sessionsPerPrincipalMax: options.sessionsPerPrincipalMax ?? sessionsPerPrincipalMaxDefault,
      tombstonesMax: options.tombstonesMax ?? tombstonesMaxDefault,
      tombstoneAgeMs: options.tombstoneAgeMs ?? tombstoneAgeMsDefault,
    });
  }

  /** Of the last change. */
  get revision(): number {
    return this.#tables.counters.revision;
  }

  /** Cluster time as of the last applied entry. */
  get timeMs(): number {
    return this.#tables.counters.timeMs;
  }

  get epoch(): number {
    return this.#tables.counters.epoch;
  }

  /** Deletions up to this revision are forgotten: who stands before it cannot be told of them any more. */
  get forgottenUpTo(): number {
    return this.#tables.counters.forgottenUpTo;
  }

  /** Keys that are there; the deleted don't count. */
  get keys(): number {
    return this.#tables.futures.ordered.all.size;
  }

  get sessions(): number {
    return this.#tables.sessions.size;
  }

  /** Deletions that are remembered. */
  get tombstones(): number {
    return this.#tables.futures.tombstones;
  }

  /** By id: those that a command was about. The same array until something changes. */
  get members(): readonly MemberRecord[] {
    return this.#tables.members.sorted;
  }

  /** The highest id that the log gave to a member, or showed as one; 0: none. */
  get lastMember(): number {
    return this.#tables.counters.lastMember;
  }

  /** Policies and revocations that commands have made; undefined: there was no such command. The same until one changes them. */
  get access(): Access | undefined {
    return this.#tables.access.active ? this.#tables.access.current : undefined;
  }

  /** For TLS session tickets of agents; undefined: none yet. The same object until there are others. */
  get ticketKeys(): TicketKeys | undefined {
    return this.#tables.ticketKeys.current;
  }

  // ---- changing ----

  /** `index` must be above that of every entry applied before, here or in what was loaded. */
  apply(entry: LogEntry, index: number): Applied {
    assert(this.#loader === undefined, 'an entry is applied before the state is loaded');
    assert(index > this.#index, `entry ${index} is applied after entry ${this.#index}`);
    this.#index = index;
    const counters = this.#tables.counters;
    if (entry.timeMs > counters.timeMs) counters.timeMs = entry.timeMs;
    this.#tables.countersDirty = true;
    this.#tables.access.expire(counters.timeMs);
    const results: CommandResult[] = [];
    const changes: Change[] = [];
    this.#tables.index = index;
    this.#tables.position = 0;
    this.#tables.connected = [];
    for (const command of entry.commands) {
      const before = changes.length;
      const result = runCommand(this.#tables, command, changes);
      results.push(result);
      this.#tables.position += 1;
      if (changes.length > before || (result.kind === 'access' && !result.unchanged)) counters.revision++;
    }
    this.#forget();
    this.#tables.wheel.keepUp(counters.timeMs);
    return { results, changes };
  }

  /**
   * A configuration entry of the log was applied: these are the members now, all lists of a joint one. Who was to be
   * removed and is not among them has left: its records go, and the grace of its sessions begins.
   */
  applyConfiguration(members: readonly number[]): void {
    assert(this.#loader === undefined, 'a configuration is applied before the state is loaded');
    for (const member of this.#tables.members.applyConfiguration(members)) dropServer(this.#tables, member);
    this.#tables.countersDirty = true;
  }

  /**
   * Makes the loaded state the beginning of another cluster, in the next epoch: positions of the old one mean nothing
   * there. Its servers and members are gone and no session is attached; answers are remembered as long as before.
   * `keepAccess`: policies and revocations stay, else the policy files of the new servers count. `policies`: in place of
   * those that stay, as canonical JSON; they take a revision.
   * Only right after `finishLoad`: `takeStateWrites` then gives what differs from what was loaded.
   */
  prepareRestored({
    keepAccess,
    policies,
  }: {
    readonly keepAccess: boolean;
    readonly policies?: Uint8Array;
  }): void {
    assert(this.#loader === undefined && this.#index === 0, 'a state that is in use is restored');
    for (const session of this.#tables.sessions.all())
      if (session.member !== 0) detach(this.#tables, session);
    for (const { member } of this.#tables.servers.all()) dropServer(this.#tables, member);
    this.#tables.members.clear();
    if (!keepAccess) {
      this.#tables.access.clear();
      for (const session of this.#tables.sessions.all()) describeSubject(this.#tables, session, undefined);
    } else if (policies !== undefined) {
      this.#tables.counters.revision += 1;
      this.#tables.access.replacePolicies(policies);
    }
    // The old cluster's, and whoever has the snapshot has them.
    this.#tables.ticketKeys.clear();
    this.#tables.counters.epoch += 1;
    this.#tables.countersDirty = true;
  }

  /** Records of what has expired wait for being rewritten: `takeStateWrites` has something to do without an entry. */
  get hasDeferredWrites(): boolean {
    return this.#tables.futures.expiries.waiting;
  }

  /**
   * All records that changed since the last call, each once, as they are now; of those whose rewriting was deferred at
   * most `deferredMax`.
   */
  takeStateWrites(deferredMax: number = deferredMaxDefault): readonly StateWrite[] {
    return takeStateWrites(this.#tables, deferredMax);
  }

  /**
   * Takes records of a state, from disk or a snapshot, in any order and number of calls. Only on a new store; then
   * `finishLoad`. Throws DATA_DAMAGED, naming the record, for what cannot be a part of a state.
   */
  load(records: readonly StateRecord[]): void {
    assert(
      this.#index === 0 && this.#tables.counters.revision === 0,
      'records are loaded into a store that is in use',
    );
    this.#loader ??= new StateLoader(this.#tables);
    this.#loader.add(records);
  }

  /** All records are there. Throws DATA_DAMAGED if they contradict each other. */
  finishLoad(): void {
    const steps = this.finishLoadInSteps();
    while (steps.next().done !== true);
  }

  /** `finishLoad` in steps, between which the store is of no use. (bench/PROFILE.md has what the longest takes.) */
  *finishLoadInSteps(): Generator<void, void, undefined> {
    if (this.#loader !== undefined) yield* this.#loader.finish((timeMs) => this.#tables.wheel.keepUp(timeMs));
    this.#loader = undefined;
    // What was loaded is on disk.
    this.#tables.futures.takeDirty(() => undefined);
    this.#tables.sessions.takeDirty(() => undefined);
  }

  // ---- reading ----

  /** As applied: whoever shows it to a reader asks `fresh`. */
  get(key: string): Future | undefined {
    return this.#tables.futures.find(key)?.future;
  }

  /** The future as a reader may see it at `nowMs` by cluster time: past its freshness it has no value any more. */
  fresh(future: Future, nowMs: number): Future {
    return freshAt(future, nowMs);
  }

  list(query: ListQuery): ListPage {
    return list(this.#tables.futures, query);
  }

  /** What came after a revision, the deletions that are remembered included. */
  changesAfter(query: ChangesQuery): ChangesPage {
    return changesAfter(this.#tables.futures, query, this.#tables.counters.revision);
  }

  /** Whether the session is attached to another member than this one: its agent has moved. */
  isAttachedElsewhere(session: string, member: number): boolean {
    const at = this.#tables.sessions.find(session)?.member ?? 0;
    return at !== 0 && at !== member;
  }

  /**
   * At which positions of the entry that was applied last a session was opened on a connection that it did not have
   * before, as far as this server knows.
   */
  get connected(): readonly number[] {
    return this.#tables.connected;
  }

  /** Of a session_open of this server's own in the last entry: its agent has just connected, also where that is not known of others'. */
  connectedHere(session: string, position: number): void {
    const found = this.#tables.sessions.find(session);
    if (found !== undefined) found.connectedAt = placeOf(this.#index, position);
  }

  /** Whether the session is attached to this connection. */
  isAttachedTo(session: string, { member, run, connection }: Attachment): boolean {
    const found = this.#tables.sessions.find(session);
    return found?.member === member && found.run === run && found.connection === connection;
  }

  /**
   * The session of the same principal at another member whose connection was made last, if that was after this one's. A
   * server never takes another's for later than it is, and its own for no earlier: of two never both are the older one.
   */
  newerElsewhere(session: string): string | undefined {
    const found = this.#tables.sessions.find(session);
    return found && this.#tables.sessions.newerElsewhere(found)?.id;
  }

  /**
   * What this server remembers of when connections were made, when this state, of a snapshot up to `index`, takes the
   * place of the one before. Between the two are openings that it has not seen.
   */
  remember(before: Store, index: number, self: { readonly member: number; readonly run: number }): void {
    for (const session of this.#tables.sessions.all()) {
      const old = before.#tables.sessions.find(session.id);
      const isSame =
        session.member === 0 ||
        (old?.lastMember === session.member &&
          old.lastRun === session.run &&
          old.lastConnection === session.connection);
      if (isSame) {
        session.connectedAt = old?.connectedAt ?? 0;
        session.lastMember = old?.lastMember ?? 0;
        session.lastRun = old?.lastRun ?? 0;
        session.lastConnection = old?.lastConnection ?? 0;
      } else {
        const isOwn = session.member === self.member && session.run === self.run;
        session.connectedAt = isOwn ? index : before.#index + 1;
      }
    }
  }

  /** As it has announced itself; undefined: it has not yet, or has left. */
  server(member: number): { readonly run: number; readonly diskId: Uint8Array } | undefined {
    const server = this.#tables.servers.find(member);
    return server === undefined || server.diskId.length === 0 ? undefined : server;
  }

  /**
   * What an `expire` command should name: up to `limit` futures and sessions whose instant is not after `nowMs`. Each
   * is named once until `resetDue`. Fewer may come although more are due: ask again in the next turn.
   */
  due(nowMs: number, limit: number): Due {
    const futures: DueFuture[] = [];
    const sessions: DueSession[] = [];
    this.#tables.wheel.due(nowMs, limit, ({ target, atMs }) => {
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
    this.#tables.wheel.rearm();
  }

  /** Of all records of the state in the order of their keys: replicas that have applied the same have the same. */
  digest(): string {
    return digestOf(this.#tables);
  }

  /** A bounded part of it with each entry, decided by the state alone. */
  #forget(): void {
    const counters = this.#tables.counters;
    const futures = this.#tables.futures;
    const { tombstonesMax, tombstoneAgeMs } = this.#tables.limits;
    let left = futures.tombstones > 2 * tombstonesMax ? forgetFarOverMax : forgetMax;
    while (left > 0) {
      const forgotten = futures.forgetOldest(
        ({ atMs }) => futures.tombstones > tombstonesMax || atMs + tombstoneAgeMs <= counters.timeMs,
      );
      if (forgotten === undefined) return;
      counters.forgottenUpTo = forgotten.revision;
      counters.generationFloor = Math.max(counters.generationFloor, forgotten.generation);
      left -= forgotten.count;
    }
  }
}
