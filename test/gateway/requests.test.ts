import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { jsonCodec, protobufCodec } from '../../src/protocol/index.ts';
import type { AnswerBody, Operation, RequestBody } from '../../src/protocol/index.ts';
import { issue } from './certificates.ts';
import { hello, openSession, session, startGateway, subscribe } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

const value = new TextEncoder().encode('http://web1:8080');

const operation = (kind: Operation['kind'], key: string, bytes = value): Operation => {
  const base = { key, preconditions: {} };
  switch (kind) {
    case 'declare':
      return { ...base, kind, renew: false, tied: false };
    case 'resolve':
      return { ...base, kind, value: bytes, contentType: 'text/plain', sensitive: false, supersede: false };
    case 'reject':
      return { ...base, kind, rejection: { code: 'NO', message: 'no' }, supersede: false };
    case 'delete':
      return { ...base, kind };
    case 'touch':
      return { ...base, kind, ttlMs: 1000 };
    default:
      return kind satisfies never;
  }
};

const write = (...operations: Operation[]): RequestBody => ({
  kind: 'write',
  sequence: 1,
  answeredBelow: 1,
  operations,
});

const get = (key: string): RequestBody => ({ kind: 'get', key, stale: false });

const written: AnswerBody = {
  kind: 'written',
  result: { revision: 42, results: [{ generation: 1, state: 'resolved', revision: 42, unchanged: false }] },
};

let rig: Rig;
let agent: TestAgent;

/** The gateway's answers of this turn have arrived when a later request's has. */
const deliver = (id: number, body: AnswerBody, connection = 1): void => {
  rig.gateway.deliver([{ kind: 'answer', connection, request: id, body }]);
};

describe.each([protobufCodec, jsonCodec])('over $subprotocol', (codec) => {
  beforeEach(async () => {
    rig = await startGateway();
    agent = await rig.greeted({ codec });
  });
  afterEach(() => rig.close());

  test('hello is welcomed with who is who and what the limits are', () => {
    expect(agent.frames[0]?.welcome).toMatchObject({
      clusterId: 'c0ffee',
      epoch: 3,
      revision: 41,
      serverId: 2,
      serverName: 'server-2',
      principal: 'puppet:web1',
      endpoints: ['wss://one:7421', 'wss://two:7421'],
      limits: { valueBytesMax: 1024 * 1024, requestsInFlightMax: 4096, subscriptionsMax: 1024 },
    });
    expect(rig.gateway.connections).toBe(1);
  });

  test('hello and requests may come together, and a frame of requests is one submission', async () => {
    const eager = await rig.agent({ codec });
    eager.send({
      hello,
      requests: [
        { id: 1, body: openSession },
        { id: 2, timeoutMs: 500, body: write(operation('resolve', 'nodes/web1/out/url')) },
        {
          id: 3,
          body: { kind: 'await', alternatives: [['shared/a'], ['shared/b', 'shared/c']], leastGeneration: 2 },
        },
        {
          id: 4,
          body: { kind: 'list', pattern: 'shared/*', after: '', limit: 10, values: true, stale: true },
        },
        { id: 5, body: subscribe('shared/public/**', 'nodes/web1/*') },
        { id: 6, body: get('shared/a') },
      ],
    });
    await rig.port.until((port) => port.submissions.length === 1);
    const principal = 'puppet:web1';
    expect(rig.port.submissions[0]).toMatchObject([
      { connection: 2, request: 1, kind: 'session_open', session, principal, graceMs: 5000, resume: false },
      {
        connection: 2,
        request: 2,
        kind: 'write',
        session,
        principal,
        sequence: 1,
        answeredBelow: 1,
        timeoutMs: 500,
      },
      { kind: 'await', alternatives: [['shared/a'], ['shared/b', 'shared/c']], leastGeneration: 2 },
      // A deny is about a part of what is allowed: it is looked for among what was asked for alone.
      { kind: 'list', pattern: 'shared/*', within: 'shared/*', limit: 10, values: true, stale: true },
      { kind: 'subscribe', patterns: ['shared/public/**', 'nodes/web1/*'], start: { kind: 'present_state' } },
      { connection: 2, request: 6, kind: 'get', key: 'shared/a', stale: false },
    ]);
    expect(Object.keys(rig.port.submissions[0]?.[4] ?? {})).not.toContain('within');
    expect(Object.keys(rig.port.submissions[0]?.[5] ?? {})).not.toContain('timeoutMs');
  });

  test('answers reach who asked, those of one turn in one frame', async () => {
    const other = await rig.greeted({ codec });
    agent.request(openSession, 1);
    agent.request(write(operation('resolve', 'nodes/web1/out/url')), 2);
    other.request(get('shared/a'), 2);
    await rig.port.until((port) => port.requests.length === 3);
    rig.gateway.deliver([
      { kind: 'answer', connection: 1, request: 1, body: { kind: 'session_opened' } },
      { kind: 'answer', connection: 2, request: 2, body: { kind: 'got', revision: 5, future: undefined } },
      { kind: 'answer', connection: 1, request: 2, body: written },
    ]);
    const answers = [
      { id: 1, body: { kind: 'session_opened' } },
      { id: 2, body: written },
    ];
    expect((await agent.frame()).answers).toEqual(answers);
    expect((await other.frame()).answers).toMatchObject([{ id: 2, body: { kind: 'got', revision: 5 } }]);
  });

  test('a request id in flight is refused, and the first keeps its answer', async () => {
    agent.request(get('shared/a'), 7);
    agent.request(get('shared/b'), 7);
    expect((await agent.failure(7)).code).toBe('PROTOCOL_ERROR');
    deliver(7, { kind: 'got', revision: 5, future: undefined });
    await agent.until((frames) => frames.flatMap((frame) => frame.answers).length === 2);
    expect(await agent.answer(7)).toMatchObject({ kind: 'got' });
    agent.request(get('shared/a'), 7);
    await rig.port.until((port) => port.requests.length === 2);
  });
});

