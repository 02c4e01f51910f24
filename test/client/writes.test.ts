import { describe, expect, test } from 'vitest';
import { World, failed, randomOf, watch, welcome, written } from './support/world.ts';
import type { AnswerBody, Request } from '../../src/protocol/index.ts';

const opened: AnswerBody = { kind: 'session_opened' };

/** Opens sessions; leaves writes to the test. */
const opensSessions = (request: Request): AnswerBody | undefined =>
  request.body.kind === 'open_session' ? opened : undefined;

/** Answers everything that a write needs. */
const serves = (request: Request): AnswerBody | undefined =>
  request.body.kind === 'write' ? written(request.body.sequence) : opensSessions(request);

describe('the session', () => {
  test('is opened for the first write, together with hello; the write follows when it is open', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = serves;
    const client = world.client({ sessionGraceMs: 30_000 });
    const get = watch(client.get('a'));
    const write = watch(client.resolve('a/b', 'x'));
    await world.settle();
    expect(server.connection.frames).toHaveLength(2);
    expect(server.connection.requests.map(({ body }) => body.kind)).toEqual(['open_session', 'get', 'write']);
    expect(server.connection.of('open_session')[0]?.body).toEqual({
      kind: 'open_session',
      session: '01'.repeat(16),
      graceMs: 30_000,
      resume: false,
    });
    expect(write).toMatchObject({ state: 'fulfilled', value: { revision: 1, state: 'resolved' } });
    expect(get.state).toBe('pending');
  });

  test('that may be opened later is not asked for before', async () => {
    const world = new World();
    const server = world.server('wss://a');
    let asked = 0;
    server.handle = (request) => {
      if (request.body.kind !== 'open_session') return serves(request);
      asked += 1;
      if (asked > 1) return opened;
      return {
        kind: 'failed',
        failure: { code: 'RATE_LIMITED', message: 'too many', retryAfterMs: 5_000 },
      };
    };
    watch(world.client().resolve('a', 'x'));
    await world.advance(4_900);
    expect(asked).toBe(1);
    await world.advance(200);
    expect(asked).toBe(2);
  });

  test('is not opened by reads', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    watch(client.get('a'));
    await world.settle();
    server.connection.break();
    await world.advance(1000);
    expect(server.connections).toHaveLength(2);
    expect(server.connections.flatMap((connection) => connection.of('open_session'))).toEqual([]);
  });

  test('is resumed right after hello on every later connection, so that tied futures live on', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = serves;
    const client = world.client();
    await Promise.all([client.declare('a'), world.settle()]);
    server.connection.break();
    await world.advance(1000);
    expect(server.connection.frames[0]).toMatchObject({
      requests: [{ body: { kind: 'open_session', resume: true } }],
    });
    expect(server.connection.of('open_session')[0]?.body.session).toBe('01'.repeat(16));
  });

  // A delayed opening may come when its session was already forgotten, and makes it anew: a write that was sent with it
  // would happen twice.
  test('has no write before its opening is answered, also where that is sent again', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    const write = watch(client.resolve('a', 'x'));
    await world.settle();
    expect(server.connection.of('open_session')[0]?.body).toMatchObject({ session: '01'.repeat(16) });
    expect(server.connection.of('write')).toEqual([]);
    server.connection.break();
    await world.advance(1000);
    const [open] = server.connection.of('open_session');
    expect(open?.body).toMatchObject({ resume: false, session: '01'.repeat(16) });
    expect(server.connection.of('write')).toEqual([]);
    if (open !== undefined) server.connection.answer(open.id, opened);
    await world.settle();
    expect(server.connection.of('write')[0]?.body).toMatchObject({ sequence: 1, answeredBelow: 1 });
    server.connection.answer(server.connection.of('write')[0]?.id ?? 0, written(1));
    await world.settle();
    expect(write.state).toBe('fulfilled');
  });

  test('that was opened twice is given up after half its grace without a server: a late opening must not pass for it', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client({ sessionGraceMs: 10_000 });
    watch(client.resolve('a', 'x'));
    await world.settle();
    server.connection.break();
    server.handle = opensSessions;
    await world.advance(1000);
    const sent = watch(client.resolve('b', 'x'));
    await world.settle();
    server.connection.break();
    server.failure = { kind: 'unreachable', text: 'connect ECONNREFUSED' };
    await world.advance(5000);
    server.failure = undefined;
    server.handle = serves;
    await world.advance(20_000);
    expect(sent).toMatchObject({ state: 'rejected', error: { code: 'OUTCOME_UNKNOWN' } });
  });

  test('that cannot be opened for good fails the writes with the reason', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = (request) =>
      request.body.kind === 'open_session' ? failed('LIMIT_EXCEEDED', 'too many sessions') : undefined;
    const client = world.client();
    const write = watch(client.resolve('a', 'x'));
    await world.settle();
    expect(write).toMatchObject({ state: 'rejected', error: { code: 'LIMIT_EXCEEDED' } });
  });

  test('that cannot be opened just now is tried again, and the writes wait', async () => {
    const world = new World();
    const server = world.server('wss://a');
    let leader = false;
    server.handle = (request) => (leader ? serves(request) : failed('UNAVAILABLE', 'no leader'));
    const client = world.client();
    const write = watch(client.resolve('a', 'x', { timeoutMs: 30_000 }));
    await world.advance(5_000);
    expect(write.state).toBe('pending');
    leader = true;
    await world.advance(3_000);
    expect(write.state).toBe('fulfilled');
    expect(new Set(server.connection.of('write').map(({ body }) => body.sequence))).toEqual(new Set([1]));
    expect(server.connections).toHaveLength(1);
  });
});

