/**
 * The messages that reads, awaits and subscriptions consist of, between plain data and bytes without protobufjs's objects
 * in between, as in plain-messages.ts: the bytes are the ones that the generated code gives and takes
 * (test/protocol/plain-deliveries.test.ts), and whatever is not a plain case is left to it.
 */
import { copyBytes } from './bytes.ts';
import type { Answer, AnswerBody, Push, Request, RequestBody } from './frames.ts';
import { outgoing } from './future-messages.ts';
import { defaultContentType } from './futures.ts';
import type { Change, Future, FutureState, OperationResult, Rejection } from './futures.ts';
import { messages } from './messages.ts';
import { writeFuture, writeOperation } from './plain-messages.ts';
import type { PlainWriter } from './plain-writer.ts';
import { isRequestId } from './request-checks.ts';
import { checkedFuture, outgoingId } from './server-frames.ts';
import type { StrictReader } from './strict-reader.ts';

// A tag is the field's number in agent.proto, shifted by three, and its wire type.
const varint = (field: number): number => field << 3;
const delimited = (field: number): number => (field << 3) | 2;

/** What cannot be read here: the generated code is asked, which also has the words for what is wrong. */
const notPlain = undefined;

// ---- to bytes ----

/** agent.Answer of a get or an await; false: it is none, and nothing was written. */
export function writeReadAnswer(writer: PlainWriter, { id, body }: Answer): boolean {
  switch (body.kind) {
    case 'got':
      writer.uint32(varint(1)).uint64(outgoingId(id));
      writer.uint32(delimited(6)).fork();
      if (body.revision !== 0) writer.uint32(varint(1)).uint64(outgoing(body.revision));
      if (body.future !== undefined) writeFutureField(writer, body.future);
      writer.ldelim();
      return true;
    case 'awaited':
      writer.uint32(varint(1)).uint64(outgoingId(id));
      writer.uint32(delimited(8)).fork();
      if (body.alternative !== 0) writer.uint32(varint(1)).uint32(outgoing(body.alternative));
      for (const future of body.futures) writeFutureField(writer, future);
      writer.ldelim();
      return true;
    default:
      return false;
  }
}

function writeFutureField(writer: PlainWriter, future: Future): void {
  writer.uint32(delimited(2)).fork();
  writeFuture(writer, future);
  writer.ldelim();
}

/** agent.Request of a get or a write, whose limits have been checked; false: it is none, and nothing was written. */
export function writePlainRequest(writer: PlainWriter, { id, timeoutMs, body }: Request): boolean {
  if (body.kind !== 'get' && body.kind !== 'write') return false;
  writer.uint32(varint(1)).uint64(id);
  if (timeoutMs !== undefined) writer.uint32(varint(2)).uint64(timeoutMs);
  if (body.kind === 'get') {
    writer.uint32(delimited(6)).fork();
    writer.uint32(delimited(1)).string(body.key);
    if (body.stale) writer.uint32(varint(2)).bool(true);
  } else {
    writer.uint32(delimited(5)).fork();
    writer.uint32(varint(1)).uint64(body.sequence);
    if (body.answeredBelow !== 0) writer.uint32(varint(2)).uint64(body.answeredBelow);
    for (const operation of body.operations) {
      writer.uint32(delimited(3)).fork();
      writeOperation(writer, operation);
      writer.ldelim();
    }
  }
  writer.ldelim();
  return true;
}

// ---- from bytes: what clients send ----

/**
 * agent.Request of `length` bytes, if it is a get with numbers that are none too large. undefined: it is something else,
 * or broken, and nothing has been read.
 */
export function readGetRequest(reader: StrictReader, length: number): Request | undefined {
  const { pos, partsLeft } = reader;
  const request = readGet(reader, reader.pos + length);
  if (request === undefined) reader.rewind(pos, partsLeft);
  return request;
}