describe('what is not allowed', () => {
  beforeEach(async () => {
    rig = await startGateway();
    agent = await rig.greeted();
    agent.request(openSession, 1000);
  });
  afterEach(() => rig.close());

  test.each<[string, string, RequestBody]>([
    ['get', 'nodes/web2/out/url', get('nodes/web2/out/url')],
    [
      'await',
      'nodes/web2/x',
      { kind: 'await', alternatives: [['shared/a'], ['nodes/web1/x', 'nodes/web2/x']] },
    ],
    [
      'list',
      'nodes/**',
      { kind: 'list', pattern: 'nodes/**', after: '', limit: 10, values: false, stale: false },
    ],
    [
      'list',
      'shared/**',
      { kind: 'list', pattern: 'shared/**', after: '', limit: 10, values: false, stale: false },
    ],
    ['subscribe', 'nodes/*/out/url', subscribe('nodes/web1/**', 'nodes/*/out/url')],
    ['declare', 'nodes/web1/in/x', write(operation('declare', 'nodes/web1/in/x'))],
    ['resolve', 'nodes/web10/out/x', write(operation('resolve', 'nodes/web10/out/x'))],
    ['reject', 'nodes/web1', write(operation('reject', 'nodes/web1'))],
    ['delete', 'shared/a', write(operation('delete', 'shared/a'))],
    ['touch', 'shared/a', write(operation('delete', 'nodes/web1/out/a'), operation('touch', 'shared/a'))],
  ])('%s of %s is answered so, and the server is not asked', async (verb, key, body) => {
    const id = agent.request(body, 5);
    expect(await agent.failure(id)).toMatchObject({
      code: 'PERMISSION_DENIED',
      message: `puppet:web1 may not ${verb} ${key}: no policy allows it`,
    });
    expect(rig.port.requests.map((request) => request.request)).toEqual([1000]);
    expect(rig.log.lines).toContainEqual({
      level: 'warn',
      message: 'a request was refused',
      fields: {
        audit: 'refused',
        connection: 1,
        principal: 'puppet:web1',
        verb,
        key,
        code: 'PERMISSION_DENIED',
      },
    });
    expect(rig.counts.all).toContain('refused PERMISSION_DENIED');
  });

  test('a write names its operation that is forbidden', async () => {
    const id = agent.request(
      write(operation('delete', 'nodes/web1/out/a'), operation('delete', 'shared/a')),
      5,
    );
    expect(await agent.failure(id)).toMatchObject({ operation: 1 });
  });

  test('pitfall 49: a subscription that goes on from a position is authorised like a new one', async () => {
    const position = { clusterId: 'a-cluster', epoch: 1, revision: 7 };
    const start = { kind: 'after', position } as const;
    const id = agent.request({ kind: 'subscribe', patterns: ['shared/**'], start }, 5);
    expect(await agent.failure(id)).toMatchObject({ code: 'PERMISSION_DENIED' });
    expect(rig.port.requests.some((request) => request.kind === 'subscribe')).toBe(false);
  });

  test('status needs its own verb', async () => {
    expect((await agent.failure(agent.request({ kind: 'status' }, 5))).message).toContain(
      'may not ask for cluster.status',
    );
    const credentials = await issue(rig.world.puppet, { subject: 'CN=admin' });
    const admin = await rig.greeted({ credentials });
    admin.request({ kind: 'status' }, 1);
    await rig.port.until((port) => port.requests.some((request) => request.kind === 'status'));
  });

  const newServer = { name: 'server-4', peersAddress: 'fs4:7431', agentsUrl: 'wss://fs4:7421' };
  const requests: readonly (readonly [string, RequestBody])[] = [
    ['member.list', { kind: 'member_list' }],
    ['member.change', { kind: 'member_add', ...newServer }],
    ['member.change', { kind: 'member_add', ...newServer, replaces: 2 }],
    ['member.change', { kind: 'member_promote', member: 4 }],
    ['member.change', { kind: 'member_remove', member: 4 }],
    ['member.change', { kind: 'transfer_leader' }],
    ['cluster.drain', { kind: 'drain_server', member: 2, graceMs: 5000, end: false }],
    ['cluster.drain', { kind: 'drain_server', member: 2, end: true }],
    ['cluster.rebalance', { kind: 'rebalance' }],
    ['snapshot.save', { kind: 'snapshot_read', part: 0 }],
  ];

  test('what is about the cluster itself needs its own verb, and no wildcard is one', async () => {
    const credentials = await issue(rig.world.puppet, { subject: 'CN=onlooker' });
    const onlooker = await rig.greeted({ credentials });
    for (const [verb, body] of requests) {
      const failure = {
        code: 'PERMISSION_DENIED',
        message: `puppet:web1 may not ask for ${verb}: no policy allows it`,
      };
      expect(await agent.failure(agent.request(body))).toMatchObject(failure);
      if (verb !== 'member.list')
        expect((await onlooker.failure(onlooker.request(body))).code).toBe('PERMISSION_DENIED');
    }
    onlooker.request({ kind: 'member_list' }, 500);
    await rig.port.until((port) => port.requests.length === 2);
    expect(rig.port.requests[1]).toMatchObject({ request: 500, kind: 'member_list' });
  });

  test('who may has the server asked, with all of the request', async () => {
    const credentials = await issue(rig.world.puppet, { subject: 'CN=admin' });
    const admin = await rig.greeted({ credentials });
    for (const [, body] of requests) admin.request(body);
    await rig.port.until((port) => port.requests.length === 1 + requests.length);
    expect(rig.port.requests.slice(1)).toEqual(
      requests.map(([, body]) => expect.objectContaining({ ...body, connection: 2 })),
    );
    const changes = rig.port.requests.filter(({ kind }) => /^member_(add|promote|remove)$/.test(kind));
    expect(changes).toHaveLength(4);
    for (const change of changes) expect(change).toMatchObject({ by: { principal: { name: 'admin' } } });
  });

  test("a value above the policy's limit is refused, and its bytes are told nobody", async () => {
    const secret = new TextEncoder().encode('SECRETSECRETSECRET');
    const id = agent.request(write(operation('resolve', 'nodes/web1/small/x', secret)), 5);
    const failure = await agent.failure(id);
    expect(failure).toMatchObject({ code: 'VALUE_TOO_LARGE', operation: 0 });
    expect(failure.message).toMatch(/18 bytes, but 16 /);
    expect(JSON.stringify([failure, rig.log.lines])).not.toContain('SECRET');
    agent.request(write(operation('resolve', 'nodes/web1/small/x', secret.subarray(0, 16))), 6);
    await rig.port.until((port) => port.requests.length === 2);
  });

  test('the audit counts what it does not log one by one', async () => {
    const many = Array.from({ length: 50 }, (_, index) => ({ id: index + 1, body: get('nodes/web2/x') }));
    agent.send({ requests: many });
    await agent.answer(50);
    const audited = (): number => rig.log.lines.filter((line) => line.fields['verb'] === 'get').length;
    expect(audited()).toBe(20);
    agent.ws.close();
    await rig.port.until((port) => port.notices.some((notice) => notice.kind === 'closed'));
    expect(rig.log.lines.map((line) => line.fields['suppressed'])).toContain(30);
  });
});

