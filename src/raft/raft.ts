/** The door to the core: which part handles which input, and what a turn gives out. */

import { violated } from './assert.ts';
import { checkConfiguration } from './configuration.ts';
import { compactTo, configurationAt, presentConfiguration } from './configuration-history.ts';
import { Core } from './core.ts';
import {
  campaign,
  campaignByTransfer,
  checkQuorum,
  countOwnVote,
  handlePreVoteRequest,
  handlePreVoteResponse,
  handleVoteRequest,
  handleVoteResponse,
  isDisruptive,
  tickElection,
} from './election.ts';
import {
  finishInstall,
  handleAppendRequest,
  handleHeartbeatRequest,
  handleInstallSnapshot,
} from './follower.ts';
import { handleHeartbeatResponse, tickHeartbeat } from './heartbeat.ts';
import { checkCore, checkInvariants, viewOf } from './invariants.ts';
import type { InvariantView } from './invariants.ts';
import { Log } from './log.ts';
import {
  appliedTo,
  changeConfiguration,
  continueChange,
  handOverIfRemoved,
  isChangePending,
} from './membership.ts';
import { isChangeSettled } from './settled.ts';
import { Outbox } from './outbox.ts';
import {
  confirmReads,
  flushReads,
  ForwardedReads,
  handleReadRequest,
  handleReadResponse,
  startRead,
  tickForwardedReads,
} from './read-index.ts';
import {
  advanceCommit,
  handleAppendResponse,
  handleSnapshotSent,
  handleUnreachable,
  propose,
  replicate,
} from './replication.ts';
import { becomeFollower } from './roles.ts';
import { settingsOf } from './settings.ts';
import { startTransfer, tickTransfer } from './transfer.ts';
import type {
  Configuration,
  Entry,
  HardState,
  Input,
  LogIndex,
  Message,
  Persist,
  RaftOptions,
  RaftStatus,
  Ready,
} from './types.ts';

const noEntries: readonly Entry[] = [];

const createCore = (options: RaftOptions): Core => {
  const { id, hardState, snapshot, entries, applied, random } = options;
  checkConfiguration(snapshot.configuration);
  const log = new Log({ snapshot, entries, commit: hardState.commit, applied });
  if (log.lastTerm > hardState.term) {
    violated(
      `the last entry on disk has term ${log.lastTerm}, beyond the ${hardState.term} of the hard state: ` +
        'a term was not durable before its entries; replace this member',
    );
  }
  return new Core({
    id,
    settings: settingsOf(options),
    random,
    log,
    outbox: new Outbox(hardState, { role: 'follower', term: hardState.term, leader: undefined }),
    forwardedReads: new ForwardedReads(random),
    baseConfiguration: snapshot.configuration,
    configuration: presentConfiguration(log, snapshot.configuration),
    term: hardState.term,
    vote: hardState.vote,
  });
};

/**
 * One member's Raft: feed it inputs with `step`, drain it with `ready` until that is undefined.
 *
 * Both are synchronous and neither may be called while one of them runs. An exception out of either means that the
 * state cannot be trusted: every later call throws too, and the process has to end.
 */
export class Raft {
  readonly #core: Core;
  #state: 'idle' | 'busy' | 'broken' = 'idle';
  #checked: InvariantView | undefined;

  constructor(options: RaftOptions) {
    this.#core = createCore(options);
  }

  step(input: Input): void {
    this.#enter('step');
    try {
      this.#handle(input);
    } catch (error) {
      this.#state = 'broken';
      throw error;
    }
    this.#leave();
  }

  /** All that accumulated since the last call; undefined if there is nothing (more). */
  ready(): Ready | undefined {
    this.#enter('ready');
    try {
      const ready = this.#take();
      this.#leave();
      return ready;
    } catch (error) {
      this.#state = 'broken';
      throw error;
    }
  }

