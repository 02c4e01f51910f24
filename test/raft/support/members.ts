import { expect } from 'vitest';
import { asMemberId, emptyConfiguration } from '../../../src/raft/index.ts';
import type { Configuration, DropReason } from '../../../src/raft/index.ts';
import type { ScriptedCluster } from './cluster.ts';
import type { ListMachine } from './machine.ts';

export type Cluster = ScriptedCluster<ListMachine>;

/** The default: a member campaigns after at least this many ticks, and fewer than twice as many. */
export const electionTicks = 10;

export const simple = (voters: readonly number[], learners: readonly number[] = []): Configuration => ({
  ...emptyConfiguration,
  voters: voters.map(asMemberId),
  learners: learners.map(asMemberId),
});

export const members = (cluster: Cluster, id: number): Configuration => cluster.status(id).configuration;

/** The change is taken, finished and told to everybody who belongs to it. */
export const changeTo = (
  cluster: Cluster,
  voters: readonly number[],
  learners: readonly number[] = [],
): void => {
  const token = cluster.change(cluster.leader() ?? 0, voters, learners);
  expect(cluster.dropped.get(token)).toBeUndefined();
  cluster.convergeOrFail();
  expect(members(cluster, cluster.leader() ?? 0)).toEqual(simple(voters, learners));
};

/** Restarts: they remember their disks, but no leader. */
export const forgetLeader = (cluster: Cluster, ids: readonly number[]): void => {
  for (const id of ids) {
    cluster.crash(id);
    cluster.restart(id);
  }
};

export const reasonOf = (
  cluster: Cluster,
  id: number,
  voters: readonly number[],
  learners: readonly number[] = [],
): DropReason | undefined => cluster.dropped.get(cluster.change(id, voters, learners));

export const letters = (count: number): string[] => Array.from({ length: count }, (_, i) => `p${i}`);
