/**
 * What the storage needs of an ordered map of keys to bytes: LevelDB is one, the in-memory disk the other. Everything
 * that gives a record its meaning or its checksum is above this interface, so both have it.
 */
import type { KeyRange } from './keyspaces.ts';

export type Row = readonly [key: string, value: Buffer];

/** Written at once or not at all. Later operations on a key win. */
export interface EngineBatch {
  put(key: string, value: Buffer): void;
  remove(key: string): void;
  /** `sync`: this batch, and all written before it, are on disk when the promise resolves. */
  write(sync: boolean): Promise<void>;
}

/** Rows of a range in key order. */
export interface Cursor {
  /** As many as are convenient, at least one; none at the end. */
  next(): Promise<readonly Row[]>;
  close(): Promise<void>;
}

/** The map as it was at one moment. */
export interface View {
  cursor(range: KeyRange): Cursor;
  close(): Promise<void>;
}

export interface Engine {
  /** For messages: the directory. */
  readonly where: string;
  batch(): EngineBatch;
  cursor(range: KeyRange): Cursor;
  lastKey(range: KeyRange): Promise<string | undefined>;
  /** As of the last completed batch, if none is being written. */
  view(): View;
  /** Removes a range, in as many batches as it likes. */
  clear(range: KeyRange): Promise<void>;
  /** The number given to `markSynced` last, kept apart from the map; undefined: never called. */
  readonly syncedMark: number | undefined;
  /** Remembers, without a sync of its own, that the batch of this number is on disk. */
  markSynced(batchNumber: number): void;
  close(): Promise<void>;
}

/** All rows of a small range. */
export const allRows = async (
  source: { cursor(range: KeyRange): Cursor },
  range: KeyRange,
): Promise<Row[]> => {
  const cursor = source.cursor(range);
  const rows: Row[] = [];
  try {
    for (;;) {
      const some = await cursor.next();
      if (some.length === 0) return rows;
      for (const row of some) rows.push(row);
    }
  } finally {
    await cursor.close();
  }
};
