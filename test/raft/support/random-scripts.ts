/** Random things that happen to a cluster: what people, the network, disks and processes do, in any order. */
import * as fc from 'fast-check';
import { listCluster } from './cluster.ts';
import type { ScriptedCluster } from './cluster.ts';
import type { ListMachine } from './machine.ts';

export type Cluster = ScriptedCluster<ListMachine>;

const actions = [
  'tick',
  'tick_all',
  'deliver',
  'deliver_some',
  'deliver_late',
  'lose',
  'duplicate',
  'propose',
  'read',
  'read',
  'complete_write',
  'slow_disk',
  'fast_disk',
  'crash',
  'restart',
  'cut',
  'heal',
  'transfer',
  'change',
  'change',
  'campaign',
  'compact',
  'unreachable',
  'settle',
  'run',
] as const;

interface Action {
  readonly kind: (typeof actions)[number];
  readonly member: number;
  readonly amount: number;
}

interface Tokens {
  /** To the member that asked; without those of members that crashed since. */
  readonly reads: Map<number, number>;
  proposals: number;
}

/** Servers that there can ever be, whoever is a member. */
const serversMax = 7;

/** One of the things that people do with members, to the members that `leader` knows. */
const changeMembers = (cluster: Cluster, leader: number, amount: number): void => {
  const { configuration } = cluster.status(leader);
  const voters: number[] = [...configuration.voters];
  const learners: number[] = [...configuration.learners];
  const at = Math.floor(amount / 6);
  const server = 1 + (at % serversMax);
  const without = (ids: readonly number[], gone: number): number[] => ids.filter((id) => id !== gone);
  const change = (newVoters: readonly number[], newLearners: readonly number[]): void => {
    cluster.join(...newVoters, ...newLearners);
    cluster.change(leader, newVoters, newLearners);
  };
  switch (amount % 6) {
    case 0:
      if (!voters.includes(server)) change(voters, [...without(learners, server), server]);
      return;
    case 1: {
      const learner = learners[at % Math.max(learners.length, 1)];
      if (learner !== undefined) change([...voters, learner], without(learners, learner));
      return;
    }
    case 2:
      return change(without(voters, server), without(learners, server));
    case 3:
      if (voters.includes(server)) change(without(voters, server), [...learners, server]);
      return;
    case 4: {
      const replaced = voters[at % voters.length] ?? 0;
      if (!voters.includes(server)) change([...without(voters, replaced), server], without(learners, server));
      return;
    }
    default: {
      const all = Array.from({ length: serversMax }, (_, i) => i + 1);
      const chosen = all.filter((id) => ((at >> (id % 5)) & 1) === 1);
      change(
        chosen.filter((id) => id % 3 > 0),
        chosen.filter((id) => id % 3 === 0),
      );
    }
  }
};

/** Moves the packets, one way or another. */
const actOnNetwork = (cluster: Cluster, { kind, member, amount }: Action): boolean => {
  const packets = cluster.packets.length;
  switch (kind) {
    case 'deliver':
      cluster.deliver();
      return true;
    case 'deliver_some':
      for (let i = 0; i < amount % 8; i += 1) cluster.deliver();
      return true;
    case 'deliver_late':
      if (packets > 0) cluster.deliver(amount % packets);
      return true;
    case 'lose':
      if (packets > 0) cluster.lose(amount % packets);
      return true;
    case 'duplicate': {
      const packet = cluster.packets[amount % Math.max(packets, 1)];
      if (packet !== undefined && packet.state === undefined) cluster.packets.push(packet);
      return true;
    }
    case 'cut':
      cluster.cut(member, cluster.ids[amount % cluster.ids.length] ?? member);
      return true;
    case 'heal':
      cluster.heal();
      return true;
    case 'settle':
      cluster.settle();
      return true;
    default:
      return false;
  }
};

