import { beforeEach, describe, expect, test } from 'vitest';
import { ClusterOfOne, alice, bob, bytes, command, op, startMs } from './support/cluster-of-one.ts';

let cluster: ClusterOfOne;
beforeEach(() => {
  cluster = new ClusterOfOne();
});

describe('declare', () => {
  test('an absent key becomes pending in generation 1, with its producer, time and revision', () => {
    const { revision, results } = cluster.write(op.declare('k', { deadlineMs: 50 }));
    expect(revision).toBe(1);
    expect(results).toEqual([{ generation: 1, state: 'pending', revision: 1, unchanged: false }]);
    expect(cluster.store.get('k')).toEqual({
      key: 'k',
      generation: 1,
      state: 'pending',
      revision: 1,
      contentType: '',
      sensitive: false,
      producer: alice,
      changedAtMs: startMs,
      deadlineAtMs: startMs + 50,
    });
  });

  test('an existing future stays as it is, and its present state is told', () => {
    cluster.write(op.resolve('k', 'v'));
    const { revision, results } = cluster.write(op.declare('k'), 2);
    expect(revision).toBe(1);
    expect(results).toEqual([{ generation: 1, state: 'resolved', revision: 1, unchanged: true }]);
  });

  test('renew opens the next generation of a settled or expired one, and leaves a pending one alone', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 100 }));
    cluster.write(op.declare('k', { renew: true }));
    expect(cluster.state('k')).toBe('pending 2');
    expect(cluster.store.get('k')).not.toHaveProperty('value');
    expect(cluster.write(op.declare('k', { renew: true })).results[0]?.unchanged).toBe(true);
    cluster.write(op.reject('k', 'NO'));
    cluster.write(op.declare('k', { renew: true }));
    expect(cluster.state('k')).toBe('pending 3');
    cluster.write(op.resolve('k', 'v', { ttlMs: 100 }));
    cluster.later(100);
    cluster.write(op.declare('k', { renew: true }));
    expect(cluster.state('k')).toBe('pending 4');
  });

  test('its producer may give a pending one a deadline; another principal may not', () => {
    cluster.write(op.declare('k'));
    expect(cluster.write(op.declare('k', { deadlineMs: 5 }), 2).results[0]?.unchanged).toBe(true);
    expect(cluster.write(op.declare('k')).results[0]?.unchanged).toBe(true);
    expect(cluster.write(op.declare('k', { deadlineMs: 5 })).results[0]?.unchanged).toBe(false);
    expect(cluster.store.get('k')?.deadlineAtMs).toBe(startMs + 5);
    expect(cluster.write(op.declare('k', { deadlineMs: 5 })).results[0]?.unchanged).toBe(true);
  });
});

