/** A new cluster whose servers begin with the state of a snapshot file. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { FuturestoreError } from '../protocol/index.ts';
import { asMemberId } from '../raft/index.ts';
import { restoreSnapshotFile } from '../server/index.ts';
import type { Restored } from '../server/index.ts';
import type { InitializedCluster, InitOptions } from './authority/cluster-directory.ts';
import { initCluster } from './authority/cluster-directory.ts';
import { adminProfileOf, serverDirectoryOf } from './authority/files.ts';

export type RestoredCluster = InitializedCluster & Restored;

const refuseIfThere = async (directory: string): Promise<void> => {
  if (!existsSync(directory) || (await readdir(directory)).length === 0) return;
  throw new FuturestoreError(
    'CONFIGURATION_INVALID',
    `${directory} is there and not empty: name a directory for the new cluster that is not there yet`,
  );
};

/**
 * As `initCluster`, with data. All of it is made beside the directory and gets its name at the end: servers that were
 * started on half of it would begin an empty cluster.
 *
 * Throws DATA_DAMAGED or DATA_FOREIGN for the file, CONFIGURATION_INVALID for a directory that is not empty.
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
    let restored: Restored | undefined;
    for (const member of ids) {
      restored = await restoreSnapshotFile({
        file,
        keepAccess,
        directory: join(serverDirectoryOf(temporary, member), 'data'),
        identity: { clusterId, member },
        configuration: { voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
      });
    }
    if (restored === undefined) throw new RangeError('a cluster has at least one server');
    await rename(temporary, directory);
    return {
      ...restored,
      clusterId,
      adminProfile: adminProfileOf(directory),
      serverConfigurations: ids.map((id) => join(serverDirectoryOf(directory, id), 'server.yaml')),
    };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
};
