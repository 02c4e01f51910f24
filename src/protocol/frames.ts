/**
 * Frames as plain data: what the codecs take and give. Whatever a codec gave has passed every check that needs no
 * knowledge of the state: ids, keys, sizes, enums, durations and counts are within their limits.
 */
import type { Failure } from './errors.ts';
import type { Revocation } from '../scopes/index.ts';
import type { Change, Future, Operation, Position, WriteResult } from './futures.ts';

export interface Hello {
  readonly clientName: string;
  readonly clientVersion: string;
  /** A JWT: for a client without a certificate, or for what its certificate does not say. */
  readonly token?: string;
}

export type SubscriptionStart =
  /** The present state first, then what changes. */
  | { readonly kind: 'present_state' }
  | { readonly kind: 'only_new' }
  | { readonly kind: 'after'; readonly position: Position };

export type RequestBody =
  /** `session`: 16 bytes as 32 lower-case hex digits. */
  | {
      readonly kind: 'open_session';
      readonly session: string;
      readonly graceMs: number;
      readonly resume: boolean;
    }
  | { readonly kind: 'close_session' }
  | {
      readonly kind: 'write';
      readonly sequence: number;
      readonly answeredBelow: number;
      readonly operations: readonly Operation[];
    }
  | { readonly kind: 'get'; readonly key: string; readonly stale: boolean }
  | {
      readonly kind: 'list';
      readonly pattern: string;
      /** '' from the start. */
      readonly after: string;
      readonly limit: number;
      readonly values: boolean;
      readonly stale: boolean;
    }
  | {
      readonly kind: 'await';
      readonly alternatives: readonly (readonly string[])[];
      readonly leastGeneration?: number;
    }
  | { readonly kind: 'subscribe'; readonly patterns: readonly string[]; readonly start: SubscriptionStart }
  | { readonly kind: 'cancel'; readonly request: number }
  /** A newer token of the same principal. */
  | { readonly kind: 'authenticate'; readonly token: string }
  | { readonly kind: 'clock' }
  | { readonly kind: 'status' }
  | { readonly kind: 'member_list' }
  | {
      readonly kind: 'member_add';
      /** The CN of the new server's certificate. */
      readonly name: string;
      /** 'host:port'. */
      readonly peersAddress: string;
      /** wss://host:port. */
      readonly agentsUrl: string;
      /** Absent: a new learner; else a voter in the place of this member. */
      readonly replaces?: number;
    }
  /** Makes a learner a voter; refused while it is behind. */
  | { readonly kind: 'member_promote'; readonly member: number }
  | { readonly kind: 'member_remove'; readonly member: number }
  /** `member` absent: to the most up-to-date one. */
  | { readonly kind: 'transfer_leader'; readonly member?: number }
  /** `end`: it takes agents again. `graceMs` absent: the server's choice. */
  | {
      readonly kind: 'drain_server';
      readonly member: number;
      readonly graceMs?: number;
      readonly end: boolean;
    }
  | { readonly kind: 'rebalance'; readonly graceMs?: number }
  /** `snapshot` absent: opens a view of the present state; `part` is 0 then. */
  | { readonly kind: 'snapshot_read'; readonly snapshot?: number; readonly part: number }
  | {
      readonly kind: 'acl_apply';
      /** A policy document as JSON; who decodes it checks no more than its size. */
      readonly document: Uint8Array;
      /** The policies are of exactly this revision; 0: none have been applied. */
      readonly ifRevision?: number;
      /** Also where the asker may not change policies any more then. */
      readonly force: boolean;
    }
  | { readonly kind: 'acl_get' }
  /** `untilMs` (since 1970) absent: for ever. */
  | { readonly kind: 'acl_revoke'; readonly revocation: Revocation; readonly untilMs?: number }
  | { readonly kind: 'acl_restore'; readonly revocation: Revocation };

/** Those that change the cluster itself, or who may do what in it. */
export type ClusterChange = Extract<
  RequestBody,
  {
    readonly kind:
      | 'member_add'
      | 'member_promote'
      | 'member_remove'
      | 'transfer_leader'
      | 'drain_server'
      | 'rebalance'
      | 'acl_apply'
      | 'acl_revoke'
      | 'acl_restore';
  }
>;

export interface Request {
  readonly id: number;
  /** How long the server may take; absent: no limit. */
  readonly timeoutMs?: number;
  readonly body: RequestBody;
}

/** A request that can be answered, but only with an error. */
export interface RefusedRequest {
  readonly id: number;
  readonly refused: Failure;
}

/** What a client sends. */
export interface ClientFrame {
  readonly hello?: Hello;
  readonly requests: readonly Request[];
}