describe('resolve', () => {
  test('an absent key is settled at once', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 10, sensitive: true }));
    expect(cluster.store.get('k')).toEqual({
      key: 'k',
      generation: 1,
      state: 'resolved',
      revision: 1,
      value: bytes('v'),
      contentType: 'text/plain',
      sensitive: true,
      producer: alice,
      changedAtMs: startMs,
      expiresAtMs: startMs + 10,
    });
  });

  test('a pending one is resolved in its generation, whoever settles it; its producer stays, its deadline goes', () => {
    cluster.write(op.declare('k', { deadlineMs: 50 }));
    cluster.write(op.resolve('k', 'v'), 2);
    expect(cluster.state('k')).toBe('resolved 1');
    expect(cluster.store.get('k')?.producer).toBe(alice);
    expect(cluster.store.get('k')).not.toHaveProperty('deadlineAtMs');
  });

  test('a rejected or expired one opens the next generation', () => {
    cluster.write(op.reject('k', 'NO'));
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }), 2);
    expect(cluster.state('k')).toBe('resolved 2');
    expect(cluster.store.get('k')?.producer).toBe(bob);
    cluster.later(10);
    cluster.sweep();
    expect(cluster.state('k')).toBe('expired 2');
    cluster.write(op.resolve('k', 'v'));
    expect(cluster.state('k')).toBe('resolved 3');
  });

  test('one whose time has passed counts as expired before it is swept', () => {
    cluster.write(op.resolve('k', 'old', { ttlMs: 10 }));
    cluster.later(9);
    expect(cluster.failure(op.resolve('k', 'new'))).toBe('ALREADY_SETTLED');
    cluster.later(1);
    cluster.write(op.resolve('k', 'new'));
    expect(cluster.state('k')).toBe('resolved 2');
  });

  test('a fresh one is ALREADY_SETTLED, also for another content type or sensitivity', () => {
    cluster.write(op.resolve('k', 'v'));
    expect(cluster.failure(op.resolve('k', 'w'))).toBe('ALREADY_SETTLED');
    expect(cluster.failure(op.resolve('k', 'v', { contentType: 'text/html' }))).toBe('ALREADY_SETTLED');
    expect(cluster.failure(op.resolve('k', 'v', { sensitive: true }))).toBe('ALREADY_SETTLED');
    expect(cluster.store.revision).toBe(1);
  });

  test('the very same value is unchanged; with a TTL it is kept fresh from now', () => {
    cluster.write(op.resolve('k', 'v'));
    expect(cluster.write(op.resolve('k', 'v'), 2)).toEqual({
      revision: 1,
      results: [{ generation: 1, state: 'resolved', revision: 1, unchanged: true }],
    });
    expect(cluster.write(op.resolve('k', 'v', { ttlMs: 10 })).results[0]).toEqual({
      generation: 1,
      state: 'resolved',
      revision: 2,
      unchanged: false,
    });
    expect(cluster.store.get('k')?.expiresAtMs).toBe(startMs + 10);
    expect(cluster.write(op.resolve('k', 'v', { ttlMs: 10 })).results[0]?.unchanged).toBe(true);
  });

  test('supersede opens the next generation in one step', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }));
    expect(cluster.write(op.resolve('k', 'w', { supersede: true })).results[0]?.generation).toBe(2);
    expect(cluster.store.get('k')?.value).toEqual(bytes('w'));
    expect(cluster.store.get('k')).not.toHaveProperty('expiresAtMs');
  });

  test('a pending one whose deadline has passed is rejected already: the next generation is opened', () => {
    cluster.write(op.declare('k', { deadlineMs: 10 }));
    cluster.later(10);
    cluster.write(op.resolve('k', 'v'));
    expect(cluster.state('k')).toBe('resolved 2');
  });

  test('an error never tells the value', () => {
    cluster.write(op.resolve('k', 'secret-one', { sensitive: true }));
    expect(JSON.stringify(cluster.try(op.resolve('k', 'secret-two')))).not.toMatch(/secret/);
  });
});

describe('reject', () => {
  test('an absent or pending one is rejected with its code and message', () => {
    cluster.write(op.declare('a'));
    cluster.write([op.reject('a', 'NO'), op.reject('b', 'NEVER', { ttlMs: 10 })]);
    expect(cluster.store.get('a')).toMatchObject({
      state: 'rejected',
      rejection: { code: 'NO', message: 'because' },
    });
    expect(cluster.store.get('b')).toMatchObject({ generation: 1, expiresAtMs: startMs + 10 });
  });

  test('a rejected one opens the next generation; a fresh resolved one only with supersede', () => {
    cluster.write(op.reject('k', 'NO'));
    cluster.write(op.reject('k', 'NO'));
    expect(cluster.state('k')).toBe('rejected 2');
    cluster.write(op.resolve('k', 'v'));
    expect(cluster.failure(op.reject('k', 'NO'))).toBe('ALREADY_SETTLED');
    cluster.write(op.reject('k', 'NO', { supersede: true }));
    expect(cluster.state('k')).toBe('rejected 4');
    expect(cluster.store.get('k')).not.toHaveProperty('value');
  });

  test('with a TTL it expires, and its rejection goes', () => {
    cluster.write(op.reject('k', 'NO', { ttlMs: 10 }));
    cluster.later(10);
    cluster.sweep();
    expect(cluster.state('k')).toBe('expired 1');
    expect(cluster.store.get('k')).not.toHaveProperty('rejection');
    expect(cluster.store.get('k')?.expiresAtMs).toBe(startMs + 10);
  });
});

