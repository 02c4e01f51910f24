/**
 * What subscribers are promised: in the order of revisions, each key's latest state, never a gap in it, never twice.
 * Fed with what a reader takes out of a client's subscription, so it covers feed, gateway, wire and client.
 */
import type { Future } from '../../protocol/index.ts';
import { matches, parsePattern, type Pattern } from '../../scopes/index.ts';
import type { StateChecks } from './state-checks.ts';
import { violated } from './violation.ts';

/** As the client library's subscriptions give them. */
export type FeedEvent =
  | { readonly kind: 'future'; readonly key: string; readonly revision: number; readonly future: Future }
  | { readonly kind: 'deleted'; readonly key: string; readonly revision: number }
  | { readonly kind: 'reset'; readonly position: { readonly revision: number } }
  | { readonly kind: 'caught_up'; readonly position: { readonly revision: number } };

interface Reader {
  readonly patterns: readonly Pattern[];
  /** Changes up to it need not come; undefined: not known yet. */
  from: number | undefined;
  readonly presentState: boolean;
  last: number;
  readonly seen: Map<string, { revision: number; deleted: boolean }>;
}

const sameBytes = (one: Uint8Array | undefined, other: Uint8Array | undefined): boolean =>
  one === other || (one !== undefined && other !== undefined && Buffer.compare(one, other) === 0);

export class FeedChecks {
  readonly #state: StateChecks;
  readonly #readers = new Map<string, Reader>();

  constructor(state: StateChecks) {
    this.#state = state;
  }

  /**
   * `from`: the revision it starts after, or 'present'; undefined: only what is new, and `startedAt` follows when the
   * server has said where that is.
   */
  begin(id: string, patterns: readonly string[], from: number | 'present' | undefined): void {
    this.#readers.set(id, {
      patterns: patterns.map((text) => {
        const parsed = parsePattern(text);
        return parsed.ok ? parsed.pattern : violated('feed', `${text} is no pattern`);
      }),
      from: from === 'present' ? 0 : from,
      presentState: from === 'present',
      last: typeof from === 'number' ? from : 0,
      seen: new Map(),
    });
  }

  startedAt(id: string, revision: number): void {
    const reader = this.#readers.get(id);
    if (reader !== undefined) reader.from ??= revision;
  }

  event(id: string, event: FeedEvent): void {
    const reader = this.#readers.get(id) ?? violated('feed', `${id} has events before its beginning`);
    switch (event.kind) {
      case 'reset':
        reader.seen.clear();
        reader.last = 0;
        reader.from = 0;
        return;
      case 'caught_up':
        this.#checkComplete(id, reader, event.position.revision, 'caught up');
        return;
      case 'future':
      case 'deleted':
        this.#checkChange(id, reader, event);
        return;
      default:
        event satisfies never;
    }
  }

  /** The reader left, or was told why it cannot go on. */
  end(id: string): void {
    this.#readers.delete(id);
  }

  get readers(): number {
    return this.#readers.size;
  }

  /** Nothing changes any more and all has been delivered: whoever still reads has seen each key's latest state. */
  converged(): void {
    for (const [id, reader] of this.#readers) {
      this.#checkComplete(id, reader, this.#state.revision, 'converged');
    }
  }

  /** Whether `converged` would pass for all. */
  get complete(): boolean {
    for (const reader of this.#readers.values()) {
      if (this.#missing(reader, this.#state.revision) !== undefined) return false;
    }
    return true;
  }

  #checkChange(id: string, reader: Reader, event: Extract<FeedEvent, { kind: 'future' | 'deleted' }>): void {
    const { key, revision } = event;
    const what = `${id} was told of ${key} at revision ${revision}`;
    if (!reader.patterns.some((pattern) => matches(pattern, key))) {
      violated('feed patterns', `${what}, which none of its patterns matches`);
    }
    if (revision < reader.last) violated('feed order', `${what} after revision ${reader.last}`);
    const seen = reader.seen.get(key);
    if (seen !== undefined && seen.revision >= revision) {
      violated('feed repeats', `${what}, after its revision ${seen.revision}`);
    }
    reader.last = revision;
    reader.seen.set(key, { revision, deleted: event.kind === 'deleted' });
    const truth = this.#state.changeAt(key, revision);
    if (truth === undefined) violated('feed truth', `${what}, which never happened`);
    else if (truth.kind !== event.kind)
      violated('feed truth', `${what} as ${event.kind}, it is ${truth.kind}`);
    else if (truth.kind === 'future' && event.kind === 'future')
      this.#checkShown(what, truth.future, event.future);
  }

  #checkShown(what: string, truth: Future, shown: Future): void {
    if (truth.generation !== shown.generation) {
      violated('feed truth', `${what} in generation ${shown.generation}, it is ${truth.generation}`);
    }
    // What is past its time may be shown as expired before the log says so.
    if (shown.state === 'expired' && truth.expiresAtMs !== undefined) return;
    const hidden = shown.sensitive && shown.value === undefined;
    if (truth.state !== shown.state || (!hidden && !sameBytes(truth.value, shown.value))) {
      violated('feed truth', `${what} as ${shown.state}, it is ${truth.state}, or has another value`);
    }
  }

  #checkComplete(id: string, reader: Reader, revision: number, when: string): void {
    const missing = this.#missing(reader, revision);
    if (missing !== undefined)
      violated('feed gap', `${id}, when ${when} at revision ${revision}, ${missing}`);
  }

  #missing(reader: Reader, revision: number): string | undefined {
    const { from } = reader;
    if (from === undefined) return undefined;
    for (const [key, latest] of this.#state.latest) {
      if (!reader.patterns.some((pattern) => matches(pattern, key))) continue;
      // A slow reader skips what has been replaced since.
      const change = latest;
      if (change.revision > revision || change.revision <= from) continue;
      const seen = reader.seen.get(key);
      if (seen !== undefined && seen.revision >= change.revision) continue;
      // Who never saw it need not be told that it is gone.
      if (latest.kind === 'deleted' && (seen === undefined || seen.deleted)) continue;
      return `had seen ${key} at ${seen?.revision ?? 'no revision'}, not at ${latest.revision}`;
    }
    return undefined;
  }
}
