import { describe, expect, test } from 'vitest';
import { Feed, type FeedEvent } from '../../src/feed/index.ts';
import { encodeChange } from '../../src/protocol/index.ts';
import { type CommandBody, Store } from '../../src/store/index.ts';

const session = '0'.repeat(32);
const principal = 'puppet:producer';

describe('over the real store', () => {
  test('awaits and subscriptions follow what is applied, with the encodings of the protocol', () => {
    const store = new Store({ clusterId: 'cluster' });
    const feed = new Feed({ source: store });
    let index = 0;
    const apply = (timeMs: number, ...bodies: CommandBody[]): void => {
      index += 1;
      const commands = bodies.map((body) => ({ origin: { member: 1, run: 1, request: 1 }, ...body }));
      feed.changed(store.apply({ timeMs, commands }, index).changes, timeMs);
    };
    const resolve = (sequence: number, ...keys: string[]): CommandBody => ({
      kind: 'write',
      session,
      principal,
      sequence,
      answeredBelow: sequence,
      operations: keys.map((key) => ({
        key,
        preconditions: {},
        kind: 'resolve',
        value: Buffer.from(key),
        contentType: 'text/plain',
        sensitive: false,
        ttlMs: 1000,
        supersede: true,
      })),
    });
    const drain = (nowMs: number): FeedEvent[] => {
      const events: FeedEvent[] = [];
      while (feed.pending) events.push(...feed.take(nowMs));
      return events;
    };
    const open = {
      kind: 'session_open',
      session,
      principal,
      graceMs: 1000,
      resume: false,
      connection: 1,
    } as const;
    apply(1000, open, resolve(1, 'a/1', 'b/1'), resolve(2, 'a/2'));
    feed.subscribe({
      gateway: 1,
      connection: 1,
      request: 1,
      patterns: ['a/*'],
      start: { kind: 'present_state' },
    });
    feed.await({ gateway: 1, connection: 1, request: 2, alternatives: [['a/1', 'a/3']] }, 1000);
    apply(1500, resolve(3, 'a/2'), resolve(4, 'a/3', 'b/2'));
    const events = drain(1500);
    expect(events).toMatchObject([
      { kind: 'answer', request: 1, body: { kind: 'subscribed', reset: false } },
      { kind: 'answer', request: 2, body: { kind: 'awaited', futures: [{ key: 'a/1' }, { key: 'a/3' }] } },
      { kind: 'push', subscription: 1, revision: 4, caughtUp: true },
    ]);
    const pushed = events.flatMap((event) => (event.kind === 'push' ? event.changes : []));
    expect(pushed.map(({ change }) => `${change.key}@${change.revision}`)).toEqual([
      'a/1@1',
      'a/2@3',
      'a/3@4',
    ]);
    for (const { change, encoded } of pushed) expect(encoded).toEqual(encodeChange(change));
    // One by its own time, not swept; then all by the log, in one revision.
    apply(2200, resolve(5, 'a/1'));
    const due = store.due(2600, 100);
    apply(2600, { kind: 'expire', futures: due.futures, sessions: [] });
    expect(drain(2600)).toMatchObject([
      {
        kind: 'push',
        revision: 6,
        changes: [
          { change: { key: 'a/1', future: { state: 'resolved' } } },
          { change: { key: 'a/2', future: { state: 'expired' } } },
          { change: { key: 'a/3', future: { state: 'expired' } } },
        ],
      },
    ]);
  });
});
