import { describe, expect, test } from 'vitest';
import { Feed, type FeedEvent, type FeedOptions } from '../../src/feed/index.ts';
import { type Edit, FakeSource } from './support/fake-source.ts';
import { encodeForTest } from './support/reader.ts';

const setUp = (options: Partial<FeedOptions> = {}) => {
  const source = new FakeSource();
  const feed = new Feed({ source, encode: encodeForTest, ...options });
  const write = (nowMs: number, ...edits: Edit[]): void => feed.changed(source.commit(...edits), nowMs);
  const awaits = (request: number, alternatives: string[][], leastGeneration?: number, nowMs = 0) =>
    feed.await(
      {
        gateway: 1,
        connection: 1,
        request,
        alternatives,
        ...(leastGeneration === undefined ? {} : { leastGeneration }),
      },
      nowMs,
    );
  return { source, feed, write, awaits };
};

const answers = (events: readonly FeedEvent[]): unknown[] =>
  events.map((event) => {
    if (event.kind !== 'answer') return event.kind;
    if (event.body.kind === 'failed') return [event.request, event.body.failure.code];
    if (event.body.kind !== 'awaited') return [event.request, event.body.kind];
    return [
      event.request,
      event.body.alternative,
      event.body.futures.map(({ key, state }) => `${key} ${state}`),
    ];
  });

