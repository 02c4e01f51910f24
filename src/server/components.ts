/** What one server's loop is made of, put together: who gets which of the others. */
import { Feed } from '../feed/index.ts';
import { asMemberId, type Message, type Raft, type SoftState } from '../raft/index.ts';
import { AccessRequests } from './access-requests.ts';
import { AgentsRequests } from './agents-requests.ts';
import { AppliedState } from './applied-state.ts';
import { ClusterClock } from './cluster-clock.ts';
import { Commands } from './commands.ts';
import { CompactionPolicy } from './compaction.ts';
import { Drain } from './drain.ts';
import { DiskWriter, type Written } from './disk-writer.ts';
import { Gateways } from './gateways.ts';
import { Housekeeping } from './housekeeping.ts';
import { Leadership } from './leadership.ts';
import { MemberRequests } from './member-requests.ts';
import { Membership } from './membership.ts';
import type { ServerOptions, ServerParts } from './options.ts';
import { OutdatedDisk } from './outdated-disk.ts';
import { Outgoing } from './outgoing.ts';
import { decodePeerRecords } from './peer-records.ts';
import { Reads } from './reads.ts';
import { SelfDescription } from './self-description.ts';
import { SnapshotViews } from './snapshot-views.ts';
import { Snapshots } from './snapshots.ts';
import { PeerStatuses } from './status.ts';
import { tickMsOf } from './ticks.ts';

/** An election that succeeds at its first or second try is over by then. */
const leaderlessTimeouts = 3;

/** What they ask of the loop. */
export interface Loop {
  readonly soft: () => SoftState;
  /** By the monotonic clock; undefined: a leader is known. */
  readonly leaderlessSinceMs: () => number | undefined;
  readonly isRunning: () => boolean;
  readonly input: (input: Parameters<Raft['step']>[0]) => void;
  /** A snapshot is there: raft is to say whether it wants it. */
  readonly staged: (message: Extract<Message, { kind: 'install_snapshot' }>) => void;
  readonly written: (written: Written) => void;
  /** Another turn is needed. */
  readonly schedule: () => void;
  /** Runs what comes from outside of a turn; an exception ends the server. */
  readonly guard: (work: () => void) => void;
  /** Nothing more is done or said, but the process goes on. */
  readonly halt: () => void;
  readonly fatal: (error: unknown) => void;
}

/** Several know each other: what one needs of those made after it, it asks for when it needs it. */
export class Components {
  readonly #options: ServerOptions;
  readonly #given: ServerParts;
  readonly #loop: Loop;
  readonly state: AppliedState;
  readonly feed: Feed;
  readonly clock: ClusterClock;
  readonly writer: DiskWriter;
  readonly outgoing: Outgoing;
  readonly commands: Commands;
  readonly reads = new Reads();
  readonly peerStatuses = new PeerStatuses();
  readonly membership: Membership;
  readonly housekeeping: Housekeeping;
  readonly compaction: CompactionPolicy;
  readonly leadership: Leadership;
  readonly drain: Drain;
  readonly agents: AgentsRequests;
  readonly views: SnapshotViews;
  readonly outdated: OutdatedDisk;
  readonly description: SelfDescription;
  readonly gateways: Gateways;
  readonly snapshots: Snapshots;

  constructor(options: ServerOptions, given: ServerParts, loop: Loop) {
    this.#options = options;
    this.#given = given;
    this.#loop = loop;
    this.state = new AppliedState(options, given, loop.soft, this);
    this.feed = new Feed({ source: given.store });
    this.clock = new ClusterClock(options.environment);
    this.writer = this.#diskWriter();
    this.outgoing = new Outgoing({
      transport: given.transport,
      soft: loop.soft,
      clusterMs: () => this.clusterMs(),
      onUnreachable: (peer) => loop.input({ kind: 'unreachable', peer }),
    });
    this.commands = new Commands({
      member: options.self.id,
      run: given.run,
      entryTimeMs: () => this.clusterMs(),
      forward: (commands) => this.outgoing.forward(commands),
      logger: options.logger,
    });
    this.membership = this.#membershipOf();
    this.housekeeping = new Housekeeping({
      commands: this.commands,
      others: () => this.membership.others,
      lostAfterMs: Math.max(5000, 5 * options.electionTimeoutMs),
      versionOf: (member) => this.membership.versionOf(member),
      randomBytes: (count) => options.environment.randomBytes(count),
    });
    this.compaction = new CompactionPolicy(options.logRetainBytes);
    this.#takeRecovered();
    this.leadership = this.#leadershipOf();
    this.drain = this.#drainOf();
    this.agents = this.#agentsRequests();
    this.views = this.#snapshotViews();
    this.outdated = this.#outdatedDisk();
    this.description = new SelfDescription({
      options,
      raft: given.raft,
      store: () => this.state.store,
      membership: this.membership,
      statuses: this.peerStatuses,
      gateways: () => this.gateways,
      commands: this.commands,
      feed: this.feed,
      isDraining: () => this.drain.isOn,
    });
    this.gateways = this.#gatewaysOf();
    this.snapshots = this.#snapshotsOf();
  }

  /** Cluster time, as far as it is known here. */
  clusterMs(): number {
    return this.clock.nowMs(this.state.store.timeMs);
  }

