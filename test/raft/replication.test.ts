import { describe, expect, test } from 'vitest';
import { asLogIndex, asMemberId, asTerm } from '../../src/raft/index.ts';
import type { Entry, PeerProgress } from '../../src/raft/index.ts';
import { Inflights } from '../../src/raft/inflights.ts';
import { Progress } from '../../src/raft/progress.ts';
import { listCluster } from './support/cluster.ts';
import type { ScriptedCluster } from './support/cluster.ts';
import type { ListMachine } from './support/machine.ts';

const entry = (index: number, term: number, text = `${index}@${term}`): Entry => ({
  term: asTerm(term),
  index: asLogIndex(index),
  kind: 'commands',
  payload: Buffer.from(text),
});

const append = (index: number, term: number, entries: readonly Entry[], commit = 0) =>
  ({
    kind: 'append_request',
    previousIndex: asLogIndex(index),
    previousTerm: asTerm(term),
    commit: asLogIndex(commit),
    entries,
  }) as const;

const accepted = (index: number) =>
  ({ kind: 'append_response', outcome: { accepted: true, matchIndex: asLogIndex(index) } }) as const;

const rejected = (at: number, hint: number, hintTerm: number) =>
  ({
    kind: 'append_response',
    outcome: {
      accepted: false,
      rejectedIndex: asLogIndex(at),
      hintIndex: asLogIndex(hint),
      hintTerm: asTerm(hintTerm),
    },
  }) as const;

const progressOf = (cluster: ScriptedCluster<ListMachine>, leader: number, peer: number): PeerProgress => {
  const progress = cluster.status(leader).progress.find(({ id }) => id === peer);
  if (progress === undefined) throw new Error(`${leader} keeps no progress of ${peer}`);
  return progress;
};

const letters = (count: number): string[] => Array.from({ length: count }, (_, i) => `p${i}`);

