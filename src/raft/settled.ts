/**
 * Whether those who left are needed no more. The leader knows by its seal (see membership.ts), and tells with its
 * heartbeats up to where: that the configuration at an index is committed on the disks of a quorum stays true whoever
 * leads, and where one is settled, all before it are. So a follower that was sent a snapshot, or has shortened its log,
 * learns it too.
 */
import { isJoint } from './configuration.ts';
import type { Core } from './core.ts';

export const isChangeSettled = (core: Core): boolean => {
  const { leadership, configuration, log, settledTo } = core;
  if (isJoint(configuration)) return false;
  if (leadership !== undefined) return leadership.seal !== undefined && leadership.seal <= log.commit;
  // What the log does not have any more may have come after that.
  return settledTo >= log.baseIndex && log.configurationsBetween(settledTo, log.applied).length === 0;
};
