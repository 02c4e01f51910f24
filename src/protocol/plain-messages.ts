/**
 * The messages that a settle and its delivery consist of, between plain data and bytes without protobufjs's objects in
 * between: these are made for every write on every server. The bytes are the ones that the generated code gives and
 * takes (test/protocol/plain-messages.test.ts holds them together); whatever is not a plain case is left to it.
 */
import { copyBytes } from './bytes.ts';
import type { Answer, Request } from './frames.ts';
import {
  noPreconditions,
  operationFromMessage,
  operationToMessage,
  outgoing,
  stateToMessage,
} from './future-messages.ts';
import { defaultContentType, limits } from './futures.ts';
import type { Change, Future, Operation, Preconditions, WriteResult } from './futures.ts';
import { messages } from './messages.ts';
import type { PlainWriter } from './plain-writer.ts';
import { outgoingId } from './server-frames.ts';
import type { StrictReader } from './strict-reader.ts';

// A tag is the field's number in the .proto file, shifted by three, and its wire type.
const varint = (field: number): number => field << 3;
const delimited = (field: number): number => (field << 3) | 2;

// ---- to bytes ----

/** A field without presence: 0 is not written. */
function writeNumber(writer: PlainWriter, field: number, value: number): void {
  if (value !== 0) writer.uint32(varint(field)).uint64(outgoing(value));
}

function writeText(writer: PlainWriter, field: number, value: string): void {
  if (value !== '') writer.uint32(delimited(field)).string(value);
}

function writeFlag(writer: PlainWriter, field: number, value: boolean): void {
  if (value) writer.uint32(varint(field)).bool(true);
}

/** By its fields: what has crossed between threads is not `noPreconditions` itself. */
const isConditional = ({ ifRevision, ifGeneration, ifAbsent }: Preconditions): boolean =>
  ifRevision !== undefined || ifGeneration !== undefined || ifAbsent === true;

/** agent.Operation */
export function writeOperation(writer: PlainWriter, operation: Operation): void {
  if (operation.kind !== 'resolve' || isConditional(operation.preconditions)) {
    messages.agent.Operation.encode(operationToMessage(operation), writer);
    return;
  }
  const { key, value, contentType, sensitive, ttlMs, supersede } = operation;
  writeText(writer, 1, key);
  writer.uint32(delimited(6)).fork();
  if (value.length > 0) writer.uint32(delimited(1)).bytes(value);
  writeText(writer, 2, contentType);
  writeFlag(writer, 3, sensitive);
  if (ttlMs !== undefined) writer.uint32(varint(4)).uint64(outgoing(ttlMs));
  writeFlag(writer, 5, supersede);
  writer.ldelim();
}

/** agent.Future */
export function writeFuture(writer: PlainWriter, future: Future): void {
  const { key, generation, state, revision, value, contentType, sensitive, rejection, producer } = future;
  const { changedAtMs, expiresAtMs, deadlineAtMs } = future;
  writeText(writer, 1, key);
  writeNumber(writer, 2, generation);
  writer.uint32(varint(3)).int32(stateToMessage(state));
  writeNumber(writer, 4, revision);
  if (value !== undefined) writer.uint32(delimited(5)).bytes(value);
  writeText(writer, 6, contentType);
  writeFlag(writer, 7, sensitive);
  if (rejection !== undefined) {
    writer.uint32(delimited(8)).fork();
    writeText(writer, 1, rejection.code);
    writeText(writer, 2, rejection.message);
    writer.ldelim();
  }
  writeText(writer, 9, producer);
  writeNumber(writer, 10, changedAtMs);
  if (expiresAtMs !== undefined) writer.uint32(varint(11)).uint64(outgoing(expiresAtMs));
  if (deadlineAtMs !== undefined) writer.uint32(varint(12)).uint64(outgoing(deadlineAtMs));
}

/** agent.Change */
export function writeFutureChange(
  writer: PlainWriter,
  { revision, future }: Extract<Change, { kind: 'future' }>,
): void {
  writeNumber(writer, 1, revision);
  writer.uint32(delimited(2)).fork();
  writeFuture(writer, future);
  writer.ldelim();
}

/** agent.WriteResult */
export function writeWriteResult(writer: PlainWriter, { revision, results }: WriteResult): void {
  writeNumber(writer, 1, revision);
  for (const one of results) {
    writer.uint32(delimited(2)).fork();
    writeNumber(writer, 1, one.generation);
    writer.uint32(varint(2)).int32(stateToMessage(one.state));
    writeNumber(writer, 3, one.revision);
    writeFlag(writer, 4, one.unchanged);
    writer.ldelim();
  }
}

