/**
 * Follows keys by subscriptions, so that the cache has each change of them. Keys that were asked for together share a
 * subscription; the groups that were asked for longest ago make room for new ones.
 *
 * A key that may be awaited but not subscribed is awaited once instead: its value comes, later changes of it don't.
 */
import { FutureRejectedError } from '../client/index.ts';
import type { Subscription } from '../client/index.ts';
import { FuturestoreError, limits } from '../protocol/index.ts';
import { Bell } from './bell.ts';
import type { Cache } from './cache.ts';
import type { RelayLogger, Uplink } from './uplink.ts';

/** After a refusal that may pass. */
const retryMs = 5_000;

class Group {
  readonly keys: ReadonlySet<string>;
  subscription: Subscription | undefined;
  /** The present state of all keys has been handed out. */
  caughtUp = false;
  /** Only of a group of one key that must not be subscribed. */
  awaited: AbortController | undefined;
  /** Were it settled already, that await would have been answered by now. */
  looked = false;
  /** It was found rejected by that. */
  rejected: FutureRejectedError | undefined;
  /** Not even that is allowed; nothing is under way until it is asked for once more. */
  refused: { readonly why: FuturestoreError; readonly atMs: number } | undefined;
  over = false;

  constructor(keys: Iterable<string>) {
    this.keys = new Set(keys);
  }
}

export class Follower {
  readonly #uplink: Uplink;
  readonly #cache: Cache;
  readonly #logger: RelayLogger;
  readonly #keysMax: number;
  readonly #groupsMax: number;
  readonly #byKey = new Map<string, Group>();
  /** In the order of their last use. */
  readonly #groups = new Set<Group>();
  readonly changed = new Bell();

  constructor(
    uplink: Uplink,
    cache: Cache,
    logger: RelayLogger,
    bounds: { readonly followedKeysMax: number; readonly followedGroupsMax: number },
  ) {
    this.#uplink = uplink;
    this.#cache = cache;
    this.#logger = logger;
    this.#keysMax = bounds.followedKeysMax;
    this.#groupsMax = bounds.followedGroupsMax;
  }

  /** Keys that are followed. */
  get size(): number {
    return this.#byKey.size;
  }

  /** From now on; a key that is followed already stays so for longer, and one that was refused is tried once more. */
  follow(keys: readonly string[]): void {
    const fresh: string[] = [];
    for (const key of new Set(keys)) {
      const group = this.#byKey.get(key);
      if (group === undefined) fresh.push(key);
      else {
        this.#used(group);
        this.#retryRefused(group);
      }
    }
    const most = limits.patternsPerSubscriptionMax;
    for (let from = 0; from < fresh.length; from += most) this.#add(fresh.slice(from, from + most));
    this.#makeRoom();
  }

  /** The cache has the latest state of this key, as far as the server that serves us has it. */
  isCurrent(key: string): boolean {
    const group = this.#byKey.get(key);
    return group?.caughtUp === true && group.subscription?.isCurrent === true;
  }

  /** Whether more is to be heard of it soon, though nothing happens to it: it is asked for just now. */
  isUnderWay(key: string): boolean {
    const group = this.#byKey.get(key);
    if (group === undefined || this.#uplink.connected === undefined) return false;
    return group.awaited === undefined ? !this.isCurrent(key) : !group.looked;
  }

  /** Of a key that can only be awaited. */
  rejection(key: string): FutureRejectedError | undefined {
    return this.#byKey.get(key)?.rejected;
  }

  /** Why the servers do not let this key be awaited; undefined: nothing is known against it. */
  refusal(key: string): FuturestoreError | undefined {
    return this.#byKey.get(key)?.refused?.why;
  }

  stop(): void {
    for (const group of this.#groups) this.#end(group);
  }

  #used(group: Group): void {
    this.#groups.delete(group);
    this.#groups.add(group);
  }

  /** Policies may allow it by now, and then maybe a subscription, too. */
  #retryRefused(group: Group): void {
    if (group.refused === undefined || performance.now() - group.refused.atMs < retryMs) return;
    group.refused = undefined;
    group.awaited = undefined;
    void this.#run(group);
  }