describe('writes', () => {
  test('are numbered, and say which answers the client has', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = opensSessions;
    const client = world.client();
    for (const key of ['a', 'b', 'c']) watch(client.resolve(key, 'x'));
    await world.settle();
    const [a, b, c] = server.connection.of('write');
    expect([a, b, c].map((write) => write?.body.sequence)).toEqual([1, 2, 3]);
    expect([a, b, c].map((write) => write?.body.answeredBelow)).toEqual([1, 1, 1]);
    server.connection.answer(b?.id ?? 0, written(1));
    watch(client.resolve('d', 'x'));
    await world.settle();
    expect(server.connection.of('write').at(-1)?.body).toMatchObject({ sequence: 4, answeredBelow: 1 });
    server.connection.answer(a?.id ?? 0, written(2));
    watch(client.resolve('e', 'x'));
    await world.settle();
    expect(server.connection.of('write').at(-1)?.body).toMatchObject({ sequence: 5, answeredBelow: 3 });
  });

  test('that are unanswered when the connection ends are sent again under their numbers, in order', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = opensSessions;
    const client = world.client();
    const writes = ['a', 'b', 'c'].map((key) => watch(client.resolve(key, 'x')));
    await world.settle();
    server.connection.answer(server.connection.of('write')[1]?.id ?? 0, written(1));
    server.connection.break();
    const late = watch(client.resolve('d', 'x'));
    await world.advance(1000);
    expect(server.connection.of('write').map(({ body }) => body.sequence)).toEqual([1, 3, 4]);
    for (const { id } of server.connection.of('write')) server.connection.answer(id, written(2));
    await world.settle();
    expect([...writes, late].map(({ state }) => state)).toEqual(Array(4).fill('fulfilled'));
  });

  test('wait for the resumed session, so that a lost one leaves no doubt about those never sent', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = opensSessions;
    const client = world.client();
    const sent = watch(client.resolve('a', 'x'));
    await world.settle();
    server.connection.break();
    const unsent = watch(client.resolve('b', 'x'));
    server.handle = (request) =>
      request.body.kind === 'open_session' && request.body.resume
        ? failed('SESSION_EXPIRED')
        : serves(request);
    await world.advance(1000);
    expect(sent).toMatchObject({ state: 'rejected', error: { code: 'OUTCOME_UNKNOWN' } });
    expect(unsent.state).toBe('fulfilled');
    expect(server.connection.of('write')).toHaveLength(1);
    expect(server.connection.of('write')[0]?.body).toMatchObject({ sequence: 1, operations: [{ key: 'b' }] });
    expect(
      server.connection.of('open_session').map(({ body }) => [body.session.slice(0, 2), body.resume]),
    ).toEqual([
      ['01', true],
      ['02', false],
    ]);
  });

  test('answered with SESSION_EXPIRED or STALE_REQUEST fail with OUTCOME_UNKNOWN', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = opensSessions;
    const client = world.client();
    const writes = ['a', 'b', 'c'].map((key) => watch(client.resolve(key, 'x')));
    await world.settle();
    const [a, b] = server.connection.of('write');
    server.connection.answer(a?.id ?? 0, failed('STALE_REQUEST'));
    await world.settle();
    expect(writes.map(({ state }) => state)).toEqual(['rejected', 'pending', 'pending']);
    server.connection.answer(b?.id ?? 0, failed('SESSION_EXPIRED'));
    await world.settle();
    for (const { error } of writes) expect(error).toMatchObject({ code: 'OUTCOME_UNKNOWN' });
    server.handle = serves;
    const next = watch(client.resolve('d', 'x'));
    await world.advance(1000);
    expect(next.state).toBe('fulfilled');
    expect(server.connection.of('open_session')[0]?.body).toMatchObject({
      resume: false,
      session: '02'.repeat(16),
    });
  });

  test.each([
    ['PERMISSION_DENIED', 'OUTCOME_UNKNOWN'],
    ['VALUE_TOO_LARGE', 'OUTCOME_UNKNOWN'],
    ['ALREADY_SETTLED', 'ALREADY_SETTLED'],
  ] as const)('whose answer was lost and that are refused now with %s fail with %s', async (code, told) => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = opensSessions;
    const client = world.client();
    const before = watch(client.resolve('a', 'x'));
    await world.settle();
    server.connection.break();
    server.handle = (request) =>
      request.body.kind === 'write' ? failed(code, 'it is so') : opensSessions(request);
    await world.advance(1000);
    const after = watch(client.resolve('b', 'x'));
    await world.settle();
    expect(before).toMatchObject({ state: 'rejected', error: { code: told } });
    expect(after).toMatchObject({ state: 'rejected', error: { code } });
  });

  test.each(['PERMISSION_DENIED', 'PRECONDITION_FAILED'] as const)(
    'of policies are in doubt, too, where an answer was lost and the next one is %s',
    async (code) => {
      const world = new World();
      const server = world.server('wss://a');
      const client = world.client();
      const applied = watch(client.applyPolicies(Buffer.from('{}'), { ifRevision: 4 }));
      await world.settle();
      server.connection.break();
      server.handle = () => failed(code, 'it is so');
      await world.advance(1000);
      expect(applied).toMatchObject({
        state: 'rejected',
        error: { code: 'OUTCOME_UNKNOWN', message: expect.stringContaining('whether applying the policies') },
      });
      const next = watch(client.applyPolicies(Buffer.from('{}'), { ifRevision: 4 }));
      await world.settle();
      expect(next).toMatchObject({ state: 'rejected', error: { code } });
    },
  );

  test('that the cluster cannot serve are tried again under the same number within their timeout', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = (request) => (request.body.kind === 'write' ? failed('UNAVAILABLE') : opened);
    const client = world.client();
    const write = watch(client.resolve('a', 'x', { timeoutMs: 10_000 }));
    await world.advance(3_000);
    const tries = server.connection.of('write');
    expect(tries.length).toBeGreaterThan(3);
    expect(tries.every(({ body }) => body.sequence === 1)).toBe(true);
    expect(tries.at(-1)?.timeoutMs).toBeLessThan(9_000);
    server.handle = serves;
    await world.advance(2_000);
    expect(write.state).toBe('fulfilled');
  });

  test('that time out say that they may still happen, and are cancelled at the server', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = opensSessions;
    const client = world.client();
    const write = watch(client.resolve('a', 'x', { timeoutMs: 1_000 }));
    await world.advance(1_000);
    expect(write.error).toMatchObject({ code: 'TIMED_OUT', mayHaveHappened: true });
    expect(String(write.error)).toContain('may happen');
    const [sent] = server.connection.of('write');
    expect(server.connection.of('cancel')[0]?.body.request).toBe(sent?.id);
    watch(client.resolve('b', 'x'));
    await world.settle();
    expect(server.connection.of('write').at(-1)?.body).toMatchObject({ sequence: 2, answeredBelow: 2 });
  });

  test('are never more unanswered than the server remembers answers', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = opensSessions;
    server.welcome = { ...welcome, limits: { ...welcome.limits, requestsInFlightMax: 100_000 } };
    const client = world.client();
    for (let index = 0; index < 5_000; index += 1) watch(client.touch(`k/${String(index)}`, 5));
    await world.settle();
    expect(server.connection.of('write')).toHaveLength(4096);
    server.connection.answer(server.connection.of('write')[0]?.id ?? 0, written(1));
    await world.settle();
    expect(server.connection.of('write')).toHaveLength(4097);
  });

  test('a batch is one write, and its failure names the operation', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = (request) =>
      request.body.kind === 'write'
        ? { kind: 'failed', failure: { code: 'ALREADY_SETTLED', message: 'b has its value', operation: 1 } }
        : opened;
    const client = world.client();
    const batch = watch(client.batch((b) => b.declare('a').resolve('b', { json: { n: 1 } }, { ttlMs: 5 })));
    await world.settle();
    expect(server.connection.of('write')[0]?.body.operations).toMatchObject([
      { kind: 'declare', key: 'a', tied: true, renew: false },
      { kind: 'resolve', key: 'b', contentType: 'application/json', ttlMs: 5 },
    ]);
    expect(batch.error).toMatchObject({
      code: 'ALREADY_SETTLED',
      operation: 1,
      name: 'OperationFailedError',
    });
  });

  test('with a bad argument are refused before they are sent, without the value in the text', async () => {
    const world = new World();
    world.server('wss://a');
    const client = world.client();
    await expect(client.resolve('/x', 'v')).rejects.toMatchObject({ code: 'INVALID_KEY' });
    await expect(client.resolve('x', 'v', { ttlMs: -1 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(client.resolve('x', 'v', { timeoutMs: 0.5 })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(client.resolve('x', Buffer.alloc(1024 * 1024 + 1, 's'))).rejects.toMatchObject({
      code: 'VALUE_TOO_LARGE',
      message: expect.not.stringContaining('ssss') as string,
    });
    await expect(client.batch([])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

test('pitfall 40: whatever breaks, no write happens twice, and every answered one happened', async () => {
  for (let seed = 1; seed <= 30; seed += 1) {
    const random = randomOf(seed);
    const world = new World();
    world.random = random;
    /** What a cluster would keep: sessions with their answers, and how often each key was written. */
    const sessions = new Map<string, Map<number, AnswerBody>>();
    const applied = new Map<string, number>();
    for (const endpoint of ['wss://a', 'wss://b', 'wss://c']) {
      const server = world.server(endpoint);
      const bound = new WeakMap<object, string>();
      server.handle = (request, connection) => {
        const { body } = request;
        if (random() < 0.05) return failed(random() < 0.5 ? 'UNAVAILABLE' : 'TOO_MANY_REQUESTS');
        let answer: AnswerBody | undefined;
        if (body.kind === 'open_session') {
          const known = sessions.has(body.session);
          // Now and then the cluster forgets a session that was confirmed.
          if (body.resume && known && random() < 0.1) sessions.delete(body.session);
          if (body.resume && !sessions.has(body.session)) return failed('SESSION_EXPIRED');
          if (!sessions.has(body.session)) sessions.set(body.session, new Map());
          bound.set(connection, body.session);
          answer = opened;
        } else if (body.kind === 'write') {
          const answers = sessions.get(bound.get(connection) ?? '');
          if (answers === undefined) return failed('SESSION_EXPIRED');
          answer = answers.get(body.sequence);
          if (answer === undefined) {
            const key = body.operations[0]?.key ?? '';
            applied.set(key, (applied.get(key) ?? 0) + 1);
            answer = written(body.sequence);
            answers.set(body.sequence, answer);
          }
        }
        // The line may break before the answer leaves.
        if (random() < 0.15) {
          world.defer(() => {
            connection.break();
          });
          return undefined;
        }
        return answer;
      };
    }
    const client = world.client();
    const writes = new Map<string, ReturnType<typeof watch>>();
    for (let index = 0; index < 60; index += 1) {
      const key = `k/${String(index)}`;
      writes.set(key, watch(client.resolve(key, 'x', random() < 0.2 ? { timeoutMs: 300 } : {})));
      if (random() < 0.5) await world.advance(Math.floor(random() * 200));
    }
    await world.advance(300_000);
    for (const [key, write] of writes) {
      const times = applied.get(key) ?? 0;
      expect(times, `seed ${String(seed)}: ${key}`).toBeLessThanOrEqual(1);
      expect(write.state, `seed ${String(seed)}: ${key}`).not.toBe('pending');
      if (write.state === 'fulfilled') expect(times, `seed ${String(seed)}: ${key}`).toBe(1);
      else
        expect(['OUTCOME_UNKNOWN', 'TIMED_OUT', 'UNAVAILABLE']).toContain(
          (write.error as { code: string }).code,
        );
    }
    await Promise.all([client.close(), world.advance(5_000)]);
    expect(world.timerCount).toBe(0);
  }
});

test('however late and out of order answers come, each says what happened, or that it cannot be known', async () => {
  for (let seed = 1; seed <= 12; seed += 1) {
    const random = randomOf(seed);
    const world = new World();
    world.random = random;
    /** What a cluster would keep: answers by session and sequence, and how often each key was written. */
    const sessions = new Map<string, Map<number, AnswerBody>>();
    const floors = new Map<string, number>();
    const applied = new Map<string, number>();
    const execute = (session: string, body: Extract<Request['body'], { kind: 'write' }>): AnswerBody => {
      const answers = sessions.get(session);
      if (answers === undefined) return failed('SESSION_EXPIRED');
      const floor = Math.max(floors.get(session) ?? 0, body.answeredBelow);
      floors.set(session, floor);
      for (const sequence of answers.keys()) if (sequence < floor) answers.delete(sequence);
      if (body.sequence < floor) return failed('STALE_REQUEST');
      const before = answers.get(body.sequence);
      if (before !== undefined) return before;
      const key = body.operations[0]?.key ?? '';
      applied.set(key, (applied.get(key) ?? 0) + 1);
      const answer = written(body.sequence);
      answers.set(body.sequence, answer);
      return answer;
    };
    const open = (session: string, resume: boolean): AnswerBody => {
      // Now and then the cluster forgets a session that was confirmed.
      if (resume && random() < 0.1) sessions.delete(session);
      if (resume && !sessions.has(session)) return failed('SESSION_EXPIRED');
      if (!sessions.has(session)) sessions.set(session, new Map());
      return random() < 0.05 ? failed('TIMED_OUT') : opened;
    };
    for (const endpoint of ['wss://a', 'wss://b', 'wss://c']) {
      const server = world.server(endpoint);
      const bound = new WeakMap<object, string>();
      server.handle = ({ id, body }, connection) => {
        const answerIn = (ms: number, work: () => AnswerBody): undefined => {
          world.setTimer(ms, () => {
            const answer = work();
            // The line may break before the answer leaves.
            if (random() < 0.1) connection.break();
            else connection.answer(id, answer);
          });
        };
        if (random() < 0.03) {
          const goaway = { graceMs: 200, reason: 'elsewhere' };
          world.setTimer(random() * 100, () => {
            connection.sendFrame({ goaway });
          });
        }
        // At the door, whatever the session remembers.
        if (body.kind === 'write' && random() < 0.08) return failed('PERMISSION_DENIED');
        if (random() < 0.08) return failed(random() < 0.5 ? 'UNAVAILABLE' : 'RATE_LIMITED');
        if (body.kind === 'open_session') {
          bound.set(connection, body.session);
          return answerIn(random() * 100, () => open(body.session, body.resume));
        }
        if (body.kind !== 'write') return undefined;
        const session = bound.get(connection);
        if (session === undefined) return failed('UNAVAILABLE');
        if (random() < 0.1) {
          world.setTimer(100 + random() * 400, () => void execute(session, body));
          return answerIn(50, () => failed('TIMED_OUT'));
        }
        const happensInMs = 100 + random() * 50;
        let answer: AnswerBody = failed('TIMED_OUT');
        world.setTimer(happensInMs, () => {
          answer = execute(session, body);
        });
        return answerIn(happensInMs + 1 + random() * 200, () => answer);
      };
    }
    const client = world.client({ sessionGraceMs: 60_000 });
    const writes = new Map<string, ReturnType<typeof watch>>();
    for (let index = 0; index < 60; index += 1) {
      const key = `k/${String(index)}`;
      writes.set(key, watch(client.resolve(key, 'x', random() < 0.2 ? { timeoutMs: 300 } : {})));
      if (random() < 0.5) await world.advance(Math.floor(random() * 200));
    }
    await world.advance(300_000);
    for (const [key, write] of writes) {
      const times = applied.get(key) ?? 0;
      const where = `seed ${String(seed)}: ${key}`;
      expect(times, where).toBeLessThanOrEqual(1);
      expect(write.state, where).not.toBe('pending');
      const code = write.state === 'fulfilled' ? 'done' : (write.error as { code: string }).code;
      if (code === 'done') expect(times, where).toBe(1);
      else if (code === 'PERMISSION_DENIED') expect(times, where).toBe(0);
      else expect(['OUTCOME_UNKNOWN', 'TIMED_OUT', 'UNAVAILABLE'], where).toContain(code);
    }
    await Promise.all([client.close(), world.advance(5_000)]);
    expect(client.state.kind, `seed ${String(seed)}`).toBe('closed');
  }
});
