import { access, constants, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Level } from 'level';
import { FuturestoreError } from '../protocol/index.ts';
import { damaged } from './damage.ts';
import type { Cursor, Engine, EngineBatch, Row, View } from './engine.ts';
import type { KeyRange } from './keyspaces.ts';
import { checkLevelFiles } from './level-files.ts';
import { SyncedMark } from './synced-mark.ts';

type Database = Level<string, Buffer>;
type Snapshot = ReturnType<Database['snapshot']>;

/**
 * Compaction merges tables in another thread, and less often where the tables that it begins with are larger: with 32 MiB
 * a settle takes 114 µs of the servers' processor, with 16 MiB 130, with 64 MiB, of which more would be resident, 112 (100
 * connections with 10 outstanding each, medians up to a million futures). Up to two of them are in memory.
 */
const writeBufferBytes = 32 * 1024 * 1024;
/** Rows are read once, in order, so a cache of blocks is of little use. */
const cacheBytes = 2 * 1024 * 1024;
/** What one trip to the other thread brings back: enough to pay for the trip, little enough to hold. */
const cursorRows = 2000;
const cursorBytes = 256 * 1024;
/**
 * The least that LevelDB takes: 64 tables of 2 MiB and some others. It maps each open table into memory, where all that
 * was ever read of it counts as the process's: half a gigabyte beside a million futures, though each row is read once.
 */
const filesOpenMax = 74;

const durable = { sync: true } as const;
const buffered = { sync: false } as const;

class LevelBatch implements EngineBatch {
  readonly #batch: ReturnType<Database['batch']>;

  constructor(batch: ReturnType<Database['batch']>) {
    this.#batch = batch;
  }

  put(key: string, value: Buffer): void {
    this.#batch.put(key, value);
  }

  remove(key: string): void {
    this.#batch.del(key);
  }

  write(sync: boolean): Promise<void> {
    return this.#batch.write(sync ? durable : buffered);
  }
}

class LevelCursor implements Cursor {
  readonly #rows: { nextv(size: number): Promise<Row[]>; close(): Promise<void> };
  /** LevelDB's thread reads them while the caller is at the ones before. */
  #ahead: Promise<Row[]> | undefined;

  constructor(database: Database, { from, below }: KeyRange, snapshot?: Snapshot) {
    const options = { gte: from, lt: below, highWaterMarkBytes: cursorBytes, fillCache: false };
    this.#rows = database.iterator<string, Buffer>(
      snapshot === undefined ? options : { ...options, snapshot },
    );
  }

  async next(): Promise<readonly Row[]> {
    const rows = await (this.#ahead ?? this.#rows.nextv(cursorRows));
    this.#ahead = undefined;
    if (rows.length > 0) {
      this.#ahead = this.#rows.nextv(cursorRows);
      // Whoever asks for them is told; nobody may.
      this.#ahead.catch(() => undefined);
    }
    return rows;
  }

  close(): Promise<void> {
    return this.#rows.close();
  }
}

class LevelView implements View {
  readonly #database: Database;
  readonly #snapshot: Snapshot;

  constructor(database: Database) {
    this.#database = database;
    this.#snapshot = database.snapshot();
  }

  cursor(range: KeyRange): Cursor {
    return new LevelCursor(this.#database, range, this.#snapshot);
  }

  close(): Promise<void> {
    return this.#snapshot.close();
  }
}

const codeOf = (error: unknown): unknown =>
  error instanceof Error && 'code' in error ? error.code : undefined;

const isLocked = (error: unknown): boolean =>
  codeOf(error) === 'LEVEL_LOCKED' || (error instanceof Error && codeOf(error.cause) === 'LEVEL_LOCKED');

const inUse = (directory: string, cause: unknown): FuturestoreError =>
  new FuturestoreError(
    'DATA_IN_USE',
    `The data directory ${directory} is in use by another process. Stop that one, or give this server its own.`,
    { cause },
  );

/**
 * LevelDB tells damage (LEVEL_CORRUPTION) from a disk that is full or fails. What its manifest names was just checked;
 * a full disk must not make an operator throw away good data.
 */
const notOpened = (directory: string, error: unknown): FuturestoreError => {
  const cause = error instanceof Error ? error.cause : undefined;
  if (!(cause instanceof Error) || codeOf(cause) !== 'LEVEL_IO_ERROR')
    return damaged(directory, 'LevelDB cannot open it', error);
  return new FuturestoreError(
    'UNAVAILABLE',
    `The data in ${directory} cannot be opened: ${cause.message}. ` +
      'Nothing says that it is damaged: look at the disk (space, health), then start this server again.',
    { cause: error },
  );
};

/** As mkdir's own `recursive`, which never ends below a folder that can hold none (/proc). */
const makeDirectory = async (directory: string, parentsToo = true): Promise<void> => {
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return;
    if (codeOf(error) !== 'ENOENT' || !parentsToo || dirname(directory) === directory) throw error;
    await makeDirectory(dirname(directory));
    await makeDirectory(directory, false);
  }
};

