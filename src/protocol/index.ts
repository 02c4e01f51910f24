/**
 * The protocol: the messages that agents and servers exchange, as plain data, and everything about their form.
 *
 * Owns the generated messages, the two codecs with every check that needs no knowledge of the state, the limits, and
 * the registry of errors. May call scopes for the grammar of keys and patterns. Promises that what a decoder gives
 * is within the limits and aliases none of its input; that a decoder throws nothing but FuturestoreError; and that an
 * encoder refuses what it could not encode exactly. Beside that, what the doors for agents and for peers both need
 * against strangers: a waiting room and a budget of log lines.
 */
export { revocationFromMessage, revocationToMessage } from './access-messages.ts';
export * from './addresses.ts';
export { copyBytes } from './bytes.ts';
export * from './durations.ts';
export * from './errors.ts';
export * from './frames.ts';
export * from './future-messages.ts';
export * from './futures.ts';
export { LogBudget } from './log-budget.ts';
export { messages } from './messages.ts';
export { readOperation, writeFuture, writeOperation, writeWriteResult } from './plain-messages.ts';
export { readFuture } from './plain-deliveries.ts';
export { encodeBriefly, encodeMessage, encodeWith, type PlainWriter } from './plain-writer.ts';
export { isNetwork, Networks } from './networks.ts';
export { decodeChange, encodeChange, protobufCodec } from './protobuf-codec.ts';
export { jsonCodec } from './json-codec.ts';
export * from './codecs.ts';
export { levelAmong, levelToken, protocolLevel } from './levels.ts';
export { partsWithoutBound, StrictReader } from './strict-reader.ts';
export {
  reasonWithRetryAfter,
  retryAfterMsOfField,
  retryAfterMsOfReason,
  retryAfterSeconds,
} from './retry-after.ts';
export { WaitingRoom } from './waiting-room.ts';
export { helloProblem, operationProblem, requestProblem } from './request-checks.ts';
export { denied, writeRefusal, type Refusal } from './write-permissions.ts';
export { parseSize } from '../scopes/index.ts';
export type { Revocation } from '../scopes/index.ts';
