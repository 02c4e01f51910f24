/** A key that may be awaited but not subscribed: what is known of it is what the servers said last. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
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

/** The servers' answer to a look: until it comes, the await may still be answered. */
let clock: () => Promise<number>;
let mayBeSubscribed: boolean;
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

const denied = new FuturestoreError('PERMISSION_DENIED', 'this is not allowed');

/** One that hands out nothing but that it has caught up. */
const subscription = (): object => ({
  isCurrent: true,
  return: () => Promise.resolve(),
  async *[Symbol.asyncIterator]() {
    yield { kind: 'caught_up' };
    await new Promise(ignore);
  },
});

const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

beforeEach(async () => {
  vi.useFakeTimers();
  answers = [];
  clock = () => Promise.resolve(0);
  mayBeSubscribed = false;
  const client = {
    subscribe: () => {
      if (mayBeSubscribed) return subscription();
      throw denied;
    },
    await: () => new Promise<Future>((resolve, reject) => answers.push({ resolve, reject })),
    clock: () => clock(),
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

test('does not count as looked at when only the look of an earlier await has ended', async () => {
  const looks: (() => void)[] = [];
  clock = () => new Promise((resolve) => looks.push(() => resolve(0)));
  await vi.advanceTimersByTimeAsync(retryMs);
  present().reject(new FuturestoreError('UNAVAILABLE', 'no leader'));
  await vi.advanceTimersByTimeAsync(retryMs);
  expect(looks).toHaveLength(2);
  looks[0]?.();
  await settle();
  expect(follower.isUnderWay(key)).toBe(true);
  looks[1]?.();
  await settle();
  expect(follower.isUnderWay(key)).toBe(false);
});

describe('a key whose await was refused', () => {
  beforeEach(async () => {
    await vi.advanceTimersByTimeAsync(retryMs);
    present().reject(denied);
    await settle();
    expect(follower.refusal(key)).toBe(denied);
  });

  test('is awaited once more when it is asked for later: policies may allow it by then', async () => {
    follower.follow([key]);
    await settle();
    expect(follower.refusal(key)).toBe(denied);
    expect(answers).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(retryMs);
    follower.follow([key]);
    follower.follow([key]);
    await settle();
    expect(answers).toHaveLength(3);
    expect(follower.refusal(key)).toBeUndefined();
    expect(follower.isUnderWay(key)).toBe(false);
  });

  test('is refused again where it still is', async () => {
    await vi.advanceTimersByTimeAsync(retryMs);
    follower.follow([key]);
    expect(follower.isUnderWay(key)).toBe(true);
    await settle();
    present().reject(denied);
    await settle();
    expect(follower.refusal(key)).toBe(denied);
    expect(follower.isUnderWay(key)).toBe(false);
  });

  test('is followed where it may be subscribed by then', async () => {
    await vi.advanceTimersByTimeAsync(retryMs);
    mayBeSubscribed = true;
    follower.follow([key]);
    await settle();
    expect(follower.isCurrent(key)).toBe(true);
    expect(follower.isUnderWay(key)).toBe(false);
  });
});
