/**
 * Elections (Raft §5.2, §5.4.1) with pre-vote and check-quorum (§9.6, §6.4).
 *
 * A pre-vote moves no term and no vote. Whoever heard from a live leader within an election timeout supports no
 * campaign, unless that leader asked for it; a leader that has not heard from a quorum for as long forgets itself,
 * so nobody stays loyal to a leader that cannot commit.
 */

import type { Core } from './core.ts';
import { voteResult } from './quorum.ts';
import { becomeCandidate, becomeFollower, becomeLeader, becomePreCandidate } from './roles.ts';
import { isVoter, membersOf } from './configuration.ts';
import { asTerm } from './types.ts';
import type { MemberId, Message } from './types.ts';

type MessageOf<Kind extends Message['kind']> = Extract<Message, { readonly kind: Kind }>;

export const hearsLeader = (core: Core): boolean =>
  core.leader !== undefined && core.electionElapsed < core.settings.electionTicks;

/**
 * Not while a committed configuration is unapplied (the campaign would count by the old one: two disjoint quorums),
 * nor while a received snapshot is not on disk (the log to campaign with is about to be replaced).
 */
const mayCampaign = (core: Core): boolean =>
  core.role !== 'leader' &&
  (core.isVoter || isLastResort(core)) &&
  core.install === undefined &&
  !core.log.hasUnappliedConfiguration();

/** Timeouts without a leader after which one that does not vote steps in. The voters had their chances by then. */
const lastResortTimeouts = 4;

/**
 * Timeouts without a leader after which one that is reluctant stands all the same: the others have had a first and a
 * second try by then, so they are gone, or lack what it has.
 */
const reluctantTimeouts = 2;

/** A leader that hands over to it, or a caller that asks it to campaign, knows nobody better. */
const holdsBack = ({ reluctant, quietTimeouts }: Core): boolean =>
  reluctant && quietTimeouts < reluctantTimeouts;

/**
 * One that does not vote (a learner, or a leader that crashed when it had just removed itself) may have entries that
 * the voters lack, refuse them its vote for it, and be needed by those who do not know yet that it does not count (Raft
 * §4.2.2). Nobody could ever lead: it leads them until they have what it has, and hands over (membership.ts).
 */
const isLastResort = ({ quietTimeouts, configuration, log }: Core): boolean =>
  quietTimeouts >= lastResortTimeouts && configuration.voters.length > 0 && log.last > log.commit;

const requestVotes = (core: Core, kind: 'pre_vote_request' | 'vote_request'): void => {
  const { last: lastIndex, lastTerm } = core.log;
  for (const to of membersOf(core.configuration)) {
    if (to === core.id || !isVoter(core.configuration, to)) continue;
    if (kind === 'pre_vote_request') {
      core.send(to, { kind, campaignTerm: asTerm(core.term + 1), lastIndex, lastTerm });
    } else {
      core.send(to, { kind, lastIndex, lastTerm, transfer: core.campaignIsTransfer });
    }
  }
};

/** This member's own vote counts once it is on disk (see `countOwnVote`). */
const campaignForReal = (core: Core, isTransfer: boolean): void => {
  becomeCandidate(core, isTransfer);
  requestVotes(core, 'vote_request');
};

const countVotes = (core: Core): void => {
  const result = voteResult(core.configuration, (id) => core.votes.get(id));
  if (result === 'pending') return;
  if (result === 'lost') becomeFollower(core, core.term, undefined);
  else if (core.role === 'pre_candidate') campaignForReal(core, false);
  else becomeLeader(core);
};

/** Asks first whether a campaign could be won (pre-vote). Does nothing where a campaign is not allowed. */
export const campaign = (core: Core): void => {
  if (!mayCampaign(core)) return;
  becomePreCandidate(core);
  requestVotes(core, 'pre_vote_request');
  core.votes.set(core.id, true);
  countVotes(core);
};

/** The leader hands over: no pre-vote, for the others still hear that leader. */
export const campaignByTransfer = (core: Core): void => {
  if (mayCampaign(core)) campaignForReal(core, true);
};

/** After a write: a candidate votes for itself as soon as a restart could not make it forget that. */
export const countOwnVote = (core: Core): void => {
  if (core.role !== 'candidate' || core.votes.has(core.id) || !core.hardStateIsDurable) return;
  core.votes.set(core.id, true);
  countVotes(core);
};

export const tickElection = (core: Core): void => {
  core.electionElapsed += 1;
  if (core.electionElapsed < core.electionTimeout) return;
  if (mayCampaign(core) && !holdsBack(core)) return campaign(core);
  core.quietTimeouts += 1;
  // Not known any more: it must be no reason to refuse others a vote.
  becomeFollower(core, core.term, undefined);
  core.restartElectionTimer();
};

/** Answered whatever the sender's term, so that one which is behind learns of ours and can win next time. */
export const handlePreVoteRequest = (core: Core, message: MessageOf<'pre_vote_request'>): void => {
  const { campaignTerm, lastIndex, lastTerm } = message;
  const granted = campaignTerm > core.term && !hearsLeader(core) && core.log.isUpToDate(lastIndex, lastTerm);
  core.send(message.from, { kind: 'pre_vote_response', campaignTerm, granted });
};

export const handlePreVoteResponse = (core: Core, message: MessageOf<'pre_vote_response'>): void => {
  if (core.role !== 'pre_candidate' || message.campaignTerm !== core.term + 1) return;
  recordVote(core, message.from, message.granted);
};

/** True: to be ignored, its term included. */
export const isDisruptive = (core: Core, message: Message): boolean =>
  message.kind === 'vote_request' && !message.transfer && message.term > core.term && hearsLeader(core);

/** In the message's term already. Only a vote that is granted restarts the election timer. */
export const handleVoteRequest = (core: Core, message: MessageOf<'vote_request'>): void => {
  const free = core.vote === message.from || (core.vote === undefined && core.leader === undefined);
  const granted = free && core.log.isUpToDate(message.lastIndex, message.lastTerm);
  if (granted) {
    if (core.role !== 'follower') becomeFollower(core, core.term, undefined);
    core.vote = message.from;
    core.restartElectionTimer();
  }
  core.send(message.from, { kind: 'vote_response', granted });
};

export const handleVoteResponse = (core: Core, message: MessageOf<'vote_response'>): void => {
  if (core.role === 'candidate') recordVote(core, message.from, message.granted);
};

/** The first answer of a member counts. */
const recordVote = (core: Core, from: MemberId, granted: boolean): void => {
  if (core.votes.has(from)) return;
  core.votes.set(from, granted);
  countVotes(core);
};

/** Once in an election timeout. A leader that a quorum does not answer can commit nothing: it steps down. */
export const checkQuorum = (core: Core): void => {
  const { leadership } = core;
  if (leadership === undefined) return;
  const active = voteResult(
    core.configuration,
    (id) => id === core.id || core.progressOf(id)?.recentlyActive === true,
  );
  for (const peer of leadership.peers) peer.recentlyActive = false;
  if (active !== 'won') becomeFollower(core, core.term, undefined);
};