describe('a session', () => {
  beforeEach(async () => {
    rig = await startGateway();
    agent = await rig.greeted();
  });
  afterEach(() => rig.close());

  const resolve = write(operation('resolve', 'nodes/web1/out/url'));

  const expired: AnswerBody = { kind: 'failed', failure: { code: 'SESSION_EXPIRED', message: 'gone' } };

  test('must be open before there are writes', async () => {
    expect(await agent.failure(agent.request(resolve))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('open_session'),
    });
    expect((await agent.failure(agent.request({ kind: 'close_session' }))).code).toBe('INVALID_ARGUMENT');
    expect(rig.port.requests).toEqual([]);
  });

  test('is one for a connection', async () => {
    agent.request(openSession);
    const failure = await agent.failure(agent.request(openSession));
    expect(failure.code).toBe('INVALID_ARGUMENT');
    expect(failure.message).not.toContain(session);
  });

  test('is free again after it was closed', async () => {
    agent.request(openSession, 1);
    deliverAfter(1, { kind: 'session_opened' });
    await agent.answer(1);
    agent.request({ kind: 'close_session' }, 2);
    await rig.port.until((port) => port.requests.length === 2);
    expect(rig.port.requests[1]).toMatchObject({ kind: 'session_close', session, principal: 'puppet:web1' });
    deliver(2, { kind: 'session_closed' });
    await agent.answer(2);
    expect((await agent.failure(agent.request(resolve))).code).toBe('INVALID_ARGUMENT');
    agent.request(openSession, 5);
    await rig.port.until((port) => port.requests.length === 3);
  });

  test('whose writes the log refuses has them in the audit: the reason, and no value', async () => {
    const refusals = ['PERMISSION_DENIED', 'QUOTA_EXCEEDED', 'ALREADY_SETTLED'] as const;
    agent.request(openSession, 1);
    for (const index of refusals.keys()) agent.request(resolve, index + 2);
    await rig.port.until((port) => port.requests.length === 4);
    deliver(1, { kind: 'session_opened' });
    for (const [index, code] of refusals.entries()) {
      deliver(index + 2, { kind: 'failed', failure: { code, message: `${code} of nodes/web1/out/url` } });
      await agent.answer(index + 2);
    }
    const audited = rig.log.lines.filter(({ fields }) => fields['audit'] === 'refused');
    expect(audited.map(({ fields }) => fields)).toMatchObject([
      { verb: 'write', code: 'PERMISSION_DENIED', principal: 'puppet:web1' },
      { verb: 'write', code: 'QUOTA_EXCEEDED', reason: 'QUOTA_EXCEEDED of nodes/web1/out/url' },
    ]);
    expect(audited.length).toBe(2);
  });

  test('that has expired makes room for another, which late answers to the old one do not end', async () => {
    agent.send({
      requests: [
        { id: 1, body: openSession },
        { id: 2, body: resolve },
        { id: 3, body: resolve },
      ],
    });
    await rig.port.until((port) => port.requests.length === 3);
    deliver(1, { kind: 'session_opened' });
    deliver(2, expired);
    await agent.answer(2);
    const another = 'ff'.repeat(16);
    agent.request({ kind: 'open_session', session: another, graceMs: 5000, resume: false }, 4);
    await rig.port.until((port) => port.requests.length === 4);
    deliver(4, { kind: 'session_opened' });
    deliver(3, expired);
    await agent.answer(3);
    agent.request(resolve, 5);
    await rig.port.until((port) => port.requests.length === 5);
    expect(rig.port.requests[4]).toMatchObject({ kind: 'write', session: another });
    agent.ws.close();
    await rig.port.until((port) => port.notices.length > 0);
    expect(rig.port.notices).toEqual([{ kind: 'closed', connection: 1, session: another }]);
  });

  test('is not over for a write that overtook its opening', async () => {
    agent.send({
      requests: [
        { id: 1, body: openSession },
        { id: 2, body: resolve },
      ],
    });
    await rig.port.until((port) => port.requests.length === 2);
    deliver(2, expired);
    expect((await agent.failure(2)).code).toBe('SESSION_EXPIRED');
    deliver(1, { kind: 'session_opened' });
    await agent.answer(1);
    agent.request(resolve, 3);
    await rig.port.until((port) => port.requests.length === 3);
    expect(rig.port.requests[2]).toMatchObject({ kind: 'write', session });
  });

  test('whose opening failed may be asked for again, and its end is told in case it was opened', async () => {
    agent.request(openSession, 1);
    deliverAfter(1, { kind: 'failed', failure: { code: 'TIMED_OUT', message: 'late' } });
    expect((await agent.failure(1)).code).toBe('TIMED_OUT');
    // Which a sender that does not know yet that the opening failed is to try again.
    expect((await agent.failure(agent.request(resolve, 2))).code).toBe('UNAVAILABLE');
    agent.ws.close();
    await rig.port.until((port) => port.notices.length > 0);
    expect(rig.port.notices).toEqual([{ kind: 'closed', connection: 1, session }]);
  });

  const deliverAfter = (request: number, body: AnswerBody): void => {
    rig.port.onSubmit = (requests) => {
      if (requests.some((each) => each.request === request)) queueMicrotask(() => deliver(request, body));
    };
  };
});

