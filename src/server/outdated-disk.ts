/**
 * The end of a server whose disk has forgotten what the cluster heard from it. Others refuse it as long as they know; it
 * marks its own directory, so that nobody has to remember.
 */
import type { PeerTransport } from '../peers/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import type { Storage } from '../storage/index.ts';
import type { DiskWriter } from './disk-writer.ts';
import type { Logger } from './environment.ts';
import { outdatedByLog, type DiskOfRun } from './runs.ts';
import type { SnapshotViews } from './snapshot-views.ts';

interface OutdatedDiskOptions {
  readonly self: number;
  readonly disk: DiskOfRun;
  readonly storage: Storage;
  readonly transport: PeerTransport;
  readonly writer: DiskWriter;
  readonly views: SnapshotViews;
  readonly logger: Logger;
  /** One that is about to end closes its disk itself, and will find out again at its next start. */
  readonly isRunning: () => boolean;
  /** At once: the server does nothing more. */
  readonly onFound: () => void;
  /** Links and disk are closed. */
  readonly onEnded: (error: FuturestoreError) => void;
}

export class OutdatedDisk {
  readonly #options: OutdatedDiskOptions;

  constructor(options: OutdatedDiskOptions) {
    this.#options = options;
  }

  /** `known`: what the state says of this server. What is applied is committed, so it is true whoever has sent it. */
  look(known: DiskOfRun | undefined): void {
    const { self, disk } = this.#options;
    const reason = outdatedByLog(self, known, disk);
    if (reason !== undefined) this.found(reason);
  }

  found(reason: string): void {
    const { self, logger, isRunning, onFound, onEnded } = this.#options;
    if (!isRunning()) return;
    onFound();
    const error = new FuturestoreError(
      'DATA_OUTDATED',
      `The data of this server must not be used any more: ${reason}. ` +
        `Move its data directory away and replace the member (futurestore member replace ${self}); the others have its data.`,
    );
    this.#end(reason)
      .catch((cause: unknown) => {
        // The others go on refusing it as long as they know; it is still the same end.
        logger.error({ err: cause }, 'the data directory could not be marked as outdated');
      })
      .finally(() => onEnded(error));
  }

  async #end(reason: string): Promise<void> {
    const { storage, transport, writer, views } = this.#options;
    await views.stop();
    await writer.whenIdle();
    await transport.close();
    await storage.write({ entries: [], stateWrites: [], outdated: reason, sync: true });
    await storage.close();
  }
}
