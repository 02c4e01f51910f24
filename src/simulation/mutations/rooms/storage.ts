/** Rules broken in src/storage: what is on disk. */
import type { Mutation } from '../mutation.ts';

export const storageMutations: readonly Mutation[] = [
  {
    name: 'skip-the-fsync',
    rule: 'A write that has to be on disk is synced.',
    file: 'storage/key-value-storage.ts',
    find: 'engineBatch.write(batch.sync),',
    replace: 'engineBatch.write(false),',
    quick: true,
  },
  {
    name: 'checksums-not-compared',
    rule: 'A damaged record is found by its checksum.',
    file: 'storage/sealed.ts',
    find: 'return record.readUInt32BE(0) === crc32(content, crc32(name)) ? content : undefined;',
    replace: 'return content;',
  },
  {
    name: 'lost-writes-not-noticed',
    rule: 'A disk that has lost synced writes is refused.',
    file: 'storage/recovery.ts',
    find: 'writes.number < syncedMark',
    replace: 'writes.number < 0',
  },
  {
    name: 'old-generation-kept',
    rule: 'The state of an installed snapshot takes the place of the one before.',
    file: 'storage/key-value-storage.ts',
    find: 'this.#generation = staging.generation;',
    replace: '',
    quick: true,
  },
  {
    name: 'point-without-the-outgoing-half',
    rule: 'The configuration of a snapshot is the whole of it, both halves of a joint one.',
    file: 'storage/points.ts',
    find: 'votersOutgoing: [...configuration.votersOutgoing],',
    replace: 'votersOutgoing: [],',
  },
];
