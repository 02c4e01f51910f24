import { MemoryDisk } from '../../../src/storage/index.ts';

type Engine = ReturnType<MemoryDisk['open']>;

/** A disk in memory of which copies can be made while it is in use, as of a file system's snapshot. */
export class CopyableDisk extends MemoryDisk {
  #rows = new Map<string, Buffer>();
  #syncedMark = 0;

  override open(): Engine {
    const engine = super.open();
    return {
      ...engine,
      batch: () => {
        const batch = engine.batch();
        const operations: [string, Buffer | undefined][] = [];
        return {
          put: (key, value) => {
            operations.push([key, value]);
            batch.put(key, value);
          },
          remove: (key) => {
            operations.push([key, undefined]);
            batch.remove(key);
          },
          write: async (sync) => {
            await batch.write(sync);
            for (const [key, value] of operations)
              if (value === undefined) this.#rows.delete(key);
              else this.#rows.set(key, value);
          },
        };
      },
      clear: async (range) => {
        await engine.clear(range);
        for (const key of this.#rows.keys())
          if (key >= range.from && key < range.below) this.#rows.delete(key);
      },
      markSynced: (batchNumber) => {
        engine.markSynced(batchNumber);
        this.#syncedMark = batchNumber;
      },
    };
  }

  async copy(): Promise<CopyableDisk> {
    const rows = new Map(this.#rows);
    const mark = this.#syncedMark;
    const copy = new CopyableDisk();
    const engine = copy.open();
    const batch = engine.batch();
    for (const [key, value] of rows) batch.put(key, value);
    await batch.write(true);
    engine.markSynced(mark);
    await engine.close();
    return copy;
  }
}
