/** Arbitrary valid frames: what a codec must give back as it took it. */
import * as fc from 'fast-check';
import {
  defaultContentType,
  encodeChange,
  errorDefinitions,
  isErrorCode,
  limits,
} from '../../src/protocol/index.ts';
import type {
  Answer,
  AnswerBody,
  Change,
  ClientFrame,
  Failure,
  Future,
  Operation,
  Preconditions,
  ReceivedServerFrame,
  Request,
  RequestBody,
  Revocation,
  ServerFrame,
  SubscriptionStart,
} from '../../src/protocol/index.ts';

const keyCharacters = 'ABYZabyz0189._~@:=-'.split('');

const segment = fc
  .oneof(
    {
      weight: 20,
      arbitrary: fc.string({ unit: fc.constantFrom(...keyCharacters), minLength: 1, maxLength: 6 }),
    },
    {
      weight: 1,
      arbitrary: fc.string({ unit: fc.constantFrom(...keyCharacters), minLength: 120, maxLength: 128 }),
    },
  )
  .filter((text) => text !== '.' && text !== '..');

const key: fc.Arbitrary<string> = fc
  .array(segment, { minLength: 1, maxLength: 16 })
  .map((segments) => segments.join('/'))
  .filter((text) => text.length <= limits.keyBytesMax);

const pattern: fc.Arbitrary<string> = fc
  .tuple(fc.array(fc.oneof(segment, fc.constant('*')), { minLength: 1, maxLength: 8 }), fc.boolean())
  .map(([segments, rest]) => (rest ? [...segments, '**'] : segments).join('/'))
  .filter((text) => text.length <= limits.keyBytesMax);

/** Whole numbers with the edges of varints and of safe integers among them. */
const whole = (min: number, max: number = Number.MAX_SAFE_INTEGER): fc.Arbitrary<number> => {
  const edges = [127, 128, 2 ** 14, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 49, Number.MAX_SAFE_INTEGER];
  return fc.oneof(
    fc.integer({ min, max: Math.min(max, min + 1000) }),
    fc.integer({ min, max }),
    fc.constantFrom(min, max, ...edges.filter((value) => value > min && value < max)),
  );
};

const number = whole(0);
const identifier = whole(1);
const duration = whole(1, limits.durationMsMax);
const bytes = fc.uint8Array({ maxLength: 300 });
const printable = fc.string({ unit: 'grapheme-ascii', maxLength: 128 });
const text = fc.string({ unit: 'binary', maxLength: 60 });

/** With the prototype that decoded objects have. */
const plain = <R extends object>(required: { [K in keyof R]: fc.Arbitrary<R[K]> }): fc.Arbitrary<R> =>
  fc.record(required, { noNullPrototype: true }) as fc.Arbitrary<R>;

/** A record whose `optional` members are there or not, but never undefined. */
const record = <R extends object, O extends object>(
  required: { [K in keyof R]: fc.Arbitrary<R[K]> },
  optional: { [K in keyof O]: fc.Arbitrary<O[K]> },
): fc.Arbitrary<R & Partial<O>> =>
  fc
    .tuple(plain(required), fc.record(optional, { requiredKeys: [], noNullPrototype: true }))
    .map(([always, sometimes]) => Object.assign({}, always, sometimes) as R & Partial<O>);

const preconditions: fc.Arbitrary<Preconditions> = fc.oneof(
  fc.constant({}),
  fc.constant({ ifAbsent: true }),
  record({}, { ifRevision: identifier, ifGeneration: identifier }),
);

const rejection = plain({
  code: fc.stringMatching(/^[A-Z][A-Z0-9_]{0,63}$/),
  message: text,
});

const contentType = fc.oneof(
  fc.constant(defaultContentType),
  printable.filter((value) => value !== ''),
);

export const operation: fc.Arbitrary<Operation> = fc.oneof(
  record(
    { kind: fc.constant('declare' as const), key, preconditions, renew: fc.boolean(), tied: fc.boolean() },
    { deadlineMs: duration },
  ),
  record(
    {
      kind: fc.constant('resolve' as const),
      key,
      preconditions,
      value: bytes,
      contentType,
      sensitive: fc.boolean(),
      supersede: fc.boolean(),
    },
    { ttlMs: duration },
  ),
  record(
    { kind: fc.constant('reject' as const), key, preconditions, rejection, supersede: fc.boolean() },
    { ttlMs: duration },
  ),
  plain({ kind: fc.constant('delete' as const), key, preconditions }),
  plain({ kind: fc.constant('touch' as const), key, preconditions, ttlMs: duration }),
);

