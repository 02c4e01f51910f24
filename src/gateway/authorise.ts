/**
 * What a principal may ask for: the early answer, before the server is bothered. The texts name verb and key as the
 * asker wrote them and are the same whether or not there is such a key.
 */
import { limits } from '../protocol/index.ts';
import type { Failure, Operation, RequestBody } from '../protocol/index.ts';
import type { ClusterVerb, Scope, Verb } from '../scopes/index.ts';

/** Why a request is refused, for its answer and for the audit. */
export interface Refusal {
  readonly failure: Failure;
  readonly verb: Verb;
  /** The key or pattern; '' where there is none. */
  readonly key: string;
}

/** undefined: allowed. */
export const refusalOf = (body: RequestBody, scope: Scope, principal: string): Refusal | undefined => {
  switch (body.kind) {
    case 'open_session':
    case 'close_session':
    case 'cancel':
    case 'authenticate':
      return undefined;
    case 'status':
      return clusterRefusal('cluster.status', scope, principal);
    case 'member_list':
      return clusterRefusal('member.list', scope, principal);
    case 'member_add':
    case 'member_promote':
    case 'member_remove':
    case 'transfer_leader':
      return clusterRefusal('member.change', scope, principal);
    case 'snapshot_read':
      return clusterRefusal('snapshot.save', scope, principal);
    case 'get':
      return scope.allows('get', body.key) ? undefined : denied('get', body.key, principal);
    case 'await':
      return awaitRefusal(body.alternatives, scope, principal);
    case 'list':
      return scope.allowsPattern('list', body.pattern) ? undefined : denied('list', body.pattern, principal);
    case 'subscribe': {
      const pattern = body.patterns.find((candidate) => !scope.allowsPattern('subscribe', candidate));
      return pattern === undefined ? undefined : denied('subscribe', pattern, principal);
    }
    case 'write':
      return writeRefusal(body.operations, scope, principal);
    default:
      return body satisfies never;
  }
};

const clusterRefusal = (verb: ClusterVerb, scope: Scope, principal: string): Refusal | undefined =>
  scope.allows(verb, '') ? undefined : denied(verb, '', principal);

const awaitRefusal = (
  alternatives: readonly (readonly string[])[],
  scope: Scope,
  principal: string,
): Refusal | undefined => {
  for (const keys of alternatives) {
    for (const key of keys) if (!scope.allows('await', key)) return denied('await', key, principal);
  }
  return undefined;
};

const writeRefusal = (
  operations: readonly Operation[],
  scope: Scope,
  principal: string,
): Refusal | undefined => {
  // Permissions of the whole write first: sizes are not told about what is forbidden.
  for (const [index, { kind, key }] of operations.entries()) {
    if (!scope.allows(kind, key)) return denied(kind, key, principal, index);
  }
  for (const [index, operation] of operations.entries()) {
    if (operation.kind !== 'resolve') continue;
    const bytesMax = Math.min(scope.valueBytesMax('resolve', operation.key), limits.valueBytesMax);
    if (operation.value.length <= bytesMax) continue;
    return {
      verb: 'resolve',
      key: operation.key,
      failure: {
        code: 'VALUE_TOO_LARGE',
        message: `the value for ${operation.key} has ${operation.value.length} bytes, but ${bytesMax} are allowed: make it smaller, or raise value_max in the policy`,
        operation: index,
      },
    };
  }
  return undefined;
};

const denied = (verb: Verb, key: string, principal: string, operation?: number): Refusal => {
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
