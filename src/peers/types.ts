/** The links between servers: what a server tells its peers and hears from them. */
import type { MemberId, Message, SnapshotPoint, Term } from '../raft/index.ts';
import type { SnapshotPart } from '../storage/index.ts';

export interface PeerStatus {
  readonly name: string;
  readonly role: string;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly keys: number;
  readonly connections: number;
  readonly version: string;
  /** It takes no agents, and does not lead if another one can. Told to peers of protocol version 5. */
  readonly draining?: true;
}

/** All for one peer in one turn of the loop: one frame. */
export interface PeerBatch {
  readonly raft: readonly Message[];
  /** Encoded commands for the leader's log, in the sender's order. */
  readonly forward: readonly Uint8Array[];
  /** The term in which the receiver is taken for the leader. */
  readonly forwardTerm: number;
  /** The sender's estimate of cluster time, if it leads. */
  readonly leaderTimeMs?: number;
  readonly status?: PeerStatus;
  /** To the leader: hand leadership over to this member. Only to peers of protocol version 2. */
  readonly transferTo?: MemberId;
  /** Only to and from peers of protocol version 5, as is the outcome. */
  readonly agentsOrder?: NumberedOrder;
  readonly agentsOutcome?: NumberedOutcome;
}

/** So many agents are to go to this endpoint; '': anywhere else. */
export interface AgentsMove {
  readonly endpoint: string;
  readonly agents: number;
}

/** What an operator wants of a server's agents. */
export type AgentsOrder =
  /** Take none any more, send away those that are there, do not lead. `graceMs` absent: as the server thinks best. */
  | { readonly kind: 'drain'; readonly graceMs?: number }
  /** Take them again. */
  | { readonly kind: 'admit' }
  | { readonly kind: 'move'; readonly graceMs: number; readonly moves: readonly AgentsMove[] };

export interface AgentsOutcome {
  /** Why it is not carried out; undefined: it is. */
  readonly refusal: string | undefined;
  /** That the server has; of a move: that are on their way. */
  readonly agents: number;
  readonly graceMs: number;
  readonly leader: number | undefined;
}

/** `id`: the asker's own in its run; the order is sent again under it until there is an outcome. */
export interface NumberedOrder {
  readonly id: number;
  readonly order: AgentsOrder;
}

export interface NumberedOutcome {
  readonly id: number;
  readonly outcome: AgentsOutcome;
}

/** A server of the cluster as its peers reach it. Two members may have one name while one replaces the other. */
export interface PeerAddress {
  readonly id: MemberId;
  /** The CN of its certificate. */
  readonly name: string;
  /** 'host:port' or '[IPv6]:port'. */
  readonly address: string;
}

/** Where a server's disk stands; all durable. */
export interface PeerStanding {
  readonly term: number;
  /** The end of its log. */
  readonly lastIndex: number;
  /** It begins a cluster: its log is empty, and who counts for it are the members that its file names. */
  readonly founds?: boolean;
}

/** The runs that a disk had, as numbers of `makeRun`. */
export interface PeerLineage {
  /** Of those from this start on; what was before is not known. */
  readonly since: number;
  /** Before the present one, oldest first, at most `lineageMax`. Where there were more, some are left out. */
  readonly runs: readonly number[];
}

/** What a server says of itself when it makes a link. */
export interface PeerPresence {
  /** See `makeRun`. */
  readonly run: number;
  readonly diskId: Uint8Array;
  /** undefined: from a server of protocol version 1. */
  readonly standing?: PeerStanding;
  /** undefined: from a server of protocol version 1 or 2. */
  readonly lineage?: PeerLineage;
  /**
   * Who it is and where it is reached: the name by its certificate, which has been verified, the address by its own
   * word. Of use for one of whom nothing else is known. undefined: it is of protocol version 1.
   */
  readonly introduction?: { readonly name: string; readonly address: string };
}

/** Why a peer may not take part. */
export interface PeerRefusal {
  readonly reason: string;
  /** It has been removed from the cluster: it will never be let in again. */
  readonly removed: boolean;
  /** For certain, its disk lacks what its server has told the cluster: it will never be let in with it. */
  readonly outdated?: true;
}

/**
 * undefined: it may take part. Who is in no list is asked about as well: it may only if it is in the list when the answer
 * comes (`setMembers` may be called meanwhile).
 */
export type AcceptPeer = (member: MemberId, presence: PeerPresence) => PeerRefusal | undefined;

export interface SnapshotStreamPart {
  /** The leader's when it began to send. */
  readonly term: Term;
  readonly point: SnapshotPoint;
  readonly part: SnapshotPart;
}

/** What a server does with what it hears. All methods return at once. */
export interface PeerEvents {
  /** `run`: of the sender, one that this process has let in. */
  received(from: MemberId, run: number, batch: PeerBatch): void;
  /** An outgoing link is up (again): everything sent before may be lost. `version`: of the protocol, as agreed. */
  connected(peer: MemberId, version: number): void;
  /** The peer has refused a link of this server. It is asked again and again. */
  refused(peer: MemberId, refusal: PeerRefusal): void;
  disconnected(peer: MemberId): void;
  /** A part of a snapshot. The next one of this stream is read only when the promise is resolved; rejected: refuse. */
  snapshotPart(from: MemberId, stream: SnapshotStreamPart): Promise<void>;
}

/** Streams of snapshots and frames to peers. Real: TLS; in tests and simulation: in memory. */
export interface PeerTransport {
  start(events: PeerEvents): Promise<void>;
  /**
   * From now on these are the other members (this server's own entry is ignored): links to and from others are
   * closed, links to new ones are made; where only the address is new, the next attempt takes it. Of those whose links
   * are open already it is asked again whether they may take part.
   */
  setMembers(members: readonly PeerAddress[]): void;
  /** Drops the batch when the link is down or its buffer is full, and says so by false. */
  send(to: MemberId, batch: PeerBatch): boolean;
  /**
   * Sends a snapshot on a link of its own, reading parts as the receiver takes them. Resolves when the receiver has
   * taken the last one; rejects when the link breaks or the receiver refuses.
   */
  sendSnapshot(to: MemberId, term: Term, source: SnapshotSource): Promise<void>;
  close(): Promise<void>;
}

export interface SnapshotSource {
  readonly point: SnapshotPoint;
  next(): Promise<SnapshotPart | undefined>;
}