describe('an await', () => {
  test('is answered at once when the value is there', () => {
    const { feed, write, awaits } = setUp();
    write(0, { key: 'a', kind: 'resolved' });
    awaits(7, [['a']]);
    expect(feed.pending).toBe(true);
    expect(feed.take(0)).toEqual([
      expect.objectContaining({ kind: 'answer', gateway: 1, connection: 1, request: 7 }),
    ]);
    expect(feed.counts).toEqual({ waits: 0, waitingKeys: 0, subscriptions: 0 });
    expect(feed.pending).toBe(false);
  });

  test('of a key that nobody declared is answered when it is resolved, once', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['a']]);
    expect(feed.take(0)).toEqual([]);
    write(0, { key: 'a', kind: 'pending' });
    expect(feed.take(0)).toEqual([]);
    write(0, { key: 'a', kind: 'resolved' });
    expect(answers(feed.take(0))).toEqual([[1, 0, ['a resolved']]]);
    write(0, { key: 'a', kind: 'resolved' });
    expect(feed.take(0)).toEqual([]);
  });

  test('of several keys is answered when all of one alternative are resolved, in the order of its keys', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [
      ['a', 'b', 'c'],
      ['c', 'd', 'a'],
    ]);
    write(0, { key: 'a', kind: 'resolved' });
    write(0, { key: 'c', kind: 'resolved' }, { key: 'x', kind: 'resolved' });
    expect(feed.take(0)).toEqual([]);
    write(0, { key: 'd', kind: 'resolved' });
    expect(answers(feed.take(0))).toEqual([[1, 1, ['c resolved', 'd resolved', 'a resolved']]]);
    expect(feed.counts).toEqual({ waits: 0, waitingKeys: 0, subscriptions: 0 });
  });

  test('that names a key twice is answered with it twice', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [
      ['a', 'b', 'a'],
      ['a', 'z'],
    ]);
    expect(feed.counts.waitingKeys).toBe(3);
    write(0, { key: 'a', kind: 'resolved' });
    expect(feed.take(0)).toEqual([]);
    write(0, { key: 'b', kind: 'resolved' });
    expect(answers(feed.take(0))).toEqual([[1, 0, ['a resolved', 'b resolved', 'a resolved']]]);
    expect(feed.counts.waitingKeys).toBe(0);
  });

  test('is answered with any rejected future of any alternative, alone, at once', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['a', 'b'], ['c']]);
    write(0, { key: 'a', kind: 'resolved' });
    write(0, { key: 'b', kind: 'rejected' });
    expect(answers(feed.take(0))).toEqual([[1, 0, ['b rejected']]]);
    awaits(2, [['x'], ['y', 'b']]);
    expect(answers(feed.take(0))).toEqual([[2, 1, ['b rejected']]]);
  });

  test('prefers a resolved alternative to a rejected one when both are there', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['a'], ['b']]);
    write(0, { key: 'a', kind: 'rejected' }, { key: 'b', kind: 'resolved' });
    expect(answers(feed.take(0))).toEqual([[1, 1, ['b resolved']]]);
  });

  test('does not count an earlier generation, resolved or rejected', () => {
    const { feed, write, awaits } = setUp();
    write(0, { key: 'a', kind: 'resolved', generation: 2 }, { key: 'b', kind: 'rejected' });
    awaits(1, [['a'], ['b']], 3);
    write(0, { key: 'a', kind: 'resolved', generation: 2 });
    expect(feed.take(0)).toEqual([]);
    write(0, { key: 'a', kind: 'resolved', generation: 3 });
    expect(answers(feed.take(0))).toEqual([[1, 0, ['a resolved']]]);
  });

  test('does not count what has expired, swept or not', () => {
    const { source, feed, write, awaits } = setUp();
    write(
      0,
      { key: 'a', kind: 'resolved', expiresAtMs: 100 },
      { key: 'b', kind: 'rejected', expiresAtMs: 100 },
    );
    awaits(1, [['a']], undefined, 100);
    awaits(2, [['b']], undefined, 100);
    expect(feed.take(100)).toEqual([]);
    feed.changed(source.sweep(100), 100);
    expect(feed.take(100)).toEqual([]);
    write(200, { key: 'a', kind: 'resolved', expiresAtMs: 300 });
    expect(answers(feed.take(200))).toEqual([[1, 0, ['a resolved']]]);
  });

  test('goes on when a value that counted has expired by the time the others come', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['a', 'b']]);
    write(0, { key: 'a', kind: 'resolved', expiresAtMs: 100 });
    expect(feed.take(0)).toEqual([]);
    write(150, { key: 'b', kind: 'resolved' });
    expect(feed.take(150)).toEqual([]);
    write(160, { key: 'a', kind: 'resolved', expiresAtMs: 300 });
    expect(answers(feed.take(160))).toEqual([[1, 0, ['a resolved', 'b resolved']]]);
  });

  test('goes on when its value expires between its completion and the take', () => {
    const { feed, write, awaits } = setUp();
    write(0, { key: 'a', kind: 'resolved', expiresAtMs: 100 });
    awaits(1, [['a']]);
    awaits(2, [['b']]);
    write(0, { key: 'b', kind: 'resolved', expiresAtMs: 100 });
    expect(feed.take(100)).toEqual([]);
    expect(feed.counts).toEqual({ waits: 2, waitingKeys: 2, subscriptions: 0 });
    write(120, { key: 'a', kind: 'resolved' }, { key: 'b', kind: 'resolved' });
    expect(answers(feed.take(120))).toEqual([
      [1, 0, ['a resolved']],
      [2, 0, ['b resolved']],
    ]);
  });

  test('loses a key again that is deleted or pending before the others come', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['a', 'b', 'c']]);
    write(0, { key: 'a', kind: 'resolved' }, { key: 'b', kind: 'resolved' });
    write(0, { key: 'a', kind: 'delete' });
    write(0, { key: 'b', kind: 'pending' });
    write(0, { key: 'c', kind: 'resolved' });
    write(0, { key: 'b', kind: 'resolved' });
    // It does not even seem complete.
    expect(feed.pending).toBe(false);
    write(0, { key: 'a', kind: 'resolved' });
    expect(answers(feed.take(0))).toEqual([[1, 0, ['a resolved', 'b resolved', 'c resolved']]]);
  });

  test('that was cancelled, or whose connection closed, is not answered and leaves nothing', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['a', 'b'], ['c']]);
    awaits(2, [['a']]);
    awaits(3, [['a']]);
    feed.await({ gateway: 2, connection: 1, request: 2, alternatives: [['a']] }, 0);
    feed.cancel(1, 1, 1);
    feed.cancel(1, 1, 99);
    feed.cancel(9, 1, 1);
    write(0, { key: 'a', kind: 'resolved' });
    feed.cancel(1, 1, 2);
    expect(answers(feed.take(0))).toEqual([
      [3, 0, ['a resolved']],
      [2, 0, ['a resolved']],
    ]);
    awaits(4, [['x', 'y']]);
    feed.closed(1, 1);
    expect(feed.counts).toEqual({ waits: 0, waitingKeys: 0, subscriptions: 0 });
    write(0, { key: 'x', kind: 'resolved' }, { key: 'y', kind: 'resolved' });
    expect(feed.take(0)).toEqual([]);
  });

  test('may use the number of one that was answered', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['a']]);
    write(0, { key: 'a', kind: 'resolved' });
    feed.take(0);
    awaits(1, [['b']]);
    expect(() => awaits(1, [['c']])).toThrow(/in flight/);
    write(0, { key: 'b', kind: 'resolved' });
    expect(answers(feed.take(0))).toEqual([[1, 0, ['b resolved']]]);
  });

  test('is refused where its connection waits for too many keys already, until some are over', () => {
    const { feed, awaits } = setUp({ waitingKeysPerConnectionMax: 3 });
    awaits(1, [['a', 'b']]);
    awaits(2, [['c'], ['d']]);
    awaits(3, [['c'], ['d']]);
    feed.cancel(1, 1, 3);
    expect(answers(feed.take(0))).toEqual([[2, 'LIMIT_EXCEEDED']]);
    feed.cancel(1, 1, 1);
    awaits(4, [['c'], ['d']]);
    expect(feed.take(0)).toEqual([]);
    expect(feed.counts.waits).toBe(1);
  });

  test('is looked at again when the state jumps', () => {
    const { source, feed, awaits } = setUp();
    awaits(1, [['a', 'b']]);
    awaits(2, [['c']]);
    awaits(3, [['d']]);
    const jumped = source.copy();
    jumped.commit({ key: 'a', kind: 'resolved' });
    jumped.commit({ key: 'b', kind: 'resolved' }, { key: 'c', kind: 'rejected' });
    feed.replaceSource(jumped);
    expect(answers(feed.take(0))).toEqual([
      [1, 0, ['a resolved', 'b resolved']],
      [2, 0, ['c rejected']],
    ]);
    feed.changed(jumped.commit({ key: 'd', kind: 'resolved' }), 0);
    expect(answers(feed.take(0))).toEqual([[3, 0, ['d resolved']]]);
  });

  test('pitfall 47: a write touches only those who wait for its key', () => {
    const { source, feed, write, awaits } = setUp();
    for (let request = 1; request <= 1000; request += 1) awaits(request, [[`nodes/${request}`, 'never']]);
    awaits(2000, [['other']]);
    source.reads = 0;
    source.freshened = 0;
    write(0, { key: 'unrelated', kind: 'resolved' });
    write(0, { key: 'nodes', kind: 'resolved' });
    expect(source.freshened).toBe(0);
    write(0, { key: 'nodes/500', kind: 'resolved' });
    expect(source.freshened).toBe(1);
    expect(feed.pending).toBe(false);
    expect(source.reads).toBe(0);
    write(0, { key: 'other', kind: 'resolved' });
    expect(answers(feed.take(0))).toEqual([[2000, 0, ['other resolved']]]);
    expect(source.reads).toBe(1);
  });

  test('pitfall 48: for nodes/web1 is not answered by nodes/web10, nor by nodes/web1/x', () => {
    const { feed, write, awaits } = setUp();
    awaits(1, [['nodes/web1']]);
    write(0, { key: 'nodes/web10', kind: 'resolved' }, { key: 'nodes/web1/x', kind: 'rejected' });
    expect(feed.take(0)).toEqual([]);
  });

  test('completes with ten thousand others in takes of bounded work, none forgotten', () => {
    const { source, feed, write } = setUp();
    for (let connection = 1; connection <= 10_000; connection += 1) {
      feed.await({ gateway: 1, connection, request: 1, alternatives: [['shared']] }, 0);
    }
    expect(feed.counts).toEqual({ waits: 10_000, waitingKeys: 1, subscriptions: 0 });
    write(0, { key: 'shared', kind: 'resolved' });
    let answered = 0;
    while (feed.pending) {
      source.reads = 0;
      const events = feed.take(0, 1000);
      answered += events.length;
      expect(source.reads).toBeLessThanOrEqual(1000);
      expect(events.length).toBeGreaterThan(0);
    }
    expect(answered).toBe(10_000);
  });

  test('that completes all the time does not keep subscriptions from their turn', () => {
    const { feed, source, write, awaits } = setUp({ bytesPerTakeMax: 1000 });
    write(0, { key: 'big', kind: 'resolved', value: 'x'.repeat(600) });
    feed.subscribe({
      gateway: 1,
      connection: 2,
      request: 1,
      patterns: ['s/**'],
      start: { kind: 'only_new' },
    });
    feed.take(0);
    feed.take(0);
    for (let request = 1; request <= 100; request += 1) awaits(request, [['big']]);
    feed.changed(source.commit({ key: 's/1', kind: 'resolved' }), 0);
    expect(feed.take(0).map(({ kind }) => kind)).toContain('push');
    expect(feed.counts.waits).toBeGreaterThan(90);
  });
});
