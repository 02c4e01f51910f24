/** The changes of role, and what each of them has to end or begin. */

import { violated } from './assert.ts';
import { membersOf, checkConfiguration, isVoter } from './configuration.ts';
import type { Core } from './core.ts';
import { Inflights } from './inflights.ts';
import { Progress } from './progress.ts';
import { dropForwardedReads, dropLeaderReads, LeaderReads } from './read-index.ts';
import { asLogIndex, asTerm } from './types.ts';
import type { Configuration, Entry, MemberId, Term } from './types.ts';

const emptyPayload = new Uint8Array(0);

export const appendAsLeader = (core: Core, kind: Entry['kind'], payload: Uint8Array): void => {
  core.log.append({ term: core.term, index: asLogIndex(core.log.last + 1), kind, payload });
};

/** Appended again after each change of the configuration. */
export const appendSeal = (core: Core): void => {
  appendAsLeader(core, 'empty', emptyPayload);
  if (core.leadership !== undefined) core.leadership.seal = core.log.last;
};

/** Enters a term (or stays in it) as a follower. The election timer goes on unless this member led. */
export const becomeFollower = (core: Core, term: Term, leader: MemberId | undefined): void => {
  if (term < core.term) violated(`the term would fall from ${core.term} to ${term}`);
  const { leadership } = core;
  if (term !== core.term || leader !== core.leader) {
    dropForwardedReads(
      core,
      leader === undefined && core.leader === undefined ? 'no_leader' : 'lost_leadership',
    );
  }
  if (term > core.term) {
    core.term = term;
    core.vote = undefined;
  }
  core.role = 'follower';
  core.leader = leader;
  core.leadership = undefined;
  core.votes.clear();
  if (leadership !== undefined) {
    dropLeaderReads(core, leadership.reads, 'lost_leadership');
    core.restartElectionTimer();
  }
};

/** The leader of this term was heard. */
export const follow = (core: Core, leader: MemberId): void => {
  if (core.role === 'leader') {
    violated(`member ${leader} leads term ${core.term} too: was a member id given twice, or a disk wiped?`);
  }
  if (core.leader !== undefined && core.leader !== leader) {
    violated(`members ${core.leader} and ${leader} both lead term ${core.term}: a vote was given twice`);
  }
  const isNew = core.leader === undefined;
  if (isNew || core.role !== 'follower') becomeFollower(core, core.term, leader);
  if (isNew) core.restartElectionTimer();
  core.quietTimeouts = 0;
  core.electionElapsed = 0;
};

/** A whole timeout without the leader: it is not known any more, or two of three would refuse each other for it. */
export const becomePreCandidate = (core: Core): void => {
  if (core.role === 'leader') violated(`the leader of term ${core.term} would campaign against itself`);
  dropForwardedReads(core, 'lost_leadership');
  core.role = 'pre_candidate';
  core.leader = undefined;
  core.campaignIsTransfer = false;
  core.votes.clear();
  core.startCampaignTimer();
};

export const becomeCandidate = (core: Core, isTransfer: boolean): void => {
  if (core.role === 'leader') violated(`the leader of term ${core.term} would campaign against itself`);
  dropForwardedReads(core, 'lost_leadership');
  core.role = 'candidate';
  core.leader = undefined;
  core.campaignIsTransfer = isTransfer;
  core.term = asTerm(core.term + 1);
  core.vote = core.id;
  core.votes.clear();
  core.startCampaignTimer();
};

const newProgress = (core: Core, id: MemberId): Progress => {
  const { inflightMessagesMax, inflightBytesMax } = core.settings;
  const window = new Inflights(inflightMessagesMax, inflightBytesMax);
  return new Progress(id, asLogIndex(core.log.last + 1), window);
};

/** Its empty entry commits what earlier terms left (Raft §5.4.2, §8). */
export const becomeLeader = (core: Core): void => {
  if (core.role !== 'candidate') violated(`a ${core.role} would become leader of term ${core.term}`);
  if (!core.hardStateIsDurable) violated(`term ${core.term} would be led before it is on this disk`);
  core.role = 'leader';
  core.leader = core.id;
  core.votes.clear();
  core.restartElectionTimer();
  const others = membersOf(core.configuration).filter((id) => id !== core.id);
  core.leadership = {
    peers: others.map((id) => newProgress(core, id)),
    reads: new LeaderReads(),
    heartbeatElapsed: 0,
    transfer: undefined,
    seal: undefined,
  };
  appendSeal(core);
};

/** The one place where who counts changes. */
export const switchConfiguration = (core: Core, configuration: Configuration): void => {
  checkConfiguration(configuration);
  if (core.role !== 'follower' && core.role !== 'leader') {
    violated(`the configuration changed under a ${core.role}: its votes were asked for under another`);
  }
  const before = core.configuration;
  core.configuration = configuration;
  const { leadership } = core;
  if (leadership === undefined) return;
  leadership.seal = undefined;
  leadership.peers = membersOf(configuration)
    .filter((id) => id !== core.id)
    .map((id) => {
      const peer = core.progressOf(id) ?? newProgress(core, id);
      // It had no time to be heard as one that counts: it must not depose the leader at the next check of the quorum.
      if (!isVoter(before, id)) peer.recentlyActive = true;
      return peer;
    });
  const target = leadership.transfer?.target;
  if (target !== undefined && !configuration.voters.includes(target)) leadership.transfer = undefined;
};
