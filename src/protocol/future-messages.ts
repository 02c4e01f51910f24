/**
 * Futures, operations and their results as agent.proto's messages and back. These convert and check the shape only
 * (each number is a safe integer, each enum is known, each oneof is there); limits are checked at the boundary.
 */
import assert from 'node:assert/strict';
import { copyBytes } from './bytes.ts';
import { errorDefinitions, FuturestoreError, isErrorCode, rejectionCodes } from './errors.ts';
import type { Failure } from './errors.ts';
import { defaultContentType } from './futures.ts';
import type {
  Change,
  Future,
  FutureState,
  Operation,
  OperationResult,
  Preconditions,
  WriteResult,
} from './futures.ts';
import { messages } from './messages.ts';

export type OperationMessage = messages.agent.Operation.$Properties;
export type FutureMessage = messages.agent.Future.$Properties;
export type WriteResultMessage = messages.agent.WriteResult.$Properties;
export type FailureMessage = messages.agent.Error.$Properties;
export type ChangeMessage = messages.agent.Change.$Properties;
type StateMessage = messages.agent.FutureState;

const noBytes = new Uint8Array(0);

/** Whether a field of a message is there: absent ones are null or undefined. */
export function given<T>(value: T | null | undefined): value is T {
  return value !== null && value !== undefined;
}

/** For what goes out: protobufjs would write 1.5 as 1, NaN as 0 and -1 as 2^64-1. */
export function outgoing(value: number): number {
  // The text is made only when it is needed: this is called for every number that leaves.
  if (!Number.isSafeInteger(value) || value < 0)
    assert.fail(`A number to be sent is ${value}: it must be a whole number up to 2^53-1`);
  return value;
}

/** The number of a received message; absent is 0. `field` names it in the error. */
export function incoming(value: number | null | undefined, field: string): number {
  const number = value ?? 0;
  if (!Number.isSafeInteger(number) || number < 0) throw malformed(field, `is ${describeNumber(number)}`);
  return number;
}

/** As `incoming`, where absent means absent. */
export function incomingOptional(value: number | null | undefined, field: string): number | undefined {
  return value === null || value === undefined ? undefined : incoming(value, field);
}

export function describeNumber(value: number): string {
  return value === Number.POSITIVE_INFINITY
    ? 'larger than 2^53-1'
    : `${value}, which is no whole number of 0..2^53-1`;
}

export function malformed(field: string, problem: string): FuturestoreError {
  return new FuturestoreError('PROTOCOL_ERROR', `${field} ${problem}`);
}

// ---- states ----

export function stateToMessage(state: FutureState): StateMessage {
  const { FutureState: states } = messages.agent;
  switch (state) {
    case 'pending':
      return states.PENDING;
    case 'resolved':
      return states.RESOLVED;
    case 'rejected':
      return states.REJECTED;
    case 'expired':
      return states.EXPIRED;
    default:
      return state satisfies never;
  }
}

/** Throws PROTOCOL_ERROR for a state that is not known or not given. */
export function stateFromMessage(state: number | null | undefined, field: string): FutureState {
  const { FutureState: states } = messages.agent;
  switch (state) {
    case states.PENDING:
      return 'pending';
    case states.RESOLVED:
      return 'resolved';
    case states.REJECTED:
      return 'rejected';
    case states.EXPIRED:
      return 'expired';
    default:
      throw malformed(field, `is ${state ?? 0}, which is no known state`);
  }
}

// ---- operations ----

