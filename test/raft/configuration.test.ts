import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  asLogIndex,
  asMemberId,
  asTerm,
  decodeConfiguration,
  describeConfiguration,
  describeMessage,
  emptyConfiguration,
  encodeConfiguration,
  initialConfiguration,
  InvariantViolation,
  membersOf,
} from '../../src/raft/index.ts';
import type { Configuration, MemberId } from '../../src/raft/index.ts';
import {
  checkConfiguration,
  configurationAfter,
  configurationTowards,
  isJoint,
  mayFollow,
} from '../../src/raft/configuration.ts';
import { voteResult } from '../../src/raft/quorum.ts';

const serversMax = 7;
const roles = fc.array(fc.constantFrom('voter', 'learner', 'nobody'), {
  minLength: serversMax,
  maxLength: serversMax,
});

const withRole = (all: readonly string[], role: string): MemberId[] =>
  all.flatMap((is, i) => (is === role ? [asMemberId(i + 1)] : []));

const simple: fc.Arbitrary<Configuration> = roles
  .filter((all) => all.includes('voter'))
  .map((all) => ({
    ...emptyConfiguration,
    voters: withRole(all, 'voter'),
    learners: withRole(all, 'learner'),
  }));

/** By bit of the member's id. */
const wins = (configuration: Configuration, set: number): boolean =>
  voteResult(configuration, (id) => ((set >> id) & 1) === 1) === 'won';

/** No two disjoint sets of servers win, the one by `a` and the other by `b`. */
const quorumsMeet = (a: Configuration, b: Configuration): boolean => {
  const all = 2 ** (serversMax + 1) - 2;
  for (let set = 0; set <= all; set += 2) if (wins(a, set) && wins(b, all & ~set)) return false;
  return true;
};

const joint: Configuration = {
  voters: [1, 4, 5].map(asMemberId),
  votersOutgoing: [1, 2, 3].map(asMemberId),
  learners: [asMemberId(6)],
  learnersNext: [asMemberId(2)],
  autoLeave: true,
};

describe('the way from one configuration to another', () => {
  test('has at most one step between, ends at what was wanted, and quorums of neighbours meet', () => {
    fc.assert(
      fc.property(simple, simple, (from, to) => {
        const first = configurationTowards(from, to.voters, to.learners);
        checkConfiguration(first);
        expect(mayFollow(from, first)).toBe(true);
        expect(quorumsMeet(from, first)).toBe(true);
        const last = isJoint(first) ? configurationAfter(first) : first;
        checkConfiguration(last);
        expect(last).toEqual(to);
        if (!isJoint(first)) return;
        expect(mayFollow(first, last)).toBe(true);
        expect(quorumsMeet(first, last)).toBe(true);
      }),
    );
  });

  test('whatever may follow has quorums that meet; two changes in one step may not', () => {
    fc.assert(
      fc.property(simple, simple, (a, b) => {
        if (mayFollow(a, b)) expect(quorumsMeet(a, b)).toBe(true);
      }),
    );
    const [three, five] = [initialConfiguration([1, 2, 3]), initialConfiguration([1, 4, 5])];
    expect(mayFollow(three, five)).toBe(false);
    expect(mayFollow(three, joint)).toBe(true);
    expect(mayFollow(initialConfiguration([1, 2]), joint)).toBe(false);
    expect(mayFollow(joint, five)).toBe(false);
    expect(mayFollow(joint, three)).toBe(false);
    expect(mayFollow(joint, joint)).toBe(false);
    expect(mayFollow(joint, { ...five, learners: [asMemberId(2), asMemberId(6)] })).toBe(true);
  });

  test('one voter more or less is one step, and learners come and go with it', () => {
    const three = initialConfiguration([1, 2, 3]);
    const ids = (...numbers: readonly number[]): MemberId[] => numbers.map(asMemberId);
    expect(isJoint(configurationTowards(three, ids(4, 3, 2, 1), ids(6, 5)))).toBe(false);
    expect(isJoint(configurationTowards(three, ids(1, 2), ids(3)))).toBe(false);
    expect(isJoint(configurationTowards(three, ids(1, 2, 4), []))).toBe(true);
  });
});

