/** What an agent asks and is told, in the form in which histories have it. */
import type { Future, Operation, OperationResult } from '../client/index.ts';
import type { HistoryOperation, HistorySeen, HistoryWrite, HistoryWritten } from './checks/index.ts';

type Mutable<Value> = { -readonly [Key in keyof Value]: Value[Key] };
/** As it is while its answer is awaited. */
export type Recorded = HistoryOperation extends infer One
  ? One extends unknown
    ? Mutable<One>
    : never
  : never;

export const writtenOf = ({ generation, state, revision, unchanged }: OperationResult): HistoryWritten => ({
  generation,
  state,
  revision,
  unchanged,
});

export const seenOf = (future: Future | undefined): HistorySeen => {
  if (future === undefined) return { state: 'absent' };
  const { state, generation, revision, value, rejection, expiresAtMs, deadlineAtMs } = future;
  return {
    state,
    generation,
    revision,
    ...(value !== undefined && { value: Buffer.from(value).toString() }),
    ...(rejection !== undefined && { code: rejection.code }),
    ...(expiresAtMs !== undefined && { expiresAtMs }),
    ...(deadlineAtMs !== undefined && { deadlineAtMs }),
  };
};

export const historyOf = (operation: Operation): HistoryWrite => {
  const { kind, key, preconditions } = operation;
  const base = { kind, key, ...preconditions };
  switch (operation.kind) {
    case 'declare': {
      const { renew, tied, deadlineMs } = operation;
      return { ...base, renew, tied, ...(deadlineMs !== undefined && { deadlineMs }) };
    }
    case 'resolve': {
      const { value, supersede, ttlMs } = operation;
      return {
        ...base,
        value: Buffer.from(value).toString(),
        supersede,
        ...(ttlMs !== undefined && { ttlMs }),
      };
    }
    case 'reject': {
      const { rejection, supersede, ttlMs } = operation;
      return { ...base, code: rejection.code, supersede, ...(ttlMs !== undefined && { ttlMs }) };
    }
    case 'delete':
      return base;
    case 'touch':
      return { ...base, ttlMs: operation.ttlMs };
    default:
      return operation satisfies never;
  }
};
