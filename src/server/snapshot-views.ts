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

/** Those whose last part was given hold nothing but that. */
const finishedMax = 8;

/** A request for a new one, which waits until the state that it is to show is known. */
interface Waiting {
  readonly patienceMs: number;
  /** Since when nobody has led; or since it came. */
  sinceMs: number;
}

/** A client that asks for nothing for so long has gone. */
const idleMsMax = 60_000;

/** The last part may be asked for once more, when its answer was lost. */
const idleAfterLastMsMax = 10_000;

type ReadRequest = Extract<GatewayRequest, { readonly kind: 'snapshot_read' }>;

interface View {
  readonly number: number;
  /** Closed as soon as the last part is there. */
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
  /** What has been applied up to now is on disk. */
  readonly whenOnDisk: () => Promise<void>;
  /** Of the state on disk as it is now, when its last entry is this one; undefined: not known. */
  readonly revisionsNow: () => (index: LogIndex) => number | undefined;
  /** As long as nobody leads, a new view waits at most this long for a leader. */
  readonly leaderlessMsMax: number;
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
  /** In the order in which they came. */
  readonly #waiting = new Map<InFlight, Waiting>();
  #opening = 0;
  #isClosed = false;
  /** Reads of the disk under way. */
  readonly #underWay = new Set<Promise<void>>();

  constructor(options: SnapshotViewsOptions) {
    this.#options = options;
  }

  /**
   * true: it begins a new snapshot, which waits for `confirmed`: the state has come as far as that of the leader. When
   * nobody leads for long it begins without, with what this server has: a state that can't be changed any more can
   * still be saved.
   */
  read(inFlight: InFlight, { snapshot, part }: ReadRequest): boolean {
    const { answer } = this.#options;
    if (snapshot === undefined) return this.#begin(inFlight, part);
    const view = this.#views.get(snapshot);
    if (view === undefined) {
      const message = `snapshot ${snapshot} is not open on this server (any more): begin a new one`;
      answer(inFlight, failed('INVALID_ARGUMENT', message));
    } else this.#next(inFlight, view, part);
    return false;
  }

  #begin(inFlight: InFlight, part: number): boolean {
    const { answer, environment, leaderlessMsMax } = this.#options;
    if (part !== 0) {
      answer(inFlight, failed('INVALID_ARGUMENT', `a new snapshot begins with part 0, not ${part}`));
      return false;
    }
    this.#dropWaiting();
    if (this.#reading + this.#opening + this.#waiting.size >= viewsMax) {
      const message = `${viewsMax} snapshots are being read from this server: wait, or ask another one`;
      answer(inFlight, failed('LIMIT_EXCEEDED', message));
      return false;
    }
    const sinceMs = environment.monotonicMs();
    // Whoever is less patient than that gets an answer too.
    const patienceMs = Math.min(leaderlessMsMax, (inFlight.deadlineMs - sinceMs) / 2);
    this.#waiting.set(inFlight, { patienceMs, sinceMs });
    return true;
  }

  /** Those that hold up the disk's cleaning. */
  get #reading(): number {
    return [...this.#views.values()].filter((view) => view.given?.last !== true).length;
  }

  /** Nobody waits for them any more. */
  #dropWaiting(): void {
    for (const inFlight of this.#waiting.keys()) if (inFlight.over) this.#waiting.delete(inFlight);
  }

  /** What was applied when this was asked for has been applied here. */
  confirmed(inFlight: InFlight): void {
    if (this.#waiting.delete(inFlight)) this.#follow(inFlight, this.#open(inFlight));
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
    const { storage, environment, configurationAt, whenOnDisk, revisionsNow } = this.#options;
    this.#opening += 1;
    let view: View;
    try {
      await whenOnDisk();
      if (this.#isClosed || inFlight.over) return;
      // Before the view is opened: while it is, other writes may finish.
      const revisionAt = revisionsNow();
      const reader = await storage.openSnapshot(configurationAt);
      const revision = revisionAt(reader.point.index);
      if (revision === undefined || this.#isClosed || inFlight.over) {
        await reader.close();
        if (revision === undefined)
          throw new Error(`the revision of the state at index ${reader.point.index} is not known`);
        return;
      }
      view = {
        number: Math.floor(environment.random() * 2 ** 48) + 1,
        reader,
        revision,
        given: undefined,
        isBusy: false,
        untilMs: Infinity,
      };
      this.#views.set(view.number, view);
    } finally {
      this.#opening -= 1;
    }
    await this.#give(inFlight, view);
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
      if (view.given.last) await this.#finish(view);
    } catch (error) {
      await this.#close(view);
      throw error;
    }
    view.isBusy = false;
    const idleMs = view.given.last ? idleAfterLastMsMax : idleMsMax;
    view.untilMs = this.#options.environment.monotonicMs() + idleMs;
    this.#options.answer(inFlight, { kind: 'snapshot_part', part: view.given });
  }

  /** All of it has been read. */
  async #finish(view: View): Promise<void> {
    const finished = [...this.#views.values()].filter((one) => one !== view && one.given?.last === true);
    const [oldest] = finished;
    if (finished.length >= finishedMax && oldest !== undefined) this.#views.delete(oldest.number);
    await view.reader.close();
  }

  /** Time has passed. */
  tick(nowMs: number, isLed: boolean): void {
    this.#dropWaiting();
    for (const [inFlight, waiting] of this.#waiting) {
      if (isLed) waiting.sinceMs = nowMs;
      else if (nowMs - waiting.sinceMs >= waiting.patienceMs) this.confirmed(inFlight);
    }
    for (const view of this.#views.values()) {
      if (view.isBusy || nowMs < view.untilMs) continue;
      this.#close(view).catch((error: unknown) =>
        this.#options.logger.warn({ err: error }, 'a view of the state could not be closed'),
      );
    }
  }

  async #close(view: View): Promise<void> {
    this.#views.delete(view.number);
    if (view.given?.last !== true) await view.reader.close();
  }

  /** Before the storage is closed. */
  async stop(): Promise<void> {
    this.#isClosed = true;
    this.#waiting.clear();
    await Promise.all(this.#underWay);
    await Promise.all([...this.#views.values()].map((view) => this.#close(view)));
  }
}
