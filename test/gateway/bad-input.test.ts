import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { fc } from '@fast-check/vitest';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { jsonCodec, messages, protobufCodec } from '../../src/protocol/index.ts';
import type { FrameCodec } from '../../src/protocol/index.ts';
import { hello, openSession, startGateway } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

let rig: Rig;
let bystander: TestAgent;

beforeAll(async () => {
  rig = await startGateway();
  rig.port.onSubmit = (requests) => {
    queueMicrotask(() => {
      rig.gateway.deliver(
        requests.map(({ connection, request }) => ({
          kind: 'answer',
          connection,
          request,
          body: { kind: 'got', revision: 1, future: undefined },
        })),
      );
    });
  };
  bystander = await rig.greeted();
});

afterAll(() => rig.close());

/** Whatever was sent before: who was there is served, and who comes is. */
afterEach(async () => {
  const get = { kind: 'get', key: 'shared/a', stale: false } as const;
  expect(await bystander.answer(bystander.request(get))).toMatchObject({ kind: 'got' });
  const newcomer = await rig.greeted();
  expect(await newcomer.answer(newcomer.request(get))).toMatchObject({ kind: 'got' });
  newcomer.ws.close();
  await newcomer.closed;
});

const rawSocket = (agent: TestAgent): Socket => {
  const socket: unknown = Reflect.get(agent.ws, '_socket');
  return socket as Socket;
};

/** A client's WebSocket frame with a mask of zeros, which ws itself would not make. */
const rawFrame = (firstByte: number, payload: Buffer): Buffer => {
  const length =
    payload.length < 126
      ? Buffer.from([0x80 | payload.length])
      : Buffer.from([0x80 | 126, payload.length >> 8, payload.length & 255]);
  return Buffer.concat([Buffer.from([firstByte]), length, Buffer.alloc(4), payload]);
};

const protobufFrame = (frame: Parameters<typeof messages.agent.ClientFrame.encode>[0]): Uint8Array =>
  messages.agent.ClientFrame.encode(frame).finish();

