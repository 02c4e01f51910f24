/** Very many futures, put there as quickly as the store takes them. */
import type { Client } from '../../src/client/index.ts';
import { value } from './operations.ts';

const perBatch = 250;
const lanes = 8;

export interface FillOptions {
  /** The number of the first one. */
  readonly from?: number;
  /** How long a value stays fresh, asked when it is sent; absent: always. */
  readonly ttlMs?: () => number;
  /** Values that are there are replaced. */
  readonly supersede?: boolean;
}

/** `fill/<number>`, up to `futures`. */
export const fill = async (
  client: Client,
  futures: number,
  { from = 0, ttlMs, supersede = false }: FillOptions = {},
): Promise<void> => {
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      for (let first = from + lane * perBatch; first < futures; first += lanes * perBatch) {
        await client.batch((batch) => {
          const options = { supersede, ...(ttlMs !== undefined && { ttlMs: ttlMs() }) };
          for (let number = first; number < Math.min(futures, first + perBatch); number += 1)
            batch.resolve(`fill/${number}`, value, options);
        });
      }
    }),
  );
};
