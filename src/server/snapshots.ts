/** Snapshots to followers that are too far behind, and from the leader when this server is one of them. */
import type { Configuration, LogIndex, MemberId, SnapshotPoint, Term } from '../raft/index.ts';
import type { PeerTransport, SnapshotStreamPart } from '../peers/index.ts';
import type { SnapshotStaging, Storage } from '../storage/index.ts';
import { Store, type StoreOptions } from '../store/index.ts';
import type { Environment, Logger, ServerMetrics } from './environment.ts';

export interface SnapshotsOptions {
  readonly environment: Environment;
  readonly storage: Storage;
  readonly transport: PeerTransport;
  readonly storeOptions: StoreOptions;
  readonly logger: Logger;
  readonly metrics: ServerMetrics;
  readonly configurationAt: (index: LogIndex) => Configuration;
  readonly onSent: (peer: MemberId, ok: boolean) => void;
  /** The whole snapshot is staged: raft decides what becomes of it. */
  readonly onStaged: (from: MemberId, term: Term, point: SnapshotPoint) => void;
}

export class Snapshots {
  readonly #options: SnapshotsOptions;
  readonly #sending = new Set<MemberId>();
  #incoming:
    { readonly from: MemberId; readonly staging: SnapshotStaging; readonly store: Store } | undefined;
  /** Raft has been given the staged snapshot and has not decided yet, or the disk is making it the state. */
  #inUse = false;
  /** Parts are taken one at a time, whichever link they come on. */
  #taking: Promise<void> = Promise.resolve();

  constructor(options: SnapshotsOptions) {
    this.#options = options;
  }

  send(to: MemberId, term: Term): void {
    if (this.#sending.has(to)) return;
    this.#sending.add(to);
    this.#stream(to, term).then(
      () => this.#sent(to, undefined),
      (error: unknown) => this.#sent(to, error),
    );
  }

  async #stream(to: MemberId, term: Term): Promise<void> {
    const reader = await this.#options.storage.openSnapshot(this.#options.configurationAt);
    try {
      this.#options.logger.info({ peer: to, index: reader.point.index }, 'sending a snapshot');
      await this.#options.transport.sendSnapshot(to, term, {
        point: reader.point,
        next: () => reader.next(),
      });
    } finally {
      await reader.close();
    }
  }

  #sent(to: MemberId, error: unknown): void {
    this.#sending.delete(to);
    const ok = error === undefined;
    if (ok) this.#options.logger.info({ peer: to }, 'the snapshot was taken');
    else
      this.#options.logger.warn(
        { peer: to, err: error },
        'the snapshot could not be sent; it is tried again',
      );
    this.#options.metrics.snapshotSent(ok);
    this.#options.onSent(to, ok);
  }

  /** Resolves when the part is staged and the next one may come. */
  async receive(from: MemberId, { term, point, part }: SnapshotStreamPart): Promise<void> {
    const before = this.#taking;
    const taken = before.then(() => this.#take(from, term, point, part));
    this.#taking = taken.catch(() => {});
    await taken;
  }

  async #take(
    from: MemberId,
    term: Term,
    point: SnapshotPoint,
    part: SnapshotStreamPart['part'],
  ): Promise<void> {
    if (this.#inUse) throw new Error('another snapshot is being activated; send this one later');
    if (part.number === 0) {
      await this.#discard();
      const staging = await this.#options.storage.stageSnapshot(point);
      this.#incoming = { from, staging, store: new Store(this.#options.storeOptions) };
      this.#options.logger.info({ peer: from, index: point.index }, 'receiving a snapshot');
    }
    const incoming = this.#incoming;
    if (incoming === undefined || incoming.from !== from || incoming.staging.point.index !== point.index) {
      throw new Error(
        `part ${part.number} of the snapshot of index ${point.index} belongs to no stream that began here`,
      );
    }
    try {
      await incoming.staging.add(part, (records) => incoming.store.load(records));
      if (!incoming.staging.complete) return;
      const steps = incoming.store.finishLoadInSteps();
      while (steps.next().done !== true) await this.#nextTurn();
    } catch (error) {
      await this.#discard();
      this.#options.metrics.snapshotReceived(false);
      throw error;
    }
    this.#inUse = true;
    this.#options.onStaged(from, term, incoming.staging.point);
  }

  /** Raft has seen the staged snapshot: `wanted` tells whether it is being activated. */
  decided(wanted: boolean): void {
    if (!this.#incoming?.staging.complete) return;
    if (wanted) return;
    this.#inUse = false;
    const discarded = this.#discard();
    this.#taking = this.#taking.then(() => discarded);
  }

  /** The staged snapshot of this point is the state on disk now; gives it as a store. */
  activated(point: SnapshotPoint): Store {
    const incoming = this.#incoming;
    if (incoming === undefined || incoming.staging.point.index !== point.index) {
      throw new Error(`the snapshot of index ${point.index} was activated without having been received`);
    }
    this.#incoming = undefined;
    this.#inUse = false;
    this.#options.metrics.snapshotReceived(true);
    this.#options.logger.info({ index: point.index }, 'the snapshot is the state now');
    return incoming.store;
  }

  /** Heartbeats and agents have theirs between two steps. */
  #nextTurn(): Promise<void> {
    return new Promise((resolve) => this.#options.environment.defer(resolve));
  }

  async #discard(): Promise<void> {
    const incoming = this.#incoming;
    this.#incoming = undefined;
    await incoming?.staging.discard();
  }
}
