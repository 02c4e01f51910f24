/** What goes into the replicated state machine and what comes out. */
import type { Change, Failure, Future, Operation, RevocationRecord, WriteResult } from '../protocol/index.ts';
import type { Credential, Pattern, Policies, Principal, Revocation } from '../scopes/index.ts';

/** 16 random bytes as 32 lower-case hex digits. */
export type SessionId = string;

/** Who asks, with all that policies and revocations look at. */
export interface Subject {
  readonly principal: Principal;
  readonly credential: Credential;
}

/** Who may do what, as the cluster has it. */
export interface Access {
  /** Changes whenever something here does; not the same on all servers. */
  readonly version: number;
  /** Of the policies; 0: none were applied. */
  readonly revision: number;
  /** As canonical JSON; empty: none were applied. */
  readonly document: Uint8Array;
  readonly policies: Policies | undefined;
  /** In one order on all servers. */
  readonly revocations: readonly RevocationRecord[];
}

/** Who waits for a command's result: the server that proposed it, its present run, its number there. */
export interface Origin {
  readonly member: number;
  readonly run: number;
  readonly request: number;
}

export type Command = { readonly origin: Origin } & CommandBody;

export type CommandOf<Kind extends CommandBody['kind']> = Extract<CommandBody, { kind: Kind }>;

export type CommandBody =
  | {
      readonly kind: 'write';
      readonly session: SessionId;
      readonly principal: string;
      readonly sequence: number;
      readonly answeredBelow: number;
      readonly operations: readonly Operation[];
    }
  /** Attaches the session to (origin.member, origin.run, connection). */
  | {
      readonly kind: 'session_open';
      readonly session: SessionId;
      readonly principal: string;
      readonly graceMs: number;
      readonly resume: boolean;
      readonly connection: number;
      /**
       * Cluster time when it was asked for, as its server took it; it may wait long for a leader. Absent: a server attaches
       * again what it had, or is of an earlier version. Nothing in the state depends on it.
       */
      readonly askedAtMs?: number;
      /** Only where the cluster decides over access. */
      readonly subject?: Subject;
    }
  | { readonly kind: 'session_close'; readonly session: SessionId; readonly principal: string }
  /** Ignored if the session has been attached elsewhere since. */
  | { readonly kind: 'session_detach'; readonly session: SessionId; readonly connection: number }
  | {
      readonly kind: 'server_started';
      readonly member: number;
      readonly run: number;
      readonly diskId: Uint8Array;
    }
  | { readonly kind: 'server_lost'; readonly member: number; readonly run: number }
  /**
   * A new server is wanted: as a learner, or, where it replaces another, as a voter in the place of that one. Its id
   * is `least` or greater; the result tells it. Again for the same name and addresses while it is no member yet: the
   * same id.
   */
  | ({
      readonly kind: 'member_add';
      readonly least: number;
      readonly name: string;
      readonly peersAddress: string;
      readonly agentsUrl: string;
      /** 0: none. */
      readonly replaces: number;
    } & AskedBy)
  | ({ readonly kind: 'member_promote'; readonly member: number } & AskedBy)
  | ({ readonly kind: 'member_remove'; readonly member: number } & AskedBy)
  | AccessCommand
  /** For TLS session tickets of agents; ignored unless `number` follows that of the present ones. */
  | { readonly kind: 'ticket_keys'; readonly number: number; readonly keys: Uint8Array }
  /** What is early or outdated in it is ignored. */
  | {
      readonly kind: 'expire';
      readonly futures: readonly DueFuture[];
      readonly sessions: readonly DueSession[];
    };

/** Of a command about members. */
export interface AskedBy {
  /** By whom it is judged; absent where the cluster did not decide over access then. */
  readonly by?: Subject;
  /** 'realm:name', where `by` is absent: for the log, nothing is decided by it. */
  readonly askedBy?: string;
}

/** Judged with the policies as they are when it is applied. */
export type AccessCommand =
  /** `document`: canonical JSON. `ifRevision`: of the policies now; 0: there are none. */
  | {
      readonly kind: 'acl_apply';
      readonly by: Subject;
      readonly document: Uint8Array;
      readonly ifRevision?: number;
      /**
       * From then on what a principal settles for another counts for its own quota, and whoever has too much already
       * announces nothing in place of something else either. Absent where servers may not know that.
       */
      readonly strictQuotas?: true;
    }
  /** `untilMs` absent: for ever. */
  | {
      readonly kind: 'acl_revoke';
      readonly by: Subject;
      readonly revocation: Revocation;
      readonly untilMs?: number;
    }
  | { readonly kind: 'acl_restore'; readonly by: Subject; readonly revocation: Revocation };

