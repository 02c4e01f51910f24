import assert from 'node:assert/strict';
import { Feed } from '../feed/index.ts';
import type {
  PeerBatch,
  PeerEvents,
  PeerPresence,
  PeerRefusal,
  PeerTransport,
  SnapshotStreamPart,
} from '../peers/index.ts';
import {
  asMemberId,
  decodeConfiguration,
  membersOf,
  type Entry,
  type MemberId,
  type Raft,
  type Ready,
  type SoftState,
} from '../raft/index.ts';
import type { Storage } from '../storage/index.ts';
import { decodeLogEntry, type Store } from '../store/index.ts';
import { ClusterClock } from './cluster-clock.ts';
import { Commands } from './commands.ts';
import { CompactionPolicy } from './compaction.ts';
import { DiskWriter, type Written } from './disk-writer.ts';
import type { Timer } from './environment.ts';
import { Housekeeping } from './housekeeping.ts';
import { Gateways } from './gateways.ts';
import { Leadership } from './leadership.ts';
import { MemberRequests } from './member-requests.ts';
import { Membership } from './membership.ts';
import { OutdatedDisk } from './outdated-disk.ts';
import type { ServerOptions, ServerParts, ServerStatus } from './options.ts';
import type { Gateway, GatewayPort } from './port.ts';
import { Outgoing } from './outgoing.ts';
import { Reads } from './reads.ts';
import { SnapshotViews } from './snapshot-views.ts';
import { Snapshots } from './snapshots.ts';
import { SelfDescription } from './self-description.ts';
import { PeerStatuses } from './status.ts';
import { tickMsOf } from './ticks.ts';

/** A turn that has taken so long goes on later: a long log that is replayed must not hold up heartbeats. */
const turnMsMax = 10;

/** Records of what has expired that are rewritten in a tick: a part of a millisecond. */
const deferredWritesPerTick = 64;

/** How often a server tells its peers how it is doing. */
const statusIntervalMs = 1000;

/** An election that succeeds at its first or second try is over by then. */
const leaderlessTimeouts = 3;

/** Without any result for so long, what was sent to the leader is sent again. */
const stuckAfterMs = 5000;

/**
 * One server's loop. Everything that happens is taken in at once and worked off in turns: in one turn all commands
 * become one entry, all reads one question, all changes one batch on disk and one frame per peer and gateway.
 * A turn is synchronous from beginning to end; every completion of I/O begins another.
 */
export class Server {
  readonly #options: ServerOptions;
  readonly #storage: Storage;
  readonly #transport: PeerTransport;
  readonly #raft: Raft;
  readonly #run: number;
  #store: Store;
  readonly #feed: Feed;
  readonly #clock: ClusterClock;
  readonly #writer: DiskWriter;
  readonly #commands: Commands;
  readonly #reads = new Reads();
  readonly #housekeeping: Housekeeping;
  readonly #compaction: CompactionPolicy;
  readonly #snapshots: Snapshots;
  readonly #peerStatuses = new PeerStatuses();
  readonly #gateways: Gateways;
  readonly #membership: Membership;
  readonly #outdated: OutdatedDisk;
  readonly #memberRequests: MemberRequests;
  readonly #leadership: Leadership;
  readonly #views: SnapshotViews;
  readonly #description: SelfDescription;

  #soft: SoftState;
  readonly #outgoing: Outgoing;
  #scheduled = false;
  #inTurn = false;
  #state: 'running' | 'stopping' | 'stopped' = 'running';
  #tickTimer: Timer | undefined;
  #statusSentMs = -Infinity;
  #resultAtMs = 0;
  /** When a leader was known last, to within a tick. */
  #ledAtMs: number;
  #applied: { index: Entry['index']; term: Entry['term'] };
  /** A snapshot is staged and raft has not said yet whether it wants it. */
  #undecidedSnapshot = false;
  /** The cluster took this server for gone, or may have. */
  #sessionsToAttach = false;

