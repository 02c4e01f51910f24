/** A key that may be awaited but not subscribed: what is known of it is what the servers said last. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Client } from '../../src/client/index.ts';
import { FutureRejectedError } from '../../src/client/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import type { Future } from '../../src/protocol/index.ts';
import { Bell } from '../../src/relay/bell.ts';
import type { Cache } from '../../src/relay/cache.ts';
import { Follower } from '../../src/relay/follower.ts';
import type { Uplink } from '../../src/relay/uplink.ts';

/** As long as the follower waits between two awaits. */
const retryMs = 5_000;
const key = 'nodes/a/out/x';
const resolved: Future = {
  key,
  generation: 2,
  state: 'resolved',
  revision: 7,
  value: new Uint8Array([1]),
  contentType: '',
  sensitive: false,
  producer: 'puppet:a',
  changedAtMs: 0,
};

const ignore = (): void => undefined;
const logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };
const bounds = { followedKeysMax: 10, followedGroupsMax: 10 };

let follower: Follower;
let answers: Answer[];

interface Answer {
  readonly resolve: (future: Future) => void;
  readonly reject: (error: Error) => void;
}

/** Of the await that is under way. */
const present = (): Answer => {
  const last = answers.at(-1);
  if (last === undefined) throw new Error('the follower awaits nothing');
  return last;
};

const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

beforeEach(async () => {
  vi.useFakeTimers();
  answers = [];
  const client = {
    subscribe: () => {
      throw new FuturestoreError('PERMISSION_DENIED', 'subscribe is not allowed');
    },
    await: () => new Promise<Future>((resolve, reject) => answers.push({ resolve, reject })),
    clock: () => Promise.resolve(0),
  };
  const uplink = { client: client as unknown as Client, connected: {}, changed: new Bell() };
  const cache = { learned: ignore, forget: ignore };
  follower = new Follower(uplink as unknown as Uplink, cache as unknown as Cache, logger, bounds);
  follower.follow([key]);
  await settle();
  present().reject(new FutureRejectedError(key, { code: 'FAILED', message: '' }, 1));
  await settle();
});

afterEach(() => {
  follower.stop();
  vi.useRealTimers();
});

test('is rejected once an await has ended so', () => {
  expect(follower.rejection(key)?.generation).toBe(1);
});

test('is rejected no more when the next await has given its value', async () => {
  await vi.advanceTimersByTimeAsync(retryMs);
  present().resolve(resolved);
  await settle();
  expect(answers).toHaveLength(2);
  expect(follower.rejection(key)).toBeUndefined();
});

test('is rejected no more when the next await finds it declared again', async () => {
  await vi.advanceTimersByTimeAsync(retryMs);
  expect(answers).toHaveLength(2);
  expect(follower.isUnderWay(key)).toBe(false);
  expect(follower.rejection(key)).toBeUndefined();
});
