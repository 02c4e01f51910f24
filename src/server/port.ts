/**
 * The narrow interface between a server's loop and its gateways: plain messages in batches, so that a gateway can
 * live on another thread. Everything a gateway passes in has been decoded, checked and authorised.
 */
import type { AnswerBody, Failure, Operation, SharedChange, SubscriptionStart } from '../protocol/index.ts';
import type { AgentsMove } from '../peers/index.ts';
import type { PolicyDocument, Revocation } from '../scopes/index.ts';
import type { Subject } from '../store/index.ts';

/** A gateway's own number for one of its connections; never reused by that gateway in this run. */
export type ConnectionId = number;

/** `request` is the client's request id. `timeoutMs` absent: no limit. */
export type GatewayRequest = { readonly connection: ConnectionId; readonly request: number } & (
  | {
      readonly kind: 'session_open';
      readonly session: string;
      readonly principal: string;
      readonly graceMs: number;
      readonly resume: boolean;
      /** All that policies and revocations look at; of this connection. */
      readonly subject: Subject;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: 'session_close';
      readonly session: string;
      readonly principal: string;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: 'write';
      readonly session: string;
      readonly principal: string;
      readonly sequence: number;
      readonly answeredBelow: number;
      readonly operations: readonly Operation[];
      readonly timeoutMs?: number;
    }
  | { readonly kind: 'get'; readonly key: string; readonly stale: boolean; readonly timeoutMs?: number }
  | {
      readonly kind: 'list';
      readonly pattern: string;
      /** A pattern with `*` that is wholly allowed and contains it: it is looked for among its keys alone. */
      readonly within?: string;
      readonly after: string;
      readonly limit: number;
      readonly values: boolean;
      readonly stale: boolean;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: 'await';
      readonly alternatives: readonly (readonly string[])[];
      readonly leastGeneration?: number;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: 'subscribe';
      readonly patterns: readonly string[];
      /** Of each pattern, as with list; '' where there is none. */
      readonly within?: readonly string[];
      readonly start: SubscriptionStart;
    }
  | { readonly kind: 'clock'; readonly timeoutMs?: number }
  | { readonly kind: 'status'; readonly timeoutMs?: number }
  | { readonly kind: 'member_list'; readonly timeoutMs?: number }
  | {
      readonly kind: 'member_add';
      readonly name: string;
      readonly peersAddress: string;
      readonly agentsUrl: string;
      /** undefined: a new learner. */
      readonly replaces?: number;
      /** Who asks. */
      readonly by?: Subject;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: 'member_promote' | 'member_remove';
      readonly member: number;
      readonly by?: Subject;
      readonly timeoutMs?: number;
    }
  /** `member` undefined: the most up-to-date one. */
  | { readonly kind: 'transfer_leader'; readonly member?: number; readonly timeoutMs?: number }
  /** `graceMs` undefined: as the server thinks best. */
  | {
      readonly kind: 'drain_server';
      readonly member: number;
      readonly graceMs?: number;
      readonly end: boolean;
      readonly timeoutMs?: number;
    }
  | { readonly kind: 'rebalance'; readonly graceMs?: number; readonly timeoutMs?: number }
  /** `snapshot` undefined: open one. */
  | {
      readonly kind: 'snapshot_read';
      readonly snapshot?: number;
      readonly part: number;
      readonly timeoutMs?: number;
    }
  | { readonly kind: 'acl_get'; readonly timeoutMs?: number }
  /** `document`: canonical JSON of a document that has been checked. */
  | {
      readonly kind: 'acl_apply';
      readonly by: Subject;
      readonly document: Uint8Array;
      readonly ifRevision?: number;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: 'acl_revoke';
      readonly by: Subject;
      readonly revocation: Revocation;
      readonly untilMs?: number;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: 'acl_restore';
      readonly by: Subject;
      readonly revocation: Revocation;
      readonly timeoutMs?: number;
    }
);

/** Told by a gateway about its connections. */
export type GatewayNotice =
  /** The request (or subscription) is over; the gateway has answered for itself. */
  | { readonly kind: 'cancel'; readonly connection: ConnectionId; readonly request: number }
  /** The connection's socket has taken this many bytes of pushes: so many more may follow. */
  | { readonly kind: 'delivered'; readonly connection: ConnectionId; readonly bytes: number }
  /** The connection's principal has shown another credential: its session is to be known by it. */
  | { readonly kind: 'identified'; readonly connection: ConnectionId; readonly subject: Subject }
  /** Their heartbeats are due: `progress` is to say how far those have come whose subscriptions have everything. */
  | { readonly kind: 'progress_wanted'; readonly connections: readonly ConnectionId[] }
  /** All its requests, waits and subscriptions are over; `session` is detached. */
  | { readonly kind: 'closed'; readonly connection: ConnectionId; readonly session: string | undefined };