function readGet(reader: StrictReader, end: number): Request | undefined {
  if (end > reader.len || reader.pos >= end || reader.tag() !== varint(1)) return notPlain;
  const id = reader.uint64();
  let timeoutMs: number | undefined;
  let tag = reader.pos < end ? reader.tag() : 0;
  if (tag === varint(2)) {
    timeoutMs = reader.uint64();
    tag = reader.pos < end ? reader.tag() : 0;
  }
  if (tag !== delimited(6) || timeoutMs === Number.POSITIVE_INFINITY) return notPlain;
  if (reader.size() !== end - reader.pos || reader.pos === end || reader.tag() !== delimited(1))
    return notPlain;
  const key = reader.stringVerify();
  let stale = false;
  if (reader.pos < end) {
    if (reader.tag() !== varint(2)) return notPlain;
    stale = reader.bool();
  }
  if (reader.pos !== end) return notPlain;
  const body: RequestBody = { kind: 'get', key, stale };
  return timeoutMs === undefined ? { id, body } : { id, timeoutMs, body };
}

// ---- from bytes: what servers send ----

const { FutureState: states } = messages.agent;
const stateNames: readonly (FutureState | undefined)[] = Object.assign<(FutureState | undefined)[], object>(
  [],
  {
    [states.PENDING]: 'pending',
    [states.RESOLVED]: 'resolved',
    [states.REJECTED]: 'rejected',
    [states.EXPIRED]: 'expired',
  },
);

/** Where the length-delimited field whose length is next ends; 0: behind `end`. */
function fieldEnd(reader: StrictReader, end: number): number {
  const length = reader.size();
  const fieldsEnd = reader.pos + length;
  return fieldsEnd <= end ? fieldsEnd : 0;
}

function readRejection(reader: StrictReader, end: number): Rejection | undefined {
  let code = '';
  let message = '';
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag <= before) return notPlain;
    before = tag;
    if (tag === delimited(1)) code = reader.stringVerify();
    else if (tag === delimited(2)) message = reader.stringVerify();
    else return notPlain;
  }
  return reader.pos === end ? { code, message } : notPlain;
}

/** Most futures that are read one after the other are of one producer: its name is kept once. */
let lastProducer = '';

/**
 * agent.Future up to `end`; what its parts say of each other is not checked. undefined: broken, or not as our own encoders
 * write it.
 */
export function readFuture(reader: StrictReader, end: number): Future | undefined {
  let key = '';
  let generation = 0;
  let state: FutureState | undefined;
  let revision = 0;
  let value: Uint8Array | undefined;
  let contentType = '';
  let sensitive = false;
  let rejection: Rejection | undefined;
  let producer = '';
  let changedAtMs = 0;
  let expiresAtMs: number | undefined;
  let deadlineAtMs: number | undefined;
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    // Each field once, in their order: what comes twice is for the generated code to merge.
    if (tag <= before) return notPlain;
    before = tag;
    if (tag === delimited(1)) key = reader.stringVerify();
    else if (tag === varint(2)) generation = reader.uint64();
    else if (tag === varint(3)) state = stateNames[reader.int32()];
    else if (tag === varint(4)) revision = reader.uint64();
    else if (tag === delimited(5)) value = reader.bytes();
    else if (tag === delimited(6)) contentType = reader.textOr(defaultContentType);
    else if (tag === varint(7)) sensitive = reader.bool();
    else if (tag === delimited(8)) {
      const rejectionEnd = fieldEnd(reader, end);
      rejection = rejectionEnd === 0 ? undefined : readRejection(reader, rejectionEnd);
      if (rejection === undefined) return notPlain;
    } else if (tag === delimited(9)) lastProducer = producer = reader.textOr(lastProducer);
    else if (tag === varint(10)) changedAtMs = reader.uint64();
    else if (tag === varint(11)) expiresAtMs = reader.uint64();
    else if (tag === varint(12)) deadlineAtMs = reader.uint64();
    else return notPlain;
  }
  if (reader.pos !== end || state === undefined) return notPlain;
  // A number that is too large is Infinity, and so is its sum with others.
  if (generation + revision + changedAtMs + (expiresAtMs ?? 0) + (deadlineAtMs ?? 0) === Infinity)
    return notPlain;
  return {
    key,
    generation,
    state,
    revision,
    contentType,
    sensitive,
    producer,
    changedAtMs,
    ...(value === undefined ? undefined : { value: copyBytes(value) }),
    ...(rejection === undefined ? undefined : { rejection }),
    ...(expiresAtMs === undefined ? undefined : { expiresAtMs }),
    ...(deadlineAtMs === undefined ? undefined : { deadlineAtMs }),
  };
}

