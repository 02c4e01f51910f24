import assert from 'node:assert/strict';
import type { Change, Future } from '../protocol/index.ts';
import type { Connections } from './connections.ts';
import { Queue } from './queue.ts';
import type { FeedEvent, FeedSource } from './types.ts';
import { Wait, type Verdict } from './wait.ts';
import { WaitRouter } from './wait-router.ts';
import type { Work } from './work.ts';

const answered = (wait: Wait, { alternative, futures }: Verdict): FeedEvent => ({
  kind: 'answer',
  gateway: wait.connection.gateway,
  connection: wait.connection.id,
  request: wait.request,
  body: { kind: 'awaited', alternative, futures },
});

/**
 * All awaits. Invariant: a wait that is not queued is routed under all of its keys, and was incomplete when its
 * keys were last read; so whatever can complete it passes through `changed`, which queues it.
 */
export class Waits {
  readonly #connections: Connections;
  readonly #router = new WaitRouter();
  /** Seem complete; reviewed at the next `take`. */
  readonly #candidates = new Queue<Wait>();
  #count = 0;

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  get count(): number {
    return this.#count;
  }

  get keys(): number {
    return this.#router.keys;
  }

  get pending(): boolean {
    return this.#candidates.length > 0;
  }

  add(wait: Wait, source: FeedSource, nowMs: number): void {
    wait.connection.add(wait);
    wait.connection.waitingKeys += wait.slots;
    this.#count += 1;
    // Most awaits come when the value is there already: those are never routed.
    if (wait.review(source, nowMs) === undefined) this.#route(wait);
    else this.#enqueue(wait);
  }

  /** Touches only those who wait for the changed keys. */
  changed(changes: readonly Change[], source: FeedSource, nowMs: number): void {
    if (this.#router.keys === 0) return;
    for (const change of changes) {
      const waiting = this.#router.waiting(change.key);
      if (waiting === undefined) continue;
      const future = change.kind === 'deleted' ? undefined : source.fresh(change.future, nowMs);
      if (waiting instanceof Wait) this.#note(waiting, change.key, future);
      else for (const wait of waiting) this.#note(wait, change.key, future);
    }
  }

  /** The state has jumped: every wait is looked at again, in the course of the next `take`s. */
  reviewAll(): void {
    for (const connection of this.#connections.all()) {
      for (const entry of connection.requests()) if (entry instanceof Wait) this.#enqueue(entry);
    }
  }

  remove(wait: Wait): void {
    if (wait.isRouted) wait.eachKey((key) => this.#router.remove(key, wait));
    wait.connection.finish(wait);
    wait.connection.waitingKeys -= wait.slots;
    this.#count -= 1;
    assert(this.#count >= 0 && wait.connection.waitingKeys >= 0, 'a wait was removed that was not there');
  }

  /** Answers those that are complete at this very moment; what is left waits on. */
  take(work: Work, source: FeedSource): void {
    while (!work.exhausted) {
      const wait = this.#candidates.shift();
      if (wait === undefined) return;
      if (wait.over) continue;
      const verdict = wait.review(source, work.nowMs);
      work.spend(1 + wait.slots, 0);
      if (verdict === undefined) {
        this.#route(wait);
        continue;
      }
      for (const future of verdict.futures) work.spend(0, future.key.length + (future.value?.length ?? 0));
      work.events.push(answered(wait, verdict));
      this.remove(wait);
      this.#connections.release(wait.connection);
    }
  }

  #note(wait: Wait, key: string, future: Future | undefined): void {
    const complete = wait.noteChange(key, future);
    if (complete || (future !== undefined && wait.isRejectedBy(future))) this.#enqueue(wait);
  }

  #enqueue(wait: Wait): void {
    if (wait.isQueued) return;
    wait.phase = wait.isRouted ? 'routed_and_queued' : 'queued';
    this.#candidates.push(wait);
  }

  /** It waits on, for a change of its keys. */
  #route(wait: Wait): void {
    if (!wait.isRouted) wait.eachKey((key) => this.#router.add(key, wait));
    wait.phase = 'routed';
  }
}
