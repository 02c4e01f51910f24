/** The vocabulary of raft: numbers, entries, messages, and what goes into and comes out of the core. */

declare const brand: unique symbol;
type Branded<Name> = number & { readonly [brand]: Name };

/** 0 before the first election. */
export type Term = Branded<'Term'>;
/** 1 for the first entry; 0 means "before the log". */
export type LogIndex = Branded<'LogIndex'>;
/** 1, 2, 3, …: a server as Raft counts it. Never used again for another server. */
export type MemberId = Branded<'MemberId'>;
/** Chosen by the caller of `propose` and `read_index`; comes back in `reads` or `dropped`. */
export type Token = number;

const checked = (what: string, value: number, least: number): number => {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(`${what} must be a safe integer of at least ${least}, got ${value}`);
  }
  return value;
};
export const asTerm = (value: number): Term => checked('a term', value, 0) as Term;
export const asLogIndex = (value: number): LogIndex => checked('a log index', value, 0) as LogIndex;
export const asMemberId = (value: number): MemberId => checked('a member id', value, 1) as MemberId;

/** `empty`: the one that a new leader writes to commit what earlier terms left. */
export type EntryKind = 'empty' | 'commands' | 'configuration';

export interface Entry {
  readonly term: Term;
  readonly index: LogIndex;
  readonly kind: EntryKind;
  /** Opaque to raft. */
  readonly payload: Uint8Array;
}

/** Raft §5: on disk before anything that depends on it leaves. */
export interface HardState {
  readonly term: Term;
  /** Who got this member's vote in `term`. */
  readonly vote: MemberId | undefined;
  /** May lag behind what is really committed; never ahead. */
  readonly commit: LogIndex;
}

/** Who counts. Outside of a joint change `votersOutgoing` and `learnersNext` are empty. Lists are sorted. */
export interface Configuration {
  readonly voters: readonly MemberId[];
  readonly votersOutgoing: readonly MemberId[];
  readonly learners: readonly MemberId[];
  readonly learnersNext: readonly MemberId[];
  readonly autoLeave: boolean;
}

/** Up to here the log has been replaced by state. */
export interface SnapshotPoint {
  readonly index: LogIndex;
  readonly term: Term;
  readonly configuration: Configuration;
}

/** `term` is the sender's present term (also of a pre-vote, whose own term is `campaignTerm`). */
export type Message = { readonly from: MemberId; readonly to: MemberId; readonly term: Term } & MessageBody;

export type MessageBody =
  | {
      readonly kind: 'pre_vote_request';
      /** The term that the sender would campaign in. */
      readonly campaignTerm: Term;
      readonly lastIndex: LogIndex;
      readonly lastTerm: Term;
    }
  | { readonly kind: 'pre_vote_response'; readonly campaignTerm: Term; readonly granted: boolean }
  | {
      readonly kind: 'vote_request';
      readonly lastIndex: LogIndex;
      readonly lastTerm: Term;
      /** The present leader asked for it: stickiness does not apply. */
      readonly transfer: boolean;
    }
  | { readonly kind: 'vote_response'; readonly granted: boolean }
  | {
      readonly kind: 'append_request';
      readonly previousIndex: LogIndex;
      readonly previousTerm: Term;
      readonly commit: LogIndex;
      /** Follow `previousIndex` without a gap. */
      readonly entries: readonly Entry[];
    }
  | {
      readonly kind: 'append_response';
      readonly outcome:
        | { readonly accepted: true; /** Durable up to here. */ readonly matchIndex: LogIndex }
        | {
            readonly accepted: false;
            /** The previousIndex that did not match. */
            readonly rejectedIndex: LogIndex;
            /** The last place at which the logs may still agree, and its term there. */
            readonly hintIndex: LogIndex;
            readonly hintTerm: Term;
          };
    }
  | {
      readonly kind: 'heartbeat_request';
      readonly commit: LogIndex;
      readonly readRound: number;
      /** The configuration that counts at this index is settled (`changeSettled`), and all before it; 0: says nothing. */
      readonly settledTo: LogIndex;
    }
  | { readonly kind: 'heartbeat_response'; readonly readRound: number }
  /** Sent by the server when it has streamed the whole snapshot; the receiver's storage has it staged. */
  | { readonly kind: 'install_snapshot'; readonly snapshot: SnapshotPoint }
  | { readonly kind: 'read_request'; readonly context: number }
  | {
      readonly kind: 'read_response';
      readonly context: number;
      /** undefined: refused, ask again. */
      readonly index: LogIndex | undefined;
    }
  | { readonly kind: 'timeout_now' };

