/** Which configuration counts, or counted at an index: from the entries in the log and the one at its base. */

import { decodeConfiguration } from './configuration-codec.ts';
import type { Core } from './core.ts';
import type { Log } from './log.ts';
import { switchConfiguration } from './roles.ts';
import type { Configuration, LogIndex } from './types.ts';

/** The one that counts once `index` is applied; `base` is the one at the log's base. */
const configurationUpTo = (log: Log, base: Configuration, index: LogIndex): Configuration => {
  const entry = log.configurationsBetween(log.baseIndex, index).at(-1);
  return entry === undefined ? base : decodeConfiguration(entry.payload);
};

/**
 * The one as of what is applied. A server that waits to be added knows none then: it goes by the first one in its log,
 * committed or not, as all do in the paper (Raft §4.1). It may be needed for the very quorum that commits that entry,
 * and to win an election if its log is the longest.
 */
export const presentConfiguration = (log: Log, base: Configuration): Configuration => {
  const applied = configurationUpTo(log, base, log.applied);
  if (applied.voters.length > 0) return applied;
  const first = log.configurationsBetween(log.applied, log.last)[0];
  return first === undefined ? applied : decodeConfiguration(first.payload);
};

/** After a change of the log, which may also have lost what was gone by. */
export const adoptFirstConfiguration = (core: Core): void => {
  const { log, baseConfiguration } = core;
  if (baseConfiguration.voters.length > 0) return;
  if (log.configurationsBetween(log.baseIndex, log.applied).length > 0) return;
  switchConfiguration(core, presentConfiguration(log, baseConfiguration));
};

/** Throws a RangeError for an index that is compacted already or not applied yet. */
export const configurationAt = (core: Core, index: LogIndex): Configuration => {
  const { log, baseConfiguration } = core;
  if (index < log.baseIndex || index > log.applied) {
    throw new RangeError(
      `the configuration at index ${index} was asked for, it is known from ${log.baseIndex} to ${log.applied}: ` +
        'ask for the index of a state that this member has',
    );
  }
  return configurationUpTo(log, baseConfiguration, index);
};

export const compactTo = (core: Core, index: LogIndex): void => {
  const { log } = core;
  if (index <= log.baseIndex) return;
  const configuration = configurationUpTo(log, core.baseConfiguration, index);
  log.compact(index);
  core.baseConfiguration = configuration;
};
