import { describe, expect, test } from 'vitest';
import { codecs, limits, messages, protobufCodec } from '../../src/protocol/index.ts';
import type { FrameCodec, Operation, Request, RequestBody } from '../../src/protocol/index.ts';
import { messageToJson } from '../../src/protocol/json-mapping.ts';

type RequestMessage = messages.agent.Request.$Properties;

/** Encodes what the codecs' own encoders would refuse. */
function encodeUnchecked(codec: FrameCodec, request: RequestMessage): Uint8Array {
  const frame = { requests: [{ id: 7, ...request }] };
  return codec.binary
    ? messages.agent.ClientFrame.encode(frame).finish()
    : new TextEncoder().encode(JSON.stringify(messageToJson('ClientFrame', frame)));
}

const write = (operation: messages.agent.Operation.$Properties): RequestMessage => ({
  write: {
    sequence: 1,
    operations: [{ key: 'good' }, operation].map((one) => ({
      delete: one === operation ? null : {},
      ...one,
    })),
  },
});

const newServer = { name: 'server-4', peersAddress: 'fs4:7431', agentsUrl: 'wss://fs4:7421' };

const many = <T>(count: number, one: T): T[] => Array.from({ length: count }, () => one);

describe.each(codecs)('$subprotocol refuses a request, naming field and value, for', (codec) => {
  test.each<[string, RequestMessage, string, RegExp]>([
    ['no body', {}, 'INVALID_ARGUMENT', /^body is missing/],
    ['a timeout of 0', { timeoutMs: 0, status: {} }, 'INVALID_ARGUMENT', /^timeout_ms is 0/],
    [
      'a timeout beyond the limit',
      { timeoutMs: limits.durationMsMax + 1, status: {} },
      'INVALID_ARGUMENT',
      /^timeout_ms is 31622400\d+/,
    ],
    ['a bad key', { get: { key: 'a//b' } }, 'INVALID_KEY', /^get\.key "a\/\/b" has an empty segment/],
    ['no key', { get: {} }, 'INVALID_KEY', /^get\.key "" is empty/],
    ['a pattern in place of a key', { get: { key: 'a/*' } }, 'INVALID_KEY', /'\*'/],
    [
      'a variable in a pattern',
      { list: { pattern: '${node}/a' } },
      'INVALID_KEY',
      /^list\.pattern "\$\{node\}\/a" has the variable/,
    ],
    [
      'a page too large',
      { list: { pattern: '**', limit: 1001 } },
      'INVALID_ARGUMENT',
      /^list\.limit is 1001/,
    ],
    ['a bad start of a page', { list: { pattern: '**', after: '*' } }, 'INVALID_KEY', /^list\.after/],
    ['nothing to wait for', { await: {} }, 'INVALID_ARGUMENT', /^await\.alternatives is empty/],
    [
      'an alternative without keys',
      { await: { alternatives: [{}] } },
      'INVALID_ARGUMENT',
      /^await\.alternatives\[0\]\.keys is empty/,
    ],
    [
      'a key twice in an alternative',
      { await: { alternatives: [{ keys: ['a', 'a'] }] } },
      'INVALID_ARGUMENT',
      /twice/,
    ],
    [
      '65 alternatives',
      { await: { alternatives: many(65, { keys: ['a'] }) } },
      'LIMIT_EXCEEDED',
      /65 entries/,
    ],
    [
      '257 keys',
      { await: { alternatives: many(1, { keys: many(257, 'a') }) } },
      'LIMIT_EXCEEDED',
      /257 keys/,
    ],
    [
      'a generation of 0',
      { await: { alternatives: [{ keys: ['a'] }], leastGeneration: 0 } },
      'INVALID_ARGUMENT',
      /least_generation is 0/,
    ],
    ['no pattern', { subscribe: {} }, 'INVALID_ARGUMENT', /^subscribe\.patterns is empty/],
    ['65 patterns', { subscribe: { patterns: many(65, 'a') } }, 'LIMIT_EXCEEDED', /65 entries/],
    ['only_new: false', { subscribe: { patterns: ['a'], onlyNew: false } }, 'INVALID_ARGUMENT', /only_new/],
    [
      'a position of no cluster',
      { subscribe: { patterns: ['a'], position: { revision: 5 } } },
      'INVALID_ARGUMENT',
      /cluster_id/,
    ],
    [
      'a session id too short',
      { openSession: { sessionId: new Uint8Array(15), graceMs: 5000 } },
      'INVALID_ARGUMENT',
      /session_id is not 16 bytes/,
    ],
    [
      'a grace too short',
      { openSession: { sessionId: new Uint8Array(16), graceMs: 999 } },
      'INVALID_ARGUMENT',
      /grace_ms is 999/,
    ],
    ['cancelling request 0', { cancel: {} }, 'INVALID_ARGUMENT', /request_id is 0/],
    ['adding nobody', { memberAdd: {} }, 'INVALID_ARGUMENT', /^member_add\.name is ""/],
    [
      'a name that is more than a segment',
      { memberAdd: { ...newServer, name: 'a/b' } },
      'INVALID_ARGUMENT',
      /^member_add\.name is "a\/b"/,
    ],
    [
      'a long name',
      { memberAdd: { ...newServer, name: 'a'.repeat(65) } },
      'INVALID_ARGUMENT',
      /^member_add\.name/,
    ],
    [
      "a peers' address without a port",
      { memberAdd: { ...newServer, peersAddress: 'a' } },
      'INVALID_ARGUMENT',
      /^member_add\.peers_address is "a"/,
    ],
    [
      "a peers' address with port 0",
      { memberAdd: { ...newServer, peersAddress: 'a:0' } },
      'INVALID_ARGUMENT',
      /^member_add\.peers_address is "a:0"/,
    ],
    [
      'a URL without TLS',
      { memberAdd: { ...newServer, agentsUrl: 'ws://a:1' } },
      'INVALID_ARGUMENT',
      /^member_add\.agents_url is "ws:\/\/a:1"/,
    ],
    [
      'a URL with a path',
      { memberAdd: { ...newServer, agentsUrl: 'wss://a:1/x' } },
      'INVALID_ARGUMENT',
      /^member_add\.agents_url/,
    ],
    [
      'replacing a member that no one can be',
      { memberAdd: { ...newServer, replaces: limits.memberIdMax + 1 } },
      'INVALID_ARGUMENT',
      /^member_add\.replaces is 2147483649/,
    ],
    ['promoting nobody', { memberPromote: {} }, 'INVALID_ARGUMENT', /^member_promote\.member is 0/],
    ['removing nobody', { memberRemove: {} }, 'INVALID_ARGUMENT', /^member_remove\.member is 0/],
    [
      'a leader that no one can be',
      { transferLeader: { member: 2 ** 32 } },
      'INVALID_ARGUMENT',
      /^transfer_leader\.member is 4294967296/,
    ],
    ['draining nobody', { drainServer: {} }, 'INVALID_ARGUMENT', /^drain_server\.member is 0/],
    [
      'draining for more than an hour',
      { drainServer: { member: 1, graceMs: 3_600_001 } },
      'INVALID_ARGUMENT',
      /^drain_server\.grace_ms is 3600001: .* 1\.\.3600000/,
    ],
    [
      'rebalancing for more than an hour',
      { rebalance: { graceMs: 3_600_001 } },
      'INVALID_ARGUMENT',
      /^rebalance\.grace_ms is 3600001/,
    ],
    [
      'a later part of no snapshot',
      { snapshotRead: { part: 3 } },
      'INVALID_ARGUMENT',
      /^snapshot_read\.part is 3 of no snapshot/,
    ],
    [
      'a write without sequence',
      { write: { operations: [{ key: 'a', delete: {} }] } },
      'INVALID_ARGUMENT',
      /^write\.sequence is 0/,
    ],
    [
      'a write answered already',
      { write: { sequence: 1, answeredBelow: 2, operations: [{ key: 'a', delete: {} }] } },
      'INVALID_ARGUMENT',
      /answered_below is 2/,
    ],
    ['a write of nothing', { write: { sequence: 1 } }, 'INVALID_ARGUMENT', /^write\.operations is empty/],
    [
      '257 operations',
      { write: { sequence: 1, operations: many(257, { key: 'a', delete: {} }) } },
      'LIMIT_EXCEEDED',
      /more than 256/,
    ],
    [
      'an operation without a body',
      write({ key: 'a' }),
      'INVALID_ARGUMENT',
      /^write\.operations\[1\]\.body is missing/,
    ],
    [
      'an operation on a bad key',
      write({ key: 'a b', delete: {} }),
      'INVALID_KEY',
      /^write\.operations\[1\]\.key "a b"/,
    ],
    [
      'a contradiction',
      write({ key: 'a', delete: {}, ifAbsent: true, ifRevision: 5 }),
      'INVALID_ARGUMENT',
      /contradicts/,
    ],
    ['if_revision 0', write({ key: 'a', delete: {}, ifRevision: 0 }), 'INVALID_ARGUMENT', /use if_absent/],
    [
      'a deadline of 0',
      write({ key: 'a', declare: { deadlineMs: 0 } }),
      'INVALID_ARGUMENT',
      /declare\.deadline_ms is 0/,
    ],
    ['a TTL of 0', write({ key: 'a', resolve: { ttlMs: 0 } }), 'INVALID_ARGUMENT', /resolve\.ttl_ms is 0/],
    ['a touch without TTL', write({ key: 'a', touch: {} }), 'INVALID_ARGUMENT', /touch\.ttl_ms is 0/],
    [
      'a content type with a line break',
      write({ key: 'a', resolve: { contentType: 'a\nb' } }),
      'INVALID_ARGUMENT',
      /content_type is "a\\nb"/,
    ],
    [
      'a long content type',
      write({ key: 'a', resolve: { contentType: 'x'.repeat(129) } }),
      'INVALID_ARGUMENT',
      /content_type/,
    ],
    [
      'a rejection code in small letters',
      write({ key: 'a', reject: { code: 'nope' } }),
      'INVALID_ARGUMENT',
      /reject\.code is "nope"/,
    ],
    [
      'a long rejection message',
      write({ key: 'a', reject: { message: 'ä'.repeat(2049) } }),
      'INVALID_ARGUMENT',
      /4096 bytes/,
    ],
  ])('%s', (_name, request, code, message) => {
    const received = codec.decodeClientFrame(encodeUnchecked(codec, request)).requests;
    expect(received).toMatchObject([{ id: 7, refused: { code } }]);
    expect(received[0]).toHaveProperty('refused.message', expect.stringMatching(message));
  });

  test('a hello that is no printable ASCII or too long condemns the frame', () => {
    for (const clientName of ['ä', 'x'.repeat(129), 'a\u0007']) {
      const frame = { hello: { clientName } };
      const bytes = codec.binary
        ? messages.agent.ClientFrame.encode(frame).finish()
        : new TextEncoder().encode(JSON.stringify(frame));
      expect(() => codec.decodeClientFrame(bytes)).toThrow(/hello\.client_name/);
    }
  });

  test('absent content type, rejection code and page size get their defaults', () => {
    const frame = encodeUnchecked(codec, {
      write: {
        sequence: 1,
        operations: [
          { key: 'a', resolve: {} },
          { key: 'b', reject: {} },
        ],
      },
    });
    expect(codec.decodeClientFrame(frame).requests).toMatchObject([
      {
        body: {
          operations: [
            { contentType: 'text/plain; charset=utf-8' },
            { rejection: { code: 'REJECTED', message: '' } },
          ],
        },
      },
    ]);
    const list = encodeUnchecked(codec, { list: { pattern: '**' } });
    expect(codec.decodeClientFrame(list).requests).toMatchObject([{ body: { limit: 100 } }]);
  });
});

