/**
 * Reads of local programs: from the cache where that is as good as the servers' word, from the servers otherwise, and
 * from the cache where no server can be reached and what it has is fresh.
 */
import { TimedOutError } from '../client/index.ts';
import type { Client } from '../client/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import type { Future } from '../protocol/index.ts';
import { until } from './bell.ts';
import type { Cache } from './cache.ts';
import type { Follower } from './follower.ts';
import { after } from './timeouts.ts';
import type { Uplink } from './uplink.ts';

/** `fromCache`: no server was asked. */
export interface Got {
  readonly future: Future | undefined;
  readonly fromCache: boolean;
}

export interface Awaited {
  readonly alternative: number;
  readonly futures: readonly Future[];
  readonly fromCache: boolean;
}

interface RejectedAlternative {
  readonly index: number;
  readonly key: string;
  readonly generation: number;
  readonly code: string;
  readonly message: string;
  readonly producer: string;
}

/** Alternatives whose await would end at once. */
export interface Available {
  readonly available: readonly number[];
  readonly rejected: readonly RejectedAlternative[];
}

interface Waiting {
  readonly signal: AbortSignal;
  /** Absent: for ever. */
  readonly timeoutMs?: number;
}

/** How long a first question about keys may take the servers, where the caller does not want to wait. */
const firstLookMs = 1_000;

type Standing =
  | { readonly kind: 'resolved' }
  | { readonly kind: 'rejected'; readonly rejection: Omit<RejectedAlternative, 'index'> }
  /** The servers do not allow the await: it ends at once, with that. */
  | { readonly kind: 'refused' }
  | { readonly kind: 'unsettled' }
  /** It is being asked for. */
  | { readonly kind: 'unknown' };

export class Reads {
  readonly #uplink: Uplink;
  readonly #cache: Cache;
  readonly #follower: Follower;

  constructor(uplink: Uplink, cache: Cache, follower: Follower) {
    this.#uplink = uplink;
    this.#cache = cache;
    this.#follower = follower;
  }

  async get(key: string, stale: boolean, waiting: Waiting): Promise<Got> {
    return this.#race(
      waiting,
      () => this.#cachedOffline(key),
      async (client, options) => {
        const future = await client.get(key, { ...options, stale });
        if (stale || this.#follower.isCurrent(key)) return { future, fromCache: false };
        if (future === undefined) this.#cache.forget(key);
        else this.#cache.learned(future);
        return { future, fromCache: false };
      },
    );
  }