/** agent.Answer; false: it is none to a write, and nothing was written. */
export function writeAnswer(writer: PlainWriter, { id, body }: Answer): boolean {
  if (body.kind !== 'written') return false;
  writer.uint32(varint(1)).uint64(outgoingId(id));
  writer.uint32(delimited(5)).fork();
  writeWriteResult(writer, body.result);
  writer.ldelim();
  return true;
}

// ---- from bytes ----

type Resolve = Extract<Operation, { kind: 'resolve' }>;

/** agent.Resolve of a key, up to `end`. undefined: it is broken, or not as our own encoders write it. */
function readResolve(reader: StrictReader, end: number, key: string): Resolve | undefined {
  let value: Uint8Array | undefined;
  let contentType = '';
  let sensitive = false;
  let supersede = false;
  let ttlMs: number | undefined;
  let before = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    // Each field once, in their order: what comes twice is for the generated code to merge.
    if (tag <= before) return undefined;
    before = tag;
    if (tag === delimited(1)) value = reader.bytes();
    else if (tag === delimited(2)) contentType = reader.textOr(defaultContentType);
    else if (tag === varint(3)) sensitive = reader.bool();
    else if (tag === varint(4)) ttlMs = reader.uint64();
    else if (tag === varint(5)) supersede = reader.bool();
    else return undefined;
  }
  if (reader.pos !== end || ttlMs === Number.POSITIVE_INFINITY) return undefined;
  return {
    kind: 'resolve',
    key,
    preconditions: noPreconditions,
    value: copyBytes(value ?? noBytes),
    contentType: contentType === '' ? defaultContentType : contentType,
    sensitive,
    supersede,
    ...(ttlMs === undefined ? undefined : { ttlMs }),
  };
}
const noBytes = new Uint8Array(0);

/** The next operation, if it is a resolve without conditions; else undefined. */
function readResolveOperation(reader: StrictReader, end: number): Resolve | undefined {
  if (end > reader.len || reader.pos === end || reader.tag() !== delimited(1)) return undefined;
  const key = reader.stringVerify();
  if (reader.pos >= end || reader.tag() !== delimited(6)) return undefined;
  const length = reader.size();
  return reader.pos + length === end ? readResolve(reader, end, key) : undefined;
}

/** agent.Operation of `length` bytes. Throws as `operationFromMessage`, and RangeError for what is no such message. */
export function readOperation(reader: StrictReader, length: number): Operation {
  const { pos, partsLeft } = reader;
  const plain = readResolveOperation(reader, reader.pos + length);
  if (plain !== undefined) return plain;
  reader.rewind(pos, partsLeft);
  return operationFromMessage(messages.agent.Operation.decode(reader.reader, length));
}

/**
 * agent.Request of `length` bytes, if it is a write of resolves without conditions, with numbers that are none too
 * large. undefined: it is something else, or broken, and nothing has been read.
 */
export function readWriteRequest(reader: StrictReader, length: number): Request | undefined {
  const { pos, partsLeft } = reader;
  const request = readWrite(reader, reader.pos + length);
  if (request === undefined) reader.rewind(pos, partsLeft);
  return request;
}

function readWrite(reader: StrictReader, end: number): Request | undefined {
  if (end > reader.len || reader.pos >= end || reader.tag() !== varint(1)) return undefined;
  const id = reader.uint64();
  let timeoutMs: number | undefined;
  let tag = reader.pos < end ? reader.tag() : 0;
  if (tag === varint(2)) {
    timeoutMs = reader.uint64();
    tag = reader.pos < end ? reader.tag() : 0;
  }
  if (tag !== delimited(5) || timeoutMs === Number.POSITIVE_INFINITY) return undefined;
  if (reader.size() !== end - reader.pos) return undefined;
  let sequence = 0;
  let answeredBelow = 0;
  const operations: Operation[] = [];
  let before = 0;
  while (reader.pos < end) {
    tag = reader.tag();
    if (tag < before || (tag === before && tag !== delimited(3))) return undefined;
    before = tag;
    if (tag === varint(1)) sequence = reader.uint64();
    else if (tag === varint(2)) answeredBelow = reader.uint64();
    else if (tag === delimited(3)) {
      if (operations.length === limits.operationsPerWriteMax) return undefined;
      const size = reader.size();
      const operation = readResolveOperation(reader, Math.min(reader.pos + size, end + 1));
      if (operation === undefined) return undefined;
      operations.push(operation);
    } else return undefined;
  }
  if (
    reader.pos !== end ||
    sequence === Number.POSITIVE_INFINITY ||
    answeredBelow === Number.POSITIVE_INFINITY
  )
    return undefined;
  const body = { kind: 'write', sequence, answeredBelow, operations } as const;
  return timeoutMs === undefined ? { id, body } : { id, timeoutMs, body };
}