describe('replication', () => {
  test('entries reach everybody, in order, and the commit index is told without waiting for a tick', () => {
    const cluster = listCluster(3, { learners: 1 });
    cluster.elect(1);
    cluster.proposeMany(1, letters(50));
    cluster.settle();
    for (const id of cluster.ids) expect(cluster.machine(id).items).toEqual(letters(50));
  });

  test('appends leave before the own disk has the entries, and within the limits of size', () => {
    const cluster = listCluster(3, { tuning: { appendBytesMax: 6 } });
    cluster.elect(1);
    cluster.disk(1).automatic = false;
    const before = cluster.sentOf('append_request', 1).length;
    cluster.proposeMany(1, ['aaa', 'bbb', 'c', 'a larger one goes alone', 'd']);
    const sizes = cluster
      .sentOf('append_request', 1)
      .slice(before)
      .filter(({ to: peer }) => peer === 2)
      .map(({ entries }) => entries.length);
    expect(sizes).toEqual([2, 1, 1, 1]);
    cluster.settle();
    expect(cluster.status(1).commit).toBe(6);
    expect(cluster.machine(1).items).toEqual([]);
  });

  test('a learner does not count', () => {
    const cluster = listCluster(2, { learners: 2 });
    cluster.elect(1);
    cluster.isolate(2);
    cluster.propose(1, 'a');
    cluster.settle();
    expect(progressOf(cluster, 1, 3).match).toBe(2);
    expect(cluster.status(1).commit).toBe(1);
  });

  test('proposals that are not taken are reported, and none overtakes one that was dropped', () => {
    const cluster = listCluster(3, { tuning: { uncommittedBytesMax: 10 } });
    expect(cluster.dropped.get(cluster.propose(2, 'a'))).toBe('no_leader');
    cluster.elect(1);
    expect(cluster.dropped.get(cluster.propose(2, 'a'))).toBe('not_leader');
    cluster.isolate(1);
    const tokens = cluster.proposeMany(1, ['larger than the limit', 'b']);
    const more = cluster.proposeMany(1, ['123456', 'c']);
    expect(tokens.map((token) => cluster.dropped.get(token))).toEqual([undefined, 'too_much_uncommitted']);
    expect(more.map((token) => cluster.dropped.get(token))).toEqual([
      'too_much_uncommitted',
      'too_much_uncommitted',
    ]);
  });

  test('a long conflict is skipped by whole terms', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.proposeMany(1, letters(60));
    cluster.settle();
    cluster.crash(1);
    cluster.crash(3);
    cluster.restart(3);
    cluster.elect(2);
    cluster.proposeMany(2, letters(90));
    cluster.settle();
    cluster.heal();
    cluster.restart(1);
    const before = cluster.sentOf('append_response', 1).length;
    cluster.run(4);
    const rejections = cluster
      .sentOf('append_response', 1)
      .slice(before)
      .filter(({ outcome }) => !outcome.accepted);
    expect(cluster.machine(1).items).toEqual(letters(90));
    expect(rejections.length).toBeLessThanOrEqual(2);
  });

  test('a lost append is found out by the next heartbeat, without new proposals', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = (message) => (message.kind === 'append_request' && message.to === 3 ? 'drop' : 'pass');
    cluster.propose(1, 'a');
    cluster.settle();
    cluster.filter = () => 'pass';
    cluster.run(4);
    expect(cluster.machine(3).items).toEqual(['a']);
  });

  test('a commit index that is told alone is answered only where the answer says anything new', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    const answers = () => cluster.sentOf('append_response', 2).length;
    const before = answers();
    cluster.propose(1, 'a');
    cluster.settle();
    // For the entry, and not for the commit index behind it.
    expect(answers() - before).toBe(1);
    expect(cluster.status(2)).toMatchObject({ commit: cluster.status(1).lastIndex });
    // Asked once more, as a leader does that has missed something, it answers.
    const { lastIndex } = cluster.status(2);
    cluster.inject(1, 2, 1, append(lastIndex, 1, [], lastIndex));
    cluster.settle();
    expect(answers() - before).toBe(2);
  });

  test('an answer that was lost before the commit index was told is given again', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind, from }) => (kind === 'append_response' && from === 3 ? 'drop' : 'pass');
    cluster.propose(1, 'a');
    cluster.settle();
    expect(progressOf(cluster, 1, 3).match).toBeLessThan(cluster.status(1).lastIndex);
    cluster.filter = () => 'pass';
    cluster.run(4);
    expect(progressOf(cluster, 1, 3)).toMatchObject({
      state: 'replicate',
      match: cluster.status(1).lastIndex,
    });
  });

  test('a member that needs compacted entries gets a snapshot, also when the first stream fails', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.proposeMany(1, ['a', 'b']);
    cluster.settle();
    cluster.compact(1);
    cluster.heal();
    cluster.filter = ({ kind }) => (kind === 'install_snapshot' ? 'drop' : 'pass');
    cluster.run(3);
    expect(cluster.sentOf('install_snapshot', 1).length).toBeGreaterThan(0);
    cluster.filter = () => 'pass';
    cluster.run(4);
    expect(cluster.machine(3).items).toEqual(['a', 'b']);
    expect(cluster.status(3)).toMatchObject({ firstIndex: 4, applied: 3 });
  });

  test('while a snapshot is being written nothing is taken into the log that it replaces', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.disk(3).automatic = false;
    cluster.disk(3).stage(asLogIndex(9), cluster.machine(3).snapshot());
    cluster.filter = () => 'drop';
    const snapshot = { index: asLogIndex(9), term: asTerm(1), configuration: cluster.configuration };
    cluster.inject(1, 3, 1, { kind: 'install_snapshot', snapshot });
    const before = cluster.sentOf('append_response', 3).length;
    cluster.inject(1, 3, 1, append(1, 1, [entry(2, 1)], 2));
    expect(cluster.status(3)).toMatchObject({ lastIndex: 1, commit: 1, applied: 1 });
    expect(cluster.sentOf('append_response', 3)).toHaveLength(before);
    cluster.completeWrites(3);
    expect(cluster.status(3)).toMatchObject({
      firstIndex: 10,
      lastIndex: 9,
      commit: 9,
      applied: 9,
      durable: 9,
    });
    expect(cluster.sentOf('append_response', 3).at(-1)).toMatchObject(accepted(9));
  });

  test('a snapshot of what the log has already only moves the commit index', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = (message) => (message.kind === 'append_request' && message.commit > 1 ? 'drop' : 'pass');
    cluster.proposeMany(1, ['a', 'b']);
    cluster.settle();
    const snapshot = { index: asLogIndex(2), term: asTerm(1), configuration: cluster.configuration };
    cluster.inject(1, 2, 1, { kind: 'install_snapshot', snapshot });
    cluster.settle();
    expect(cluster.status(2)).toMatchObject({ commit: 2, lastIndex: 3, firstIndex: 1 });
    expect(cluster.machine(2).items).toEqual(['a']);
  });

  test('an entry of an earlier term is committed only together with one of the present term', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'append_response' ? 'drop' : 'pass');
    cluster.propose(1, 'a');
    cluster.settle();
    for (const id of [1, 3]) cluster.crash(id);
    cluster.restart(3);
    cluster.filter = ({ kind }) => (kind === 'append_request' ? 'hold' : 'pass');
    cluster.elect(2);
    cluster.inject(3, 2, 2, accepted(2));
    expect(progressOf(cluster, 2, 3).match).toBe(2);
    expect(cluster.status(2)).toMatchObject({ commit: 1, lastIndex: 3 });
    cluster.convergeOrFail();
    expect(cluster.machine(1).items).toEqual(['a']);
  });

  test('pitfall 21: a delayed rejection does not move next back to match or below', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.proposeMany(1, letters(5));
    cluster.settle();
    const before = progressOf(cluster, 1, 2);
    cluster.inject(2, 1, 1, rejected(3, 0, 0));
    expect(progressOf(cluster, 1, 2)).toEqual(before);

    const progress = new Progress(asMemberId(2), asLogIndex(10), new Inflights(4, 100));
    expect(progress.reject(asLogIndex(7), asLogIndex(2))).toBe(false);
    expect(progress.next).toBe(10);
    expect(progress.acknowledge(asLogIndex(6))).toBe(true);
    expect(progress.reject(asLogIndex(9), asLogIndex(2))).toBe(true);
    expect(progress).toMatchObject({ match: 6, next: 7 });
  });

  test('pitfall 22: an append from before what the follower compacted is answered', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.proposeMany(1, letters(5));
    cluster.settle();
    cluster.compact(2, 5);
    cluster.inject(1, 2, 1, append(3, 1, []));
    cluster.inject(1, 2, 1, append(2, 1, [entry(3, 1, 'p1'), entry(4, 1, 'p2')]));
    const answers = cluster.sentOf('append_response', 2).slice(-2);
    expect(answers.map(({ outcome }) => outcome)).toEqual([accepted(6).outcome, accepted(6).outcome]);
    // From before the first entry here, to beyond the last one.
    cluster.isolate(2);
    const known = [3, 4, 5, 6].map((index) => entry(index, 1, `p${index - 2}`));
    cluster.inject(1, 2, 1, append(2, 1, [...known, entry(7, 1, 'p5')]));
    cluster.settle();
    expect(cluster.sentOf('append_response', 2).at(-1)).toMatchObject(accepted(7));
  });

  test('pitfall 22: a silent peer gets a window of appends, then at most one for each answered heartbeat', () => {
    const cluster = listCluster(3, { tuning: { inflightMessagesMax: 4 } });
    cluster.elect(1);
    const sentTo2 = () => cluster.sentOf('append_request', 1).filter(({ to: peer }) => peer === 2).length;
    cluster.filter = (message) =>
      message.from === 2 && message.kind === 'append_response' ? 'drop' : 'pass';
    let before = sentTo2();
    for (const text of letters(50)) {
      cluster.propose(1, text);
      cluster.settle();
    }
    // The window, and the commit index with each of its entries.
    expect(sentTo2() - before).toBeLessThanOrEqual(2 * 4);
    expect(progressOf(cluster, 1, 2).inflightMessages).toBe(4);
    before = sentTo2();
    cluster.run(5);
    expect(sentTo2() - before).toBeLessThanOrEqual(5);
    before = sentTo2();
    for (let i = 0; i < 20; i += 1) {
      cluster.read(1);
      cluster.settle();
    }
    expect(sentTo2() - before).toBeLessThanOrEqual(1);
    cluster.step(1, { kind: 'unreachable', peer: asMemberId(2) });
    before = sentTo2();
    for (const text of letters(50)) {
      cluster.propose(1, text);
      cluster.settle();
    }
    expect(sentTo2() - before).toBe(0);
    cluster.run(5);
    expect(sentTo2() - before).toBeLessThanOrEqual(5);
    cluster.convergeOrFail();
  });

  test('pitfall 23: a window that is reset forgets its bytes too', () => {
    const window = new Inflights(4, 10);
    window.add(asLogIndex(1), 6);
    window.add(asLogIndex(2), 6);
    expect(window.full).toBe(true);
    window.reset();
    expect(window).toMatchObject({ full: false, bytes: 0, count: 0 });

    const cluster = listCluster(3, { tuning: { inflightBytesMax: 4 } });
    cluster.elect(1);
    for (let round = 0; round < 5; round += 1) {
      cluster.cut(1, 2);
      cluster.proposeMany(1, ['four', 'more']);
      cluster.settle();
      cluster.step(1, { kind: 'unreachable', peer: asMemberId(2) });
      cluster.heal();
      cluster.run(3);
      expect(progressOf(cluster, 1, 2)).toMatchObject({
        state: 'replicate',
        inflightBytes: 0,
        inflightMessages: 0,
      });
    }
    expect(cluster.machine(2).items).toHaveLength(10);
  });

  test('pitfall 24: a caught-up follower leaves probe and snapshot', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.step(1, { kind: 'unreachable', peer: asMemberId(2) });
    expect(progressOf(cluster, 1, 2).state).toBe('probe');
    cluster.run(2);
    expect(progressOf(cluster, 1, 2).state).toBe('replicate');

    cluster.isolate(3);
    cluster.propose(1, 'a');
    cluster.settle();
    cluster.compact(1);
    cluster.heal();
    cluster.run(3);
    expect(cluster.sentOf('install_snapshot', 1)).toHaveLength(1);
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', match: 2 });

    // The acknowledgement overtakes the end of the stream.
    cluster.isolate(3);
    cluster.propose(1, 'b');
    cluster.settle();
    cluster.compact(1);
    cluster.heal();
    cluster.filter = ({ kind }) => (kind === 'install_snapshot' ? 'hold' : 'pass');
    cluster.run(3);
    expect(progressOf(cluster, 1, 3).state).toBe('snapshot');
    cluster.inject(3, 1, 1, accepted(3));
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', match: 3 });
    cluster.convergeOrFail();
  });

  test('pitfall 25: a completion does not count for entries that were cut off and written again', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = () => 'drop';
    cluster.disk(2).automatic = false;
    const a = [entry(2, 1), entry(3, 1), entry(4, 1)];
    cluster.inject(1, 2, 1, append(1, 1, a));
    cluster.inject(3, 2, 2, append(1, 1, [entry(2, 2), entry(3, 2)]));
    cluster.inject(1, 2, 3, append(1, 1, a));
    const durable: number[] = [];
    for (let i = 0; i < 3; i += 1) {
      cluster.completeWrites(2, 1);
      durable.push(cluster.status(2).durable);
    }
    expect(durable).toEqual([1, 1, 4]);
    expect(cluster.sentOf('append_response', 2).at(-1)).toMatchObject({ term: 3, ...accepted(4) });
  });

  test('pitfall 28: truncation and append are one write, and an old append cuts off nothing', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.filter = () => 'drop';
    cluster.inject(1, 2, 1, append(1, 1, [entry(2, 1), entry(3, 1), entry(4, 1)]));
    cluster.settle();
    cluster.inject(1, 2, 1, append(1, 1, [entry(2, 1)]));
    cluster.inject(1, 2, 1, append(1, 1, []));
    expect(cluster.status(2).lastIndex).toBe(4);
    cluster.disk(2).automatic = false;
    cluster.inject(3, 2, 2, append(2, 1, [entry(3, 2)]));
    const writes = cluster.disk(2).outstanding;
    expect(writes.map(({ truncateFrom, entries }) => [truncateFrom, entries.length])).toEqual([[3, 1]]);
    expect(writes[0]?.hardState).toMatchObject({ term: 2 });
  });

  test('pitfall 29: an acknowledgement of an earlier leadership does not raise match', () => {
    const cluster = listCluster(3);
    cluster.elect(1);
    cluster.isolate(2);
    cluster.crash(1);
    cluster.restart(1);
    cluster.crash(3);
    cluster.restart(3);
    cluster.elect(1);
    cluster.propose(1, 'a');
    cluster.settle();
    expect(progressOf(cluster, 1, 2).match).toBe(0);
    cluster.inject(2, 1, 1, accepted(3));
    expect(progressOf(cluster, 1, 2).match).toBe(0);
  });
});