  async await(
    alternatives: readonly (readonly string[])[],
    leastGeneration: number | undefined,
    waiting: Waiting,
  ): Promise<Awaited> {
    const cached = (): Awaited | undefined => this.#cachedAlternative(alternatives, leastGeneration ?? 0);
    return this.#race(waiting, cached, async (client, options) => {
      const least = leastGeneration === undefined ? {} : { leastGeneration };
      const awaited = await client.await({ anyOf: alternatives }, { ...options, ...least });
      for (const future of awaited.futures)
        if (!this.#follower.isCurrent(future.key)) this.#cache.learned(future);
      return { ...awaited, fromCache: false };
    });
  }

  /** Follows all of their keys. Empty after `timeoutMs`. */
  async available(alternatives: readonly (readonly string[])[], waiting: Waiting): Promise<Available> {
    this.#follower.follow(alternatives.flat());
    const { timeoutMs } = waiting;
    const startMs = performance.now();
    const look = (): Available | undefined => {
      const { found, unknown } = this.#look(alternatives);
      if (found.available.length > 0) return found;
      const over = timeoutMs !== undefined && performance.now() - startMs >= timeoutMs;
      return over && !unknown ? found : undefined;
    };
    const late = new AbortController();
    const inTime =
      timeoutMs === undefined ? undefined : after(Math.max(timeoutMs, firstLookMs), () => late.abort());
    const bells = [this.#cache.changed, this.#follower.changed, this.#uplink.changed];
    try {
      return await until(bells, look, AbortSignal.any([waiting.signal, late.signal]));
    } catch (error) {
      if (waiting.signal.aborted) throw error;
      return { available: [], rejected: [] };
    } finally {
      inTime?.();
    }
  }

  #look(alternatives: readonly (readonly string[])[]): { found: Available; unknown: boolean } {
    const available: number[] = [];
    const rejected: RejectedAlternative[] = [];
    let unknown = false;
    alternatives.forEach((keys, index) => {
      const standings = keys.map((key) => this.#standing(key));
      const rejection = standings.find((standing) => standing.kind === 'rejected');
      const ends =
        standings.some(({ kind }) => kind === 'rejected' || kind === 'refused') ||
        standings.every(({ kind }) => kind === 'resolved');
      if (ends) available.push(index);
      if (rejection !== undefined) rejected.push({ index, ...rejection.rejection });
      if (standings.some(({ kind }) => kind === 'unknown')) unknown = true;
    });
    return { found: { available, rejected }, unknown };
  }

  #standing(key: string): Standing {
    if (this.#uplink.connected === undefined) {
      return this.#cachedOffline(key) === undefined ? { kind: 'unsettled' } : { kind: 'resolved' };
    }
    if (this.#follower.refusal(key) !== undefined) return { kind: 'refused' };
    const awaitedRejection = this.#follower.rejection(key);
    if (awaitedRejection !== undefined) {
      const { rejection, generation, producer } = awaitedRejection;
      return { kind: 'rejected', rejection: { key, generation, ...rejection, producer } };
    }
    if (this.#follower.isUnderWay(key)) return { kind: 'unknown' };
    const future = this.#cache.fresh(key);
    if (future?.state === 'resolved') return { kind: 'resolved' };
    if (future?.state !== 'rejected') return { kind: 'unsettled' };
    const { generation, producer, rejection = { code: 'REJECTED', message: '' } } = future;
    return { kind: 'rejected', rejection: { key, generation, ...rejection, producer } };
  }

  /** A fresh value, where no server can be asked. A rejection is not: its producer may have tried again long since. */
  #cachedOffline(key: string): Got | undefined {
    if (this.#uplink.connected !== undefined) return undefined;
    const future = this.#cache.fresh(key);
    return future?.state === 'resolved' ? { future, fromCache: true } : undefined;
  }

  #cachedAlternative(
    alternatives: readonly (readonly string[])[],
    leastGeneration: number,
  ): Awaited | undefined {
    for (const [alternative, keys] of alternatives.entries()) {
      const futures: Future[] = [];
      for (const key of keys) {
        const usable = this.#uplink.connected === undefined || this.#follower.isCurrent(key);
        const future = usable ? this.#cache.fresh(key) : undefined;
        if (future?.state !== 'resolved' || future.generation < leastGeneration) break;
        futures.push(future);
      }
      if (futures.length === keys.length && keys.length > 0) return { alternative, futures, fromCache: true };
    }
    return undefined;
  }

  /** The servers' answer, or the cache's as soon as it may give one; whichever comes first ends the other. */
  async #race<T>(
    { signal, timeoutMs }: Waiting,
    cached: () => T | undefined,
    ask: (client: Client, options: { signal: AbortSignal; timeoutMs?: number }) => Promise<T>,
  ): Promise<T> {
    const now = cached();
    if (now !== undefined) return now;
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    const options = timeoutMs === undefined ? { signal: either } : { signal: either, timeoutMs };
    const bells = [this.#uplink.changed, this.#cache.changed];
    // Whoever comes second is aborted, which is no news to anybody.
    const fromCache = until(bells, cached, either);
    fromCache.catch(() => undefined);
    const asked = ask(this.#uplink.client, options);
    asked.catch(() => undefined);
    try {
      return await Promise.race([asked, fromCache]);
    } catch (error) {
      throw this.#explained(error);
    } finally {
      over.abort();
    }
  }

  /** Time that is over without any server says nothing of the future. */
  #explained(error: unknown): unknown {
    if (!(error instanceof TimedOutError) || this.#uplink.connected !== undefined) return error;
    return new FuturestoreError('UNAVAILABLE', error.message, { cause: error });
  }
}
