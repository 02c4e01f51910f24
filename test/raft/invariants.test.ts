import { describe, expect, test } from 'vitest';
import {
  asLogIndex,
  asMemberId,
  asTerm,
  checkInvariants,
  encodeConfiguration,
  initialConfiguration,
  Raft,
} from '../../src/raft/index.ts';
import type { InvariantView } from '../../src/raft/index.ts';

const view = (): InvariantView => {
  const entries = [1, 2, 3].map((index) => ({
    term: asTerm(2),
    index: asLogIndex(index),
    kind: 'commands' as const,
    payload: new Uint8Array(1),
  }));
  const raft = new Raft({
    id: asMemberId(1),
    hardState: { term: asTerm(2), vote: asMemberId(2), commit: asLogIndex(2) },
    snapshot: { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1, 2, 3]) },
    entries,
    applied: asLogIndex(1),
    random: () => 0.5,
  });
  raft.checkInvariants();
  return raft.invariantView();
};

describe('the invariant checks', () => {
  test('accept a state after itself', () => {
    expect(() => checkInvariants(view(), view())).not.toThrow();
  });

  test.each<[string, Partial<InvariantView>, RegExp]>([
    ['a fallen term', { term: asTerm(1) }, /term fell from 2 to 1/],
    ['a fallen commit index', { commit: asLogIndex(1) }, /commit fell/],
    ['a fallen applied index', { applied: asLogIndex(0) }, /applied fell/],
    ['a changed vote', { vote: asMemberId(3) }, /vote in term 2 changed from 2 to 3/],
    ['a vote taken back', { vote: undefined }, /vote in term 2 changed from 2 to nobody/],
    ['applied beyond commit', { applied: asLogIndex(3) }, /applied 3 is beyond commit 2/],
    ['applied beyond durable', { applied: asLogIndex(2), durable: asLogIndex(1) }, /beyond .* durable 1/],
    ['commit beyond the log', { commit: asLogIndex(4) }, /commit 4 is beyond the last entry 3/],
    ['another member', { id: asMemberId(2) }, /member 1 became member 2/],
  ])('find %s', (_, change, message) => {
    const before = view();
    expect(() => checkInvariants(before, { ...before, ...change })).toThrow(message);
  });

  test('find a leader that cuts off its log, and a second leader of a term', () => {
    const led = { ...view(), role: 'leader', leader: asMemberId(1) } as const;
    expect(() => checkInvariants(led, { ...led, truncations: 1 })).toThrow(/cut off its own log/);
    expect(() => checkInvariants(led, { ...led, leader: asMemberId(3) })).toThrow(/had leader 1 and now 3/);
  });

  test('find members that change without an entry, or too many of them by one entry', () => {
    const before = { ...view(), applied: asLogIndex(1), commit: asLogIndex(3), durable: asLogIndex(3) };
    const other = { configuration: initialConfiguration([1, 4, 5]) };
    expect(() => checkInvariants(before, { ...before, ...other })).toThrow(/nothing was applied/);
    const to = (applied: number) => ({ ...before, ...other, applied: asLogIndex(applied) });
    expect(() => checkInvariants(before, to(2))).toThrow(/in one step/);
    expect(() => checkInvariants(before, to(3))).not.toThrow();
  });

  test('find a second configuration entry where the first one is not known to be committed', () => {
    const start = (commit: number): Raft =>
      new Raft({
        id: asMemberId(1),
        hardState: { term: asTerm(2), vote: undefined, commit: asLogIndex(commit) },
        snapshot: { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1, 2, 3]) },
        entries: [
          [1, 2],
          [1, 2, 4],
        ].map((voters, i) => ({
          term: asTerm(2),
          index: asLogIndex(i + 1),
          kind: 'configuration',
          payload: encodeConfiguration(initialConfiguration(voters)),
        })),
        applied: asLogIndex(0),
        random: () => 0.5,
      });
    expect(() => start(1).checkInvariants()).not.toThrow();
    expect(() => start(0).checkInvariants()).toThrow(/2 configuration entries follow commit 0/);
  });

  test('a configuration that cannot follow ends the core when it is applied', () => {
    const raft = new Raft({
      id: asMemberId(1),
      hardState: { term: asTerm(2), vote: undefined, commit: asLogIndex(1) },
      snapshot: { index: asLogIndex(0), term: asTerm(0), configuration: initialConfiguration([1, 2, 3]) },
      entries: [
        {
          term: asTerm(2),
          index: asLogIndex(1),
          kind: 'configuration',
          payload: encodeConfiguration(initialConfiguration([1, 4, 5])),
        },
      ],
      applied: asLogIndex(0),
      random: () => 0.5,
    });
    expect(raft.ready()?.apply?.entries).toHaveLength(1);
    expect(() => raft.step({ kind: 'applied', index: asLogIndex(1) })).toThrow(/cannot follow/);
  });
});