  constructor(options: ServerOptions, parts: ServerParts) {
    this.#options = options;
    this.#storage = parts.storage;
    this.#transport = parts.transport;
    this.#raft = parts.raft;
    this.#run = parts.run;
    this.#store = parts.store;
    this.#applied = { ...parts.storage.recovered.applied };
    const { environment, metrics, logger } = options;
    this.#ledAtMs = environment.monotonicMs();
    const status = this.#raft.status();
    this.#soft = { role: status.role, term: status.term, leader: status.leader };
    this.#feed = new Feed({ source: this.#store });
    this.#clock = new ClusterClock(environment);
    this.#writer = new DiskWriter({
      storage: parts.storage,
      environment,
      metrics,
      onWritten: (written) => this.#guard(() => this.#written(written)),
      onFailed: (error) => this.#fatal(error),
    });
    this.#writer.stateIsOnDisk(this.#applied.index, this.#store.revision);
    this.#outgoing = new Outgoing({
      transport: parts.transport,
      soft: () => this.#soft,
      clusterMs: () => this.#clusterMs(),
      onUnreachable: (peer) => this.#input({ kind: 'unreachable', peer }),
    });
    this.#commands = new Commands({
      member: options.self.id,
      run: parts.run,
      entryTimeMs: () => this.#clusterMs(),
      forward: (commands) => this.#outgoing.forward(commands),
      logger,
    });
    this.#membership = new Membership({
      self: options.self.id,
      members: options.members,
      raft: parts.raft,
      store: () => this.#store,
      soft: () => this.#soft,
      transport: parts.transport,
      environment,
      logger,
      onRemoved: (reason) => options.onRemoved?.(reason),
      onOutdated: (reason) => this.#outdated.found(reason),
    });
    this.#housekeeping = new Housekeeping({
      commands: this.#commands,
      others: () => this.#membership.others,
      lostAfterMs: Math.max(5000, 5 * options.electionTimeoutMs),
    });
    this.#compaction = new CompactionPolicy(options.logRetainBytes);
    // What earlier runs left counts too: else the log of a server that is restarted now and then grows for ever.
    for (const entry of parts.storage.recovered.entries) {
      if (entry.index > this.#applied.index) {
        this.#membership.recovered(entry);
        continue;
      }
      this.#compaction.applied(entry);
      this.#membership.applied(entry);
    }
    this.#memberRequests = new MemberRequests({
      self: options.self.id,
      membership: this.#membership,
      store: () => this.#store,
      statuses: this.#peerStatuses,
      leader: () => this.#soft.leader,
      raft: parts.raft,
    });
    this.#leadership = new Leadership({
      ...options,
      self: options.self.id,
      raft: parts.raft,
      soft: () => this.#soft,
      membership: this.#membership,
      statuses: this.#peerStatuses,
      outgoing: this.#outgoing,
      tickMs: tickMsOf(options),
      answer: (inFlight, body) => this.#gateways.answerLater(inFlight, body),
      schedule: () => this.#schedule(),
    });
    this.#views = new SnapshotViews({
      storage: parts.storage,
      environment,
      logger,
      clusterId: options.clusterId,
      epoch: () => this.#store.epoch,
      configurationAt: parts.raft.configurationAt,
      whenOnDisk: () => this.#writer.whenOnDisk(),
      revisionsNow: () => this.#writer.revisionsNow(),
      leaderlessMsMax: leaderlessTimeouts * options.electionTimeoutMs,
      answer: (inFlight, body) => this.#guard(() => this.#gateways.answerLater(inFlight, body)),
    });
    this.#outdated = new OutdatedDisk({
      self: options.self.id,
      disk: { run: parts.run, diskId: parts.storage.recovered.diskId, lineage: parts.lineage },
      storage: parts.storage,
      transport: parts.transport,
      writer: this.#writer,
      views: this.#views,
      logger,
      isRunning: () => this.#state === 'running',
      onFound: () => this.#halt(),
      onEnded: options.onFatal,
    });
    this.#description = new SelfDescription({
      options,
      raft: parts.raft,
      store: () => this.#store,
      membership: this.#membership,
      statuses: this.#peerStatuses,
      gateways: () => this.#gateways,
      commands: this.#commands,
      feed: this.#feed,
    });
    this.#gateways = new Gateways({
      self: options.self.id,
      environment,
      metrics,
      commands: this.#commands,
      reads: this.#reads,
      feed: this.#feed,
      store: () => this.#store,
      clusterMs: () => this.#clusterMs(),
      identity: () => this.#description.identity(),
      clusterStatus: () => this.#description.cluster(),
      members: this.#memberRequests,
      leadership: this.#leadership,
      views: this.#views,
      leaderlessMs: () => (this.#soft.leader === undefined ? environment.monotonicMs() - this.#ledAtMs : 0),
      schedule: () => this.#schedule(),
      guard: (work) => this.#guard(work),
    });
    this.#snapshots = new Snapshots({
      storage: parts.storage,
      transport: parts.transport,
      storeOptions: parts.storeOptions,
      logger,
      metrics,
      configurationAt: parts.raft.configurationAt,
      onSent: (peer, ok) => this.#input({ kind: 'snapshot_sent', peer, ok }),
      onStaged: (from, term, snapshot) => {
        this.#undecidedSnapshot = true;
        const to = asMemberId(options.self.id);
        this.#input({ kind: 'message', message: { kind: 'install_snapshot', from, to, term, snapshot } });
      },
    });
  }

  /** Begins to take part. The transport must have been made, but not started. */
  async start(): Promise<void> {
    const { diskId } = this.#storage.recovered;
    const run = this.#run;
    const member = this.#options.self.id;
    this.#outdated.look(this.#store.server(member));
    if (this.#state !== 'running') return;
    this.#commands.submit({ kind: 'server_started', member, run, diskId });
    await this.#transport.start(this.#peerEvents());
    // Alone there is nobody to wait for.
    if (this.#membership.isAlone) this.#raft.step({ kind: 'campaign' });
    this.#armTick();
    this.#schedule();
  }

  attachGateway(gateway: Gateway): GatewayPort {
    return this.#gateways.attach(gateway);
  }

  status(): ServerStatus {
    return this.#description.status();
  }

  /** Whether agents are served here now; if not, why. */
  readiness(): { readonly ready: boolean; readonly reasons: readonly string[] } {
    const reasons: string[] = [];
    if (this.#state !== 'running') reasons.push('the server is stopping');
    if (this.#soft.leader === undefined)
      reasons.push('no leader is known: fewer than half of the members are in touch');
    if (!this.#caughtUp) reasons.push('the state has not caught up with the log since the start');
    return { ready: reasons.length === 0, reasons };
  }
  #caughtUp = false;

  /**
   * Why a peer must not take part: it has been removed, or its disk is not the one that is known, so that it has
   * forgotten its votes and what it acknowledged. undefined: it may.
   */
  refusePeer(member: number, presence: PeerPresence): PeerRefusal | undefined {
    return this.#membership.accept(member, presence);
  }

  /** To look at only, between events. */
  inspect(): {
    readonly raft: Raft;
    readonly store: Store;
    readonly clusterMs: () => number;
    /** As the server knows it, which raft may have left behind within the turn. */
    readonly soft: SoftState;
  } {
    return {
      raft: this.#raft,
      store: this.#store,
      clusterMs: () => this.#clusterMs(),
      soft: this.#soft,
    };
  }

  /** The digest of the state: equal on servers that have applied the same log. */
  stateDigest(): string {
    return this.#store.digest();
  }

  /**
   * Hands leadership over, finishes what is being written, and closes links and storage. The gateways must have been
   * drained before.
   */
  async stop(): Promise<void> {
    if (this.#state !== 'running') return;
    this.#state = 'stopping';
    await this.#leadership.handOver();
    this.#state = 'stopped';
    this.#tickTimer?.cancel();
    this.#gateways.stop();
    await this.#views.stop();
    await this.#writer.whenIdle();
    await this.#transport.close();
    await this.#storage.close();
  }

  // ---- input ----

  #input(input: Parameters<Raft['step']>[0]): void {
    this.#guard(() => {
      if (this.#state === 'stopped') return;
      this.#raft.step(input);
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled || this.#state === 'stopped') return;
    this.#scheduled = true;
    this.#options.environment.defer(this.#turn);
  }

  #armTick(): void {
    this.#tickTimer = this.#options.environment.setTimer(tickMsOf(this.#options), () => {
      if (this.#state === 'stopped') return;
      this.#armTick();
      this.#guard(() => this.#tick());
    });
  }

  #tick(): void {
    // A write of a snapshot under way, which no write of the log may ever follow: then the leader would send it for ever.
    if (this.#storage.failure !== undefined) throw this.#storage.failure;
    const nowMs = this.#options.environment.monotonicMs();
    if (this.#soft.leader !== undefined) this.#ledAtMs = nowMs;
    this.#raft.step({ kind: 'tick' });
    if (this.#store.hasDeferredWrites && this.#writer.mayAddState) {
      this.#addState(deferredWritesPerTick);
    }
    this.#writer.flushAll();
    this.#reads.retry();
    this.#commands.retry();
    this.#leadership.tick(nowMs, this.#writer.busyMs(nowMs));
    this.#views.tick(nowMs, this.#soft.leader !== undefined);
    this.#membership.tick(nowMs);
    if (this.#soft.role === 'leader') {
      this.#housekeeping.tellOfLost(this.#store, nowMs);
      this.#membership.drive();
    }
    if (this.#commands.pending === 0) this.#resultAtMs = nowMs;
    else if (nowMs - this.#resultAtMs > stuckAfterMs) {
      this.#resultAtMs = nowMs;
      this.#commands.sendAgain();
    }
    if (nowMs - this.#statusSentMs >= statusIntervalMs) {
      this.#statusSentMs = nowMs;
      this.#outgoing.tellStatus(this.#membership.others, this.#description.own());
    }
    this.#schedule();
  }

  #peerEvents(): PeerEvents {
    return {
      received: (from, run, batch) => this.#guard(() => this.#received(from, run, batch)),
      connected: (peer, version) =>
        this.#guard(() => {
          this.#membership.connected(peer, version);
          if (peer === this.#soft.leader) {
            this.#commands.sendAgain();
            this.#schedule();
          }
        }),
      refused: (_peer, refusal) => this.#guard(() => this.#membership.refused(refusal)),
      disconnected: (peer) => {
        this.#membership.disconnected(peer);
        this.#input({ kind: 'unreachable', peer });
      },
      snapshotPart: (from: MemberId, stream: SnapshotStreamPart) => this.#snapshots.receive(from, stream),
    };
  }

  #received(from: MemberId, run: number, batch: PeerBatch): void {
    if (this.#state === 'stopped') return;
    const nowMs = this.#options.environment.monotonicMs();
    this.#housekeeping.heard(from, nowMs);
    this.#membership.heard(from, run, batch);
    if (batch.status) this.#peerStatuses.heard(from, batch.status, nowMs, this.#raft.status().commit);
    if (batch.leaderTimeMs !== undefined && from === this.#soft.leader)
      this.#clock.heardFromLeader(batch.leaderTimeMs);
    for (const message of batch.raft)
      if (this.#membership.mayTake(message)) this.#raft.step({ kind: 'message', message });
    // Who sent commands to a leader of another term sends them again to the one of this term.
    if (batch.forward.length > 0 && this.#soft.role === 'leader' && batch.forwardTerm === this.#soft.term) {
      this.#commands.addForeign(from, batch.forward);
    }
    if (batch.transferTo !== undefined) this.#leadership.requestedByPeer(batch.transferTo);
    this.#schedule();
  }

  // ---- the turn ----

  readonly #turn = (): void => {
    this.#scheduled = false;
    if (this.#state === 'stopped') return;
    this.#guard(() => {
      assert(!this.#inTurn, 'two turns of the loop overlap');
      this.#inTurn = true;
      try {
        this.#work();
      } finally {
        this.#inTurn = false;
      }
    });
  };

  #work(): void {
    const clusterMs = this.#clusterMs();
    if (this.#soft.role === 'leader') this.#commands.propose(this.#raft);
    else if (this.#soft.leader !== undefined) this.#commands.forward();
    this.#reads.ask(this.#raft);
    const drained = this.#drain(clusterMs);
    // What was applied may have shown that this server must not say anything more.
    if (this.#state === 'stopped') return;
    // Raft reports what it dropped first of all, also where it has more to say than fits into the turn.
    const failed = this.#commands.settle();
    if (failed > 0) this.#options.metrics.proposalsFailed(failed);
    if (!drained) this.#schedule();
    else if (this.#undecidedSnapshot) {
      this.#undecidedSnapshot = false;
      this.#snapshots.decided(false);
    }
    // With all applied that is known to be committed: what came after the loss may have moved sessions.
    if (drained && this.#sessionsToAttach) {
      this.#sessionsToAttach = false;
      this.#gateways.attachSessionsAgain();
      this.#schedule();
    }
    this.#compact();
    this.#outgoing.flush();
    this.#writer.flush();
    this.#gateways.endTurn(this.#applied.index, clusterMs);
    // Behind what was applied, which makes room for more; the next turn proposes it.
    if (this.#soft.role === 'leader') this.#housekeeping.expire(this.#store, clusterMs);
    const commandsCanGo = this.#commands.waiting && this.#soft.leader !== undefined;
    if (this.#gateways.pending || this.#feed.pending || commandsCanGo) this.#schedule();
  }

  /** Does all that raft asks for, in its order. false: there is more, but others must have their turn first. */
  #drain(clusterMs: number): boolean {
    const startedMs = this.#options.environment.monotonicMs();
    for (;;) {
      const ready = this.#raft.ready();
      if (ready === undefined) return true;
      for (const message of ready.send) this.#outgoing.post(message);
      if (ready.persist) this.#persist(ready.persist);
      if (ready.apply) this.#apply(ready.apply.entries, clusterMs);
      for (const { token, index } of ready.reads) this.#reads.confirmed(token, index);
      for (const dropped of ready.dropped) {
        if (dropped.kind === 'proposal') this.#commands.dropped(dropped);
        else if (dropped.kind === 'read') this.#reads.dropped(dropped.token);
        else this.#membership.dropped(dropped);
      }
      for (const { to, term } of ready.snapshots) this.#snapshots.send(to, term);
      if (ready.soft) this.#roleChanged(ready.soft);
      if (this.#options.environment.monotonicMs() - startedMs > turnMsMax) return false;
    }
  }

  #persist(persist: NonNullable<Ready['persist']>): void {
    if (persist.snapshot) {
      this.#undecidedSnapshot = false;
      this.#snapshots.decided(true);
      // What the old state still had to write goes with it, and no place in the old log is a beginning any more.
      this.#store.takeStateWrites();
      this.#compaction.restarted();
    }
    this.#writer.addPersist(persist);
  }

  #written({ sequence, afterDurable, activated, compactedTo }: Written): void {
    for (const message of afterDurable) this.#outgoing.post(message);
    if (activated) this.#activated(activated);
    if (sequence !== undefined) this.#raft.step({ kind: 'persisted', sequence });
    // Raft takes the snapshot's configuration for its own only now.
    if (activated) this.#membership.restarted();
    if (compactedTo && compactedTo.index >= this.#raft.status().firstIndex) {
      this.#raft.step({ kind: 'compact', index: compactedTo.index });
    }
    this.#schedule();
  }

  #activated(point: NonNullable<Written['activated']>): void {
    this.#store = this.#snapshots.activated(point);
    this.#applied = { index: point.index, term: point.term };
    this.#writer.stateIsOnDisk(point.index, this.#store.revision);
    this.#options.observer?.restored(point);
    this.#outdated.look(this.#store.server(this.#options.self.id));
    this.#feed.replaceSource(this.#store);
    // What became of these is somewhere inside the snapshot: their answers are remembered in it.
    this.#commands.sendAgain();
    this.#sessionsToAttach = true;
  }

  #apply(entries: readonly Entry[], clusterMs: number): void {
    const startedMs = this.#options.environment.monotonicMs();
    for (const entry of entries) {
      assert(
        entry.index === this.#applied.index + 1,
        `entry ${entry.index} was to be applied after ${this.#applied.index}`,
      );
      if (entry.kind === 'commands') this.#applyCommands(entry, clusterMs);
      else if (entry.kind === 'configuration')
        this.#store.applyConfiguration(membersOf(decodeConfiguration(entry.payload)));
      if (entry.kind !== 'commands') this.#options.observer?.applied(entry, undefined, undefined);
      this.#applied = { index: entry.index, term: entry.term };
      this.#compaction.applied(entry);
      this.#membership.applied(entry);
    }
    this.#raft.step({ kind: 'applied', index: this.#applied.index });
    if (entries.some(({ kind }) => kind === 'configuration')) this.#membership.configurationChanged();
    if (this.#membership.refresh() && this.#soft.role === 'leader') this.#membership.drive();
    this.#addState();
    this.#caughtUp ||= this.#soft.leader !== undefined && entries.at(-1)?.term === this.#soft.term;
    const nowMs = this.#options.environment.monotonicMs();
    this.#options.metrics.applied((nowMs - startedMs) / 1000, entries.length);
  }

  #addState(deferredMax?: number): void {
    const { revision } = this.#store;
    this.#writer.addState(this.#store.takeStateWrites(deferredMax), { ...this.#applied }, revision);
  }

  #applyCommands(entry: Entry, clusterMs: number): void {
    const { self } = this.#options;
    const run = this.#run;
    const decoded = decodeLogEntry(entry.payload);
    const outcome = this.#store.apply(decoded, entry.index);
    this.#options.observer?.applied(entry, decoded, outcome);
    const { results, changes } = outcome;
    if (changes.length > 0) {
      this.#feed.changed(changes, clusterMs);
      const expired = changes.filter(
        (change) => change.kind === 'future' && change.future.state === 'expired',
      );
      if (expired.length > 0) this.#options.metrics.expired(expired.length);
    }
    for (const [position, command] of decoded.commands.entries()) {
      if (command.kind === 'server_lost' && command.member === self.id && command.run === run) {
        this.#sessionsToAttach = true;
      }
      if (command.kind === 'server_started') {
        if (command.member === self.id) this.#outdated.look(this.#store.server(self.id));
        this.#membership.startApplied(command.member);
      }
      if (command.origin.member !== self.id || command.origin.run !== run) continue;
      const pending = this.#commands.take(command.origin.request);
      if (pending === undefined) continue;
      const result = results[position];
      assert(result !== undefined, `the store gave no result for a ${command.kind}`);
      this.#resultAtMs = this.#options.environment.monotonicMs();
      this.#housekeeping.applied(pending.number);
      if (pending.waiter) this.#gateways.result(pending.waiter, command, result);
    }
  }

  #roleChanged(soft: SoftState): void {
    const before = this.#soft;
    this.#soft = soft;
    const nowMs = this.#options.environment.monotonicMs();
    if (soft.role === 'leader' && before.role !== 'leader') {
      this.#clock.lead(this.#store.timeMs);
      this.#housekeeping.lead(this.#store, nowMs);
    }
    if (soft.role !== 'leader') {
      this.#clock.follow();
      this.#commands.dropForeign();
    }
    this.#leadership.roleChanged(soft);
    this.#membership.refresh();
    if (soft.leader !== before.leader || soft.term !== before.term) {
      this.#options.logger.info(
        { role: soft.role, term: soft.term, leader: soft.leader ?? null },
        'leadership changed',
      );
      if (soft.leader !== undefined) {
        this.#options.metrics.leaderChanged();
        this.#commands.sendAgain();
        this.#reads.retry();
        this.#schedule();
      }
    }
  }

  #compact(): void {
    const place = this.#compaction.cut();
    if (place === undefined) return;
    this.#writer.addCompaction({ ...place, configuration: this.#raft.configurationAt(place.index) });
  }

  // ---- the rest ----

  #clusterMs(): number {
    return this.#clock.nowMs(this.#store.timeMs);
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fatal(error);
    }
  }

  #fatal(error: unknown): void {
    if (this.#state === 'stopped') return;
    this.#halt();
    this.#options.onFatal(error);
  }

  #halt(): void {
    this.#state = 'stopped';
    this.#tickTimer?.cancel();
    this.#gateways.stop();
  }
}