/** From the server to one gateway, in order. */
export type GatewayEvent =
  /** At a tick of the server's where it has changed. */
  | { readonly kind: 'standing'; readonly standing: ServerStanding }
  /**
   * All subscriptions of these connections have been given everything up to this revision, by the pushes before this.
   * Connections that were asked about and are not here have some that are behind.
   */
  | {
      readonly kind: 'progress';
      readonly connections: readonly ConnectionId[];
      readonly revision: number;
    }
  /** Secret; 48 bytes, the same at all servers. At the attaching, where there are some, and whenever there are others. */
  | { readonly kind: 'ticket_keys'; readonly keys: Uint8Array }
  /**
   * Who may do what, as of this revision: from the first one on, this counts and nothing else. It comes before any
   * answer or push that could hold something later, first of all to a gateway that has just been attached.
   */
  | {
      readonly kind: 'access';
      readonly revision: number;
      /** undefined: no policies were applied, those of the policy file count. */
      readonly document: PolicyDocument | undefined;
      readonly revocations: readonly Revocation[];
    }
  /**
   * Sessions that were opened or taken up on new connections to other servers, in the order of the log, with answers and
   * news of access in between. Not those that another server attaches again because it was taken for lost.
   */
  | { readonly kind: 'sessions_opened'; readonly sessions: readonly OpenedSession[] }
  | ConnectionEvent;

export interface OpenedSession {
  readonly session: string;
  readonly principal: string;
  /** How long ago that was asked for, as far as is known; else, how long ago it was put into the log. */
  readonly agoMs: number;
  /** Said again some time later: that it is newer than this session, and of others nothing. */
  readonly newerThan?: string;
}

export type ConnectionEvent =
  | {
      readonly kind: 'answer';
      readonly connection: ConnectionId;
      readonly request: number;
      readonly body: AnswerBody;
    }
  | {
      readonly kind: 'push';
      readonly connection: ConnectionId;
      /** The id of the request that made the subscription. */
      readonly subscription: number;
      readonly changes: readonly SharedChange[];
      /** Resume from here. */
      readonly revision: number;
      /** The state as of the start has been sent; once. */
      readonly caughtUp: boolean;
      /** What `delivered` must give back: the sum of the encodings' lengths. */
      readonly bytes: number;
    }
  | {
      readonly kind: 'ended';
      readonly connection: ConnectionId;
      readonly subscription: number;
      readonly failure: Failure;
    };

export interface Gateway {
  /** For status: how many connections it has. */
  readonly connections: number;
  /** Once per turn of the server's loop at most. Must not call the server back synchronously, except `notify`. */
  deliver(events: readonly GatewayEvent[]): void;
}

/**
 * What a server has done with its agents, by the process that knows its gateways: plain data both ways, so that these can
 * live on other threads. `AgentGateway` has the same methods.
 */
export interface AgentsDoor {
  /** Takes nobody any more, and sends those away who are there, over the grace; once more: those who are left. */
  drain(graceMs: number): Promise<void>;
  /** Takes agents again. Rejects where that is not possible, and then stays as it is. */
  admit(): Promise<void>;
  /** Asks so many to go to these endpoints. Gives how many are on their way. */
  sendAway(moves: readonly AgentsMove[], graceMs: number): Promise<number>;
}

/** One per gateway. */
export interface GatewayPort {
  /** Every request gets exactly one answer, unless it is cancelled or its connection closed. */
  submit(requests: readonly GatewayRequest[]): void;
  notify(notices: readonly GatewayNotice[]): void;
  /** As of the attaching; later ones come as events. */
  readonly standing: ServerStanding;
}

/** What a gateway has to know of its server. */
export interface ServerStanding {
  readonly identity: ServerIdentity;
  /** The revision as this server knew it. */
  readonly revision: number;
  /**
   * For how long no leader had been known here; 0: one was. Milliseconds, at the moment of saying it: it is said once,
   * and grows with time until another standing comes.
   */
  readonly leaderlessMs: number;
}

export interface ServerIdentity {
  readonly clusterId: string;
  readonly epoch: number;
  readonly serverId: number;
  readonly serverName: string;
  /** Every server's address for agents. */
  readonly endpoints: readonly string[];
}
