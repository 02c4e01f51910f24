import type { Change, Future } from '../../../src/protocol/index.ts';
import { matches } from '../../../src/scopes/index.ts';
import type { ChangesQuery, FeedSource } from '../../../src/feed/index.ts';

export type Edit =
  | { readonly key: string; readonly kind: 'pending' }
  | { readonly key: string; readonly kind: 'delete' }
  | { readonly key: string; readonly kind: 'rejected'; readonly expiresAtMs?: number }
  | {
      readonly key: string;
      readonly kind: 'resolved';
      readonly value?: string | Uint8Array;
      readonly expiresAtMs?: number;
      readonly generation?: number;
    };

const future = (edit: Edit, revision: number, generation: number): Future => ({
  key: edit.key,
  generation,
  state: edit.kind === 'delete' ? 'pending' : edit.kind,
  revision,
  contentType: 'text/plain',
  sensitive: false,
  producer: 'puppet:producer',
  changedAtMs: 0,
  ...(edit.kind === 'resolved'
    ? { value: typeof edit.value === 'object' ? edit.value : Buffer.from(edit.value ?? `v${revision}`) }
    : {}),
  ...(edit.kind === 'rejected' ? { rejection: { code: 'REJECTED', message: 'no' } } : {}),
  ...('expiresAtMs' in edit ? { expiresAtMs: edit.expiresAtMs } : {}),
});

/** The state as plainly as can be: each key's latest change, in order. */
export class FakeSource implements FeedSource {
  readonly clusterId: string;
  readonly epoch: number;
  revision = 0;
  forgottenUpTo = 0;
  /** Whether a page that is too small for a revision gives a part of it, beyond `upTo`, or all of it. */
  cutsRevisions = false;
  /** What the feed has asked. */
  reads = 0;
  freshened = 0;
  visits = 0;
  longestPage = 0;
  #latest = new Map<string, Change>();
  #ordered: Change[] | undefined;

  constructor({ clusterId = 'cluster', epoch = 1 }: { clusterId?: string; epoch?: number } = {}) {
    this.clusterId = clusterId;
    this.epoch = epoch;
  }

  copy(): FakeSource {
    const copy = new FakeSource({ clusterId: this.clusterId, epoch: this.epoch });
    copy.revision = this.revision;
    copy.forgottenUpTo = this.forgottenUpTo;
    copy.cutsRevisions = this.cutsRevisions;
    copy.#latest = new Map(this.#latest);
    return copy;
  }

  /** All of it in one revision. Deletions of what is not there are left out; nothing left: nothing happens. */
  commit(...edits: readonly Edit[]): Change[] {
    const last = new Map(edits.map((edit) => [edit.key, edit]));
    const real = [...last.values()].filter(
      (edit) => edit.kind !== 'delete' || this.#latest.get(edit.key)?.kind === 'future',
    );
    if (real.length === 0) return [];
    this.revision += 1;
    this.#ordered = undefined;
    return real.map((edit) => {
      const { revision } = this;
      const before = this.#latest.get(edit.key);
      const generation =
        edit.kind === 'resolved' && edit.generation !== undefined
          ? edit.generation
          : before?.kind === 'future'
            ? before.future.generation
            : 1;
      const change: Change =
        edit.kind === 'delete'
          ? { kind: 'deleted', revision, key: edit.key }
          : { kind: 'future', revision, key: edit.key, future: future(edit, revision, generation) };
      this.#latest.delete(edit.key);
      this.#latest.set(edit.key, change);
      return change;
    });
  }

  /** What has passed its time becomes expired, in one revision. */
  sweep(nowMs: number): Change[] {
    const passed = this.all().filter((present) => this.fresh(present, nowMs) !== present);
    if (passed.length === 0) return [];
    this.revision += 1;
    this.#ordered = undefined;
    return passed.map((present) => {
      const expired = { ...this.fresh(present, nowMs), revision: this.revision };
      const change: Change = {
        kind: 'future',
        revision: this.revision,
        key: present.key,
        future: expired,
      };
      this.#latest.delete(present.key);
      this.#latest.set(present.key, change);
      return change;
    });
  }

  forget(upTo: number): void {
    this.forgottenUpTo = Math.max(this.forgottenUpTo, Math.min(upTo, this.revision));
    for (const [key, change] of this.#latest) {
      if (change.kind === 'deleted' && change.revision <= this.forgottenUpTo) this.#latest.delete(key);
    }
    this.#ordered = undefined;
  }

  all(): Future[] {
    return [...this.#latest.values()].flatMap((change) => (change.kind === 'future' ? [change.future] : []));
  }

  latest(): readonly Change[] {
    this.#ordered ??= [...this.#latest.values()];
    return this.#ordered;
  }

  peek(key: string): Future | undefined {
    const change = this.#latest.get(key);
    return change?.kind === 'future' ? change.future : undefined;
  }

  get(key: string): Future | undefined {
    this.reads += 1;
    return this.peek(key);
  }

  fresh(present: Future, nowMs: number): Future {
    this.freshened += 1;
    if (present.state === 'expired' || present.state === 'pending') return present;
    if (present.expiresAtMs === undefined || present.expiresAtMs > nowMs) return present;
    const { value: _value, rejection: _rejection, ...rest } = present;
    return { ...rest, state: 'expired' };
  }

  changesAfter(query: ChangesQuery): { changes: Change[]; upTo: number; looked: number; manyKeys: boolean } {
    const ordered = this.latest();
    const changes: Change[] = [];
    let upTo = query.revision;
    let bytes = 0;
    let visits = 0;
    let at = firstAfter(ordered, query.revision);
    for (; at < ordered.length; at += 1) {
      const change = ordered[at];
      if (change === undefined) break;
      const full = changes.length >= query.limit || bytes >= query.bytesMax || visits >= query.visitMax;
      const whole = ordered[at - 1]?.revision !== change.revision;
      if (full && (whole || this.cutsRevisions)) break;
      visits += 1;
      if (!query.patterns.some((pattern) => matches(pattern, change.key))) continue;
      changes.push(change);
      bytes += change.kind === 'future' ? (change.future.value?.length ?? 0) : 0;
    }
    const next = ordered[at];
    if (next === undefined) upTo = this.revision;
    else if (visits > 0) upTo = Math.max(query.revision, next.revision - 1);
    this.visits += visits;
    this.longestPage = Math.max(this.longestPage, changes.length);
    return { changes, upTo, looked: visits * query.patterns.length, manyKeys: false };
  }
}

const firstAfter = (ordered: readonly Change[], revision: number): number => {
  let low = 0;
  let high = ordered.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ordered[middle]?.revision ?? 0) <= revision) low = middle + 1;
    else high = middle;
  }
  return low;
};
