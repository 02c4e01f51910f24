import { describe, expect, test } from 'vitest';
import { decodeConfiguration } from '../../src/raft/index.ts';
import { listCluster } from './support/cluster.ts';
import { changeTo, electionTicks, forgetLeader, letters, members, simple } from './support/members.ts';
import type { Cluster } from './support/members.ts';

const hasEntry = (cluster: Cluster, id: number, kind: string): boolean =>
  cluster.disk(id).handed.entries.some((entry) => entry.kind === kind);

describe('joint changes', () => {
  test('several voters change at once: through a joint configuration, which is left by itself', () => {
    const cluster = listCluster(3, { learners: 1 });
    cluster.elect(1);
    cluster.propose(1, 'a');
    cluster.join(5, 6);
    changeTo(cluster, [1, 4, 5], [2, 6]);
    const changes = cluster.safety.history.filter(({ kind }) => kind === 'configuration');
    expect(changes.map(({ payload }): unknown => JSON.parse(Buffer.from(payload).toString()))).toEqual([
      { voters: [1, 4, 5], votersOutgoing: [1, 2, 3], learners: [6], learnersNext: [2], autoLeave: true },
      { voters: [1, 4, 5], votersOutgoing: [], learners: [2, 6], learnersNext: [], autoLeave: false },
    ]);
    for (const id of [2, 4, 5, 6]) expect(cluster.machine(id).items).toEqual(['a']);
  });

  test('in it nothing is committed, read or led without a majority of both halves', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4, 5);
    cluster.isolate(4);
    cluster.isolate(5);
    cluster.change(1, [1, 4, 5]);
    cluster.settle();
    expect(members(cluster, 1).votersOutgoing).toEqual([1, 2, 3]);
    const { commit } = cluster.status(1);
    cluster.propose(1, 'a');
    const read = cluster.read(1);
    cluster.settle();
    expect(cluster.status(1).commit).toBe(commit);
    expect(cluster.reads.has(read)).toBe(false);
    cluster.run(2 * electionTicks);
    expect(cluster.leader()).toBeUndefined();
    cluster.convergeOrFail();
    expect(members(cluster, cluster.leader() ?? 0)).toEqual(simple([1, 4, 5]));
  });

  test('nor with the majority of the new half only', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4, 5);
    cluster.change(1, [1, 4, 5]);
    cluster.filter = (message) => (message.kind === 'append_response' ? 'hold' : 'pass');
    cluster.settle();
    cluster.release();
    cluster.settle();
    expect(members(cluster, 1).votersOutgoing).toEqual([1, 2, 3]);
    cluster.filter = () => 'pass';
    for (const id of [2, 3]) cluster.isolate(id);
    const { commit } = cluster.status(1);
    cluster.propose(1, 'a');
    cluster.run(4);
    expect(cluster.status(1).commit).toBe(commit);
    cluster.convergeOrFail();
  });

  test('nor is anybody elected by one half alone', () => {
    for (const [candidate, without] of [
      [4, [2, 3]],
      [2, [4, 5]],
    ] as const) {
      const cluster = listCluster(3, { learners: 2 });
      cluster.elect(1);
      cluster.run(2);
      // The leaving entry is lost: the change stays joint.
      cluster.filter = (message) =>
        message.kind === 'append_request' &&
        message.entries.some(
          ({ kind, payload }) => kind === 'configuration' && !decodeConfiguration(payload).autoLeave,
        )
          ? 'drop'
          : 'pass';
      cluster.change(1, [1, 4, 5]);
      cluster.run(4);
      forgetLeader(cluster, cluster.ids);
      for (const id of without) cluster.crash(id);
      cluster.settle();
      expect(members(cluster, candidate).votersOutgoing).toEqual([1, 2, 3]);
      cluster.step(candidate, { kind: 'campaign' });
      cluster.settle();
      expect(cluster.status(candidate).role).toBe('pre_candidate');
      expect(
        cluster.sentOf('pre_vote_response').filter(({ to, granted }) => to === candidate && granted),
      ).toHaveLength(1);
      cluster.convergeOrFail();
      expect(members(cluster, cluster.leader() ?? 0)).toEqual(simple([1, 4, 5]));
    }
  });

  test('a dead voter is replaced by a new server in one change', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.proposeMany(1, letters(5));
    cluster.settle();
    cluster.crash(3);
    cluster.join(4);
    cluster.change(1, [1, 2, 4]);
    cluster.run(4);
    expect(members(cluster, 1)).toEqual(simple([1, 2, 4]));
    cluster.crash(2);
    cluster.propose(1, 'with 4');
    cluster.run(4);
    expect(cluster.machine(4).items).toEqual([...letters(5), 'with 4']);
  });

  test('all members are replaced at once, the leader too', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.propose(1, 'a');
    cluster.join(4, 5, 6);
    changeTo(cluster, [4, 5, 6]);
    for (const id of [1, 2, 3]) cluster.crash(id);
    cluster.propose(cluster.leader() ?? 0, 'b');
    cluster.settle();
    for (const id of [4, 5, 6]) expect(cluster.machine(id).items).toEqual(['a', 'b']);
  });

  test('pitfall 18: a snapshot in the middle of a joint change has both halves', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4, 5);
    cluster.isolate(5);
    // Entries for 4 and 5 are lost: the change stays joint.
    cluster.filter = ({ to, kind }) => (to >= 4 && kind === 'append_request' ? 'drop' : 'pass');
    cluster.change(1, [1, 4, 5]);
    cluster.settle();
    const joint = members(cluster, 1);
    expect(joint.votersOutgoing).toEqual([1, 2, 3]);
    cluster.compact(1);
    cluster.cut(4, 1);
    cluster.heal();
    for (let i = 0; i < 6 && cluster.sentOf('install_snapshot').length === 0; i += 1) cluster.run(1);
    expect(cluster.sentOf('install_snapshot')[0]?.snapshot.configuration).toEqual(joint);
    cluster.convergeOrFail();
    expect(members(cluster, 4)).toEqual(simple([1, 4, 5]));
  });

  test('pitfall 18: after a restart a member goes by the configuration of what it has applied', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4);
    for (const [voters, learners] of [
      [[1, 2, 3], [4]],
      [[1, 2, 3, 4], []],
      [[1, 2, 4], []],
    ] as const) {
      changeTo(cluster, voters, learners);
      cluster.propose(cluster.leader() ?? 0, 'more');
      cluster.settle();
      for (const id of [1, 2, 4]) {
        const { firstIndex, applied } = cluster.status(id);
        cluster.compact(id, Math.max(firstIndex, applied - id));
        cluster.crash(id);
        cluster.restart(id);
        expect(members(cluster, id)).toEqual(simple(voters, learners));
      }
      cluster.convergeOrFail();
    }
  });
});

