import { describe, expect, test } from 'vitest';
import type { Change, Future } from '../../../src/protocol/index.ts';
import {
  asLogIndex,
  asMemberId,
  asTerm,
  emptyConfiguration,
  encodeConfiguration,
  initialConfiguration,
} from '../../../src/raft/index.ts';
import type { Configuration, Entry, InvariantView, Message } from '../../../src/raft/index.ts';
import type { Recovered, WriteBatch } from '../../../src/storage/index.ts';
import {
  AnswerChecks,
  ConsensusChecks,
  FeedChecks,
  SafetyViolation,
  StateChecks,
} from '../../../src/simulation/checks/index.ts';

const checkOf = (work: () => void): string => {
  try {
    work();
  } catch (error) {
    if (error instanceof SafetyViolation) return error.check;
    throw error;
  }
  return 'nothing';
};

const entry = (index: number, term: number, text = `entry ${index}`): Entry => ({
  index: asLogIndex(index),
  term: asTerm(term),
  kind: 'commands',
  payload: Buffer.from(text),
});

const inTerm = (term: number): NonNullable<WriteBatch['hardState']> => ({
  term: asTerm(term),
  vote: asMemberId(2),
  commit: asLogIndex(0),
});

const batch = (entries: readonly Entry[], truncateFrom?: number): WriteBatch => ({
  hardState: inTerm(9),
  entries,
  stateWrites: [],
  sync: true,
  ...(truncateFrom === undefined ? {} : { truncateFrom: asLogIndex(truncateFrom) }),
});

const view = (
  id: number,
  term: number,
  last: number,
  commit: number,
  role: InvariantView['role'],
): InvariantView => ({
  id: asMemberId(id),
  role,
  term: asTerm(term),
  vote: undefined,
  leader: role === 'leader' ? asMemberId(id) : undefined,
  hearsLeader: role === 'leader',
  firstIndex: asLogIndex(1),
  lastIndex: asLogIndex(last),
  commit: asLogIndex(commit),
  applied: asLogIndex(0),
  configuration: emptyConfiguration,
  durable: asLogIndex(last),
  truncations: 0,
  sequence: 0,
  persistedSequence: 0,
});

const recovered = (entries: readonly Entry[], term: number): Recovered => ({
  hardState: { term: asTerm(term), vote: undefined, commit: asLogIndex(0) },
  snapshot: undefined,
  entries,
  applied: { index: asLogIndex(0), term: asTerm(0) },
  lineage: [],
  lineageSince: 1,
  peerRecords: new Map(),
  run: 2,
  diskId: new Uint8Array(16),
});

/** Given to the disk, and answered by it. */
const write = (checks: ConsensusChecks, member: number, what: WriteBatch): void => {
  checks.wrote(member, what);
  checks.written(member, true);
};

const message = (from: number, to: number, term: number, body: object): Message =>
  ({ from, to, term, ...body }) as Message;

const vote = (checks: ConsensusChecks, from: number, to: number, term: number): void => {
  const hardState = { term: asTerm(term), vote: asMemberId(to), commit: asLogIndex(0) };
  write(checks, from, { ...batch([]), hardState });
  checks.sent(message(from, to, term, { kind: 'vote_response', granted: true }));
};

