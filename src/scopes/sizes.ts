const units: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** The bytes in a human size: a whole number with B, KiB, MiB or GiB ('64KiB'). undefined: it is none. */
export function parseSize(text: string): number | undefined {
  const parts = /^([0-9]{1,15}) ?(B|KiB|MiB|GiB)$/.exec(text);
  if (parts === null) return undefined;
  const bytes = Number(parts[1]) * (units[parts[2] ?? ''] ?? Number.NaN);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
