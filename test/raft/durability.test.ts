import { describe, expect, test } from 'vitest';
import {
  asLogIndex,
  asMemberId,
  asTerm,
  initialConfiguration,
  InvariantViolation,
  Raft,
} from '../../src/raft/index.ts';
import { listCluster } from './support/cluster.ts';

describe('durability', () => {
  test('pitfall 5: a single voter commits only what is on its own disk', () => {
    const cluster = listCluster(1);
    cluster.disk(1).automatic = false;
    cluster.step(1, { kind: 'campaign' });
    expect(cluster.status(1).role).toBe('candidate');
    cluster.completeWrites(1, 1);
    expect(cluster.status(1)).toMatchObject({ role: 'leader', commit: 0 });
    cluster.propose(1, 'a');
    expect(cluster.status(1)).toMatchObject({ commit: 0, durable: 0, lastIndex: 2 });
    cluster.completeWrites(1);
    expect(cluster.status(1)).toMatchObject({ commit: 2, applied: 2 });
  });

  test('pitfall 26: a new leader counts its empty entry only when it is on its disk', () => {
    const cluster = listCluster(3);
    cluster.crash(3);
    cluster.disk(1).automatic = false;
    cluster.step(1, { kind: 'campaign' });
    cluster.settle();
    cluster.completeWrites(1, 1);
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({ role: 'leader', commit: 0, durable: 0 });
    expect(cluster.disk(2).durable.last).toBe(1);
    cluster.completeWrites(1);
    expect(cluster.status(1).commit).toBe(1);
  });

  test('pitfall 26: old completions are ignored, one for a write that was never given out is refused', () => {
    const cluster = listCluster(1);
    cluster.disk(1).automatic = false;
    cluster.step(1, { kind: 'campaign' });
    cluster.completeWrites(1, 1);
    cluster.propose(1, 'a');
    const sequence = cluster.disk(1).outstanding.at(-1)?.sequence ?? 0;
    for (let i = 0; i < 3; i += 1) cluster.completeWriteSilently(1);
    cluster.step(1, { kind: 'persisted', sequence });
    const { durable, commit } = cluster.status(1);
    expect(durable).toBe(2);
    for (const old of [1, sequence - 1, sequence]) cluster.step(1, { kind: 'persisted', sequence: old });
    expect(cluster.status(1)).toMatchObject({ durable, commit });
    expect(() => cluster.step(1, { kind: 'persisted', sequence: sequence + 5 })).toThrow(InvariantViolation);
  });

  test('pitfall 27: nothing that carries a term or a vote leaves before both are on disk', () => {
    const cluster = listCluster(3);
    for (const id of cluster.ids) cluster.disk(id).automatic = false;
    cluster.step(1, { kind: 'campaign' });
    cluster.settle();
    expect(cluster.status(1)).toMatchObject({ role: 'candidate', term: 1 });
    expect(cluster.sentOf('vote_request')).toEqual([]);
    cluster.completeWrites(1);
    cluster.settle();
    expect(cluster.sentOf('vote_request')).toHaveLength(2);
    expect(cluster.sentOf('vote_response')).toEqual([]);
    cluster.inject(3, 2, 7, {
      kind: 'heartbeat_request',
      commit: asLogIndex(0),
      readRound: 0,
      settledTo: asLogIndex(0),
    });
    cluster.inject(3, 2, 7, {
      kind: 'heartbeat_request',
      commit: asLogIndex(0),
      readRound: 0,
      settledTo: asLogIndex(0),
    });
    expect(cluster.sentOf('heartbeat_response')).toEqual([]);
    cluster.completeWrites(2);
    expect(cluster.sentOf('heartbeat_response')).toHaveLength(2);
  });

  test('pitfall 27: an answer that needs a write under way leaves when that is on disk, not with a later one', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.disk(2).automatic = false;
    cluster.propose(1, 'a');
    cluster.settle();
    const [append] = cluster
      .sentOf('append_request', 1)
      .filter(({ to, entries }) => to === 2 && entries.length > 0)
      .slice(-1);
    if (append === undefined) throw new Error('no append was sent');
    const before = cluster.sentOf('append_response', 2).length;
    cluster.step(2, { kind: 'message', message: append });
    expect(cluster.sentOf('append_response', 2)).toHaveLength(before);
    cluster.completeWrites(2, 1);
    expect(cluster.sentOf('append_response', 2)).toHaveLength(before + 2);
  });

  test('pitfall 27: a candidate counts its own vote when that vote is on disk, not an earlier one', () => {
    const cluster = listCluster(1);
    cluster.disk(1).automatic = false;
    cluster.step(1, { kind: 'campaign' });
    for (let i = 0; i < 20 && cluster.status(1).term === 1; i += 1) cluster.tick(1);
    expect(cluster.disk(1).outstanding).toHaveLength(2);
    cluster.completeWrites(1, 1);
    expect(cluster.status(1)).toMatchObject({ role: 'candidate', term: 2 });
    cluster.completeWrites(1, 1);
    expect(cluster.status(1)).toMatchObject({ role: 'leader', term: 2 });
  });

  test('pitfall 31: a heartbeat tells no commit index beyond what is known to match', () => {
    const cluster = listCluster(3);
    cluster.elect(3);
    cluster.isolate(3);
    cluster.proposeMany(3, ['x', 'y', 'z']);
    cluster.settle();
    cluster.crash(2);
    cluster.restart(2);
    cluster.crash(1);
    cluster.restart(1);
    cluster.elect(1);
    cluster.proposeMany(1, ['a', 'b']);
    cluster.settle();
    expect(cluster.status(1).commit).toBe(4);
    cluster.heal();
    cluster.filter = ({ kind, to }) => (kind === 'append_request' && to === 3 ? 'hold' : 'pass');
    cluster.run(3);
    expect(cluster.status(3)).toMatchObject({ leader: 1, commit: 1, lastIndex: 4 });
    cluster.convergeOrFail();
    expect(cluster.machine(3).items).toEqual(['a', 'b']);
  });

  test('pitfall 31: a member that comes back with a shorter log neither fails nor commits what it lacks', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.proposeMany(1, ['a', 'b', 'c', 'd']);
    cluster.settle();
    cluster.crash(2);
    const disk = cluster.disk(2);
    const hardState = { ...disk.durable.hardState, commit: asLogIndex(2) };
    const loss = {
      sequence: 0,
      hardState,
      truncateFrom: asLogIndex(4),
      entries: [],
      mustSync: true,
      afterDurable: [],
    };
    disk.durable.write(loss);
    disk.crash(0);
    cluster.restart(2);
    cluster.run(5);
    const { commit, lastIndex } = cluster.status(2);
    expect(lastIndex).toBe(3);
    expect(commit).toBeLessThanOrEqual(3);
    // The next leadership begins to match anew.
    cluster.step(1, { kind: 'transfer_leader', target: asMemberId(3) });
    cluster.run(5);
    expect(cluster.machine(2).items).toEqual(['a', 'b', 'c', 'd']);
  });

  test('a disk that lost committed entries is refused, with what to do', () => {
    const start = () =>
      new Raft({
        id: asMemberId(1),
        hardState: { term: asTerm(1), vote: undefined, commit: asLogIndex(4) },
        snapshot: { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1]) },
        entries: [],
        applied: asLogIndex(0),
        random: () => 0.5,
      });
    expect(start).toThrow(/commit index 4 is beyond the last entry 0.*replace this member/);
  });

  test('pitfall 36: the core refuses to be entered while it is at work, and to go on afterwards', () => {
    let started = false;
    let reentered = false;
    const raft = new Raft({
      id: asMemberId(1),
      hardState: { term: asTerm(0), vote: undefined, commit: asLogIndex(0) },
      snapshot: { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1, 2, 3]) },
      entries: [],
      applied: asLogIndex(0),
      random: () => {
        if (started) {
          reentered = true;
          raft.ready();
        }
        return 0.5;
      },
    });
    started = true;
    expect(() => raft.step({ kind: 'campaign' })).toThrow(/while the core was at work/);
    expect(reentered).toBe(true);
    expect(() => raft.ready()).toThrow(/cannot be used any more/);
  });

  test('pitfall 36: one drain gives out everything, the next one nothing', () => {
    const raft = new Raft({
      id: asMemberId(1),
      hardState: { term: asTerm(0), vote: undefined, commit: asLogIndex(0) },
      snapshot: { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1, 2, 3]) },
      entries: [],
      applied: asLogIndex(0),
      random: () => 0.5,
    });
    expect(raft.ready()).toBeUndefined();
    raft.step({ kind: 'campaign' });
    expect(raft.ready()?.send).toHaveLength(2);
    expect(raft.ready()).toBeUndefined();
  });
});
