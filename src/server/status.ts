/** What a server knows of itself and has heard of the others: for operators, and for what they ask; raft never relies on it. */
import type { PeerStatus } from '../peers/index.ts';
import type { ClusterStatus, MemberStatus } from '../protocol/index.ts';
import type { RaftStatus, Role } from '../raft/index.ts';
import type { MemberDescription } from './member-directory.ts';

/** Silence after which what a server last said is no longer shown as its present role. */
const unreachableAfterMs = 5000;

interface Heard {
  readonly status: PeerStatus;
  readonly atMs: number;
  readonly lag: number;
}

export class PeerStatuses {
  readonly #heard = new Map<number, Heard>();

  /** `commit`: this server's own commit index. */
  heard(member: number, status: PeerStatus, nowMs: number, commit: number): void {
    const lag = Math.max(0, commit - status.appliedIndex, status.commitIndex - status.appliedIndex);
    this.#heard.set(member, { status, atMs: nowMs, lag });
  }

  /** Entries that it had not applied when it told of itself; undefined: it never did. */
  lagOf(member: number): number | undefined {
    return this.#heard.get(member)?.lag;
  }

  /** By its last word. */
  isDraining(member: number): boolean {
    return this.#heard.get(member)?.status.draining === true;
  }

  /** How many agents it has; undefined: it was not heard lately. */
  agentsOf(member: number, nowMs: number): number | undefined {
    const heard = this.#heard.get(member);
    return heard === undefined || nowMs - heard.atMs > unreachableAfterMs
      ? undefined
      : heard.status.connections;
  }

  appliedOf(member: number): number {
    return this.#heard.get(member)?.status.appliedIndex ?? 0;
  }

  cluster(
    members: readonly MemberDescription[],
    self: { readonly id: number; readonly status: PeerStatus },
    leader: number | undefined,
    isReachable: (member: number) => boolean,
    identity: { readonly clusterId: string; readonly epoch: number; readonly revision: number },
    nowMs: number,
  ): ClusterStatus {
    const lines = members.map((member): Omit<MemberStatus, 'lag'> => {
      const heard = member.id === self.id ? { status: self.status, atMs: nowMs } : this.#heard.get(member.id);
      const heardMsAgo = heard && Math.round(nowMs - heard.atMs);
      const reachable = heardMsAgo !== undefined && heardMsAgo < unreachableAfterMs && isReachable(member.id);
      return {
        id: member.id,
        name: member.name,
        agentsUrl: member.agentsUrl,
        role: reachable && heard ? roleAmong(heard.status.role, member.id === leader) : 'unreachable',
        term: heard?.status.term ?? 0,
        commitIndex: heard?.status.commitIndex ?? 0,
        appliedIndex: heard?.status.appliedIndex ?? 0,
        keys: heard?.status.keys ?? 0,
        connections: reachable && heard ? heard.status.connections : 0,
        version: heard?.status.version ?? '',
        heardMsAgo,
        ...(reachable && heard?.status.draining && { draining: true }),
      };
    });
    const commitMax = Math.max(...lines.map((line) => line.commitIndex));
    return {
      ...identity,
      serverId: self.id,
      members: lines.map((line) => ({ ...line, lag: commitMax - line.appliedIndex })),
    };
  }
}

/** What a peer said of itself may be older than what is known here of who leads. */
const roleAmong = (said: string, leads: boolean): string => {
  if (leads) return 'leader';
  return said === 'leader' ? 'follower' : said;
};

/** Operators know no pre-votes; and who doesn't vote is no follower to them. */
const roleOf = (role: Role, isLearner: boolean): string => {
  if (role === 'pre_candidate') return 'candidate';
  return role === 'follower' && isLearner ? 'learner' : role;
};

export const ownStatus = (
  raft: Pick<RaftStatus, 'role' | 'term' | 'commit' | 'applied'>,
  isLearner: boolean,
  rest: {
    readonly name: string;
    readonly keys: number;
    readonly connections: number;
    readonly version: string;
    readonly draining: boolean;
  },
): PeerStatus => ({
  name: rest.name,
  keys: rest.keys,
  connections: rest.connections,
  version: rest.version,
  ...(rest.draining && { draining: true }),
  role: roleOf(raft.role, isLearner),
  term: raft.term,
  commitIndex: raft.commit,
  appliedIndex: raft.applied,
});