describe('limits', () => {
  beforeEach(async () => {
    rig = await startGateway({ requestsInFlightMax: 3, subscriptionsMax: 2 });
    agent = await rig.greeted();
  });
  afterEach(() => rig.close());

  test('requests beyond those in flight are refused, until there are answers', async () => {
    agent.send({ requests: [1, 2, 3, 4].map((id) => ({ id, body: get('shared/a') })) });
    expect((await agent.failure(4)).code).toBe('TOO_MANY_REQUESTS');
    expect(rig.port.requests).toHaveLength(3);
    deliver(2, { kind: 'got', revision: 1, future: undefined });
    await agent.answer(2);
    agent.request(get('shared/a'), 5);
    await rig.port.until((port) => port.requests.length === 4);
  });

  test('a cancel is taken all the same', async () => {
    agent.send({ requests: [1, 2, 3].map((id) => ({ id, body: get('shared/a') })) });
    expect(await agent.answer(agent.request({ kind: 'cancel', request: 2 }, 9))).toEqual({
      kind: 'cancelled',
    });
    expect((await agent.failure(2)).code).toBe('CANCELLED');
  });

  test('subscriptions are counted, those asked for and those live, and freed by their end', async () => {
    agent.request(subscribe('shared/a'), 1);
    agent.request(subscribe('shared/b'), 2);
    expect((await agent.failure(agent.request(subscribe('shared/c'), 3))).code).toBe('LIMIT_EXCEEDED');
    const position = { clusterId: 'c0ffee', epoch: 3, revision: 10 };
    deliver(1, { kind: 'subscribed', position, reset: false });
    deliver(2, { kind: 'failed', failure: { code: 'UNAVAILABLE', message: 'later' } });
    await agent.answer(2);
    agent.request(subscribe('shared/c'), 4);
    await rig.port.until((port) => port.requests.length === 3);
    deliver(4, { kind: 'subscribed', position, reset: false });
    expect((await agent.failure(agent.request(subscribe('shared/d'), 5))).code).toBe('LIMIT_EXCEEDED');
    rig.gateway.deliver([
      {
        kind: 'ended',
        connection: 1,
        subscription: 1,
        failure: { code: 'PERMISSION_DENIED', message: 'revoked' },
      },
    ]);
    agent.request(subscribe('shared/d'), 6);
    await rig.port.until((port) => port.requests.length === 4);
  });
});

