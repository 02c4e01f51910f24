import { beforeEach, describe, expect, test, vi } from 'vitest';
import { ClusterOfOne, bytes, command, op, startMs } from './support/cluster-of-one.ts';

vi.setConfig({ testTimeout: 60_000 });

let cluster: ClusterOfOne;
beforeEach(() => {
  cluster = new ClusterOfOne();
});

const expire = (key: string, generation: number, atMs: number) =>
  command({ kind: 'expire', futures: [{ key, generation, atMs }], sessions: [] });

describe('expiry', () => {
  test('a settled one loses its value, a pending one is rejected; one command is one revision', () => {
    cluster.write([op.resolve('a', 'v', { ttlMs: 10 }), op.declare('b', { deadlineMs: 10 })]);
    cluster.later(10);
    const changes = cluster.sweep();
    expect(changes).toHaveLength(2);
    expect(cluster.store.revision).toBe(2);
    const a = cluster.store.get('a');
    expect(a).toMatchObject({ state: 'expired', generation: 1, revision: 2, expiresAtMs: startMs + 10 });
    expect(a).not.toHaveProperty('value');
    expect(cluster.store.get('b')).toMatchObject({
      state: 'rejected',
      generation: 1,
      rejection: { code: 'DEADLINE_EXCEEDED' },
    });
    expect(cluster.store.get('b')).not.toHaveProperty('deadlineAtMs');
  });

  test('a reader sees no value past its time, swept or not', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }));
    const future = cluster.store.get('k');
    if (future === undefined) throw new Error('absent');
    expect(cluster.store.fresh(future, startMs + 9)).toBe(future);
    const late = cluster.store.fresh(future, startMs + 10);
    expect(late).toEqual({ ...withoutValue(future), state: 'expired' });
    cluster.write(op.declare('p', { deadlineMs: 10 }));
    const pending = cluster.store.get('p');
    if (pending === undefined) throw new Error('absent');
    expect(cluster.store.fresh(pending, startMs + 99)).toBe(pending);
  });

  test('what is due is named once, until a new leader asks again', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }));
    expect(cluster.store.due(startMs + 9, 10).futures).toEqual([]);
    const named = [{ key: 'k', generation: 1, atMs: startMs + 10 }];
    expect(cluster.store.due(startMs + 10, 10).futures).toEqual(named);
    expect(cluster.store.due(startMs + 11, 10).futures).toEqual([]);
    cluster.store.resetDue();
    expect(cluster.store.due(startMs + 11, 10).futures).toEqual(named);
    cluster.later(10);
    cluster.apply(expire('k', 1, startMs + 10));
    cluster.store.resetDue();
    expect(cluster.store.due(startMs + 99, 10).futures).toEqual([]);
  });

  test('a clock that went backwards names nothing early, and nothing is lost by it', () => {
    cluster.write([op.resolve('a', 'v', { ttlMs: 10 }), op.resolve('b', 'v', { ttlMs: 500 })]);
    expect(cluster.store.due(startMs + 1000, 1).futures).toHaveLength(1);
    cluster.store.resetDue();
    expect(cluster.store.due(startMs + 5, 10).futures).toEqual([]);
    expect(cluster.store.due(startMs + 10, 10).futures.map(({ key }) => key)).toEqual(['a']);
    expect(cluster.store.due(startMs + 500, 10).futures.map(({ key }) => key)).toEqual(['b']);
  });

  test('100,000 futures with the same deadline are handed out and applied in bounded steps', () => {
    const count = 100_000;
    for (let at = 0; at < count; at += 200) {
      cluster.write(
        Array.from({ length: 200 }, (_, i) => op.declare(`n/${at + i}`, { deadlineMs: 3_600_000 })),
      );
    }
    expect(cluster.store.due(startMs + 3_599_999, 2000).futures).toEqual([]);
    cluster.later(3_600_000);
    let given = 0;
    let calls = 0;
    const before = cluster.store.revision;
    while (given < count) {
      const due = cluster.store.due(cluster.nowMs, 2000);
      calls++;
      expect(due.futures.length).toBeLessThanOrEqual(2000);
      given += due.futures.length;
      if (due.futures.length === 0) continue;
      const { changes } = cluster.apply(command({ kind: 'expire', ...due }));
      expect(changes).toHaveLength(due.futures.length);
    }
    expect(given).toBe(count);
    // No more than a handful of calls whose work went into moving timers.
    expect(calls).toBeLessThanOrEqual(count / 2000 + 30);
    expect(cluster.store.revision).toBe(before + count / 2000);
    expect(cluster.store.due(cluster.nowMs + 1e9, 2000).futures).toEqual([]);
  });
});

describe('pitfall 37: a stalled old leader cannot expire what lives', () => {
  test('pitfall 37: an expiry of another generation, another instant, or too early is ignored', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }));
    cluster.write(op.resolve('k', 'w', { ttlMs: 100, supersede: true }));
    cluster.later(50);
    const ignored = [
      expire('k', 1, startMs + 10),
      expire('k', 2, startMs + 10),
      expire('k', 1, startMs + 100),
      expire('k', 2, startMs + 100),
      expire('k', 3, startMs + 100),
      expire('none', 1, startMs + 10),
    ];
    const { changes } = cluster.apply(...ignored);
    expect(changes).toEqual([]);
    expect(cluster.store.get('k')).toMatchObject({ state: 'resolved', value: bytes('w'), revision: 2 });
    cluster.later(50);
    const others = [
      expire('k', 1, startMs + 100),
      expire('k', 3, startMs + 100),
      expire('k', 2, startMs + 99),
    ];
    expect(cluster.apply(...others).changes).toEqual([]);
    expect(cluster.apply(expire('k', 2, startMs + 100)).changes).toHaveLength(1);
    expect(cluster.apply(expire('k', 2, startMs + 100)).changes).toEqual([]);
  });

  test('pitfall 37: what was named before it was touched lives on', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }));
    const due = cluster.store.due(startMs + 10, 10);
    cluster.write(op.touch('k', 100));
    cluster.later(10);
    expect(cluster.apply(command({ kind: 'expire', ...due })).changes).toEqual([]);
    expect(cluster.state('k')).toBe('resolved 1');
  });

  test('pitfall 37: a session that was taken up again is not ended', () => {
    cluster.detach(1);
    cluster.later(10_000);
    const due = cluster.store.due(cluster.nowMs, 10);
    expect(due.sessions).toHaveLength(1);
    cluster.open(1, 'puppet:alice', { resume: true });
    cluster.apply(command({ kind: 'expire', ...due }));
    expect(cluster.store.sessions).toBe(2);
    cluster.detach(1);
    cluster.apply(command({ kind: 'expire', ...due }));
    expect(cluster.store.sessions).toBe(2);
  });
});

test('pitfall 38: a change of leader, a restart or a snapshot restarts no TTL', () => {
  cluster.write([op.resolve('a', 'v', { ttlMs: 1000 }), op.declare('b', { deadlineMs: 1000 })]);
  cluster.detach(1);
  cluster.later(999);
  cluster.store.resetDue();
  const copy = cluster.copy();
  copy.resetDue();
  expect(copy.due(startMs + 999, 10).futures).toEqual([]);
  expect(copy.due(startMs + 1000, 10).futures).toHaveLength(2);
  expect(copy.due(startMs + 10_000, 10).sessions).toEqual([
    { session: '0'.repeat(31) + '1', atMs: startMs + 10_000 },
  ]);
});

const withoutValue = (future: object): object => {
  const copy: Record<string, unknown> = { ...future };
  delete copy['value'];
  return copy;
};
