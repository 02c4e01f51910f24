import { describe, expect, test } from 'vitest';
import { asMemberId, InvariantViolation } from '../../src/raft/index.ts';
import { listCluster } from './support/cluster.ts';
import {
  changeTo,
  electionTicks,
  forgetLeader,
  letters,
  members,
  reasonOf,
  simple,
} from './support/members.ts';

describe('refusals', () => {
  test('only a leader changes the members', () => {
    const cluster = listCluster(3);
    expect(reasonOf(cluster, 2, [1, 2])).toBe('no_leader');
    cluster.elect(1);
    expect(reasonOf(cluster, 2, [1, 2])).toBe('not_leader');
  });

  test('nobody is left without a voter, and nobody is named twice', () => {
    const cluster = listCluster(2);
    cluster.elect(1);
    expect(reasonOf(cluster, 1, [], [1, 2])).toBe('no_voters');
    expect(() => cluster.change(1, [1, 2], [2])).toThrow(InvariantViolation);
  });

  test('not while leadership is handed over', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.crash(2);
    cluster.step(1, { kind: 'transfer_leader', target: asMemberId(2) });
    expect(reasonOf(cluster, 1, [1, 3])).toBe('transferring');
  });

  test('pitfall 17: not before the leader has committed an entry of its own term', () => {
    const cluster = listCluster(3);
    cluster.filter = ({ kind }) => (kind === 'append_response' ? 'hold' : 'pass');
    cluster.elect(1);
    expect(reasonOf(cluster, 1, [1, 2])).toBe('not_ready');
    cluster.release();
    cluster.settle();
    expect(reasonOf(cluster, 1, [1, 2])).toBeUndefined();
  });

  test("pitfall 17: two leaders' uncommitted one-step changes never both count", () => {
    const cluster = listCluster(4);
    cluster.elect(1);
    cluster.join(5);
    // 1 adds 5 with 5 alone, 2 removes 1 with the rest: three of five and two of three have nobody in common.
    for (const id of [2, 3, 4]) cluster.cut(1, id);
    cluster.change(1, [1, 2, 3, 4, 5]);
    cluster.settle();
    forgetLeader(cluster, [2, 3, 4]);
    cluster.elect(2);
    const refused = cluster.change(2, [2, 3, 4]);
    cluster.settle();
    expect(cluster.dropped.get(refused)).toBeUndefined();
    cluster.heal();
    cluster.cut(1, 2);
    cluster.run(6 * electionTicks);
    cluster.convergeOrFail();
    expect(members(cluster, cluster.leader() ?? 0)).toEqual(simple([2, 3, 4]));
  });

  test('pitfall 14: a second change waits until the first one is applied', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4, 5);
    cluster.holdApply(1);
    cluster.change(1, [1, 2, 3], [4]);
    expect(cluster.status(1).changePending).toBe(true);
    expect(reasonOf(cluster, 1, [1, 2, 3], [4, 5])).toBe('change_pending');
    cluster.settle();
    expect(cluster.status(1).commit).toBe(2);
    expect(reasonOf(cluster, 1, [1, 2, 3], [4, 5])).toBe('change_pending');
    cluster.releaseApply(1);
    expect(cluster.status(1).changePending).toBe(false);
    expect(reasonOf(cluster, 1, [1, 2, 3], [4, 5])).toBeUndefined();
  });

  test('pitfall 14: nor across a change of leader', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4);
    cluster.filter = ({ kind }) => (kind === 'append_response' ? 'hold' : 'pass');
    cluster.change(1, [1, 2, 3], [4]);
    cluster.settle();
    cluster.crash(1);
    forgetLeader(cluster, [2, 3]);
    cluster.elect(2);
    expect(cluster.status(2)).toMatchObject({ changePending: true });
    expect(reasonOf(cluster, 2, [2, 3])).toBe('change_pending');
    cluster.held = [];
    cluster.heal();
    cluster.run(4);
    expect(members(cluster, 2)).toEqual(simple([1, 2, 3], [4]));
    expect(reasonOf(cluster, 2, [2, 3], [4])).toBeUndefined();
  });

  test('pitfall 14: nor in a joint configuration', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4, 5);
    cluster.change(1, [1, 4, 5]);
    cluster.filter = ({ kind }) => (kind === 'append_response' ? 'hold' : 'pass');
    cluster.settle();
    cluster.release();
    cluster.settle();
    expect(members(cluster, 1).votersOutgoing).toEqual([1, 2, 3]);
    expect(cluster.status(1).changePending).toBe(true);
    expect(reasonOf(cluster, 1, [1, 2])).toBe('change_pending');
  });
});