/** What a server makes of it. */
export interface ReceivedClientFrame {
  readonly hello?: Hello;
  readonly requests: readonly (Request | RefusedRequest)[];
}

export interface MemberStatus {
  readonly id: number;
  readonly name: string;
  readonly role: string;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly keys: number;
  readonly connections: number;
  readonly agentsUrl: string;
  readonly version: string;
  /** How old this line is; undefined: the one who answers has never heard from that member. */
  readonly heardMsAgo: number | undefined;
  /** Entries behind the leader's commit index. */
  readonly lag: number;
  /** It takes no agents, and does not lead if another one can. */
  readonly draining?: true;
}

export interface ClusterStatus {
  readonly clusterId: string;
  readonly epoch: number;
  readonly revision: number;
  /** Who answers. */
  readonly serverId: number;
  readonly members: readonly MemberStatus[];
}

/** A server as the cluster counts it. */
export interface Member {
  readonly id: number;
  readonly name: string;
  readonly peersAddress: string;
  readonly agentsUrl: string;
  /** `joining`: not counted yet; `leaving`: counted until the change under way is done. */
  readonly standing: 'voter' | 'learner' | 'joining' | 'leaving';
  readonly wanted: 'voter' | 'learner' | 'removed';
  /** Heard from lately by the server that answers. */
  readonly reachable: boolean;
  /** Entries behind the commit index, as heard lately. */
  readonly lag: number;
  /** It has taken part since it became a member. */
  readonly joined: boolean;
  /** It takes no agents, and does not lead if another one can. */
  readonly draining?: true;
}

export interface MemberList {
  /** Sorted by id. */
  readonly members: readonly Member[];
  /** A change is under way or wanted: it is carried out as soon as a majority can agree on it. */
  readonly changePending: boolean;
  /** undefined: not known. */
  readonly leader: number | undefined;
}

/** What became of the wish to drain a server, or to end that. */
export interface DrainStanding {
  readonly member: number;
  readonly draining: boolean;
  /** That it has; where it is draining, so many will leave. */
  readonly agents: number;
  /** Over which they leave; 0: it is not draining. */
  readonly graceMs: number;
  /** undefined: not known. */
  readonly leader: number | undefined;
}

/** What a rebalance does to one server. */
export interface ServerShare {
  readonly member: number;
  readonly name: string;
  /** Before. */
  readonly agents: number;
  /** How many of them are asked to go elsewhere. */
  readonly moving: number;
  /** It takes no agents, or was not heard lately. */
  readonly leftOut: boolean;
}

export interface Rebalanced {
  /** Sorted by id. */
  readonly servers: readonly ServerShare[];
  readonly graceMs: number;
}

/** One part of a snapshot that a client reads, and what it is of. */
export interface SnapshotReadPart {
  readonly snapshot: number;
  readonly part: number;
  /** As storage keeps them. */
  readonly records: Uint8Array;
  /** CRC-32 of `records`. */
  readonly checksum: number;
  readonly last: boolean;
  /** In the last one: how many records there were in all. */
  readonly recordsTotal: number;
  readonly clusterId: string;
  readonly epoch: number;
  readonly revision: number;
  /** Of the last log entry in it. */
  readonly index: number;
  readonly term: number;
}

export interface RevocationRecord {
  readonly revocation: Revocation;
  /** At which it was made. */
  readonly revision: number;
  /** Since 1970; undefined: for ever. */
  readonly untilMs: number | undefined;
}

/** Who may do what, as the whole cluster has it. */
export interface AccessState {
  /** Of the policies; 0: none have been applied, and each server's policy file counts. */
  readonly revision: number;
  /** A policy document as canonical JSON; empty where none was applied. */
  readonly document: Uint8Array;
  readonly revocations: readonly RevocationRecord[];
}

