import type { Wait } from './wait.ts';

/** A map that grows past 2^20 entries stops the loop for a third of a second; 64 of them can hold millions. */
const shardCount = 64;

/** FNV-1a over the whole key: keys of one fleet often differ only in the middle. */
const shardOf = (key: string): number => {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  return (hash >>> 0) % shardCount;
};

/** Key → those who wait for it. A lone waiter, which is the usual case, is kept without a set around it. */
export class WaitRouter {
  readonly #shards: readonly Map<string, Wait | Set<Wait>>[] = Array.from(
    { length: shardCount },
    () => new Map(),
  );
  #keys = 0;

  /** Different keys that are waited for. */
  get keys(): number {
    return this.#keys;
  }

  add(key: string, wait: Wait): void {
    const shard = this.#shard(key);
    const present = shard.get(key);
    if (present === undefined) {
      shard.set(key, wait);
      this.#keys += 1;
    } else if (present instanceof Set) present.add(wait);
    else if (present !== wait) shard.set(key, new Set([present, wait]));
  }

  /** Nothing happens where it is not known: a wait may name a key several times. */
  remove(key: string, wait: Wait): void {
    const shard = this.#shard(key);
    const present = shard.get(key);
    if (present instanceof Set) {
      present.delete(wait);
      if (present.size > 0) return;
    } else if (present !== wait) return;
    shard.delete(key);
    this.#keys -= 1;
  }

  waiting(key: string): Wait | Set<Wait> | undefined {
    return this.#keys === 0 ? undefined : this.#shard(key).get(key);
  }

  #shard(key: string): Map<string, Wait | Set<Wait>> {
    const shard = this.#shards[shardOf(key)];
    if (shard === undefined) throw new RangeError(`no shard for the key ${key}`);
    return shard;
  }
}
