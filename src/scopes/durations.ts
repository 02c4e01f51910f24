const units: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60 * 1000,
  h: 3600 * 1000,
  d: 24 * 3600 * 1000,
};

/** The milliseconds in a whole number with ms, s, m, h or d ('500ms', '30d'), however many. undefined: it is none. */
export function millisecondsIn(text: string): number | undefined {
  const parts = /^([0-9]{1,15}) ?(ms|s|m|h|d)$/.exec(text);
  if (parts === null) return undefined;
  const milliseconds = Number(parts[1]) * (units[parts[2] ?? ''] ?? Number.NaN);
  return Number.isSafeInteger(milliseconds) ? milliseconds : undefined;
}