export interface Proposal {
  readonly token: Token;
  readonly payload: Uint8Array;
}

export type Input =
  /** One unit of time. */
  | { readonly kind: 'tick' }
  /** Campaign now, whatever the timer says. */
  | { readonly kind: 'campaign' }
  | { readonly kind: 'message'; readonly message: Message }
  /** On a leader: appended in order. Anywhere else: dropped (and reported). */
  | { readonly kind: 'propose'; readonly proposals: readonly Proposal[] }
  /** Anywhere: a follower asks the leader. */
  | { readonly kind: 'read_index'; readonly token: Token }
  | { readonly kind: 'transfer_leader'; readonly target: MemberId }
  /** From now on it campaigns only when others have not come to lead in several election timeouts. Not kept on disk. */
  | { readonly kind: 'reluctance'; readonly reluctant: boolean }
  /**
   * On a leader: make these the members, by one entry or, where more than one voter changes, by a joint change that
   * the leader of that time leaves by itself. Dropped (and reported) where it cannot be begun now. Sorted or not; no
   * member in both lists.
   */
  | {
      readonly kind: 'change_configuration';
      readonly token: Token;
      readonly voters: readonly MemberId[];
      readonly learners: readonly MemberId[];
    }
  /** The write with this sequence, and all before it, are on disk. */
  | { readonly kind: 'persisted'; readonly sequence: number }
  /** The state machine has applied all up to this index. */
  | { readonly kind: 'applied'; readonly index: LogIndex }
  /** Forget the log up to and including this index (at most the applied one). */
  | { readonly kind: 'compact'; readonly index: LogIndex }
  /** A message to this peer could not be sent. */
  | { readonly kind: 'unreachable'; readonly peer: MemberId }
  /** The stream asked for by `Ready.snapshots` has ended. */
  | { readonly kind: 'snapshot_sent'; readonly peer: MemberId; readonly ok: boolean };

export interface Persist {
  /** 1, 2, 3, …: what `persisted` gives back. */
  readonly sequence: number;
  readonly hardState?: HardState;
  /** Delete the entries from here on first (in the same atomic write). */
  readonly truncateFrom?: LogIndex;
  readonly entries: readonly Entry[];
  /** Activate the staged snapshot for this point in the same atomic write; the log before and after it goes. */
  readonly snapshot?: SnapshotPoint;
  /** false: only the commit index moved, which may be lost. */
  readonly mustSync: boolean;
  /** Leave only when this write is on disk. */
  readonly afterDurable: readonly Message[];
}

export type DropReason =
  | 'not_leader'
  | 'no_leader'
  | 'transferring'
  | 'too_much_uncommitted'
  | 'too_many_reads'
  | 'lost_leadership'
  /** A change of the configuration: an earlier one is not applied yet, or the cluster is in a joint one. */
  | 'change_pending'
  /** A change of the configuration: no entry of this leadership is committed yet. */
  | 'not_ready'
  /** A change of the configuration: a learner that is to vote lacks too much of the log. */
  | 'learner_behind'
  /** A change of the configuration that would leave no voter. */
  | 'no_voters';

export interface Dropped {
  readonly kind: 'proposal' | 'read' | 'change';
  readonly token: Token;
  readonly reason: DropReason;
}

