/** Policies for agents with certificates: each may see what is below its own name. */
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import type { Credentials } from '../../src/cli/authority/certificates.ts';
import { policiesAtFirst } from '../../test/agents/plan.ts';
import type { PolicyDocument } from '../../test/agents/policy-model.ts';
import { applyPolicies } from '../../test/support/apply-policies.ts';
import type { ProcessCluster } from '../../test/support/process-cluster.ts';

/** Beside what `init` has made. `authority`: of the agents' certificates, instead of that of the last time. */
export const giveScopes = async (cluster: ProcessCluster, authority: Credentials): Promise<void> => {
  const base = parse(readFileSync(cluster.path('policy.yaml'), 'utf8')) as PolicyDocument;
  await applyPolicies(cluster, policiesAtFirst(base, authority.certificate), 'agents.yaml');
};
