/**
 * Where things are in the one ordered map of keys to bytes. All keys are ASCII; numbers in them have a fixed width,
 * so that their order is the order of the numbers.
 *
 *   batch/<lane>/<number>      the last batch of each lane (see batch-chain.ts)
 *   hard_state                 raft's
 *   log/<index>                log entries
 *   meta/…                     identity, run, lineage, outdated, generation, applied, log_base
 *   meta/peer/<key>            what is remembered of peers
 *   state/<generation>/<key>   the state machine's records
 */
const numberDigits = 16;
const generationDigits = 8;

/** A half-open range of keys. */
export interface KeyRange {
  readonly from: string;
  readonly below: string;
}

const digits = (value: number, width: number): string => value.toString().padStart(width, '0');

/** '0' is the character after '/'. */
const under = (prefix: string): KeyRange => ({ from: `${prefix}/`, below: `${prefix}0` });

export const keys = {
  hardState: 'hard_state',
  identity: 'meta/identity',
  run: 'meta/run',
  lineage: 'meta/lineage',
  outdated: 'meta/outdated',
  generation: 'meta/generation',
  applied: 'meta/applied',
  logBase: 'meta/log_base',
} as const;

export const logRange = under('log');
export const metaRange = under('meta');
/** Part of the meta range: a version that does not know them reads past them. */
export const peerPrefix = 'meta/peer/';
export const stateRange = under('state');
export const batchRange = (lane: string): KeyRange => under(`batch/${lane}`);
/** Everything there is. */
export const wholeRange: KeyRange = { from: '', below: '\x7f' };

export const logKey = (index: number): string => `log/${digits(index, numberDigits)}`;
export const batchKey = (lane: string, number: number): string =>
  `batch/${lane}/${digits(number, numberDigits)}`;
export const statePrefix = (generation: number): string => `state/${digits(generation, generationDigits)}/`;
export const generationRange = (generation: number): KeyRange =>
  under(`state/${digits(generation, generationDigits)}`);

/** The number at the end of a log or batch key; undefined if the key is not one. */
export const trailingNumber = (key: string): number | undefined => {
  const text = key.slice(-numberDigits);
  return /^\d{16}$/.test(text) ? Number(text) : undefined;
};

/** The generation that a state key belongs to. */
export const generationOf = (key: string): number | undefined => {
  const match = /^state\/(\d{8})\//.exec(key);
  return match === null ? undefined : Number(match[1]);
};