export type Role = 'follower' | 'pre_candidate' | 'candidate' | 'leader';

export interface SoftState {
  readonly role: Role;
  readonly term: Term;
  readonly leader: MemberId | undefined;
}

/** Everything to be done. The caller does it in this order of fields; nothing of it may be left out. */
export interface Ready {
  /** May leave now. */
  readonly send: readonly Message[];
  readonly persist?: Persist;
  /** Committed, and durable here. Answer with `applied`. */
  readonly apply?: { readonly entries: readonly Entry[] };
  /** May be answered once `index` has been applied. */
  readonly reads: readonly { readonly token: Token; readonly index: LogIndex }[];
  readonly dropped: readonly Dropped[];
  /** Stream a snapshot to these; answer with `snapshot_sent`. */
  readonly snapshots: readonly { readonly to: MemberId; readonly term: Term }[];
  /** Present when it changed. */
  readonly soft?: SoftState;
}

export interface RaftOptions {
  readonly id: MemberId;
  /** As recovered from disk. */
  readonly hardState: HardState;
  readonly snapshot: SnapshotPoint;
  /** Follow `snapshot.index` without a gap; all of them are durable. */
  readonly entries: readonly Entry[];
  /** `snapshot.index` <= applied. A commit behind it is raised to it. */
  readonly applied: LogIndex;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Ticks without a word from a leader before a campaign; drawn anew from [n, 2n) each time. Default 10. */
  readonly electionTicks?: number;
  /** Default 1. */
  readonly heartbeatTicks?: number;
  /** Append messages under way to one peer. Default 256. */
  readonly inflightMessagesMax?: number;
  /** Default 8 MiB. */
  readonly inflightBytesMax?: number;
  /** Payload in one append message (one larger entry goes alone). Default 1 MiB. */
  readonly appendBytesMax?: number;
  /** Proposals beyond it are dropped, unless nothing is uncommitted. Default 64 MiB. */
  readonly uncommittedBytesMax?: number;
  /** Payload in one `Ready.apply`. Default 4 MiB. */
  readonly applyBytesMax?: number;
  /** Reads waiting for confirmation. Default 10,000. */
  readonly pendingReadsMax?: number;
  /** Entries that a learner may lack when it is made a voter. Default 1000. */
  readonly promotionLagMax?: number;
}

export interface PeerProgress {
  readonly id: MemberId;
  readonly state: 'probe' | 'replicate' | 'snapshot';
  readonly match: LogIndex;
  readonly next: LogIndex;
  readonly recentlyActive: boolean;
  readonly inflightMessages: number;
  readonly inflightBytes: number;
}

export interface RaftStatus {
  readonly id: MemberId;
  readonly role: Role;
  readonly term: Term;
  readonly vote: MemberId | undefined;
  readonly leader: MemberId | undefined;
  readonly commit: LogIndex;
  readonly applied: LogIndex;
  /** The last entry on this disk. */
  readonly durable: LogIndex;
  readonly lastIndex: LogIndex;
  readonly firstIndex: LogIndex;
  /** Payload bytes of the entries kept in memory. */
  readonly logBytes: number;
  readonly uncommittedBytes: number;
  /**
   * The one that counts: of the last applied entry. On a server that waits to be added it is the first one in its log, if
   * there is one yet, committed or not.
   */
  readonly configuration: Configuration;
  /** A configuration entry is in the log and not applied, or the cluster is in a joint one: another change is refused. */
  readonly changePending: boolean;
  /**
   * A quorum has on its disks that `configuration` is committed, and it is not joint. Before that a member that is not in
   * it any more may still be needed for an election. A follower learns it from a heartbeat of the leader.
   */
  readonly changeSettled: boolean;
  readonly transferTarget: MemberId | undefined;
  /** On a leader: all other members, sorted. */
  readonly progress: readonly PeerProgress[];
}
