/** What a server knows of itself and has heard of the others: for operators, never for decisions. */
import type { PeerStatus } from '../peers/index.ts';
import type { ClusterStatus, MemberStatus } from '../protocol/index.ts';
import type { RaftStatus } from '../raft/index.ts';

export interface MemberDescription {
  readonly id: number;
  readonly name: string;
  /** Where agents reach it: a wss URL. */
  readonly agentsUrl: string;
}

/** Silence after which what a server last said is no longer shown as its present role. */
const unreachableAfterMs = 5000;

export class PeerStatuses {
  readonly #heard = new Map<number, { readonly status: PeerStatus; readonly atMs: number }>();

  heard(member: number, status: PeerStatus, nowMs: number): void {
    this.#heard.set(member, { status, atMs: nowMs });
  }

  cluster(
    members: readonly MemberDescription[],
    self: { readonly id: number; readonly status: PeerStatus },
    identity: { readonly clusterId: string; readonly epoch: number; readonly revision: number },
    nowMs: number,
  ): ClusterStatus {
    const lines = members.map((member): Omit<MemberStatus, 'lag'> => {
      const heard = member.id === self.id ? { status: self.status, atMs: nowMs } : this.#heard.get(member.id);
      const heardMsAgo = heard ? Math.round(nowMs - heard.atMs) : 0;
      const reachable = heard !== undefined && heardMsAgo < unreachableAfterMs;
      return {
        id: member.id,
        name: member.name,
        agentsUrl: member.agentsUrl,
        role: reachable ? heard.status.role : 'unreachable',
        term: heard?.status.term ?? 0,
        commitIndex: heard?.status.commitIndex ?? 0,
        appliedIndex: heard?.status.appliedIndex ?? 0,
        keys: heard?.status.keys ?? 0,
        connections: reachable ? heard.status.connections : 0,
        version: heard?.status.version ?? '',
        heardMsAgo,
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

export const ownStatus = (
  raft: Pick<RaftStatus, 'role' | 'term' | 'commit' | 'applied'>,
  rest: {
    readonly name: string;
    readonly keys: number;
    readonly connections: number;
    readonly version: string;
  },
): PeerStatus => ({
  ...rest,
  role: raft.role === 'pre_candidate' ? 'candidate' : raft.role,
  term: raft.term,
  commitIndex: raft.commit,
  appliedIndex: raft.applied,
});
