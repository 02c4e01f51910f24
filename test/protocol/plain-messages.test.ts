/** What is written and read by hand is what the generated code writes and reads. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  encodeChange,
  encodeWith,
  messages,
  operationFromMessage,
  protobufCodec,
  readOperation,
  StrictReader,
  writeOperation,
  writeResultFromMessage,
  writeWriteResult,
} from '../../src/protocol/index.ts';
import {
  changeToMessage,
  operationToMessage,
  writeResultToMessage,
} from '../../src/protocol/future-messages.ts';
import { receiveRequest } from '../../src/protocol/client-frames.ts';
import { answerToMessage } from '../../src/protocol/server-frames.ts';
import { asSent, clientFrame, serverFrame } from './arbitraries.ts';

const runs = { numRuns: 500 };
const { agent } = messages;

const operation = clientFrame.map(({ requests }) =>
  requests.flatMap(({ body }) => (body.kind === 'write' ? body.operations : [])),
);
const reader = (bytes: Uint8Array): StrictReader => new StrictReader(Buffer.from(bytes), Infinity);

describe('by hand and by the generated code', () => {
  test('operations have the same bytes', () => {
    fc.assert(
      fc.property(operation, (operations) => {
        for (const one of operations) {
          const generated = agent.Operation.encode(operationToMessage(one)).finish();
          expect(Buffer.from(encodeWith(writeOperation, one))).toEqual(Buffer.from(generated));
          const plain = operationFromMessage(agent.Operation.decode(generated));
          expect(readOperation(reader(generated), generated.length)).toStrictEqual(plain);
          // As it is after decoding, without conditions always the same ones.
          expect(Buffer.from(encodeWith(writeOperation, plain))).toEqual(Buffer.from(generated));
        }
      }),
      runs,
    );
  });

  test('changes and answers have the same bytes', () => {
    fc.assert(
      fc.property(serverFrame, (frame) => {
        for (const { changes } of frame.pushes) {
          for (const change of changes) {
            const generated = agent.Change.encode(changeToMessage(change)).finish();
            expect(Buffer.from(encodeChange(change))).toEqual(Buffer.from(generated));
          }
        }
        const answers = frame.answers.filter(({ body }) => body.kind === 'written');
        if (answers.length === 0) return;
        const generated = agent.ServerFrame.encode({ answers: answers.map(answerToMessage) }).finish();
        const encoded = protobufCodec.encodeServerFrame(asSent({ answers, pushes: [] }));
        expect(Buffer.from(encoded)).toEqual(Buffer.from(generated));
        for (const { body } of answers) {
          if (body.kind !== 'written') continue;
          const result = encodeWith(writeWriteResult, body.result);
          expect(Buffer.from(result)).toEqual(
            Buffer.from(agent.WriteResult.encode(writeResultToMessage(body.result)).finish()),
          );
          expect(writeResultFromMessage(agent.WriteResult.decode(result))).toStrictEqual(body.result);
        }
      }),
      runs,
    );
  });

  test('an operation whose bytes are cut off, changed or in another order is read alike, or refused by both', () => {
    const read = (decode: () => unknown): unknown => {
      try {
        return decode();
      } catch {
        return 'refused';
      }
    };
    const damage = fc.record({ at: fc.nat(), to: fc.nat(255), cut: fc.nat(40), again: fc.boolean() });
    fc.assert(
      fc.property(operation, damage, (operations, { at, to, cut, again }) => {
        for (const one of operations) {
          let bytes = Buffer.from(encodeWith(writeOperation, one));
          if (again) bytes = Buffer.concat([bytes, bytes]);
          bytes = bytes.subarray(0, Math.max(1, bytes.length - (cut > 20 ? 0 : cut)));
          bytes[at % bytes.length] = to;
          const strict = reader(bytes);
          const generated = read(() => operationFromMessage(agent.Operation.decode(strict.reader)));
          expect(read(() => readOperation(reader(bytes), bytes.length))).toStrictEqual(generated);
        }
      }),
      runs,
    );
  });

  test('a request whose bytes are changed is read alike, or refused by both', () => {
    const byHand = (bytes: Buffer): unknown => {
      try {
        return protobufCodec.decodeClientFrame(bytes).requests;
      } catch {
        return 'no frame';
      }
    };
    const generated = (bytes: Buffer): unknown => {
      try {
        const strict = reader(bytes);
        strict.tag();
        const message = agent.Request.decode(strict.reader, strict.size());
        if (strict.pos < strict.len || !(message.id > 0 && message.id < Infinity)) return 'no frame';
        return strict.unknownField === undefined ? [receiveRequest(message.id, message)] : 'unknown field';
      } catch {
        return 'no frame';
      }
    };
    fc.assert(
      fc.property(clientFrame, fc.nat(), fc.nat(255), ({ requests }, at, to) => {
        for (const request of requests) {
          if (request.body.kind !== 'write') continue;
          const bytes = Buffer.from(protobufCodec.encodeClientFrame({ requests: [request] }));
          // All but the tag and the length of the request.
          const from = 2 + Math.floor(Math.log2(Math.max(1, bytes.length - 2)) / 7);
          bytes[from + (at % (bytes.length - from))] = to;
          const expected = generated(bytes);
          const read = byHand(bytes);
          if (expected === 'unknown field')
            expect(read).toMatchObject([{ refused: { code: 'PROTOCOL_ERROR' } }]);
          else expect(read).toStrictEqual(expected);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
