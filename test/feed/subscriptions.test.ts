import { describe, expect, test } from 'vitest';
import { Feed, type FeedEvent, type FeedOptions } from '../../src/feed/index.ts';
import type { SubscriptionStart } from '../../src/protocol/index.ts';
import { type Edit, FakeSource } from './support/fake-source.ts';
import { encodeForTest } from './support/reader.ts';

const setUp = (options: Partial<FeedOptions> = {}) => {
  const source = new FakeSource();
  const feed = new Feed({ source, encode: encodeForTest, ...options });
  const write = (...edits: Edit[]): void => feed.changed(source.commit(...edits), 0);
  const resolve = (...keys: string[]): void => {
    for (const key of keys) write({ key, kind: 'resolved' });
  };
  const subscribe = (
    request: number,
    patterns: string[],
    start: SubscriptionStart = { kind: 'present_state' },
    connection = 1,
  ): void => feed.subscribe({ gateway: 1, connection, request, patterns, start });
  const after = (
    revision: number,
    other: { clusterId?: string; epoch?: number } = {},
  ): SubscriptionStart => ({
    kind: 'after',
    position: { clusterId: 'cluster', epoch: 1, revision, ...other },
  });
  return { source, feed, write, resolve, subscribe, after };
};

/** Everything there is to take, each push acknowledged. */
const drain = (feed: Feed, nowMs = 0): FeedEvent[] => {
  const events: FeedEvent[] = [];
  for (let turn = 0; feed.pending; turn += 1) {
    expect(turn).toBeLessThan(10_000);
    for (const event of feed.take(nowMs)) {
      events.push(event);
      if (event.kind === 'push') feed.delivered(event.gateway, event.connection, event.bytes);
    }
  }
  return events;
};

const told = (events: readonly FeedEvent[]): unknown[] =>
  events.map((event) => {
    switch (event.kind) {
      case 'answer':
        if (event.body.kind === 'failed') return event.body.failure.code;
        return event.body.kind === 'subscribed'
          ? `from ${event.body.position.revision}${event.body.reset ? ' reset' : ''}`
          : event.body.kind;
      case 'ended':
        return `ended ${event.failure.code}`;
      case 'push':
        return [
          ...event.changes.map(({ encoded }) => Buffer.from(encoded).toString()),
          `${event.revision}${event.caughtUp ? ' caught up' : ''}`,
        ];
      default:
        return event satisfies never;
    }
  });