/** A deadline (pending) or the end of freshness (settled). */
export interface DueFuture {
  readonly key: string;
  readonly generation: number;
  readonly atMs: number;
}

export interface DueSession {
  readonly session: SessionId;
  readonly atMs: number;
}

/** The payload of a raft entry of kind `commands`. */
export interface LogEntry {
  /** The leader's clock. */
  readonly timeMs: number;
  readonly commands: readonly Command[];
}

export type CommandResult =
  | { readonly kind: 'written'; readonly result: WriteResult }
  | { readonly kind: 'done' }
  /** Of the member commands: whom it is about. */
  | { readonly kind: 'member'; readonly member: number }
  /** Of the commands about access. */
  | { readonly kind: 'access'; readonly revision: number; readonly unchanged: boolean }
  | { readonly kind: 'failed'; readonly failure: Failure };

/** A server that was added, or is to be removed: what the leader makes the configuration agree with. */
export interface MemberRecord {
  readonly member: number;
  /** '' and '' of one that the configuration files name. */
  readonly name: string;
  /** 'host:port', for its peers. */
  readonly peersAddress: string;
  /** wss://host:port, for agents. */
  readonly agentsUrl: string;
  readonly wanted: 'learner' | 'voter' | 'removed';
}

/** A write to the persisted copy of the state: a key within the state's keyspace, and its bytes or its removal. */
export interface StateWrite {
  readonly key: string;
  /** undefined: delete. */
  readonly value: Uint8Array | undefined;
}

export interface Applied {
  /** One per command, in order. */
  readonly results: readonly CommandResult[];
  /** In the order of revisions; one per key and revision. Includes what expired. */
  readonly changes: readonly Change[];
}

export interface StoreOptions {
  readonly clusterId: string;
  /** Sessions at most; beyond it the longest detached one is evicted, else LIMIT_EXCEEDED. Default 200,000. */
  readonly sessionsMax?: number;
  /** Sessions of one principal at most; beyond it LIMIT_EXCEEDED, so that nobody's are evicted by another's. Default 4,096. */
  readonly sessionsPerPrincipalMax?: number;
  /** Deletions remembered at most. Default 100,000. */
  readonly tombstonesMax?: number;
  /** Deletions are forgotten after this long (by cluster time). Default 1 h. */
  readonly tombstoneAgeMs?: number;
}

/** In the order of keys. May have fewer futures than asked for and still not be the last. */
export interface ListPage {
  readonly futures: readonly Future[];
  /** Pass as `after`; undefined: this was the last page. */
  readonly next: string | undefined;
  /** Nothing was found yet: pass it as `after`. It may be a key that the asker must not know of. */
  readonly readOnAfter: string | undefined;
  /** Keys looked at, those that do not match included; without those that were only put into groups. */
  readonly looked: number;
}

/** In the order of revisions (within one revision in no particular order), each key's latest change only. */
export interface ChangesPage {
  readonly changes: readonly Change[];
  /** All matching changes up to it are in this page or were before it. */
  readonly upTo: number;
  /** How often a key was looked at for one of the patterns, whether it matches or not. */
  readonly looked: number;
  /** For the query of the next page: there are too many keys to be sorted for each page. */
  readonly manyKeys: boolean;
}

export interface ListQuery {
  readonly pattern: Pattern;
  /**
   * A pattern that contains it, with `*`, all of whose keys the reader may see: then no others are looked at. Of few
   * shapes over all queries: each has an order of keys of its own.
   */
  readonly within?: Pattern | undefined;
  /** Only keys behind it; '' from the start. */
  readonly after: string;
  /** Futures in the page; at least 1. */
  readonly limit: number;
  /** About how large the page may become; one future fits always. */
  readonly bytesMax: number;
  /** With values; never those of sensitive futures. */
  readonly values: boolean;
  /** The reader's estimate of cluster time: what it is past is expired. */
  readonly nowMs: number;
}

/** The changes of one revision are never parted, so a page may pass its limits by as many as one command changed. */
export interface ChangesQuery {
  /** Only later ones. */
  readonly revision: number;
  readonly patterns: readonly Pattern[];
  /** Of each pattern, as in `ListQuery`. */
  readonly within?: readonly (Pattern | undefined)[] | undefined;
  /** What the page before said; absent: there was none. */
  readonly manyKeys?: boolean;
  readonly limit: number;
  readonly bytesMax: number;
  /** Keys looked at, whether they match or not. */
  readonly visitMax: number;
}

export interface Due {
  readonly futures: DueFuture[];
  readonly sessions: DueSession[];
}

/** A record of the persisted state. */
export interface StateRecord {
  readonly key: string;
  readonly value: Uint8Array;
}
