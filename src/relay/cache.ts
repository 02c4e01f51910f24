/**
 * The values that were seen, for who asks again. Each key's latest one, bounded by number and bytes: what was used
 * longest ago goes first. On disk are only resolved values that are not sensitive; the others are in memory only.
 *
 * It gives nothing whose freshness is not certain. Whether what it gives may also have been replaced meanwhile is for
 * the caller to know: the follower says for which keys it is up to date.
 */
import type { Future } from '../protocol/index.ts';
import { Bell } from './bell.ts';
import type { ClusterClock } from './clock.ts';
import { futureFromRecord, futureToRecord } from './future-record.ts';
import type { StateDirectory } from './state-directory.ts';

const prefix = 'cache/';

/** Of an entry beside its strings and value: objects and map slot, roughly. */
const overheadBytes = 512;

const bytesOf = (future: Future): number =>
  overheadBytes +
  2 * future.key.length +
  (future.value?.length ?? 0) +
  2 * (future.rejection?.message.length ?? 0);

export class Cache {
  readonly #state: StateDirectory;
  readonly #clock: ClusterClock;
  readonly #entriesMax: number;
  readonly #bytesMax: number;
  /** In the order of their last use. */
  readonly #entries = new Map<string, Future>();
  #bytes = 0;
  #revision = 0;
  readonly changed = new Bell();

  constructor(
    state: StateDirectory,
    clock: ClusterClock,
    limits: { readonly cacheEntriesMax: number; readonly cacheBytesMax: number },
  ) {
    this.#state = state;
    this.#clock = clock;
    this.#entriesMax = limits.cacheEntriesMax;
    this.#bytesMax = limits.cacheBytesMax;
  }

  get entries(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The greatest that any server has named here. */
  get revision(): number {
    return this.#revision;
  }

  async load(): Promise<void> {
    for await (const [key, record] of this.#state.readAll(prefix)) {
      const future = futureFromRecord(record);
      if (future?.key !== key) throw this.#state.damaged('a cached value is not what was written');
      this.#keep(future);
    }
  }

  /** The key's settled future, if it is certainly fresh. */
  fresh(key: string): Future | undefined {
    const future = this.#entries.get(key);
    if (future === undefined || !this.#clock.isFresh(future.expiresAtMs)) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, future);
    return future;
  }

  /** A server has said so. What is older than what is known is no news. */
  learned(future: Future): void {
    this.#revision = Math.max(this.#revision, future.revision);
    const before = this.#entries.get(future.key);
    if (before !== undefined && before.revision > future.revision) return;
    if (future.state === 'pending' || future.state === 'expired') {
      this.forget(future.key);
      return;
    }
    // The same again: a listing without values must not take the value away either.
    if (before?.revision === future.revision && future.value === undefined) return;
    const kept = this.#keep(future);
    if (kept && future.state === 'resolved' && !future.sensitive)
      this.#state.put(prefix + future.key, futureToRecord(future));
    else if (before !== undefined) this.#state.remove(prefix + future.key);
    this.changed.ring();
  }

  forget(key: string): void {
    if (!this.#drop(key)) return;
    this.#state.remove(prefix + key);
    this.changed.ring();
  }

  /** Of another cluster, or for another principal: nothing of it may be used. */
  clear(): void {
    this.#revision = 0;
    // Copied: who is told may look at others, which changes the order.
    const keys = Array.from(this.#entries.keys());
    for (const key of keys) this.forget(key);
  }

  /** Whether there is room for it at all: else what is kept stays, but for what was known of its key. */
  #keep(future: Future): boolean {
    this.#drop(future.key);
    if (this.#entriesMax === 0 || bytesOf(future) > this.#bytesMax) {
      this.#state.remove(prefix + future.key);
      return false;
    }
    this.#entries.set(future.key, future);
    this.#bytes += bytesOf(future);
    for (const key of this.#entries.keys()) {
      if (this.#entries.size <= this.#entriesMax && this.#bytes <= this.#bytesMax) break;
      this.#drop(key);
      this.#state.remove(prefix + key);
    }
    return true;
  }

  #drop(key: string): boolean {
    const future = this.#entries.get(key);
    if (future === undefined) return false;
    this.#entries.delete(key);
    this.#bytes -= bytesOf(future);
    return true;
  }
}