  #diskWriter(): DiskWriter {
    const { environment, metrics } = this.#options;
    const { storage, store } = this.#given;
    const { guard, written, fatal } = this.#loop;
    const writer = new DiskWriter({
      storage,
      environment,
      metrics,
      takeState: () => this.state.takeChanges(),
      onWritten: (result) => guard(() => written(result)),
      onFailed: fatal,
    });
    writer.stateIsOnDisk(storage.recovered.applied.index, store.revision);
    return writer;
  }

  #membershipOf(): Membership {
    const { self, members, environment, logger, onRemoved } = this.#options;
    const { recovered } = this.#given.storage;
    return new Membership({
      self: self.id,
      members,
      raft: this.#given.raft,
      store: () => this.state.store,
      soft: this.#loop.soft,
      transport: this.#given.transport,
      environment,
      logger,
      told: decodePeerRecords(recovered.peerRecords),
      unapplied: recovered.entries.filter(({ index }) => index > recovered.applied.index),
      onRemoved: (reason) => onRemoved?.(reason),
      onOutdated: (reason) => this.outdated.found(reason),
    });
  }

  /** What earlier runs left counts too: else the log of a server that is restarted now and then grows for ever. */
  #takeRecovered(): void {
    const { entries, applied } = this.#given.storage.recovered;
    for (const entry of entries) {
      if (entry.index > applied.index) break;
      this.compaction.applied(entry);
    }
  }

  #leadershipOf(): Leadership {
    return new Leadership({
      ...this.#options,
      self: this.#options.self.id,
      raft: this.#given.raft,
      soft: this.#loop.soft,
      membership: this.membership,
      statuses: this.peerStatuses,
      outgoing: this.outgoing,
      isDraining: this.#isDraining,
      tickMs: tickMsOf(this.#options),
      answer: (inFlight, body) => this.gateways.answerLater(inFlight, body),
      schedule: this.#loop.schedule,
    });
  }

  readonly #isDraining = (member: number): boolean =>
    member === this.#options.self.id ? this.drain.isOn : this.peerStatuses.isDraining(member);

  #drainOf(): Drain {
    return new Drain({
      ...this.#options,
      raft: this.#given.raft,
      soft: this.#loop.soft,
      leadership: this.leadership,
      membership: this.membership,
      statuses: this.peerStatuses,
      agents: () => this.gateways.connections,
      announce: () => this.outgoing.tellStatus(this.membership.others, this.description.own()),
      guard: (work) => this.#loop.guard(work),
    });
  }

  #agentsRequests(): AgentsRequests {
    return new AgentsRequests({
      ...this.#options,
      self: this.#options.self.id,
      drain: this.drain,
      membership: this.membership,
      statuses: this.peerStatuses,
      outgoing: this.outgoing,
      agents: () => this.gateways.connections,
      answer: (inFlight, body) => this.gateways.answerLater(inFlight, body),
    });
  }

  #snapshotViews(): SnapshotViews {
    const { environment, logger, clusterId, electionTimeoutMs } = this.#options;
    const { storage, raft } = this.#given;
    return new SnapshotViews({
      storage,
      environment,
      logger,
      clusterId,
      epoch: () => this.state.store.epoch,
      configurationAt: raft.configurationAt,
      whenOnDisk: () => this.writer.whenOnDisk(),
      revisionsNow: () => this.writer.revisionsNow(),
      leaderlessMsMax: leaderlessTimeouts * electionTimeoutMs,
      answer: (inFlight, body) => this.#loop.guard(() => this.gateways.answerLater(inFlight, body)),
    });
  }

  #outdatedDisk(): OutdatedDisk {
    const { self, logger, onFatal } = this.#options;
    const { storage, transport, run, lineage } = this.#given;
    return new OutdatedDisk({
      self: self.id,
      disk: { run, diskId: storage.recovered.diskId, lineage },
      storage,
      transport,
      writer: this.writer,
      views: this.views,
      logger,
      isRunning: this.#loop.isRunning,
      onFound: this.#loop.halt,
      onEnded: onFatal,
    });
  }

  #gatewaysOf(): Gateways {
    const { self, environment, metrics } = this.#options;
    const { membership, leadership } = this;
    const store = () => this.state.store;
    return new Gateways({
      self: self.id,
      environment,
      metrics,
      commands: this.commands,
      reads: this.reads,
      feed: this.feed,
      store,
      clusterMs: () => this.clusterMs(),
      identity: () => this.description.identity(),
      clusterStatus: () => this.description.cluster(),
      members: new MemberRequests({
        self: self.id,
        membership,
        store,
        statuses: this.peerStatuses,
        isDraining: this.#isDraining,
        leader: () => this.#loop.soft().leader,
        raft: this.#given.raft,
      }),
      access: new AccessRequests({ self: self.id, membership, store }),
      leadership,
      agents: this.agents,
      views: this.views,
      leaderlessSinceMs: this.#loop.leaderlessSinceMs,
      schedule: this.#loop.schedule,
      guard: this.#loop.guard,
    });
  }

  #snapshotsOf(): Snapshots {
    const { self, logger, metrics } = this.#options;
    const { storage, transport, storeOptions, raft } = this.#given;
    return new Snapshots({
      storage,
      transport,
      storeOptions,
      logger,
      metrics,
      configurationAt: raft.configurationAt,
      onSent: (peer, ok) => this.#loop.input({ kind: 'snapshot_sent', peer, ok }),
      onStaged: (from, term, snapshot) =>
        this.#loop.staged({ kind: 'install_snapshot', from, to: asMemberId(self.id), term, snapshot }),
    });
  }
}
