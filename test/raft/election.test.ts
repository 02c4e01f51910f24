import { describe, expect, test } from 'vitest';
import {
  asLogIndex,
  asMemberId,
  asTerm,
  encodeConfiguration,
  initialConfiguration,
} from '../../src/raft/index.ts';
import { listCluster } from './support/cluster.ts';
import type { ScriptedCluster } from './support/cluster.ts';
import type { ListMachine } from './support/machine.ts';

/** The default: a member campaigns after at least this many ticks, and fewer than twice as many. */
const electionTicks = 10;

/** A restart: it remembers its disk, but no leader. */
const forgetLeader = (cluster: ScriptedCluster<ListMachine>, id: number): void => {
  cluster.crash(id);
  cluster.restart(id);
};

const position = (index: number, term: number) => ({ lastIndex: asLogIndex(index), lastTerm: asTerm(term) });

describe('elections', () => {
  test('a fresh cluster elects one leader, and everybody follows it', () => {
    for (const voters of [1, 2, 3, 4, 5]) {
      const cluster = listCluster(voters, { seed: voters });
      cluster.run(4 * electionTicks);
      const leader = cluster.leader();
      for (const id of cluster.ids) expect(cluster.status(id).leader).toBe(leader);
    }
  });

  test('a learner never campaigns, and grants votes', () => {
    const cluster = listCluster(1, { learners: 1 });
    cluster.tick(2, 5 * electionTicks);
    expect(cluster.status(2)).toMatchObject({ role: 'follower', term: 0 });
    cluster.inject(1, 2, 1, { kind: 'vote_request', ...position(0, 0), transfer: false });
    cluster.settle();
    expect(cluster.sentOf('vote_response', 2)).toMatchObject([{ granted: true }]);
  });

  test('one that is reluctant leaves it to the others to campaign, and gives them its vote', () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const cluster = listCluster(3, { seed });
      cluster.elect(1);
      cluster.step(2, { kind: 'reluctance', reluctant: true });
      cluster.crash(1);
      cluster.run(4 * electionTicks);
      expect(cluster.leader()).toBe(3);
      expect(cluster.sentOf('pre_vote_request', 2)).toEqual([]);
    }
  });

  test('one that is reluctant campaigns in the third timeout without a leader, when no other can win', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.step(2, { kind: 'reluctance', reluctant: true });
    // Only it has what was committed.
    cluster.isolate(3);
    cluster.propose(1, 'a');
    cluster.settle();
    cluster.crash(1);
    cluster.heal();
    cluster.run(2 * electionTicks);
    expect(cluster.sentOf('pre_vote_request', 2)).toEqual([]);
    cluster.run(6 * electionTicks);
    expect(cluster.leader()).toBe(2);
    expect(cluster.machine(3).items).toEqual(['a']);
  });

  test('one that is reluctant takes leadership that is handed to it, and campaigns as all others when it is no more', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.step(2, { kind: 'reluctance', reluctant: true });
    cluster.step(1, { kind: 'transfer_leader', target: asMemberId(2) });
    cluster.settle();
    expect(cluster.leader()).toBe(2);
    cluster.step(2, { kind: 'transfer_leader', target: asMemberId(1) });
    cluster.settle();
    expect(cluster.leader()).toBe(1);
    cluster.step(2, { kind: 'reluctance', reluctant: false });
    cluster.crash(1);
    cluster.tick(2, 2 * electionTicks);
    expect(cluster.sentOf('pre_vote_request', 2).length).toBeGreaterThan(0);
  });

  test('a leader that a quorum does not answer steps down, and says so for its reads', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(1);
    const read = cluster.read(1);
    cluster.tick(1, 2 * electionTicks);
    expect(cluster.status(1)).toMatchObject({ role: 'follower', term: 1 });
    expect(cluster.reads.get(read)).toEqual({ kind: 'dropped', reason: 'lost_leadership' });
  });

  test('a member that hears the leader ignores campaigns, their term included', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.inject(3, 2, 9, { kind: 'vote_request', ...position(9, 9), transfer: false });
    cluster.inject(3, 2, 9, { kind: 'pre_vote_request', campaignTerm: asTerm(10), ...position(9, 9) });
    cluster.settle();
    expect(cluster.status(2)).toMatchObject({ term: 1, leader: 1 });
    expect(cluster.sentOf('pre_vote_response', 2).at(-1)).toMatchObject({ granted: false });
  });

  test('a member that was cut off comes back without deposing the leader', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.run(10 * electionTicks);
    cluster.heal();
    cluster.run(2 * electionTicks);
    expect(cluster.status(1)).toMatchObject({ role: 'leader', term: 1 });
    expect(cluster.status(3)).toMatchObject({ leader: 1, term: 1 });
  });

  test('pitfall 6: a member with a lower term and a longer log gets an answer, and wins', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.propose(1, 'longer');
    cluster.settle();
    cluster.inject(3, 2, 5, { kind: 'vote_request', ...position(0, 0), transfer: true });
    cluster.settle();
    cluster.crash(3);
    forgetLeader(cluster, 1);
    cluster.heal();
    expect(cluster.status(2).term).toBeGreaterThan(cluster.status(1).term);
    cluster.run(8 * electionTicks);
    expect(cluster.leader()).toBe(1);
  });

  test('pitfall 6: a leader with a lower term is answered, so that the stuck member can take part again', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = () => 'drop';
    cluster.inject(2, 3, 5, { kind: 'vote_request', ...position(0, 0), transfer: true });
    cluster.settle();
    cluster.filter = () => 'pass';
    cluster.run(8 * electionTicks);
    const term = cluster.status(cluster.leader() ?? 0).term;
    expect(term).toBeGreaterThan(5);
    for (const id of cluster.ids) expect(cluster.status(id).term).toBe(term);
  });

  test('pitfall 7: a leader that lost its quorum forgets itself, and supports the next campaign at once', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.crash(3);
    cluster.isolate(1);
    for (let i = 0; i < 3 * electionTicks && cluster.status(1).role === 'leader'; i += 1) cluster.tick(1);
    expect(cluster.status(1)).toMatchObject({ role: 'follower', leader: undefined });
    cluster.inject(2, 1, 1, { kind: 'pre_vote_request', campaignTerm: asTerm(2), ...position(1, 1) });
    cluster.settle();
    expect(cluster.sentOf('pre_vote_response', 1).at(-1)).toMatchObject({ to: 2, granted: true });
  });

  test('pitfall 8: two of three elect a leader although both knew the dead one', () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const cluster = listCluster(3, { seed });
      cluster.elect(1);
      cluster.crash(1);
      cluster.run(6 * electionTicks);
      expect([2, 3]).toContain(cluster.leader());
    }
  });

  test('pitfall 8: a leader that was not heard for an election timeout is no reason to refuse a pre-vote', () => {
    // Draws the longest timeouts: nobody campaigns by itself before the tick that counts.
    const cluster = listCluster(3, { random: () => 0.99 });
    cluster.elect(1);
    cluster.isolate(1);
    const ask = { kind: 'pre_vote_request', campaignTerm: asTerm(2), ...position(1, 1) } as const;
    const answer = (): boolean | undefined => {
      cluster.inject(3, 2, 1, ask);
      return cluster.sentOf('pre_vote_response', 2).at(-1)?.granted;
    };
    cluster.tick(2, electionTicks - 1);
    expect(answer()).toBe(false);
    cluster.tick(2);
    expect(cluster.status(2)).toMatchObject({ role: 'follower', leader: 1 });
    expect(answer()).toBe(true);
  });

  test('pitfall 8: a member that campaigns itself refuses no other for a leader that it gave up', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(2);
    cluster.step(2, { kind: 'campaign' });
    cluster.inject(3, 2, 1, { kind: 'pre_vote_request', campaignTerm: asTerm(2), ...position(1, 1) });
    expect(cluster.status(2)).toMatchObject({ role: 'pre_candidate', leader: undefined });
    expect(cluster.sentOf('pre_vote_response', 2).at(-1)).toMatchObject({ granted: true });
  });

  test('pitfall 8: granting a pre-vote does not restart the election timer', () => {
    const cluster = listCluster(3);
    cluster.isolate(2);
    for (let i = 0; i < 2 * electionTicks; i += 1) {
      cluster.inject(3, 2, 0, { kind: 'pre_vote_request', campaignTerm: asTerm(1), ...position(0, 0) });
      cluster.tick(2);
    }
    expect(cluster.sentOf('pre_vote_response', 2).at(-1)).toMatchObject({ granted: true });
    expect(cluster.sentOf('pre_vote_request', 2).length).toBeGreaterThan(0);
  });

  test('pitfall 9: late pre-vote answers are no votes, and move nothing after the campaign', () => {
    const cluster = listCluster(3);
    cluster.filter = ({ kind }) => (kind === 'vote_request' ? 'hold' : 'pass');
    cluster.step(1, { kind: 'campaign' });
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({ role: 'candidate', term: 1 });
    for (const from of [2, 3]) {
      for (const campaignTerm of [asTerm(1), asTerm(2)]) {
        cluster.inject(from, 1, 1, { kind: 'pre_vote_response', campaignTerm, granted: true });
      }
    }
    expect(cluster.status(1).role).toBe('candidate');
    cluster.release();
    cluster.settle();
    expect(cluster.status(1).role).toBe('leader');
    cluster.inject(2, 1, 1, { kind: 'pre_vote_response', campaignTerm: asTerm(2), granted: true });
    expect(cluster.status(1)).toMatchObject({ role: 'leader', term: 1 });
  });

  test('pitfall 9: a pre-vote answer counts for the campaign that it answers only', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = () => 'drop';
    forgetLeader(cluster, 2);
    cluster.step(2, { kind: 'campaign' });
    cluster.inject(3, 2, 1, { kind: 'pre_vote_response', campaignTerm: asTerm(1), granted: true });
    expect(cluster.status(2).role).toBe('pre_candidate');
    cluster.inject(3, 2, 1, { kind: 'pre_vote_response', campaignTerm: asTerm(2), granted: true });
    expect(cluster.status(2).role).toBe('candidate');
  });

  test('pitfall 10: campaigns of members that cannot win do not starve the one that can', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(2);
    forgetLeader(cluster, 2);
    const before = cluster.sentOf('vote_response', 2).length;
    for (let i = 0; i < 2 * electionTicks; i += 1) {
      cluster.inject(3, 2, 2 + i, { kind: 'vote_request', ...position(0, 0), transfer: false });
      cluster.settle();
      cluster.tick(2);
    }
    const answers = cluster.sentOf('vote_response', 2).slice(before);
    expect(answers.some(({ granted }) => granted)).toBe(false);
    expect(cluster.sentOf('pre_vote_request', 2).length).toBeGreaterThan(0);
  });

  test('pitfall 11: nobody campaigns with a committed configuration that is not applied, transfer or not', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'append_response' ? 'drop' : 'pass');
    const entry = {
      term: asTerm(1),
      index: asLogIndex(2),
      kind: 'configuration',
      payload: encodeConfiguration(initialConfiguration([1, 2, 3, 4])),
    } as const;
    cluster.holdApply(2);
    for (const to of [3, 2]) {
      cluster.inject(1, to, 1, {
        kind: 'append_request',
        previousIndex: asLogIndex(1),
        previousTerm: asTerm(1),
        commit: asLogIndex(to === 2 ? 2 : 1),
        entries: [entry],
      });
      cluster.settle();
    }
    cluster.isolate(2);
    cluster.step(2, { kind: 'campaign' });
    cluster.tick(2, 3 * electionTicks);
    cluster.inject(1, 2, 1, { kind: 'timeout_now' });
    cluster.settle();
    expect(cluster.status(2)).toMatchObject({ role: 'follower', term: 1, commit: 2, applied: 1 });
    cluster.releaseApply(2);
    cluster.step(2, { kind: 'campaign' });
    expect(cluster.status(2).role).toBe('pre_candidate');
  });

  test('pitfall 12: nobody campaigns with a snapshot that is received but not on disk', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.proposeMany(1, ['a', 'b']);
    cluster.settle();
    cluster.compact(1);
    cluster.heal();
    cluster.disk(3).automatic = false;
    for (let i = 0; i < 5 && cluster.sentOf('install_snapshot').length === 0; i += 1) cluster.run(1);
    cluster.settle();
    cluster.isolate(3);
    cluster.step(3, { kind: 'campaign' });
    cluster.tick(3, 3 * electionTicks);
    cluster.inject(1, 3, 1, { kind: 'timeout_now' });
    expect(cluster.status(3)).toMatchObject({ role: 'follower', term: 1, applied: 1 });
    cluster.completeWrites(3);
    expect(cluster.status(3)).toMatchObject({ applied: 3, lastIndex: 3 });
    cluster.step(3, { kind: 'campaign' });
    expect(cluster.status(3).role).toBe('pre_candidate');
  });
});