const prepareDirectory = async (directory: string): Promise<void> => {
  try {
    await makeDirectory(directory);
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new FuturestoreError(
      'CONFIGURATION_INVALID',
      `The data directory ${directory} cannot be made or written to (${error instanceof Error ? error.message : String(error)}). ` +
        "Choose another one, or change its owner to this server's user.",
      { cause: error },
    );
  }
};

/**
 * Opened so, LevelDB takes its lock, sees that the database exists, and gives up without changing anything: the only
 * way to learn whether another process has it. LevelDB opens a damaged database and goes on to rewrite it.
 */
const throwIfLocked = async (directory: string): Promise<void> => {
  const probe = new Level<string, Buffer>(directory, { errorIfExists: true, createIfMissing: false });
  try {
    await probe.open();
  } catch (error) {
    if (isLocked(error)) throw inUse(directory, error);
  } finally {
    await probe.close();
  }
};

export class LevelEngine implements Engine {
  readonly where: string;
  readonly #database: Database;
  readonly #mark: SyncedMark;

  private constructor(directory: string, database: Database, mark: SyncedMark) {
    this.where = directory;
    this.#database = database;
    this.#mark = mark;
  }

  /**
   * Throws DATA_IN_USE, DATA_DAMAGED, CONFIGURATION_INVALID for a directory that cannot be made or written, UNAVAILABLE
   * for a disk that is full or fails.
   */
  static async open(directory: string): Promise<LevelEngine> {
    await prepareDirectory(directory);
    let mark: SyncedMark;
    try {
      mark = new SyncedMark(directory);
      await checkLevelFiles(directory, mark.found !== undefined);
    } catch (error) {
      // The files of a running server change while they are read: that is no damage.
      await throwIfLocked(directory);
      throw error;
    }
    // Uncompressed: the values are small or the agents' own and often encrypted, and the processor is the scarcer
    // thing here than the disk.
    const database: Database = new Level<string, Buffer>(directory, {
      keyEncoding: 'utf8',
      valueEncoding: 'buffer',
      compression: false,
      writeBufferSize: writeBufferBytes,
      cacheSize: cacheBytes,
      maxOpenFiles: filesOpenMax,
    });
    try {
      await database.open();
    } catch (error) {
      if (isLocked(error)) throw inUse(directory, error);
      throw notOpened(directory, error);
    }
    return new LevelEngine(directory, database, mark);
  }

  get syncedMark(): number | undefined {
    return this.#mark.found;
  }

  batch(): EngineBatch {
    return new LevelBatch(this.#database.batch());
  }

  cursor(range: KeyRange): Cursor {
    return new LevelCursor(this.#database, range);
  }

  async lastKey({ from, below }: KeyRange): Promise<string | undefined> {
    const [key] = await this.#database.keys({ gte: from, lt: below, reverse: true, limit: 1 }).all();
    return key;
  }

  view(): View {
    return new LevelView(this.#database);
  }

  clear({ from, below }: KeyRange): Promise<void> {
    return this.#database.clear({ gte: from, lt: below });
  }

  markSynced(batchNumber: number): void {
    this.#mark.write(batchNumber);
  }

  async close(): Promise<void> {
    await this.#database.close();
    await this.#mark.close();
  }
}