describe('pitfall 14: a joint change is finished by somebody, wherever the leader stops', () => {
  /** Runs the change, and stops member 1 the first time that this holds. */
  const stopWhen = (reached: (cluster: Cluster) => boolean, target: readonly number[]): Cluster => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.join(4, 5);
    cluster.proposeMany(1, letters(3));
    cluster.run(2);
    for (const id of cluster.ids) cluster.disk(id).automatic = false;
    cluster.holdApply(1);
    cluster.change(1, target);
    for (let step = 0; step < 500; step += 1) {
      if (reached(cluster)) {
        cluster.crash(1);
        return cluster;
      }
      if (cluster.packets.length > 0) cluster.deliver();
      else if (step % 7 === 6) cluster.releaseApply(1);
      else for (const id of cluster.ids) cluster.completeWrites(id, 1);
      cluster.holdApply(1);
      if (step % 20 === 19) cluster.tick(1);
    }
    throw new Error(`never reached: ${reached.toString()}`);
  };
  const changes = (cluster: Cluster, id: number): number =>
    cluster.disk(id).durable.entries.filter(({ kind }) => kind === 'configuration').length;
  const isJoint = (cluster: Cluster, id: number): boolean => members(cluster, id).votersOutgoing.length > 0;
  const commitOf = (cluster: Cluster, nth: number): boolean => {
    const { commit } = cluster.status(1);
    const entries = cluster.disk(1).handed.entries.filter(({ kind }) => kind === 'configuration');
    return (entries[nth]?.index ?? Number.POSITIVE_INFINITY) <= commit;
  };
  const places: readonly (readonly [string, (cluster: Cluster) => boolean])[] = [
    ['the joint entry is nowhere on disk', (cluster) => changes(cluster, 1) === 0],
    ['the joint entry is on its own disk', (cluster) => changes(cluster, 1) === 1],
    ["the joint entry is on another's disk", (cluster) => changes(cluster, 2) === 1],
    ['the joint entry is committed', (cluster) => commitOf(cluster, 0)],
    ['the joint entry is applied', (cluster) => isJoint(cluster, 1)],
    ['the leaving entry is on its own disk', (cluster) => changes(cluster, 1) === 2],
    ["the leaving entry is on another's disk", (cluster) => changes(cluster, 2) === 2],
    ['the leaving entry is committed', (cluster) => commitOf(cluster, 1)],
    ['the leaving entry is applied', (cluster) => commitOf(cluster, 1) && !isJoint(cluster, 1)],
  ];

  for (const target of [
    [1, 4, 5],
    [2, 3, 4, 5],
    [4, 5],
  ]) {
    test.each(places)(`to ${target.join(', ')}, when %s`, (_, reached) => {
      const cluster = stopWhen(reached, target);
      for (const id of cluster.ids) cluster.disk(id).automatic = true;
      // Without the first leader, as far as the others can.
      cluster.run(15 * electionTicks);
      const wasTold = hasEntry(cluster, 2, 'configuration');
      if (wasTold && !target.includes(1)) {
        expect(cluster.leader()).toBeDefined();
        expect(members(cluster, cluster.leader() ?? 0)).toEqual(simple(target));
      }
      cluster.convergeOrFail(30 * electionTicks);
      const final = members(cluster, cluster.leader() ?? 0);
      expect([simple([1, 2, 3]), simple(target)]).toContainEqual(final);
      if (wasTold) expect(final).toEqual(simple(target));
    });
  }
});