/** The next field, which is a future, if that is plain. Throws PROTOCOL_ERROR for one that contradicts itself. */
function readFutureField(reader: StrictReader, end: number): Future | undefined {
  const futureEnd = fieldEnd(reader, end);
  const future = futureEnd === 0 ? undefined : readFuture(reader, futureEnd);
  return future === undefined ? notPlain : checkedFuture(future);
}

/** agent.GetResult */
function readGot(reader: StrictReader, end: number): AnswerBody | undefined {
  let revision = 0;
  let future: Future | undefined;
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag <= before) return notPlain;
    before = tag;
    if (tag === varint(1)) revision = reader.uint64();
    else if (tag === delimited(2)) {
      future = readFutureField(reader, end);
      if (future === undefined) return notPlain;
    } else return notPlain;
  }
  return reader.pos === end && revision !== Infinity ? { kind: 'got', revision, future } : notPlain;
}

/** agent.AwaitResult */
function readAwaited(reader: StrictReader, end: number): AnswerBody | undefined {
  let alternative = 0;
  const futures: Future[] = [];
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag < before || (tag === before && tag !== delimited(2))) return notPlain;
    before = tag;
    if (tag === varint(1)) alternative = reader.uint32();
    else if (tag === delimited(2)) {
      const future = readFutureField(reader, end);
      if (future === undefined) return notPlain;
      futures.push(future);
    } else return notPlain;
  }
  const plain = reader.pos === end && futures.length > 0 && alternative !== Infinity;
  return plain ? { kind: 'awaited', alternative, futures } : notPlain;
}

/** agent.WriteResult */
function readWritten(reader: StrictReader, end: number): AnswerBody | undefined {
  let revision = 0;
  const results: OperationResult[] = [];
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag < before || (tag === before && tag !== delimited(2))) return notPlain;
    before = tag;
    if (tag === varint(1)) revision = reader.uint64();
    else if (tag === delimited(2)) {
      const resultEnd = fieldEnd(reader, end);
      const result = resultEnd === 0 ? undefined : readOperationResult(reader, resultEnd);
      if (result === undefined) return notPlain;
      results.push(result);
    } else return notPlain;
  }
  if (reader.pos !== end || revision === Infinity) return notPlain;
  return { kind: 'written', result: { revision, results } };
}

function readOperationResult(reader: StrictReader, end: number): OperationResult | undefined {
  let generation = 0;
  let state: FutureState | undefined;
  let revision = 0;
  let unchanged = false;
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag <= before) return notPlain;
    before = tag;
    if (tag === varint(1)) generation = reader.uint64();
    else if (tag === varint(2)) state = stateNames[reader.int32()];
    else if (tag === varint(3)) revision = reader.uint64();
    else if (tag === varint(4)) unchanged = reader.bool();
    else return notPlain;
  }
  if (reader.pos !== end || state === undefined || generation + revision === Infinity) return notPlain;
  return { generation, state, revision, unchanged };
}

