/**
 * What a subscription has received and its reader has not taken: each key's latest state only, in the order of
 * revisions. A slow reader skips intermediate states, as it would had it been away.
 *
 * `reset` empties it, since the present state follows. `caught_up` comes out once every key that was in when it was
 * said has come out, in whatever later state.
 */
import { strict as assert } from 'node:assert';
import type { Change, Future, Position } from '../protocol/index.ts';

export type SubscriptionEvent =
  | { readonly kind: 'future'; readonly key: string; readonly revision: number; readonly future: Future }
  | { readonly kind: 'deleted'; readonly key: string; readonly revision: number }
  /** It could not be continued: forget what you have; the present state follows. */
  | { readonly kind: 'reset'; readonly position: Position }
  /** The state as of the subscription's start (or of the reset) has been handed out. */
  | { readonly kind: 'caught_up'; readonly position: Position };

interface Entry {
  readonly change: Change;
  readonly bytes: number;
  /** Must come out before `caught_up`. */
  readonly beforeCaughtUp: boolean;
}

/** Of an entry beside its strings and value: objects and map slot, roughly. */
const entryOverheadBytes = 256;

export class ChangeBuffer {
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #reset = false;
  #caughtUp = false;
  #beforeCaughtUp = 0;
  /** Where the reader's next start would be, were everything taken. */
  #received: Position | undefined;
  /** What the server called the start; names cluster and epoch. */
  #origin: Position | undefined;
  /** What the reader has taken is all before it. */
  #handedOut: Position | undefined;

  constructor(start: Position | undefined) {
    this.#received = start;
    this.#handedOut = start;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The reader has been told everything. */
  get isEmpty(): boolean {
    return this.#entries.size === 0 && !this.#reset && !this.#caughtUp;
  }

  /** Estimated memory of what is in. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Where the server is to continue. */
  get received(): Position | undefined {
    return this.#received;
  }

  /** A resume token: nothing that was taken comes again, nothing that was not is left out. */
  get handedOut(): Position | undefined {
    return this.#handedOut;
  }

  /** The server has begun to send; what it had sent before still counts, unless it is a reset. */
  startedAt(position: Position, how: 'present_state' | 'reset' | 'continued'): void {
    this.#origin = position;
    switch (how) {
      case 'present_state':
        // Nothing has been sent yet, so there is nothing to continue from: an interrupted start is made again.
        return;
      case 'reset':
        this.#entries.clear();
        this.#bytes = 0;
        this.#caughtUp = false;
        this.#beforeCaughtUp = 0;
        this.#reset = true;
        this.#received = { ...position, revision: 0 };
        return;
      case 'continued':
        this.#received = position;
        this.#advance();
        return;
      default:
        how satisfies never;
    }
  }

  add(change: Change): void {
    const before = this.#entries.get(change.key);
    if (before !== undefined) {
      if (before.change.revision >= change.revision) return;
      this.#bytes -= before.bytes;
      // Set again below, at the end: the order is that of revisions.
      this.#entries.delete(change.key);
    }
    const valueBytes = change.kind === 'future' ? (change.future.value?.length ?? 0) : 0;
    const bytes = entryOverheadBytes + 2 * change.key.length + valueBytes;
    this.#entries.set(change.key, { change, bytes, beforeCaughtUp: before?.beforeCaughtUp ?? false });
    this.#bytes += bytes;
  }

  caughtUp(): void {
    for (const [key, entry] of this.#entries) this.#entries.set(key, { ...entry, beforeCaughtUp: true });
    this.#beforeCaughtUp = this.#entries.size;
    this.#caughtUp = true;
  }

  /** All changes up to it are in or were. */
  reached(revision: number): void {
    const base = this.#received ?? this.#origin;
    if (base === undefined || (this.#received !== undefined && base.revision >= revision)) return;
    this.#received = { ...base, revision };
    this.#advance();
  }

  shift(): SubscriptionEvent | undefined {
    if (this.#reset) {
      this.#reset = false;
      this.#advance();
      return { kind: 'reset', position: this.#position() };
    }
    if (this.#caughtUp && this.#beforeCaughtUp === 0) {
      this.#caughtUp = false;
      return { kind: 'caught_up', position: this.#position() };
    }
    for (const [key, entry] of this.#entries) {
      this.#entries.delete(key);
      this.#bytes -= entry.bytes;
      if (entry.beforeCaughtUp) this.#beforeCaughtUp -= 1;
      this.#advance();
      const { change } = entry;
      if (change.kind === 'deleted') return { kind: 'deleted', key, revision: change.revision };
      return { kind: 'future', key, revision: change.revision, future: change.future };
    }
    return undefined;
  }

  #position(): Position {
    assert(this.#handedOut !== undefined, 'a subscription that has events has a position');
    return this.#handedOut;
  }

  #advance(): void {
    const received = this.#received;
    // Until the reader knows of the reset it must not hold a token that hides it.
    if (received === undefined || this.#reset) return;
    const first = this.#entries.values().next().value;
    // Changes of one batch share a revision: while one of them is in, the position stays before it.
    const revision = first === undefined ? received.revision : first.change.revision - 1;
    const handedOut = this.#handedOut;
    if (
      handedOut?.revision === revision &&
      handedOut.epoch === received.epoch &&
      handedOut.clusterId === received.clusterId
    ) {
      return;
    }
    this.#handedOut = { ...received, revision };
  }
}