const position = plain({
  clusterId: fc.uuid(),
  epoch: number,
  revision: number,
});

const start: fc.Arbitrary<SubscriptionStart> = fc.oneof(
  plain({ kind: fc.constant('present_state' as const) }),
  plain({ kind: fc.constant('only_new' as const) }),
  plain({ kind: fc.constant('after' as const), position }),
);

const writeBody = plain({
  kind: fc.constant('write' as const),
  sequence: identifier,
  answeredBelow: number,
  operations: fc.array(operation, { minLength: 1, maxLength: 4 }),
}).map((body) => ({ ...body, answeredBelow: Math.min(body.answeredBelow, body.sequence) }));

const memberId = whole(1, limits.memberIdMax);
const memberName = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
const peersAddress = fc
  .tuple(
    fc.oneof(
      fc.domain(),
      fc.ipV4(),
      fc.ipV6().map((address) => `[${address}]`),
    ),
    fc.integer({ min: 1, max: 65_535 }),
  )
  .map(([host, port]) => `${host}:${port}`);
const agentsUrl = peersAddress.map((address) => `wss://${address}`);

const segmentName = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/);
const revocation: fc.Arbitrary<Revocation> = fc.oneof(
  plain({
    kind: fc.constant('certificate' as const),
    realm: segmentName,
    serial: fc.stringMatching(/^[1-9a-f][0-9a-f]{0,39}$/),
  }),
  plain({ kind: fc.constant('principal' as const), realm: segmentName, name: segmentName }),
  plain({
    kind: fc.constant('token' as const),
    realm: segmentName,
    tokenId: fc.stringMatching(/^[\x20-\x7e]{1,40}$/),
  }),
  record(
    { kind: fc.constant('issued_before' as const), realm: segmentName, atMs: identifier },
    { name: segmentName },
  ),
);

const departureGraceMs = whole(1, limits.departureGraceMsMax);

const requestBody: fc.Arbitrary<RequestBody> = fc.oneof(
  plain({
    kind: fc.constant('open_session' as const),
    session: fc.stringMatching(/^[0-9a-f]{32}$/),
    graceMs: whole(limits.sessionGraceMsMin, limits.sessionGraceMsMax),
    resume: fc.boolean(),
  }),
  plain({ kind: fc.constant('close_session' as const) }),
  writeBody,
  plain({ kind: fc.constant('get' as const), key, stale: fc.boolean() }),
  plain({
    kind: fc.constant('list' as const),
    pattern,
    after: fc.oneof(fc.constant(''), key),
    limit: whole(1, limits.listPageFuturesMax),
    values: fc.boolean(),
    stale: fc.boolean(),
  }),
  record(
    {
      kind: fc.constant('await' as const),
      alternatives: fc.array(fc.uniqueArray(key, { minLength: 1, maxLength: 3 }), {
        minLength: 1,
        maxLength: 3,
      }),
    },
    { leastGeneration: identifier },
  ),
  plain({
    kind: fc.constant('subscribe' as const),
    patterns: fc.array(pattern, { minLength: 1, maxLength: 3 }),
    start,
  }),
  plain({ kind: fc.constant('cancel' as const), request: identifier }),
  plain({ kind: fc.constantFrom('clock' as const, 'status' as const) }),
  plain({ kind: fc.constant('member_list' as const) }),
  record(
    { kind: fc.constant('member_add' as const), name: memberName, peersAddress, agentsUrl },
    { replaces: memberId },
  ),
  plain({ kind: fc.constantFrom('member_promote' as const, 'member_remove' as const), member: memberId }),
  record({ kind: fc.constant('transfer_leader' as const) }, { member: memberId }),
  record(
    { kind: fc.constant('drain_server' as const), member: memberId, end: fc.boolean() },
    { graceMs: departureGraceMs },
  ),
  record({ kind: fc.constant('rebalance' as const) }, { graceMs: departureGraceMs }),
  plain({ kind: fc.constant('snapshot_read' as const), part: fc.constant(0) }),
  plain({ kind: fc.constant('snapshot_read' as const), snapshot: identifier, part: number }),
  plain({ kind: fc.constant('acl_get' as const) }),
  record(
    {
      kind: fc.constant('acl_apply' as const),
      document: fc.uint8Array({ minLength: 1, maxLength: 64 }),
      force: fc.boolean(),
    },
    { ifRevision: number },
  ),
  record({ kind: fc.constant('acl_revoke' as const), revocation }, { untilMs: identifier }),
  plain({ kind: fc.constant('acl_restore' as const), revocation }),
);

