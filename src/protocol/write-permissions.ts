/** What a scope says of a write: asked at the gateway for an early answer, and again when the write is applied. */
import type { Scope, Verb } from '../scopes/index.ts';
import type { Failure } from './errors.ts';
import { limits } from './futures.ts';
import type { Operation } from './futures.ts';

/** Why a request is refused, for its answer and for the audit. */
export interface Refusal {
  readonly failure: Failure;
  readonly verb: Verb;
  /** The key or pattern; '' where there is none. */
  readonly key: string;
}

/** The text names verb and key as the asker wrote them, and is the same whether or not there is such a key. */
export const denied = (verb: Verb, key: string, principal: string, operation?: number): Refusal => {
  const message =
    key === ''
      ? `${principal} may not ask for ${verb}: no policy allows it`
      : `${principal} may not ${verb} ${key}: no policy allows it`;
  const failure: Failure =
    operation === undefined
      ? { code: 'PERMISSION_DENIED', message }
      : { code: 'PERMISSION_DENIED', message, operation };
  return { verb, key, failure };
};

/** undefined: all of it is allowed. */
export const writeRefusal = (
  operations: readonly Operation[],
  scope: Scope,
  principal: string,
): Refusal | undefined => {
  // Permissions of the whole write first: sizes are not told about what is forbidden.
  let index = 0;
  for (const { kind, key } of operations) {
    if (!scope.allows(kind, key)) return denied(kind, key, principal, index);
    index += 1;
  }
  index = 0;
  for (const operation of operations) {
    const refusal = sizeRefusal(operation, index, scope) ?? ttlRefusal(operation, index, scope);
    if (refusal !== undefined) return refusal;
    index += 1;
  }
  return undefined;
};

const sizeRefusal = (operation: Operation, index: number, scope: Scope): Refusal | undefined => {
  if (operation.kind !== 'resolve') return undefined;
  const { key, value } = operation;
  const bytesMax = Math.min(scope.valueBytesMax('resolve', key), limits.valueBytesMax);
  if (value.length <= bytesMax) return undefined;
  const message = `the value for ${key} has ${value.length} bytes, but ${bytesMax} are allowed: make it smaller, or raise value_max in the policy`;
  return { verb: 'resolve', key, failure: { code: 'VALUE_TOO_LARGE', message, operation: index } };
};

const ttlRefusal = (operation: Operation, index: number, scope: Scope): Refusal | undefined => {
  const { kind, key } = operation;
  if (kind !== 'resolve' && kind !== 'reject' && kind !== 'touch') return undefined;
  const ttlMs = operation.ttlMs ?? Number.POSITIVE_INFINITY;
  const ttlMaxMs = scope.ttlMaxMs(kind, key);
  if (ttlMs <= ttlMaxMs) return undefined;
  const given = operation.ttlMs === undefined ? 'has no TTL' : `has a TTL of ${operation.ttlMs} ms`;
  const message = `the ${kind} of ${key} ${given}, but at most ${ttlMaxMs} ms are allowed: give a TTL up to that, or raise ttl_max in the policy`;
  return { verb: kind, key, failure: { code: 'LIMIT_EXCEEDED', message, operation: index } };
};
