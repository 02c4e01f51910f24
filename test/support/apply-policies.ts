/** Policies for a cluster that runs, by the command. */
import { writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { run } from './process-cluster.ts';
import type { ProcessCluster } from './process-cluster.ts';

/** `file`: where the document is kept in the cluster's directory. */
export const applyPolicies = async (
  cluster: ProcessCluster,
  document: object,
  file: string,
): Promise<void> => {
  writeFileSync(cluster.path(file), stringify(document, { aliasDuplicateObjects: false }));
  const { code, stderr } = await run([
    'acl',
    'apply',
    cluster.path(file),
    '--profile',
    cluster.path('admin.yaml'),
  ]);
  if (code !== 0) throw new Error(`acl apply failed: ${stderr}`);
};
