import { fc } from '@fast-check/vitest';
import type { WebSocket } from 'ws';
import { describe, expect, test } from 'vitest';
import { closeReason } from '../../src/gateway/close-reason.ts';
import { answerBytes } from '../../src/gateway/frame-sizes.ts';
import { Outbox } from '../../src/gateway/outbox.ts';
import { gatewayLimits } from '../../src/gateway/index.ts';
import { encodeChange, protobufCodec } from '../../src/protocol/index.ts';
import type { AnswerBody, Future, ReceivedServerFrame } from '../../src/protocol/index.ts';

/** A socket that takes what the test lets it take. */
class FakeSocket {
  bufferedAmount = 0;
  readonly frames: ReceivedServerFrame[] = [];

  send(bytes: Uint8Array): void {
    this.bufferedAmount += bytes.length;
    this.frames.push(protobufCodec.decodeServerFrame(bytes));
  }

  take(bytes: number): void {
    this.bufferedAmount = Math.max(0, this.bufferedAmount - bytes);
  }
}

const futureOf = (bytes: number, revision = 1): Future => ({
  key: 'shared/a',
  generation: 1,
  state: 'resolved',
  revision,
  value: new Uint8Array(bytes),
  contentType: 'application/octet-stream',
  sensitive: false,
  producer: 'puppet:web1',
  changedAtMs: 1,
});

const make = (limits = {}) => {
  const socket = new FakeSocket();
  const sent: number[] = [];
  const revisions: number[] = [];
  const taken: number[] = [];
  const progress: number[] = [];
  const owner = {
    answerSent: (request: number) => void sent.push(request),
    pushSent: (_subscription: number, revision: number) => void revisions.push(revision),
    progressSent: (revision: number) => void progress.push(revision),
    pushesTaken: (bytes: number) => void taken.push(bytes),
  };
  const all = { ...gatewayLimits, ...limits };
  return {
    socket,
    sent,
    revisions,
    taken,
    progress,
    outbox: new Outbox(socket as unknown as WebSocket, protobufCodec, all, owner, 0),
  };
};

const got = (bytes: number): AnswerBody => ({ kind: 'got', revision: 1, future: futureOf(bytes) });

const push = (revision: number, bytes: number) => {
  const future = futureOf(bytes, revision);
  const change = { kind: 'future', revision, key: future.key, future } as const;
  const encoded = encodeChange(change);
  const changes = [{ change, encoded }];
  const size = encoded.length;
  return {
    kind: 'push',
    connection: 1,
    subscription: 1,
    changes,
    revision,
    caughtUp: false,
    bytes: size,
  } as const;
};

const mebibyte = 1024 * 1024;

