/**
 * The feed: routes changes to those who wait for them, awaits by key and subscriptions by pattern.
 *
 * Owns: who waits for what on this server, how far each subscription has come, and how many bytes of pushes each
 * connection still has to take. Nothing of it is replicated or persisted: it lives where the connection is.
 * May call: protocol (types, limits, the encoding of a change) and scopes (patterns). It knows the state only
 * through `FeedSource`, which the server passes in.
 * Promises: pure and synchronous (no I/O, clock, timer or promise), bounded work per `take`. An await is answered
 * with what is true when the answer is taken. A subscription gets each key's latest state in the order of
 * revisions, never with a gap and never twice; a reader that is slow or away costs a cursor, not a queue; a
 * subscription that cannot go on is ended with its reason.
 */
export { Feed } from './feed.ts';
export type {
  AwaitRequest,
  ChangesQuery,
  FeedCounts,
  FeedEvent,
  FeedEventBody,
  FeedOptions,
  FeedSource,
  SubscribeRequest,
  Waiting,
} from './types.ts';
