import { describe, expect, test } from 'vitest';
import { Feed, type FeedEvent, type FeedOptions } from '../../src/feed/index.ts';
import { type Edit, FakeSource } from './support/fake-source.ts';
import { encodeForTest } from './support/reader.ts';

const windowBytes = 1000;

const setUp = (options: Partial<FeedOptions> = {}) => {
  const source = new FakeSource();
  const feed = new Feed({ source, encode: encodeForTest, windowBytes, ...options });
  const write = (...edits: Edit[]): void => feed.changed(source.commit(...edits), 0);
  const resolve = (key: string, bytes = 1): void =>
    write({ key, kind: 'resolved', value: 'x'.repeat(bytes) });
  const subscribe = (connection: number, patterns = ['**'], request = 1): void =>
    feed.subscribe({ gateway: 1, connection, request, patterns, start: { kind: 'present_state' } });
  return { source, feed, write, resolve, subscribe };
};

type PushEvent = Extract<FeedEvent, { kind: 'push' }>;

/** All pushes there are without any being taken by a socket. */
const pushes = (feed: Feed, visitsMax?: number): PushEvent[] => {
  const found: PushEvent[] = [];
  for (let turn = 0; feed.pending; turn += 1) {
    expect(turn).toBeLessThan(100_000);
    for (const event of feed.take(0, visitsMax)) if (event.kind === 'push') found.push(event);
  }
  return found;
};
const bytesOf = (events: readonly PushEvent[]): number => events.reduce((sum, { bytes }) => sum + bytes, 0);
const keysOf = (events: readonly PushEvent[]): string[] =>
  events.flatMap(({ changes }) => changes.map(({ change }) => change.key));