describe('one-step changes', () => {
  test('pitfall 11: a configuration counts when it is applied, not before', () => {
    const cluster = listCluster(1);
    cluster.elect(1);
    cluster.join(2);
    cluster.isolate(2);
    cluster.holdApply(1);
    cluster.change(1, [1, 2]);
    cluster.settle();
    // Committed by 1 alone, and so is what follows until it is applied.
    cluster.propose(1, 'a');
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({ commit: 3, configuration: simple([1]) });
    cluster.releaseApply(1);
    cluster.propose(1, 'b');
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({ commit: 3, configuration: simple([1, 2]) });
    cluster.convergeOrFail();
    expect(cluster.machine(2).items).toEqual(['a', 'b']);
  });

  test('a smaller quorum decides at once what a larger one had not', () => {
    const cluster = listCluster(4);
    cluster.elect(1);
    cluster.holdApply(1);
    cluster.change(1, [1, 2, 3]);
    cluster.settle();
    for (const id of [3, 4]) cluster.isolate(id);
    cluster.propose(1, 'a');
    const read = cluster.read(1);
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({ commit: 2, lastIndex: 3 });
    expect(cluster.reads.has(read)).toBe(false);
    // Two of four were not enough; two of three are, and nothing more has to arrive.
    cluster.releaseApply(1);
    expect(cluster.status(1).commit).toBe(3);
    expect(cluster.reads.get(read)?.kind).toBe('index');
  });

  test('pitfall 15: a removed member is told the commit index before it is forgotten', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.change(1, [1, 2]);
    cluster.settle();
    expect(members(cluster, 3)).toEqual(simple([1, 2]));
    cluster.tick(3, 10 * electionTicks);
    expect(cluster.status(3)).toMatchObject({ role: 'follower', term: 1 });
    expect(cluster.sentOf('pre_vote_request', 3)).toEqual([]);
  });

  test('pitfall 15: a change is settled only when a quorum has its commit on disk', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.settle();
    expect(cluster.status(1).changeSettled).toBe(true);
    cluster.disk(2).automatic = false;
    cluster.change(1, [1, 2]);
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({
      changePending: false,
      changeSettled: false,
      configuration: simple([1, 2]),
    });
    cluster.completeWrites(2);
    cluster.settle();
    expect(cluster.status(1).changeSettled).toBe(true);
    expect(cluster.disk(2).durable.hardState.commit).toBeGreaterThanOrEqual(2);
    expect(cluster.status(2).changeSettled).toBe(false);
  });

  test('pitfall 15: a single member that is left needs nobody, wherever it is killed once the change is settled', () => {
    const cluster = listCluster(2);
    cluster.elect(1);
    cluster.change(1, [1]);
    cluster.settle();
    expect(cluster.status(1).changeSettled).toBe(true);
    cluster.crash(2);
    cluster.crash(1);
    cluster.restart(1);
    cluster.run(3 * electionTicks);
    expect(cluster.status(1)).toMatchObject({ role: 'leader', configuration: simple([1]) });
  });

  test('pitfall 15: a leader that applied its own removal and crashed before it told it is no dead end', () => {
    const cluster = listCluster(2);
    cluster.elect(1);
    cluster.filter = (message) =>
      message.kind === 'append_request' && message.commit >= 2 ? 'drop' : 'pass';
    cluster.change(1, [2]);
    cluster.settle();
    expect(members(cluster, 1)).toEqual(simple([2]));
    expect(members(cluster, 2)).toEqual(simple([1, 2]));
    cluster.crash(1);
    cluster.heal();
    cluster.restart(1);
    // It has an entry more than the other, which does not know that it is alone.
    expect(cluster.status(1).lastIndex).toBeGreaterThan(cluster.status(2).lastIndex);
    cluster.run(12 * electionTicks);
    expect(cluster.leader()).toBe(2);
    expect(members(cluster, 2)).toEqual(simple([2]));
    expect(cluster.status(1).role).toBe('follower');
  });

  test('a new voter whose log is the longest is no dead end, although it knows no members', () => {
    const cluster = listCluster(1);
    cluster.elect(1);
    cluster.join(2);
    cluster.run(2);
    cluster.change(1, [1, 2]);
    cluster.disk(1).automatic = false;
    cluster.completeWrites(1, 1);
    cluster.propose(1, 'lost by 1');
    cluster.run(3);
    cluster.crash(1);
    cluster.restart(1);
    expect(cluster.status(2).lastIndex).toBeGreaterThan(cluster.status(1).lastIndex);
    cluster.convergeOrFail(20 * electionTicks);
    expect(members(cluster, 1)).toEqual(simple([1, 2]));
  });

  test('pitfall 16: a leader that is removed goes on until the others know, hands over, and is silent', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.propose(1, 'a');
    cluster.settle();
    cluster.filter = ({ kind }) => (kind === 'append_response' ? 'hold' : 'pass');
    cluster.change(1, [2, 3]);
    cluster.settle();
    cluster.release();
    cluster.settle();
    // It has applied its removal; nobody has acknowledged the entry after it yet.
    expect(cluster.status(1)).toMatchObject({ role: 'leader', configuration: simple([2, 3]) });
    const late = cluster.propose(1, 'late');
    expect(cluster.dropped.get(late)).toBe('transferring');
    expect(reasonOf(cluster, 1, [1, 2, 3])).toBe('transferring');
    cluster.heal();
    cluster.release();
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({ role: 'follower', leader: undefined });
    expect([2, 3]).toContain(cluster.leader());
    expect(cluster.sentOf('pre_vote_request').filter(({ term }) => term === 1)).toEqual([]);
    const before = cluster.sent.filter(({ from }) => from === 1).length;
    cluster.run(6 * electionTicks);
    expect(cluster.sent.filter(({ from }) => from === 1)).toHaveLength(before);
    cluster.convergeOrFail();
  });

  test('pitfall 16: the removed leader does not count itself', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = (message) => (message.to === 3 ? 'drop' : 'pass');
    cluster.change(1, [2, 3]);
    cluster.settle();
    expect(members(cluster, 1)).toEqual(simple([2, 3]));
    cluster.run(3);
    // 1 and 2 have it, 2 and 3 would be needed.
    expect(cluster.status(1)).toMatchObject({
      role: 'leader',
      commit: 2,
      lastIndex: 3,
      changeSettled: false,
    });
    cluster.convergeOrFail();
    expect([2, 3]).toContain(cluster.leader());
  });

  test('pitfall 16: the removed leader hands over to a member that has everything', () => {
    const cluster = listCluster(4);
    cluster.elect(1);
    cluster.isolate(2);
    cluster.change(1, [2, 3, 4]);
    cluster.settle();
    expect(cluster.sentOf('timeout_now').map(({ to }) => to)).toEqual([3]);
    expect(cluster.leader()).toBe(3);
  });

  test('pitfall 16: two members become one when the leader goes, and when the other does', () => {
    for (const left of [1, 2]) {
      const cluster = listCluster(2);
      cluster.elect(1);
      cluster.propose(1, 'a');
      cluster.change(1, [left]);
      cluster.settle();
      cluster.crash(3 - left);
      cluster.run(3 * electionTicks);
      expect(cluster.status(left)).toMatchObject({ role: 'leader', configuration: simple([left]) });
      cluster.propose(left, 'b');
      cluster.settle();
      expect(cluster.machine(left).items).toEqual(['a', 'b']);
    }
  });

  test('pitfall 16: a leader that becomes a learner hands over, and follows', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    changeTo(cluster, [2, 3], [1]);
    expect([2, 3]).toContain(cluster.leader());
    expect(cluster.status(1)).toMatchObject({ role: 'follower', leader: cluster.leader() });
  });

  test('a removed member that missed everything disturbs nobody', () => {
    const cluster = listCluster(4);
    cluster.elect(1);
    cluster.isolate(4);
    cluster.change(1, [1, 2, 3]);
    cluster.proposeMany(1, letters(3));
    cluster.run(3 * electionTicks);
    cluster.heal();
    cluster.run(20 * electionTicks);
    expect(members(cluster, 4)).toEqual(simple([1, 2, 3, 4]));
    expect(cluster.sentOf('pre_vote_request', 4).length).toBeGreaterThan(0);
    expect(cluster.status(1)).toMatchObject({ role: 'leader', term: 1 });
    for (const id of [1, 2, 3]) expect(cluster.status(id).term).toBe(1);
  });

  test('pitfall 20: a transfer is given up when its target is removed or demoted', () => {
    for (const learners of [[], [2]]) {
      const cluster = listCluster(3);
      cluster.elect(1);
      cluster.holdApply(1);
      cluster.change(1, [1, 3], learners);
      cluster.settle();
      cluster.filter = ({ kind }) => (kind === 'timeout_now' ? 'drop' : 'pass');
      cluster.step(1, { kind: 'transfer_leader', target: asMemberId(2) });
      expect(cluster.status(1).transferTarget).toBe(2);
      cluster.releaseApply(1);
      expect(cluster.status(1).transferTarget).toBeUndefined();
      const token = cluster.propose(1, 'taken');
      cluster.settle();
      expect(cluster.dropped.get(token)).toBeUndefined();
      expect(cluster.machine(3).items).toEqual(['taken']);
    }
  });
});