describe('delete and touch', () => {
  test('delete of an absent key is NOT_FOUND; else the key is gone and a change says so', () => {
    expect(cluster.failure(op.delete('k'))).toBe('NOT_FOUND');
    cluster.write(op.resolve('k', 'v'));
    const { results, changes } = cluster.apply(command(cluster.nextWrite([op.delete('k')])));
    expect(results).toEqual([
      {
        kind: 'written',
        result: {
          revision: 2,
          results: [{ generation: 1, state: 'resolved', revision: 2, unchanged: false }],
        },
      },
    ]);
    expect(changes).toEqual([{ kind: 'deleted', revision: 2, key: 'k' }]);
    expect(cluster.state('k')).toBe('absent');
    expect(cluster.store.keys).toBe(0);
    expect(cluster.failure(op.delete('k'))).toBe('NOT_FOUND');
  });

  test('a deleted key comes back in the next generation, never in a used one', () => {
    cluster.write(op.resolve('k', 'v'));
    cluster.write(op.delete('k'));
    cluster.write(op.declare('k'));
    expect(cluster.state('k')).toBe('pending 2');
    expect(cluster.store.tombstones).toBe(0);
  });

  test('touch sets the end of freshness anew, from now, and is a change', () => {
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }));
    cluster.later(5);
    expect(cluster.write(op.touch('k', 10)).results[0]).toEqual({
      generation: 1,
      state: 'resolved',
      revision: 2,
      unchanged: false,
    });
    expect(cluster.store.get('k')).toMatchObject({
      expiresAtMs: startMs + 15,
      revision: 2,
      value: bytes('v'),
    });
    expect(cluster.write(op.touch('k', 10)).results[0]?.unchanged).toBe(true);
  });

  test('touch of what has no outcome: NOT_FOUND when absent, NO_VALUE when pending or expired', () => {
    expect(cluster.failure(op.touch('k', 10))).toBe('NOT_FOUND');
    cluster.write(op.declare('k', { deadlineMs: 5 }));
    expect(cluster.failure(op.touch('k', 10))).toBe('NO_VALUE');
    cluster.later(5);
    expect(cluster.failure(op.touch('k', 10))).toBe('NO_VALUE');
    cluster.write(op.resolve('k', 'v', { ttlMs: 10 }));
    cluster.later(10);
    expect(cluster.failure(op.touch('k', 10))).toBe('NO_VALUE');
    cluster.sweep();
    expect(cluster.failure(op.touch('k', 10))).toBe('NO_VALUE');
    cluster.write(op.reject('r', 'NO'));
    expect(cluster.write(op.touch('r', 10)).results[0]?.unchanged).toBe(false);
  });
});

describe('preconditions', () => {
  test('if_revision and if_generation hold only for exactly these, and never for an absent key', () => {
    cluster.write(op.resolve('k', 'v'));
    const put = (preconditions: object) => op.resolve('k', 'w', { supersede: true, preconditions });
    expect(cluster.failure(put({ ifRevision: 2 }))).toBe('PRECONDITION_FAILED');
    expect(cluster.failure(put({ ifGeneration: 2 }))).toBe('PRECONDITION_FAILED');
    expect(cluster.failure(put({ ifRevision: 1, ifGeneration: 2 }))).toBe('PRECONDITION_FAILED');
    cluster.write(put({ ifRevision: 1, ifGeneration: 1 }));
    expect(cluster.state('k')).toBe('resolved 2');
    cluster.write(op.delete('k'));
    expect(cluster.failure(put({ ifGeneration: 2 }))).toBe('PRECONDITION_FAILED');
    expect(cluster.failure(put({ ifRevision: 3 }))).toBe('PRECONDITION_FAILED');
  });

  test('if_absent holds for a key that is not there, deleted ones included', () => {
    cluster.write(op.declare('k', { preconditions: { ifAbsent: true } }));
    expect(cluster.failure(op.declare('k', { preconditions: { ifAbsent: true } }))).toBe(
      'PRECONDITION_FAILED',
    );
    cluster.write(op.delete('k'));
    cluster.write(op.declare('k', { preconditions: { ifAbsent: true } }));
    expect(cluster.state('k')).toBe('pending 2');
  });
});

