import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  codecs,
  FuturestoreError,
  jsonCodec,
  limits,
  messages,
  protobufCodec,
} from '../../src/protocol/index.ts';
import type { FrameCodec, ReceivedClientFrame } from '../../src/protocol/index.ts';
import { messageToJson } from '../../src/protocol/json-mapping.ts';
import { Writer } from '../../src/protocol/protobuf.ts';
import { asSent, clientFrame, serverFrame } from './arbitraries.ts';

/** What a decoder may do with bytes from strangers: give a frame, or throw PROTOCOL_ERROR. */
function survives(codec: FrameCodec, bytes: Uint8Array): void {
  for (const side of ['client', 'server']) {
    try {
      if (side === 'client') codec.decodeClientFrame(bytes);
      else codec.decodeServerFrame(bytes);
    } catch (error) {
      expect(error).toBeInstanceOf(FuturestoreError);
      expect(error).toMatchObject({ code: 'PROTOCOL_ERROR' });
    }
  }
}

const received = (codec: FrameCodec, bytes: Uint8Array): ReceivedClientFrame['requests'] =>
  codec.decodeClientFrame(bytes).requests;

/** Valid protobuf of any fields and wire types, nested. */
const { tree } = fc.letrec<{ tree: Uint8Array }>((tie) => ({
  tree: fc
    .array(
      fc.tuple(
        fc.integer({ min: 1, max: 16 }),
        fc.oneof(
          { depthSize: 'small', withCrossShrink: true },
          fc.record({ wire: fc.constant(0 as const), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
          fc.record({
            wire: fc.constant(2 as const),
            value: fc.oneof(fc.uint8Array({ maxLength: 40 }), tie('tree')),
          }),
          fc.record({ wire: fc.constantFrom(1 as const, 5 as const), value: fc.constant(undefined) }),
          fc.record({ wire: fc.constant(3 as const), value: tie('tree') }),
        ),
      ),
      { maxLength: 6 },
    )
    .map((fields) => {
      const writer = Writer.create();
      for (const [number, { wire, value }] of fields) {
        writer.uint32((number << 3) | wire);
        if (typeof value === 'bigint') writer.raw(varint(value));
        else if (wire === 2) writer.bytes(value ?? new Uint8Array(0));
        else if (wire === 3) writer.raw(value ?? new Uint8Array(0)).uint32((number << 3) | 4);
        else writer.raw(new Uint8Array(wire === 1 ? 8 : 4));
      }
      return writer.finish();
    }),
}));

function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let left = value;
  for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
  bytes.push(Number(left));
  return Uint8Array.from(bytes);
}

/** A frame of one request with a body of the given field, written by hand. */
function requestFrame(write: (writer: ReturnType<typeof Writer.create>) => void, id = 7): Uint8Array {
  const writer = Writer.create().uint32(18).fork();
  if (id > 0) writer.uint32(8).uint64(id);
  write(writer);
  return writer.ldelim().finish();
}

const listOf = (...members: messages.agent.Member.$Properties[]): messages.agent.Answer.$Properties => ({
  memberList: { members },
});

describe.each(codecs)('$subprotocol', (codec) => {
  test('arbitrary bytes give a frame or PROTOCOL_ERROR, nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => survives(codec, bytes)),
      { numRuns: 1000 },
    );
  });

  test('arbitrary messages give a frame or PROTOCOL_ERROR, nothing else', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          tree,
          fc.json().map((text) => new TextEncoder().encode(text)),
        ),
        (bytes) => survives(codec, bytes),
      ),
      { numRuns: 1000 },
    );
  });

  test('valid frames with flipped, cut or repeated bytes give a frame or PROTOCOL_ERROR, nothing else', () => {
    const frame = fc.oneof(
      clientFrame.map((one) => codec.encodeClientFrame(one)),
      serverFrame.map((one) => codec.encodeServerFrame(asSent(one))),
    );
    const flips = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(frame, flips, fc.nat(), (valid, changes, cut) => {
        const bytes = Uint8Array.from(valid);
        for (const [at, flip] of changes) bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ flip;
        survives(codec, bytes);
        survives(codec, valid.subarray(0, cut % valid.length));
        survives(codec, Buffer.concat([valid, valid]));
      }),
      { numRuns: 400 },
    );
  });

  test.each<[string, messages.agent.Answer.$Properties, RegExp]>([
    ['a member of unknown standing', listOf({ id: 1, standing: 'observer', wanted: 'voter' }), /"observer"/],
    ['a member without a standing', listOf({ id: 1, wanted: 'voter' }), /standing is ""/],
    ['an unknown wish', listOf({ id: 1, standing: 'voter', wanted: 'VOTER' }), /wanted is "VOTER"/],
    ['a member without an id', listOf({ standing: 'voter', wanted: 'voter' }), /has 0 after 0/],
    [
      'members out of order',
      listOf({ id: 2, standing: 'voter', wanted: 'voter' }, { id: 2, standing: 'voter', wanted: 'voter' }),
      /has 2 after 2/,
    ],
    ['a change of nobody', { memberChanged: {} }, /member_changed\.member is missing/],
    ['a leader that is nobody', { leaderTransferred: {} }, /leader_transferred\.member is missing/],
    ['a part of no snapshot', { snapshotPart: { part: 1 } }, /snapshot_part\.snapshot is missing/],
  ])('a client does not believe %s', (_what, answer, problem) => {
    const frame = { answers: [{ id: 1, ...answer }] };
    const sent = codec.binary
      ? messages.agent.ServerFrame.encode(frame).finish()
      : new TextEncoder().encode(JSON.stringify(messageToJson('ServerFrame', frame)));
    expect(() => codec.decodeServerFrame(sent)).toThrow(problem);
  });

  test('a frame with nothing in it is refused in both directions', () => {
    const nothing = new TextEncoder().encode(codec.binary ? '' : '{}');
    expect(() => codec.decodeClientFrame(nothing)).toThrow(/nothing in it/);
    expect(() => codec.decodeServerFrame(nothing)).toThrow(/nothing in it/);
    expect(() => codec.encodeClientFrame({ requests: [] })).toThrow(/needs a hello or a request/);
    expect(() => codec.encodeServerFrame({ answers: [], pushes: [] })).toThrow(/nothing in it/);
  });

  test('a frame above the limit is refused before it is looked at', () => {
    const bytes = new Uint8Array(limits.frameBytesMax + 1);
    expect(() => codec.decodeClientFrame(bytes)).toThrow(/at most/);
  });
});