describe('consensus', () => {
  test('two leaders of one term are seen', () => {
    const checks = new ConsensusChecks();
    checks.observe(view(1, 2, 0, 0, 'leader'));
    expect(checkOf(() => checks.observe(view(2, 2, 0, 0, 'leader')))).toBe('election safety');
  });

  test('one entry with two contents, or two predecessors, is seen', () => {
    const checks = new ConsensusChecks();
    checks.wrote(1, batch([entry(1, 1), entry(2, 2)]));
    checks.wrote(2, batch([entry(1, 1)]));
    expect(checkOf(() => checks.wrote(2, batch([entry(2, 2, 'another')])))).toBe('log matching');
    checks.wrote(3, batch([entry(1, 2)]));
    expect(checkOf(() => checks.wrote(3, batch([entry(2, 2)])))).toBe('log matching');
  });

  test('two entries committed at one place are seen', () => {
    const checks = new ConsensusChecks();
    write(checks, 1, batch([entry(1, 1)]));
    write(checks, 2, batch([entry(1, 2)]));
    checks.observe(view(1, 1, 1, 1, 'follower'));
    expect(checkOf(() => checks.observe(view(2, 2, 1, 1, 'follower')))).toBe('state machine safety');
  });

  test('a leader without what was committed before is seen', () => {
    const checks = new ConsensusChecks();
    write(checks, 1, batch([entry(1, 1)]));
    checks.observe(view(1, 1, 1, 1, 'follower'));
    expect(checkOf(() => checks.observe(view(2, 1, 0, 0, 'leader')))).toBe('nothing');
    expect(checkOf(() => checks.observe(view(3, 2, 0, 0, 'leader')))).toBe('leader completeness');
  });

  test('a leader that commits an older term by counting is seen', () => {
    const checks = new ConsensusChecks();
    write(checks, 1, batch([entry(1, 1)]));
    checks.observe(view(1, 2, 1, 0, 'leader'));
    expect(checkOf(() => checks.observe(view(1, 2, 1, 1, 'leader')))).toBe('commit rule');
  });

  test('what a restart has forgotten, though it was told, is seen', () => {
    const checks = new ConsensusChecks();
    checks.started(1, recovered([], 0));
    write(checks, 1, batch([entry(1, 3), entry(2, 3)]));
    checks.sent(message(1, 2, 3, { kind: 'append_response', outcome: { accepted: true, matchIndex: 2 } }));
    checks.crashed(1);
    expect(checkOf(() => checks.started(1, recovered([entry(1, 3), entry(2, 3)], 3)))).toBe('nothing');
    expect(checkOf(() => checks.started(1, recovered([entry(1, 3)], 3)))).toBe('durable entries');
    checks.forget(1);
    write(checks, 1, batch([]));
    checks.sent(message(1, 2, 3, { kind: 'heartbeat_response', readRound: 0 }));
    expect(checkOf(() => checks.started(1, recovered([], 2)))).toBe('durable terms');
    expect(checkOf(() => checks.started(1, recovered([], 2), true))).toBe('nothing');
  });

  test('two votes in one term, and a campaign that nobody was asked about, are seen', () => {
    const checks = new ConsensusChecks();
    for (const member of [1, 2])
      write(checks, member, { ...batch([]), hardState: inTerm(member === 1 ? 4 : 5) });
    const vote = (to: number): Message => message(1, to, 4, { kind: 'vote_response', granted: true });
    checks.sent(vote(2));
    checks.sent(vote(2));
    checks.wrote(1, { ...batch([]), hardState: { ...inTerm(4), vote: asMemberId(3) } });
    expect(checkOf(() => checks.sent(vote(3)))).toBe('durable votes');
    checks.written(1, true);
    expect(checkOf(() => checks.sent(vote(3)))).toBe('one vote a term');
    const campaign = (transfer: boolean): Message =>
      message(2, 1, 5, { kind: 'vote_request', lastIndex: 0, lastTerm: 0, transfer });
    expect(checkOf(() => checks.sent(campaign(true)))).toBe('nothing');
    expect(checkOf(() => checks.sent(campaign(false)))).toBe('pre-vote');
    const supports = message(1, 2, 4, { kind: 'pre_vote_response', campaignTerm: 5, granted: true });
    checks.observe({ ...view(1, 4, 0, 0, 'follower'), leader: asMemberId(3), hearsLeader: true });
    checks.sent(message(2, 1, 4, { kind: 'pre_vote_request', campaignTerm: 5, lastIndex: 0, lastTerm: 0 }));
    expect(checkOf(() => checks.sent(supports))).toBe('loyalty');
    checks.observe(view(1, 4, 0, 0, 'follower'));
    checks.sent(supports);
    expect(checkOf(() => checks.sent(campaign(false)))).toBe('nothing');
  });

  test('a read that misses what was committed when it was asked for is seen', () => {
    const checks = new ConsensusChecks();
    for (const member of [1, 2]) write(checks, member, batch([entry(1, 1)]));
    const asked = (context: number): Message => message(2, 1, 1, { kind: 'read_request', context });
    const told = (context: number, index: number): Message =>
      message(1, 2, 1, { kind: 'read_response', context, index });
    checks.sent(asked(7));
    checks.observe(view(1, 1, 1, 1, 'follower'));
    checks.sent(asked(8));
    expect(checkOf(() => checks.sent(told(7, 0)))).toBe('nothing');
    expect(checkOf(() => checks.sent(told(8, 1)))).toBe('nothing');
    expect(checkOf(() => checks.sent(told(8, 0)))).toBe('read index');
  });

  test('what is told before it is on the disk is seen', () => {
    const checks = new ConsensusChecks();
    checks.wrote(1, { ...batch([entry(1, 1)]), hardState: inTerm(1) });
    const acknowledged = message(1, 2, 1, {
      kind: 'append_response',
      outcome: { accepted: true, matchIndex: 1 },
    });
    const heard = message(1, 2, 1, { kind: 'heartbeat_response', readRound: 0 });
    expect(checkOf(() => checks.sent(heard))).toBe('durable terms');
    checks.written(1, true);
    expect([checkOf(() => checks.sent(heard)), checkOf(() => checks.sent(acknowledged))]).toEqual([
      'nothing',
      'nothing',
    ]);
    checks.wrote(1, { ...batch([entry(2, 1)]), hardState: inTerm(1) });
    const second = message(1, 2, 1, { kind: 'append_response', outcome: { accepted: true, matchIndex: 2 } });
    checks.written(1, false);
    expect(checkOf(() => checks.sent(second))).toBe('durable entries');
  });

  test('what takes the place of what was cut off is not on the disk with that', () => {
    const checks = new ConsensusChecks();
    write(checks, 1, { ...batch([entry(1, 1), entry(2, 1)]), hardState: inTerm(1) });
    const acknowledged = message(1, 2, 2, {
      kind: 'append_response',
      outcome: { accepted: true, matchIndex: 2 },
    });
    write(checks, 1, { ...batch([]), hardState: inTerm(2) });
    checks.wrote(1, { ...batch([entry(2, 2)], 2), hardState: inTerm(2) });
    expect(checkOf(() => checks.sent(acknowledged))).toBe('durable entries');
    checks.written(1, true);
    expect(checkOf(() => checks.sent(acknowledged))).toBe('nothing');
  });

  test('a server that takes for durable what its disk does not have is seen', () => {
    const checks = new ConsensusChecks();
    write(checks, 1, { ...batch([entry(1, 1), entry(2, 1)]), hardState: inTerm(1) });
    expect(checkOf(() => checks.observe(view(1, 1, 2, 0, 'follower')))).toBe('nothing');
    checks.wrote(1, { ...batch([entry(2, 2)], 2), hardState: inTerm(2) });
    expect(checkOf(() => checks.observe(view(1, 2, 2, 0, 'follower')))).toBe('durable entries');
    checks.written(1, true);
    expect(checkOf(() => checks.observe(view(1, 2, 2, 0, 'follower')))).toBe('nothing');
  });

  test('who has left may be needed until an entry behind that is committed', () => {
    const checks = new ConsensusChecks();
    const point = { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1, 2, 3]) };
    checks.started(1, recovered([], 1));
    write(checks, 1, { ...batch([]), compactTo: point, hardState: inTerm(1) });
    const payload = encodeConfiguration(initialConfiguration([1, 2]));
    const leaving: Entry = { ...entry(2, 1), kind: 'configuration', payload };
    const empty = (index: number): Entry => ({ ...entry(index, 1, ''), kind: 'empty' });
    write(checks, 1, { ...batch([empty(1), leaving, empty(3)]), hardState: inTerm(1) });
    const at = (commit: number): boolean[] => {
      checks.observe(view(1, 1, 3, commit, 'follower'));
      return [checks.hasLeft(3), checks.mayBeForgotten(3)];
    };
    expect(at(1)).toEqual([false, true]);
    expect(at(2)).toEqual([true, false]);
    expect(at(3)).toEqual([true, true]);
    expect(checks.hasLeft(2)).toBe(false);
  });

  test('who has left may be needed by a leader that has not applied it when its term begins', () => {
    const neededAfter = (applied: number): boolean => {
      const checks = new ConsensusChecks();
      const point = { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1, 2, 3]) };
      checks.started(1, recovered([], 1));
      write(checks, 1, { ...batch([]), compactTo: point, hardState: inTerm(1) });
      const payload = encodeConfiguration(initialConfiguration([1, 2]));
      const leaving: Entry = { ...entry(1, 1), kind: 'configuration', payload };
      write(checks, 1, { ...batch([leaving]), hardState: inTerm(2) });
      for (const voter of [2, 3]) vote(checks, voter, 1, 2);
      const configuration = initialConfiguration(applied === 0 ? [1, 2, 3] : [1, 2]);
      checks.observe({ ...view(1, 2, 1, applied, 'leader'), applied: asLogIndex(applied), configuration });
      const empty: Entry = { ...entry(2, 2, ''), kind: 'empty' };
      write(checks, 1, { ...batch([empty]), hardState: inTerm(2) });
      write(checks, 2, { ...batch([leaving, empty]), hardState: inTerm(2) });
      checks.observe(view(2, 2, 2, 2, 'follower'));
      expect(checks.hasLeft(3)).toBe(true);
      return !checks.mayBeForgotten(3);
    };
    expect(neededAfter(1)).toBe(false);
    expect(neededAfter(0)).toBe(true);
  });

  test('a commit without a majority of copies is seen', () => {
    const configuration = initialConfiguration([1, 2, 3]);
    const checks = new ConsensusChecks();
    for (const member of [1, 2, 3]) checks.started(member, recovered([], 1));
    vote(checks, 2, 1, 1);
    checks.observe({ ...view(1, 1, 0, 0, 'leader'), configuration });
    for (const member of [1, 2]) checks.wrote(member, batch([entry(1, 1)]));
    checks.written(1, true);
    const committed = { ...view(1, 1, 1, 1, 'leader'), configuration };
    expect(checkOf(() => checks.observe(committed))).toBe('commit quorum');
  });

  test('a leader without the votes of each half is seen', () => {
    const simple = initialConfiguration([1, 2, 3]);
    const joint: Configuration = {
      ...initialConfiguration([1, 4, 5]),
      votersOutgoing: simple.voters,
      autoLeave: true,
    };
    const elected = (configuration: Configuration, ...voters: readonly number[]): string => {
      const checks = new ConsensusChecks();
      for (const voter of voters) vote(checks, voter, 1, 2);
      return checkOf(() => checks.observe({ ...view(1, 2, 0, 0, 'leader'), configuration }));
    };
    expect(elected(simple, 2)).toBe('nothing');
    expect(elected(simple, 4, 5)).toBe('election quorum');
    expect(elected(joint, 2, 4)).toBe('nothing');
    expect(elected(joint, 4, 5)).toBe('election quorum');
    expect(elected(joint, 2, 3)).toBe('election quorum');
  });

  test('a disk that has lost what it had counts for nothing new', () => {
    const configuration = initialConfiguration([1, 2, 3]);
    const lostBy = (member: number): ConsensusChecks => {
      const checks = new ConsensusChecks();
      for (const id of [1, 2, 3]) checks.started(id, recovered([], 1));
      for (const id of [1, 2, 3]) write(checks, id, { ...batch([entry(1, 1)]), hardState: inTerm(1) });
      const outcome = { accepted: true, matchIndex: 1 };
      checks.sent(message(member, 1, 1, { kind: 'append_response', outcome }));
      checks.started(member, recovered([], 0), true);
      return checks;
    };
    const elect = (checks: ConsensusChecks, voter: number): string => {
      vote(checks, voter, 1, 2);
      return checkOf(() => checks.observe({ ...view(1, 2, 1, 0, 'leader'), configuration }));
    };
    const commit = (checks: ConsensusChecks, index: number): string => {
      write(checks, 1, { ...batch([entry(2, 2)]), hardState: inTerm(2) });
      write(checks, 3, { ...batch([entry(1, 1), entry(2, 2)]), hardState: inTerm(2) });
      return checkOf(() => checks.observe({ ...view(1, 2, 2, index, 'leader'), configuration }));
    };
    expect(elect(lostBy(3), 3)).toBe('election quorum');
    const checks = lostBy(3);
    expect(elect(checks, 2)).toBe('nothing');
    expect(commit(checks, 2)).toBe('commit quorum');
  });

  test('a server that goes by another configuration than that of its last applied entry is seen', () => {
    const [founding, next] = [initialConfiguration([1, 2, 3]), initialConfiguration([1, 2])];
    const checks = new ConsensusChecks();
    const point = { index: asLogIndex(0), term: asTerm(0), configuration: founding };
    write(checks, 1, { ...batch([]), compactTo: point, hardState: inTerm(1) });
    const change: Entry = { ...entry(2, 1), kind: 'configuration', payload: encodeConfiguration(next) };
    write(checks, 1, { ...batch([entry(1, 1), change]), hardState: inTerm(1) });
    const at = (applied: number, configuration: Configuration): string =>
      checkOf(() => {
        checks.crashed(1);
        checks.observe({ ...view(1, 1, 2, 2, 'follower'), applied: asLogIndex(applied), configuration });
      });
    expect([at(1, founding), at(1, emptyConfiguration), at(2, next)]).toEqual(Array(3).fill('nothing'));
    expect([at(1, next), at(2, founding), at(2, emptyConfiguration)]).toEqual(
      Array(3).fill('present configuration'),
    );
  });

  test('configurations whose quorums need not meet, and an id that is used again, are seen', () => {
    const ids = (...members: number[]) => members.map(asMemberId);
    const simple = (...voters: number[]) => initialConfiguration(voters);
    const joint: Configuration = { ...simple(4, 5), votersOutgoing: ids(1, 2, 3), autoLeave: true };
    const follow = (...configurations: readonly Configuration[]): string => {
      const checks = new ConsensusChecks();
      const entries = configurations.map((configuration, at): Entry => ({
        ...entry(at + 1, 1),
        kind: 'configuration',
        payload: encodeConfiguration(configuration),
      }));
      const snapshot = { index: asLogIndex(0), term: asTerm(0), configuration: simple(1, 2, 3) };
      checks.started(1, recovered([], 1));
      write(checks, 1, { ...batch([]), compactTo: snapshot, hardState: inTerm(1) });
      write(checks, 1, { ...batch(entries), hardState: inTerm(1) });
      return checkOf(() => checks.observe(view(1, 1, entries.length, entries.length, 'follower')));
    };
    expect(follow(simple(1, 2, 3, 4), simple(1, 2, 4), simple(1, 4))).toBe('nothing');
    expect(follow(joint, simple(4, 5))).toBe('nothing');
    expect(follow(simple(1, 4, 5))).toBe('quorums intersect');
    expect(follow(simple(4, 5))).toBe('quorums intersect');
    expect(follow(simple(1, 2), simple(1, 2, 3))).toBe('ids of members');
  });

  test('an entry that a later leader has replaced in the very write that was to hold it may be acknowledged in its own term', () => {
    const checks = new ConsensusChecks();
    const acknowledges = (term: number, matchIndex: number): string => {
      const outcome = { accepted: true, matchIndex };
      return checkOf(() => checks.sent(message(1, 2, term, { kind: 'append_response', outcome })));
    };
    write(checks, 1, { ...batch([entry(1, 1), entry(2, 1)]), hardState: inTerm(1) });
    expect(acknowledges(1, 3)).toBe('durable entries');
    write(checks, 1, { ...batch([entry(2, 2)], 2), hardState: inTerm(2) });
    expect(acknowledges(1, 3)).toBe('nothing');
    expect(acknowledges(2, 3)).toBe('durable entries');
    expect(checkOf(() => checks.started(1, recovered([entry(1, 1), entry(2, 2)], 2)))).toBe('nothing');
  });

  test('an acknowledged entry that is cut off in the term of its acknowledgement is seen', () => {
    const checks = new ConsensusChecks();
    write(checks, 1, { ...batch([entry(1, 1), entry(2, 1)]), hardState: inTerm(1) });
    checks.observe(view(1, 1, 2, 0, 'follower'));
    checks.sent(message(1, 2, 1, { kind: 'append_response', outcome: { accepted: true, matchIndex: 2 } }));
    expect(checkOf(() => checks.wrote(1, { ...batch([], 2), hardState: inTerm(1) }))).toBe(
      'acknowledged entries',
    );
    checks.observe(view(1, 2, 2, 0, 'follower'));
    expect(checkOf(() => checks.wrote(1, batch([], 2)))).toBe('nothing');
  });
});

