/**
 * The arithmetic of majorities, apart from any protocol. A joint configuration decides by both of its halves; an
 * empty half (no joint change under way) agrees with everything. Learners are in neither half, so they never count.
 */

import { violated } from './assert.ts';
import type { Configuration, MemberId } from './types.ts';

export type VoteResult = 'won' | 'lost' | 'pending';

const majorityOf = (count: number): number => Math.floor(count / 2) + 1;

/** The greatest value that a majority has reached; Infinity without voters. */
const reachedByMajority = (voters: readonly MemberId[], valueOf: (id: MemberId) => number): number => {
  if (voters.length === 0) return Infinity;
  const values = voters.map(valueOf).sort((a, b) => a - b);
  const value = values[values.length - majorityOf(values.length)];
  return value ?? violated(`no ${majorityOf(values.length)}th greatest among ${values.length} values`);
};

/** The greatest value that a quorum has reached: a log index for the commit rule, a round for reads. */
export const reachedByQuorum = (configuration: Configuration, valueOf: (id: MemberId) => number): number => {
  if (configuration.voters.length === 0) violated('a quorum was asked for in a configuration without voters');
  return Math.min(
    reachedByMajority(configuration.voters, valueOf),
    reachedByMajority(configuration.votersOutgoing, valueOf),
  );
};

const majorityResult = (
  voters: readonly MemberId[],
  voteOf: (id: MemberId) => boolean | undefined,
): VoteResult => {
  if (voters.length === 0) return 'won';
  let yes = 0;
  let missing = 0;
  for (const id of voters) {
    const vote = voteOf(id);
    if (vote === true) yes += 1;
    if (vote === undefined) missing += 1;
  }
  const needed = majorityOf(voters.length);
  if (yes >= needed) return 'won';
  return yes + missing >= needed ? 'pending' : 'lost';
};

/** `undefined` from `voteOf`: has not voted yet. */
export const voteResult = (
  configuration: Configuration,
  voteOf: (id: MemberId) => boolean | undefined,
): VoteResult => {
  if (configuration.voters.length === 0) violated('votes were counted in a configuration without voters');
  const incoming = majorityResult(configuration.voters, voteOf);
  const outgoing = majorityResult(configuration.votersOutgoing, voteOf);
  if (incoming === outgoing) return incoming;
  return incoming === 'lost' || outgoing === 'lost' ? 'lost' : 'pending';
};
