/** What no encoder of ours writes is read by hand as the generated code reads it, or refused by both. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  encodeBriefly,
  encodeWith,
  messages,
  operationFromMessage,
  protobufCodec,
  readOperation,
  StrictReader,
} from '../../src/protocol/index.ts';
import { receiveRequest } from '../../src/protocol/client-frames.ts';
import { decodeCommand, decodeLogEntry } from '../../src/store/index.ts';

const { agent } = messages;
const strict = (bytes: Uint8Array, partsMax = Infinity): StrictReader =>
  new StrictReader(Buffer.from(bytes), partsMax);

const shortVarint = (value: bigint): number[] => {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  return [...bytes, Number(rest)];
};

/** With more bytes than the number needs, where `padding` is not 0. */
const varint = (value: bigint, padding = 0): Buffer => {
  const bytes = shortVarint(value);
  if (padding === 0) return Buffer.from(bytes);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) | 128;
  return Buffer.from([...bytes, ...Array.from({ length: padding - 1 }, () => 128), 0]);
};

const padding = fc.oneof({ weight: 30, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(9) });
const number: fc.Arbitrary<Buffer> = fc
  .tuple(
    fc.oneof(
      { weight: 20, arbitrary: fc.bigInt({ min: 1n, max: 300n }) },
      { weight: 5, arbitrary: fc.constantFrom(0n, 127n, 128n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n - 1n) },
      {
        weight: 1,
        arbitrary: fc.constantFrom(2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n, -1n, -300n),
      },
    ),
    padding,
  )
  .map(([value, zeros]) => varint(value, zeros));

const text: fc.Arbitrary<Buffer> = fc.oneof(
  {
    weight: 30,
    arbitrary: fc
      .oneof(fc.constantFrom('', 'a', 'a/b', 'text/plain'), fc.string({ unit: 'binary', maxLength: 8 }))
      .map((value) => Buffer.from(value)),
  },
  // Halves of surrogate pairs, over-long forms, what ends too early, a byte order mark.
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(
        [0xed, 0xa0, 0x80],
        [0xc0, 0x80],
        [0xf4, 0x90, 0x80, 0x80],
        [0xe2, 0x82],
        [0xff],
        [0xef, 0xbb, 0xbf],
      )
      .map((bytes) => Buffer.from(bytes)),
  },
);
const bytes: fc.Arbitrary<Buffer> = fc
  .oneof(fc.uint8Array({ maxLength: 6 }), fc.uint8Array({ minLength: 120, maxLength: 140 }))
  .map((value) => Buffer.from(value));

const tag = (field: number, wire: number, zeros = 0): Buffer => varint(BigInt(field * 8 + wire), zeros);

const delimited = (payload: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> =>
  fc
    .tuple(
      payload,
      padding,
      fc.oneof({ weight: 100, arbitrary: fc.constant(0) }, fc.integer({ min: -2, max: 3 })),
    )
    .map(([inside, zeros, off]) =>
      Buffer.concat([varint(BigInt(Math.max(0, inside.length + off)), Math.min(3, zeros)), inside]),
    );

/** A field that no message knows, of any wire type, groups within groups among them. */
const stray: fc.Arbitrary<Buffer> = fc
  .tuple(fc.constantFrom(1, 2, 3, 4, 5, 6, 7, 15, 16, 99, 2 ** 20), fc.nat(7), bytes, number)
  .map(([field, wire, some, value]) => {
    if (wire === 0) return Buffer.concat([tag(field, 0), value]);
    if (wire === 2) return Buffer.concat([tag(field, 2), varint(BigInt(some.length)), some]);
    if (wire === 3)
      return Buffer.concat([tag(field, 3), tag(1, 3), tag(1, 0), value, tag(1, 4), tag(field, 4)]);
    return Buffer.concat([tag(field, wire), Buffer.alloc(wire === 1 ? 8 : 4, 7)]);
  });

type Fields = Readonly<Record<number, ['varint' | 'delimited', fc.Arbitrary<Buffer>]>>;

/** The fields in their order or not, some of them several times, with strangers in between. */
const message = (fields: Fields): fc.Arbitrary<Buffer> => {
  const known = Object.entries(fields).map(([name, [wire, payload]]) =>
    fc
      .tuple(
        fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, fc.constantFrom(0, 0, 2)),
        fc.array(wire === 'varint' ? payload : delimited(payload), { minLength: 2, maxLength: 2 }),
        padding,
      )
      .map(([times, values, zeros]) =>
        values
          .slice(0, times)
          .map((value) =>
            Buffer.concat([tag(Number(name), wire === 'varint' ? 0 : 2, Math.min(zeros, 3)), value]),
          ),
      ),
  );
  return fc
    .tuple(
      fc.tuple(...known),
      fc.oneof({ weight: 14, arbitrary: fc.constant([]) }, fc.array(stray, { maxLength: 2 })),
      fc.oneof({ weight: 10, arbitrary: fc.constant(0) }, fc.nat(3)),
    )
    .map(([parts, strays, turn]) => {
      const all: Buffer[] = parts.flat();
      const turned = [...all.slice(turn), ...all.slice(0, turn)];
      for (const one of strays) turned.splice(one.length % (turned.length + 1), 0, one);
      return Buffer.concat(turned);
    });
};

