/** The state that the parts of the core share. It never leaves this room. */

import { isVoter } from './configuration.ts';
import type { Log } from './log.ts';
import type { Outbox } from './outbox.ts';
import type { Progress } from './progress.ts';
import type { ForwardedReads, LeaderReads } from './read-index.ts';
import type { Settings } from './settings.ts';
import { asLogIndex } from './types.ts';
import type {
  Configuration,
  HardState,
  LogIndex,
  MemberId,
  Message,
  MessageBody,
  Role,
  SnapshotPoint,
  Term,
} from './types.ts';

interface Transfer {
  readonly target: MemberId;
  elapsedTicks: number;
  /** timeout_now was sent. */
  asked: boolean;
}

/** There is one exactly while this member leads. */
export interface Leadership {
  /** All other members, sorted. */
  peers: readonly Progress[];
  readonly reads: LeaderReads;
  heartbeatElapsed: number;
  transfer: Transfer | undefined;
  /**
   * An empty entry that this leader appended after it had applied the configuration that counts: whoever has it on
   * disk also has on disk that this configuration is committed. undefined: not appended yet.
   */
  seal: LogIndex | undefined;
}

/** A snapshot that this member was given; until it is on disk the old log stands. */
export interface Install {
  readonly snapshot: SnapshotPoint;
  /** The write that contains it; undefined: not given out yet. */
  sequence: number | undefined;
}

export interface CoreStart {
  readonly id: MemberId;
  readonly settings: Settings;
  readonly random: () => number;
  readonly log: Log;
  readonly outbox: Outbox;
  readonly forwardedReads: ForwardedReads;
  readonly baseConfiguration: Configuration;
  readonly configuration: Configuration;
  readonly term: Term;
  readonly vote: MemberId | undefined;
}

export class Core {
  readonly id: MemberId;
  readonly settings: Settings;
  readonly log: Log;
  readonly outbox: Outbox;
  readonly forwardedReads: ForwardedReads;
  readonly #random: () => number;

  /** The one at the log's base. */
  baseConfiguration: Configuration;
  /** Of the last applied entry. Changed by `switchConfiguration` only. */
  configuration: Configuration;
  term: Term;
  vote: MemberId | undefined;
  role: Role = 'follower';
  leader: MemberId | undefined;
  leadership: Leadership | undefined;
  install: Install | undefined;
  /** A leader has told that the configurations up to this index are settled; that stays true whoever leads. */
  settledTo = asLogIndex(0);
  /** In the present campaign. */
  readonly votes = new Map<MemberId, boolean>();
  /** The present campaign was asked for by the leader. */
  campaignIsTransfer = false;
  /** Ticks since the leader was heard, a vote was granted or a campaign began; on a leader since the last check of the quorum. */
  electionElapsed = 0;
  /** On one that may not campaign, or not yet: election timeouts since a leader was heard. */
  quietTimeouts = 0;
  /** Up to where the leader of `toldTerm` has been told, or will be once it is on disk, that its log is here. */
  toldTerm = 0;
  toldIndex = 0;
  /** It is to lead only where nobody else can. */
  reluctant = false;
  electionTimeout: number;

  constructor(start: CoreStart) {
    this.id = start.id;
    this.settings = start.settings;
    this.#random = start.random;
    this.log = start.log;
    this.outbox = start.outbox;
    this.forwardedReads = start.forwardedReads;
    this.baseConfiguration = start.baseConfiguration;
    this.configuration = start.configuration;
    this.term = start.term;
    this.vote = start.vote;
    this.electionTimeout = this.#drawTimeout();
  }

  get hardState(): HardState {
    return { term: this.term, vote: this.vote, commit: this.log.commit };
  }

  get isVoter(): boolean {
    return isVoter(this.configuration, this.id);
  }

  /** A leader that is about to go takes nothing new: to another, or because it does not vote any more. */
  get isHandingOver(): boolean {
    return this.leadership !== undefined && (this.leadership.transfer !== undefined || !this.isVoter);
  }

  /** The term and vote are on this disk. */
  get hardStateIsDurable(): boolean {
    return this.outbox.writeOfHardState(this.term, this.vote) === 0;
  }

  progressOf(id: MemberId): Progress | undefined {
    return this.leadership?.peers.find((peer) => peer.id === id);
  }

  restartElectionTimer(): void {
    this.electionElapsed = 0;
    this.electionTimeout = this.#drawTimeout();
  }

  /**
   * A campaign that comes to nothing (refused by one that heard the leader a moment longer, or votes split) is tried
   * again in half the time: by then there is no leader whom it could disturb.
   */
  startCampaignTimer(): void {
    this.electionElapsed = 0;
    this.electionTimeout = Math.max(1, Math.ceil(this.#drawTimeout() / 2));
  }

  /** Leaves as soon as the term (and vote) that it carries is on disk. */
  send(to: MemberId, body: MessageBody): void {
    this.#post(to, body, 0);
  }

  /** As `send`, and not before the log is on disk up to `index`. */
  sendWhenDurable(to: MemberId, body: MessageBody, index: LogIndex): void {
    this.#post(to, body, this.log.writeOf(index, this.outbox.nextSequence));
  }

  /** As `send`, and not before the write with this sequence. */
  sendAfterWrite(to: MemberId, body: MessageBody, sequence: number): void {
    this.#post(to, body, sequence);
  }

  #post(to: MemberId, body: MessageBody, sequence: number): void {
    const message: Message = { from: this.id, to, term: this.term, ...body };
    this.outbox.post(message, Math.max(sequence, this.outbox.writeOfHardState(this.term, this.vote)));
  }

  /** Raft §9.3: spread, so that campaigns seldom collide. */
  #drawTimeout(): number {
    const { electionTicks } = this.settings;
    return electionTicks + Math.floor(this.#random() * electionTicks);
  }
}