describe('the outbox', () => {
  test('hands the socket at most one frame more than it may hold, whatever waits', () => {
    const { socket, outbox, sent } = make();
    for (let request = 1; request <= 100; request++)
      outbox.add({ kind: 'answer', request, body: got(mebibyte) });
    outbox.flush();
    expect(socket.bufferedAmount).toBeLessThan(
      gatewayLimits.answerBufferedBytesMax + gatewayLimits.frameBytesMax,
    );
    expect(outbox.full).toBe(true);
    // What has not left is still in flight.
    expect(sent).toEqual([1]);
    while (outbox.full) {
      socket.take(mebibyte / 3);
      outbox.flush();
      expect(socket.bufferedAmount).toBeLessThan(
        gatewayLimits.answerBufferedBytesMax + gatewayLimits.frameBytesMax,
      );
    }
    expect(sent).toEqual(Array.from({ length: 100 }, (_, index) => index + 1));
    expect(socket.frames.flatMap((frame) => frame.answers.map((answer) => answer.id))).toEqual(sent);
  });

  test('keeps the order over any sequence of answers, pushes and room', () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('add' as const),
        bytes: fc.integer({ min: 0, max: 200_000 }),
        isPush: fc.boolean(),
      }),
      fc.record({ kind: fc.constant('take' as const), bytes: fc.integer({ min: 0, max: 500_000 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { socket, outbox, sent, revisions, taken } = make();
        let added = 0;
        let pushBytes = 0;
        for (const next of steps) {
          if (next.kind === 'take') {
            socket.take(next.bytes);
          } else if (next.isPush) {
            const event = push(++added, next.bytes);
            pushBytes += event.bytes;
            outbox.add(event);
          } else {
            outbox.add({ kind: 'answer', request: ++added, body: got(next.bytes) });
          }
          outbox.flush();
        }
        while (outbox.congested) {
          socket.take(100_000);
          outbox.flush();
        }
        socket.take(1e9);
        outbox.flush();
        const numbers = socket.frames.flatMap((frame) => [
          ...frame.answers.map((answer) => answer.id),
          ...frame.pushes.map((each) => each.revision),
        ]);
        expect(numbers.toSorted((a, b) => a - b)).toEqual(
          Array.from({ length: added }, (_, index) => index + 1),
        );
        expect(revisions).toEqual(revisions.toSorted((a, b) => a - b));
        expect(sent).toEqual(sent.toSorted((a, b) => a - b));
        expect(taken.reduce((sum, bytes) => sum + bytes, 0)).toBe(pushBytes);
      }),
      { numRuns: 60 },
    );
  });

  test('tells pushes as taken only when the socket has taken all but 64 KiB', () => {
    const { socket, outbox, taken } = make();
    const first = push(1, 40_000);
    outbox.add(first);
    outbox.flush();
    expect(taken).toEqual([first.bytes]);
    const second = push(2, 40_000);
    outbox.add(second);
    outbox.flush();
    expect(taken).toEqual([first.bytes]);
    expect(outbox.congested).toBe(true);
    socket.take(40_000);
    outbox.flush();
    expect(taken).toEqual([first.bytes, second.bytes]);
    expect(outbox.congested).toBe(false);
  });

  test('has stood still only when nothing was taken for ten seconds, and for as long as the unsent would need', () => {
    const { socket, outbox } = make();
    outbox.add({ kind: 'answer', request: 1, body: got(128 * 1024) });
    outbox.flush();
    outbox.watchFrom(0);
    expect(outbox.stalled(11_900)).toBe(false);
    expect(outbox.stalled(12_100)).toBe(true);
    socket.take(1);
    expect(outbox.stalled(12_200)).toBe(false);
    expect(outbox.stalled(24_000)).toBe(false);
    expect(outbox.stalled(24_300)).toBe(true);
  });

  test('knows how large answers become, from above', () => {
    const text = fc.string({ maxLength: 50 });
    const futures = fc.array(
      fc.record({
        bytes: fc.integer({ min: 0, max: 300 }),
        message: text,
        number: fc.nat(Number.MAX_SAFE_INTEGER),
      }),
      { maxLength: 5 },
    );
    fc.assert(
      fc.property(futures, (parts) => {
        const made = parts.map(({ bytes, message, number }): Future => {
          const base = {
            ...futureOf(bytes, number),
            generation: number,
            changedAtMs: number,
            expiresAtMs: number,
          };
          const { value: _value, ...rejected } = { ...base, state: 'rejected' as const };
          return bytes % 2 === 0 ? base : { ...rejected, rejection: { code: 'NO', message } };
        });
        const bodies: AnswerBody[] = [
          { kind: 'awaited', alternative: 3, futures: made },
          { kind: 'listed', revision: Number.MAX_SAFE_INTEGER, futures: made, next: 'shared/a' },
          {
            kind: 'snapshot_part',
            part: {
              snapshot: Number.MAX_SAFE_INTEGER,
              part: Number.MAX_SAFE_INTEGER,
              records: new Uint8Array(parts.length),
              checksum: 2 ** 32 - 1,
              last: true,
              recordsTotal: Number.MAX_SAFE_INTEGER,
              clusterId: 'c'.repeat(parts.length),
              epoch: Number.MAX_SAFE_INTEGER,
              revision: Number.MAX_SAFE_INTEGER,
              index: Number.MAX_SAFE_INTEGER,
              term: Number.MAX_SAFE_INTEGER,
            },
          },
          {
            kind: 'members',
            list: {
              members: parts.map((_, index) => ({
                id: index + 1,
                name: 'n'.repeat(64),
                peersAddress: 'p'.repeat(300),
                agentsUrl: 'a'.repeat(306),
                standing: 'leaving',
                wanted: 'removed',
                reachable: true,
                lag: Number.MAX_SAFE_INTEGER,
                joined: true,
              })),
              changePending: true,
              leader: Number.MAX_SAFE_INTEGER,
            },
          },
          { kind: 'member_changed', member: Number.MAX_SAFE_INTEGER },
          {
            kind: 'failed',
            failure: { code: 'INTERNAL', message: parts.map(({ message }) => message).join('') },
          },
        ];
        for (const body of bodies) {
          const encoded = protobufCodec.encodeServerFrame({
            answers: [{ id: Number.MAX_SAFE_INTEGER, body }],
            pushes: [],
          });
          expect(encoded.length).toBeLessThanOrEqual(answerBytes(body));
        }
      }),
    );
  });
});

describe('the reason in a close frame', () => {
  test('has at most 123 bytes, is the beginning of the text, and whole characters', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), (text) => {
        fc.pre(!text.includes('\ufffd'));
        const reason = closeReason(text);
        expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(123);
        if (Buffer.byteLength(text) <= 123) expect(reason).toBe(text);
        else expect(text.startsWith(reason.slice(0, -1))).toBe(true);
        expect(Buffer.from(reason).toString()).not.toContain('\ufffd');
      }),
    );
  });
});

describe('the revision up to which all has been given', () => {
  test('leaves behind the pushes that it is about, and before all that came later', () => {
    const { outbox, socket, progress } = make({ answerBufferedBytesMax: 1 });
    socket.bufferedAmount = 1;
    outbox.add({ kind: 'answer', request: 1, body: got(10) });
    outbox.add(push(7, 10));
    outbox.add({ kind: 'progress', revision: 7 });
    outbox.add(push(8, 10));
    outbox.flush();
    expect([socket.frames.length, progress]).toEqual([0, []]);
    for (const _frame of [1, 2]) {
      socket.bufferedAmount = 0;
      outbox.flush();
    }
    const told = socket.frames.map(({ answers, pushes, revision }) => [
      answers.length,
      pushes.map((each) => each.revision),
      revision,
    ]);
    expect(told).toEqual([
      [1, [7], 7],
      [0, [8], undefined],
    ]);
    expect(progress).toEqual([7]);
  });
});
