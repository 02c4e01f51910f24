/** What is on disk is what the cache has: else it would grow without bound, and come back with the next process. */
import { beforeEach, expect, test } from 'vitest';
import type { Future } from '../../src/protocol/index.ts';
import { Cache } from '../../src/relay/cache.ts';
import type { ClusterClock } from '../../src/relay/clock.ts';
import type { StateDirectory } from '../../src/relay/state-directory.ts';

const future = (key: string, revision: number, bytes: number): Future => ({
  key,
  generation: 1,
  state: 'resolved',
  revision,
  value: new Uint8Array(bytes),
  contentType: '',
  sensitive: false,
  producer: 'puppet:a',
  changedAtMs: 0,
});

let onDisk: Set<string>;
let cache: Cache;

beforeEach(() => {
  onDisk = new Set();
  const state = {
    put: (name: string) => void onDisk.add(name),
    remove: (name: string) => void onDisk.delete(name),
  };
  const clock = { isFresh: () => true };
  cache = new Cache(state as unknown as StateDirectory, clock as unknown as ClusterClock, {
    cacheEntriesMax: 2,
    cacheBytesMax: 10_000,
  });
  cache.learned(future('nodes/a', 1, 10));
  cache.learned(future('nodes/b', 2, 10));
});

test('a value greater than the whole cache is neither kept nor written, and moves nothing else out', () => {
  cache.learned(future('nodes/c', 3, 10_000));
  expect(onDisk).toEqual(new Set(['cache/nodes/a', 'cache/nodes/b']));
  expect(cache.entries).toBe(2);
});

test('the value before is not kept when the next one is greater than the whole cache', () => {
  cache.learned(future('nodes/a', 3, 10_000));
  expect(onDisk).toEqual(new Set(['cache/nodes/b']));
  expect(cache.fresh('nodes/a')).toBeUndefined();
});

test('what makes room is no longer on disk', () => {
  cache.learned(future('nodes/c', 3, 10));
  expect(onDisk).toEqual(new Set(['cache/nodes/b', 'cache/nodes/c']));
});
