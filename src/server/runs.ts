/**
 * A run is one life of a server's process, as a number that grows from start to start of the same disk. Beside the
 * count of starts it holds some chance, so that two processes that began from copies of one disk are told apart.
 */
import type { Environment } from './environment.ts';

/** Two copies take each other for the same run in one of a million cases. */
const chances = 2 ** 20;

/** `starts`: how often the disk has been opened, this time included. */
export const makeRun = (starts: number, environment: Environment): number =>
  starts * chances + Math.floor(environment.random() * chances);

const startsOf = (run: number): number => Math.floor(run / chances);

interface Presence {
  readonly run: number;
  readonly diskId: Uint8Array;
}

/** Why a member that comes as `now` is not the one that the cluster knows; undefined: it may be. */
export const refusalOf = (member: number, known: Presence | undefined, now: Presence): string | undefined => {
  if (known === undefined) return undefined;
  const advice = 'it must not vote until it has been replaced';
  if (!Buffer.from(known.diskId).equals(now.diskId)) {
    return `member ${member} has come back with another data directory than the cluster knows: ${advice}`;
  }
  const [starts, knownStarts] = [startsOf(now.run), startsOf(known.run)];
  if (starts > knownStarts || now.run === known.run) return undefined;
  return `member ${member} has come back with an older copy of its data (start ${starts}, the cluster has seen start ${knownStarts}): ${advice}`;
};
