/**
 * Who takes part, as this server knows it: the members that count, whom it has links with and lets in, and on a leader
 * the way from what is wanted of the members (the store's records) to raft's configuration.
 */
import type { PeerBatch, PeerPresence, PeerRefusal, PeerTransport } from '../peers/index.ts';
import { isMemberName } from '../protocol/index.ts';
import {
  asMemberId,
  membersOf,
  type Configuration,
  type Dropped,
  type Entry,
  type MemberId,
  type Message,
  type Raft,
  type RaftStatus,
  type SoftState,
} from '../raft/index.ts';
import type { PeerWrite } from '../storage/index.ts';
import { decodeLogEntry, type MemberRecord, type Store } from '../store/index.ts';
import type { Environment, Logger } from './environment.ts';
import { MemberDirectory, type MemberDescription } from './member-directory.ts';
import type { RememberedPeer } from './peer-records.ts';
import { PeerMemory } from './runs.ts';

/** Entries that a learner may lack to be made a voter; raft refuses it beyond the same. */
export const promotionLagMax = 1000;

/** A member whose link is up has to be heard this often to count as there; it tells of itself once a second. */
const silenceMaxMs = 5000;

/** One that the log does not know (yet) and that is not heard for so long has no link any more, until it comes again. */
const strangerSilenceMaxMs = 60_000;

/** Who is to be a member in the end. Sorted. */
interface WantedMembers {
  readonly voters: readonly MemberId[];
  readonly learners: readonly MemberId[];
}

/**
 * The configuration that the records ask for; the present one where they ask for nothing else, or for no voter at all.
 * `mayVote`: a learner that is far behind is not made a voter yet, and holds up no other change.
 */
export const wantedMembers = (
  { voters, learners }: Configuration,
  records: readonly MemberRecord[],
  mayVote: (learner: number) => boolean,
): WantedMembers => {
  const wanted = new Map(records.map((record) => [record.member, record.wanted]));
  const isNew = (id: number): boolean => !learners.some((each) => each === id);
  const wantedToVote = [...wanted].filter(([id, as]) => as === 'voter' && (isNew(id) || mayVote(id)));
  const votersNext = new Set<number>([...voters, ...wantedToVote.map(([id]) => id)]);
  const learnersNext = new Set<number>(learners);
  for (const [id, as] of wanted) {
    if (as === 'removed') votersNext.delete(id);
    if (as === 'removed' || votersNext.has(id)) learnersNext.delete(id);
    else if (as === 'learner') learnersNext.add(id);
  }
  if (votersNext.size === 0) return { voters, learners };
  const sorted = (ids: ReadonlySet<number>): MemberId[] => [...ids].sort((a, b) => a - b).map(asMemberId);
  return { voters: sorted(votersNext), learners: sorted(learnersNext) };
};

const same = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((id, at) => id === b[at]);

export const isCarriedOut = (configuration: Configuration, wanted: WantedMembers): boolean =>
  configuration.votersOutgoing.length === 0 &&
  same(configuration.voters, wanted.voters) &&
  same(configuration.learners, wanted.learners);

export interface MembershipOptions {
  readonly self: number;
  /** As the configuration file names them. */
  readonly members: readonly MemberDescription[];
  readonly raft: Raft;
  readonly store: () => Store;
  readonly soft: () => SoftState;
  readonly transport: PeerTransport;
  readonly environment: Environment;
  readonly logger: Logger;
  /** What its peers have told this server before it was started, by member. */
  readonly told: ReadonlyMap<number, RememberedPeer>;
  /** What this server's log has beyond its state at the start. */
  readonly unapplied: readonly Entry[];
  /** Once: the cluster has removed this server, and will never let it in again. */
  readonly onRemoved: (reason: string) => void;
  /** For certain, the disk of this server lacks what the cluster has heard from it. */
  readonly onOutdated: (reason: string) => void;
}

export class Membership {
  readonly #options: MembershipOptions;
  readonly #directory: MemberDirectory;
  readonly #memory: PeerMemory;
  /** Of the peers that have let this server in: the protocol's version. */
  readonly #linked = new Map<number, number>();
  readonly #heardMs = new Map<number, number>();
  /** Of those who have come without being known as members: when they were heard last. */
  readonly #strangersMs = new Map<number, number>();
  /** Those with whom there are to be links. */
  #peers: ReadonlySet<number> = new Set();
  #configuration: Configuration;
  /** What `refresh` has been done for. */
  #seen: { readonly records: readonly MemberRecord[]; readonly leader: number | undefined } | undefined;
  #lastToken = 0;
  #refusedFor: Dropped['reason'] | undefined;
  #removed = false;

  constructor(options: MembershipOptions) {
    this.#options = options;
    this.#directory = new MemberDirectory(options.members);
    this.#memory = new PeerMemory(options.told);
    this.#configuration = options.raft.status().configuration;
    for (const entry of options.unapplied) {
      if (entry.kind !== 'commands') continue;
      for (const command of decodeLogEntry(entry.payload).commands)
        if (command.kind === 'server_started') this.#memory.announced(command.member, command);
    }
    this.refresh();
  }

