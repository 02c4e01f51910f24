/**
 * What a server keeps on disk: the raft log and hard state, the state machine's records with the index they are as of,
 * and snapshots of them on their way in and out.
 *
 * Owns the data directory: LevelDB's files and the file `synced` in it; and the form of snapshot files. May call raft's and protocol's doors for their
 * types, their messages and errors; knows nothing of what entries and state records mean.
 *
 * Promises: a write happens whole or not at all, and is on disk when it is answered, if that was asked for; what is
 * recovered is a prefix of the writes that has all the synced ones, state and applied index agree, and whatever is not
 * exactly so is refused as DATA_DAMAGED instead of being repaired; after a failed write nothing more is written. A
 * snapshot file is there whole or not at all, and is read only as it was written.
 */
export { MemoryDisk } from './memory-disk.ts';
export { makeDataDirectory } from './new-directory.ts';
export { openMemoryStorage, openStorage } from './open.ts';
export { snapshotPointFromMessage, snapshotPointToMessage } from './points.ts';
export {
  SnapshotFileReader,
  SnapshotFileWriter,
  verifySnapshotFile,
  type SnapshotFileInfo,
  type SnapshotFileSummary,
} from './snapshot-file.ts';
export * from './types.ts';
