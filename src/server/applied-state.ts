/** The state as of what this server has applied, and who is told when that goes on. */
import assert from 'node:assert/strict';
import type { Feed } from '../feed/index.ts';
import { decodeConfiguration, membersOf, type Entry, type Raft, type SoftState } from '../raft/index.ts';
import { type Access, type CommandResult, type LogEntry, type Store } from '../store/index.ts';
import { changeLine } from './change-lines.ts';
import type { Commands } from './commands.ts';
import type { CompactionPolicy } from './compaction.ts';
import type { DiskWriter, StateChanges, Written } from './disk-writer.ts';
import type { Gateways } from './gateways.ts';
import type { Housekeeping } from './housekeeping.ts';
import type { Membership } from './membership.ts';
import type { ServerOptions, ServerParts } from './options.ts';
import type { OutdatedDisk } from './outdated-disk.ts';
import type { RivalSessions } from './rival-sessions.ts';
import type { Snapshots } from './snapshots.ts';

/** Without any result for so long, what was sent to the leader is sent again. */
const stuckAfterMs = 5000;

const noPositions: ReadonlySet<number> = new Set();

/** Who is told. They may be made after the state. */
export interface StateFollowers {
  readonly feed: Feed;
  readonly writer: DiskWriter;
  readonly commands: Commands;
  readonly membership: Membership;
  readonly housekeeping: Housekeeping;
  readonly compaction: CompactionPolicy;
  readonly outdated: OutdatedDisk;
  readonly gateways: Gateways;
  readonly rivals: RivalSessions;
  readonly snapshots: Snapshots;
}

export class AppliedState {
  readonly #options: ServerOptions;
  readonly #run: number;
  readonly #raft: Raft;
  readonly #soft: () => SoftState;
  readonly #tell: StateFollowers;
  #store: Store;
  /** As the gateways know it. */
  #access: Access | undefined;
  #applied: { readonly index: Entry['index']; readonly term: Entry['term'] };
  #caughtUp = false;
  /** The cluster took this server for gone, or may have. */
  #sessionsToAttach = false;
  #resultAtMs = 0;

  constructor(options: ServerOptions, given: ServerParts, soft: () => SoftState, followers: StateFollowers) {
    this.#options = options;
    this.#run = given.run;
    this.#raft = given.raft;
    this.#soft = soft;
    this.#tell = followers;
    this.#store = given.store;
    this.#access = given.store.access;
    this.#applied = { ...given.storage.recovered.applied };
  }

  /** Another one once a snapshot has been installed. */
  get store(): Store {
    return this.#store;
  }

  /** The last entry that is in it. */
  get applied(): { readonly index: Entry['index']; readonly term: Entry['term'] } {
    return this.#applied;
  }

  /** All that was committed before this server started is in it. */
  get caughtUp(): boolean {
    return this.#caughtUp;
  }

  /** Whether the sessions of this server are to be attached again; once. */
  takeSessionsToAttach(): boolean {
    const due = this.#sessionsToAttach;
    this.#sessionsToAttach = false;
    return due;
  }

