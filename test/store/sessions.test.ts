import { beforeEach, describe, expect, test } from 'vitest';
import { limits } from '../../src/protocol/index.ts';
import { ClusterOfOne, alice, bob, command, op, sessionId } from './support/cluster-of-one.ts';

let cluster: ClusterOfOne;
beforeEach(() => {
  cluster = new ClusterOfOne();
});

const code = (result: { kind: string; failure?: { code: string } }): string =>
  result.failure?.code ?? result.kind;

describe('a write', () => {
  test('of an unknown session, or one of another principal, is SESSION_EXPIRED', () => {
    const body = cluster.nextWrite([op.declare('k')], 9, alice);
    expect(code(cluster.one(body))).toBe('SESSION_EXPIRED');
    expect(code(cluster.one(cluster.nextWrite([op.declare('k')], 1, bob)))).toBe('SESSION_EXPIRED');
    expect(cluster.state('k')).toBe('absent');
  });

  test('that comes again gets its first answer, failures included, and nothing happens twice', () => {
    const put = cluster.nextWrite([op.resolve('k', 'v', { supersede: true })]);
    const failing = { ...cluster.nextWrite([op.delete('none')]), answeredBelow: 1 };
    const first = [cluster.one(put), cluster.one(failing)];
    cluster.write(op.resolve('none', 'now there'), 2);
    cluster.write(op.resolve('k', 'other', { supersede: true }), 2);
    expect([cluster.one(put), cluster.one(failing)]).toEqual(first);
    expect(cluster.state('k')).toBe('resolved 2');
    expect(cluster.state('none')).toBe('resolved 1');
  });

  test('below what the client has all answers of is STALE_REQUEST, also where the client’s numbers leap', () => {
    const first = cluster.nextWrite([op.declare('k')]);
    cluster.one(first);
    cluster.one({
      ...cluster.nextWrite([op.declare('l')]),
      sequence: 2 ** 50,
      answeredBelow: 2 ** 50,
    } as typeof first);
    expect(code(cluster.one(first))).toBe('STALE_REQUEST');
    expect(cluster.store.revision).toBe(2);
  });

  test('beyond the answers that are remembered is LIMIT_EXCEEDED, and works once the client says what it has', () => {
    const write = (sequence: number, answeredBelow: number) =>
      command({
        kind: 'write',
        session: sessionId(1),
        principal: alice,
        sequence,
        answeredBelow,
        operations: [op.declare('k')],
      });
    const many = Array.from({ length: limits.rememberedAnswersMax }, (_, at) => write(at + 1, 1));
    expect(cluster.apply(...many).results.every(({ kind }) => kind === 'written')).toBe(true);
    const next = limits.rememberedAnswersMax + 1;
    expect(code(cluster.one(write(next, 1)))).toBe('LIMIT_EXCEEDED');
    expect(cluster.one(write(1, 1)).kind).toBe('written');
    expect(cluster.one(write(next, 2)).kind).toBe('written');
  });

  test('works on a detached session, and refreshes nothing', () => {
    cluster.detach(1);
    cluster.later(9_999);
    cluster.write(op.declare('k'));
    cluster.later(1);
    cluster.sweep();
    expect(cluster.failure(op.declare('l'))).toBe('SESSION_EXPIRED');
  });
});

describe('opening', () => {
  test('resume needs a session that exists; another principal’s looks like none', () => {
    expect(code(cluster.open(7, alice, { resume: true }))).toBe('SESSION_EXPIRED');
    expect(code(cluster.open(1, bob))).toBe('SESSION_EXPIRED');
    expect(code(cluster.open(1, bob, { resume: true }))).toBe('SESSION_EXPIRED');
    expect(code(cluster.open(1, alice, { resume: true }))).toBe('done');
    expect(cluster.store.sessions).toBe(2);
  });

  test('a detach from where the session is no longer attached is ignored', () => {
    cluster.open(1, alice, { resume: true, connection: 77 });
    cluster.detach(1, 1);
    cluster.detach(1, 77, 1, 2);
    cluster.detach(1, 77, 2, 1);
    cluster.later(100_000);
    expect(cluster.sweep()).toEqual([]);
    expect(cluster.store.sessions).toBe(2);
    cluster.detach(1, 77);
    cluster.later(10_000);
    cluster.sweep();
    expect(cluster.store.sessions).toBe(1);
  });

  test('taking it up again ends its grace, and the new grace counts', () => {
    cluster.detach(1);
    cluster.later(9_000);
    cluster.open(1, alice, { resume: true, graceMs: 1_000, connection: 5 });
    cluster.later(5_000);
    cluster.sweep();
    expect(cluster.store.sessions).toBe(2);
    cluster.detach(1, 5);
    cluster.later(1_000);
    cluster.sweep();
    expect(cluster.store.sessions).toBe(1);
  });

  test('beyond the limit the longest detached session is evicted with its ties, or LIMIT_EXCEEDED', () => {
    cluster = new ClusterOfOne({ sessionsMax: 3 });
    cluster.open(3, alice);
    expect(code(cluster.open(4, alice))).toBe('LIMIT_EXCEEDED');
    cluster.write(op.declare('k', { tied: true }), 2);
    cluster.detach(2);
    cluster.later(1);
    cluster.detach(3);
    const { changes } = cluster.apply(
      command({
        kind: 'session_open',
        session: sessionId(4),
        principal: alice,
        graceMs: 1000,
        resume: false,
        connection: 1,
      }),
    );
    expect(changes).toMatchObject([
      { key: 'k', future: { state: 'rejected', rejection: { code: 'PRODUCER_LOST' } } },
    ]);
    expect(code(cluster.open(2, bob, { resume: true }))).toBe('SESSION_EXPIRED');
    expect(code(cluster.open(3, alice, { resume: true }))).toBe('done');
  });
});