describe('a frame that is not to be trusted ends its connection with 4500', () => {
  const wholeFrames: readonly (readonly [string, FrameCodec, Uint8Array | string])[] = [
    ['no protobuf', protobufCodec, Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['nothing at all', protobufCodec, new Uint8Array()],
    ['an unknown field', protobufCodec, Uint8Array.of(0x78, 1)],
    ['a request without an id', protobufCodec, protobufFrame({ requests: [{ get: { key: 'a' } }] })],
    ['an id past 2^53', protobufCodec, Uint8Array.of(0x12, 11, 0x08, ...Array<number>(9).fill(0xff), 1)],
    ['a length beyond its end', protobufCodec, Uint8Array.of(0x12, 0xff, 0xff, 0xff, 0xff, 0x0f)],
    ['no JSON', jsonCodec, '{"requests":'],
    ['no object', jsonCodec, '[1]'],
    ['an unknown field in JSON', jsonCodec, '{"requets":[]}'],
    ['an id past 2^53 in JSON', jsonCodec, '{"requests":[{"id":"9007199254740992","status":{}}]}'],
    ['deep nesting', jsonCodec, '['.repeat(100_000)],
    ['a prototype', jsonCodec, '{"__proto__":{"hello":{}}}'],
  ];

  test.each(wholeFrames)('%s (%o)', async (_what, codec, frame) => {
    const agent = await rig.greeted({ codec });
    agent.sendRaw(frame);
    const closed = await agent.closed;
    expect(closed.code).toBe(4500);
    expect(Buffer.byteLength(closed.reason)).toBeLessThanOrEqual(123);
    expect(closed.reason).not.toBe('');
    expect(agent.frames).toHaveLength(1);
  });

  test.each([protobufCodec, jsonCodec])('the other kind of message over $subprotocol', async (codec) => {
    const agent = await rig.greeted({ codec });
    const frame = codec.encodeClientFrame({ requests: [{ id: 1, body: { kind: 'status' } }] });
    agent.sendRaw(codec.binary ? 'text' : frame, !codec.binary);
    expect(await agent.closed).toMatchObject({
      code: 4500,
      reason: expect.stringContaining('messages only'),
    });
  });

  test.each([protobufCodec, jsonCodec])(
    'requests before hello, and a second hello, over $subprotocol',
    async (codec) => {
      const early = await rig.agent({ codec });
      early.send({ requests: [{ id: 1, body: openSession }] });
      expect(await early.closed).toMatchObject({ code: 4500, reason: expect.stringContaining('no hello') });
      const twice = await rig.greeted({ codec });
      twice.send({ hello, requests: [{ id: 1, body: openSession }] });
      expect(await twice.closed).toMatchObject({
        code: 4500,
        reason: expect.stringContaining('second hello'),
      });
      expect(rig.port.requests.filter((request) => request.kind === 'session_open')).toEqual([]);
    },
  );
});

describe('a request that is wrong is answered with what is wrong, and the connection goes on', () => {
  const largeValue = new Uint8Array(1024 * 1024 + 1);

  const requests: readonly (readonly [string, string, Uint8Array])[] = [
    [
      'a key with an empty segment',
      'INVALID_KEY',
      protobufFrame({ requests: [{ id: 1, get: { key: 'a//b' } }] }),
    ],
    [
      'a key with ..',
      'INVALID_KEY',
      protobufFrame({ requests: [{ id: 1, get: { key: 'shared/../nodes/web2' } }] }),
    ],
    ['a key beyond ASCII', 'INVALID_KEY', protobufFrame({ requests: [{ id: 1, get: { key: 'shared/ä' } }] })],
    [
      'a pattern for a key',
      'INVALID_KEY',
      protobufFrame({ requests: [{ id: 1, get: { key: 'shared/*' } }] }),
    ],
    [
      'a variable in a pattern',
      'INVALID_KEY',
      protobufFrame({ requests: [{ id: 1, subscribe: { patterns: ['nodes/${node}/**'] } }] }),
    ],
    [
      'a value above 1 MiB',
      'VALUE_TOO_LARGE',
      protobufFrame({
        requests: [
          {
            id: 1,
            write: { sequence: 1, operations: [{ key: 'nodes/web1/out/x', resolve: { value: largeValue } }] },
          },
        ],
      }),
    ],
    [
      'no operation',
      'INVALID_ARGUMENT',
      protobufFrame({ requests: [{ id: 1, write: { sequence: 1, operations: [] } }] }),
    ],
    ['no body', 'INVALID_ARGUMENT', protobufFrame({ requests: [{ id: 1 }] })],
  ];

  test.each(requests)('%s: %s', async (_what, code, frame) => {
    const agent = await rig.greeted();
    agent.sendRaw(frame);
    expect((await agent.failure(1)).code).toBe(code);
    expect(
      await agent.answer(agent.request({ kind: 'get', key: 'shared/a', stale: false }, 2)),
    ).toMatchObject({ kind: 'got' });
  });

  test.each([
    ['a negative TTL', '{"touch":{"ttlMs":"-5"}}'],
    ['a TTL of zero', '{"touch":{"ttlMs":0}}'],
    ['a TTL past 2^53', '{"touch":{"ttlMs":"9007199254740993"}}'],
    ['a TTL that is no whole number', '{"touch":{"ttlMs":1.5}}'],
    ['a TTL of a million years', '{"touch":{"ttlMs":"31536000000000000"}}'],
  ])('%s', async (_what, operation) => {
    const agent = await rig.greeted({ codec: jsonCodec });
    const body = operation.replace('{', '{"key":"nodes/web1/out/x",');
    agent.sendRaw(`{"requests":[{"id":1,"write":{"sequence":1,"operations":[${body}]}}]}`);
    const outcome = await Promise.race([agent.failure(1), agent.closed]);
    expect([4500, 'INVALID_ARGUMENT', 'PROTOCOL_ERROR']).toContain(outcome.code);
    expect(rig.port.requests.some((request) => request.kind === 'write')).toBe(false);
  });
});

describe('what is too large', () => {
  test.each([protobufCodec, jsonCodec])(
    'before hello ends with 4513, in one frame of $subprotocol',
    async (codec) => {
      const agent = await rig.agent({ codec });
      agent.sendRaw(Buffer.alloc(16 * 1024 + 1, 0x20));
      expect(await agent.closed).toMatchObject({ code: 4513, reason: expect.stringContaining('16384') });
    },
  );

  test('before hello ends with 4513, also when its end never comes', async () => {
    const agent = await rig.agent();
    agent.ws.send(Buffer.alloc(15 * 1024), { binary: true, fin: false });
    for (let sent = 0; sent < 4; sent++) agent.ws.send(Buffer.alloc(1024), { fin: false });
    expect(await agent.closed).toMatchObject({ code: 4513 });
  });

  test('is not what follows hello in the same breath', async () => {
    const agent = await rig.agent();
    const socket = rawSocket(agent);
    socket.cork();
    agent.send({ hello, requests: [] });
    const keys = Array.from({ length: 200 }, (_, index) => `shared/${'x'.repeat(100)}${index}`);
    agent.request({ kind: 'await', alternatives: [keys] }, 1);
    agent.request({ kind: 'get', key: 'shared/a', stale: false }, 2);
    socket.uncork();
    expect(await agent.answer(2)).toMatchObject({ kind: 'got' });
  });

  test('after hello ends with 1009', async () => {
    const agent = await rig.greeted();
    agent.sendRaw(Buffer.alloc(1024 * 1024 + 64 * 1024 + 1));
    expect((await agent.closed).code).toBe(1009);
  });

  test('in tiny fragments is ended too', async () => {
    const agent = await rig.greeted();
    const socket = rawSocket(agent);
    const fragments = Array.from({ length: 5_000 }, (_, index) =>
      rawFrame(index === 0 ? 0x02 : 0x00, Buffer.from([0])),
    );
    socket.write(Buffer.concat(fragments));
    expect((await agent.closed).code).toBe(1008);
  });
});

describe('what is no WebSocket frame', () => {
  test.each([
    ['a reserved opcode', rawFrame(0x83, Buffer.alloc(0)), 1002],
    ['compression that was not agreed', rawFrame(0xc2, Buffer.from([1])), 1002],
    ['no mask', Buffer.from([0x82, 0x01, 0x00]), 1002],
  ])('ends with its code: %s', async (_what, bytes, code) => {
    const agent = await rig.greeted();
    rawSocket(agent).write(bytes);
    expect((await agent.closed).code).toBe(code);
  });

  test('ends with its code: text that is no UTF-8', async () => {
    const agent = await rig.greeted({ codec: jsonCodec });
    rawSocket(agent).write(rawFrame(0x81, Buffer.from([0xff, 0xfe])));
    expect((await agent.closed).code).toBe(1007);
  });

  test('or a connection that is torn in the middle, harms nobody', async () => {
    const agent = await rig.greeted();
    rawSocket(agent).write(randomBytes(3));
    rawSocket(agent).destroy();
    await agent.closed;
  });
});

describe('whatever bytes come', () => {
  test.each([protobufCodec, jsonCodec])('over $subprotocol, there is an answer or 4500', async (codec) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), fc.boolean(), async (bytes, greeted) => {
        const agent = greeted ? await rig.greeted({ codec }) : await rig.agent({ codec });
        // Text has to be UTF-8, or ws ends it before it is a frame at all.
        agent.sendRaw(codec.binary ? bytes : Buffer.from(bytes).toString('latin1'));
        const answered = agent.until((frames) => frames.some((frame) => frame.answers.length > 0));
        const outcome = await Promise.race([agent.closed, answered]);
        if (outcome !== undefined) expect(outcome.code).toBe(4500);
        agent.ws.terminate();
      }),
      { numRuns: 40 },
    );
  });
});
