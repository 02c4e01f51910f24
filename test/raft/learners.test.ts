import { describe, expect, test } from 'vitest';
import { asLogIndex, asMemberId, asTerm, emptyConfiguration } from '../../src/raft/index.ts';
import { listCluster } from './support/cluster.ts';
import { changeTo, electionTicks, letters, members, reasonOf, simple } from './support/members.ts';

describe('learners', () => {
  test('a new server is added as a learner, gets everything, and is promoted by one entry', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.proposeMany(1, letters(20));
    cluster.join(4);
    changeTo(cluster, [1, 2, 3], [4]);
    expect(cluster.machine(4).items).toEqual(letters(20));
    changeTo(cluster, [1, 2, 3, 4]);
    const changes = cluster.safety.history.filter(({ kind }) => kind === 'configuration');
    expect(changes).toHaveLength(2);
  });

  test('a learner is caught up by a snapshot where the log is gone, and learns the members from it', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4);
    cluster.isolate(4);
    cluster.change(1, [1, 2, 3], [4]);
    cluster.proposeMany(1, letters(5));
    cluster.settle();
    cluster.compact(1);
    cluster.convergeOrFail();
    expect(cluster.sentOf('install_snapshot', 1).length).toBeGreaterThan(0);
    expect(members(cluster, 4)).toEqual(simple([1, 2, 3], [4]));
    expect(cluster.machine(4).items).toEqual(letters(5));
    changeTo(cluster, [1, 2, 3, 4]);
  });

  test('a server that waits to be added never campaigns, and grants votes', () => {
    const cluster = listCluster(1);
    cluster.join(2);
    cluster.tick(2, 10 * electionTicks);
    cluster.step(asMemberId(2), { kind: 'campaign' });
    cluster.inject(1, 2, 0, { kind: 'timeout_now' });
    expect(cluster.status(2)).toMatchObject({ role: 'follower', term: 0, configuration: emptyConfiguration });
    cluster.inject(1, 2, 1, {
      kind: 'vote_request',
      lastIndex: asLogIndex(0),
      lastTerm: asTerm(0),
      transfer: false,
    });
    cluster.settle();
    expect(cluster.sentOf('vote_response', 2)).toMatchObject([{ granted: true }]);
  });

  test('a learner that lacks too much is not promoted; one that has nearly all is', () => {
    const cluster = listCluster(2, { learners: 1, tuning: { promotionLagMax: 4 } });
    cluster.elect(1);
    cluster.isolate(3);
    cluster.proposeMany(1, letters(5));
    cluster.settle();
    expect(reasonOf(cluster, 1, [1, 2, 3])).toBe('learner_behind');
    expect(reasonOf(cluster, 1, [2, 3])).toBe('learner_behind');
    cluster.heal();
    cluster.run(4);
    cluster.filter = ({ from }) => (from === 3 ? 'drop' : 'pass');
    cluster.proposeMany(1, letters(4));
    cluster.settle();
    expect(reasonOf(cluster, 1, [1, 2, 3])).toBeUndefined();
  });

  test('a learner whose log is not known to agree is not promoted, however short the log is', () => {
    const cluster = listCluster(2, { learners: 1 });
    cluster.crash(3);
    cluster.elect(1);
    expect(cluster.status(1).progress.find(({ id }) => id === 3)?.state).toBe('probe');
    expect(reasonOf(cluster, 1, [1, 2, 3])).toBe('learner_behind');
  });

  test('pitfall 13: a learner that was promoted but does not know it grants votes', () => {
    const cluster = listCluster(2, { learners: 1 });
    cluster.elect(1);
    // The promotion is committed by 1 and 2, and 3 has heard nothing of it when 1 dies.
    cluster.isolate(3);
    cluster.change(1, [1, 2, 3]);
    cluster.run(2);
    expect(members(cluster, 2)).toEqual(simple([1, 2, 3]));
    expect(members(cluster, 3)).toEqual(simple([1, 2], [3]));
    cluster.crash(1);
    cluster.heal();
    cluster.run(8 * electionTicks);
    expect(cluster.leader()).toBe(2);
    expect(members(cluster, 3)).toEqual(simple([1, 2, 3]));
  });

  test('pitfall 13: a learner forgets a leader that it has not heard for a whole timeout, and refuses nobody for it', () => {
    const cluster = listCluster(2, { learners: 1, random: () => 0.99 });
    cluster.elect(1);
    cluster.isolate(1);
    const ask = (): boolean | undefined => {
      const position = { lastIndex: asLogIndex(9), lastTerm: asTerm(1) };
      cluster.inject(2, 3, 1, { kind: 'pre_vote_request', campaignTerm: asTerm(2), ...position });
      return cluster.sentOf('pre_vote_response', 3).at(-1)?.granted;
    };
    for (let tick = 0; tick < electionTicks; tick += 1) cluster.tick(3);
    for (let tick = 0; tick < 3 * electionTicks; tick += 1) {
      expect(ask()).toBe(true);
      cluster.tick(3);
    }
  });

  test('pitfall 19: learners do not count for the lease of a leader', () => {
    const cluster = listCluster(3, { learners: 2 });
    cluster.elect(1);
    cluster.isolate(2);
    cluster.isolate(3);
    const read = cluster.read(1);
    cluster.run(2 * electionTicks);
    expect(cluster.status(1).role).toBe('follower');
    expect(cluster.reads.get(read)?.kind).toBe('dropped');
  });

  test('pitfall 19: a new voter that was not heard yet does not depose the leader at the next check', () => {
    const cluster = listCluster(1);
    cluster.elect(1);
    // Just before the check of the quorum; the new voter is slow to answer.
    cluster.run(electionTicks - 1);
    cluster.join(2);
    cluster.isolate(2);
    cluster.change(1, [1, 2]);
    cluster.settle();
    expect(members(cluster, 1)).toEqual(simple([1, 2]));
    cluster.tick(1, 2);
    expect(cluster.status(1).role).toBe('leader');
    cluster.convergeOrFail();
    expect(cluster.status(1)).toMatchObject({ role: 'leader', term: 1 });
  });

  test('pitfall 19: nor does a learner that was silent when it was promoted', () => {
    const cluster = listCluster(1, { learners: 1 });
    cluster.elect(1);
    cluster.run(electionTicks + 2);
    cluster.isolate(2);
    cluster.run(electionTicks - 4);
    cluster.change(1, [1, 2]);
    cluster.settle();
    for (const peer of cluster.status(1).progress) expect(peer.recentlyActive).toBe(true);
  });
});
