/** What a command touches besides files and the network: given by the process, or by a test. */
import type {
  AccessState,
  Change,
  ClusterStatus,
  DrainStanding,
  Future,
  MemberList,
  Operation,
  Rebalanced,
  Revocation,
  SnapshotReadPart,
  WriteResult,
} from '../protocol/index.ts';

export interface OutputStream {
  /** Bytes are written as they are. */
  write(data: string | Uint8Array): unknown;
  readonly isTTY?: boolean;
}

interface RequestOptions {
  /** Absent: no limit. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

interface CommandListPage {
  readonly futures: readonly Future[];
  readonly next: string | undefined;
}

export type SubscriptionEvent = Change | { readonly kind: 'reset' } | { readonly kind: 'caught_up' };

interface AccessChange {
  readonly revision: number;
  readonly unchanged: boolean;
}

/** What the verbs need of a client; the library's Client is one, and the relay's another. */
export interface VerbClient {
  /** While no server can be reached it has the reason as `lastError`. */
  readonly state: { readonly kind: string; readonly lastError?: Error };
  get(key: string, options: RequestOptions): Promise<Future | undefined>;
  list(
    pattern: string,
    options: RequestOptions & { readonly after?: string; readonly limit?: number; readonly values?: boolean },
  ): Promise<CommandListPage>;
  await(
    alternatives: { readonly anyOf: readonly (readonly string[])[] },
    options: RequestOptions,
  ): Promise<{ readonly futures: readonly Future[] }>;
  batch(operations: readonly Operation[], options: RequestOptions): Promise<WriteResult>;
  subscribe(
    patterns: readonly string[],
    options: { readonly from: 'present' | 'new'; readonly signal: AbortSignal },
  ): AsyncIterable<SubscriptionEvent>;
  status(options: RequestOptions): Promise<ClusterStatus>;
  close(): Promise<void>;
}

/** What the commands about the cluster need beyond it. */
export interface CommandClient extends VerbClient {
  members(options: RequestOptions): Promise<MemberList>;
  /** Gives the new server's id. */
  addMember(
    member: {
      readonly name: string;
      readonly peersAddress: string;
      readonly agentsUrl: string;
      readonly replaces?: number;
    },
    options: RequestOptions,
  ): Promise<number>;
  promoteMember(member: number, options: RequestOptions): Promise<void>;
  removeMember(member: number, options: RequestOptions): Promise<void>;
  /** Gives the new leader's id. */
  transferLeader(options: RequestOptions & { readonly to?: number }): Promise<number>;
  drainServer(
    member: number,
    options: RequestOptions & { readonly graceMs?: number; readonly end?: boolean },
  ): Promise<DrainStanding>;
  rebalance(options: RequestOptions & { readonly graceMs?: number }): Promise<Rebalanced>;
  access(options: RequestOptions): Promise<AccessState>;
  applyPolicies(
    document: Uint8Array,
    options: RequestOptions & { readonly ifRevision?: number; readonly force?: boolean },
  ): Promise<AccessChange>;
  revoke(
    revocation: Revocation,
    options: RequestOptions & { readonly untilMs?: number },
  ): Promise<AccessChange>;
  restore(revocation: Revocation, options: RequestOptions): Promise<AccessChange>;
  readSnapshot(options: RequestOptions): AsyncIterable<SnapshotReadPart>;
}

export interface CommandEnvironment {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly workingDirectory: string;
  /** Milliseconds since 1970. */
  now(): number;
  pause(ms: number): Promise<void>;
  /** Connects in the background with the profile in this file. */
  connect(profileFile: string, tokenFile?: string): Promise<CommandClient>;
  /** From now on SIGHUP is no wish to end: the listener is called each time. */
  onHangup(listener: () => void): void;
  /** The socket of the relay that this profile says to go through; undefined: none. */
  relayOf(profileFile: string): Promise<string | undefined>;
  /** Connects with each request. */
  connectToRelay(socket: string): Promise<VerbClient>;
  /** Aborted when the process is asked to end (SIGINT, SIGTERM, SIGHUP). Asking for it takes the signals over from Node. */
  interruption(): AbortSignal;
}
