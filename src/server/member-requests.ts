/**
 * Requests about members, at the server that was asked. It refuses what would not be safe or possible as things stand;
 * what it lets pass goes through the log, and the leader carries it out.
 */
import type { Failure, Member, MemberList } from '../protocol/index.ts';
import type { Raft } from '../raft/index.ts';
import type { CommandBody, MemberRecord, Store } from '../store/index.ts';
import { askedBy } from './askers.ts';
import type { MemberDescription } from './member-directory.ts';
import { promotionLagMax, type Membership } from './membership.ts';
import type { GatewayRequest } from './port.ts';
import type { PeerStatuses } from './status.ts';

type Request<Kind extends GatewayRequest['kind']> = Extract<GatewayRequest, { readonly kind: Kind }>;
type AddRequest = Request<'member_add'>;
export type MemberChangeRequest = AddRequest | Request<'member_promote' | 'member_remove'>;

/** The first version of the peer protocol whose servers know members that are not in their files. */
const peerVersionLeast = 2;

export interface MemberRequestsOptions {
  readonly self: number;
  readonly membership: Membership;
  readonly store: () => Store;
  readonly statuses: PeerStatuses;
  readonly isDraining: (member: number) => boolean;
  readonly leader: () => number | undefined;
  readonly raft: Raft;
}

const notHeardYet = 'this server has not heard from the cluster yet: ask another one';

const majorityOf = (count: number): number => Math.floor(count / 2) + 1;

export class MemberRequests {
  readonly #options: MemberRequestsOptions;

  constructor(options: MemberRequestsOptions) {
    this.#options = options;
  }

  /** Why the members can't be told; undefined: they can. */
  get problemWithList(): Failure | undefined {
    if (this.#options.membership.configuration.voters.length > 0) return undefined;
    return { code: 'UNAVAILABLE', message: notHeardYet };
  }

  list(): MemberList {
    const { membership, store, leader } = this.#options;
    return {
      members: membership.directory.current.map((member) =>
        this.#line(
          member,
          store().members.find((record) => record.member === member.id),
        ),
      ),
      changePending: membership.isChanging,
      leader: leader(),
    };
  }

  #line(member: MemberDescription, record: MemberRecord | undefined): Member {
    const { membership } = this.#options;
    const { voters, votersOutgoing, learners, learnersNext } = membership.configuration;
    const isIn = (list: readonly number[]): boolean => list.includes(member.id);
    const isLearner = isIn(learners) || isIn(learnersNext);
    const isCounted = isIn(voters) || isIn(votersOutgoing) || isLearner;
    const leaves = record?.wanted === 'removed' || (!isIn(voters) && !isLearner);
    const standing = isIn(voters) ? 'voter' : 'learner';
    return {
      id: member.id,
      name: member.name,
      peersAddress: member.peersAddress,
      agentsUrl: member.agentsUrl,
      standing: !isCounted ? 'joining' : leaves ? 'leaving' : standing,
      wanted: record?.wanted ?? (isIn(voters) ? 'voter' : isLearner ? 'learner' : 'removed'),
      reachable: membership.isReachable(member.id),
      lag: this.#lagOf(member.id),
      joined: this.#options.store().server(member.id) !== undefined,
      ...(this.#options.isDraining(member.id) && { draining: true }),
    };
  }

