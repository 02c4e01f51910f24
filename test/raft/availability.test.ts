import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeConfiguration, describeConfiguration, membersOf } from '../../src/raft/index.ts';
import type { Configuration } from '../../src/raft/index.ts';
import { play, runs, script, seed, type Cluster } from './support/random-scripts.ts';

const majority = (list: readonly number[], has: (id: number) => boolean): boolean =>
  list.length === 0 || list.filter(has).length * 2 > list.length;

const isQuorum = ({ voters, votersOutgoing }: Configuration, has: (id: number) => boolean): boolean =>
  voters.length > 0 && majority(voters, has) && majority(votersOutgoing, has);

/**
 * Those that anybody may still have to go by: from the last one that was sealed on, committed or in somebody's log only.
 * The seal is an empty entry that is not its leader's first.
 */
const configurationsThatMayCount = (cluster: Cluster): Configuration[] => {
  const { history } = cluster.safety;
  let counting: Configuration[] = [cluster.configuration];
  let lastIndex = 0;
  for (const [at, entry] of history.entries()) {
    if (entry.kind === 'configuration') {
      counting.push(decodeConfiguration(entry.payload));
      lastIndex = entry.index;
    } else if (entry.kind === 'empty' && history[at - 1]?.term === entry.term) {
      counting = counting.slice(-1);
    }
  }
  for (const id of cluster.ids) {
    for (const entry of cluster.disk(id).handed.entries) {
      if (entry.kind === 'configuration' && entry.index > lastIndex)
        counting.push(decodeConfiguration(entry.payload));
    }
  }
  return counting;
};

/** As many die for good as may: a quorum of each of these configurations stays. Gives those that stay. */
const survivorsOf = (
  cluster: Cluster,
  configurations: readonly Configuration[],
  chances: readonly number[],
): ReadonlySet<number> => {
  const kept = new Set<number>(cluster.ids);
  const order = cluster.ids.map((id, at) => ({ id, chance: chances[at] ?? 0 }));
  for (const { id, chance } of order.sort((a, b) => a.chance - b.chance)) {
    if (chance % 4 === 0) continue;
    kept.delete(id);
    if (!configurations.every((each) => isQuorum(each, (member) => kept.has(member)))) kept.add(id);
  }
  return kept;
};

const killAllBut = (cluster: Cluster, kept: ReadonlySet<number>, chance: number): void => {
  while (cluster.packets.length > 0) cluster.lose(0);
  for (const id of cluster.ids) if (!kept.has(id) && cluster.isUp(id)) cluster.crash(id, chance % 3);
  cluster.release();
  for (const id of kept) {
    cluster.disk(id).automatic = true;
    if (!cluster.isUp(id)) cluster.restart(id);
    cluster.releaseApply(id);
  }
  cluster.settle();
};

/** Why they cannot go on now; undefined: they have just committed something, and no change is left half done. */
const obstacle = (cluster: Cluster, kept: ReadonlySet<number>): string | undefined => {
  const leader = cluster.leader();
  if (leader === undefined) return 'nobody leads';
  const { configuration, changePending, changeSettled, transferTarget } = cluster.status(leader);
  if (!isQuorum(configuration, (id) => kept.has(id))) return 'it goes by a configuration without a quorum';
  if (changePending || !changeSettled || transferTarget !== undefined) return 'a change is not finished';
  if (!membersOf(configuration).includes(leader)) return 'one leads that is no member';
  const token = cluster.propose(leader, 'last');
  cluster.settle();
  cluster.run(3);
  if (cluster.dropped.has(token)) return 'the proposal is dropped';
  return cluster.machine(leader).items.at(-1) === 'last' ? undefined : 'the proposal is not committed';
};

const patienceTicks = 600;

test(
  'a quorum of the configurations that may count is enough to go on, whatever happened and whoever is lost',
  {
    timeout: 600_000,
  },
  () => {
    const chances = fc.array(fc.nat(1000), { minLength: 12, maxLength: 12 });
    fc.assert(
      fc.property(script, chances, (played, [how = 0, many = 0, ...whom]) => {
        const { cluster } = play(played, true);
        cluster.heal();
        cluster.release();
        if (many % 2 === 1) cluster.settle();
        const configurations = configurationsThatMayCount(cluster);
        const kept = survivorsOf(cluster, configurations, whom);
        killAllBut(cluster, kept, how);
        let why = obstacle(cluster, kept);
        for (let tick = 0; tick < patienceTicks && why !== undefined; tick += 1) {
          cluster.run(1);
          why = obstacle(cluster, kept);
        }
        const story = `kept ${[...kept].join(', ')} of ${cluster.ids.join(', ')}; may count: ${configurations.map(describeConfiguration).join(' | ')}`;
        expect(why, story).toBeUndefined();
      }),
      { numRuns: runs, seed, endOnFailure: true },
    );
  },
);
