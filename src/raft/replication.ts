/**
 * The leader's side of replication (Raft §5.3): appends sent ahead within each peer's window, the commit
 * rule.
 *
 * Inputs only note what has changed; `replicate` sends, once at the end of a turn. So the proposals of a turn share
 * messages, and a peer is told a new commit index with the next entries, or alone if there are none.
 */

import { violated } from './assert.ts';
import type { Core } from './core.ts';
import type { Progress } from './progress.ts';
import { reachedByQuorum } from './quorum.ts';
import { appendAsLeader } from './roles.ts';
import { askTransferTarget } from './transfer.ts';
import { asLogIndex } from './types.ts';
import type { DropReason, Entry, LogIndex, MemberId, Message, Proposal } from './types.ts';

type MessageOf<Kind extends Message['kind']> = Extract<Message, { readonly kind: Kind }>;

const noEntries: readonly Entry[] = [];

const refusalOf = (core: Core): DropReason | undefined => {
  if (core.leadership === undefined) return core.leader === undefined ? 'no_leader' : 'not_leader';
  return core.isHandingOver ? 'transferring' : undefined;
};

/** Once one proposal does not fit, the rest is dropped too: a later one must not overtake it. */
export const propose = (core: Core, proposals: readonly Proposal[]): void => {
  let refusal = refusalOf(core);
  for (const { token, payload } of proposals) {
    const waiting = core.log.uncommittedBytes;
    if (
      refusal === undefined &&
      waiting > 0 &&
      waiting + payload.byteLength > core.settings.uncommittedBytesMax
    ) {
      refusal = 'too_much_uncommitted';
    }
    if (refusal === undefined) appendAsLeader(core, 'commands', payload);
    else core.outbox.drop('proposal', token, refusal);
  }
};

/** A leader counts itself by what is on its disk, and older terms only together with its own (Raft §5.4.2). */
export const advanceCommit = (core: Core): void => {
  if (core.leadership === undefined) return;
  const reached = reachedByQuorum(core.configuration, (id) =>
    id === core.id ? core.log.durable : (core.progressOf(id)?.match ?? 0),
  );
  const index = asLogIndex(reached);
  if (index > core.log.commit && core.log.termAt(index) === core.term) core.log.commitTo(index);
};

/** False: what the peer needs is gone, it gets a snapshot. */
const sendAppend = (core: Core, peer: Progress, entriesWanted: boolean): boolean => {
  const { log, settings } = core;
  const previousIndex = asLogIndex(peer.next - 1);
  const previousTerm = log.termAt(previousIndex);
  if (previousTerm === undefined) {
    if (previousIndex >= log.baseIndex) {
      violated(`peer ${peer.id} is to get entries after ${previousIndex}, the last one here is ${log.last}`);
    }
    peer.becomeSnapshot();
    core.outbox.streamSnapshot(peer.id, core.term);
    return false;
  }
  const entries = entriesWanted ? log.slice(peer.next, log.last, settings.appendBytesMax) : noEntries;
  const lastSent = asLogIndex(previousIndex + entries.length);
  core.send(peer.id, { kind: 'append_request', previousIndex, previousTerm, commit: log.commit, entries });
  const commitSent = asLogIndex(Math.min(log.commit, lastSent));
  if (commitSent > peer.commitSent) peer.commitSent = commitSent;
  if (peer.state === 'probe') {
    peer.probeSent = true;
  } else if (entries.length > 0) {
    let bytes = 0;
    for (const entry of entries) bytes += entry.payload.byteLength;
    peer.sentAhead(lastSent, bytes);
  }
  return true;
};

const replicateAhead = (core: Core, peer: Progress): void => {
  const { log } = core;
  let sent = false;
  while (!peer.inflights.full && peer.next <= log.last) {
    if (!sendAppend(core, peer, true)) return;
    sent = true;
  }
  const lacksCommit = peer.next > log.last && peer.commitSent < log.commit && !peer.inflights.full;
  const nudged = peer.nudged && !sent;
  peer.nudged = false;
  if (lacksCommit || nudged) sendAppend(core, peer, false);
};

/** At the end of a turn: to every peer what it lacks and may be sent. */
export const replicate = (core: Core): void => {
  const { leadership } = core;
  if (leadership === undefined) return;
  for (const peer of leadership.peers) {
    switch (peer.state) {
      case 'probe':
        if (!peer.probeSent) sendAppend(core, peer, true);
        break;
      case 'replicate':
        replicateAhead(core, peer);
        break;
      case 'snapshot':
        break;
      default:
        peer.state satisfies never;
    }
  }
};

const handleAccepted = (core: Core, peer: Progress, index: LogIndex): void => {
  if (index > core.log.last) {
    violated(
      `member ${peer.id} acknowledged entry ${index} of term ${core.term}, ` +
        `but its leader has written ${core.log.last}: a member id given twice?`,
    );
  }
  const advanced = peer.acknowledge(index);
  switch (peer.state) {
    case 'probe':
      // Also when nothing is new: a caught-up peer must leave this state too.
      if (index === peer.match) peer.becomeReplicate();
      break;
    case 'replicate':
      peer.inflights.freeTo(index);
      break;
    case 'snapshot':
      if (peer.match >= core.log.baseIndex) peer.becomeReplicate();
      break;
    default:
      peer.state satisfies never;
  }
  if (!advanced) return;
  advanceCommit(core);
  askTransferTarget(core);
};

export const handleAppendResponse = (core: Core, message: MessageOf<'append_response'>): void => {
  const peer = core.progressOf(message.from);
  if (peer === undefined) return;
  peer.recentlyActive = true;
  const { outcome } = message;
  if (outcome.accepted) handleAccepted(core, peer, outcome.matchIndex);
  // The peer's hint is looked up in this log too: one round trip skips a whole term of either side.
  else peer.reject(outcome.rejectedIndex, core.log.lastIndexOfTerm(outcome.hintIndex, outcome.hintTerm));
};

/** What was sent ahead may be lost: find out where the peer stands before sending more. */
export const handleUnreachable = (core: Core, id: MemberId): void => {
  const peer = core.progressOf(id);
  if (peer === undefined || peer.state !== 'replicate') return;
  peer.becomeProbe(asLogIndex(peer.match + 1));
  peer.probeSent = true;
};

/**
 * A peer with the snapshot accepts a probe from the oldest place that this log knows; one without it rejects that and
 * gets another. Not before the peer is heard again, so that a failing stream is not repeated at once.
 */
export const handleSnapshotSent = (core: Core, id: MemberId, ok: boolean): void => {
  const peer = core.progressOf(id);
  if (peer === undefined || peer.state !== 'snapshot') return;
  const oldest = ok ? core.log.first : peer.match + 1;
  peer.becomeProbe(asLogIndex(Math.max(peer.match + 1, oldest)));
  peer.probeSent = true;
};