describe('futurestore.v1.protobuf', () => {
  test.each([0, 1])(
    'a request without an id, or with one that is there twice, condemns the frame (%i)',
    (again) => {
      const one = requestFrame(
        (writer) =>
          writer
            .uint32((11 << 3) | 2)
            .fork()
            .ldelim(),
        again === 0 ? 0 : 7,
      );
      const frame =
        again === 0
          ? one
          : Buffer.concat([
              one,
              requestFrame((writer) => writer.uint32(90).bytes(new Uint8Array(0)), 8),
              one,
            ]);
      expect(() => protobufCodec.decodeClientFrame(frame)).toThrow(FuturestoreError);
    },
  );

  test.each([2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n])(
    'the number %s is refused, not rounded',
    (value) => {
      const frame = requestFrame((writer) =>
        writer.uint32(16).raw(varint(value)).uint32(90).bytes(new Uint8Array(0)),
      );
      expect(received(protobufCodec, frame)).toEqual([
        { id: 7, refused: { code: 'INVALID_ARGUMENT', message: 'timeout_ms is larger than 2^53-1' } },
      ]);
    },
  );

  test('a 32-bit field is not cut to its low bits', () => {
    const list = Writer.create()
      .uint32(10)
      .string('a')
      .uint32(24)
      .raw(varint(2n ** 32n + 5n))
      .finish();
    const [request] = received(
      protobufCodec,
      requestFrame((writer) => writer.uint32(58).bytes(list)),
    );
    expect(request).toMatchObject({ id: 7, refused: { code: 'INVALID_ARGUMENT' } });
  });

  test('a varint of more than ten bytes condemns the frame', () => {
    const frame = requestFrame((writer) =>
      writer.uint32(16).raw(new Uint8Array(10).fill(0x81)).raw(Uint8Array.of(1)),
    );
    expect(() => protobufCodec.decodeClientFrame(frame)).toThrow(/more than ten bytes/);
  });

  test.each([
    [
      'in the request',
      (): Uint8Array =>
        requestFrame((writer) => writer.uint32(90).bytes(new Uint8Array(0)).uint32(120).uint32(1)),
    ],
    [
      'in a message inside',
      (): Uint8Array => requestFrame((writer) => writer.uint32(50).bytes(Uint8Array.of(10, 1, 97, 120, 1))),
    ],
    [
      'of another wire type',
      (): Uint8Array =>
        requestFrame((writer) =>
          writer.uint32(90).bytes(new Uint8Array(0)).uint32(17).raw(new Uint8Array(8)),
        ),
    ],
  ])('an unknown field %s refuses that request, and only that', (_where, frame) => {
    const good = requestFrame((writer) => writer.uint32(90).bytes(new Uint8Array(0)), 9);
    expect(received(protobufCodec, Buffer.concat([frame(), good]))).toMatchObject([
      { id: 7, refused: { code: 'PROTOCOL_ERROR' } },
      { id: 9, body: { kind: 'status' } },
    ]);
  });

  test('an unknown field of the frame or the hello condemns the frame', () => {
    expect(() => protobufCodec.decodeClientFrame(Uint8Array.of(0x78, 1))).toThrow(/does not know/);
    expect(() => protobufCodec.decodeClientFrame(Uint8Array.of(10, 2, 0x78, 1))).toThrow(/does not know/);
  });

  test('an unknown state, and a field from a newer version, condemn a server frame', () => {
    const future = Uint8Array.of(10, 1, 97, 16, 1, 24, 9, 32, 1);
    const answer = Writer.create()
      .uint32(18)
      .fork()
      .uint32(8)
      .uint32(1)
      .uint32(50)
      .fork()
      .uint32(18)
      .bytes(future)
      .ldelim()
      .ldelim();
    expect(() => protobufCodec.decodeServerFrame(answer.finish())).toThrow(/no known state/);
    expect(() => protobufCodec.decodeServerFrame(Uint8Array.of(40, 1, 120, 1))).toThrow(/does not know/);
  });

  test('text that is no UTF-8 condemns the frame', () => {
    const frame = requestFrame((writer) => writer.uint32(50).bytes(Uint8Array.of(10, 2, 0xc3, 0x28)));
    expect(() => protobufCodec.decodeClientFrame(frame)).toThrow(/no valid protobuf/);
  });

  test('more parts than a useful frame has stop the decoder half-way', () => {
    const operations = new Uint8Array(limits.frameBytesMax - 100).map((_, index) =>
      index % 2 === 0 ? 26 : 0,
    );
    const frame = requestFrame((writer) => writer.uint32(42).bytes(operations));
    expect(() => protobufCodec.decodeClientFrame(frame)).toThrow(/too many parts/);
    const requests = new Uint8Array(limits.frameBytesMax).map((_, index) => [18, 2, 8, 1][index % 4] ?? 0);
    expect(() => protobufCodec.decodeClientFrame(requests)).toThrow(FuturestoreError);
  });

  test('a frame has at most as many requests as may be in flight', () => {
    const frames = Array.from({ length: limits.requestsInFlightPerConnectionMax + 1 }, (_, index) =>
      requestFrame((writer) => writer.uint32(90).bytes(new Uint8Array(0)), index + 1),
    );
    expect(received(protobufCodec, Buffer.concat(frames.slice(1)))).toHaveLength(
      limits.requestsInFlightPerConnectionMax,
    );
    expect(() => protobufCodec.decodeClientFrame(Buffer.concat(frames))).toThrow(/more than 4096 requests/);
  });
});