/** agent.Answer up to `end`, if it is one to a write, a get or an await. */
function readAnswer(reader: StrictReader, end: number): Answer | undefined {
  if (reader.pos >= end || reader.tag() !== varint(1)) return notPlain;
  const id = reader.uint64();
  if (!isRequestId(id) || reader.pos >= end) return notPlain;
  const tag = reader.tag();
  if ((tag & 7) !== 2 || fieldEnd(reader, end) !== end) return notPlain;
  let body: AnswerBody | undefined;
  if (tag === delimited(5)) body = readWritten(reader, end);
  else if (tag === delimited(6)) body = readGot(reader, end);
  else if (tag === delimited(8)) body = readAwaited(reader, end);
  return body === undefined ? notPlain : { id, body };
}

/** agent.Change up to `end`, if it is a future. */
function readFutureChange(reader: StrictReader, end: number): Change | undefined {
  let revision = 0;
  let tag = reader.pos < end ? reader.tag() : 0;
  if (tag === varint(1)) {
    revision = reader.uint64();
    tag = reader.pos < end ? reader.tag() : 0;
  }
  if (revision === Infinity || tag !== delimited(2) || fieldEnd(reader, end) !== end) return notPlain;
  const future = readFuture(reader, end);
  if (future === undefined) return notPlain;
  return { kind: 'future', revision, key: future.key, future: checkedFuture(future) };
}

/** A change, and where it stands in the frame. */
interface PlacedChange {
  readonly start: number;
  readonly end: number;
  readonly change: Change;
}

/** agent.Push up to `end`, of futures; `before`: the changes of the push before it, `placed`: to be filled with its own. */
function readPush(
  reader: StrictReader,
  end: number,
  before: readonly PlacedChange[],
  placed: PlacedChange[],
): Push | undefined {
  let subscription = 0;
  const changes: Change[] = [];
  let revision = 0;
  let caughtUp = false;
  let last = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag < last || (tag === last && tag !== delimited(2))) return notPlain;
    last = tag;
    if (tag === varint(1)) subscription = reader.uint64();
    else if (tag === delimited(2)) {
      const changeEnd = fieldEnd(reader, end);
      if (changeEnd === 0) return notPlain;
      const start = reader.pos;
      // Subscriptions that overlap are told of one change in one frame, each with the same bytes.
      const same = before[placed.length];
      let change: Change | undefined;
      if (same !== undefined && reader.sameBytes(same.start, same.end, start, changeEnd)) {
        ({ change } = same);
        reader.pos = changeEnd;
      } else change = readFutureChange(reader, changeEnd);
      if (change === undefined) return notPlain;
      placed.push({ start, end: changeEnd, change });
      changes.push(change);
    } else if (tag === varint(3)) revision = reader.uint64();
    else if (tag === varint(4)) caughtUp = reader.bool();
    else return notPlain;
  }
  const plain = reader.pos === end && isRequestId(subscription) && revision !== Infinity;
  return plain ? { subscription, changes, revision, caughtUp } : notPlain;
}

/**
 * agent.ServerFrame, if it has nothing but answers to writes, gets and awaits and pushes of futures. undefined: it is
 * another one, or broken, and nothing has been read. Throws PROTOCOL_ERROR for a future that contradicts itself.
 */
export function readPlainServerFrame(
  reader: StrictReader,
): { readonly answers: readonly Answer[]; readonly pushes: readonly Push[] } | undefined {
  const { pos, partsLeft } = reader;
  const answers: Answer[] = [];
  const pushes: Push[] = [];
  let before: PlacedChange[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    const end = tag === delimited(2) || tag === delimited(3) ? fieldEnd(reader, reader.len) : 0;
    let read: Answer | Push | undefined;
    if (end === 0) read = undefined;
    else if (tag === delimited(2)) {
      const answer = readAnswer(reader, end);
      if (answer !== undefined) answers.push(answer);
      read = answer;
    } else {
      const placed: PlacedChange[] = [];
      const push = readPush(reader, end, before, placed);
      if (push !== undefined) pushes.push(push);
      before = placed;
      read = push;
    }
    if (read === undefined) {
      reader.rewind(pos, partsLeft);
      return notPlain;
    }
  }
  return answers.length + pushes.length > 0 ? { answers, pushes } : notPlain;
}
