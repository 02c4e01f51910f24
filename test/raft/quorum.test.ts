import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { asMemberId, initialConfiguration } from '../../src/raft/index.ts';
import type { Configuration, MemberId } from '../../src/raft/index.ts';
import { reachedByQuorum, voteResult } from '../../src/raft/quorum.ts';

const members = fc
  .uniqueArray(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 7 })
  .map((ids) => ids.sort((a, b) => a - b).map(asMemberId));

const none = fc.constant([]);
const configurations: fc.Arbitrary<Configuration> = fc.record({
  voters: members,
  votersOutgoing: fc.oneof(none, members),
  learners: none,
  learnersNext: none,
  autoLeave: fc.constant(false),
});

const isMajority = (voters: readonly MemberId[], has: (id: MemberId) => boolean): boolean =>
  voters.length === 0 || voters.filter(has).length * 2 > voters.length;

const isQuorum = ({ voters, votersOutgoing }: Configuration, has: (id: MemberId) => boolean): boolean =>
  isMajority(voters, has) && isMajority(votersOutgoing, has);

describe('quorums', () => {
  test('pitfall 30: an index counts as reached exactly if a quorum of each half has reached it', () => {
    const values = fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 10, maxLength: 10 });
    fc.assert(
      fc.property(configurations, values, (configuration, valueById) => {
        const valueOf = (id: MemberId): number => valueById[id] ?? 0;
        let expected = 0;
        for (let index = 1; index <= 12; index += 1) {
          if (isQuorum(configuration, (id) => valueOf(id) >= index)) expected = index;
        }
        expect(reachedByQuorum(configuration, valueOf)).toBe(expected);
      }),
    );
  });

  test('a vote is won by a quorum of yes, and lost as soon as none is possible', () => {
    const votes = fc.array(fc.constantFrom(true, false, undefined), { minLength: 10, maxLength: 10 });
    fc.assert(
      fc.property(configurations, votes, (configuration, voteById) => {
        const won = isQuorum(configuration, (id) => voteById[id] === true);
        const possible = isQuorum(configuration, (id) => voteById[id] !== false);
        const expected = won ? 'won' : possible ? 'pending' : 'lost';
        expect(voteResult(configuration, (id) => voteById[id])).toBe(expected);
      }),
    );
  });

  test('any two quorums of a configuration have a member in common', () => {
    const sets = fc.tuple(fc.nat(1023), fc.nat(1023));
    fc.assert(
      fc.property(configurations, sets, (configuration, [a, b]) => {
        const wins = (set: number) => voteResult(configuration, (id) => ((set >> id) & 1) === 1) === 'won';
        fc.pre(wins(a) && wins(b));
        expect(a & b).not.toBe(0);
      }),
    );
  });

  test('a configuration without voters, or with a member twice, is refused', () => {
    expect(() => initialConfiguration([])).toThrow(/at least one voter/);
    expect(() => initialConfiguration([1, 2, 1])).toThrow(/twice/);
    expect(initialConfiguration([3, 1, 2]).voters).toEqual([1, 2, 3]);
  });
});