  #lagOf(member: number): number {
    const { self, raft, statuses } = this.#options;
    const { commit, applied } = raft.status();
    // Of one that has never told of itself all is missing.
    return member === self ? commit - applied : (statuses.lagOf(member) ?? commit);
  }

  /** What is to be put into the log, or why not. */
  check(request: MemberChangeRequest): { readonly command: CommandBody } | { readonly failure: Failure } {
    const problem = this.#generalProblem() ?? this.#problemWith(request);
    if (problem !== undefined) return { failure: { code: 'MEMBERSHIP_REFUSED', message: problem } };
    return { command: this.#commandOf(request) };
  }

  #commandOf(request: MemberChangeRequest): CommandBody {
    const { membership, store } = this.#options;
    const by = askedBy(request.by, store().access !== undefined);
    if (request.kind !== 'member_add') return { kind: request.kind, member: request.member, ...by };
    const { name, peersAddress, agentsUrl, replaces = 0 } = request;
    const { current } = membership.directory;
    const least = Math.max(0, ...current.map(({ id }) => id)) + 1;
    return { kind: 'member_add', least, name, peersAddress, agentsUrl, replaces, ...by };
  }

  #generalProblem(): string | undefined {
    const { membership } = this.#options;
    if (membership.configuration.voters.length === 0) return notHeardYet;
    for (const { id, name } of membership.directory.current) {
      const version = membership.versionOf(id);
      if (version !== undefined && version < peerVersionLeast)
        return `${name} (member ${id}) runs a version that knows no changes of members: upgrade all servers first`;
    }
    return undefined;
  }

  #problemWith(request: MemberChangeRequest): string | undefined {
    switch (request.kind) {
      case 'member_add':
        return this.#problemWithAdding(request);
      case 'member_promote':
        return this.#problemWithPromoting(request.member);
      case 'member_remove':
        return this.#problemWithRemoving(request.member);
      default:
        return request satisfies never;
    }
  }

  #problemWithAdding({ name, peersAddress, agentsUrl, replaces }: AddRequest): string | undefined {
    const { membership, store } = this.#options;
    const alike = store().members.find((record) => record.name === name && record.wanted !== 'removed');
    const isAskedAgain =
      alike !== undefined && alike.peersAddress === peersAddress && alike.agentsUrl === agentsUrl;
    if (isAskedAgain && alike.member !== replaces) return undefined;
    for (const other of membership.directory.current) {
      if (other.id === replaces || this.#recordOf(other.id)?.wanted === 'removed') continue;
      const advice = 'take another one, or replace that member';
      if (other.name === name) return `the name ${name} is that of member ${other.id}: ${advice}`;
      if (other.peersAddress === peersAddress)
        return `the peers' address ${peersAddress} is that of member ${other.id} (${other.name}): ${advice}`;
    }
    return replaces === undefined ? undefined : this.#problemWithReplacing(replaces);
  }

  #problemWithReplacing(member: number): string | undefined {
    const { membership } = this.#options;
    const unknown = this.#problemWithId(member);
    if (unknown !== undefined) return unknown;
    if (this.#recordOf(member)?.wanted === 'removed')
      return `member ${member} is being removed already: add a new member`;
    const voters: readonly number[] = membership.configuration.voters;
    if (!voters.includes(member)) return `member ${member} does not vote: remove it and add a new one`;
    return this.#problemWithLoss(member, 1);
  }

  #problemWithPromoting(member: number): string | undefined {
    const { membership } = this.#options;
    const { learners, voters } = membership.configuration;
    const unknown = this.#problemWithId(member);
    if (unknown !== undefined) return unknown;
    if (this.#recordOf(member)?.wanted === 'removed') return `member ${member} is being removed`;
    if (voters.some((id) => id === member)) return `member ${member} votes already`;
    if (!learners.some((id) => id === member))
      return `member ${member} is no learner yet: wait until the change that adds it is carried out`;
    if (!membership.isReachable(member))
      return `member ${member} is not reachable from here: start it, or look at why it cannot be reached`;
    const lag = this.#lagOf(member);
    if (lag > promotionLagMax)
      return `member ${member} is ${lag} entries behind, more than ${promotionLagMax}: wait until it has caught up`;
    return undefined;
  }

  #problemWithRemoving(member: number): string | undefined {
    const unknown = this.#problemWithId(member);
    if (unknown !== undefined) return unknown;
    // Asked once more, or of one that does not count.
    if (this.#recordOf(member)?.wanted === 'removed') return undefined;
    const { voters } = this.#options.membership.wanted;
    return voters.some((id) => id === member) ? this.#problemWithLoss(member, 0) : undefined;
  }

  /** Whether the voters that remain can still agree. `added`: new ones, of which nobody knows whether they run. */
  #problemWithLoss(member: number, added: number): string | undefined {
    const { membership } = this.#options;
    const remaining = membership.wanted.voters.filter((id) => id !== member);
    const count = remaining.length + added;
    if (count === 0) return `member ${member} is the last one that votes: a cluster needs one`;
    const reachable = remaining.filter((id) => membership.isReachable(id)).length;
    const needed = majorityOf(count);
    if (reachable >= needed) return undefined;
    return (
      `without member ${member} there would be ${count} voters, of which ${needed} are needed and ${reachable} are ` +
      'reachable: bring back the others first'
    );
  }

  #problemWithId(member: number): string | undefined {
    const { directory } = this.#options.membership;
    if (directory.has(member)) return undefined;
    return directory.isGone(member)
      ? `member ${member} has left the cluster, or is about to`
      : `there is no member ${member}: see the list of members`;
  }

  #recordOf(member: number): MemberRecord | undefined {
    return this.#options.store().members.find((record) => record.member === member);
  }
}
