/**
 * What the relay has on disk: one LevelDB, written in batches. A write that was confirmed survives the process and the
 * machine. Values are JSON, each under a name whose first part says what it is.
 */
import { mkdir } from 'node:fs/promises';
import { Level } from 'level';
import { FuturestoreError } from '../protocol/index.ts';

type Database = Level;

const codeOf = (error: unknown): unknown =>
  error instanceof Error && 'code' in error ? error.code : undefined;

const openError = (directory: string, error: unknown): FuturestoreError => {
  const cause = error instanceof Error ? error.cause : undefined;
  const code = codeOf(cause) ?? codeOf(error);
  const why = cause instanceof Error ? cause.message : String(error);
  if (code === 'LEVEL_LOCKED') {
    const text = `The relay's directory ${directory} is in use by another process. Stop that one, or name another with --state.`;
    return new FuturestoreError('DATA_IN_USE', text, { cause: error });
  }
  if (code === 'LEVEL_IO_ERROR') {
    const text = `The relay's directory ${directory} cannot be opened: ${why}. Look at the disk and at the directory's owner, then start it again.`;
    return new FuturestoreError('UNAVAILABLE', text, { cause: error });
  }
  return damagedState(directory, why, error);
};

const damagedState = (directory: string, what: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'DATA_DAMAGED',
    `The relay's directory ${directory} is damaged: ${what}. Move it away: queued writes in it are lost, the cache is not needed.`,
    { cause },
  );

interface Waiter {
  resolve(): void;
  reject(error: unknown): void;
}

export class StateDirectory {
  readonly directory: string;
  readonly #database: Database;
  /** Told when a write has failed: what is on disk is not known any more. */
  readonly #onFatal: (error: unknown) => void;
  #changes = new Map<string, string | undefined>();
  #waiters: Waiter[] = [];
  #writing: Promise<void> | undefined;

  private constructor(directory: string, database: Database, onFatal: (error: unknown) => void) {
    this.directory = directory;
    this.#database = database;
    this.#onFatal = onFatal;
  }

  /** Makes it, with mode 0700, if it is not there. DATA_IN_USE, DATA_DAMAGED, CONFIGURATION_INVALID. */
  static async open(directory: string, onFatal: (error: unknown) => void): Promise<StateDirectory> {
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const text = `The relay's directory ${directory} cannot be made (${why}). Name another with --state.`;
      throw new FuturestoreError('CONFIGURATION_INVALID', text, { cause: error });
    }
    const database = new Level(directory);
    try {
      await database.open();
    } catch (error) {
      await database.close();
      throw openError(directory, error);
    }
    return new StateDirectory(directory, database, onFatal);
  }

  /** One value; undefined: there is none. */
  async read(name: string): Promise<unknown> {
    const text = await this.#database.get(name);
    return text === undefined ? undefined : this.#parsed(name, text);
  }

  /** All whose names begin so, in the order of their names; without that beginning. */
  async *readAll(prefix: string): AsyncGenerator<readonly [name: string, value: unknown], void, undefined> {
    for await (const [name, text] of this.#database.iterator({ gte: prefix, lt: `${prefix}\uffff` })) {
      yield [name.slice(prefix.length), this.#parsed(name, text)];
    }
  }

  /** Rides with the next batch, which begins when the present turn is over. */
  put(name: string, value: unknown): void {
    this.#changes.set(name, JSON.stringify(value));
    this.#begin();
  }

  remove(name: string): void {
    this.#changes.set(name, undefined);
    this.#begin();
  }

  /** All changes so far are on disk, synced. Never rejects for long: a failed write ends the process. */
  synced(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#begin();
    });
  }

  damaged(what: string, cause?: unknown): FuturestoreError {
    return damagedState(this.directory, what, cause);
  }

  /** Writes what is left. */
  async close(): Promise<void> {
    if (this.#changes.size > 0) this.#begin();
    while (this.#writing !== undefined) await this.#writing;
    await this.#database.close();
  }

  #parsed(name: string, text: string): unknown {
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw this.damaged(`the record ${name.slice(0, 2)}… is no JSON`, error);
    }
  }

  #begin(): void {
    this.#writing ??= this.#write();
  }

  async #write(): Promise<void> {
    // What is put in the same turn shares the batch.
    await Promise.resolve();
    while (this.#changes.size > 0 || this.#waiters.length > 0) {
      const changes = this.#changes;
      const waiters = this.#waiters;
      this.#changes = new Map();
      this.#waiters = [];
      try {
        const batch = this.#database.batch();
        for (const [name, text] of changes) {
          if (text === undefined) batch.del(name);
          else batch.put(name, text);
        }
        await batch.write({ sync: waiters.length > 0 });
      } catch (error) {
        for (const waiter of waiters) waiter.reject(error);
        this.#onFatal(error);
        break;
      }
      for (const waiter of waiters) waiter.resolve();
    }
    this.#writing = undefined;
  }
}