  #add(keys: readonly string[]): void {
    const group = new Group(keys);
    this.#groups.add(group);
    for (const key of keys) this.#byKey.set(key, group);
    void this.#run(group);
  }

  #makeRoom(): void {
    for (const group of this.#groups) {
      if (this.#groups.size <= this.#groupsMax && this.#byKey.size <= this.#keysMax) return;
      this.#end(group);
    }
  }

  #end(group: Group): void {
    group.over = true;
    this.#groups.delete(group);
    for (const key of group.keys) if (this.#byKey.get(key) === group) this.#byKey.delete(key);
    group.awaited?.abort();
    void group.subscription?.return();
  }

  async #run(group: Group): Promise<void> {
    while (!group.over) {
      try {
        await this.#subscribe(group);
      } catch (error) {
        if (group.over) return;
        group.caughtUp = false;
        group.subscription = undefined;
        if (this.#denied(group, error)) return;
        this.#logger.debug({ err: error, keys: group.keys.size }, 'keys are not followed just now');
      }
      this.changed.ring();
      if (!group.over) await this.#pause();
    }
  }

  async #subscribe(group: Group): Promise<void> {
    const subscription = this.#uplink.client.subscribe([...group.keys]);
    group.subscription = subscription;
    const seen = new Set<string>();
    for await (const event of subscription) {
      switch (event.kind) {
        case 'future':
          seen.add(event.key);
          this.#cache.learned(event.future);
          break;
        case 'deleted':
          this.#cache.forget(event.key);
          break;
        case 'reset':
          seen.clear();
          group.caughtUp = false;
          break;
        case 'caught_up':
          for (const key of group.keys) if (!seen.has(key)) this.#cache.forget(key);
          group.caughtUp = true;
          break;
        default:
          event satisfies never;
      }
      this.changed.ring();
    }
  }

  /** Whether that is the end of this group: a refusal is of the whole subscription, whichever key it is for. */
  #denied(group: Group, error: unknown): boolean {
    if (!(error instanceof FuturestoreError) || error.code !== 'PERMISSION_DENIED') return false;
    if (group.keys.size > 1) {
      this.#end(group);
      for (const key of group.keys) this.#add([key]);
      this.#makeRoom();
    } else {
      const [key] = group.keys;
      if (key !== undefined) void this.#await(group, key);
    }
    this.changed.ring();
    return true;
  }

  async #await(group: Group, key: string): Promise<void> {
    while (!group.over) {
      group.awaited = new AbortController();
      const { signal } = group.awaited;
      // It may have been declared again since it was found rejected.
      group.looked = false;
      group.rejected = undefined;
      try {
        const awaited = this.#uplink.client.await(key, { signal });
        void this.#look(group, signal);
        this.#cache.learned(await awaited);
        break;
      } catch (error) {
        if (group.over) return;
        group.rejected = error instanceof FutureRejectedError ? error : undefined;
        if (error instanceof FuturestoreError && error.code === 'PERMISSION_DENIED') {
          group.refused = { why: error, atMs: performance.now() };
          group.looked = true;
          this.#cache.forget(key);
          break;
        }
        this.#logger.debug({ err: error }, 'a key is not awaited just now');
        this.changed.ring();
      }
      await this.#pause();
    }
    this.changed.ring();
  }

  /** Requests are answered in their order, as far as they can be answered at once. */
  async #look(group: Group, signal: AbortSignal): Promise<void> {
    try {
      await this.#uplink.client.clock({ signal });
    } catch (error) {
      this.#logger.debug({ err: error }, 'whether a key is settled is not known just now');
    }
    // Of an await before, it says nothing of the present one.
    if (group.awaited?.signal !== signal) return;
    group.looked = true;
    this.changed.ring();
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      setTimeout(resolve, retryMs).unref();
    });
  }
}
