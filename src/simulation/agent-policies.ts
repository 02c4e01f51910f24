/** The policy documents of the simulated cluster: everything for everybody, but for those who are restricted. */
import type { BindingDocument, PolicyDocument } from '../scopes/index.ts';
import type { Restriction } from './plan.ts';

/** Agents are known by their number, as in a certificate. */
export const agentRealm = 'agents';
export const nameOf = (agent: number): string => `agent-${agent}`;

/** Who changes members, and who changes policies, have the numbers after the agents'. */
export const operatorOf = (agents: number): number => agents + 1;
export const accessOperatorOf = (agents: number): number => agents + 2;

const everything = { allow: ['*'], on: '**' };

/**
 * What is left of everything. Subscriptions and lists are of `k/**` as a whole, or of `k/1`, `k/2` and others: some of
 * these lose all, some only one.
 */
const policies: PolicyDocument['policies'] = {
  all: [everything],
  cluster: [
    { allow: ['cluster.status', 'cluster.drain', 'cluster.rebalance', 'member.list', 'member.change'] },
  ],
  access: [{ allow: ['acl.get', 'acl.change'] }],
  nothing: [],
  reads: [{ allow: ['get', 'await', 'list', 'subscribe'], on: '**' }],
  writes: [{ allow: ['declare', 'resolve', 'reject', 'delete', 'touch'], on: '**' }],
  few_keys: [{ allow: ['*'], on: ['k/1', 'k/2', 'none/*'] }],
  without_one: [everything, { deny: ['*'], on: 'k/2' }],
  one_connection: [{ limit: { connections: 1 } }],
  few_pending: [everything, { limit: { pending: 2 } }],
};

export const documentOf = (
  agents: number,
  restrictions: readonly (readonly [agent: number, restriction: Restriction])[],
  soleConnections = false,
): PolicyDocument => {
  const restricted = new Map(restrictions);
  const numbers = Array.from({ length: accessOperatorOf(agents) }, (_, at) => at + 1);
  const bindings = numbers.map((agent): BindingDocument => ({
    realm: agentRealm,
    principal: nameOf(agent),
    policies: [
      restricted.get(agent) ?? 'all',
      ...(soleConnections && agent <= agents ? ['one_connection'] : []),
    ],
  }));
  return {
    realms: { [agentRealm]: {} },
    policies,
    bindings: [
      ...bindings,
      { realm: agentRealm, policies: ['cluster'] },
      { realm: agentRealm, principal: nameOf(accessOperatorOf(agents)), policies: ['access'] },
    ],
  };
};