const future = (revision: number, rest: Partial<Future>): Future => ({
  key: 'k',
  generation: 1,
  state: 'pending',
  revision,
  contentType: 'text/plain',
  sensitive: false,
  producer: 'test:one',
  changedAtMs: 0,
  ...rest,
});

const changed = (now: Future): Change => ({
  kind: 'future',
  key: now.key,
  revision: now.revision,
  future: now,
});

const resolved = (revision: number, text: string, rest: Partial<Future> = {}): Future =>
  future(revision, { state: 'resolved', value: Buffer.from(text), ...rest });

/** Each change is an entry of its own, at one instant after the other. */
const stateAfter = (...futures: readonly Future[]): StateChecks => {
  const state = new StateChecks();
  for (const [at, now] of futures.entries()) {
    state.applied(1, {
      index: at + 1,
      timeMs: 100 * (at + 1),
      changes: [changed(now)],
      commands: [],
      results: [],
    });
  }
  return state;
};

const stateCheckOf = (...futures: readonly Future[]): string => checkOf(() => void stateAfter(...futures));

describe('the state', () => {
  test('settled twice in one generation is seen', () => {
    expect(stateCheckOf(resolved(1, 'a'), resolved(2, 'b'))).toBe('settled at most once');
    expect(stateCheckOf(resolved(1, 'a'), resolved(2, 'b', { generation: 2 }))).toBe('nothing');
    expect(stateCheckOf(resolved(1, 'a'), resolved(2, 'a', { expiresAtMs: 900 }))).toBe('nothing');
    expect(stateCheckOf(resolved(1, 'a'), future(2, {}))).toBe('settled at most once');
  });

  test('a generation used twice is seen', () => {
    expect(stateCheckOf(resolved(1, 'a', { generation: 2 }), resolved(2, 'b'))).toBe('generations');
  });

  test('what ended before its instant is seen', () => {
    const expires = (atMs: number): string =>
      stateCheckOf(
        resolved(1, 'a', { expiresAtMs: atMs }),
        future(2, { state: 'expired', expiresAtMs: atMs }),
      );
    expect(expires(200)).toBe('nothing');
    expect(expires(201)).toBe('no early expiry');
    const rejection = { code: 'DEADLINE_EXCEEDED', message: '' };
    expect(stateCheckOf(future(1, { deadlineAtMs: 201 }), future(2, { state: 'rejected', rejection }))).toBe(
      'no early expiry',
    );
  });

  test('that is another on another server is seen', () => {
    const state = stateAfter(resolved(1, 'a'));
    const again = { index: 1, timeMs: 100, commands: [], results: [] };
    expect(checkOf(() => state.applied(2, { ...again, changes: [changed(resolved(1, 'a'))] }))).toBe(
      'nothing',
    );
    expect(checkOf(() => state.applied(3, { ...again, changes: [changed(resolved(1, 'b'))] }))).toBe(
      'state machine safety',
    );
    state.digest(1, 1, 'one');
    expect(checkOf(() => state.digest(2, 1, 'two'))).toBe('same state');
  });

  test('in which something due has not happened is seen', () => {
    const state = stateAfter(resolved(1, 'a', { expiresAtMs: 300 }));
    expect(checkOf(() => state.converged())).toBe('nothing');
    state.applied(1, { index: 2, timeMs: 5301, changes: [], commands: [], results: [] });
    expect(checkOf(() => state.converged())).toBe('nothing overdue');
  });

  test('in which one write was executed twice is seen', () => {
    const state = new StateChecks();
    const origin = { member: 1, run: 1, request: 1 };
    const write = { origin, session: 's', principal: 'p', sequence: 1, answeredBelow: 1, operations: [] };
    const commands = [{ kind: 'write', ...write }] as const;
    const result = (revision: number) => ({ kind: 'written', result: { revision, results: [] } }) as const;
    const apply = (index: number, revision: number): string =>
      checkOf(() =>
        state.applied(1, { index, timeMs: index, changes: [], commands, results: [result(revision)] }),
      );
    expect([apply(1, 1), apply(2, 1), apply(3, 2)]).toEqual(['nothing', 'nothing', 'same answer']);
  });
});

