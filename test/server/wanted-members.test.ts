import { fc, test as property } from '@fast-check/vitest';
import { describe, expect, test } from 'vitest';
import { asMemberId, type Configuration } from '../../src/raft/index.ts';
import { isCarriedOut, wantedMembers } from '../../src/server/membership.ts';
import type { MemberRecord } from '../../src/store/index.ts';

const configurationOf = (voters: readonly number[], learners: readonly number[] = []): Configuration => ({
  voters: voters.map(asMemberId),
  learners: learners.map(asMemberId),
  votersOutgoing: [],
  learnersNext: [],
  autoLeave: false,
});

const record = (member: number, wanted: MemberRecord['wanted']): MemberRecord => ({
  member,
  name: `server-${member}`,
  peersAddress: `s${member}:1`,
  agentsUrl: `wss://s${member}`,
  wanted,
});

const always = (): boolean => true;

describe('the members that are wanted', () => {
  test('are those of the configuration, but for what the records say', () => {
    const configuration = configurationOf([1, 2, 3], [4, 5, 6]);
    const records = [
      record(2, 'removed'),
      record(4, 'voter'),
      record(5, 'removed'),
      record(7, 'learner'),
      record(8, 'voter'),
    ];
    expect(wantedMembers(configuration, records, always)).toEqual({
      voters: [1, 3, 4, 8],
      learners: [6, 7],
    });
  });

  test('are others too while a learner is too far behind to vote', () => {
    const records = [record(2, 'removed'), record(4, 'voter'), record(5, 'voter')];
    const wanted = wantedMembers(configurationOf([1, 2, 3], [4, 5]), records, (id) => id === 5);
    expect(wanted).toEqual({ voters: [1, 3, 5], learners: [4] });
  });

  test('are never none', () => {
    const configuration = configurationOf([1], [2]);
    const wanted = wantedMembers(configuration, [record(1, 'removed'), record(2, 'removed')], always);
    expect(isCarriedOut(configuration, wanted)).toBe(true);
  });

  const ids = fc.uniqueArray(fc.integer({ min: 1, max: 8 }), { maxLength: 8 });
  property.prop([
    ids,
    fc.integer({ min: 1, max: 8 }),
    ids,
    fc.infiniteStream(fc.nat(2)),
    fc.infiniteStream(fc.boolean()),
  ])(
    'never vote and learn at once, are sorted, and once they are the members nothing more is wanted',
    (members, voterCount, recorded, wishes, mayVote) => {
      fc.pre(members.length > 0);
      const voters = members.slice(0, voterCount).sort((a, b) => a - b);
      const learners = members.slice(voterCount).sort((a, b) => a - b);
      const records = recorded
        .sort((a, b) => a - b)
        .map((id) =>
          record(id, (['voter', 'learner', 'removed'] as const)[wishes.next().value ?? 0] ?? 'voter'),
        );
      const slow = new Map(learners.map((id) => [id, mayVote.next().value === true]));
      const may = (id: number): boolean => slow.get(id) ?? true;
      const wanted = wantedMembers(configurationOf(voters, learners), records, may);
      const all = [...wanted.voters, ...wanted.learners];
      expect(new Set(all).size).toBe(all.length);
      expect(wanted.voters.length).toBeGreaterThan(0);
      for (const list of [wanted.voters, wanted.learners])
        expect(list).toEqual([...list].sort((a, b) => a - b));
      const after = configurationOf(wanted.voters, wanted.learners);
      expect(isCarriedOut(after, wantedMembers(after, records, may))).toBe(true);
    },
  );
});
