/** Handing leadership over (Raft §3.10). Proposals and reads are refused meanwhile; it is given up in time. */

import type { Core } from './core.ts';
import { dropLeaderReads } from './read-index.ts';
import type { MemberId } from './types.ts';

/**
 * Ignored by all but a leader, and for a target that could not lead or is about to stop voting. A new target replaces
 * the old one.
 */
export const startTransfer = (core: Core, target: MemberId): void => {
  const { leadership } = core;
  if (leadership === undefined || leadership.transfer?.target === target) return;
  if (target === core.id || !core.configuration.voters.includes(target)) return;
  leadership.transfer = { target, elapsedTicks: 0, asked: false };
  dropLeaderReads(core, leadership.reads, 'transferring');
  askTransferTarget(core);
};

/** As soon as the target has, on its disk, all that this leader has: it would lose the election otherwise. */
export const askTransferTarget = (core: Core): void => {
  const transfer = core.leadership?.transfer;
  if (transfer === undefined || transfer.asked) return;
  if (core.progressOf(transfer.target)?.match !== core.log.last) return;
  transfer.asked = true;
  core.send(transfer.target, { kind: 'timeout_now' });
};

/** After an election timeout the target is taken for dead, and this leader serves again. */
export const tickTransfer = (core: Core): void => {
  const { leadership } = core;
  if (leadership?.transfer === undefined) return;
  leadership.transfer.elapsedTicks += 1;
  if (leadership.transfer.elapsedTicks >= core.settings.electionTicks) leadership.transfer = undefined;
};