describe('a subscription', () => {
  test('begins with its answer, then the present state, then what changes', () => {
    const { feed, resolve, write, subscribe } = setUp();
    resolve('a/1', 'b/1', 'a/2');
    write({ key: 'a/2', kind: 'delete' });
    subscribe(1, ['a/*']);
    expect(told(drain(feed))).toEqual(['from 0', ['+a/1@1:resolved:v1', '4 caught up']]);
    resolve('a/3', 'b/2');
    write({ key: 'a/1', kind: 'delete' });
    expect(told(drain(feed))).toEqual([['+a/3@5:resolved:v5', '-a/1@7', '7']]);
  });

  test('says that it is caught up once, with an empty push where there is nothing', () => {
    const { feed, resolve, subscribe } = setUp();
    resolve('b');
    subscribe(1, ['a/**']);
    expect(told(drain(feed))).toEqual(['from 0', ['1 caught up']]);
    resolve('a/1', 'b');
    expect(told(drain(feed))).toEqual([['+a/1@2:resolved:v2', '3']]);
  });

  test('is not told of what does not concern it', () => {
    const { feed, resolve, subscribe } = setUp();
    subscribe(1, ['a/**']);
    drain(feed);
    resolve('b', 'ab/1');
    expect(feed.pending).toBe(false);
    expect(feed.progress(1, 1)).toBe(2);
  });

  test('of new changes only starts at the present revision', () => {
    const { feed, resolve, subscribe } = setUp();
    resolve('a', 'b');
    subscribe(1, ['*'], { kind: 'only_new' });
    expect(told(drain(feed))).toEqual(['from 2', ['2 caught up']]);
    resolve('c');
    expect(told(drain(feed))).toEqual([['+c@3:resolved:v3', '3']]);
  });

  test('goes on after a position, with deletions, without what it had', () => {
    const { feed, resolve, write, subscribe, after } = setUp();
    resolve('a', 'b', 'c');
    write({ key: 'a', kind: 'delete' });
    resolve('b');
    subscribe(1, ['*'], after(3));
    expect(told(drain(feed))).toEqual(['from 3', ['-a@4', '+b@5:resolved:v5', '5 caught up']]);
  });

  test.each([
    ['of another cluster', { clusterId: 'other' }, 3, 0],
    ['of another epoch', { epoch: 2 }, 3, 0],
    ['from the future', {}, 4, 0],
    ['older than the forgotten deletions', {}, 1, 2],
  ])('that resumes from a position %s is reset to the present state', (_, other, revision, forgotten) => {
    const { source, feed, resolve, subscribe, after } = setUp();
    resolve('a', 'b', 'c');
    source.forget(forgotten);
    subscribe(1, ['*'], after(revision, other));
    expect(told(drain(feed))).toEqual([
      'from 0 reset',
      ['+a@1:resolved:v1', '+b@2:resolved:v2', '+c@3:resolved:v3', '3 caught up'],
    ]);
  });

  test('resumes exactly where deletions begin to be remembered, and from the present revision', () => {
    const { source, feed, resolve, subscribe, after } = setUp();
    resolve('a', 'b', 'c');
    source.forget(2);
    subscribe(1, ['*'], after(2));
    subscribe(2, ['*'], after(3), 2);
    expect(told(drain(feed))).toEqual([
      'from 2',
      'from 3',
      ['+c@3:resolved:v3', '3 caught up'],
      ['3 caught up'],
    ]);
  });

  test('with overlapping patterns, or one twice, gets a change once', () => {
    const { feed, resolve, write, subscribe } = setUp();
    resolve('a/1');
    subscribe(1, ['a/*', 'a/**', 'a/1', 'a/*', '**']);
    expect(told(drain(feed))).toEqual(['from 0', ['+a/1@1:resolved:v1', '1 caught up']]);
    write({ key: 'a/1', kind: 'resolved' }, { key: 'a/2', kind: 'resolved' });
    expect(told(drain(feed))).toEqual([['+a/1@2:resolved:v2', '+a/2@2:resolved:v2', '2']]);
    feed.cancel(1, 1, 1);
    resolve('a/1');
    expect(drain(feed)).toEqual([]);
  });

  test('with a pattern that is none is refused, naming it', () => {
    const { feed, subscribe } = setUp();
    subscribe(1, ['a/**/b']);
    const [event] = drain(feed);
    expect(event).toMatchObject({ body: { failure: { code: 'INVALID_KEY' } } });
    expect(JSON.stringify(event)).toContain('a/**/b');
    expect(feed.counts.subscriptions).toBe(0);
  });

  test('that was cancelled, or whose connection closed, gets nothing more, not even its answer', () => {
    const { feed, resolve, subscribe } = setUp();
    subscribe(1, ['*']);
    feed.cancel(1, 1, 1);
    expect(drain(feed)).toEqual([]);
    subscribe(1, ['*']);
    subscribe(2, ['*'], { kind: 'only_new' }, 2);
    drain(feed);
    resolve('a');
    feed.cancel(1, 1, 1);
    feed.closed(1, 2);
    expect(drain(feed)).toEqual([]);
    expect(feed.counts.subscriptions).toBe(0);
    resolve('b');
    expect(drain(feed)).toEqual([]);
  });

  test('that reads what was applied before it was routed does not get it twice', () => {
    const { source, feed, subscribe } = setUp();
    const changes = source.commit({ key: 'a', kind: 'resolved' });
    subscribe(1, ['*']);
    subscribe(2, ['*'], { kind: 'only_new' });
    expect(told(drain(feed))).toEqual([
      'from 0',
      'from 1',
      ['+a@1:resolved:v1', '1 caught up'],
      ['1 caught up'],
    ]);
    feed.changed(changes, 0);
    expect(drain(feed)).toEqual([]);
  });

  test('is shown a value past its time as expired, live and from the state', () => {
    const { feed, write, subscribe } = setUp();
    subscribe(1, ['*']);
    drain(feed);
    write({ key: 'a', kind: 'resolved', value: 'secret', expiresAtMs: 100 });
    subscribe(2, ['*'], { kind: 'present_state' }, 2);
    expect(told(drain(feed, 100))).toEqual([
      'from 0',
      ['+a@1:expired:', '1'],
      ['+a@1:expired:', '1 caught up'],
    ]);
    subscribe(3, ['*'], { kind: 'present_state' }, 3);
    expect(told(drain(feed, 99))).toEqual(['from 0', ['+a@1:resolved:secret', '1 caught up']]);
    expect(feed.behind(1, 1)).toBe(false);
  });

  test('is behind until all that is known has been taken', () => {
    const { feed, resolve, subscribe } = setUp();
    expect(feed.behind(1, 1)).toBe(false);
    subscribe(1, ['*']);
    expect(feed.behind(1, 1)).toBe(true);
    expect(feed.progress(1, 1)).toBeUndefined();
    drain(feed);
    expect(feed.progress(1, 1)).toBe(0);
    resolve('a');
    expect(feed.behind(1, 1)).toBe(true);
    drain(feed);
    expect(feed.progress(1, 1)).toBe(1);
  });

  test('gets a change whose encoding was made once for all', () => {
    let encoded = 0;
    const { source, feed, resolve, subscribe } = setUp({
      encode: (change) => {
        encoded += 1;
        return encodeForTest(change);
      },
    });
    for (let key = 0; key < 100; key += 1) resolve(`a/${key}`);
    for (let connection = 1; connection <= 200; connection += 1) {
      subscribe(1, ['a/*'], { kind: 'present_state' }, connection);
    }
    drain(feed);
    expect(encoded).toBe(100);
    resolve('a/new');
    const pushes = drain(feed);
    expect(pushes.length).toBe(200);
    expect(encoded).toBe(101);
    const changes = new Set(pushes.flatMap((event) => (event.kind === 'push' ? event.changes : [])));
    expect(changes.size).toBe(1);
    expect(source.revision).toBe(101);
    resolve('b/nobody');
    expect(encoded).toBe(101);
  });

  test('reads on over a jump of the state', () => {
    const { source, feed, resolve, subscribe } = setUp();
    resolve('a', 'b');
    subscribe(1, ['*']);
    drain(feed);
    resolve('c');
    const jumped = source.copy();
    jumped.commit({ key: 'd', kind: 'resolved' });
    jumped.commit({ key: 'a', kind: 'delete' });
    feed.replaceSource(jumped);
    expect(told(drain(feed))).toEqual([
      ['+c@3:resolved:v3', '3'],
      ['+d@4:resolved:v4', '-a@5', '5'],
    ]);
    feed.changed(jumped.commit({ key: 'e', kind: 'resolved' }), 0);
    expect(told(drain(feed))).toEqual([['+e@6:resolved:v6', '6']]);
  });

  test('pitfall 45: that a jump of the state cuts off is ended with its reason, and nothing after it', () => {
    const { source, feed, resolve, subscribe, after } = setUp();
    resolve('a', 'b');
    subscribe(1, ['*']);
    drain(feed);
    const jumped = source.copy();
    jumped.commit({ key: 'a', kind: 'delete' });
    jumped.forget(3);
    feed.replaceSource(jumped);
    const events = drain(feed);
    expect(told(events)).toEqual(['ended UNAVAILABLE']);
    expect(events[0]).toMatchObject({ kind: 'ended', gateway: 1, connection: 1, subscription: 1 });
    expect(feed.counts.subscriptions).toBe(0);
    feed.changed(jumped.commit({ key: 'c', kind: 'resolved' }), 0);
    expect(drain(feed)).toEqual([]);
    subscribe(1, ['*'], after(2));
    expect(told(drain(feed))).toEqual([
      'from 0 reset',
      ['+b@2:resolved:v2', '+c@4:resolved:v4', '4 caught up'],
    ]);
  });

  test('pitfall 45: of a history that is no more is ended with its reason', () => {
    const { feed, resolve, subscribe } = setUp();
    resolve('a', 'b');
    subscribe(1, ['*']);
    drain(feed);
    feed.replaceSource(new FakeSource({ epoch: 2 }));
    expect(told(drain(feed))).toEqual(['ended UNAVAILABLE']);
  });

  test('pitfall 48: of nodes/web1/** does not get nodes/web10', () => {
    const { feed, resolve, subscribe } = setUp();
    resolve('nodes/web10/x');
    subscribe(1, ['nodes/web1/**', 'nodes/web1']);
    resolve('nodes/web10', 'nodes/web10/y', 'nodes/web1/z');
    const events = drain(feed);
    expect(told(events)).toEqual(['from 0', ['+nodes/web1/z@4:resolved:v4', '4 caught up']]);
    resolve('nodes/web1', 'nodes/web10');
    expect(told(drain(feed))).toEqual([['+nodes/web1@5:resolved:v5', '6']]);
  });

  test('refuses changes that are out of order, repeated or not applied', () => {
    const { source, feed, resolve } = setUp();
    resolve('a');
    const change = source.latest()[0];
    if (change === undefined) throw new Error('there is one');
    expect(() => feed.changed([change], 0)).toThrow(/once and in order/);
    expect(() => feed.changed([{ ...change, revision: 9 }], 0)).toThrow(/not applied/);
  });
});