export function operationToMessage(operation: Operation): OperationMessage {
  const message: OperationMessage = { key: operation.key };
  const { ifRevision, ifGeneration, ifAbsent } = operation.preconditions;
  if (ifRevision !== undefined) message.ifRevision = outgoing(ifRevision);
  if (ifGeneration !== undefined) message.ifGeneration = outgoing(ifGeneration);
  if (ifAbsent === true) message.ifAbsent = true;
  switch (operation.kind) {
    case 'declare': {
      const { renew, tied, deadlineMs } = operation;
      message.declare = { renew, tied };
      if (deadlineMs !== undefined) message.declare.deadlineMs = outgoing(deadlineMs);
      break;
    }
    case 'resolve': {
      const { value, contentType, sensitive, ttlMs, supersede } = operation;
      message.resolve = { value, contentType, sensitive, supersede };
      if (ttlMs !== undefined) message.resolve.ttlMs = outgoing(ttlMs);
      break;
    }
    case 'reject': {
      const { rejection, ttlMs, supersede } = operation;
      message.reject = { code: rejection.code, message: rejection.message, supersede };
      if (ttlMs !== undefined) message.reject.ttlMs = outgoing(ttlMs);
      break;
    }
    case 'delete':
      message.delete = {};
      break;
    case 'touch':
      message.touch = { ttlMs: outgoing(operation.ttlMs) };
      break;
    default:
      return operation satisfies never;
  }
  return message;
}

/**
 * Throws PROTOCOL_ERROR where the message has no body or a number that is out of range. Copies the value; fills in the
 * content type and the rejection's code where they are empty.
 */
export function operationFromMessage(message: OperationMessage): Operation {
  const key = message.key ?? '';
  const preconditions = preconditionsFromMessage(message);
  if (given(message.resolve)) {
    const { value, contentType, sensitive, supersede, ttlMs } = message.resolve;
    const ttl = incomingOptional(ttlMs, 'resolve.ttl_ms');
    return {
      kind: 'resolve',
      key,
      preconditions,
      value: copyBytes(value ?? noBytes),
      contentType: !given(contentType) || contentType === '' ? defaultContentType : contentType,
      sensitive: sensitive ?? false,
      supersede: supersede ?? false,
      ...(ttl === undefined ? undefined : { ttlMs: ttl }),
    };
  }
  if (given(message.declare)) {
    const { renew, tied, deadlineMs } = message.declare;
    const deadline = incomingOptional(deadlineMs, 'declare.deadline_ms');
    return {
      kind: 'declare',
      key,
      preconditions,
      renew: renew ?? false,
      tied: tied ?? false,
      ...(deadline === undefined ? undefined : { deadlineMs: deadline }),
    };
  }
  if (given(message.reject)) {
    const { code, message: text, supersede, ttlMs } = message.reject;
    const ttl = incomingOptional(ttlMs, 'reject.ttl_ms');
    return {
      kind: 'reject',
      key,
      preconditions,
      rejection: {
        code: !given(code) || code === '' ? rejectionCodes.unspecified : code,
        message: text ?? '',
      },
      supersede: supersede ?? false,
      ...(ttl === undefined ? undefined : { ttlMs: ttl }),
    };
  }
  if (given(message.touch)) {
    return { kind: 'touch', key, preconditions, ttlMs: incoming(message.touch.ttlMs, 'touch.ttl_ms') };
  }
  if (given(message.delete)) return { kind: 'delete', key, preconditions };
  throw malformed(
    'body',
    'is missing: the operation must be one of declare, resolve, reject, delete and touch',
  );
}

/** The same object for all operations that have none. */
export const noPreconditions: Preconditions = Object.freeze({});

function preconditionsFromMessage(message: OperationMessage): Preconditions {
  const ifRevision = incomingOptional(message.ifRevision, 'if_revision');
  const ifGeneration = incomingOptional(message.ifGeneration, 'if_generation');
  const ifAbsent = message.ifAbsent === true;
  if (ifRevision === undefined && ifGeneration === undefined && !ifAbsent) return noPreconditions;
  return {
    ...(ifRevision === undefined ? undefined : { ifRevision }),
    ...(ifGeneration === undefined ? undefined : { ifGeneration }),
    ...(ifAbsent ? { ifAbsent } : undefined),
  };
}

// ---- futures and changes ----

export function futureToMessage(future: Future): FutureMessage {
  const message: FutureMessage = {
    key: future.key,
    generation: outgoing(future.generation),
    state: stateToMessage(future.state),
    revision: outgoing(future.revision),
    contentType: future.contentType,
    sensitive: future.sensitive,
    producer: future.producer,
    changedAtMs: outgoing(future.changedAtMs),
  };
  if (future.value !== undefined) message.value = future.value;
  if (future.rejection !== undefined) {
    message.rejection = { code: future.rejection.code, message: future.rejection.message };
  }
  if (future.expiresAtMs !== undefined) message.expiresAtMs = outgoing(future.expiresAtMs);
  if (future.deadlineAtMs !== undefined) message.deadlineAtMs = outgoing(future.deadlineAtMs);
  return message;
}

