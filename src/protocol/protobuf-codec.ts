/** The subprotocol futurestore.v1.protobuf: one protobuf message per WebSocket message. */
import {
  checkedForSending,
  checkedRequest,
  clientFrameToMessage,
  helloFromMessage,
  receiveRequest,
  RequestIds,
  requestsPerFrameMax,
  requestToMessage,
} from './client-frames.ts';
import { FuturestoreError } from './errors.ts';
import type {
  ClientFrame,
  FrameCodec,
  Hello,
  ReceivedClientFrame,
  ReceivedServerFrame,
  RefusedRequest,
  Request,
  ServerFrame,
  SharedPush,
} from './frames.ts';
import {
  changeFromMessage,
  changeToMessage,
  failureToMessage,
  malformed,
  outgoing,
} from './future-messages.ts';
import { limits } from './futures.ts';
import type { Change } from './futures.ts';
import { messages } from './messages.ts';
import { readWriteRequest, writeAnswer, writeFutureChange } from './plain-messages.ts';
import {
  readGetRequest,
  readPlainServerFrame,
  writePlainRequest,
  writeReadAnswer,
} from './plain-deliveries.ts';
import { encodeWith } from './plain-writer.ts';
import type { PlainWriter } from './plain-writer.ts';
import type { WriterType } from './protobuf.ts';
import {
  answeredOnce,
  answerToMessage,
  assertNotEmpty,
  goawayToMessage,
  outgoingId,
  serverFrameFromMessage,
  welcomeToMessage,
} from './server-frames.ts';
import { partsPerFrameMax, StrictReader } from './strict-reader.ts';

const { agent } = messages;

// A tag is the field's number in agent.proto, shifted by three, and its wire type.
const varint = (field: number): number => field << 3;
const delimited = (field: number): number => (field << 3) | 2;

/** What `encodeChange` gave. Throws PROTOCOL_ERROR for anything else. */
export function decodeChange(bytes: Uint8Array): Change {
  return decodeWith(readChange, bytes, Number.POSITIVE_INFINITY);
}

function readChange(reader: StrictReader): Change {
  const message = agent.Change.decode(reader.reader);
  refuseUnknown(reader, 'the change');
  return changeFromMessage(message);
}

function writeChange(writer: PlainWriter, change: Change): void {
  if (change.kind === 'future') writeFutureChange(writer, change);
  else agent.Change.encode(changeToMessage(change), writer);
}

/** The change as an agent.Change message: what a SharedChange carries. */
export function encodeChange(change: Change): Uint8Array {
  return encodeWith(writeChange, change);
}

function writeClientFrame(writer: PlainWriter, frame: ClientFrame): void {
  if (frame.hello !== undefined || frame.requests.length === 0) {
    agent.ClientFrame.encode(clientFrameToMessage(frame), writer);
    return;
  }
  for (const request of checkedForSending(frame.requests)) {
    writer.uint32(delimited(2)).fork();
    if (!writePlainRequest(writer, request)) agent.Request.encode(requestToMessage(request), writer);
    writer.ldelim();
  }
}

function writeServerFrame(writer: PlainWriter, frame: ServerFrame): void {
  assertNotEmpty(frame);
  const { welcome, answers, pushes, goaway, revision, authExpiring } = frame;
  if (welcome !== undefined)
    agent.Welcome.encode(welcomeToMessage(welcome), writer.uint32(delimited(1)).fork()).ldelim();
  for (const answer of answers) {
    writer.uint32(delimited(2)).fork();
    if (!writeAnswer(writer, answer) && !writeReadAnswer(writer, answer))
      agent.Answer.encode(answerToMessage(answer), writer);
    writer.ldelim();
  }
  for (const push of pushes) {
    writer.uint32(delimited(3)).fork();
    writePush(writer, push);
    writer.ldelim();
  }
  if (goaway !== undefined)
    agent.Goaway.encode(goawayToMessage(goaway), writer.uint32(delimited(4)).fork()).ldelim();
  if (revision !== undefined) writer.uint32(varint(5)).uint64(outgoing(revision));
  if (authExpiring !== undefined) {
    const message = { remainingMs: outgoing(authExpiring.remainingMs) };
    agent.AuthExpiring.encode(message, writer.uint32(delimited(6)).fork()).ldelim();
  }
}

