/** A snapshot file becomes the beginning of a new cluster: the data directory of one of its servers. */
import { FuturestoreError } from '../protocol/index.ts';
import type { Configuration, SnapshotPoint } from '../raft/index.ts';
import { makeDataDirectory, SnapshotFileReader } from '../storage/index.ts';
import type { SnapshotFileInfo, SnapshotFileSummary, Storage, StorageIdentity } from '../storage/index.ts';
import { Store } from '../store/index.ts';
import type { Access, StateWrite } from '../store/index.ts';

export interface RestoreOptions {
  /** Whether policies and revocations of the snapshot go on to count; else the policy file does. Default: they do. */
  readonly keepAccess?: boolean;
  /**
   * Asked where they are kept and the snapshot has any: the policies, as canonical JSON, that are to count in the place of
   * its own; undefined: its own. What it throws ends the restore.
   */
  readonly changePolicies?: (kept: Access, snapshot: SnapshotFileInfo) => Uint8Array | undefined;
  /** A snapshot file. */
  readonly file: string;
  /** Not there yet, or empty. */
  readonly directory: string;
  /** Of the new server, in a cluster with an id that was never used before. */
  readonly identity: StorageIdentity;
  /** Of the new cluster: the same for all its servers. Voters only; the server is one of them. */
  readonly configuration: Configuration;
}

export interface Restored {
  /** What the file says, of the cluster that it was taken from. */
  readonly snapshot: SnapshotFileSummary;
  /** Of the new cluster. */
  readonly epoch: number;
  readonly keys: number;
  readonly sessions: number;
  /** Of the policies that count in the new cluster; 0: its policy file does. */
  readonly policiesRevision: number;
}

/** What goes into one write at most, about: the engine holds all of it in memory. */
const writeBytesMax = 1024 * 1024;

const checkOptions = (
  { file, identity, configuration }: Omit<RestoreOptions, 'directory'>,
  { clusterId }: { readonly clusterId: string },
): void => {
  const refuse = (what: string): never => {
    throw new FuturestoreError('CONFIGURATION_INVALID', what);
  };
  if (clusterId === identity.clusterId) {
    refuse(
      `The snapshot ${file} was taken from cluster ${clusterId}, which cannot be restored under the same id: ` +
        'servers and agents of the old one would take the new one for it. Restore it with a new cluster id.',
    );
  }
  const { voters, votersOutgoing, learners, learnersNext } = configuration;
  if (votersOutgoing.length + learners.length + learnersNext.length > 0)
    refuse('A cluster is restored with voters only; add learners when it runs.');
  const ids: readonly number[] = voters;
  if (!ids.includes(identity.member))
    refuse(`Member ${identity.member} is none of the voters ${ids.join(', ')} of the restored cluster.`);
};

/** What is wrong with a state in a file that is whole is wrong since before it was saved. */
const noState = (file: string, why: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError(
    'DATA_DAMAGED',
    `What the snapshot file ${file} has in it is no state that this version understands: ${why} Use another snapshot.`,
    cause === undefined ? undefined : { cause },
  );

/** The state that the file has, staged at the point. Every byte of the file was right. */
const stage = async (
  storage: Storage,
  reader: SnapshotFileReader,
  file: string,
  point: SnapshotPoint,
): Promise<Store> => {
  const store = new Store({ clusterId: reader.info.clusterId });
  const understanding = (read: () => void): void => {
    try {
      read();
    } catch (error) {
      throw error instanceof FuturestoreError ? noState(file, `${error.message}.`, error) : error;
    }
  };
  const staging = await storage.stageSnapshot(point);
  for (let part = await reader.next(); part !== undefined; part = await reader.next()) {
    await staging.add(part, (records) => understanding(() => store.load(records)));
  }
  understanding(() => store.finishLoad());
  return store;
};

const inWrites = (stateWrites: readonly StateWrite[]): StateWrite[][] => {
  const chunks: StateWrite[][] = [[]];
  let bytes = 0;
  for (const write of stateWrites) {
    if (bytes > writeBytesMax) {
      chunks.push([]);
      bytes = 0;
    }
    chunks.at(-1)?.push(write);
    bytes += write.key.length + (write.value?.length ?? 0);
  }
  return chunks;
};

/**
 * Writes the state into a storage on which nothing was ever written, and which has the identity that is given. It is a
 * server's disk only when the promise is resolved. Throws as `restoreSnapshotFile` does.
 */
export const restoreInto = async (
  storage: Storage,
  reader: SnapshotFileReader,
  options: Omit<RestoreOptions, 'directory'>,
): Promise<Restored> => {
  const { file, configuration } = options;
  const { info } = reader;
  checkOptions(options, info);
  const { index, term, epoch, revision } = info;
  const point: SnapshotPoint = { index, term, configuration };
  const store = await stage(storage, reader, file, point);
  if (store.epoch !== epoch || store.revision !== revision) {
    throw noState(
      file,
      `it is as of revision ${store.revision} of epoch ${store.epoch}, its header says ${revision} of ${epoch}.`,
    );
  }
  const kept = options.keepAccess ?? true;
  const { access } = store;
  const policies = kept && access !== undefined ? options.changePolicies?.(access, info) : undefined;
  store.prepareRestored({ keepAccess: kept, ...(policies && { policies }) });
  const [first = [], ...others] = inWrites(store.takeStateWrites());
  await storage.write({
    hardState: { term, vote: undefined, commit: index },
    activate: point,
    entries: [],
    stateWrites: first,
    sync: true,
  });
  for (const stateWrites of others) await storage.write({ entries: [], stateWrites, sync: true });
  return {
    snapshot: reader.summary,
    epoch: store.epoch,
    keys: store.keys,
    sessions: store.sessions,
    policiesRevision: store.access?.revision ?? 0,
  };
};

/**
 * Makes the data directory of a server of a new cluster that begins with the state of a snapshot file, in the next
 * epoch and at the snapshot's log index. Do it for each of its servers, from the same file and with the same
 * configuration. The state is held in memory as a server holds it.
 *
 * Futures keep their generations and what is left of their deadlines and freshness, and sessions their answers: a write
 * that is sent again gets its first answer if the session has not ended in the meantime, by the time of the snapshot
 * and the grace from then on. Positions of the old cluster are answered with a reset.
 *
 * Throws DATA_DAMAGED or DATA_FOREIGN for the file, CONFIGURATION_INVALID for the rest, such as a directory that is not
 * empty; nothing is left behind then.
 */
export const restoreSnapshotFile = async (options: RestoreOptions): Promise<Restored> => {
  const { file, directory, identity } = options;
  const reader = await SnapshotFileReader.open(file);
  try {
    checkOptions(options, reader.info);
    return await makeDataDirectory({ directory, identity }, (storage) =>
      restoreInto(storage, reader, options),
    );
  } finally {
    await reader.close();
  }
};
