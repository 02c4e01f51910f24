import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { codecFor, codecs, jsonCodec, protobufCodec } from '../../src/protocol/index.ts';
import { asSent, clientFrame, serverFrame } from './arbitraries.ts';

const runs = { numRuns: 300 };

describe.each(codecs)('$subprotocol', (codec) => {
  test('a server receives exactly what a client sent', () => {
    fc.assert(
      fc.property(clientFrame, (frame) => {
        expect(codec.decodeClientFrame(codec.encodeClientFrame(frame))).toStrictEqual(frame);
      }),
      runs,
    );
  });

  test('a client receives exactly what a server sent', () => {
    fc.assert(
      fc.property(serverFrame, (frame) => {
        expect(codec.decodeServerFrame(codec.encodeServerFrame(asSent(frame)))).toStrictEqual(frame);
      }),
      runs,
    );
  });

  test('what was decoded does not change when the receive buffer is used again', () => {
    fc.assert(
      fc.property(clientFrame, serverFrame, (fromClient, fromServer) => {
        const clientBytes = codec.encodeClientFrame(fromClient);
        const serverBytes = codec.encodeServerFrame(asSent(fromServer));
        const received = [codec.decodeClientFrame(clientBytes), codec.decodeServerFrame(serverBytes)];
        clientBytes.fill(0xff);
        serverBytes.fill(0xff);
        expect(received).toStrictEqual([fromClient, fromServer]);
      }),
      { numRuns: 100 },
    );
  });

  test('frames in a larger buffer are read within their bounds', () => {
    fc.assert(
      fc.property(clientFrame, (frame) => {
        const encoded = codec.encodeClientFrame(frame);
        const around = new Uint8Array(encoded.length + 20).fill(0x12);
        around.set(encoded, 7);
        expect(codec.decodeClientFrame(around.subarray(7, 7 + encoded.length))).toStrictEqual(frame);
      }),
      { numRuns: 50 },
    );
  });

  test('is found by its name', () => {
    expect(codecFor(codec.subprotocol)).toBe(codec);
  });
});

test('an unknown subprotocol has no codec', () => {
  expect(codecFor('futurestore.v2.protobuf')).toBeUndefined();
});

test('frames of the protobuf codec are binary, those of the JSON codec are text', () => {
  expect([protobufCodec.binary, jsonCodec.binary]).toEqual([true, false]);
});
