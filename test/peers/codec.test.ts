import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FuturestoreError, messages } from '../../src/protocol/index.ts';
import { asLogIndex, asMemberId, asTerm } from '../../src/raft/index.ts';
import type { Message } from '../../src/raft/index.ts';
import { FrameAssembler } from '../../src/peers/framing.ts';
import { decodeFrame, encodeBatch, encodeFrame } from '../../src/peers/peer-codec.ts';
import { frames } from './arbitraries.ts';

const body = (frame: Buffer): Buffer => frame.subarray(4);

/** With plain arrays for bytes, whatever class they have. */
const plain = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)]));
};

const codeOf = (run: () => unknown): string => {
  try {
    run();
    return 'accepted';
  } catch (error) {
    if (error instanceof FuturestoreError) return error.code;
    throw error;
  }
};

describe('codec', () => {
  test('every frame comes back as it was', () => {
    fc.assert(
      fc.property(frames, (frame) => {
        const encoded = encodeFrame(frame);
        expect(encoded.readUInt32BE(0)).toBe(encoded.length - 4);
        expect(plain(decodeFrame(body(encoded)))).toEqual(plain(frame));
      }),
      { numRuns: 500 },
    );
  });

  test('arbitrary bytes are a frame or a PROTOCOL_ERROR', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(['accepted', 'PROTOCOL_ERROR']).toContain(codeOf(() => decodeFrame(bytes)));
      }),
      { numRuns: 2000 },
    );
  });

  test('a frame with a few bytes changed is a frame or a PROTOCOL_ERROR', () => {
    let refused = 0;
    fc.assert(
      fc.property(
        frames,
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
        (frame, changes) => {
          const encoded = Buffer.from(body(encodeFrame(frame)));
          for (const [at, byte] of changes) if (encoded.length > 0) encoded[at % encoded.length] = byte;
          const outcome = codeOf(() => decodeFrame(encoded));
          expect(['accepted', 'PROTOCOL_ERROR']).toContain(outcome);
          if (outcome === 'PROTOCOL_ERROR') refused += 1;
        },
      ),
      { numRuns: 1500 },
    );
    expect(refused).toBeGreaterThan(100);
  });

  const numbers = fc.constantFrom(0, 1, 7, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 2 ** 63);
  const tree = fc.letrec((tie) => ({
    node: fc.dictionary(
      fc.constantFrom(
        'from',
        'to',
        'term',
        'voteRequest',
        'appendRequest',
        'appendResponse',
        'readResponse',
        'entries',
        'lastIndex',
        'previousIndex',
        'matchIndex',
        'rejectedIndex',
        'accepted',
        'refused',
        'kind',
        'index',
        'installSnapshot',
        'snapshot',
        'configuration',
        'voters',
        'timeoutNow',
      ),
      fc.oneof(
        { maxDepth: 5 },
        numbers,
        fc.boolean(),
        fc.array(numbers, { maxLength: 3 }),
        tie('node'),
        fc.array(tie('node'), { maxLength: 2 }),
      ),
      { maxKeys: 5 },
    ),
  })).node;
  test('arbitrary trees of messages are a frame or a PROTOCOL_ERROR', () => {
    fc.assert(
      fc.property(fc.array(tree, { maxLength: 3 }), (raft) => {
        let bytes: Uint8Array;
        try {
          bytes = messages.peer.PeerFrame.encode({ raft }).finish();
        } catch {
          return; // not even protobuf
        }
        expect(['accepted', 'PROTOCOL_ERROR']).toContain(codeOf(() => decodeFrame(bytes)));
      }),
      { numRuns: 1500 },
    );
  });

  const encode = (frame: messages.peer.PeerFrame.$Properties): Uint8Array =>
    messages.peer.PeerFrame.encode(frame).finish();
  const from = { from: 1, to: 2, term: 3 };
  const refusedFrames: Record<string, Uint8Array> = {
    'an unknown field': Buffer.from([0xf8, 0x07, 0x01]),
    'a known field of the wrong wire type': Buffer.from([0x10, 0x01]),
    'a message without a body': encode({ raft: [from] }),
    'a member id of zero': encode({ raft: [{ ...from, from: 0, timeoutNow: {} }] }),
    'a term of 2^53': encode({ raft: [{ ...from, term: 2 ** 53, timeoutNow: {} }] }),
    'an entry of an unknown kind': encode({ raft: [{ ...from, appendRequest: { entries: [{ kind: 4 }] } }] }),
    'indices that run over': encode({
      raft: [{ ...from, appendRequest: { previousIndex: 2 ** 53 - 1, entries: [{ kind: 1 }] } }],
    }),
    'an append both accepted and rejected': encode({
      raft: [{ ...from, appendResponse: { accepted: true, matchIndex: 1, hintIndex: 1 } }],
    }),
    'a snapshot without a configuration': encode({
      raft: [{ ...from, installSnapshot: { snapshot: { index: 1 } } }],
    }),
    'members out of order': encode({
      raft: [{ ...from, installSnapshot: { snapshot: { index: 1, configuration: { voters: [2, 1] } } } }],
    }),
    'a hello with messages': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 1 },
      raft: [{ ...from, timeoutNow: {} }],
    }),
    'a hello of version 1 with a standing': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 1, lastIndex: 1 },
    }),
    'a hello of version 1 with an address': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 1, address: 'a:1' },
    }),
    'a hello of version 1 that founds': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 1, founds: true },
    }),
    'a hello of version 2 without an address': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 2 },
    }),
    'a hello with an address that is none': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 2, address: 'a b:1' },
    }),
    'a hello with an address without a port': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 2, address: 'a:0' },
    }),
    'a hello of version 2 with a lineage': encode({
      hello: {
        clusterId: 'c',
        from: 1,
        to: 2,
        diskId: new Uint8Array(16),
        version: 2,
        address: 'a:1',
        lineage: [1],
      },
    }),
    'a hello of version 2 with the beginning of a lineage': encode({
      hello: {
        clusterId: 'c',
        from: 1,
        to: 2,
        diskId: new Uint8Array(16),
        version: 2,
        address: 'a:1',
        lineageSince: 1,
      },
    }),
    'a hello with too long a lineage': encode({
      hello: {
        clusterId: 'c',
        from: 1,
        to: 2,
        diskId: new Uint8Array(16),
        version: 3,
        address: 'a:1',
        lineage: Array.from({ length: 4097 }, (_, run) => run),
      },
    }),
    'a transfer to a member that can be none': encode({ transferTo: 2 ** 53 }),
    'a hello with a transfer': encode({
      hello: { clusterId: 'c', from: 1, to: 2, diskId: new Uint8Array(16), version: 2, address: 'a:1' },
      transferTo: 1,
    }),
    'a hello without a disk id': encode({ hello: { clusterId: 'c', from: 1, to: 2, version: 1 } }),
    'an entry kind that fits only in its low bits': Buffer.from([
      0x12, 0x12, 0x08, 0x01, 0x10, 0x02, 0x18, 0x03, 0x42, 0x0a, 0x22, 0x08, 0x10, 0x82, 0x80, 0x80, 0x80,
      0x80, 0x01, 0x1a,
    ]),
  };
  test.each(Object.entries(refusedFrames))('%s is a PROTOCOL_ERROR', (_, bytes) => {
    expect(codeOf(() => decodeFrame(bytes))).toBe('PROTOCOL_ERROR');
  });

  test('what a server of version 1 does not know is on the wire only where it says something', () => {
    const hello = {
      clusterId: 'c',
      from: asMemberId(1),
      to: asMemberId(2),
      run: 3,
      diskId: new Uint8Array(16),
      bulk: false,
    };
    const ofVersion1 = { clusterId: 'c', from: 1, to: 2, run: 3, diskId: new Uint8Array(16), version: 1 };
    const said = encodeFrame({ kind: 'hello', hello: { ...hello, version: 1 } });
    expect([...body(said)]).toEqual([...encode({ hello: ofVersion1 })]);
    const refused = encodeFrame({ kind: 'hello_refused', reason: 'no', removed: false });
    expect([...body(refused)]).toEqual([...encode({ helloRefused: { reason: 'no' } })]);
    const standing = { term: 1, lastIndex: 1 };
    const address = 'a:1';
    expect(() => encodeFrame({ kind: 'hello', hello: { ...hello, version: 1, standing } })).toThrow(
      /version 1/,
    );
    expect(() => encodeFrame({ kind: 'hello', hello: { ...hello, version: 1, address } })).toThrow(
      /version 1/,
    );
    expect(() => encodeFrame({ kind: 'hello', hello: { ...hello, version: 2 } })).toThrow(/version 2/);
    expect(() => encodeFrame({ kind: 'hello', hello: { ...hello, version: 2, standing } })).toThrow(
      /version 2 .* without an address/,
    );
  });

  test('a number that protobuf would change in silence is not sent', () => {
    for (const context of [1.5, -1, Number.NaN, 2 ** 53]) {
      const message: Message = {
        from: asMemberId(1),
        to: asMemberId(2),
        term: asTerm(1),
        kind: 'read_request',
        context,
      };
      expect(() => encodeBatch({ raft: [message], forward: [], forwardTerm: 0 })).toThrow(RangeError);
    }
  });

  test('a large batch is sent in several frames, in order and none near the limit', () => {
    const append = (index: number, bytes: number): Message => ({
      from: asMemberId(1),
      to: asMemberId(2),
      term: asTerm(1),
      kind: 'append_request',
      previousIndex: asLogIndex(index - 1),
      previousTerm: asTerm(1),
      commit: asLogIndex(0),
      entries: [
        { term: asTerm(1), index: asLogIndex(index), kind: 'commands', payload: new Uint8Array(bytes) },
      ],
    });
    const raft = [1, 2, 3, 4, 5].map((index) => append(index, index === 3 ? 12_000_000 : 1_000_000));
    const forward = [1, 2, 3, 4].map((byte) => new Uint8Array(900_000).fill(byte));
    const sent = encodeBatch({ raft, forward, forwardTerm: 4, leaderTimeMs: 9, transferTo: asMemberId(2) });
    expect(sent.length).toBeGreaterThan(3);
    const received = sent.map((frame) => {
      expect(frame.length).toBeLessThan(13_000_000);
      const decoded = decodeFrame(body(frame));
      if (decoded.kind !== 'batch') throw new Error(decoded.kind);
      return decoded.batch;
    });
    const indices = received.flatMap((batch) =>
      batch.raft.map((message) =>
        message.kind === 'append_request' ? message.entries[0]?.index : undefined,
      ),
    );
    expect(indices).toEqual([1, 2, 3, 4, 5]);
    expect(received.flatMap((batch) => batch.forward.map(([first]) => first))).toEqual([1, 2, 3, 4]);
    expect(received.map((batch) => batch.forwardTerm)).toEqual(received.map(() => 4));
    expect(received.filter((batch) => batch.leaderTimeMs !== undefined)).toHaveLength(1);
    expect(received.filter((batch) => batch.transferTo !== undefined)).toHaveLength(1);
  });
});

