/**
 * The registry of errors: every code that leaves a server, the client library or the command is here, once.
 * A code is public interface: it is never renamed and never changes its meaning.
 */

interface ErrorDefinition {
  /** What the code means, for the documentation. */
  readonly meaning: string;
  /** Whether the same request, unchanged, may succeed later. */
  readonly retryable: boolean;
}

const define = (meaning: string, retryable = false): ErrorDefinition => ({ meaning, retryable });

export const errorDefinitions = {
  INVALID_ARGUMENT: define('A field of the request is missing, out of its range or contradicts another.'),
  INVALID_KEY: define('A key or pattern does not follow the grammar.'),
  VALUE_TOO_LARGE: define('The value is larger than 1 MiB, or than the policy allows.'),
  PROTOCOL_ERROR: define('The frame is not what the protocol allows.'),
  UNAUTHENTICATED: define('The connection has no accepted identity.'),
  PERMISSION_DENIED: define(
    "The principal's policies do not allow it. Missing and forbidden keys look the same.",
  ),
  NOT_FOUND: define('There is no such key.'),
  NO_VALUE: define('The future has no value to act on: it is pending, or its value has expired.'),
  ALREADY_SETTLED: define('This generation of the future has its value already.'),
  PRECONDITION_FAILED: define('An if_revision, if_generation or if_absent did not hold.'),
  FUTURE_REJECTED: define(
    'The awaited future was rejected by its producer, its deadline, or the loss of its producer.',
  ),
  SESSION_EXPIRED: define('The idempotency session does not exist (any more).'),
  STALE_REQUEST: define('The sequence number is one whose answer the client said it has.'),
  OUTCOME_UNKNOWN: define(
    'Whether the write happened cannot be known any more: read the key before writing again.',
  ),
  TIMED_OUT: define("The request's own timeout passed.", true),
  CANCELLED: define('The request was cancelled by who made it.'),
  UNAVAILABLE: define('The cluster cannot serve the request now.', true),
  TOO_MANY_REQUESTS: define(
    'The connection has as many requests in flight as it may have, or its principal as many pages of lists.',
    true,
  ),
  QUEUE_FULL: define(
    'The relay on this machine holds as many writes for servers that are away as it may.',
    true,
  ),
  LIMIT_EXCEEDED: define('A limit on the number or size of something is reached.'),
  QUOTA_EXCEEDED: define(
    'The principal has as much as its policies let it have: pending futures, keys, or stored bytes.',
  ),
  RATE_LIMITED: define(
    'The principal has made as many requests in a second as its policies let it make.',
    true,
  ),
  VERSION_NOT_SUPPORTED: define('Client and server have no version of the protocol in common.'),
  CONNECTION_CLOSED: define('The client was closed, or told not to come back.'),
  MEMBERSHIP_REFUSED: define(
    'The change of members would not be safe, or not possible, as the cluster is now.',
  ),
  ACCESS_REFUSED: define(
    'The change of policies or revocations would not be safe, or not possible, as the cluster is now.',
  ),
  DRAIN_REFUSED: define(
    'Draining a server, or moving agents, would leave them nowhere to go, or is not possible as the cluster is now.',
  ),
  MEMBER_REMOVED: define('This server has been removed from the cluster.'),
  CONFIGURATION_INVALID: define('A configuration, profile or policy file is not valid.'),
  DATA_DAMAGED: define('What is on disk is not what was written.'),
  DATA_FOREIGN: define('The data directory belongs to another cluster or member.'),
  DATA_OUTDATED: define(
    'The data directory lacks what its server has told the cluster: the member has to be replaced.',
  ),
  DATA_IN_USE: define('Another process uses the data directory.'),
  INTERNAL: define('A bug in the server: please report it.'),
} as const satisfies Record<string, ErrorDefinition>;

export type ErrorCode = keyof typeof errorDefinitions;

export const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(errorDefinitions, code);

/** An error with a code of the registry. The message says what happened, with which value, and what to do next. */
export class FuturestoreError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'FuturestoreError';
    this.code = code;
  }

  get retryable(): boolean {
    return errorDefinitions[this.code].retryable;
  }
}

/** An error as plain data: what crosses rooms, the wire and the log. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  /** Which operation of a write it was (0-based). */
  readonly operation?: number;
  /** Of RATE_LIMITED: not before. */
  readonly retryAfterMs?: number;
}

/** The codes with which the cluster itself rejects a future (a producer may use any code of its own). */
export const rejectionCodes = {
  deadlineExceeded: 'DEADLINE_EXCEEDED',
  producerLost: 'PRODUCER_LOST',
  unspecified: 'REJECTED',
} as const;