test('one principal has only so many sessions, and its flood evicts nobody else', () => {
  cluster = new ClusterOfOne({ sessionsMax: 10, sessionsPerPrincipalMax: 2 });
  expect(code(cluster.open(2, bob))).toBe('done');
  cluster.detach(2);
  expect(code(cluster.open(3, alice))).toBe('done');
  expect(code(cluster.open(4, alice))).toBe('LIMIT_EXCEEDED');
  expect(code(cluster.open(2, bob, { resume: true }))).toBe('done');
  // What it has may be taken up and closed all the same, and makes room.
  expect(code(cluster.open(3, alice, { resume: true }))).toBe('done');
  cluster.one({ kind: 'session_close', session: sessionId(3), principal: alice });
  expect(code(cluster.open(4, alice))).toBe('done');
});

test('evicted is who was detached first, not whose grace ends first', () => {
  cluster = new ClusterOfOne({ sessionsMax: 2 });
  cluster.open(2, bob, { resume: true, graceMs: 50_000 });
  cluster.detach(2);
  cluster.later(1);
  cluster.detach(1);
  cluster.open(3, alice);
  expect(code(cluster.open(2, bob, { resume: true }))).toBe('SESSION_EXPIRED');
  expect(code(cluster.open(1, alice, { resume: true }))).toBe('done');
});

describe('closing', () => {
  test('ends a session without pending ties at once', () => {
    cluster.write([op.declare('k', { tied: true }), op.resolve('k', 'v')]);
    cluster.one({ kind: 'session_close', session: sessionId(1), principal: alice });
    expect(cluster.store.sessions).toBe(1);
    expect(cluster.state('k')).toBe('resolved 1');
  });

  test('one with pending ties is detached: they are rejected when its grace has passed', () => {
    cluster.write(op.declare('k', { tied: true }));
    cluster.one({ kind: 'session_close', session: sessionId(1), principal: alice });
    cluster.later(9_999);
    cluster.sweep();
    expect(cluster.state('k')).toBe('pending 1');
    // Closing it once more gives it no more time.
    cluster.one({ kind: 'session_close', session: sessionId(1), principal: alice });
    cluster.later(1);
    cluster.sweep();
    expect(cluster.store.get('k')).toMatchObject({ state: 'rejected', rejection: { code: 'PRODUCER_LOST' } });
    expect(cluster.store.sessions).toBe(1);
  });

  test('of another principal’s session does nothing and tells nothing', () => {
    expect(code(cluster.one({ kind: 'session_close', session: sessionId(1), principal: bob }))).toBe('done');
    expect(code(cluster.one({ kind: 'session_close', session: sessionId(9), principal: bob }))).toBe('done');
    expect(cluster.store.sessions).toBe(2);
  });
});

describe('ties', () => {
  test('a session that ends takes all its pending futures with it, in one revision, and no others', () => {
    cluster.write([op.declare('a', { tied: true }), op.declare('b', { tied: true }), op.declare('c')]);
    cluster.write(op.declare('d', { tied: true }), 2);
    cluster.write(op.resolve('b', 'v'));
    cluster.write(op.declare('e', { tied: true }));
    const { revision } = cluster.store;
    cluster.detach(1);
    cluster.later(10_000);
    const changes = cluster.sweep();
    expect(changes.map(({ key }) => key).sort()).toEqual(['a', 'e']);
    expect(new Set(changes.map((change) => change.revision))).toEqual(new Set([revision + 1]));
    expect(cluster.store.revision).toBe(revision + 1);
    expect(['b', 'c', 'd'].map((key) => cluster.state(key))).toEqual([
      'resolved 1',
      'pending 1',
      'pending 1',
    ]);
  });

  test('a producer that comes back with a new session takes its future over', () => {
    cluster.open(3, alice);
    cluster.write(op.declare('k', { tied: true }));
    expect(cluster.one(cluster.nextWrite([op.declare('k', { tied: true })], 3, alice))).toMatchObject({
      result: { results: [{ unchanged: false, generation: 1 }] },
    });
    expect(cluster.one(cluster.nextWrite([op.declare('k', { tied: true })], 3, alice))).toMatchObject({
      result: { results: [{ unchanged: true }] },
    });
    expect(cluster.write(op.declare('k', { tied: true }), 2).results[0]?.unchanged).toBe(true);
    cluster.detach(1);
    cluster.later(10_000);
    cluster.sweep();
    expect(cluster.state('k')).toBe('pending 1');
    cluster.detach(3);
    cluster.later(10_000);
    cluster.sweep();
    expect(cluster.state('k')).toBe('rejected 1');
  });

  test('a deadline that has passed comes before the loss of the producer', () => {
    cluster.write(op.declare('k', { tied: true, deadlineMs: 10 }));
    cluster.detach(1);
    cluster.later(10_000);
    const due = cluster.store.due(cluster.nowMs, 100);
    cluster.apply(command({ kind: 'expire', futures: [], sessions: due.sessions }));
    expect(cluster.store.get('k')).toMatchObject({ rejection: { code: 'DEADLINE_EXCEEDED' } });
  });
});

