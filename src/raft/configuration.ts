/** Who is a member, in which capacity, and which configuration may follow which (Raft §4). */

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

/** Of a server that waits to be added: nobody counts, so it never campaigns; it follows whoever leads. */
export const emptyConfiguration: Configuration = {
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};

const ascending = (ids: Iterable<MemberId>): MemberId[] => [...ids].sort((a, b) => a - b);

/** All members in ascending order, each once. */
export const membersOf = (configuration: Configuration): MemberId[] => {
  const { voters, votersOutgoing, learners, learnersNext } = configuration;
  return ascending(new Set([...voters, ...votersOutgoing, ...learners, ...learnersNext]));
};

export const isVoter = (configuration: Configuration, id: MemberId): boolean =>
  configuration.voters.includes(id) || configuration.votersOutgoing.includes(id);

/** Two majorities have to agree: a change of more than one voter is under way. */
export const isJoint = (configuration: Configuration): boolean => configuration.votersOutgoing.length > 0;

/**
 * The entry that begins the change to these members. With one voter more or less every old majority meets every new
 * one (Raft §4.1); with more they need not, so both have to agree for a while (§4.3).
 */
export const configurationTowards = (
  present: Configuration,
  voters: readonly MemberId[],
  learners: readonly MemberId[],
): Configuration => {
  if (isJoint(present)) violated('a change was begun in a joint configuration: that has to be left first');
  const changed = voters.filter((id) => !present.voters.includes(id)).length;
  const left = present.voters.filter((id) => !voters.includes(id)).length;
  const wanted = { voters: ascending(voters), learners: ascending(learners) };
  if (changed + left <= 1) return { ...wanted, votersOutgoing: [], learnersNext: [], autoLeave: false };
  return {
    voters: wanted.voters,
    votersOutgoing: present.voters,
    learners: wanted.learners.filter((id) => !present.voters.includes(id)),
    learnersNext: wanted.learners.filter((id) => present.voters.includes(id)),
    autoLeave: true,
  };
};

/** What a joint configuration ends in. */
export const configurationAfter = (joint: Configuration): Configuration => {
  if (!isJoint(joint)) violated('a configuration that is not joint cannot be left');
  return {
    voters: joint.voters,
    votersOutgoing: [],
    learners: ascending([...joint.learners, ...joint.learnersNext]),
    learnersNext: [],
    autoLeave: false,
  };
};

const sameMembers = (a: readonly MemberId[], b: readonly MemberId[]): boolean => a.join() === b.join();

/** Whether every quorum of the one meets every quorum of the other, and a joint one is left for its own target. */
export const mayFollow = (before: Configuration, after: Configuration): boolean => {
  if (isJoint(before)) {
    const end = configurationAfter(before);
    return (
      !isJoint(after) && sameMembers(end.voters, after.voters) && sameMembers(end.learners, after.learners)
    );
  }
  if (isJoint(after)) return sameMembers(before.voters, after.votersOutgoing);
  const added = after.voters.filter((id) => !before.voters.includes(id)).length;
  const removed = before.voters.filter((id) => !after.voters.includes(id)).length;
  return added + removed <= 1;
};

/** A member cannot be voter and learner at once: it would count and not count. */
export const checkConfiguration = (configuration: Configuration): void => {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = configuration;
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
    if (voters.includes(id)) violated(`member ${id} is to become both a voter and a learner`);
  }
  if (voters.length === 0 && votersOutgoing.length + learners.length > 0) {
    violated(`nobody votes among [${membersOf(configuration).join(', ')}]: nothing could ever be committed`);
  }
  if (autoLeave && votersOutgoing.length === 0) violated('a configuration that is not joint is to be left');
};
