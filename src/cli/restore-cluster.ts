/** A new cluster whose servers begin with the state of a snapshot file. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { FuturestoreError } from '../protocol/index.ts';
import { asMemberId } from '../raft/index.ts';
import { restoreSnapshotFile } from '../server/index.ts';
import type { Restored, RestoreOptions } from '../server/index.ts';
import { canonicalJson } from '../scopes/index.ts';
import type { InitializedCluster, InitOptions } from './authority/cluster-directory.ts';
import { initCluster } from './authority/cluster-directory.ts';
import { adminProfileOf, serverDirectoryOf } from './authority/files.ts';
import { admitAdministrator } from './restored-access.ts';
import type { AdmittedAdministrator, NewCluster } from './restored-access.ts';

export interface RestoredCluster extends InitializedCluster, Restored {
  /** Whom the cluster's own authority makes certificates for; undefined: nothing of the snapshot's access counts. */
  readonly admitted: AdmittedAdministrator | undefined;
}

const refuseIfThere = async (directory: string): Promise<void> => {
  if (!existsSync(directory) || (await readdir(directory)).length === 0) return;
  throw new FuturestoreError(
    'CONFIGURATION_INVALID',
    `${directory} is there and not empty: name a directory for the new cluster that is not there yet`,
  );
};

/** Decided by the first server's state, which is that of all. */
class Admission {
  readonly #made: Omit<NewCluster, 'oldClusterId'>;
  admitted: AdmittedAdministrator | undefined;

  constructor(made: Omit<NewCluster, 'oldClusterId'>) {
    this.#made = made;
  }

  readonly changePolicies: NonNullable<RestoreOptions['changePolicies']> = (kept, { clusterId }) => {
    const revocations = kept.revocations.map(({ revocation }) => revocation);
    const access = { document: kept.policies?.document, revocations };
    this.admitted ??= admitAdministrator(access, { ...this.#made, oldClusterId: clusterId });
    const { document } = this.admitted;
    return document === undefined ? undefined : Buffer.from(canonicalJson(document));
  };
}

/**
 * As `initCluster`, with data. All of it is made beside the directory and gets its name at the end: servers that were
 * started on half of it would begin an empty cluster.
 *
 * Throws DATA_DAMAGED or DATA_FOREIGN for the file, CONFIGURATION_INVALID for a directory that is not empty, and where
 * what is kept of the snapshot's access would keep the new cluster's administrator out.
 */
export const restoreCluster = async (
  file: string,
  plan: InitOptions,
  { keepAccess }: { readonly keepAccess: boolean },
): Promise<RestoredCluster> => {
  const { directory, servers } = plan;
  await refuseIfThere(directory);
  await mkdir(dirname(directory), { recursive: true });
  const temporary = `${directory}.${process.pid}.partial`;
  try {
    const { clusterId } = await initCluster({ ...plan, directory: temporary });
    const ids = Array.from({ length: servers }, (_, index) => index + 1);
    const voters = ids.map((id) => asMemberId(id));
    const credentials = {
      authority: await readFile(join(temporary, 'ca', 'agents.pem'), 'utf8'),
      administrator: await readFile(join(temporary, 'admin.pem'), 'utf8'),
    };
    const admission = new Admission({ clusterId, ...credentials });
    let restored: Restored | undefined;
    for (const member of ids) {
      restored = await restoreSnapshotFile({
        file,
        keepAccess,
        changePolicies: admission.changePolicies,
        directory: join(serverDirectoryOf(temporary, member), 'data'),
        identity: { clusterId, member },
        configuration: { voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
      });
    }
    if (restored === undefined) throw new RangeError('a cluster has at least one server');
    await rename(temporary, directory);
    return {
      ...restored,
      admitted: admission.admitted,
      clusterId,
      adminProfile: adminProfileOf(directory),
      serverConfigurations: ids.map((id) => join(serverDirectoryOf(directory, id), 'server.yaml')),
    };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
};