  status(): RaftStatus {
    const { id, role, term, vote, leader, log, configuration, leadership } = this.#core;
    return {
      id,
      role,
      term,
      vote,
      leader,
      commit: log.commit,
      applied: log.applied,
      durable: log.durable,
      lastIndex: log.last,
      firstIndex: log.first,
      logBytes: log.bytes,
      uncommittedBytes: log.uncommittedBytes,
      configuration,
      changePending: isChangePending(this.#core),
      changeSettled: isChangeSettled(this.#core),
      transferTarget: leadership?.transfer?.target,
      progress: leadership === undefined ? [] : leadership.peers.map((peer) => peer.describe()),
    };
  }

  /**
   * The configuration that counts when all up to `index` is applied: what belongs into a snapshot or a compaction point
   * there. From the compacted index to the applied one; a RangeError beyond. May be handed on as it is.
   */
  readonly configurationAt = (index: LogIndex): Configuration => configurationAt(this.#core, index);

  /** Throws unless this state is sound by itself and may follow the one at the last call. */
  checkInvariants(): void {
    const now = this.invariantView();
    checkCore(this.#core);
    checkInvariants(this.#checked, now);
    this.#checked = now;
  }

  /** What `checkInvariants` compares. */
  invariantView(): InvariantView {
    return viewOf(this.#core);
  }

  #enter(what: string): void {
    if (this.#state === 'broken') violated(`${what} after a failure: this core cannot be used any more`);
    if (this.#state === 'busy') {
      this.#state = 'broken';
      violated(`${what} was called while the core was at work: two drains would interleave`);
    }
    this.#state = 'busy';
  }

  #leave(): void {
    if (this.#state === 'broken')
      violated('the core was called while it was at work, and cannot be used any more');
    this.#state = 'idle';
  }

  #take(): Ready | undefined {
    const core = this.#core;
    flushReads(core);
    continueChange(core);
    replicate(core);
    handOverIfRemoved(core);
    const persist = this.#takePersist();
    const toApply =
      core.install === undefined ? core.log.takeToApply(core.settings.applyBytesMax) : noEntries;
    return core.outbox.take(persist, toApply, core);
  }

  #takePersist(): Persist | undefined {
    const { log, outbox, install, term, vote } = this.#core;
    const isInstalling = install !== undefined && install.sequence === undefined;
    // Most turns of a quiet member end here: they cost nothing that has to be collected.
    if (!isInstalling && !log.hasUnsaved && !outbox.hasToWrite(term, vote, log.commit)) return undefined;
    const hardState: HardState = this.#core.hardState;
    if (isInstalling) {
      install.sequence = outbox.nextSequence;
      log.handSnapshot(install.sequence, install.snapshot.index);
      return outbox.takePersist(hardState, {
        truncateFrom: undefined,
        entries: noEntries,
        snapshot: install.snapshot,
      });
    }
    const unsaved = log.hasUnsaved
      ? log.takeUnsaved(outbox.nextSequence)
      : { truncateFrom: undefined, entries: noEntries };
    return outbox.takePersist(hardState, { ...unsaved, snapshot: undefined });
  }

  #handle(input: Input): void {
    const core = this.#core;
    switch (input.kind) {
      case 'tick':
        return this.#tick();
      case 'campaign':
        return campaign(core);
      case 'message':
        return this.#receive(input.message);
      case 'propose':
        return propose(core, input.proposals);
      case 'read_index':
        return startRead(core, input.token);
      case 'reluctance':
        core.reluctant = input.reluctant;
        return;
      case 'transfer_leader':
        return startTransfer(core, input.target);
      case 'change_configuration':
        return changeConfiguration(core, input);
      case 'persisted':
        return this.#persisted(input.sequence);
      case 'applied':
        return appliedTo(core, input.index);
      case 'compact':
        return compactTo(core, input.index);
      case 'unreachable':
        return handleUnreachable(core, input.peer);
      case 'snapshot_sent':
        return handleSnapshotSent(core, input.peer, input.ok);
      default:
        return input satisfies never;
    }
  }

  #tick(): void {
    const core = this.#core;
    if (core.role !== 'leader') {
      tickForwardedReads(core);
      tickElection(core);
      return;
    }
    tickTransfer(core);
    core.electionElapsed += 1;
    if (core.electionElapsed >= core.settings.electionTicks) {
      core.electionElapsed = 0;
      checkQuorum(core);
    }
    tickHeartbeat(core);
  }

  #persisted(sequence: number): void {
    const core = this.#core;
    if (!core.outbox.persisted(sequence)) return;
    core.log.persisted(sequence);
    finishInstall(core);
    countOwnVote(core);
    advanceCommit(core);
  }

  #receive(message: Message): void {
    const core = this.#core;
    if (message.to !== core.id || message.from === core.id) {
      violated(
        `member ${core.id} was given a message from ${message.from} to ${message.to}: check its connections`,
      );
    }
    // A pre-vote moves no term, whoever asks; its answers are told apart by the campaign's term.
    if (message.kind === 'pre_vote_request') return handlePreVoteRequest(core, message);
    if (isDisruptive(core, message)) return;
    if (message.term > core.term) becomeFollower(core, message.term, undefined);
    else if (message.term < core.term && message.kind !== 'pre_vote_response')
      return this.#answerStale(message);
    this.#dispatch(message);
  }

  /** The sender learns of the newer term from any answer, and can take part again instead of being stuck. */
  #answerStale(message: Message): void {
    const core = this.#core;
    switch (message.kind) {
      case 'append_request':
      case 'heartbeat_request':
      case 'install_snapshot':
        return core.send(message.from, { kind: 'heartbeat_response', readRound: 0 });
      case 'vote_request':
        return core.send(message.from, { kind: 'vote_response', granted: false });
      case 'read_request':
        return core.send(message.from, { kind: 'read_response', context: message.context, index: undefined });
      case 'pre_vote_request':
      case 'pre_vote_response':
      case 'vote_response':
      case 'append_response':
      case 'heartbeat_response':
      case 'read_response':
      case 'timeout_now':
        return;
      default:
        return message satisfies never;
    }
  }

  #dispatch(message: Message): void {
    const core = this.#core;
    switch (message.kind) {
      case 'pre_vote_request':
        return handlePreVoteRequest(core, message);
      case 'pre_vote_response':
        return handlePreVoteResponse(core, message);
      case 'vote_request':
        return handleVoteRequest(core, message);
      case 'vote_response':
        return handleVoteResponse(core, message);
      case 'append_request':
        return handleAppendRequest(core, message);
      case 'append_response':
        return handleAppendResponse(core, message);
      case 'heartbeat_request':
        return handleHeartbeatRequest(core, message);
      case 'heartbeat_response':
        handleHeartbeatResponse(core, message);
        return confirmReads(core);
      case 'install_snapshot':
        return handleInstallSnapshot(core, message);
      case 'read_request':
        return handleReadRequest(core, message.from, message.context);
      case 'read_response':
        return handleReadResponse(core, message.context, message.index);
      case 'timeout_now':
        return campaignByTransfer(core);
      default:
        return message satisfies never;
    }
  }
}