const request: fc.Arbitrary<Request> = record({ id: identifier, body: requestBody }, { timeoutMs: duration });

export const clientFrame: fc.Arbitrary<ClientFrame> = record(
  { requests: fc.uniqueArray(request, { maxLength: 4, selector: ({ id }) => id }) },
  { hello: plain({ clientName: printable, clientVersion: printable }) },
).filter(({ hello, requests }) => hello !== undefined || requests.length > 0);

const stateParts = fc.oneof(
  record({ state: fc.constant('pending' as const) }, { deadlineAtMs: number }),
  record({ state: fc.constant('resolved' as const) }, { value: bytes, expiresAtMs: number }),
  record({ state: fc.constant('rejected' as const), rejection }, { expiresAtMs: number }),
  record({ state: fc.constant('expired' as const) }, { expiresAtMs: number }),
);

export const future: fc.Arbitrary<Future> = fc
  .tuple(
    plain({
      key,
      generation: identifier,
      revision: number,
      contentType: printable,
      sensitive: fc.boolean(),
      producer: text,
      changedAtMs: number,
    }),
    stateParts,
  )
  .map(([common, parts]) => ({ ...common, ...parts }));

const change: fc.Arbitrary<Change> = fc.oneof(
  fc
    .tuple(number, future)
    .map(([revision, of]): Change => ({ kind: 'future', revision, key: of.key, future: of })),
  plain({ kind: fc.constant('deleted' as const), revision: number, key }),
);

export const failure: fc.Arbitrary<Failure> = record(
  { code: fc.constantFrom(...Object.keys(errorDefinitions).filter(isErrorCode)), message: text },
  { operation: whole(0, 255), retryAfterMs: number },
);

const futures = fc.array(future, { maxLength: 3 });

const member = record(
  {
    id: number,
    name: text,
    role: text,
    term: number,
    commitIndex: number,
    appliedIndex: number,
    keys: number,
    connections: number,
    agentsUrl: text,
    version: text,
    heardMsAgo: fc.option(number, { nil: undefined }),
    lag: number,
  },
  { draining: fc.constant(true as const) },
);

const operationResult = plain({
  generation: number,
  state: fc.constantFrom('pending' as const, 'resolved' as const, 'rejected' as const, 'expired' as const),
  revision: number,
  unchanged: fc.boolean(),
});

const departed: readonly fc.Arbitrary<AnswerBody>[] = [
  plain({
    kind: fc.constant('drained' as const),
    standing: plain({
      member: identifier,
      draining: fc.boolean(),
      agents: number,
      graceMs: number,
      leader: fc.option(identifier, { nil: undefined }),
    }),
  }),
  plain({
    kind: fc.constant('rebalanced' as const),
    rebalanced: plain({
      servers: fc
        .uniqueArray(
          plain({ member: identifier, name: text, agents: number, moving: number, leftOut: fc.boolean() }),
          { maxLength: 4, selector: (share) => share.member },
        )
        .map((list) => list.toSorted((a, b) => a.member - b.member)),
      graceMs: number,
    }),
  }),
];

const members = fc
  .uniqueArray(
    record(
      {
        id: identifier,
        name: text,
        peersAddress: text,
        agentsUrl: text,
        standing: fc.constantFrom(
          'voter' as const,
          'learner' as const,
          'joining' as const,
          'leaving' as const,
        ),
        wanted: fc.constantFrom('voter' as const, 'learner' as const, 'removed' as const),
        reachable: fc.boolean(),
        lag: number,
        joined: fc.boolean(),
      },
      { draining: fc.constant(true as const) },
    ),
    { maxLength: 4, selector: ({ id }) => id },
  )
  .map((list) => list.toSorted((a, b) => a.id - b.id));

