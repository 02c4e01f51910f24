import { describe, expect, test } from 'vitest';
import { listCluster } from './support/cluster.ts';

const dropped = (reason: string) => ({ kind: 'dropped', reason });

describe('reads', () => {
  test('are answered on every member with an index that has all that was committed before', () => {
    const cluster = listCluster(3, { learners: 1 });
    cluster.elect(1);
    cluster.propose(1, 'a');
    cluster.settle();
    const tokens = cluster.ids.map((id) => cluster.read(id));
    cluster.settle();
    for (const token of tokens) expect(cluster.reads.get(token)).toEqual({ kind: 'index', index: 2 });
  });

  test('many reads of one turn share one round', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'heartbeat_request' ? 'hold' : 'pass');
    const first = cluster.read(1);
    const held = cluster.held.length;
    expect(held).toBe(2);
    cluster.release();
    cluster.settle();
    expect(cluster.reads.get(first)?.kind).toBe('index');
  });

  test('without a leader, or without its answer, are dropped so that the caller can ask again', () => {
    const cluster = listCluster(3);
    expect(cluster.reads.get(cluster.read(2))).toEqual(dropped('no_leader'));
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'read_request' ? 'drop' : 'pass');
    const unanswered = cluster.read(2);
    cluster.run(10);
    expect(cluster.reads.get(unanswered)).toEqual(dropped('no_leader'));
    const overtaken = cluster.read(2);
    cluster.crash(3);
    cluster.restart(3);
    cluster.isolate(1);
    cluster.crash(2);
    cluster.restart(2);
    cluster.elect(3);
    expect(cluster.reads.has(overtaken)).toBe(false);
    const followed = cluster.read(2);
    cluster.inject(1, 2, 9, { kind: 'heartbeat_response', readRound: 0 });
    expect(cluster.reads.get(followed)).toEqual(dropped('lost_leadership'));
  });

  test('more than may wait are dropped', () => {
    const cluster = listCluster(3, { tuning: { pendingReadsMax: 2 } });
    cluster.elect(1);
    for (const id of [1, 2]) {
      const tokens = [cluster.read(id), cluster.read(id), cluster.read(id)];
      expect(cluster.reads.get(tokens[2] ?? 0)).toEqual(dropped('too_many_reads'));
      cluster.settle();
      expect(cluster.reads.get(tokens[0] ?? 0)?.kind).toBe('index');
    }
  });

  test('pitfall 1: a new leader postpones reads until it has committed an entry of its own term', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    // The entry is committed, and only the old leader knows.
    cluster.filter = (message) => (message.kind === 'append_request' && message.commit > 1 ? 'drop' : 'pass');
    cluster.propose(1, 'a');
    cluster.settle();
    expect([cluster.status(1).commit, cluster.status(2).commit]).toEqual([2, 1]);
    cluster.crash(1);
    cluster.crash(3);
    cluster.restart(3);
    cluster.filter = ({ kind }) => (kind === 'append_request' ? 'hold' : 'pass');
    cluster.elect(2);
    const read = cluster.read(2);
    cluster.settle();
    cluster.tick(2);
    cluster.settle();
    expect(cluster.reads.has(read)).toBe(false);
    cluster.heal();
    cluster.release();
    cluster.settle();
    expect(cluster.reads.get(read)).toEqual({ kind: 'index', index: 3 });
  });

  test('pitfall 2: answers to an earlier round confirm no later read', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'heartbeat_response' ? 'hold' : 'pass');
    const early = cluster.read(1);
    cluster.settle();
    cluster.filter = ({ to }) => (to === 1 ? 'drop' : 'pass');
    cluster.block(1, 2);
    cluster.block(1, 3);
    cluster.crash(3);
    cluster.restart(3);
    cluster.elect(2);
    cluster.propose(2, 'b');
    cluster.settle();
    const late = cluster.read(1);
    cluster.settle();
    cluster.release();
    cluster.settle();
    expect(cluster.reads.get(early)).toEqual({ kind: 'index', index: 1 });
    expect(cluster.reads.has(late)).toBe(false);
  });

  test('pitfall 2: an answer to a question from before a restart answers none from after it', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'read_response' ? 'hold' : 'pass');
    cluster.read(2);
    cluster.settle();
    cluster.crash(2);
    cluster.restart(2);
    cluster.propose(1, 'a');
    cluster.settle();
    const later = cluster.read(2);
    cluster.filter = ({ kind }) => (kind === 'read_request' ? 'drop' : 'pass');
    cluster.release();
    cluster.settle();
    expect(cluster.reads.get(later)).not.toEqual({ kind: 'index', index: 1 });
  });

  test('pitfall 3: while leadership is handed over no read is served, here or for a follower', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind }) =>
      kind === 'heartbeat_response' || kind === 'timeout_now' ? 'hold' : 'pass';
    const before = cluster.read(1);
    cluster.settle();
    cluster.step(1, { kind: 'transfer_leader', target: cluster.status(2).id });
    expect(cluster.reads.get(before)).toEqual(dropped('transferring'));
    const during = cluster.read(1);
    expect(cluster.reads.get(during)).toEqual(dropped('transferring'));
    const forwarded = cluster.read(3);
    cluster.settle();
    expect(cluster.reads.get(forwarded)).toEqual(dropped('lost_leadership'));
    cluster.convergeOrFail();
    expect(cluster.leader()).toBe(2);
  });

  test('pitfall 3: a later read does not take the index of an earlier batch', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'heartbeat_response' ? 'hold' : 'pass');
    const first = cluster.read(1);
    cluster.propose(1, 'a');
    cluster.settle();
    const second = cluster.read(1);
    cluster.settle();
    cluster.release();
    cluster.settle();
    expect(cluster.reads.get(first)).toEqual({ kind: 'index', index: 1 });
    expect(cluster.reads.get(second)).toEqual({ kind: 'index', index: 2 });
  });

  test('pitfall 4: a single voter that restarts with an old commit index serves no stale read', () => {
    const cluster = listCluster(1);
    cluster.elect(1);
    cluster.disk(1).automatic = false;
    cluster.propose(1, 'a');
    cluster.completeWrites(1, 1);
    expect(cluster.status(1).commit).toBe(2);
    cluster.crash(1);
    cluster.restart(1);
    expect(cluster.status(1).commit).toBe(1);
    cluster.step(1, { kind: 'campaign' });
    cluster.completeWrites(1, 1);
    expect(cluster.status(1).role).toBe('leader');
    const read = cluster.read(1);
    expect(cluster.reads.has(read)).toBe(false);
    cluster.completeWrites(1);
    expect(cluster.reads.get(read)).toEqual({ kind: 'index', index: 3 });
  });
});
