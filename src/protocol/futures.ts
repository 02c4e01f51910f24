/** Futures and operations on them as plain data: what the boundary checks produce and all rooms speak. */

export type FutureState = 'pending' | 'resolved' | 'rejected' | 'expired';

export interface Rejection {
  readonly code: string;
  readonly message: string;
}

/** One key's latest state. Objects of this type are never changed once made, so they may be shared. */
export interface Future {
  readonly key: string;
  /** 1, 2, 3, …; never used twice for a key, not even after its deletion. */
  readonly generation: number;
  readonly state: FutureState;
  /** Of its last change. */
  readonly revision: number;
  /** Resolved only. Never an alias of a receive buffer. */
  readonly value?: Uint8Array;
  readonly contentType: string;
  readonly sensitive: boolean;
  /** Rejected only. */
  readonly rejection?: Rejection;
  /** The principal that declared it, or settled it undeclared. */
  readonly producer: string;
  /** Cluster time of the last change, in milliseconds since 1970. */
  readonly changedAtMs: number;
  /** Settled with a TTL: from then on it is expired, whatever `state` says. */
  readonly expiresAtMs?: number;
  /** Pending with a deadline. */
  readonly deadlineAtMs?: number;
}

/** All that are given must hold. */
export interface Preconditions {
  readonly ifRevision?: number;
  readonly ifGeneration?: number;
  readonly ifAbsent?: boolean;
}

export type Operation = { readonly key: string; readonly preconditions: Preconditions } & (
  | {
      readonly kind: 'declare';
      readonly renew: boolean;
      readonly deadlineMs?: number;
      readonly tied: boolean;
    }
  | {
      readonly kind: 'resolve';
      readonly value: Uint8Array;
      readonly contentType: string;
      readonly sensitive: boolean;
      readonly ttlMs?: number;
      readonly supersede: boolean;
    }
  | {
      readonly kind: 'reject';
      readonly rejection: Rejection;
      readonly ttlMs?: number;
      readonly supersede: boolean;
    }
  | { readonly kind: 'delete' }
  | { readonly kind: 'touch'; readonly ttlMs: number }
);

export interface OperationResult {
  readonly generation: number;
  readonly state: FutureState;
  /** The key's. */
  readonly revision: number;
  /** It was already so: nothing happened. */
  readonly unchanged: boolean;
}

export interface WriteResult {
  readonly revision: number;
  readonly results: readonly OperationResult[];
}

export interface Position {
  readonly clusterId: string;
  readonly epoch: number;
  readonly revision: number;
}

/** A key's change: its latest state, or its deletion. */
export type Change =
  | { readonly kind: 'future'; readonly revision: number; readonly key: string; readonly future: Future }
  | { readonly kind: 'deleted'; readonly revision: number; readonly key: string };

/** The limits of the protocol. Every one of them is enforced. */
export const limits = {
  keyBytesMax: 512,
  keySegmentsMax: 16,
  segmentBytesMax: 128,
  valueBytesMax: 1024 * 1024,
  /** Before hello nobody is known to be worth more memory. */
  frameBytesBeforeHelloMax: 16 * 1024,
  /** A value of the greatest size with its key and the rest of its request. */
  frameBytesMax: 1024 * 1024 + 64 * 1024,
  contentTypeBytesMax: 128,
  rejectionMessageBytesMax: 4096,
  rejectionCodeBytesMax: 64,
  operationsPerWriteMax: 256,
  awaitAlternativesMax: 64,
  awaitKeysMax: 256,
  patternsPerSubscriptionMax: 64,
  subscriptionsPerConnectionMax: 1024,
  requestsInFlightPerConnectionMax: 4096,
  /** Answers remembered for one idempotency session: no more writes than this may be unanswered. */
  rememberedAnswersMax: 4096,
  listPageFuturesMax: 1000,
  listPageFuturesDefault: 100,
  listPageBytesMax: 256 * 1024,
  /** Ten years: longer than any deployment waits, far below 2^53. */
  durationMsMax: 10 * 366 * 24 * 3600 * 1000,
  sessionGraceMsMin: 1000,
  sessionGraceMsMax: 24 * 3600 * 1000,
  clientNameBytesMax: 128,
  /** Half of a first frame; issuers' tokens are one or two KiB. */
  tokenBytesMax: 8 * 1024,
  memberIdMax: 2 ** 31,
  /** Over which agents leave a server: an operator waits for it. */
  departureGraceMsMax: 3600 * 1000,
  /** As JSON, with all certificates and keys in it: a thousand rules take about 150 KiB. */
  policyDocumentBytesMax: 512 * 1024,
  /** All of them are in one answer, in every server's memory, and in its snapshots. */
  revocationsMax: 4096,
  tokenIdBytesMax: 256,
  /**
   * What a client accepts from a server: a part of a snapshot may hold a value of the greatest size behind many small
   * ones, in base64.
   */
  serverFrameBytesMax: 2 * (1024 * 1024 + 64 * 1024),
  sessionIdBytes: 16,
} as const;

export const defaultContentType = 'text/plain; charset=utf-8';
