/** The payload of a configuration entry: the whole configuration as JSON text, so that a log can be read by eye. */

import { violated } from './assert.ts';
import { checkConfiguration } from './configuration.ts';
import { asMemberId } from './types.ts';
import type { Configuration, MemberId } from './types.ts';

const lists = ['voters', 'votersOutgoing', 'learners', 'learnersNext'] as const;
const fieldCount = lists.length + 1;
const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The same bytes for the same configuration. */
export const encodeConfiguration = (configuration: Configuration): Uint8Array => {
  checkConfiguration(configuration);
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = configuration;
  return new TextEncoder().encode(
    JSON.stringify({ voters, votersOutgoing, learners, learnersNext, autoLeave }),
  );
};

const parse = (payload: Uint8Array): unknown => {
  try {
    return JSON.parse(strictText.decode(payload));
  } catch {
    return undefined;
  }
};

const membersFrom = (value: unknown): readonly MemberId[] | undefined => {
  if (!Array.isArray(value)) return undefined;
  const ids: MemberId[] = [];
  for (const id of value as readonly unknown[]) {
    if (typeof id !== 'number' || !Number.isSafeInteger(id) || id < 1) return undefined;
    ids.push(asMemberId(id));
  }
  return ids;
};

/** Throws an InvariantViolation for anything that `encodeConfiguration` did not make. */
export const decodeConfiguration = (payload: Uint8Array): Configuration => {
  const value = parse(payload);
  const broken = (): never =>
    violated(
      `the ${payload.byteLength} bytes of a configuration entry are no configuration: ` +
        'was it written by another version, or damaged?',
    );
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== fieldCount)
    return broken();
  const fields = new Map<string, unknown>(Object.entries(value));
  const [voters, votersOutgoing, learners, learnersNext] = lists.map((name) => membersFrom(fields.get(name)));
  const autoLeave = fields.get('autoLeave');
  if (voters === undefined || votersOutgoing === undefined) return broken();
  if (learners === undefined || learnersNext === undefined || typeof autoLeave !== 'boolean') return broken();
  const configuration = { voters, votersOutgoing, learners, learnersNext, autoLeave };
  checkConfiguration(configuration);
  return configuration;
};
