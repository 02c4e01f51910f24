/** How the command ends: the one table from errors to exit codes, and what a user of the command can do about them. */
import type { ErrorCode, Rejection } from '../protocol/index.ts';

/** Public interface: scripts act on these. */
export const exitCodes = {
  done: 0,
  other: 1,
  usage: 2,
  rejected: 3,
  timedOut: 4,
  notPermitted: 5,
  unavailable: 6,
  conflict: 7,
  noValue: 8,
  unusableData: 9,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

interface Ending {
  readonly exit: ExitCode;
  /** What a client's user can do that the error itself, made by a library, does not know of. */
  readonly advice?: string;
}

const end = (exit: ExitCode, advice?: string): Ending => (advice === undefined ? { exit } : { exit, advice });

export const endings: Readonly<Record<ErrorCode, Ending>> = {
  INVALID_ARGUMENT: end(exitCodes.usage),
  INVALID_KEY: end(exitCodes.usage),
  VALUE_TOO_LARGE: end(exitCodes.other),
  PROTOCOL_ERROR: end(exitCodes.other),
  UNAUTHENTICATED: end(
    exitCodes.notPermitted,
    'check ca, cert and key of the profile, or choose another with --profile',
  ),
  PERMISSION_DENIED: end(
    exitCodes.notPermitted,
    'choose a profile that may with --profile, or change the policy',
  ),
  NOT_FOUND: end(exitCodes.noValue),
  NO_VALUE: end(exitCodes.noValue),
  ALREADY_SETTLED: end(exitCodes.conflict, 'replace the value with --supersede'),
  PRECONDITION_FAILED: end(exitCodes.conflict),
  FUTURE_REJECTED: end(exitCodes.rejected),
  SESSION_EXPIRED: end(exitCodes.other, 'run the command again'),
  STALE_REQUEST: end(exitCodes.other, 'run the command again'),
  OUTCOME_UNKNOWN: end(exitCodes.other, 'see with get whether it happened'),
  TIMED_OUT: end(exitCodes.timedOut, 'give it longer with --timeout'),
  CANCELLED: end(exitCodes.other),
  UNAVAILABLE: end(
    exitCodes.unavailable,
    "check that the servers run and that the profile's endpoints are theirs",
  ),
  TOO_MANY_REQUESTS: end(exitCodes.unavailable, 'try again later'),
  QUEUE_FULL: end(exitCodes.unavailable, 'try again when the relay reaches the servers'),
  LIMIT_EXCEEDED: end(exitCodes.other),
  QUOTA_EXCEEDED: end(exitCodes.other, 'delete or settle something, or raise the limit in the policy'),
  RATE_LIMITED: end(exitCodes.unavailable, 'try again later'),
  VERSION_NOT_SUPPORTED: end(exitCodes.other, 'use the version of futurestore that the servers run'),
  CONNECTION_CLOSED: end(exitCodes.other),
  MEMBERSHIP_REFUSED: end(exitCodes.conflict),
  ACCESS_REFUSED: end(exitCodes.conflict),
  DRAIN_REFUSED: end(exitCodes.conflict),
  MEMBER_REMOVED: end(exitCodes.other),
  CONFIGURATION_INVALID: end(exitCodes.usage),
  DATA_DAMAGED: end(exitCodes.unusableData),
  DATA_FOREIGN: end(exitCodes.unusableData),
  DATA_OUTDATED: end(exitCodes.unusableData),
  DATA_IN_USE: end(exitCodes.other),
  INTERNAL: end(exitCodes.other),
};

/** The command was called wrongly. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}

/** By shape, not class: importing the registry would cost every `--help` its load time. */
const hasCode = (error: Error): error is Error & { readonly code: ErrorCode } =>
  'code' in error && typeof error.code === 'string' && Object.hasOwn(endings, error.code);

/** One line that is safe on a terminal, whatever it is made of. */
export const oneLine = (text: string): string =>
  text
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/[\p{Cc}\p{Cf}]/gu, '�')
    .trim();

export const rejectionText = (key: string, { code, message }: Rejection): string =>
  `${key} was rejected with ${code}${message === '' ? '' : `: ${message}`}`;

/** The line for standard error and the exit code. `advises`: the command is a client's, to whom the advice is addressed. */
export const describeError = (
  error: unknown,
  advises = true,
): { readonly line: string; readonly exit: ExitCode } => {
  if (error instanceof UsageError) return { line: oneLine(error.message), exit: exitCodes.usage };
  if (!(error instanceof Error)) return { line: oneLine(String(error)), exit: exitCodes.other };
  if (!hasCode(error)) return { line: oneLine(error.message), exit: exitCodes.other };
  const { exit, advice } = endings[error.code];
  return {
    line: oneLine(advice === undefined || !advises ? error.message : `${error.message} (${advice})`),
    exit,
  };
};