describe('flow control', () => {
  test('pitfall 46: a reader that takes nothing is sent a window, and costs a cursor after it', () => {
    let encoded = 0;
    const { feed, resolve, subscribe } = setUp({
      encode: (change) => {
        encoded += 1;
        return encodeForTest(change);
      },
    });
    subscribe(1);
    pushes(feed);
    for (let key = 0; key < 10_000; key += 1) resolve(`a/${key % 50}`, 80);
    const sent = pushes(feed);
    expect(bytesOf(sent)).toBeLessThanOrEqual(windowBytes);
    expect(bytesOf(sent)).toBeGreaterThan(windowBytes - 200);
    expect(feed.pending).toBe(false);
    expect(feed.behind(1, 1)).toBe(true);
    // What it was not sent was not even encoded.
    expect(encoded).toBeLessThan(20);
    // It takes what it has: the latest state of each key follows, a window at a time.
    const more: PushEvent[] = [];
    let taken = sent;
    while (taken.length > 0) {
      feed.delivered(1, 1, bytesOf(taken));
      taken = pushes(feed);
      expect(bytesOf(taken)).toBeLessThanOrEqual(windowBytes);
      more.push(...taken);
    }
    expect(keysOf(more).length).toBe(50);
    expect(feed.behind(1, 1)).toBe(false);
  });

  test('pitfall 46: a reader that takes nothing does not hold up others', () => {
    const { feed, resolve, subscribe } = setUp();
    subscribe(1);
    subscribe(2);
    pushes(feed);
    const seen: string[] = [];
    for (let key = 0; key < 100; key += 1) {
      resolve(`a/${key}`, 80);
      for (const push of pushes(feed)) {
        if (push.connection !== 2) continue;
        seen.push(...keysOf([push]));
        feed.delivered(1, 2, push.bytes);
      }
    }
    expect(seen).toEqual(Array.from({ length: 100 }, (_, key) => `a/${key}`));
  });

  test('pitfall 46: what many follow is routed within the bounds of a turn; the rest read on from the state, and lose nothing', () => {
    const [many, revisions, admissionsPerTurn] = [100, 10, 250];
    const { source, feed, write, subscribe } = setUp({ admissionsPerTurn });
    for (let connection = 1; connection <= many; connection += 1) subscribe(connection, ['a/*', '*/1']);
    pushes(feed);
    for (let round = 0; round < 2; round += 1) {
      const visitsBefore = source.visits;
      for (let revision = 0; revision < revisions; revision += 1) {
        write({ key: 'a/1', kind: 'resolved' }, { key: 'a/2', kind: 'resolved' });
      }
      // Nobody's work but that of the turn itself: nothing has been read yet.
      expect(source.visits).toBe(visitsBefore);
      const told = new Map<number, PushEvent[]>();
      for (const push of pushes(feed)) {
        told.set(push.connection, [...(told.get(push.connection) ?? []), push]);
        feed.delivered(1, push.connection, push.bytes);
      }
      expect(told.size).toBe(many);
      let changes = 0;
      for (const mine of told.values()) {
        const seen = mine.flatMap((push) => push.changes.map(({ change }) => change));
        const order = seen.map(({ revision, key }) => `${String(revision).padStart(4, '0')} ${key}`);
        expect(order).toEqual([...new Set(order)].sort());
        expect(seen.slice(-2).map(({ revision }) => revision)).toEqual([source.revision, source.revision]);
        expect(mine.at(-1)?.revision).toBe(source.revision);
        changes += seen.length;
      }
      // Routed ones, and the latest state of both keys for those who read on; all would be 2,000.
      expect(changes).toBeLessThanOrEqual(admissionsPerTurn + 2 * many);
      expect(changes).toBeGreaterThan(2 * many);
    }
  });

  test('a change larger than the window goes when nothing is outstanding, and only then', () => {
    const { feed, resolve, subscribe } = setUp();
    subscribe(1);
    pushes(feed);
    resolve('small');
    resolve('large', 5000);
    const first = pushes(feed);
    expect(keysOf(first)).toEqual(['small']);
    expect(feed.pending).toBe(false);
    feed.delivered(1, 1, bytesOf(first) - 1);
    expect(pushes(feed)).toEqual([]);
    feed.delivered(1, 1, 1);
    const second = pushes(feed);
    expect(keysOf(second)).toEqual(['large']);
    feed.delivered(1, 1, bytesOf(second));
    resolve('larger', 9000);
    expect(keysOf(pushes(feed))).toEqual(['larger']);
  });

  test('a revision is sent as a whole or not at all, live and from the state, however many changes it has', () => {
    for (const cutsRevisions of [false, true]) {
      const { source, feed, write, resolve, subscribe } = setUp();
      source.cutsRevisions = cutsRevisions;
      subscribe(1);
      pushes(feed);
      resolve('first', 600);
      write(...Array.from({ length: 40 }, (_, key): Edit => ({ key: `a/${key}`, kind: 'pending' })));
      subscribe(2);
      const sent = pushes(feed);
      for (const connection of [1, 2]) {
        const mine = sent.filter((push) => push.connection === connection);
        expect(keysOf(mine)).toEqual(['first']);
        expect(mine.at(-1)?.revision).toBe(1);
        feed.delivered(1, connection, bytesOf(mine));
        const rest = pushes(feed);
        expect(rest.length).toBe(1);
        expect(keysOf(rest).length).toBe(40);
        expect(rest[0]).toMatchObject({ connection, revision: 2, caughtUp: connection === 2 });
      }
      // More changes than any slice: one lost session rejects all that was tied to it.
      write(...Array.from({ length: 3000 }, (_, key): Edit => ({ key: `b/${key}`, kind: 'rejected' })));
      subscribe(3, ['b/*']);
      const all = pushes(feed).find((push) => push.connection === 3);
      expect(all?.changes.length).toBe(3000);
      expect(all).toMatchObject({ revision: 3, caughtUp: true });
    }
  });

  test('of several revisions routed together, those that fit are sent and the rest follows', () => {
    const { source, feed, subscribe } = setUp();
    subscribe(1);
    pushes(feed);
    const changes = [1, 2, 3, 4, 5].flatMap((key) =>
      source.commit(
        { key: `a/${key}`, kind: 'resolved', value: 'x'.repeat(450) },
        { key: `b/${key}`, kind: 'pending' },
      ),
    );
    feed.changed(changes, 0);
    const first = pushes(feed);
    expect(keysOf(first)).toEqual(['a/1', 'b/1', 'a/2', 'b/2']);
    expect(first).toMatchObject([{ revision: 2 }]);
    feed.delivered(1, 1, bytesOf(first));
    const second = pushes(feed);
    expect(keysOf(second)).toEqual(['a/3', 'b/3', 'a/4', 'b/4']);
    expect(second).toMatchObject([{ revision: 4 }]);
  });

  test('caught up is said when the last of the present state goes, though later changes have no room', () => {
    const { feed, resolve, subscribe } = setUp();
    resolve('a', 600);
    subscribe(1);
    resolve('b', 600);
    const [first] = pushes(feed);
    expect(first).toMatchObject({ revision: 1, caughtUp: true });
    feed.delivered(1, 1, first?.bytes ?? 0);
    const [second] = pushes(feed);
    expect(second).toMatchObject({ revision: 2, caughtUp: false });
  });

  test("a connection's subscriptions share its window, and none of them starves", () => {
    const { feed, resolve, subscribe } = setUp();
    for (let key = 0; key < 500; key += 1) resolve(`big/${key}`, 50);
    subscribe(1, ['big/**'], 1);
    subscribe(1, ['small/**'], 2);
    let taken = pushes(feed);
    let turnsUntilSmall = 0;
    resolve('small/1');
    while (!keysOf(taken).includes('small/1')) {
      turnsUntilSmall += 1;
      expect(turnsUntilSmall).toBeLessThan(5);
      expect(bytesOf(taken)).toBeLessThanOrEqual(windowBytes);
      feed.delivered(1, 1, bytesOf(taken));
      taken = pushes(feed);
    }
  });

  test('bytes given back by what was cancelled count for those that stay', () => {
    const { feed, resolve, subscribe } = setUp();
    subscribe(1, ['a/*'], 1);
    subscribe(1, ['b/*'], 2);
    pushes(feed);
    resolve('a/1', 900);
    resolve('b/1', 900);
    expect(feed.behind(1, 1)).toBe(true);
    // Admitted, never taken: its bytes come back with the cancellation.
    feed.cancel(1, 1, 1);
    const taken = pushes(feed);
    expect(keysOf(taken)).toEqual(['b/1']);
    // Taken, then cancelled: its bytes come back when the socket has taken them.
    resolve('b/2', 900);
    feed.cancel(1, 1, 2);
    subscribe(1, ['b/2'], 3);
    expect(keysOf(pushes(feed))).toEqual([]);
    feed.delivered(1, 1, bytesOf(taken));
    expect(keysOf(pushes(feed))).toEqual(['b/2']);
  });

  test('a gateway that gives back more than it was sent is found out', () => {
    const { feed, resolve, subscribe } = setUp();
    subscribe(1);
    resolve('a');
    const [push] = pushes(feed);
    expect(() => feed.delivered(1, 1, (push?.bytes ?? 0) + 1)).toThrow(/more than it was sent/);
    // Of a connection that is gone it means nothing.
    feed.delivered(1, 99, 10);
  });

  test('a value that expires after it was admitted gives back the bytes it no longer takes', () => {
    const { source, feed, subscribe } = setUp();
    subscribe(1);
    pushes(feed);
    feed.changed(source.commit({ key: 'a', kind: 'resolved', value: 'x'.repeat(900), expiresAtMs: 10 }), 0);
    feed.changed(source.commit({ key: 'b', kind: 'resolved', value: 'x'.repeat(500) }), 0);
    const taken: PushEvent[] = [];
    while (feed.pending) for (const event of feed.take(10)) if (event.kind === 'push') taken.push(event);
    expect(keysOf(taken)).toEqual(['a', 'b']);
    expect(taken[0]?.bytes).toBeLessThan(50);
    feed.delivered(1, 1, bytesOf(taken));
    expect(feed.behind(1, 1)).toBe(false);
  });

  test('pitfall 43: the whole of a large state is read in slices of bounded size, one window at a time', () => {
    const source = new FakeSource();
    for (let key = 0; key < 20_000; key += 1) {
      source.commit({ key: `k/${key}`, kind: 'resolved', value: 'x'.repeat(200) });
    }
    const large = new Feed({ source, encode: encodeForTest, windowBytes: 64 * 1024 });
    large.subscribe({
      gateway: 1,
      connection: 1,
      request: 1,
      patterns: ['**'],
      start: { kind: 'present_state' },
    });
    let seen = 0;
    let outstanding = 0;
    for (let turn = 0; seen < 20_000; turn += 1) {
      expect(turn).toBeLessThan(10_000);
      source.visits = 0;
      for (const event of large.take(0, 2000)) {
        if (event.kind !== 'push') continue;
        seen += event.changes.length;
        outstanding += event.bytes;
      }
      expect(source.visits).toBeLessThan(2000 + 1024);
      expect(source.longestPage).toBeLessThanOrEqual(256);
      expect(outstanding).toBeLessThanOrEqual(64 * 1024);
      if (large.pending) continue;
      large.delivered(1, 1, outstanding);
      outstanding = 0;
    }
    expect(seen).toBe(20_000);
  });

  test('connections are served in turns: one that reads everything does not delay one that reads a little', () => {
    const { source } = setUp();
    for (let key = 0; key < 20_000; key += 1) source.commit({ key: `big/${key}`, kind: 'pending' });
    source.commit({ key: 'small', kind: 'pending' });
    const feed = new Feed({ source, encode: encodeForTest, windowBytes: 10_000_000 });
    const start = { kind: 'present_state' } as const;
    for (let connection = 1; connection <= 5; connection += 1) {
      feed.subscribe({ gateway: 1, connection, request: 1, patterns: ['**'], start });
    }
    feed.subscribe({
      gateway: 1,
      connection: 6,
      request: 1,
      patterns: ['small'],
      start: { kind: 'after', position: { clusterId: 'cluster', epoch: 1, revision: 20_000 } },
    });
    const order: number[] = [];
    while (feed.pending) {
      for (const event of feed.take(0, 3000)) if (event.kind === 'push') order.push(event.connection);
    }
    expect(order.slice(0, 12)).toEqual([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 1]);
  });

  test('pitfall 45: a slow reader is told when deletions it has not been sent are forgotten', () => {
    const { source, feed, write, resolve, subscribe } = setUp();
    subscribe(1);
    resolve('a', 900);
    const [push] = pushes(feed);
    resolve('b', 900);
    write({ key: 'a', kind: 'delete' });
    source.forget(3);
    resolve('c');
    feed.delivered(1, 1, push?.bytes ?? 0);
    const events: FeedEvent[] = [];
    while (feed.pending) events.push(...feed.take(0));
    expect(events).toMatchObject([{ kind: 'ended', subscription: 1, failure: { code: 'UNAVAILABLE' } }]);
    expect(JSON.stringify(events)).toContain('revision 1');
  });

  test('a reader of the present state is not ended for deletions from before it began', () => {
    const { source, feed, write, resolve, subscribe } = setUp();
    resolve('x', 900);
    resolve('a', 900);
    resolve('b', 900);
    write({ key: 'a', kind: 'delete' });
    subscribe(1);
    const first = pushes(feed);
    source.forget(4);
    feed.delivered(1, 1, bytesOf(first));
    const second = pushes(feed);
    expect(keysOf([...first, ...second])).toEqual(['x', 'b']);
    expect(second.at(-1)).toMatchObject({ caughtUp: true, revision: 4 });
  });
});