/** Needs a member that is up. */
const actOnMember = (cluster: Cluster, tokens: Tokens, { kind, member, amount }: Action): void => {
  switch (kind) {
    case 'tick':
      return cluster.tick(member, 1 + (amount % 12));
    case 'propose': {
      const leader = cluster.leader();
      tokens.proposals += 1;
      cluster.propose(amount % 3 > 0 && leader !== undefined ? leader : member, `p${tokens.proposals}`);
      return;
    }
    case 'read':
      tokens.reads.set(cluster.read(member), member);
      return;
    case 'complete_write':
      return cluster.completeWrites(member, 1 + (amount % 2));
    case 'slow_disk':
      cluster.disk(member).automatic = false;
      return;
    case 'fast_disk':
      cluster.disk(member).automatic = true;
      return;
    case 'crash':
      cluster.crash(member, amount % 3);
      for (const [token, reader] of tokens.reads) if (reader === member) tokens.reads.delete(token);
      return;
    case 'transfer': {
      const target = cluster.ids[amount % cluster.ids.length];
      if (target !== undefined) cluster.step(member, { kind: 'transfer_leader', target });
      return;
    }
    case 'change':
      return changeMembers(cluster, cluster.leader() ?? member, amount);
    case 'campaign':
      if (amount % 4 === 0) cluster.step(member, { kind: 'campaign' });
      return;
    case 'compact': {
      const { applied, firstIndex } = cluster.status(member);
      if (applied >= firstIndex) cluster.compact(member, applied - (amount % (applied - firstIndex + 1)));
      return;
    }
    case 'unreachable': {
      const peer = cluster.ids[amount % cluster.ids.length];
      if (peer !== undefined) cluster.step(member, { kind: 'unreachable', peer });
      return;
    }
    default:
  }
};

const act = (cluster: Cluster, tokens: Tokens, action: Action): void => {
  const { kind, member } = action;
  if (actOnNetwork(cluster, action)) return;
  if (kind === 'tick_all') for (const id of cluster.aliveIds) cluster.tick(id);
  else if (kind === 'run') cluster.run(1 + (action.amount % 25));
  else if (cluster.isUp(member)) actOnMember(cluster, tokens, action);
  else if (kind === 'restart') cluster.restart(member);
};

/** What `play` takes. */
export const script = fc.record({
  voters: fc.integer({ min: 1, max: 5 }),
  learners: fc.integer({ min: 0, max: 1 }),
  seed: fc.nat(),
  steps: fc.array(
    fc.record({ kind: fc.constantFrom(...actions), choice: fc.nat(100), amount: fc.nat(1000) }),
    {
      maxLength: 150,
      size: 'max',
    },
  ),
});

/** How many of them, and from which seed. */
export const runs = Number(process.env['RAFT_RANDOM_RUNS'] ?? 300);
export const seed = Number(process.env['RAFT_RANDOM_SEED'] ?? 20_261_122);

interface Script {
  readonly voters: number;
  readonly learners: number;
  readonly seed: number;
  readonly steps: readonly {
    readonly kind: Action['kind'];
    readonly choice: number;
    readonly amount: number;
  }[];
}

/** Small limits, so that all of them are reached. */
const tuning = {
  inflightMessagesMax: 3,
  appendBytesMax: 6,
  uncommittedBytesMax: 60,
  applyBytesMax: 8,
  promotionLagMax: 3,
};

/** A cluster to which all of that has happened, and the reads that must have ended by its end. */
export const play = (
  { voters, learners, seed: clusterSeed, steps }: Script,
  withChanges: boolean,
): { readonly cluster: Cluster; readonly reads: ReadonlyMap<number, number> } => {
  const cluster = listCluster(voters, { learners, seed: clusterSeed, tuning });
  const tokens: Tokens = { reads: new Map(), proposals: 0 };
  cluster.run(25);
  for (const { kind, choice, amount } of steps) {
    if (kind === 'change' && !withChanges) continue;
    const member = cluster.ids[choice % cluster.ids.length] ?? 1;
    act(cluster, tokens, { kind, amount, member });
  }
  return { cluster, reads: tokens.reads };
};
