import { describe, expect, test } from 'vitest';
import { asMemberId } from '../../src/raft/index.ts';
import { listCluster } from './support/cluster.ts';

const to = (target: number) => ({ kind: 'transfer_leader', target: asMemberId(target) }) as const;

describe('leadership transfer', () => {
  test('pitfall 20: the target campaigns without a pre-vote, and wins although the others hear the leader', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.step(1, to(2));
    cluster.settle();
    expect(cluster.status(2)).toMatchObject({ role: 'leader', term: 2 });
    expect(cluster.sentOf('pre_vote_request', 2)).toEqual([]);
    cluster.convergeOrFail();
  });

  test('pitfall 20: a target that is behind gets all entries first', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.cut(1, 2);
    cluster.proposeMany(1, ['a', 'b', 'c']);
    cluster.settle();
    cluster.step(1, to(2));
    cluster.settle();
    expect(cluster.sentOf('timeout_now')).toEqual([]);
    cluster.heal();
    cluster.run(4);
    expect(cluster.leader()).toBe(2);
    expect(cluster.machine(2).items).toEqual(['a', 'b', 'c']);
  });

  test('pitfall 20: a target that has not flushed is not asked', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.disk(2).automatic = false;
    cluster.propose(1, 'a');
    cluster.settle();
    cluster.step(1, to(2));
    cluster.settle();
    expect(cluster.sentOf('timeout_now')).toEqual([]);
    cluster.completeWrites(2);
    cluster.settle();
    expect(cluster.sentOf('timeout_now')).toHaveLength(1);
  });

  test('pitfall 20: a dead target is given up in time; proposals are refused meanwhile, and taken again', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.crash(2);
    cluster.step(1, to(2));
    const refused = cluster.propose(1, 'refused');
    expect(cluster.dropped.get(refused)).toBe('transferring');
    cluster.run(10);
    expect(cluster.status(1)).toMatchObject({ role: 'leader', transferTarget: undefined });
    cluster.propose(1, 'taken');
    cluster.settle();
    expect(cluster.machine(3).items).toEqual(['taken']);
  });

  test('pitfall 20: nobody hands over to itself, a learner or a stranger', () => {
    const cluster = listCluster(2, { learners: 1 });
    cluster.elect(1);
    for (const target of [1, 3, 9]) {
      cluster.step(1, to(target));
      expect(cluster.status(1).transferTarget).toBeUndefined();
    }
  });

  test('a new target replaces the old one', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.crash(2);
    cluster.step(1, to(2));
    cluster.step(1, to(3));
    cluster.settle();
    expect(cluster.leader()).toBe(3);
  });
});
