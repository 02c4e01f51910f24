/** Heartbeats: they keep followers loyal, tell the commit index, and carry the read rounds. */

import { violated } from './assert.ts';
import type { Core, Leadership } from './core.ts';
import { isChangeSettled } from './settled.ts';
import { asLogIndex } from './types.ts';
import type { Message } from './types.ts';

type HeartbeatResponse = Extract<Message, { readonly kind: 'heartbeat_response' }>;

export const broadcastHeartbeat = (core: Core, leadership: Leadership): void => {
  const settledTo = isChangeSettled(core) ? core.log.applied : asLogIndex(0);
  for (const peer of leadership.peers) {
    // Beyond match the peer's log may differ: it must not take entries there for committed.
    const commit = asLogIndex(Math.min(peer.match, core.log.commit));
    if (commit > peer.commitSent) peer.commitSent = commit;
    core.send(peer.id, { kind: 'heartbeat_request', commit, readRound: leadership.reads.round, settledTo });
  }
};

export const tickHeartbeat = (core: Core): void => {
  const { leadership } = core;
  if (leadership === undefined) return;
  leadership.heartbeatElapsed += 1;
  if (leadership.heartbeatElapsed < core.settings.heartbeatTicks) return;
  leadership.heartbeatElapsed = 0;
  for (const peer of leadership.peers) peer.heartbeatSent();
  broadcastHeartbeat(core, leadership);
};

/** The caller confirms the reads that this may have been the last answer for. */
export const handleHeartbeatResponse = (core: Core, message: HeartbeatResponse): void => {
  const { leadership } = core;
  const peer = core.progressOf(message.from);
  if (leadership === undefined || peer === undefined) return;
  if (message.readRound > leadership.reads.round) {
    violated(
      `member ${peer.id} answered read round ${message.readRound}, the last one is ${leadership.reads.round}`,
    );
  }
  peer.recentlyActive = true;
  peer.heartbeatAnswered(core.log.last);
  if (message.readRound > peer.readRound) peer.readRound = message.readRound;
};
