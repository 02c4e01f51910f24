/** Who is a member, and in which capacity. */

import { violated } from './assert.ts';
import { asMemberId } from './types.ts';
import type { Configuration, MemberId } from './types.ts';

/** Of a new cluster: these vote, there is nobody else. At least one id, none twice; any order. */
export const initialConfiguration = (voters: readonly number[]): Configuration => {
  const sorted = voters.map(asMemberId).sort((a, b) => a - b);
  if (sorted.length === 0) throw new RangeError('a cluster needs at least one voter: name its members');
  if (new Set(sorted).size !== sorted.length) {
    throw new RangeError(`a member id is there twice in [${sorted.join(', ')}]: give every member its own`);
  }
  return { voters: sorted, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
};

/** All members in ascending order, each once. */
export const membersOf = (configuration: Configuration): MemberId[] => {
  const { voters, votersOutgoing, learners, learnersNext } = configuration;
  return [...new Set([...voters, ...votersOutgoing, ...learners, ...learnersNext])].sort((a, b) => a - b);
};

export const isVoter = (configuration: Configuration, id: MemberId): boolean =>
  configuration.voters.includes(id) || configuration.votersOutgoing.includes(id);

/** A member cannot be voter and learner at once: it would count and not count. */
export const checkConfiguration = (configuration: Configuration): void => {
  const { voters, votersOutgoing, learners, learnersNext } = configuration;
  for (const list of [voters, votersOutgoing, learners, learnersNext]) {
    for (let i = 1; i < list.length; i += 1) {
      const [before, after] = [list[i - 1], list[i]];
      if (before !== undefined && after !== undefined && before >= after) {
        violated(`the member list [${list.join(', ')}] is not strictly ascending: it was built wrongly`);
      }
    }
  }
  for (const id of learners) {
    if (voters.includes(id) || votersOutgoing.includes(id)) {
      violated(`member ${id} is voter and learner in one configuration`);
    }
  }
  for (const id of learnersNext) {
    if (!votersOutgoing.includes(id)) {
      violated(`member ${id} is to become a learner but is no outgoing voter`);
    }
  }
};