const resolve = message({
  1: ['delimited', bytes],
  2: ['delimited', text],
  3: ['varint', number],
  4: ['varint', number],
  5: ['varint', number],
});
const operation = fc.oneof(
  { weight: 12, arbitrary: message({ 1: ['delimited', text], 6: ['delimited', resolve] }) },
  {
    weight: 1,
    arbitrary: message({ 1: ['delimited', text], 2: ['varint', number], 6: ['delimited', resolve] }),
  },
  {
    weight: 1,
    arbitrary: message({ 1: ['delimited', text], 5: ['delimited', bytes], 6: ['delimited', resolve] }),
  },
);
const write = message({ 1: ['varint', number], 2: ['varint', number], 3: ['delimited', operation] });
const request = message({ 1: ['varint', number], 2: ['varint', number], 5: ['delimited', write] });
const session = fc.oneof(
  { weight: 15, arbitrary: fc.constant(Buffer.alloc(16, 0xab)) },
  { weight: 1, arbitrary: bytes },
);
const sessionWrite = message({
  1: ['delimited', session],
  2: ['delimited', text],
  3: ['varint', number],
  4: ['varint', number],
  5: ['delimited', operation],
});
const command = message({
  1: ['varint', number],
  2: ['varint', number],
  3: ['varint', number],
  4: ['delimited', sessionWrite],
});
const cut = fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, fc.nat(12));

const read = (decode: () => unknown): unknown => {
  try {
    return decode();
  } catch (error) {
    // A bug that is no refusal has another name.
    if (
      error instanceof Error &&
      !['FuturestoreError', 'RangeError', 'Error', 'TypeError'].includes(error.name)
    )
      throw error;
    return 'refused';
  }
};
const runs = { numRuns: 500 };

describe('hostile bytes, by hand and by the generated code', () => {
  test('of an operation', () => {
    fc.assert(
      fc.property(operation, cut, (whole, less) => {
        const part = whole.subarray(0, Math.max(0, whole.length - less));
        const generated = read(() => operationFromMessage(agent.Operation.decode(strict(part).reader)));
        expect(read(() => readOperation(strict(part), part.length))).toStrictEqual(generated);
      }),
      runs,
    );
  });

  test('of a request', () => {
    fc.assert(
      fc.property(request, cut, (whole, less) => {
        const part = whole.subarray(0, Math.max(0, whole.length - less));
        const frame = Buffer.concat([tag(2, 2), varint(BigInt(part.length)), part]);
        const generated = read(() => {
          const reader = strict(part);
          const decoded = agent.Request.decode(reader.reader);
          const { id } = decoded;
          if (!(id > 0 && id < Infinity)) throw new RangeError('no id');
          return reader.unknownField === undefined ? receiveRequest(id, decoded) : { id, refused: true };
        });
        const byHand = read(() => {
          const [one] = protobufCodec.decodeClientFrame(frame).requests;
          if (one === undefined || !('refused' in one)) return one;
          return one.refused.message.includes('does not know') ? { id: one.id, refused: true } : one;
        });
        expect(byHand).toStrictEqual(generated);
      }),
      runs,
    );
  });

  test('of a command in the log', () => {
    fc.assert(
      fc.property(command, cut, (whole, less) => {
        const part = whole.subarray(0, Math.max(0, whole.length - less));
        // With a field that nobody knows it is not read by hand; where it was cut inside a part this belongs to that.
        const generated =
          less > 0 ? undefined : read(() => decodeCommand(Buffer.concat([part, tag(99, 0), varint(1n)])));
        const byHand = read(() => decodeCommand(part));
        if (generated !== undefined && byHand !== 'refused') expect(byHand).toStrictEqual(generated);
        const entry = Buffer.concat([tag(1, 0), varint(7n), tag(2, 2), varint(BigInt(part.length)), part]);
        const inEntry = read(() => decodeLogEntry(entry));
        expect(inEntry).toStrictEqual(byHand === 'refused' ? 'refused' : { timeMs: 7, commands: [byHand] });
      }),
      runs,
    );
  });
});