describe('futurestore.v1.json', () => {
  const decode = (text: string): ReceivedClientFrame =>
    jsonCodec.decodeClientFrame(new TextEncoder().encode(text));
  const request = (members: string): unknown => decode(`{"requests":[{"id":7,${members}}]}`).requests[0];

  test('names of the .proto and numbers in place of strings are accepted', () => {
    expect(decode('{"requests":[{"id":"7","timeout_ms":5,"cancel":{"requestId":3}}]}')).toEqual({
      requests: [{ id: 7, timeoutMs: 5, body: { kind: 'cancel', request: 3 } }],
    });
  });

  test.each([
    ['an unknown field', '"status":{},"extra":1', 'PROTOCOL_ERROR'],
    ['__proto__', '"status":{},"__proto__":{"timeoutMs":5}', 'PROTOCOL_ERROR'],
    ['both names of a field', '"status":{},"timeoutMs":1,"timeout_ms":1', 'PROTOCOL_ERROR'],
    ['two bodies', '"status":{},"get":{"key":"a"}', 'PROTOCOL_ERROR'],
    ['a text in place of a number', '"status":{},"timeoutMs":"soon"', 'PROTOCOL_ERROR'],
    ['base64 with a hole', '"openSession":{"sessionId":"AAA=A","graceMs":1000}', 'PROTOCOL_ERROR'],
    ['half a surrogate pair', '"get":{"key":"\\ud800"}', 'PROTOCOL_ERROR'],
    ['a negative duration', '"status":{},"timeoutMs":-5', 'INVALID_ARGUMENT'],
    ['a fraction', '"status":{},"timeoutMs":1.5', 'INVALID_ARGUMENT'],
    ['a number above 2^53', '"status":{},"timeoutMs":9007199254740993', 'INVALID_ARGUMENT'],
    ['a number that a double would round', '"status":{},"timeoutMs":5.0000000000000001', 'INVALID_ARGUMENT'],
    ['a string above 2^53', '"status":{},"timeoutMs":"18446744073709551616"', 'INVALID_ARGUMENT'],
  ])('%s refuses the request', (_name, members, code) => {
    expect(request(members)).toMatchObject({ id: 7, refused: { code } });
  });

  test.each([
    ['a member that is there twice', '{"requests":[{"id":7,"status":{},"status":{}}]}'],
    ['too deep', `{"requests":${'['.repeat(500_000)}`],
    ['something behind it', '{"hello":{}} x'],
    ['a comment', '{"hello":{}/**/}'],
    ['an open string', '{"hello'],
    ['no frame', '[]'],
    ['an unknown field', '{"hello":{},"x":1}'],
    ['two requests with one id', '{"requests":[{"id":7,"status":{}},{"id":"7","status":{}}]}'],
    ['a request without an id', '{"requests":[{"status":{}}]}'],
  ])('%s condemns the frame', (_name, text) => {
    expect(() => decode(text)).toThrow(FuturestoreError);
  });

  test('the payload of a value is never shown', () => {
    expect(
      JSON.stringify(
        request('"write":{"sequence":1,"operations":[{"key":"a","resolve":{"value":"c2Vjcm!V0"}}]}'),
      ),
    ).not.toMatch(/c2Vjcm/);
  });
});
