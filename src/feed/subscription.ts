import type { Position, SharedChange, SubscriptionStart } from '../protocol/index.ts';
import type { Pattern } from '../scopes/index.ts';
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

/**
 * One subscription: a cursor. It is either live (its changes are routed to it as they happen, and its cursor counts
 * no more) or lagging (it reads on from its cursor, a slice at a time, when its connection has room).
 *
 * Invariants: all matching changes up to `cursor`, while lagging, have been admitted, and none beyond; `pending` has
 * whole revisions, in order, none of them beyond the cursor of a lagging subscription.
 */
export class Subscription implements Entry {
  readonly connection: Connection;
  readonly request: number;
  /** Different from each other. They are parsed anew when needed: thousands of idle subscriptions keep texts only. */
  readonly texts: readonly string[];
  readonly base: number;
  /** The source's revision when it began: beyond it, it is caught up. */
  readonly target: number;
  cursor: number;
  over = false;
  live = false;
  caughtUp = false;
  /** Among its connection's `flushing`. */
  flushing = false;
  /** While lagging, once it was read. */
  patterns: readonly Pattern[] | undefined;
  /** Admitted, to be taken. */
  pending: SharedChange[] | undefined;
  /** The number of the last change routed to it: a change that matches two of its patterns comes once. */
  seen = 0;
  /** Where the revision being routed begins in `pending`; -1: nothing of it matched yet. */
  groupStart = -1;
  groupBytes = 0;

  constructor(
    connection: Connection,
    request: number,
    texts: readonly string[],
    origin: Origin,
    target: number,
  ) {
    this.connection = connection;
    this.request = request;
    this.texts = texts;
    this.base = origin.base;
    this.cursor = origin.cursor;
    this.target = target;
  }

  /** Deletions it has yet to be told of are forgotten: it cannot go on without a gap. */
  isCutOff(source: FeedSource): boolean {
    return source.forgottenUpTo > Math.max(this.cursor, this.base);
  }
}
