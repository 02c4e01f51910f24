/** Answers of the local interface: JSON, and errors with the HTTP status that their code has. */
import type { ServerResponse } from 'node:http';
import {
  CancelledError,
  FutureRejectedError,
  OperationFailedError,
  TimedOutError,
} from '../../client/index.ts';
import { FuturestoreError } from '../../protocol/index.ts';
import type { ErrorCode } from '../../protocol/index.ts';

export const statusOf: Readonly<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  INVALID_KEY: 400,
  VALUE_TOO_LARGE: 413,
  PROTOCOL_ERROR: 502,
  UNAUTHENTICATED: 502,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  NO_VALUE: 404,
  ALREADY_SETTLED: 409,
  PRECONDITION_FAILED: 409,
  FUTURE_REJECTED: 424,
  SESSION_EXPIRED: 503,
  STALE_REQUEST: 500,
  OUTCOME_UNKNOWN: 500,
  TIMED_OUT: 408,
  // Nobody waits for it.
  CANCELLED: 499,
  UNAVAILABLE: 503,
  TOO_MANY_REQUESTS: 429,
  RATE_LIMITED: 429,
  QUOTA_EXCEEDED: 429,
  ACCESS_REFUSED: 409,
  DRAIN_REFUSED: 409,
  QUEUE_FULL: 429,
  LIMIT_EXCEEDED: 413,
  VERSION_NOT_SUPPORTED: 502,
  CONNECTION_CLOSED: 503,
  MEMBERSHIP_REFUSED: 409,
  MEMBER_REMOVED: 500,
  CONFIGURATION_INVALID: 500,
  DATA_DAMAGED: 500,
  DATA_OUTDATED: 500,
  DATA_FOREIGN: 500,
  DATA_IN_USE: 500,
  INTERNAL: 500,
};

/** An error with what a program can act on. */
export class DetailedError extends FuturestoreError {
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, details: Readonly<Record<string, unknown>>) {
    super(code, message);
    this.name = 'DetailedError';
    this.details = details;
  }
}

const detailsOf = (error: FuturestoreError): Readonly<Record<string, unknown>> => {
  if (error instanceof DetailedError) return error.details;
  if (error instanceof FutureRejectedError) {
    const { key, generation, rejection, producer } = error;
    return { key, generation, code: rejection.code, message: rejection.message, producer };
  }
  if (error instanceof OperationFailedError) return { operation: error.operation };
  if (error instanceof TimedOutError || error instanceof CancelledError)
    return error.mayHaveHappened ? { may_have_happened: true } : {};
  return {};
};

export const errorAsJson = (error: FuturestoreError): Record<string, unknown> => ({
  code: error.code,
  message: error.message,
  retryable: error.retryable,
  details: detailsOf(error),
});

export const answerWith = (
  response: ServerResponse,
  status: number,
  type: string,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void => {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    ...headers,
  });
  response.end(response.req.method === 'HEAD' ? '' : text);
};

export const answerJson = (response: ServerResponse, status: number, data: unknown): void => {
  answerWith(response, status, 'application/json', `${JSON.stringify(data)}\n`);
};

export const answerError = (
  response: ServerResponse,
  error: FuturestoreError,
  headers: Readonly<Record<string, string>> = {},
  status = statusOf[error.code],
): void => {
  answerWith(
    response,
    status,
    'application/json',
    `${JSON.stringify({ error: errorAsJson(error) })}\n`,
    headers,
  );
};
