import assert from 'node:assert/strict';
import type { Position, SharedChange, SubscriptionStart } from '../protocol/index.ts';
import { parsePattern, type Pattern } from '../scopes/index.ts';
import type { Connection, Entry } from './connections.ts';
import type { FeedSource } from './types.ts';

/** Where a subscription begins. */
export interface Origin {
  readonly cursor: number;
  /** Deletions up to here need not be told: the reader holds nothing yet. 0 where it goes on from a position. */
  readonly base: number;
  readonly reset: boolean;
}

const isOurs = (position: Position, source: FeedSource): boolean =>
  position.clusterId === source.clusterId && position.epoch === source.epoch;

export const originOf = (start: SubscriptionStart, source: FeedSource): Origin => {
  switch (start.kind) {
    case 'present_state':
      return { cursor: 0, base: source.revision, reset: false };
    case 'only_new':
      return { cursor: source.revision, base: 0, reset: false };
    case 'after': {
      const { position } = start;
      const continues =
        isOurs(position, source) &&
        position.revision <= source.revision &&
        position.revision >= source.forgottenUpTo;
      return continues
        ? { cursor: position.revision, base: 0, reset: false }
        : { cursor: 0, base: source.revision, reset: true };
    }
    default:
      return start satisfies never;
  }
};

/** The patterns of a subscription, which were checked when it was made. */
export const patternsOf = (texts: string | readonly string[]): readonly Pattern[] =>
  (typeof texts === 'string' ? [texts] : texts).map((text) => {
    const parsed = parsePattern(text);
    assert(parsed.ok, `the pattern ${text} was accepted before`);
    return parsed.pattern;
  });

/** Patterns that differ; a lone one has no array around it. */
export interface PatternsAsked {
  readonly texts: string | readonly string[];
  /** Of each of them: a pattern with `*` that contains it and is wholly allowed, or ''. undefined: there are none. */
  readonly within: readonly string[] | undefined;
}

/** Of each pattern: the pattern with `*` in whose keys it is to be looked for, if there is one. */
export const withinOf = (
  texts: readonly string[] | undefined,
): readonly (Pattern | undefined)[] | undefined =>
  texts?.map((text) => {
    const parsed = parsePattern(text);
    return parsed.ok ? parsed.pattern : undefined;
  });

/** How a lagging subscription reads on. */
export interface Reading {
  /** Deletions up to here need not be told: see `Origin`. */
  readonly base: number;
  /** The source's revision when it began: beyond it, it is caught up. */
  readonly target: number;
  caughtUp: boolean;
  /** Parsed when it is read first. */
  patterns: readonly Pattern[] | undefined;
  within: readonly (Pattern | undefined)[] | undefined;
  /** What the last page said. */
  manyKeys: boolean;
}

/** One that was live, and so has caught up beyond its base, reads on. */
const readingOn = (): Reading => ({
  base: 0,
  target: 0,
  caughtUp: true,
  patterns: undefined,
  within: undefined,
  manyKeys: false,
});

/** What was admitted to a subscription and is to be taken. */
export interface Pending {
  /** Whole revisions, in order; behind `groupStart`, as long as that is not -1, the one that is being routed. */
  readonly changes: SharedChange[];
  groupStart: number;
  groupBytes: number;
  /** The number of the last change routed to it: a change that matches two of its patterns comes once. */
  seen: number;
  /** Among its connection's `flushing`. */
  flushing: boolean;
}

export const nothingPending = (): Pending => ({
  changes: [],
  groupStart: -1,
  groupBytes: 0,
  seen: 0,
  flushing: false,
});

/**
 * One subscription: a cursor. It is either live (its changes are routed to it as they happen, and its cursor counts
 * no more) or lagging (it reads on from its cursor, a slice at a time, when its connection has room).
 *
 * Invariants: all matching changes up to `cursor`, while lagging, have been admitted, and none beyond; `pending` has
 * whole revisions, in order, none of them beyond the cursor of a lagging subscription. What only one that is busy
 * needs is beside it: thousands of idle ones take 80 bytes each.
 */
export class Subscription implements Entry {
  readonly connection: Connection;
  readonly request: number;
  /** A lone pattern without a `within`, the usual one, has no object around it. Parsed anew when needed: idle subscriptions keep texts only. */
  readonly #asked: string | PatternsAsked;
  cursor: number;
  over = false;
  /** Undefined: it is live. */
  reading: Reading | undefined;
  pending: Pending | undefined;

  constructor(connection: Connection, request: number, asked: PatternsAsked, origin: Origin, target: number) {
    this.connection = connection;
    this.request = request;
    this.#asked = typeof asked.texts === 'string' && asked.within === undefined ? asked.texts : asked;
    this.cursor = origin.cursor;
    this.reading = { ...readingOn(), base: origin.base, target, caughtUp: false };
    this.pending = undefined;
  }

  /** One pattern, or several that differ. */
  get texts(): string | readonly string[] {
    return typeof this.#asked === 'string' ? this.#asked : this.#asked.texts;
  }

  /** As in `PatternsAsked`. */
  get within(): readonly string[] | undefined {
    return typeof this.#asked === 'string' ? undefined : this.#asked.within;
  }

  end(): void {
    this.over = true;
  }

  /** It goes on from its cursor. */
  fallBehind(): void {
    this.reading ??= readingOn();
  }

  /** Deletions it has yet to be told of are forgotten: it cannot go on without a gap. */
  isCutOff(source: FeedSource): boolean {
    return source.forgottenUpTo > Math.max(this.cursor, this.reading?.base ?? 0);
  }
}
