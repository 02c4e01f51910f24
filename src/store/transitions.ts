/** The rules of one operation on one key: a pure function from the key as it is to the key as it will be. */
import {
  rejectionCodes,
  type ErrorCode,
  type Failure,
  type Future,
  type FutureState,
  type Operation,
  type Rejection,
} from '../protocol/index.ts';
import { unreachable } from './assert.ts';
import type { Slot } from './future-table.ts';
import type { Session } from './sessions.ts';

/** What is the same for all operations of one command. */
export interface Circumstances {
  /** The state's time. */
  readonly nowMs: number;
  /** What the command's changes will have. */
  readonly revision: number;
  readonly principal: string;
  readonly session: Session;
  /** What is settled for another counts for who settles it. */
  readonly strictQuotas: boolean;
}

export type Outcome =
  | { readonly kind: 'changed'; readonly slot: Slot }
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'failed'; readonly failure: Failure };

type Draft = { -readonly [Name in keyof Future]: Future[Name] };
type Settlement = Extract<Operation, { kind: 'resolve' | 'reject' }>;

const unchanged: Outcome = { kind: 'unchanged' };

const failed = (code: ErrorCode, message: string): Outcome => ({
  kind: 'failed',
  failure: { code, message },
});

/** The future as time has made it, whether its expiry has been applied yet or not. */
export const stateAt = (future: Future, nowMs: number): FutureState => {
  switch (future.state) {
    case 'pending':
      return future.deadlineAtMs !== undefined && future.deadlineAtMs <= nowMs ? 'rejected' : 'pending';
    case 'resolved':
    case 'rejected':
      return future.expiresAtMs !== undefined && future.expiresAtMs <= nowMs ? 'expired' : future.state;
    case 'expired':
      return 'expired';
    default:
      return unreachable(future.state, 'a state');
  }
};

/** As a reader at `nowMs` may see it: what is no longer fresh has neither value nor rejection. */
export const freshAt = (future: Future, nowMs: number): Future => {
  if (future.expiresAtMs === undefined || future.expiresAtMs > nowMs) return future;
  if (future.state !== 'resolved' && future.state !== 'rejected') return future;
  return withoutContent(future, 'expired', future.revision, future.changedAtMs);
};

/** The next state of a future whose instant has come. */
export const expired = (future: Future, revision: number, nowMs: number): Future => {
  switch (future.state) {
    case 'pending':
      return rejectedByCluster(future, revision, nowMs, {
        code: rejectionCodes.deadlineExceeded,
        message: 'Its deadline passed before anyone settled it.',
      });
    case 'resolved':
    case 'rejected':
      return withoutContent(future, 'expired', revision, nowMs);
    case 'expired':
      return future;
    default:
      return unreachable(future.state, 'a state');
  }
};

export const producerLost = (future: Future, revision: number, nowMs: number): Future =>
  rejectedByCluster(future, revision, nowMs, {
    code: rejectionCodes.producerLost,
    message: 'The session of its producer ended and did not come back in time.',
  });

export const operate = (slot: Slot, operation: Operation, at: Circumstances): Outcome => {
  const violated = violatedPrecondition(slot, operation);
  if (violated !== undefined) {
    return failed(
      'PRECONDITION_FAILED',
      `${violated} does not hold for ${operation.key}: read it and decide anew`,
    );
  }
  switch (operation.kind) {
    case 'declare':
      return declare(slot, operation, at);
    case 'resolve':
    case 'reject':
      return settle(slot, operation, at);
    case 'delete':
      return remove(slot, operation.key);
    case 'touch':
      return touch(slot, operation.key, operation.ttlMs, at);
    default:
      return unreachable(operation, 'an operation');
  }
};

const violatedPrecondition = ({ future }: Slot, { preconditions }: Operation): string | undefined => {
  const { ifRevision, ifGeneration, ifAbsent } = preconditions;
  if (ifRevision !== undefined && future?.revision !== ifRevision) return `if_revision ${ifRevision}`;
  if (ifGeneration !== undefined && future?.generation !== ifGeneration)
    return `if_generation ${ifGeneration}`;
  if (ifAbsent === true && future !== undefined) return 'if_absent';
  return undefined;
};

const declare = (
  slot: Slot,
  operation: Extract<Operation, { kind: 'declare' }>,
  at: Circumstances,
): Outcome => {
  const present = slot.future;
  if (present !== undefined) {
    const state = stateAt(present, at.nowMs);
    if (state === 'pending') return redeclare(slot, present, operation, at);
    if (!operation.renew) return unchanged;
  }
  const future = begin(operation.key, slot.lastGeneration + 1, 'pending', at);
  if (operation.deadlineMs !== undefined) future.deadlineAtMs = at.nowMs + operation.deadlineMs;
  return opened(future, operation.tied ? at.session : undefined);
};

/** A producer that starts again takes up what it left: its new session, its new deadline. */
const redeclare = (
  slot: Slot,
  present: Future,
  operation: Extract<Operation, { kind: 'declare' }>,
  at: Circumstances,
): Outcome => {
  if (present.producer !== at.principal) return unchanged;
  const tied = operation.tied ? at.session : slot.tied;
  const deadlineAtMs =
    operation.deadlineMs === undefined ? present.deadlineAtMs : at.nowMs + operation.deadlineMs;
  if (tied === slot.tied && deadlineAtMs === present.deadlineAtMs) return unchanged;
  const future: Draft = { ...present, revision: at.revision, changedAtMs: at.nowMs };
  if (deadlineAtMs !== undefined) future.deadlineAtMs = deadlineAtMs;
  return same(slot, future, tied);
};