describe('what a core says of its configurations', () => {
  test('the one at any index that it has, also after a compaction in between; a RangeError beyond', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4);
    changeTo(cluster, [1, 2, 3], [4]);
    changeTo(cluster, [1, 2, 3, 4]);
    changeTo(cluster, [1, 2, 3]);
    const expected = [simple([1, 2, 3]), simple([1, 2, 3], [4]), simple([1, 2, 3, 4]), simple([1, 2, 3])];
    const changed = cluster.safety.history.filter(({ kind }) => kind === 'configuration');
    expect(changed).toHaveLength(3);
    const { applied } = cluster.status(1);
    for (let from = 0; from <= applied; from += 1) {
      if (from > 0) cluster.compact(1, from);
      for (let index = from; index <= applied; index += 1) {
        const count = changed.filter((entry) => entry.index <= index).length;
        expect(cluster.configurationAt(1, index)).toEqual(expected[count]);
      }
      if (from > 0) expect(() => cluster.configurationAt(1, from - 1)).toThrow(RangeError);
    }
    expect(() => cluster.configurationAt(1, applied + 1)).toThrow(RangeError);
  });

  test('two changes asked for at the same time: one is taken, the other is told to wait', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4, 5);
    const tokens = [cluster.change(1, [1, 2, 3], [4]), cluster.change(1, [1, 2, 3], [5])];
    cluster.convergeOrFail();
    expect(tokens.map((token) => cluster.dropped.get(token))).toEqual([undefined, 'change_pending']);
    expect(members(cluster, 1)).toEqual(simple([1, 2, 3], [4]));
  });
});
