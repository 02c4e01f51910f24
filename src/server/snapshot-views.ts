/**
 * Snapshots that clients read, part by part: views of the state on disk as it was when they were opened. LevelDB keeps
 * what a view needs, so there are few, and none is left open by a client that went away.
 */
import type { AnswerBody, SnapshotReadPart } from '../protocol/index.ts';
import type { Configuration, LogIndex } from '../raft/index.ts';
import type { SnapshotReader, Storage } from '../storage/index.ts';
import type { Environment, Logger } from './environment.ts';
import type { GatewayRequest } from './port.ts';
import type { InFlight } from './requests.ts';

const viewsMax = 2;

/** A client that asks for nothing for so long has gone. */
const idleMsMax = 60_000;

/** The last part may be asked for once more, when its answer was lost. */
const idleAfterLastMsMax = 10_000;

type ReadRequest = Extract<GatewayRequest, { readonly kind: 'snapshot_read' }>;

interface View {
  readonly number: number;
  readonly reader: SnapshotReader;
  readonly revision: number;
  /** The one that was given last; undefined: none yet. */
  given: SnapshotReadPart | undefined;
  isBusy: boolean;
  untilMs: number;
}

export interface SnapshotViewsOptions {
  readonly storage: Storage;
  readonly environment: Environment;
  readonly logger: Logger;
  readonly clusterId: string;
  readonly epoch: () => number;
  readonly configurationAt: (index: LogIndex) => Configuration;
  /** Of the state on disk as it is now, when its last entry is this one; undefined: not known. */
  readonly revisionsNow: () => (index: LogIndex) => number | undefined;
  readonly answer: (inFlight: InFlight, body: AnswerBody) => void;
}

const failed = (
  code: 'INVALID_ARGUMENT' | 'LIMIT_EXCEEDED' | 'UNAVAILABLE',
  message: string,
): AnswerBody => ({
  kind: 'failed',
  failure: { code, message },
});

export class SnapshotViews {
  readonly #options: SnapshotViewsOptions;
  readonly #views = new Map<number, View>();
  #opening = 0;
  #isClosed = false;
  /** Reads of the disk under way. */
  readonly #underWay = new Set<Promise<void>>();

  constructor(options: SnapshotViewsOptions) {
    this.#options = options;
  }

  read(inFlight: InFlight, { snapshot, part }: ReadRequest): void {
    const { answer } = this.#options;
    if (snapshot === undefined) {
      if (part !== 0)
        answer(inFlight, failed('INVALID_ARGUMENT', `a new snapshot begins with part 0, not ${part}`));
      else if (this.#views.size + this.#opening >= viewsMax)
        answer(
          inFlight,
          failed(
            'LIMIT_EXCEEDED',
            `${viewsMax} snapshots are being read from this server: wait, or ask another one`,
          ),
        );
      else this.#follow(inFlight, this.#open(inFlight));
      return;
    }
    const view = this.#views.get(snapshot);
    if (view === undefined) {
      const message = `snapshot ${snapshot} is not open on this server (any more): begin a new one`;
      answer(inFlight, failed('INVALID_ARGUMENT', message));
      return;
    }
    this.#next(inFlight, view, part);
  }

  #next(inFlight: InFlight, view: View, part: number): void {
    const { answer } = this.#options;
    const { given } = view;
    if (given?.part === part) answer(inFlight, { kind: 'snapshot_part', part: given });
    else if (view.isBusy || given === undefined || given.last || part !== given.part + 1) {
      const message = `part ${part} of snapshot ${view.number} was asked for, the next one is ${(given?.part ?? -1) + 1}; ask for one at a time`;
      answer(inFlight, failed('INVALID_ARGUMENT', message));
    } else this.#follow(inFlight, this.#give(inFlight, view));
  }

  #follow(inFlight: InFlight, work: Promise<void>): void {
    const followed = work
      .catch((error: unknown) => {
        this.#options.logger.warn({ err: error }, 'a snapshot could not be read');
        this.#options.answer(
          inFlight,
          failed('UNAVAILABLE', 'the snapshot could not be read: begin a new one, or ask another server'),
        );
      })
      .finally(() => this.#underWay.delete(followed));
    this.#underWay.add(followed);
  }

  async #open(inFlight: InFlight): Promise<void> {
    const { storage, environment, configurationAt, revisionsNow } = this.#options;
    this.#opening += 1;
    try {
      // Before the view is opened: while it is, other writes may finish.
      const revisionAt = revisionsNow();
      const reader = await storage.openSnapshot(configurationAt);
      const revision = revisionAt(reader.point.index);
      if (revision === undefined || this.#isClosed || inFlight.done) {
        await reader.close();
        if (revision === undefined)
          throw new Error(`the revision of the state at index ${reader.point.index} is not known`);
        return;
      }
      const view: View = {
        number: Math.floor(environment.random() * 2 ** 48) + 1,
        reader,
        revision,
        given: undefined,
        isBusy: false,
        untilMs: Infinity,
      };
      this.#views.set(view.number, view);
      await this.#give(inFlight, view);
    } finally {
      this.#opening -= 1;
    }
  }

  async #give(inFlight: InFlight, view: View): Promise<void> {
    view.isBusy = true;
    try {
      const part = await view.reader.next();
      if (part === undefined) throw new Error(`snapshot ${view.number} has ended without a last part`);
      const { point } = view.reader;
      view.given = {
        snapshot: view.number,
        part: part.number,
        records: part.records,
        checksum: part.checksum,
        last: part.last,
        recordsTotal: part.recordsTotal,
        clusterId: this.#options.clusterId,
        epoch: this.#options.epoch(),
        revision: view.revision,
        index: point.index,
        term: point.term,
      };
    } catch (error) {
      await this.#close(view);
      throw error;
    }
    view.isBusy = false;
    const idleMs = view.given.last ? idleAfterLastMsMax : idleMsMax;
    view.untilMs = this.#options.environment.monotonicMs() + idleMs;
    this.#options.answer(inFlight, { kind: 'snapshot_part', part: view.given });
  }

  /** Time has passed. */
  tick(nowMs: number): void {
    for (const view of this.#views.values()) {
      if (view.isBusy || nowMs < view.untilMs) continue;
      this.#close(view).catch((error: unknown) =>
        this.#options.logger.warn({ err: error }, 'a view of the state could not be closed'),
      );
    }
  }

  async #close(view: View): Promise<void> {
    this.#views.delete(view.number);
    await view.reader.close();
  }

  /** Before the storage is closed. */
  async stop(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#underWay);
    await Promise.all([...this.#views.values()].map((view) => this.#close(view)));
  }
}