  /** The one that counts. */
  get configuration(): Configuration {
    return this.#configuration;
  }

  get directory(): MemberDirectory {
    return this.#directory;
  }

  get others(): readonly number[] {
    return this.#directory.current.map(({ id }) => id).filter((id) => id !== this.#options.self);
  }

  /** Where agents reach the members, as far as is known here. */
  get endpoints(): readonly string[] {
    return this.#directory.current.map(({ agentsUrl }) => agentsUrl).filter((url) => url !== '');
  }

  get isAlone(): boolean {
    return same(membersOf(this.#configuration), [this.#options.self]);
  }

  get isLearner(): boolean {
    const { voters, votersOutgoing } = this.#configuration;
    const own = (id: number): boolean => id === this.#options.self;
    return !voters.some(own) && !votersOutgoing.some(own);
  }

  // ---- links ----

  /**
   * Why this peer may not take part; undefined: it may. Who says that it is this peer has proved it only if it is one. One
   * that may have been added while this server was away is taken for a peer until the log tells, for it may be the
   * leader. That counts for nothing: whose votes and entries count raft knows by the log alone, and whom raft follows or
   * votes for need not be a member by it.
   */
  accept(member: number, presence: PeerPresence): PeerRefusal | undefined {
    const { store } = this.#options;
    const isKnown = this.#peers.has(member);
    if (!isKnown && this.#directory.isGone(member)) return this.#refusalOfGone(member);
    if (!isKnown && !this.#directory.has(member) && this.#isFounderOfAnother(presence)) {
      const reason =
        `member ${member} is not known here as a member, and has begun a cluster of its own: ` +
        'add it, and start it with --join on an empty data directory';
      return { reason, removed: false };
    }
    if (!isKnown && !this.#takeProvisionally(member, presence)) {
      const reason = `member ${member} is not known here as a member (yet): it has to be added`;
      return { reason, removed: false };
    }
    const refusal = this.#memory.refusalOf(member, store().server(member), presence);
    if (refusal === undefined) return undefined;
    const { reason, outdated } = refusal;
    return { reason, removed: false, ...(outdated && { outdated }) };
  }

  /** Whoever began this cluster is a member, or has been one; who was added later has an empty log, and waits, at first. */
  #isFounderOfAnother({ standing }: PeerPresence): boolean {
    return standing?.founds === true && this.#configuration.voters.length > 0;
  }

  #takeProvisionally(member: number, { introduction }: PeerPresence): boolean {
    if (introduction === undefined || !isMemberName(introduction.name)) return false;
    const { name, address } = introduction;
    if (!this.#directory.takeProvisionally(member, name, address)) return false;
    const { environment, logger } = this.#options;
    logger.info({ peer: member, name, address }, 'a server that is not known here (yet) is linked');
    this.#strangersMs.set(member, environment.monotonicMs());
    this.#follow();
    return true;
  }

  /** Those whom the log has not made members are let go when they are not heard any more. */
  tick(nowMs: number): void {
    const silent = this.#directory.strangers.filter(
      (id) => nowMs - (this.#strangersMs.get(id) ?? -Infinity) > strangerSilenceMaxMs,
    );
    if (silent.length === 0) return;
    for (const id of silent) {
      this.#directory.forget(id);
      this.#memory.forget(id);
    }
    this.#follow();
  }

  #refusalOfGone(member: number): PeerRefusal {
    const { store, raft } = this.#options;
    const isLeaving = store().members.some((record) => record.member === member);
    // Before that who has left may still be needed for an election.
    const removed = !isLeaving && raft.status().changeSettled;
    return {
      reason: `member ${member} ${removed ? 'has been' : 'is being'} removed from the cluster`,
      removed,
    };
  }

  /** A peer has refused this server. */
  refused({ reason, removed, outdated }: PeerRefusal): void {
    if (outdated === true) return this.#options.onOutdated(reason);
    if (!removed || this.#removed) return;
    this.#removed = true;
    const { logger, onRemoved, self } = this.#options;
    logger.warn(
      { code: 'MEMBER_REMOVED', member: self, reason },
      'this server has been removed from the cluster; its data directory is of no use any more',
    );
    onRemoved(reason);
  }

  connected(peer: number, version: number): void {
    this.#linked.set(peer, version);
  }

  disconnected(peer: number): void {
    this.#linked.delete(peer);
    this.#heardMs.delete(peer);
  }

  heard(peer: number, run: number, { raft, status }: PeerBatch): void {
    const nowMs = this.#options.environment.monotonicMs();
    this.#heardMs.set(peer, nowMs);
    if (this.#strangersMs.has(peer)) this.#strangersMs.set(peer, nowMs);
    for (const message of raft) this.#memory.heard(peer, run, message);
    if (status !== undefined) this.#memory.heardApplied(peer, run, status.appliedIndex);
  }

  /** What of it has to be written, so that the next start knows it; once. Strangers must become members first. */
  takePeerWrites(): readonly PeerWrite[] {
    return this.#memory.takeWrites((id) => this.#directory.has(id));
  }

  /**
   * Who waits to be added knows nobody's disk, and has nothing itself that a candidate could lack: one that was wiped,
   * and has begun anew, could win its vote. A cluster that adds servers has a log.
   */
  mayTake(message: Message): boolean {
    const isVoteRequest = message.kind === 'vote_request' || message.kind === 'pre_vote_request';
    return !isVoteRequest || message.lastIndex > 0 || this.#configuration.voters.length > 0;
  }

  isReachable(member: number): boolean {
    if (member === this.#options.self) return true;
    const heardMs = this.#heardMs.get(member);
    return (
      this.#linked.has(member) &&
      heardMs !== undefined &&
      this.#options.environment.monotonicMs() - heardMs < silenceMaxMs
    );
  }

  /** Of the peer protocol, as agreed with it; undefined: there is no link. */
  versionOf(member: number): number | undefined {
    return this.#linked.get(member);
  }

  // ---- what is the case, and what is wanted ----

  /** Raft has been told of an applied configuration entry, or of a snapshot that was installed. */
  configurationChanged(): void {
    this.#configuration = this.#options.raft.status().configuration;
    this.#seen = undefined;
  }

  /** A snapshot is the state now: what came before it is not known. */
  restarted(): void {
    this.configurationChanged();
    this.refresh();
  }

  /** Follows the records, the configuration and the leader. Costs nothing while they stay the same, and gives false. */
  refresh(): boolean {
    const { members: records } = this.#options.store();
    const { leader } = this.#options.soft();
    if (this.#seen?.records === records && this.#seen.leader === leader) return false;
    this.#seen = { records, leader };
    this.#follow();
    this.#warnOfUnknown();
    return true;
  }

  /** Whose disk this member has is in the log now: who came with another one before is not let in any more. */
  startApplied(member: number): void {
    if (this.#peers.has(member)) this.#follow();
  }

  /** The links become those that are to be. */
  #follow(): void {
    const { store, soft, self, transport } = this.#options;
    const { members, lastMember } = store();
    this.#directory.update(this.#configuration, members, lastMember);
    const peers = this.#directory.peers(self, soft().leader);
    this.#peers = new Set(peers.map(({ id }) => id));
    this.#memory.forgetAll((id) => !this.#peers.has(id) && this.#directory.isGone(id));
    for (const known of [this.#linked, this.#heardMs, this.#strangersMs])
      for (const id of known.keys()) if (!this.#peers.has(id)) known.delete(id);
    transport.setMembers(peers);
  }

  #warnOfUnknown(): void {
    const nameless = this.#directory.current.filter(
      ({ id, name }) => name === '' && id !== this.#options.self,
    );
    if (nameless.length === 0) return;
    this.#options.logger.warn(
      { members: nameless.map(({ id }) => id) },
      'the addresses of these members are not known here: add them to cluster.members of the configuration file',
    );
  }

  get wanted(): WantedMembers {
    return wantedMembers(this.#configuration, this.#options.store().members, () => true);
  }

  /** Also where all that vote are to leave, which waits until others do. */
  get isChanging(): boolean {
    const members = membersOf(this.#configuration);
    const leaves = ({ member, wanted }: MemberRecord): boolean =>
      wanted === 'removed' && members.some((id) => id === member);
    return (
      !isCarriedOut(this.#configuration, this.wanted) ||
      this.#options.store().members.some(leaves) ||
      this.#options.raft.status().changePending
    );
  }

  /** On a leader: asks raft for what is wanted. What it refuses is asked again at a later tick. */
  drive(): void {
    const { raft, store } = this.#options;
    const { members } = store();
    if (members.length === 0) return;
    const { configuration, changePending, changeSettled, progress, lastIndex } = raft.status();
    if (changePending || !changeSettled) return;
    const wanted = wantedMembers(configuration, members, (learner) => {
      const peer = progress.find(({ id }) => id === learner);
      return peer?.state === 'replicate' && lastIndex - peer.match <= promotionLagMax;
    });
    if (isCarriedOut(configuration, wanted) || !this.#canAgree(wanted.voters, progress)) return;
    this.#lastToken += 1;
    raft.step({ kind: 'change_configuration', token: this.#lastToken, ...wanted });
  }

  /**
   * Most of these are there. When the change was asked for they were, but one may have died since, or others may have
   * been asked for meanwhile; begun now, the change would leave a cluster that can't even be told to undo it.
   */
  #canAgree(voters: readonly MemberId[], progress: RaftStatus['progress']): boolean {
    const isThere = (id: MemberId): boolean =>
      progress.find((peer) => peer.id === id)?.recentlyActive ?? this.isReachable(id);
    return voters.filter(isThere).length * 2 > voters.length;
  }

  /** Raft could not begin the change. */
  dropped({ reason }: Dropped): void {
    if (this.#refusedFor === reason) return;
    this.#refusedFor = reason;
    this.#options.logger.debug({ reason }, 'the change of members cannot be begun yet; it is tried again');
  }
}