describe('parts of snapshots', () => {
  const part = (number: number, bytes: number): AnswerBody => ({
    kind: 'snapshot_part',
    part: {
      snapshot: 7,
      part: number,
      records: new Uint8Array(bytes),
      checksum: 0,
      last: false,
      recordsTotal: 0,
      clusterId: 'c0ffee',
      epoch: 3,
      revision: 10,
      index: 12,
      term: 2,
    },
  });
  let admin: TestAgent;

  beforeEach(async () => {
    rig = await startGateway();
    admin = await rig.greeted({ credentials: await issue(rig.world.puppet, { subject: 'CN=admin' }) });
  });
  afterEach(() => rig.close());

  test('are asked for two at a time: what waits for a slow reader is bounded', async () => {
    const read: RequestBody = { kind: 'snapshot_read', snapshot: 7, part: 1 };
    admin.send({ requests: [1, 2, 3].map((id) => ({ id, body: read })) });
    expect(await admin.failure(3)).toMatchObject({
      code: 'TOO_MANY_REQUESTS',
      message: expect.stringContaining('2 parts'),
    });
    deliver(1, part(1, 100));
    expect(await admin.answer(1)).toMatchObject({ kind: 'snapshot_part', part: { part: 1 } });
    admin.request(read, 4);
    await rig.port.until((port) => port.requests.length === 3);
    expect((await admin.failure(admin.request(read, 5))).code).toBe('TOO_MANY_REQUESTS');
    admin.request({ kind: 'cancel', request: 2 }, 6);
    await admin.answer(6);
    admin.request(read, 7);
    await rig.port.until((port) => port.requests.length === 4);
  });

  test('may be as large as a client accepts: small records and then one of the greatest size', async () => {
    const bytes = 256 * 1024 + 1024 * 1024 + 4096;
    admin.request({ kind: 'snapshot_read', part: 0 }, 1);
    await rig.port.until((port) => port.requests.length === 1);
    deliver(1, part(0, bytes));
    expect(await admin.answer(1)).toMatchObject({ part: { records: { length: bytes } } });
  });
});

