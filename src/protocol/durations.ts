import assert from 'node:assert/strict';
import { millisecondsIn } from '../scopes/index.ts';
import { limits } from './futures.ts';

/** Largest first, for formatting. */
const units = [
  ['d', 24 * 3600 * 1000],
  ['h', 3600 * 1000],
  ['m', 60 * 1000],
  ['s', 1000],
  ['ms', 1],
] as const;

/**
 * The milliseconds in a human duration: a whole number with ms, s, m, h or d ('500ms', '30s', '5m', '24h', '7d').
 * undefined: it is none, or longer than `limits.durationMsMax`.
 */
export function parseDuration(text: string): number | undefined {
  const milliseconds = millisecondsIn(text);
  return milliseconds !== undefined && milliseconds <= limits.durationMsMax ? milliseconds : undefined;
}

/** The shortest text that `parseDuration` reads back as exactly this many milliseconds. */
export function formatDuration(milliseconds: number): string {
  assert(
    Number.isSafeInteger(milliseconds) && milliseconds >= 0,
    `A duration of ${milliseconds} ms cannot be written`,
  );
  for (const [name, size] of units) {
    if (milliseconds >= size && milliseconds % size === 0) return `${milliseconds / size}${name}`;
  }
  return '0ms';
}