const settle = (slot: Slot, operation: Settlement, at: Circumstances): Outcome => {
  const present = slot.future;
  if (present === undefined) {
    return opened(
      settled(begin(operation.key, slot.lastGeneration + 1, 'pending', at), operation, at),
      undefined,
    );
  }
  const state = stateAt(present, at.nowMs);
  switch (state) {
    case 'pending': {
      const future = begin(operation.key, present.generation, 'pending', at);
      future.producer = present.producer;
      const payer = at.strictQuotas && present.producer !== at.principal ? at.principal : undefined;
      return same(slot, settled(future, operation, at), undefined, payer);
    }
    case 'resolved':
      if (operation.kind === 'resolve' && isSameValue(present, operation)) {
        return operation.ttlMs === undefined ? unchanged : refreshed(slot, present, operation.ttlMs, at);
      }
      if (!operation.supersede) {
        return failed(
          'ALREADY_SETTLED',
          `${operation.key} is resolved in generation ${present.generation}: supersede opens the next one`,
        );
      }
      break;
    case 'rejected':
    case 'expired':
      break;
    default:
      return unreachable(state, 'a state');
  }
  return opened(
    settled(begin(operation.key, slot.lastGeneration + 1, 'pending', at), operation, at),
    undefined,
  );
};

const remove = (slot: Slot, key: string): Outcome => {
  if (slot.future === undefined) return failed('NOT_FOUND', `there is no ${key} to delete`);
  const { lastGeneration, createdRevision } = slot;
  return {
    kind: 'changed',
    slot: { future: undefined, lastGeneration, createdRevision, tied: undefined, payer: undefined },
  };
};

const touch = (slot: Slot, key: string, ttlMs: number, at: Circumstances): Outcome => {
  const present = slot.future;
  if (present === undefined) return failed('NOT_FOUND', `there is no ${key} to touch`);
  const state = stateAt(present, at.nowMs);
  // A pending one whose deadline has passed has no value either, nor an outcome that anyone has seen.
  if (present.state === 'pending' || state === 'expired') {
    return failed(
      'NO_VALUE',
      `${key} is ${present.state === 'pending' ? 'pending' : state}: there is nothing to keep fresh`,
    );
  }
  return refreshed(slot, present, ttlMs, at);
};

const refreshed = (slot: Slot, present: Future, ttlMs: number, at: Circumstances): Outcome => {
  const expiresAtMs = at.nowMs + ttlMs;
  if (present.expiresAtMs === expiresAtMs) return unchanged;
  const future = { ...present, expiresAtMs, revision: at.revision, changedAtMs: at.nowMs };
  return same(slot, future, undefined, slot.payer);
};

const begin = (key: string, generation: number, state: FutureState, at: Circumstances): Draft => ({
  key,
  generation,
  state,
  revision: at.revision,
  contentType: '',
  sensitive: false,
  producer: at.principal,
  changedAtMs: at.nowMs,
});

const settled = (future: Draft, operation: Settlement, at: Circumstances): Future => {
  if (operation.kind === 'resolve') {
    future.state = 'resolved';
    future.value = operation.value;
    future.contentType = operation.contentType;
    future.sensitive = operation.sensitive;
  } else {
    future.state = 'rejected';
    future.rejection = operation.rejection;
  }
  if (operation.ttlMs !== undefined) future.expiresAtMs = at.nowMs + operation.ttlMs;
  return future;
};

/** A new generation. */
const opened = (future: Future, tied: Session | undefined): Outcome => ({
  kind: 'changed',
  slot: {
    future,
    lastGeneration: future.generation,
    createdRevision: future.revision,
    tied,
    payer: undefined,
  },
});

/** The same generation. */
const same = (slot: Slot, future: Future, tied: Session | undefined, payer?: string): Outcome => ({
  kind: 'changed',
  slot: { future, lastGeneration: slot.lastGeneration, createdRevision: slot.createdRevision, tied, payer },
});

const isSameValue = (present: Future, operation: Extract<Operation, { kind: 'resolve' }>): boolean =>
  present.contentType === operation.contentType &&
  present.sensitive === operation.sensitive &&
  present.value !== undefined &&
  equalBytes(present.value, operation.value);

const equalBytes = (one: Uint8Array, other: Uint8Array): boolean => {
  if (one.length !== other.length) return false;
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return false;
  return true;
};

const withoutContent = (
  future: Future,
  state: FutureState,
  revision: number,
  changedAtMs: number,
): Future => {
  const { key, generation, contentType, sensitive, producer, expiresAtMs } = future;
  const rest = { key, generation, contentType, sensitive, producer, state, revision, changedAtMs };
  return expiresAtMs === undefined ? rest : { ...rest, expiresAtMs };
};

const rejectedByCluster = (future: Future, revision: number, nowMs: number, rejection: Rejection): Future => {
  const { deadlineAtMs: _deadline, ...rest } = future;
  return { ...rest, state: 'rejected', revision, changedAtMs: nowMs, rejection };
};
