import assert from 'node:assert/strict';
import type { SnapshotPoint } from '../raft/index.ts';
import type { BatchChain } from './batch-chain.ts';
import { damaged } from './damage.ts';
import type { Engine } from './engine.ts';
import { generationRange, statePrefix } from './keyspaces.ts';
import { PartChecker } from './snapshot-parts.ts';
import type { SnapshotPart, SnapshotStaging, StagedRecord } from './types.ts';

/** A snapshot being written into a generation of its own, which nothing refers to until it is activated. */
export class GenerationStaging implements SnapshotStaging {
  readonly point: SnapshotPoint;
  readonly generation: number;
  readonly #engine: Engine;
  readonly #chain: BatchChain;
  readonly #onFailure: (error: unknown) => void;
  readonly #checker: PartChecker;
  #adding: Promise<unknown> | undefined;
  #usable = true;
  #written = false;

  constructor(
    engine: Engine,
    chain: BatchChain,
    generation: number,
    point: SnapshotPoint,
    onFailure: (error: unknown) => void,
  ) {
    this.#engine = engine;
    this.#chain = chain;
    this.generation = generation;
    this.point = point;
    this.#onFailure = onFailure;
    this.#checker = new PartChecker(
      (what, cause) => damaged(engine.where, `what was received: ${what}`, cause),
      point.index,
    );
  }

  get complete(): boolean {
    return this.#usable && this.#written;
  }

  async add(part: SnapshotPart, take?: (records: readonly StagedRecord[]) => void): Promise<void> {
    assert(
      this.#adding === undefined,
      `part ${part.number} of a snapshot was added before the one before was answered`,
    );
    assert(this.#usable, 'a part was added to a snapshot that was discarded, activated or found damaged');
    // Until the part is written nothing may be activated, and after a failure never.
    this.#usable = false;
    const records = this.#checker.check(part);
    const batch = this.#engine.batch();
    const prefix = statePrefix(this.generation);
    for (const { key, record } of records) batch.put(prefix + key, record);
    this.#chain.link(batch, this.generation);
    const writing = batch.write(false).catch((error: unknown) => {
      this.#onFailure(error);
      throw error;
    });
    this.#adding = writing;
    try {
      // The other thread writes meanwhile.
      take?.(records);
    } finally {
      try {
        await writing;
      } finally {
        this.#adding = undefined;
      }
    }
    this.#usable = true;
    this.#written = part.last;
  }

  /** It has become the state: nothing may be added or discarded any more. */
  activated(): void {
    assert(this.complete, 'an incomplete snapshot was activated');
    this.#usable = false;
    this.#written = false;
  }

  /** Resolves when no write of this staging is under way. */
  async settled(): Promise<void> {
    await this.#adding?.catch(() => undefined);
  }

  async discard(): Promise<void> {
    await this.settled();
    this.#usable = false;
    try {
      await this.#engine.clear(generationRange(this.generation));
    } catch (error) {
      this.#onFailure(error);
      throw error;
    }
  }
}