describe('the feed', () => {
  const reader = (): { readonly feed: FeedChecks; readonly told: (now: Future) => string } => {
    const state = stateAfter(
      resolved(1, 'a'),
      resolved(2, 'b', { key: 'other' }),
      resolved(3, 'c', { generation: 2 }),
    );
    const feed = new FeedChecks(state);
    feed.begin('reader', ['**'], 'present');
    const told = (now: Future): string =>
      checkOf(() =>
        feed.event('reader', { kind: 'future', key: now.key, revision: now.revision, future: now }),
      );
    return { feed, told };
  };
  const first = resolved(1, 'a');
  const other = resolved(2, 'b', { key: 'other' });
  const last = resolved(3, 'c', { generation: 2 });

  test('may skip what was replaced, and is complete then', () => {
    const { feed, told } = reader();
    expect([told(other), told(last)]).toEqual(['nothing', 'nothing']);
    expect(feed.complete).toBe(true);
    expect(checkOf(() => feed.converged())).toBe('nothing');
  });

  test('with a gap is seen', () => {
    const { feed, told } = reader();
    told(last);
    expect(checkOf(() => feed.converged())).toBe('feed gap');
    const caughtUp = { kind: 'caught_up', position: { revision: 2 } } as const;
    expect(checkOf(() => feed.event('reader', caughtUp))).toBe('feed gap');
  });

  test('that repeats, goes back, or makes something up is seen', () => {
    const again = reader();
    expect([again.told(first), again.told(first)]).toEqual(['nothing', 'feed repeats']);
    const back = reader();
    expect([back.told(last), back.told(other)]).toEqual(['nothing', 'feed order']);
    expect(reader().told(resolved(1, 'z'))).toBe('feed truth');
    expect(reader().told(resolved(2, 'a'))).toBe('feed truth');
  });

  test('beyond its patterns is seen', () => {
    const { feed } = reader();
    feed.begin('narrow', ['other'], 'present');
    const event = { kind: 'future', key: 'k', revision: 1, future: first } as const;
    expect(checkOf(() => feed.event('narrow', event))).toBe('feed patterns');
  });
});

describe('answers', () => {
  test('that differ for one request or one generation are seen', () => {
    const answers = new AnswerChecks();
    answers.answered('s', 1, 'yes');
    expect(checkOf(() => answers.answered('s', 1, 'no'))).toBe('same answer');
    const seen = { state: 'resolved', generation: 1, revision: 1 } as const;
    answers.shown('k', { ...seen, value: 'a' }, 'a get');
    expect(checkOf(() => answers.shown('k', { ...seen, revision: 2, value: 'b' }, 'a push'))).toBe(
      'settled at most once',
    );
  });

  test('that were past their time when they were asked for are seen', () => {
    const answers = new AnswerChecks();
    const seen = { state: 'resolved', generation: 1, revision: 1, value: 'a', expiresAtMs: 100 } as const;
    expect(checkOf(() => answers.fresh('k', seen, 99))).toBe('nothing');
    expect(checkOf(() => answers.fresh('k', seen, 100))).toBe('nothing stale');
  });
});
