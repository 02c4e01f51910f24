/** Reads and deliveries that are written and read by hand are what the generated code writes and reads. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { messages, protobufCodec, StrictReader } from '../../src/protocol/index.ts';
import type { Change, Push } from '../../src/protocol/index.ts';
import { clientFrameToMessage } from '../../src/protocol/client-frames.ts';
import { changeToMessage } from '../../src/protocol/future-messages.ts';
import { readPlainServerFrame } from '../../src/protocol/plain-deliveries.ts';
import { answerToMessage, serverFrameFromMessage } from '../../src/protocol/server-frames.ts';
import { asSent, clientFrame, serverFrame } from './arbitraries.ts';

const runs = { numRuns: 500 };
const { agent } = messages;
const reader = (bytes: Uint8Array): StrictReader => new StrictReader(Buffer.from(bytes), Infinity);

const pushMessage = ({
  subscription,
  changes,
  revision,
  caughtUp,
}: Push): messages.agent.Push.$Properties => ({
  subscription,
  changes: changes.map(changeToMessage),
  revision,
  caughtUp,
});

/** What our own servers send most. */
const plainFrame = serverFrame
  .map(({ answers, pushes }) => ({
    answers: answers.filter(({ body }) => ['got', 'awaited', 'written'].includes(body.kind)),
    pushes: pushes
      .filter(({ ended }) => ended === undefined)
      .map((push) => ({ ...push, changes: push.changes.filter(({ kind }) => kind === 'future') })),
  }))
  .filter(({ answers, pushes }) => answers.length + pushes.length > 0);

const outcome = (decode: () => unknown): unknown => {
  try {
    return decode();
  } catch {
    return 'refused';
  }
};

const byGeneratedCode = (bytes: Buffer): unknown => {
  const strict = reader(bytes);
  const message = agent.ServerFrame.decode(strict.reader);
  if (strict.unknownField !== undefined) throw new Error('an unknown field');
  return serverFrameFromMessage(message);
};

describe('by hand and by the generated code', () => {
  test('requests have the same bytes', () => {
    fc.assert(
      fc.property(clientFrame, ({ requests }) => {
        if (requests.length === 0) return;
        const generated = agent.ClientFrame.encode(clientFrameToMessage({ requests })).finish();
        expect(Buffer.from(protobufCodec.encodeClientFrame({ requests }))).toEqual(Buffer.from(generated));
        expect(protobufCodec.decodeClientFrame(generated).requests).toStrictEqual(requests);
      }),
      runs,
    );
  });

  test('answers to reads and awaits have the same bytes', () => {
    fc.assert(
      fc.property(serverFrame, ({ answers }) => {
        if (answers.length === 0) return;
        const generated = agent.ServerFrame.encode({ answers: answers.map(answerToMessage) }).finish();
        const encoded = protobufCodec.encodeServerFrame(asSent({ answers, pushes: [] }));
        expect(Buffer.from(encoded)).toEqual(Buffer.from(generated));
      }),
      runs,
    );
  });

  test('answers and pushes are read by hand, and as the generated code reads them', () => {
    fc.assert(
      fc.property(plainFrame, (frame) => {
        const bytes = agent.ServerFrame.encode({
          answers: frame.answers.map(answerToMessage),
          pushes: frame.pushes.map(pushMessage),
        }).finish();
        expect(readPlainServerFrame(reader(bytes))).toStrictEqual(frame);
        expect(protobufCodec.decodeServerFrame(bytes)).toStrictEqual(frame);
      }),
      runs,
    );
  });

  test('a frame whose bytes are cut off, changed or repeated is read alike, or refused by both', () => {
    const damage = fc.record({ at: fc.nat(), to: fc.nat(255), cut: fc.nat(40), again: fc.boolean() });
    fc.assert(
      fc.property(plainFrame, damage, (frame, { at, to, cut, again }) => {
        let bytes = Buffer.from(protobufCodec.encodeServerFrame(asSent(frame)));
        if (again) bytes = Buffer.concat([bytes, bytes]);
        bytes = bytes.subarray(0, Math.max(1, bytes.length - (cut > 20 ? 0 : cut)));
        bytes[at % bytes.length] = to;
        expect(outcome(() => protobufCodec.decodeServerFrame(bytes))).toStrictEqual(
          outcome(() => byGeneratedCode(bytes)),
        );
      }),
      { numRuns: 2000 },
    );
  });

  test('a request whose bytes are changed is read alike, or refused by both', () => {
    const get = clientFrame
      .map(({ requests }) => requests.filter(({ body }) => body.kind === 'get'))
      .filter((requests) => requests.length > 0);
    fc.assert(
      fc.property(get, fc.nat(), fc.nat(255), ([request], at, to) => {
        if (request === undefined) return;
        const bytes = Buffer.from(protobufCodec.encodeClientFrame({ requests: [request] }));
        // All but the tag and the length of the request; a field out of place makes the generated code read it.
        bytes[2 + (at % (bytes.length - 2))] = to;
        const moved = Buffer.concat([bytes, Buffer.from([0x12, 0x04, 0x08, 0x01, 0x62, 0x00])]);
        const alone = outcome(() => protobufCodec.decodeClientFrame(bytes).requests);
        const before = outcome(() => protobufCodec.decodeClientFrame(moved).requests.slice(0, 1));
        if (before !== 'refused') expect(alone).toStrictEqual(before);
      }),
      { numRuns: 1000 },
    );
  });
});

test('a change that several subscriptions are told in one frame is made once', () => {
  const [first, second] = [1, 2].map((revision): Change => ({
    kind: 'future',
    revision,
    key: 'a/b',
    future: {
      key: 'a/b',
      generation: revision,
      state: 'resolved',
      revision,
      value: Uint8Array.of(revision),
      contentType: 'text/plain; charset=utf-8',
      sensitive: false,
      producer: 'agents:web1',
      changedAtMs: 1,
    },
  }));
  if (first === undefined || second === undefined) throw new Error('two changes were made');
  const push = (subscription: number, changes: readonly Change[]): Push => ({
    subscription,
    changes,
    revision: 2,
    caughtUp: false,
  });
  const pushes = [push(1, [first, second]), push(2, [first, second]), push(3, [second])];
  const frame = protobufCodec.decodeServerFrame(
    protobufCodec.encodeServerFrame(asSent({ answers: [], pushes })),
  );
  expect(frame.pushes).toStrictEqual(pushes);
  expect(frame.pushes[1]?.changes[0]).toBe(frame.pushes[0]?.changes[0]);
  expect(frame.pushes[1]?.changes[1]).toBe(frame.pushes[0]?.changes[1]);
});
