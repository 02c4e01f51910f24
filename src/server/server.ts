import assert from 'node:assert/strict';
import type {
  PeerBatch,
  PeerEvents,
  PeerPresence,
  PeerRefusal,
  PeerTransport,
  SnapshotStreamPart,
} from '../peers/index.ts';
import type { MemberId, Raft, Ready, SoftState } from '../raft/index.ts';
import type { Storage } from '../storage/index.ts';
import type { Store } from '../store/index.ts';
import { Components, type Loop } from './components.ts';
import type { Written } from './disk-writer.ts';
import type { Timer } from './environment.ts';
import type { ServerOptions, ServerParts, ServerStatus } from './options.ts';
import type { Gateway, GatewayPort } from './port.ts';
import { tickMsOf } from './ticks.ts';

/** A turn that has taken so long goes on later: a long log that is replayed must not hold up heartbeats. */
const turnMsMax = 10;

/** How often a server tells its peers how it is doing. */
const statusIntervalMs = 1000;

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
  readonly #parts: Components;

  #soft: SoftState;
  #scheduled = false;
  #inTurn = false;
  #state: 'running' | 'stopping' | 'stopped' = 'running';
  #tickTimer: Timer | undefined;
  #statusSentMs = -Infinity;
  /** When a leader was known last, to within a tick. */
  #ledAtMs: number;
  /** A snapshot is staged and raft has not said yet whether it wants it. */
  #undecidedSnapshot = false;

  constructor(options: ServerOptions, given: ServerParts) {
    this.#options = options;
    this.#storage = given.storage;
    this.#transport = given.transport;
    this.#raft = given.raft;
    this.#run = given.run;
    this.#ledAtMs = options.environment.monotonicMs();
    const { role, term, leader } = this.#raft.status();
    this.#soft = { role, term, leader };
    this.#parts = new Components(options, given, this.#loop());
  }

  #loop(): Loop {
    return {
      soft: () => this.#soft,
      leaderlessSinceMs: () => (this.#soft.leader === undefined ? this.#ledAtMs : undefined),
      isRunning: () => this.#state === 'running',
      input: (input) => this.#input(input),
      staged: (message) => {
        this.#undecidedSnapshot = true;
        this.#input({ kind: 'message', message });
      },
      written: (written) => this.#written(written),
      schedule: () => this.#schedule(),
      guard: (work) => this.#guard(work),
      halt: () => this.#halt(),
      fatal: (error) => this.#fatal(error),
    };
  }

  /** Begins to take part. The transport must have been made, but not started. */
  async start(): Promise<void> {
    const { outdated, state, commands, membership } = this.#parts;
    const { diskId } = this.#storage.recovered;
    const run = this.#run;
    const member = this.#options.self.id;
    outdated.look(state.store.server(member));
    if (this.#state !== 'running') return;
    commands.submit({ kind: 'server_started', member, run, diskId });
    await this.#transport.start(this.#peerEvents());
    // Alone there is nobody to wait for.
    if (membership.isAlone) this.#raft.step({ kind: 'campaign' });
    this.#armTick();
    this.#schedule();
  }

  attachGateway(gateway: Gateway): GatewayPort {
    return this.#parts.gateways.attach(gateway);
  }

  status(): ServerStatus {
    return this.#parts.description.status();
  }

  /** Whether agents are served here now; if not, why. */
  readiness(): { readonly ready: boolean; readonly reasons: readonly string[] } {
    const reasons: string[] = [];
    if (this.#state !== 'running') reasons.push('the server is stopping');
    if (this.#parts.drain.isOn) reasons.push('the server is drained: it takes no agents');
    if (this.#soft.leader === undefined)
      reasons.push('no leader is known: fewer than half of the members are in touch');
    if (!this.#parts.state.caughtUp) reasons.push('the state has not caught up with the log since the start');
    return { ready: reasons.length === 0, reasons };
  }

  /**
   * Why a peer must not take part: it has been removed, or its disk is not the one that is known, so that it has
   * forgotten its votes and what it acknowledged. undefined: it may.
   */
  refusePeer(member: number, presence: PeerPresence): PeerRefusal | undefined {
    return this.#parts.membership.accept(member, presence);
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
      store: this.#parts.state.store,
      clusterMs: () => this.#parts.clusterMs(),
      soft: this.#soft,
    };
  }

  /** The digest of the state: equal on servers that have applied the same log. */
  stateDigest(): string {
    return this.#parts.state.store.digest();
  }

  /**
   * Takes no agents any more, sends away those that are here, and hands leadership over, if others can lead. For a stop, so
   * it is done whatever becomes of the agents. Resolves when none is left, at the latest after the grace.
   */
  async drain(graceMs: number): Promise<void> {
    if (this.#state === 'running') await this.#parts.drain.begin(graceMs);
    else await this.#options.agentsDoor?.drain(graceMs);
  }

  /**
   * Hands leadership over, finishes what is being written, and closes links and storage. The gateways must have been
   * drained before. Rejects where the disk fails at last, when all is closed.
   */
  async stop(): Promise<void> {
    const { leadership, gateways, views, writer, membership } = this.#parts;
    if (this.#state !== 'running') return;
    this.#state = 'stopping';
    await leadership.handOver();
    this.#state = 'stopped';
    this.#tickTimer?.cancel();
    gateways.stop();
    await views.stop();
    writer.addPeers(membership.takePeerWrites());
    try {
      await writer.whenIdle();
    } finally {
      await this.#transport.close();
      await this.#storage.close();
    }
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
    const {
      state,
      writer,
      reads,
      commands,
      leadership,
      drain,
      rivals,
      agents,
      views,
      membership,
      housekeeping,
      outgoing,
      description,
      gateways,
    } = this.#parts;
    // A write of a snapshot under way, which no write of the log may ever follow: then the leader would send it for ever.
    if (this.#storage.failure !== undefined) throw this.#storage.failure;
    const nowMs = this.#options.environment.monotonicMs();
    if (this.#soft.leader !== undefined) this.#ledAtMs = nowMs;
    this.#raft.step({ kind: 'tick' });
    writer.addPeers(membership.takePeerWrites());
    if (state.store.hasDeferredWrites) writer.stateChanged(0);
    writer.tick();
    reads.retry();
    commands.retry();
    leadership.tick(nowMs, writer.busyMs(nowMs));
    drain.tick(nowMs);
    agents.tick(nowMs);
    views.tick(nowMs, this.#soft.leader !== undefined);
    membership.tick(nowMs);
    if (this.#soft.role === 'leader') {
      housekeeping.tellOfLost(state.store, nowMs);
      housekeeping.renewTicketKeys(state.store.ticketKeys, this.#parts.clusterMs());
      membership.drive();
    }
    if (state.stuck(nowMs)) commands.sendAgain();
    gateways.tick();
    rivals.tick(nowMs);
    if (nowMs - this.#statusSentMs >= statusIntervalMs) {
      this.#statusSentMs = nowMs;
      outgoing.tellStatus(membership.others, description.own());
    }
    this.#schedule();
  }

  #peerEvents(): PeerEvents {
    const { membership, commands, snapshots } = this.#parts;
    return {
      received: (from, run, batch) => this.#guard(() => this.#received(from, run, batch)),
      connected: (peer, version) =>
        this.#guard(() => {
          membership.connected(peer, version);
          if (peer === this.#soft.leader) {
            commands.sendAgain();
            this.#schedule();
          }
        }),
      refused: (_peer, refusal) => this.#guard(() => membership.refused(refusal)),
      disconnected: (peer) => {
        membership.disconnected(peer);
        this.#input({ kind: 'unreachable', peer });
      },
      snapshotPart: (from: MemberId, stream: SnapshotStreamPart) => snapshots.receive(from, stream),
    };
  }

  #received(from: MemberId, run: number, batch: PeerBatch): void {
    const { housekeeping, membership, peerStatuses, clock, commands, leadership, agents } = this.#parts;
    if (this.#state === 'stopped') return;
    const nowMs = this.#options.environment.monotonicMs();
    housekeeping.heard(from, nowMs);
    membership.heard(from, run, batch);
    if (batch.status) peerStatuses.heard(from, batch.status, nowMs, this.#raft.status().commit);
    if (batch.leaderTimeMs !== undefined && from === this.#soft.leader)
      clock.heardFromLeader(batch.leaderTimeMs);
    for (const message of batch.raft)
      if (membership.mayTake(message)) this.#raft.step({ kind: 'message', message });
    // Who sent commands to a leader of another term sends them again to the one of this term.
    if (batch.forward.length > 0 && this.#soft.role === 'leader' && batch.forwardTerm === this.#soft.term) {
      commands.addForeign(from, batch.forward);
    }
    if (batch.transferTo !== undefined) leadership.requestedByPeer(batch.transferTo);
    if (batch.agentsOrder !== undefined) agents.ordered(from, run, batch.agentsOrder);
    if (batch.agentsOutcome !== undefined) agents.heard(from, batch.agentsOutcome);
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
    const { commands, reads, snapshots, state, gateways, outgoing, writer, housekeeping, feed } = this.#parts;
    const clusterMs = this.#parts.clusterMs();
    if (this.#soft.role === 'leader') commands.propose(this.#raft);
    else if (this.#soft.leader !== undefined) commands.forward();
    reads.ask(this.#raft);
    const drained = this.#drain(clusterMs);
    // What was applied may have shown that this server must not say anything more.
    if (this.#state === 'stopped') return;
    // Raft reports what it dropped first of all, also where it has more to say than fits into the turn.
    const failed = commands.settle();
    if (failed > 0) this.#options.metrics.proposalsFailed(failed);
    if (!drained) this.#schedule();
    else if (this.#undecidedSnapshot) {
      this.#undecidedSnapshot = false;
      snapshots.decided(false);
    }
    // With all applied that is known to be committed: what came after the loss may have moved sessions.
    if (drained && state.takeSessionsToAttach()) {
      gateways.attachSessionsAgain();
      this.#schedule();
    }
    this.#compact();
    outgoing.flush();
    writer.flush();
    gateways.endTurn(state.applied.index, clusterMs);
    // Behind what was applied, which makes room for more; the next turn proposes it.
    if (this.#soft.role === 'leader') housekeeping.expire(state.store, clusterMs);
    const commandsCanGo = commands.waiting && this.#soft.leader !== undefined;
    if (gateways.pending || feed.pending || commandsCanGo) this.#schedule();
  }

  /** Does all that raft asks for, in its order. false: there is more, but others must have their turn first. */
  #drain(clusterMs: number): boolean {
    const { outgoing, state, reads, commands, membership, snapshots } = this.#parts;
    const startedMs = this.#options.environment.monotonicMs();
    for (;;) {
      const ready = this.#raft.ready();
      if (ready === undefined) return true;
      for (const message of ready.send) outgoing.post(message);
      if (ready.persist) this.#persist(ready.persist);
      if (ready.apply) {
        // Others wait for the commit index, and need not wait for what follows from it here.
        if (ready.soft === undefined) outgoing.flush();
        state.apply(ready.apply.entries, clusterMs);
      }
      for (const { token, index } of ready.reads) reads.confirmed(token, index);
      for (const dropped of ready.dropped) {
        if (dropped.kind === 'proposal') commands.dropped(dropped);
        else if (dropped.kind === 'read') reads.dropped(dropped.token);
        else membership.dropped(dropped);
      }
      for (const { to, term } of ready.snapshots) snapshots.send(to, term);
      if (ready.soft) this.#roleChanged(ready.soft);
      if (this.#options.environment.monotonicMs() - startedMs > turnMsMax) return false;
    }
  }

  #persist(persist: NonNullable<Ready['persist']>): void {
    if (persist.snapshot) {
      this.#undecidedSnapshot = false;
      this.#parts.snapshots.decided(true);
      // What the old state still had to write goes with it, and no place in the old log is a beginning any more.
      this.#parts.state.store.takeStateWrites();
      this.#parts.compaction.restarted();
    }
    this.#parts.writer.addPersist(persist);
  }

  #written({ sequence, afterDurable, activated, compactedTo }: Written): void {
    for (const message of afterDurable) this.#parts.outgoing.post(message);
    this.#parts.outgoing.flush();
    if (activated) this.#parts.state.activated(activated);
    if (sequence !== undefined) this.#raft.step({ kind: 'persisted', sequence });
    // Raft takes the snapshot's configuration for its own only now.
    if (activated) this.#parts.membership.restarted();
    if (compactedTo && compactedTo.index >= this.#raft.status().firstIndex) {
      this.#raft.step({ kind: 'compact', index: compactedTo.index });
    }
    this.#schedule();
  }

  #roleChanged(soft: SoftState): void {
    const { clock, state, housekeeping, commands, leadership, drain, membership, reads } = this.#parts;
    const before = this.#soft;
    this.#soft = soft;
    const nowMs = this.#options.environment.monotonicMs();
    if (soft.role === 'leader' && before.role !== 'leader') {
      clock.lead(state.store.timeMs);
      housekeeping.lead(state.store, nowMs);
    }
    if (soft.role !== 'leader') {
      clock.follow();
      commands.dropForeign();
    }
    leadership.roleChanged(soft);
    drain.roleChanged();
    membership.refresh();
    if (soft.leader !== before.leader || soft.term !== before.term) {
      this.#options.logger.info(
        { role: soft.role, term: soft.term, leader: soft.leader ?? null },
        'leadership changed',
      );
      if (soft.leader !== undefined) {
        this.#options.metrics.leaderChanged();
        commands.sendAgain();
        reads.retry();
        this.#schedule();
      }
    }
  }

  #compact(): void {
    const place = this.#parts.compaction.cut();
    if (place === undefined) return;
    this.#parts.writer.addCompaction({ ...place, configuration: this.#raft.configurationAt(place.index) });
  }

  // ---- the rest ----

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
    this.#parts.gateways.stop();
  }
}