  /** At each tick: whether commands have been without any result for so long that they may have been lost. */
  stuck(nowMs: number): boolean {
    if (this.#tell.commands.pending > 0 && nowMs - this.#resultAtMs <= stuckAfterMs) return false;
    this.#resultAtMs = nowMs;
    return this.#tell.commands.pending > 0;
  }

  /** A snapshot has taken the place of the state. */
  activated(point: NonNullable<Written['activated']>): void {
    const before = this.#store;
    this.#store = this.#tell.snapshots.activated(point);
    this.#store.remember(before, point.index, { member: this.#options.self.id, run: this.#run });
    this.#applied = { index: point.index, term: point.term };
    this.#tell.writer.stateIsOnDisk(point.index, this.#store.revision);
    this.#options.observer?.restored(point);
    this.#tell.outdated.look(this.#store.server(this.#options.self.id));
    this.#accessChanged();
    this.#tell.feed.replaceSource(this.#store);
    // What became of these is somewhere inside the snapshot: their answers are remembered in it.
    this.#tell.commands.sendAgain();
    this.#sessionsToAttach = true;
  }

  /** Those that follow the last one. */
  apply(entries: readonly Entry[], clusterMs: number): void {
    const startedMs = this.#options.environment.monotonicMs();
    let bytes = 0;
    for (const entry of entries) {
      assert(
        entry.index === this.#applied.index + 1,
        `entry ${entry.index} was to be applied after ${this.#applied.index}`,
      );
      bytes += entry.payload.length;
      if (entry.kind === 'commands') this.#applyCommands(entry, clusterMs);
      else if (entry.kind === 'configuration')
        this.#store.applyConfiguration(membersOf(decodeConfiguration(entry.payload)));
      if (entry.kind !== 'commands') this.#options.observer?.applied(entry, undefined, undefined);
      this.#applied = { index: entry.index, term: entry.term };
      this.#tell.compaction.applied(entry);
    }
    this.#raft.step({ kind: 'applied', index: this.#applied.index });
    const isChanged = entries.some(({ kind }) => kind === 'configuration');
    if (isChanged) this.#tell.membership.configurationChanged();
    if (this.#tell.membership.refresh() && this.#soft().role === 'leader') this.#tell.membership.drive();
    this.#tell.writer.stateChanged(bytes);
    // After a restart a server should know at once who the members are.
    if (isChanged) this.#tell.writer.stateIsDue();
    this.#caughtUp ||= this.#soft().leader !== undefined && entries.at(-1)?.term === this.#soft().term;
    const nowMs = this.#options.environment.monotonicMs();
    this.#options.metrics.applied((nowMs - startedMs) / 1000, entries.length);
  }

  /** What has changed since the last call, for the disk. */
  takeChanges(): StateChanges {
    const { revision } = this.#store;
    return { writes: this.#store.takeStateWrites(), applied: { ...this.#applied }, revision };
  }

  #applyCommands(entry: Entry, clusterMs: number): void {
    const { self } = this.#options;
    const run = this.#run;
    const decoded = this.#tell.commands.read(entry.payload);
    const outcome = this.#store.apply(decoded, entry.index);
    this.#options.observer?.applied(entry, decoded, outcome);
    const { results, changes } = outcome;
    if (this.#store.access !== this.#access) this.#accessChanged();
    this.#tellOfChanges(entry, decoded, results);
    if (changes.length > 0) {
      this.#tell.feed.changed(changes, clusterMs);
      const expired = changes.filter(
        (change) => change.kind === 'future' && change.future.state === 'expired',
      );
      if (expired.length > 0) this.#options.metrics.expired(expired.length);
    }
    const { commands } = decoded;
    const connected = this.#store.connected.length === 0 ? noPositions : new Set(this.#store.connected);
    for (let position = 0; position < commands.length; position += 1) {
      const command = commands[position];
      if (command === undefined) continue;
      if (command.kind === 'server_lost' && command.member === self.id && command.run === run) {
        this.#sessionsToAttach = true;
      }
      if (command.kind === 'server_started') {
        if (command.member === self.id) this.#tell.outdated.look(this.#store.server(self.id));
        this.#tell.membership.startApplied(command.member);
      }
      const isOwn = command.origin.member === self.id && command.origin.run === run;
      // Among its own connections a server knows the newest before any log does.
      if (command.kind === 'session_open' && !isOwn && connected.has(position)) {
        const { session, principal } = command;
        const agoMs = Math.max(0, clusterMs - (command.askedAtMs ?? decoded.timeMs));
        this.#tell.gateways.sessionOpened({ session, principal, agoMs });
      }
      if (!isOwn) continue;
      // It was on its way when the cluster began to decide over access: nobody knows yet whose session it is.
      if (command.kind === 'session_open' && command.subject === undefined && this.#access !== undefined)
        this.#sessionsToAttach = true;
      const pending = this.#tell.commands.take(command.origin.request);
      if (pending === undefined) {
        // It came twice, and its connection may have ended in between.
        if (command.kind === 'session_open') this.#tell.gateways.detachIfGone(command);
        continue;
      }
      if (command.kind === 'session_open' && pending.waiter !== undefined)
        this.#store.connectedHere(command.session, position);
      const result = results[position];
      assert(result !== undefined, `the store gave no result for a ${command.kind}`);
      this.#resultAtMs = this.#options.environment.monotonicMs();
      this.#tell.housekeeping.applied(pending.number);
      if (pending.waiter) this.#tell.gateways.result(pending.waiter, command, result);
    }
  }

  /** Before anything is told that could be later. */
  #accessChanged(): void {
    const decides = this.#access !== undefined;
    this.#access = this.#store.access;
    if (this.#access === undefined) return;
    this.#tell.gateways.accessChanged();
    this.#tell.rivals.lookAgain();
    // Whose sessions these are has not been in the log so far.
    if (!decides) this.#sessionsToAttach = true;
  }

  /** The audit of what concerns the whole cluster, on every server: who asked is not always there to log the answer. */
  #tellOfChanges(entry: Entry, { commands }: LogEntry, results: readonly CommandResult[]): void {
    for (let position = 0; position < commands.length; position += 1) {
      const command = commands[position];
      // Nearly all are, and there is no line about them.
      if (command === undefined || command.kind === 'write') continue;
      const line = changeLine(command, results[position]);
      if (line !== undefined)
        this.#options.logger.info(
          { audit: 'changed', index: entry.index, ...line },
          'the cluster was changed',
        );
    }
  }
}
