/**
 * The errors that carry more than a code, and how the server's failures become errors. Every error that leaves the
 * client is a FuturestoreError; a caller can rely on `code` alone.
 */
import { FuturestoreError } from '../protocol/index.ts';
import type { Failure, Rejection } from '../protocol/index.ts';

/** `FUTURE_REJECTED`: an awaited future was rejected by its producer, its deadline, or the loss of its producer. */
export class FutureRejectedError extends FuturestoreError {
  readonly key: string;
  readonly rejection: Rejection;
  readonly generation: number;
  /** The principal that declared it, or rejected it undeclared; '' where that is not known. */
  readonly producer: string;

  constructor(key: string, rejection: Rejection, generation: number, producer = '') {
    const text = rejection.message === '' ? '' : `: ${rejection.message}`;
    super('FUTURE_REJECTED', `${key} was rejected with ${rejection.code}${text}`);
    this.name = 'FutureRejectedError';
    this.key = key;
    this.rejection = rejection;
    this.generation = generation;
    this.producer = producer;
  }
}

/** `TIMED_OUT`: the request's own time is over. */
export class TimedOutError extends FuturestoreError {
  /** Of a write that left this process: whether it happened, or will, is not known. */
  readonly mayHaveHappened: boolean;

  constructor(message: string, mayHaveHappened: boolean) {
    super('TIMED_OUT', message);
    this.name = 'TimedOutError';
    this.mayHaveHappened = mayHaveHappened;
  }
}

/** `CANCELLED`: by the caller's AbortSignal, whose reason is the `cause`, or by the end of its subscription. */
export class CancelledError extends FuturestoreError {
  /** Of a write that left this process: whether it happened, or will, is not known. */
  readonly mayHaveHappened: boolean;

  constructor(message: string, mayHaveHappened: boolean, cause: unknown) {
    super('CANCELLED', message, { cause });
    this.name = 'CancelledError';
    this.mayHaveHappened = mayHaveHappened;
  }
}

/** A write that failed because of one of its operations; nothing of it happened. */
export class OperationFailedError extends FuturestoreError {
  /** Which operation it was (0-based). */
  readonly operation: number;

  constructor(failure: Failure, operation: number) {
    super(failure.code, failure.message);
    this.name = 'OperationFailedError';
    this.operation = operation;
  }
}

export function errorOf(failure: Failure): FuturestoreError {
  if (failure.operation !== undefined) return new OperationFailedError(failure, failure.operation);
  return new FuturestoreError(failure.code, failure.message);
}

/** `what`: other than a write of a key. */
export const outcomeUnknown = (why: string, what = 'the write'): FuturestoreError =>
  new FuturestoreError(
    'OUTCOME_UNKNOWN',
    `${why}: whether ${what} happened cannot be known; read what is there first`,
  );

export const clientClosed = (): FuturestoreError =>
  new FuturestoreError('CONNECTION_CLOSED', 'the client is closed: make a new one with connect()');