describe('a writer that is used again', () => {
  const bytesOf = (count: number, fill: number): Uint8Array => new Uint8Array(count).fill(fill);

  test('gives bytes that later messages do not change, whatever their sizes', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(300_000), fc.nat(255)), { maxLength: 8 }), (sizes) => {
        const given = sizes.map(([size, fill]) =>
          encodeWith(
            (writer, value: Uint8Array) => {
              writer.uint32(10).fork();
              writer.uint32(10).bytes(value).ldelim();
            },
            bytesOf(size, fill),
          ),
        );
        for (const [at, [size, fill]] of sizes.entries()) {
          const field = Buffer.concat([tag(1, 2), varint(BigInt(size)), bytesOf(size, fill)]);
          const expected = Buffer.concat([tag(1, 2), varint(BigInt(field.length)), field]);
          expect(expected.equals(given[at] ?? Buffer.alloc(0))).toBe(true);
        }
      }),
      { numRuns: 30 },
    );
  });

  test('is another one while it is in use, and a new one after an exception half-way', () => {
    const inner = (): Uint8Array =>
      encodeWith((writer, n: number) => void writer.uint32(8).uint64(n), 2 ** 53 - 1);
    const alone = Buffer.from(inner());
    const outer = encodeWith((writer, n: number) => {
      writer.uint32(8).uint64(n);
      expect(Buffer.from(inner())).toEqual(alone);
      writer.uint32(18).bytes(inner());
      writer.uint32(24).uint64(n);
    }, 5);
    expect(Buffer.from(outer)).toEqual(
      Buffer.concat([Buffer.from([8, 5, 18, alone.length]), alone, Buffer.from([24, 5])]),
    );
    expect(() =>
      encodeWith((writer) => {
        writer.uint32(10).fork().uint32(8);
        throw new Error('half-way');
      }, undefined),
    ).toThrow('half-way');
    expect(Buffer.from(inner())).toEqual(alone);
  });

  test('leaves a message alone that shares its buffer with later ones, also after an exception half-way', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.nat(2000), fc.nat(40_000)), { maxLength: 60 }), (lengths) => {
        const made = lengths.map((length, number) => {
          const value = Buffer.alloc(length, number + 1);
          const encoded = encodeBriefly((writer, bytes: Uint8Array) => {
            writer.uint32(10).fork();
            writer.uint32(18).bytes(bytes);
            writer.ldelim();
          }, value);
          if (number % 7 === 0)
            expect(() =>
              encodeBriefly((writer) => {
                writer.uint32(10).fork().uint32(8);
                throw new Error('half-way');
              }, undefined),
            ).toThrow('half-way');
          return { value, encoded };
        });
        for (const { value, encoded } of made) {
          const reader = strict(encoded);
          expect(reader.tag()).toBe(10);
          expect(reader.size()).toBe(encoded.length - reader.pos);
          expect(reader.tag()).toBe(18);
          expect(Buffer.from(reader.bytes()).equals(value)).toBe(true);
          expect(reader.pos).toBe(encoded.length);
        }
      }),
      { numRuns: 30 },
    );
  });

  test('takes no bytes for a usual text that are none', () => {
    // What would be these characters, were a byte one.
    expect(() => strict(Buffer.from([3, 0xfc, 0xfc, 0xfc])).textOr('üüü')).toThrow(TypeError);
    expect(strict(Buffer.from([6, ...Buffer.from('üüü')])).textOr('üüü')).toBe('üüü');
    expect(strict(Buffer.from([3, ...Buffer.from('abc')])).textOr('abc')).toBe('abc');
  });

  test('writes numbers of every size as they are read', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.maxSafeNat(),
          fc.nat(53).map((bits) => 2 ** bits - 1),
        ),
        (value) => {
          const encoded = encodeWith((writer, n: number) => void writer.uint64(n), value);
          expect(Buffer.from(encoded)).toEqual(Buffer.from(shortVarint(BigInt(value))));
          expect(strict(encoded).uint64()).toBe(value);
        },
      ),
    );
  });
});
