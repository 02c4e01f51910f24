/** What goes into the feed and what comes out. */
import type {
  AnswerBody,
  Change,
  Failure,
  Future,
  SharedChange,
  SubscriptionStart,
} from '../protocol/index.ts';
import type { Pattern } from '../scopes/index.ts';

/** Asks for what came after a revision: each key's latest change only, in the order of revisions. */
export interface ChangesQuery {
  /** After this one. */
  readonly revision: number;
  /** A key that matches several of them comes once. */
  readonly patterns: readonly Pattern[];
  /** Of each pattern: one that contains it, with `*`, whose keys the subscriber may all see. Changes the work alone. */
  readonly within?: readonly (Pattern | undefined)[] | undefined;
  /** What the page before said; absent: there was none. */
  readonly manyKeys?: boolean;
  /** Changes in the page, about. */
  readonly limit: number;
  /** Of values, about. */
  readonly bytesMax: number;
  /** Records looked at, matching or not, about. */
  readonly visitMax: number;
}

/** The state as the feed knows it. Reads see everything that was applied. */
export interface FeedSource {
  readonly clusterId: string;
  readonly epoch: number;
  readonly revision: number;
  /** Deletions up to this revision are forgotten: who stands before it may have missed some. */
  readonly forgottenUpTo: number;
  get(key: string): Future | undefined;
  /** The future as it may be shown at `nowMs`: the same object unless its time has passed. */
  fresh(future: Future, nowMs: number): Future;
  /**
   * `upTo`: all matching changes up to it are in the page or were before the query's revision; it is beyond the
   * query's revision, unless that is the source's or the next revision has more than the limits allow. Changes beyond
   * `upTo` (of a revision that was cut) are ignored.
   */
  changesAfter(query: ChangesQuery): ChangesPage;
}

export interface ChangesPage {
  readonly changes: readonly Change[];
  readonly upTo: number;
  /** How often a key was looked at for one of the patterns. */
  readonly looked: number;
  /** For the query of the next page. */
  readonly manyKeys: boolean;
}

export interface FeedOptions {
  readonly source: FeedSource;
  /** Bytes of pushes a connection may have that it has not taken yet. Default 64 KiB. */
  readonly windowBytes?: number;
  /** Keys that the awaits of one connection may name together; beyond it LIMIT_EXCEEDED. Default 65,536. */
  readonly waitingKeysPerConnectionMax?: number;
  /** Bytes of values and encodings in the events of one `take`, about. Default 4 MiB. */
  readonly bytesPerTakeMax?: number;
  /**
   * How often a change is routed to a live subscription between two `take`s, over all of them; those for whom there is no
   * time read on from the state. Default 16,384.
   */
  readonly admissionsPerTurn?: number;
  /** Encodings kept for other subscriptions to share, in bytes. Default 8 MiB. */
  readonly encodingsBytesMax?: number;
  /** Encodes a change as an agent.Change message; for tests that count. Default: protocol's. */
  readonly encode?: (change: Change) => Uint8Array;
}

export interface AwaitRequest {
  /** The server's own number for one of its gateways. */
  readonly gateway: number;
  readonly connection: number;
  readonly request: number;
  /** Each at least one key. */
  readonly alternatives: readonly (readonly string[])[];
  /** Earlier generations don't count. */
  readonly leastGeneration?: number;
}

/** An await that the feed has taken over, for who is to end it in time: it is not to be kept when it is over. */
export interface Waiting {
  readonly connection: { readonly gateway: number; readonly id: number };
  readonly request: number;
  /** Answered, cancelled or its connection closed. */
  readonly over: boolean;
}

export interface SubscribeRequest {
  readonly gateway: number;
  readonly connection: number;
  readonly request: number;
  readonly patterns: readonly string[];
  /** Of each pattern: one that contains it, with `*`, whose keys the subscriber may all see; '': there is none. */
  readonly within?: readonly string[] | undefined;
  readonly start: SubscriptionStart;
}

export type FeedEventBody =
  | {
      readonly kind: 'answer';
      readonly connection: number;
      readonly request: number;
      readonly body: Extract<AnswerBody, { readonly kind: 'awaited' | 'subscribed' | 'failed' }>;
    }
  | {
      readonly kind: 'push';
      readonly connection: number;
      /** The id of the request that made the subscription. */
      readonly subscription: number;
      /** Whole revisions, in order. */
      readonly changes: readonly SharedChange[];
      /** Resume from here: all matching changes up to it have been sent. */
      readonly revision: number;
      /** The state as of the start has been sent; once. */
      readonly caughtUp: boolean;
      /** What `delivered` must give back: the sum of the encodings' lengths. */
      readonly bytes: number;
    }
  | {
      readonly kind: 'ended';
      readonly connection: number;
      readonly subscription: number;
      readonly failure: Failure;
    };

/** A gateway's event, and which gateway's. */
export type FeedEvent = FeedEventBody & { readonly gateway: number };

export interface FeedCounts {
  readonly waits: number;
  /** Different keys that are awaited. */
  readonly waitingKeys: number;
  readonly subscriptions: number;
}