export type AnswerBody =
  | { readonly kind: 'failed'; readonly failure: Failure }
  | { readonly kind: 'session_opened' }
  | { readonly kind: 'session_closed' }
  | { readonly kind: 'cancelled' }
  | { readonly kind: 'authenticated'; readonly expiresInMs: number }
  | { readonly kind: 'written'; readonly result: WriteResult }
  | { readonly kind: 'got'; readonly revision: number; readonly future: Future | undefined }
  | {
      readonly kind: 'listed';
      readonly revision: number;
      readonly futures: readonly Future[];
      /** Pass as `after`; undefined: this was the last page. */
      readonly next: string | undefined;
    }
  /** All futures resolved; or exactly one, which is rejected. */
  | { readonly kind: 'awaited'; readonly alternative: number; readonly futures: readonly Future[] }
  /** Cluster time of some moment between the request and its answer. */
  | { readonly kind: 'clock'; readonly clusterTimeMs: number }
  | { readonly kind: 'subscribed'; readonly position: Position; readonly reset: boolean }
  | { readonly kind: 'status'; readonly status: ClusterStatus }
  | { readonly kind: 'members'; readonly list: MemberList }
  | { readonly kind: 'member_changed'; readonly member: number }
  | { readonly kind: 'leader_transferred'; readonly member: number }
  | { readonly kind: 'drained'; readonly standing: DrainStanding }
  | { readonly kind: 'rebalanced'; readonly rebalanced: Rebalanced }
  | { readonly kind: 'snapshot_part'; readonly part: SnapshotReadPart }
  /** `unchanged`: it was already so; `revision` is then that of the last change. */
  | { readonly kind: 'access_changed'; readonly revision: number; readonly unchanged: boolean }
  | { readonly kind: 'access'; readonly access: AccessState };

export interface Answer {
  readonly id: number;
  readonly body: AnswerBody;
}

/** A change and its encoding as an agent.Change message: made once, shared by every frame that carries it. */
export interface SharedChange {
  readonly change: Change;
  readonly encoded: Uint8Array;
}

export interface Push {
  /** The id of the request that made the subscription. */
  readonly subscription: number;
  readonly changes: readonly Change[];
  /** Resume from here: all up to it has been sent. */
  readonly revision: number;
  /** The state as of the subscription's start has been sent; once. */
  readonly caughtUp: boolean;
  /** The subscription is over, and why. */
  readonly ended?: Failure;
}

/** As a server sends it. */
export interface SharedPush extends Omit<Push, 'changes'> {
  readonly changes: readonly SharedChange[];
}

export interface ProtocolLimits {
  readonly frameBytesMax: number;
  readonly valueBytesMax: number;
  readonly requestsInFlightMax: number;
  readonly subscriptionsMax: number;
  readonly operationsPerWriteMax: number;
}

export interface Welcome {
  readonly clusterId: string;
  readonly epoch: number;
  readonly revision: number;
  readonly serverId: number;
  readonly serverName: string;
  readonly principal: string;
  readonly limits: ProtocolLimits;
  /** Every server's address for agents. */
  readonly endpoints: readonly string[];
}

export interface Goaway {
  readonly graceMs: number;
  readonly reason: string;
  /** Where to go, the best first; only to clients of level 2. Absent or empty: anywhere else. */
  readonly endpoints?: readonly string[];
  /** This server takes the client again, too, where no other one takes it; only to clients of level 3. */
  readonly here?: true;
}

interface ServerFrameParts {
  readonly welcome?: Welcome;
  readonly answers: readonly Answer[];
  readonly goaway?: Goaway;
  /** The cluster's revision as the server knows it: caught-up subscriptions have seen all up to it. */
  readonly revision?: number;
  /** The connection's token expires in so many milliseconds: a newer one is to be sent with authenticate. */
  readonly authExpiring?: { readonly remainingMs: number };
}

/** What a server sends. */
export interface ServerFrame extends ServerFrameParts {
  readonly pushes: readonly SharedPush[];
}

/** What a client makes of it. */
export interface ReceivedServerFrame extends ServerFrameParts {
  readonly pushes: readonly Push[];
}

/**
 * One of the two subprotocols. Every decoder throws a FuturestoreError with code PROTOCOL_ERROR that names what is
 * wrong for a frame that is not to be trusted at all; and gives nothing that aliases the bytes it was given.
 */
export interface FrameCodec {
  readonly subprotocol: 'futurestore.v1.protobuf' | 'futurestore.v1.json';
  /** Whether frames are binary messages; else text. */
  readonly binary: boolean;
  encodeClientFrame(frame: ClientFrame): Uint8Array;
  decodeClientFrame(bytes: Uint8Array): ReceivedClientFrame;
  encodeServerFrame(frame: ServerFrame): Uint8Array;
  decodeServerFrame(bytes: Uint8Array): ReceivedServerFrame;
}

/** The WebSocket close codes. 4000–4499: come back; 4500–4999: don't. */
export const closeCodes = {
  authenticationExpired: 4001,
  noPong: 4008,
  /** Whether the client is revoked cannot be told now. */
  identityUnavailable: 4011,
  slowConsumer: 4029,
  tooManyConnections: 4031,
  protocolError: 4500,
  unauthenticated: 4501,
  revoked: 4503,
  helloTimeout: 4010,
  replaced: 4509,
  draining: 4090,
  versionNotSupported: 4526,
  frameTooLarge: 4513,
} as const;

export const mayReconnect = (closeCode: number): boolean => closeCode < 4500 || closeCode > 4999;