describe('batches', () => {
  test('all of it is one revision, and later operations see what earlier ones did', () => {
    const body = cluster.nextWrite([
      op.declare('a'),
      op.resolve('b', 'v'),
      op.resolve('a', 'w'),
      op.touch('a', 5),
    ]);
    const { changes } = cluster.apply(command(body));
    expect(cluster.store.revision).toBe(1);
    expect(changes.map(({ key, revision }) => [key, revision])).toEqual([
      ['a', 1],
      ['b', 1],
    ]);
    expect(cluster.store.get('a')).toMatchObject({
      generation: 1,
      state: 'resolved',
      expiresAtMs: startMs + 5,
    });
  });

  test('one that fails names its operation, and nothing of the batch remains', () => {
    cluster.write(op.resolve('c', 'v'));
    const digest = cluster.store.list({
      pattern: { text: '**', segments: [{ kind: 'rest' }], literalPrefix: '', exact: false },
      after: '',
      limit: 10,
      bytesMax: 1000,
      values: true,
      nowMs: 0,
    });
    const { results, changes } = cluster.apply(
      command(
        cluster.nextWrite([
          op.declare('a', { tied: true }),
          op.delete('c'),
          op.resolve('b', 'v'),
          op.touch('d', 1),
        ]),
      ),
    );
    expect(results[0]).toMatchObject({ kind: 'failed', failure: { code: 'NOT_FOUND', operation: 3 } });
    expect(changes).toEqual([]);
    expect(cluster.store.revision).toBe(1);
    expect(
      cluster.store.list({
        pattern: { text: '**', segments: [{ kind: 'rest' }], literalPrefix: '', exact: false },
        after: '',
        limit: 10,
        bytesMax: 1000,
        values: true,
        nowMs: 0,
      }),
    ).toEqual(digest);
    expect(cluster.store.tombstones).toBe(0);
    // The tie that was rolled back must not keep the session.
    cluster.one({ kind: 'session_close', session: '0'.repeat(31) + '1', principal: alice });
    expect(cluster.store.sessions).toBe(1);
  });

  test('a key made and deleted in one batch leaves a deletion and uses up its generation', () => {
    const { results } = cluster.write([op.declare('k'), op.delete('k')]);
    expect(results.map(({ generation }) => generation)).toEqual([1, 1]);
    cluster.write([op.declare('k'), op.delete('k')]);
    cluster.write(op.declare('k'));
    expect(cluster.state('k')).toBe('pending 3');
  });

  test('preconditions see the revision of the batch itself', () => {
    cluster.write([
      op.resolve('k', 'v'),
      op.resolve('k', 'w', { supersede: true, preconditions: { ifRevision: 1 } }),
    ]);
    expect(cluster.state('k')).toBe('resolved 2');
  });

  test('a batch in which nothing changes has the last revision', () => {
    cluster.write(op.resolve('k', 'v'));
    expect(cluster.write([op.declare('k'), op.resolve('k', 'v')]).revision).toBe(1);
  });
});

test('the state’s time never goes backwards, whatever a new leader’s clock says', () => {
  cluster.later(1000);
  cluster.write(op.declare('k'));
  cluster.later(-5000);
  cluster.write(op.declare('l', { deadlineMs: 1 }));
  expect(cluster.store.timeMs).toBe(startMs + 1000);
  expect(cluster.store.get('l')?.deadlineAtMs).toBe(startMs + 1001);
});