/** By hand, so that a change that was encoded once is only copied. */
function writePush(writer: WriterType, push: SharedPush): void {
  writer.uint32(varint(1)).uint64(outgoingId(push.subscription));
  for (const change of push.changes) writer.uint32(delimited(2)).bytes(change.encoded);
  writer.uint32(varint(3)).uint64(outgoing(push.revision));
  if (push.caughtUp) writer.uint32(varint(4)).bool(true);
  if (push.ended !== undefined)
    agent.Error.encode(failureToMessage(push.ended), writer.uint32(delimited(5)).fork()).ldelim();
}

/** Calls a decoder and gives whatever it throws the one form that callers expect. */
function decodeWith<T>(decode: (reader: StrictReader) => T, bytes: Uint8Array, partsMax: number): T {
  try {
    return decode(new StrictReader(bytes, partsMax));
  } catch (error) {
    if (error instanceof FuturestoreError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new FuturestoreError('PROTOCOL_ERROR', `the frame is no valid protobuf message: ${reason}`, {
      cause: error,
    });
  }
}

/** Request by request, so that each can be refused for itself and their number is bounded on the way. */
function readClientFrame(reader: StrictReader): ReceivedClientFrame {
  const requests: (Request | RefusedRequest)[] = [];
  const ids = new RequestIds();
  let hello: Hello | undefined;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === delimited(2)) {
      if (requests.length === requestsPerFrameMax) {
        throw malformed(
          'the frame',
          `has more than ${requestsPerFrameMax} requests: send them in several frames`,
        );
      }
      requests.push(readRequest(reader, ids));
    } else if (tag === delimited(1)) {
      if (hello !== undefined) throw malformed('the frame', 'has two hellos');
      hello = helloFromMessage(agent.Hello.decode(reader.reader, reader.size()));
      refuseUnknown(reader, 'the hello');
    } else throw malformed('the frame', `has a field that this version does not know (tag ${tag})`);
  }
  if (hello !== undefined) return { hello, requests };
  if (requests.length === 0) throw malformed('the frame', 'has nothing in it');
  return { requests };
}

function refuseUnknown(reader: StrictReader, where: string): void {
  if (reader.unknownField !== undefined) throw malformed(where, describeUnknown(reader.unknownField));
}

const describeUnknown = (field: number): string =>
  `has a field that this version does not know, or of another type than it knows (number ${field}, there or in a message inside)`;

function readRequest(reader: StrictReader, ids: RequestIds): Request | RefusedRequest {
  const length = reader.size();
  const plain = readWriteRequest(reader, length) ?? readGetRequest(reader, length);
  if (plain !== undefined) {
    ids.add(plain.id);
    return checkedRequest(plain);
  }
  const message = agent.Request.decode(reader.reader, length);
  const { id } = message;
  ids.add(id);
  const unknown = reader.unknownField;
  if (unknown === undefined) return receiveRequest(id, message);
  reader.unknownField = undefined;
  return { id, refused: { code: 'PROTOCOL_ERROR', message: `the request ${describeUnknown(unknown)}` } };
}

function readServerFrame(reader: StrictReader): ReceivedServerFrame {
  const plain = readPlainServerFrame(reader);
  if (plain !== undefined) return { ...plain, answers: answeredOnce(plain.answers) };
  const message = agent.ServerFrame.decode(reader.reader);
  refuseUnknown(reader, 'the frame');
  return serverFrameFromMessage(message);
}

export const protobufCodec: FrameCodec = {
  subprotocol: 'futurestore.v1.protobuf',
  binary: true,
  encodeClientFrame(frame) {
    return encodeWith(writeClientFrame, frame);
  },
  decodeClientFrame(bytes) {
    if (bytes.length > limits.frameBytesMax) {
      throw malformed('the frame', `has ${bytes.length} bytes: at most ${limits.frameBytesMax} are allowed`);
    }
    return decodeWith(readClientFrame, bytes, partsPerFrameMax);
  },
  encodeServerFrame(frame) {
    return encodeWith(writeServerFrame, frame);
  },
  decodeServerFrame(bytes) {
    return decodeWith(readServerFrame, bytes, Number.POSITIVE_INFINITY);
  },
};