describe('a configuration', () => {
  test('comes back from its bytes, and the same one has the same bytes', () => {
    fc.assert(
      fc.property(simple, simple, (from, to) => {
        const configuration = configurationTowards(from, to.voters, to.learners);
        const bytes = encodeConfiguration(configuration);
        expect(decodeConfiguration(bytes)).toEqual(configuration);
        expect(encodeConfiguration(decodeConfiguration(bytes))).toEqual(bytes);
      }),
    );
    expect(decodeConfiguration(encodeConfiguration(emptyConfiguration))).toEqual(emptyConfiguration);
  });

  test.each<[string, string]>([
    ['no JSON', 'voters'],
    ['no object', '[]'],
    ['null', 'null'],
    ['a field too few', '{"voters":[1],"votersOutgoing":[],"learners":[],"learnersNext":[]}'],
    [
      'a field too many',
      '{"voters":[1],"votersOutgoing":[],"learners":[],"learnersNext":[],"autoLeave":false,"x":1}',
    ],
    ['another field', '{"voters":[1],"votersOutgoing":[],"learners":[],"learnersLast":[],"autoLeave":false}'],
    [
      'an id that is none',
      '{"voters":[0],"votersOutgoing":[],"learners":[],"learnersNext":[],"autoLeave":false}',
    ],
    [
      'an id as text',
      '{"voters":["1"],"votersOutgoing":[],"learners":[],"learnersNext":[],"autoLeave":false}',
    ],
    [
      'a list that is none',
      '{"voters":1,"votersOutgoing":[],"learners":[],"learnersNext":[],"autoLeave":false}',
    ],
    ['no order', '{"voters":[2,1],"votersOutgoing":[],"learners":[],"learnersNext":[],"autoLeave":false}'],
    [
      'voter and learner',
      '{"voters":[1],"votersOutgoing":[],"learners":[1],"learnersNext":[],"autoLeave":false}',
    ],
  ])('is not read from bytes with %s', (_, text) => {
    expect(() => decodeConfiguration(Buffer.from(text))).toThrow(InvariantViolation);
  });

  test('pitfall 18: nobody is voter and learner at once, in whichever half', () => {
    const two = asMemberId(2);
    checkConfiguration(joint);
    expect(() => checkConfiguration({ ...joint, learners: [two] })).toThrow(/voter and learner/);
    expect(() => checkConfiguration({ ...joint, learnersNext: [asMemberId(1)] })).toThrow(/both a voter/);
    expect(() => checkConfiguration({ ...joint, learnersNext: [asMemberId(6)] })).toThrow(/no outgoing/);
    expect(() => checkConfiguration({ ...joint, votersOutgoing: [], learnersNext: [] })).toThrow(
      /to be left/,
    );
    expect(() => checkConfiguration({ ...emptyConfiguration, learners: [two] })).toThrow(/nobody votes/);
  });

  test('is described in one line, and so are messages that carry one', () => {
    expect(describeConfiguration(joint)).toBe(
      'voters 1, 4, 5; outgoing 1, 2, 3; learners 6; learners next 2',
    );
    expect(describeConfiguration(emptyConfiguration)).toBe('nobody');
    expect(membersOf(joint)).toEqual([1, 2, 3, 4, 5, 6]);
    const head = { from: asMemberId(1), to: asMemberId(2), term: asTerm(3) };
    const payload = encodeConfiguration(initialConfiguration([1, 2]));
    const entry = { term: asTerm(3), index: asLogIndex(7), kind: 'configuration', payload } as const;
    const previous = { previousIndex: asLogIndex(6), previousTerm: asTerm(3), commit: asLogIndex(6) };
    expect(describeMessage({ ...head, kind: 'append_request', ...previous, entries: [entry] })).toBe(
      `1→2 t3 append_request after 6@3, entries 7@3 (${payload.byteLength} bytes, members at 7), commit 6`,
    );
  });
});
