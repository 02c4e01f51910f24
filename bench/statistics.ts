/** Medians, percentiles and spread of what was measured. */

/** `part`: 0.5 is the median, 0.99 the 99th percentile (the nearest rank). NaN of nothing. */
export const percentile = (values: Iterable<number>, part: number): number => {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
};

export const median = (values: readonly number[]): number => percentile(values, 0.5);

/** The difference of the greatest and the least, as a share of the median; 0 of one value. */
export const spread = (values: readonly number[]): number => {
  const between = Math.max(...values) - Math.min(...values);
  return values.length < 2 || between === 0 ? 0 : between / Math.abs(median(values));
};
