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

export const startsOf = (run: number): number => Math.floor(run / chances);
