/**
 * Changes of the members (Raft §4), by one entry or through a joint configuration.
 *
 * A configuration counts on a member when its entry is applied there. That is safe because of these rules:
 * - A leader appends one only when the last one is applied on it. So an append that carries the second of two
 *   configuration entries also tells that the first is committed, in the same write.
 * - Nobody campaigns with a configuration that is committed but not applied. So whoever has the second entry in its log
 *   campaigns by the first configuration at least.
 * - Quorums of neighbours meet. So a campaign by a configuration older than the neighbour of one that decides needs a
 *   vote of somebody who has the newer entries, and its own log lacks them.
 * - A leader commits an entry of its own term before its first change: or two leaders' uncommitted one-step changes
 *   could have majorities without a common member.
 * A server that knows no configuration yet goes by the first one in its log (configuration-history.ts).
 *
 * A leader seals each configuration: it appends an empty entry after it has applied it. When that is committed, a quorum
 * has on disk that the configuration is: those who left are not needed any more, be it to win an election. Only then
 * does a leader that is itself no voter any more hand over and go. Its heartbeats tell the others (settled.ts).
 */

import { violated } from './assert.ts';
import { configurationAfter, configurationTowards, isJoint, mayFollow } from './configuration.ts';
import { decodeConfiguration, encodeConfiguration } from './configuration-codec.ts';
import type { Core } from './core.ts';
import { describeConfiguration } from './describe.ts';
import type { Progress } from './progress.ts';
import { confirmReads } from './read-index.ts';
import { isChangeSettled } from './settled.ts';
import { advanceCommit } from './replication.ts';
import { appendAsLeader, appendSeal, becomeFollower, switchConfiguration } from './roles.ts';
import type { DropReason, Input, LogIndex, MemberId } from './types.ts';

type ChangeInput = Extract<Input, { readonly kind: 'change_configuration' }>;

const hasUnapplied = ({ log }: Core): boolean => log.configurationsBetween(log.applied, log.last).length > 0;

export const isChangePending = (core: Core): boolean => isJoint(core.configuration) || hasUnapplied(core);

/** An entry of this leadership is committed: nothing that another leader had appended can still be committed. */
const isReady = ({ log, term }: Core): boolean => log.termAt(log.commit) === term;

const isBehind = (core: Core, learner: MemberId): boolean => {
  const peer = core.progressOf(learner);
  if (peer === undefined || peer.state !== 'replicate') return true;
  return core.log.last - peer.match > core.settings.promotionLagMax;
};

const refusalOf = (core: Core, voters: readonly MemberId[]): DropReason | undefined => {
  if (core.leadership === undefined) return core.leader === undefined ? 'no_leader' : 'not_leader';
  if (core.isHandingOver) return 'transferring';
  if (voters.length === 0) return 'no_voters';
  if (isChangePending(core)) return 'change_pending';
  if (!isReady(core)) return 'not_ready';
  // One that counts but lacks much would hold up every commit that needs it. A new member has nothing, and it is known.
  const { learners } = core.configuration;
  if (voters.some((id) => learners.includes(id) && isBehind(core, id))) return 'learner_behind';
  return undefined;
};

export const changeConfiguration = (core: Core, { token, voters, learners }: ChangeInput): void => {
  if (new Set([...voters, ...learners]).size !== voters.length + learners.length) {
    violated(
      `voters [${voters.join(', ')}] and learners [${learners.join(', ')}] name a member twice: the caller must not`,
    );
  }
  const refusal = refusalOf(core, voters);
  if (refusal !== undefined) return core.outbox.drop('change', token, refusal);
  const next = configurationTowards(core.configuration, voters, learners);
  appendAsLeader(core, 'configuration', encodeConfiguration(next));
};

/** Where who counts changes. On a leader a smaller quorum may have decided already what a larger one had not. */
export const appliedTo = (core: Core, index: LogIndex): void => {
  const { log } = core;
  const before = log.applied;
  log.appliedTo(index);
  const entries = log.configurationsBetween(before, log.applied);
  if (entries.length === 0) return;
  for (const entry of entries) {
    const next = decodeConfiguration(entry.payload);
    const present = core.configuration;
    // One that waited to be added cannot know what came before its own, and may go by its own already.
    const isKnown =
      present.voters.length > 0 && describeConfiguration(present) !== describeConfiguration(next);
    if (isKnown && !mayFollow(present, next)) {
      violated(
        `the configuration "${describeConfiguration(next)}" at ${entry.index} cannot follow ` +
          `"${describeConfiguration(present)}": majorities of both need not meet`,
      );
    }
    switchConfiguration(core, next);
  }
  advanceCommit(core);
  confirmReads(core);
};

/** At the end of a leader's turn: what follows from the configuration that counts, whichever leader began the change. */
export const continueChange = (core: Core): void => {
  const { leadership, configuration } = core;
  if (leadership === undefined || leadership.transfer !== undefined) return;
  if (isJoint(configuration)) {
    if (!configuration.autoLeave || hasUnapplied(core) || !isReady(core)) return;
    appendAsLeader(core, 'configuration', encodeConfiguration(configurationAfter(configuration)));
  } else if (leadership.seal === undefined) {
    appendSeal(core);
  }
};

const mostUpToDate = (peers: readonly Progress[]): Progress | undefined => {
  let best = peers[0];
  for (const peer of peers) if (best !== undefined && peer.match > best.match) best = peer;
  return best;
};

/** After the appends of a turn: a leader that is no voter any more goes as soon as it is not needed. */
export const handOverIfRemoved = (core: Core): void => {
  const { leadership, configuration } = core;
  if (leadership === undefined || core.isVoter || !isChangeSettled(core)) return;
  const successor = mostUpToDate(leadership.peers.filter(({ id }) => configuration.voters.includes(id)));
  if (successor === undefined) violated(`nobody can succeed the removed leader ${core.id}`);
  core.send(successor.id, { kind: 'timeout_now' });
  becomeFollower(core, core.term, undefined);
};