describe('servers', () => {
  const diskId = new Uint8Array(16).fill(7);

  test('a new run of a server detaches the sessions of its earlier runs, and is remembered', () => {
    cluster.open(3, alice);
    cluster.one(
      {
        kind: 'session_open',
        session: sessionId(4),
        principal: bob,
        graceMs: 10_000,
        resume: false,
        connection: 1,
      },
      2,
      9,
    );
    cluster.one({ kind: 'server_started', member: 1, run: 2, diskId });
    expect(cluster.store.server(1)).toEqual({ member: 1, run: 2, diskId });
    expect(cluster.store.server(2)).toBeUndefined();
    cluster.one(
      {
        kind: 'session_open',
        session: sessionId(3),
        principal: alice,
        graceMs: 10_000,
        resume: true,
        connection: 1,
      },
      1,
      2,
    );
    cluster.later(10_000);
    cluster.sweep();
    // 3 is attached to the new run, 4 to another server.
    expect(cluster.store.sessions).toBe(2);
    cluster.one({ kind: 'server_started', member: 1, run: 1, diskId });
    expect(cluster.store.server(1)?.run).toBe(2);
  });

  test('the loss of a server detaches its sessions, but only of the run that is meant', () => {
    cluster.one({ kind: 'server_started', member: 1, run: 1, diskId });
    cluster.one({ kind: 'server_lost', member: 1, run: 2 });
    cluster.one({ kind: 'server_lost', member: 2, run: 1 });
    cluster.later(10_000);
    cluster.sweep();
    expect(cluster.store.sessions).toBe(2);
    cluster.one({ kind: 'server_lost', member: 1, run: 1 });
    cluster.later(10_000);
    cluster.sweep();
    expect(cluster.store.sessions).toBe(0);
  });
});

describe('pitfall 39: sessions of crashed clients and evictions are the same on all replicas', () => {
  test('pitfall 39: a number that was used before a crash gets the old answer, or STALE_REQUEST, never a second write', () => {
    const before = cluster.nextWrite([op.resolve('k', 'before', { supersede: true })]);
    cluster.one(before);
    const reused = {
      ...before,
      operations: [op.resolve('k', 'after', { supersede: true })],
    } as typeof before;
    expect(cluster.one(reused)).toEqual(cluster.one(before));
    expect(cluster.state('k')).toBe('resolved 1');
  });

  test('pitfall 39: a session ends only by an applied command, however late it is', () => {
    cluster.detach(1);
    cluster.later(1_000_000);
    cluster.write(op.declare('k'));
    expect(cluster.store.due(cluster.nowMs, 10).sessions).toHaveLength(1);
    expect(cluster.store.sessions).toBe(2);
  });

  test('pitfall 39: of sessions detached at the same instant the same one is evicted, in a loaded state too', () => {
    cluster = new ClusterOfOne({ sessionsMax: 2 });
    cluster.apply(
      command({ kind: 'session_detach', session: sessionId(2), connection: 2 }),
      command({ kind: 'session_detach', session: sessionId(1), connection: 1 }),
    );
    const copy = cluster.copy();
    const open = command({
      kind: 'session_open',
      session: sessionId(3),
      principal: alice,
      graceMs: 1000,
      resume: false,
      connection: 1,
    });
    cluster.apply(open);
    copy.apply({ timeMs: cluster.nowMs, commands: [open] }, cluster.index);
    expect(copy.digest()).toBe(cluster.store.digest());
    expect(code(cluster.open(2, bob, { resume: true }))).toBe('done');
  });
});

test('pitfall 40: a retried write through another path is applied once, after load from disk too', () => {
  const body = cluster.nextWrite([op.resolve('k', 'v', { supersede: true })]);
  const first = cluster.one(body);
  const copy = cluster.copy();
  const again = copy.apply({ timeMs: cluster.nowMs, commands: [command(body, 2, 5)] }, cluster.index + 1);
  expect(again.results).toEqual([first]);
  expect(again.changes).toEqual([]);
  expect(copy.get('k')?.generation).toBe(1);
});