describe('framing', () => {
  test('frames come out whole, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 30 })),
        (bodies, cuts) => {
          const stream = Buffer.concat(
            bodies.flatMap((bytes) => {
              const length = Buffer.alloc(4);
              length.writeUInt32BE(bytes.length);
              return [length, bytes];
            }),
          );
          const assembler = new FrameAssembler(40);
          const found: number[][] = [];
          for (let at = 0, cut = 0; at < stream.length; cut += 1) {
            const end = at + (cuts[cut % cuts.length] ?? 7);
            const chunk = Buffer.from(stream.subarray(at, end));
            assembler.push(chunk);
            const whole: Buffer[] = [];
            for (let frame = assembler.next(); frame !== undefined; frame = assembler.next())
              whole.push(frame);
            chunk.fill(0xee); // a read buffer is used again
            for (const frame of whole) found.push([...frame]);
            at = end;
          }
          expect(found).toEqual(bodies.map((bytes) => [...bytes]));
        },
      ),
    );
  });

  test('a length beyond the limit is refused before its bytes come', () => {
    const assembler = new FrameAssembler(1000);
    assembler.push(Buffer.from([0, 0, 3, 0xe9]));
    expect(() => assembler.next()).toThrow(/1001 bytes is beyond the limit of 1000/);
  });
});
