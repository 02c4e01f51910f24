/**
 * The client library: `import { connect } from 'futurestore'`.
 *
 * Owns one connection to one of many servers, and what must outlive it: the idempotency session, unanswered requests,
 * subscriptions. May call protocol (codec, errors) and scopes (the grammar of keys). Its core takes sockets, time and
 * chance from a ClientEnvironment, so that a simulation can drive it; `connect` gives it the real ones.
 *
 * Promises:
 * - A request settles exactly once: with its answer, with a FuturestoreError, or at its own timeout. While the cluster
 *   has no leader or the connection is down it waits, as long as its timeout allows.
 * - A write happens at most once. It is sent again only under its session and sequence; where these are lost it fails
 *   with OUTCOME_UNKNOWN instead.
 * - A subscription gives each key's latest state in the order of revisions, over reconnects, in bounded memory, and
 *   tells when it could not be continued (`reset`) and why it ended.
 * - Requests made in one turn share a frame.
 */
export { Client } from './client.ts';
export type {
  AccessChange,
  Alternatives,
  ApplyPoliciesOptions,
  AwaitOptions,
  AwaitedAlternative,
  ClientOptions,
  ClientState,
  CloseOptions,
  DrainServerOptions,
  GetOptions,
  ListOptions,
  ListPage,
  NewMember,
  RebalanceOptions,
  RevokeOptions,
  SubscribeOptions,
  TransferOptions,
} from './client.ts';
export type { SubscriptionEvent } from './change-buffer.ts';
export type {
  ClientEnvironment,
  ClientLogger,
  ClientSocket,
  SocketFailure,
  SocketHandlers,
  TimerHandle,
} from './environment.ts';
export { CancelledError, FutureRejectedError, OperationFailedError, TimedOutError } from './errors.ts';
export { connect, connectWithProfile } from './node-environment.ts';
export type { ConnectOptions } from './node-environment.ts';
export {
  BatchBuilder,
  declareOperation,
  deleteOperation,
  rejectOperation,
  resolveOperation,
  touchOperation,
} from './operations.ts';
export type { ConditionOptions, DeclareOptions, RejectOptions, ResolveOptions, Value } from './operations.ts';
export { loadProfile, relayOfProfile } from './profile.ts';
export type { Profile } from './profile.ts';
export type { RequestOptions, WriteName, WriteOptions } from './requests.ts';
export type { LastingSession } from './session.ts';
export type { Subscription } from './subscription.ts';
export type { TokenSource } from './tokens.ts';
export { bytesOf, jsonOf, textOf } from './values.ts';
export { FuturestoreError, errorDefinitions } from '../protocol/index.ts';
export type {
  AccessState,
  ClusterStatus,
  DrainStanding,
  ErrorCode,
  Future,
  FutureState,
  Member,
  MemberList,
  MemberStatus,
  Operation,
  OperationResult,
  Position,
  Rebalanced,
  Rejection,
  Revocation,
  RevocationRecord,
  ServerShare,
  SnapshotReadPart,
  WriteResult,
} from '../protocol/index.ts';