/** Throws PROTOCOL_ERROR where the state is unknown or a number is out of range. Copies the value. */
export function futureFromMessage(message: FutureMessage): Future {
  const { value, rejection } = message;
  const expiresAtMs = incomingOptional(message.expiresAtMs, 'expires_at_ms');
  const deadlineAtMs = incomingOptional(message.deadlineAtMs, 'deadline_at_ms');
  return {
    key: message.key ?? '',
    generation: incoming(message.generation, 'generation'),
    state: stateFromMessage(message.state, 'state'),
    revision: incoming(message.revision, 'revision'),
    contentType: message.contentType ?? '',
    sensitive: message.sensitive ?? false,
    producer: message.producer ?? '',
    changedAtMs: incoming(message.changedAtMs, 'changed_at_ms'),
    ...(!given(value) ? undefined : { value: copyBytes(value) }),
    ...(!given(rejection)
      ? undefined
      : { rejection: { code: rejection.code ?? '', message: rejection.message ?? '' } }),
    ...(expiresAtMs === undefined ? undefined : { expiresAtMs }),
    ...(deadlineAtMs === undefined ? undefined : { deadlineAtMs }),
  };
}

export function changeToMessage(change: Change): ChangeMessage {
  const revision = outgoing(change.revision);
  return change.kind === 'future'
    ? { revision, future: futureToMessage(change.future) }
    : { revision, deleted: change.key };
}

/** Throws PROTOCOL_ERROR where it is neither a future nor a deletion. */
export function changeFromMessage(message: ChangeMessage): Change {
  const revision = incoming(message.revision, 'revision');
  if (given(message.future)) {
    const future = futureFromMessage(message.future);
    return { kind: 'future', revision, key: future.key, future };
  }
  if (given(message.deleted)) return { kind: 'deleted', revision, key: message.deleted };
  throw malformed('change', 'is neither a future nor a deletion');
}

// ---- results and failures ----

export function writeResultToMessage(result: WriteResult): WriteResultMessage {
  return {
    revision: outgoing(result.revision),
    results: result.results.map((one) => ({
      generation: outgoing(one.generation),
      state: stateToMessage(one.state),
      revision: outgoing(one.revision),
      unchanged: one.unchanged,
    })),
  };
}

/** Throws PROTOCOL_ERROR where a state is unknown or a number is out of range. */
export function writeResultFromMessage(message: WriteResultMessage): WriteResult {
  return {
    revision: incoming(message.revision, 'revision'),
    results: (message.results ?? []).map(operationResultFromMessage),
  };
}

function operationResultFromMessage(message: messages.agent.OperationResult.$Properties): OperationResult {
  return {
    generation: incoming(message.generation, 'generation'),
    state: stateFromMessage(message.state, 'state'),
    revision: incoming(message.revision, 'revision'),
    unchanged: message.unchanged ?? false,
  };
}

export function failureToMessage(failure: Failure): FailureMessage {
  const { code, message, operation, retryAfterMs } = failure;
  return {
    code,
    message,
    retryable: errorDefinitions[code].retryable,
    ...(operation !== undefined && { operation: outgoing(operation) }),
    ...(retryAfterMs !== undefined && { retryAfterMs: outgoing(retryAfterMs) }),
  };
}

/** Throws PROTOCOL_ERROR for a code that is not in the registry. */
export function failureFromMessage(message: FailureMessage): Failure {
  const code = message.code ?? '';
  if (!isErrorCode(code)) throw malformed('code', 'of an error is not in the registry of this version');
  const operation = incomingOptional(message.operation, 'operation');
  const retryAfterMs = incomingOptional(message.retryAfterMs, 'retry_after_ms');
  return {
    code,
    message: message.message ?? '',
    ...(operation !== undefined && { operation }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  };
}