const resolve = (value: Uint8Array, more: Partial<Operation> = {}): RequestBody => ({
  kind: 'write',
  sequence: 1,
  answeredBelow: 0,
  operations: [
    {
      kind: 'resolve',
      key: 'a',
      preconditions: {},
      value,
      contentType: 'x',
      sensitive: false,
      supersede: false,
      ...more,
    } as Operation,
  ],
});

describe('sizes', () => {
  test('a value of exactly 1 MiB fits, a byte more does not', () => {
    const value = new Uint8Array(limits.valueBytesMax);
    const frame = protobufCodec.encodeClientFrame({ requests: [{ id: 1, body: resolve(value) }] });
    const [received] = protobufCodec.decodeClientFrame(frame).requests;
    expect(received).toHaveProperty('body.operations.0.value.length', value.length);
    const larger = encodeUnchecked(
      protobufCodec,
      write({ key: 'a', resolve: { value: new Uint8Array(limits.valueBytesMax + 1) } }),
    );
    expect(protobufCodec.decodeClientFrame(larger).requests).toMatchObject([
      { refused: { code: 'VALUE_TOO_LARGE', operation: 1 } },
    ]);
  });
});

describe.each(codecs)('$subprotocol does not send', (codec) => {
  const send =
    (request: Request): (() => unknown) =>
    () =>
      codec.encodeClientFrame({ requests: [request] });

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])('the number %d', (number) => {
    expect(send({ id: number, body: { kind: 'status' } })).toThrow(/id/);
    expect(send({ id: 1, timeoutMs: number, body: { kind: 'status' } })).toThrow(/timeout_ms/);
    expect(send({ id: 1, body: { kind: 'cancel', request: number } })).toThrow(/request_id/);
    expect(send({ id: 1, body: resolve(new Uint8Array(0), { ttlMs: number }) })).toThrow(/ttl_ms/);
    expect(() =>
      codec.encodeServerFrame({ answers: [{ id: number, body: { kind: 'cancelled' } }], pushes: [] }),
    ).toThrow(/ids are/);
    if (number === 0) return;
    expect(() => codec.encodeServerFrame({ answers: [], pushes: [], revision: number })).toThrow(
      /whole number/,
    );
  });

  test('a key against the grammar, and says so with the code the server would use', () => {
    expect(send({ id: 1, body: { kind: 'get', key: 'a//b', stale: false } })).toThrow(
      expect.objectContaining({ code: 'INVALID_KEY' }),
    );
  });

  test('two requests with one id', () => {
    const body = { kind: 'status' } as const;
    expect(() =>
      codec.encodeClientFrame({
        requests: [
          { id: 2, body },
          { id: 1, body },
          { id: 2, body },
        ],
      }),
    ).toThrow(/two requests/);
  });

  test('anything worse after a frame that could not be encoded', () => {
    const good = { requests: [{ id: 1, body: { kind: 'status' } as const }] };
    const before = codec.encodeClientFrame(good);
    expect(() =>
      codec.encodeServerFrame({
        answers: [],
        pushes: [{ subscription: 1, changes: [], revision: -1, caughtUp: false }],
      }),
    ).toThrow();
    expect(codec.encodeClientFrame(good)).toEqual(before);
  });
});