describe('cancelling', () => {
  beforeEach(async () => {
    rig = await startGateway();
    agent = await rig.greeted();
  });
  afterEach(() => rig.close());

  test('answers what is cancelled and the cancel, tells the server, and drops a late answer', async () => {
    agent.request({ kind: 'await', alternatives: [['shared/a']] }, 1);
    expect(await agent.answer(agent.request({ kind: 'cancel', request: 1 }, 2))).toEqual({
      kind: 'cancelled',
    });
    expect(await agent.failure(1)).toMatchObject({ code: 'CANCELLED' });
    expect(rig.port.notices).toEqual([{ kind: 'cancel', connection: 1, request: 1 }]);
    deliver(1, { kind: 'awaited', alternative: 0, futures: [] });
    expect(await agent.answer(agent.request({ kind: 'cancel', request: 99 }, 3))).toEqual({
      kind: 'cancelled',
    });
    expect(agent.frames.flatMap((frame) => frame.answers).filter((answer) => answer.id === 1)).toHaveLength(
      1,
    );
    expect(rig.port.notices).toHaveLength(1);
  });

  test('reaches a request of the same frame', async () => {
    agent.send({
      requests: [
        { id: 2, body: { kind: 'cancel', request: 1 } },
        { id: 1, body: { kind: 'await', alternatives: [['shared/a']] } },
      ],
    });
    expect(await agent.failure(1)).toMatchObject({ code: 'CANCELLED' });
    expect(rig.port.requests).toHaveLength(1);
    expect(rig.port.notices).toEqual([{ kind: 'cancel', connection: 1, request: 1 }]);
  });

  test('ends a subscription with its last position', async () => {
    agent.request(subscribe('shared/a'), 2);
    await rig.port.until((port) => port.requests.length === 1);
    deliver(2, {
      kind: 'subscribed',
      position: { clusterId: 'c0ffee', epoch: 3, revision: 10 },
      reset: false,
    });
    await agent.answer(2);
    agent.request({ kind: 'cancel', request: 2 }, 3);
    await agent.answer(3);
    expect(agent.frames.flatMap((frame) => frame.pushes)).toMatchObject([
      { subscription: 2, changes: [], revision: 10, ended: { code: 'CANCELLED' } },
    ]);
    expect(rig.port.notices).toEqual([{ kind: 'cancel', connection: 1, request: 2 }]);
    // What the server had sent meanwhile goes nowhere, but counts as taken.
    rig.gateway.deliver([
      { kind: 'push', connection: 1, subscription: 2, changes: [], revision: 12, caughtUp: true, bytes: 77 },
    ]);
    expect(rig.port.delivered()).toBe(77);
  });
});

describe('an answer that no frame can hold', () => {
  test('becomes an error that says what to do', async () => {
    rig = await startGateway();
    agent = await rig.greeted();
    agent.request({ kind: 'await', alternatives: [['shared/a', 'shared/b']] }, 1);
    await rig.port.until((port) => port.requests.length === 1);
    const large = {
      generation: 1,
      state: 'resolved',
      revision: 1,
      value: new Uint8Array(1024 * 1024),
      contentType: 'application/octet-stream',
      sensitive: false,
      producer: 'puppet:web1',
      changedAtMs: 1,
    } as const;
    const [a, b] = [
      { ...large, key: 'shared/a' },
      { ...large, key: 'shared/b' },
    ];
    deliver(1, { kind: 'awaited', alternative: 0, futures: [a, b] });
    expect(await agent.failure(1)).toMatchObject({
      code: 'LIMIT_EXCEEDED',
      message: expect.stringContaining('fewer keys'),
    });
    agent.request({ kind: 'await', alternatives: [['shared/a']] }, 2);
    await rig.port.until((port) => port.requests.length === 2);
    deliver(2, { kind: 'awaited', alternative: 0, futures: [a] });
    expect(await agent.answer(2)).toMatchObject({ kind: 'awaited' });
    await rig.close();
  });
});
