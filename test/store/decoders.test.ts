import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import { FuturestoreError } from '../../src/protocol/index.ts';
import {
  decodeCommand,
  decodeLogEntry,
  encodeCommand,
  encodeLogEntry,
  Store,
} from '../../src/store/index.ts';

const decoders = [
  ['a log entry', decodeLogEntry],
  ['a command', decodeCommand],
] as const;

/** Field by field, nested: what protobuf can carry, whatever it means. */
const messageTree = fc.letrec<{ message: Uint8Array; field: Uint8Array }>((tie) => ({
  message: fc.array(tie('field'), { maxLength: 6 }).map((fields) => new Uint8Array(Buffer.concat(fields))),
  field: fc.oneof(
    { maxDepth: 5 },
    fc
      .tuple(fc.integer({ min: 1, max: 15 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
      .map(([number, value]) => {
        const bytes = [number << 3];
        let rest = value;
        for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
        return Uint8Array.from([...bytes, Number(rest)]);
      }),
    fc
      .tuple(fc.integer({ min: 1, max: 15 }), fc.oneof(tie('message'), fc.uint8Array({ maxLength: 40 })))
      .filter(([, content]) => content.length < 128)
      .map(([number, content]) => Uint8Array.from([(number << 3) | 2, content.length, ...content])),
  ),
})).message;

const refusedOrRead = (decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): void => {
  try {
    expect(decode(bytes)).toBeDefined();
  } catch (error) {
    expect(error).toBeInstanceOf(FuturestoreError);
    expect((error as FuturestoreError).code).toBe('PROTOCOL_ERROR');
  }
};

describe.each(decoders)('the decoder of %s', (_name, decode) => {
  test.prop([fc.uint8Array({ maxLength: 200 })])('reads or refuses arbitrary bytes', (bytes) => {
    refusedOrRead(decode, bytes);
  });

  test.prop([messageTree])('reads or refuses arbitrary message trees', (bytes) => {
    refusedOrRead(decode, bytes);
  });
});

const command = {
  origin: { member: 1, run: 2, request: 3 },
  kind: 'write',
  session: '0'.repeat(32),
  principal: 'agents:web1',
  sequence: 1,
  answeredBelow: 1,
  operations: [{ kind: 'delete', key: 'a/b', preconditions: {} }],
} as const;

describe('a flipped byte', () => {
  const encoded = encodeLogEntry({ timeMs: 5, commands: [command] });
  test.prop([fc.nat(encoded.length - 1), fc.integer({ min: 1, max: 255 })])(
    'in a log entry is read or refused, never anything else',
    (at, mask) => {
      const bytes = Uint8Array.from(encoded);
      bytes[at] = (bytes[at] ?? 0) ^ mask;
      refusedOrRead(decodeLogEntry, bytes);
    },
  );

  test.prop([fc.string({ maxLength: 20 }), fc.oneof(fc.uint8Array({ maxLength: 100 }), messageTree)])(
    'in a record of the state is damage, if anything',
    (name, value) => {
      for (const key of [`f/${name}`, `s/${name}`, `m/${name}`, `w/${name}`, 'state', name]) {
        const store = new Store({ clusterId: 'c'.repeat(32) });
        try {
          store.load([{ key, value }]);
          store.finishLoad();
        } catch (error) {
          expect(error).toBeInstanceOf(FuturestoreError);
          expect((error as FuturestoreError).code).toBe('DATA_DAMAGED');
        }
      }
    },
  );
});

test('a command that was encoded is read back as it was', () => {
  expect(decodeCommand(encodeCommand(command))).toEqual(command);
});
