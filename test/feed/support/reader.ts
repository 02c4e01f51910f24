import { expect } from 'vitest';
import type { FeedEvent } from '../../../src/feed/index.ts';
import type { Change, Failure, Future, Position } from '../../../src/protocol/index.ts';
import { matches, parsePattern, type Pattern } from '../../../src/scopes/index.ts';
import type { FakeSource } from './fake-source.ts';

/** Stands for the real encoding: as long as the value, and it tells what it encodes. */
export const encodeForTest = (change: Change): Uint8Array =>
  Buffer.from(
    change.kind === 'deleted'
      ? `-${change.key}@${change.revision}`
      : `+${change.key}@${change.revision}:${change.future.state}:${Buffer.from(change.future.value ?? []).toString('latin1')}`,
    'latin1',
  );

const parse = (text: string): Pattern => {
  const parsed = parsePattern(text);
  if (!parsed.ok) throw new Error(`${text} ${parsed.problem}`);
  return parsed.pattern;
};

/** What a reader keeps between subscriptions: its position, and what it has folded up to there. */
export interface Saved {
  readonly patterns: readonly string[];
  readonly position: Position;
  readonly view: ReadonlyMap<string, Future>;
  /** Keys that have not changed since are unknown to it: it asked for new ones only. */
  readonly knowsAfter: number;
}

/** One subscription as its client sees it: folds what comes, and holds every promise against the state. */
export class Reader {
  readonly patterns: readonly string[];
  view = new Map<string, Future>();
  position: Position | undefined;
  knowsAfter = 0;
  resets = 0;
  caughtUp = 0;
  ended: Failure | undefined;
  received: Change[] = [];
  pushes = 0;
  readonly #parsed: readonly Pattern[];
  readonly #source: () => FakeSource;
  readonly #onlyNew: boolean;

  constructor(
    patterns: readonly string[],
    source: () => FakeSource,
    { from, onlyNew = false }: { from?: Saved; onlyNew?: boolean } = {},
  ) {
    this.patterns = patterns;
    this.#parsed = patterns.map(parse);
    this.#source = source;
    this.#onlyNew = onlyNew;
    if (from === undefined) return;
    this.view = new Map(from.view);
    this.knowsAfter = from.knowsAfter;
  }

  covers(key: string): boolean {
    return this.#parsed.some((pattern) => matches(pattern, key));
  }

  save(): Saved | undefined {
    const { patterns, position, view, knowsAfter } = this;
    return position && { patterns, position, view: new Map(view), knowsAfter };
  }

  receive(event: FeedEvent, nowMs: number): void {
    expect(this.ended).toBeUndefined();
    switch (event.kind) {
      case 'answer':
        expect(event.body.kind).toBe('subscribed');
        if (event.body.kind !== 'subscribed') return;
        expect(this.position).toBeUndefined();
        this.position = event.body.position;
        if (this.#onlyNew) this.knowsAfter = this.position.revision;
        if (!event.body.reset) return;
        this.resets += 1;
        this.view.clear();
        this.knowsAfter = 0;
        return;
      case 'ended':
        this.ended = event.failure;
        return;
      case 'push':
        this.#push(event, nowMs);
        return;
      default:
        return event satisfies never;
    }
  }

  #push(event: Extract<FeedEvent, { kind: 'push' }>, nowMs: number): void {
    const { position } = this;
    expect(position, 'the answer comes first').toBeDefined();
    if (position === undefined) return;
    expect(event.changes.length > 0 || event.caughtUp, 'no empty push but the one that says caught up').toBe(
      true,
    );
    let bytes = 0;
    let revision = position.revision;
    const keys = new Set<string>();
    for (const { change, encoded } of event.changes) {
      bytes += encoded.length;
      expect(Buffer.from(encoded)).toEqual(encodeForTest(change));
      expect(change.revision).toBeGreaterThanOrEqual(Math.max(revision, position.revision + 1));
      expect(keys.has(`${change.revision} ${change.key}`), `${change.key} came twice`).toBe(false);
      expect(this.covers(change.key)).toBe(true);
      keys.add(`${change.revision} ${change.key}`);
      revision = change.revision;
      if (change.kind === 'deleted') this.view.delete(change.key);
      else {
        expect(change.future.expiresAtMs === undefined || change.future.expiresAtMs > nowMs || change.future.value === undefined, 'no value past its time').toBe(true); // prettier-ignore
        this.view.set(change.key, change.future);
      }
      this.received.push(change);
    }
    expect(event.bytes).toBe(bytes);
    expect(event.revision).toBeGreaterThanOrEqual(revision);
    if (event.caughtUp) this.caughtUp += 1;
    expect(this.caughtUp).toBeLessThanOrEqual(1);
    this.pushes += 1;
    this.position = { ...position, revision: event.revision };
    this.holdsUpTo(event.revision);
  }

  /** All matching changes up to the revision have come: whatever has not changed since is in the view as it is. */
  holdsUpTo(revision: number): void {
    const expected = new Map<string, number>();
    for (const change of this.#source().latest()) {
      if (change.revision > revision || change.revision <= this.knowsAfter || !this.covers(change.key))
        continue;
      if (change.kind === 'future') expected.set(change.key, change.revision);
    }
    const present = new Map<string, number>();
    const changedSince = new Set(
      this.#source()
        .latest()
        .flatMap((change) => (change.revision > revision ? [change.key] : [])),
    );
    // A deletion after the revision may be forgotten already; whoever needed it is not left standing there.
    const forgotten = revision < this.#source().forgottenUpTo;
    const known = new Set(
      this.#source()
        .latest()
        .map(({ key }) => key),
    );
    for (const [key, future] of this.view) {
      if (!changedSince.has(key) && (known.has(key) || !forgotten)) present.set(key, future.revision);
    }
    expect(sorted(present)).toEqual(sorted(expected));
  }
}

const sorted = (entries: ReadonlyMap<string, number>): unknown =>
  [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