const snapshotPart = plain({
  snapshot: identifier,
  part: number,
  records: bytes,
  checksum: whole(0, 2 ** 32 - 1),
  last: fc.boolean(),
  recordsTotal: number,
  clusterId: text,
  epoch: number,
  revision: number,
  index: number,
  term: number,
});

const answerBody: fc.Arbitrary<AnswerBody> = fc.oneof(
  plain({ kind: fc.constant('failed' as const), failure }),
  fc.constantFrom<AnswerBody>({ kind: 'session_opened' }, { kind: 'session_closed' }, { kind: 'cancelled' }),
  plain({
    kind: fc.constant('written' as const),
    result: plain({ revision: number, results: fc.array(operationResult, { maxLength: 3 }) }),
  }),
  plain({
    kind: fc.constant('got' as const),
    revision: number,
    future: fc.option(future, { nil: undefined }),
  }),
  plain({
    kind: fc.constant('listed' as const),
    revision: number,
    futures,
    next: fc.option(key, { nil: undefined }),
  }),
  plain({
    kind: fc.constant('awaited' as const),
    alternative: whole(0, 63),
    futures: fc.array(future, { minLength: 1, maxLength: 3 }),
  }),
  plain({ kind: fc.constant('clock' as const), clusterTimeMs: number }),
  plain({ kind: fc.constant('subscribed' as const), position, reset: fc.boolean() }),
  plain({
    kind: fc.constant('status' as const),
    status: plain({
      clusterId: text,
      epoch: number,
      revision: number,
      serverId: number,
      members: fc.array(member, { maxLength: 2 }),
    }),
  }),
  plain({
    kind: fc.constant('members' as const),
    list: plain({ members, changePending: fc.boolean(), leader: fc.option(identifier, { nil: undefined }) }),
  }),
  plain({
    kind: fc.constantFrom('member_changed' as const, 'leader_transferred' as const),
    member: identifier,
  }),
  ...departed,
  plain({ kind: fc.constant('snapshot_part' as const), part: snapshotPart }),
  plain({ kind: fc.constant('access_changed' as const), revision: number, unchanged: fc.boolean() }),
  plain({
    kind: fc.constant('access' as const),
    access: plain({
      revision: number,
      document: bytes,
      revocations: fc.array(
        plain({ revocation, revision: number, untilMs: fc.option(identifier, { nil: undefined }) }),
        { maxLength: 3 },
      ),
    }),
  }),
);

const answer: fc.Arbitrary<Answer> = plain({ id: identifier, body: answerBody });

const push = record(
  {
    subscription: identifier,
    changes: fc.array(change, { maxLength: 3 }),
    revision: number,
    caughtUp: fc.boolean(),
  },
  { ended: failure },
);

const welcome = plain({
  clusterId: fc.uuid(),
  epoch: number,
  revision: number,
  serverId: number,
  serverName: text,
  principal: text,
  limits: plain({
    frameBytesMax: number,
    valueBytesMax: number,
    requestsInFlightMax: number,
    subscriptionsMax: number,
    operationsPerWriteMax: number,
  }),
  endpoints: fc.array(text, { maxLength: 3 }),
});

/** As a client receives it. */
export const serverFrame: fc.Arbitrary<ReceivedServerFrame> = record(
  {
    answers: fc.uniqueArray(answer, { maxLength: 3, selector: ({ id }) => id }),
    pushes: fc.array(push, { maxLength: 3 }),
  },
  {
    welcome,
    goaway: record(
      { graceMs: number, reason: text },
      { endpoints: fc.array(text, { minLength: 1, maxLength: 3 }), here: fc.constant(true as const) },
    ),
    revision: number,
  },
).filter((frame) => Object.keys(frame).length > 2 || frame.answers.length > 0 || frame.pushes.length > 0);

/** As a server sends it. */
export function asSent(frame: ReceivedServerFrame): ServerFrame {
  return {
    ...frame,
    pushes: frame.pushes.map((one) => ({
      ...one,
      changes: one.changes.map((of) => ({ change: of, encoded: encodeChange(of) })),
    })),
  };
}
