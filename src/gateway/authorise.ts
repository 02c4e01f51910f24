/**
 * What a principal may ask for: the early answer, before the server is bothered. The texts name verb and key as the
 * asker wrote them and are the same whether or not there is such a key.
 */
import { denied, writeRefusal } from '../protocol/index.ts';
import type { Refusal, RequestBody } from '../protocol/index.ts';
import type { ClusterVerb, Scope } from '../scopes/index.ts';

/** undefined: allowed. */
export const refusalOf = (body: RequestBody, scope: Scope, principal: string): Refusal | undefined => {
  switch (body.kind) {
    case 'open_session':
    case 'close_session':
    case 'cancel':
    case 'authenticate':
    case 'clock':
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
    case 'drain_server':
      return clusterRefusal('cluster.drain', scope, principal);
    case 'rebalance':
      return clusterRefusal('cluster.rebalance', scope, principal);
    case 'snapshot_read':
      return clusterRefusal('snapshot.save', scope, principal);
    case 'acl_get':
      return clusterRefusal('acl.get', scope, principal);
    case 'acl_apply':
    case 'acl_revoke':
    case 'acl_restore':
      return clusterRefusal('acl.change', scope, principal);
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
