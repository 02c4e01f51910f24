/**
 * All that a run is: drawn from the seed before it begins, as plain data, so that it can be printed, shortened and run
 * again. What chance decides on the way comes from streams that are named after what they are for; leaving one fault or
 * agent out changes nothing in the others' draws.
 */

/** A server by its id. `leader` and `follower` are whoever is that at the time, `newest` was added last. */
export type Target = number | 'leader' | 'follower' | 'newest' | 'damaged';

export type PartitionShape =
  /** Nothing from the target reaches anybody. */
  | 'deaf_to'
  /** Nothing reaches the target. */
  | 'mute_to'
  /** One direction between two servers. */
  | 'one_way'
  /** Each reaches only its neighbours. */
  | 'ring'
  /** The target alone. */
  | 'alone'
  /** Two sides. */
  | 'split'
  /** Two sides that reach each other by one server only, which belongs to both. */
  | 'bridge'
  /** Links cut one by one, and mended in another order. */
  | 'swizzle';

/** What is left to an agent: the name of a policy in `agent-policies.ts`. */
export type Restriction = 'nothing' | 'reads' | 'writes' | 'few_keys' | 'without_one' | 'few_pending';

/** Lies in wait from then on until the moment comes, once. */
type Ambush =
  /** Somebody has applied a joint configuration: it and a majority of only one half of that are cut off. */
  | {
      readonly kind: 'ambush';
      readonly moment: 'joint';
      readonly half: 'incoming' | 'outgoing';
      readonly by: 'leader' | 'follower';
      readonly forMs: number;
    }
  /** A leader has applied that somebody has left, and nobody else may know: it is cut off from the members. */
  | { readonly kind: 'ambush'; readonly moment: 'unsealed'; readonly forMs: number }
  /** A snapshot is about to become a server's state: its disk hangs, and the leader goes or stays. */
  | {
      readonly kind: 'ambush';
      readonly moment: 'install';
      readonly leader: 'dies' | 'cut_off' | 'stays';
      readonly forMs: number;
    }
  /** A follower has been asked for a session: its link to the leader is reset while the opening is on it. */
  | { readonly kind: 'ambush'; readonly moment: 'opening'; readonly afterMs: number };

export type Fault = { readonly atMs: number } &
  /** Without a word to its agents and peers if `silent`; unsynced writes are lost, some survive if `keepSome`. */
  (
    | {
        readonly kind: 'crash';
        readonly target: Target;
        readonly downMs: number;
        readonly silent: boolean;
        readonly keepSome: boolean;
      }
    | { readonly kind: 'crash_all'; readonly downMs: number; readonly keepSome: boolean }
    | { readonly kind: 'crash_majority'; readonly downMs: number; readonly keepSome: boolean }
    /** Drained and stopped in good order, then started again. */
    | { readonly kind: 'restart'; readonly target: Target; readonly graceMs: number; readonly downMs: number }
    /** The process stands still and goes on with what it believed. */
    | {
        readonly kind: 'pause';
        readonly target: Target;
        readonly forMs: number;
        readonly timersFirst: boolean;
      }
    | {
        readonly kind: 'partition';
        readonly shape: PartitionShape;
        readonly target: Target;
        readonly forMs: number;
        /** For what else has to be drawn. */
        readonly salt: number;
      }
    | { readonly kind: 'reset_links'; readonly target: Target }
    /** Agents cannot reach it, or the other way round. */
    | { readonly kind: 'cut_from_agents'; readonly target: Target; readonly forMs: number }
    | {
        readonly kind: 'bad_network';
        readonly forMs: number;
        readonly loss: number;
        readonly duplication: number;
        readonly reordering: number;
        readonly reorderMs: number;
        readonly latencyMs: number;
        readonly jitterMs: number;
      }
    | { readonly kind: 'slow_disk'; readonly target: Target; readonly forMs: number; readonly factor: number }
    | { readonly kind: 'hung_disk'; readonly target: Target; readonly forMs: number }
    | { readonly kind: 'full_disk'; readonly target: Target; readonly forMs: number }
    | { readonly kind: 'failing_disk'; readonly target: Target; readonly downMs: number }
    | { readonly kind: 'clock_jump'; readonly target: Target; readonly byMs: number }
    | { readonly kind: 'clock_drift'; readonly target: Target; readonly rate: number }
    | {
        readonly kind: 'slow_processor';
        readonly target: Target;
        readonly forMs: number;
        readonly lookTakesMs: number;
      }
    /** All agents (or a part) lose their connections at once. */
    | { readonly kind: 'reconnect_storm'; readonly share: number }
    /** Connections die and nobody is told. */
    | { readonly kind: 'half_open'; readonly share: number }
    | {
        readonly kind: 'kill_agent';
        readonly agent: number;
        readonly downMs: number;
        readonly how: 'killed' | 'vanishes' | 'closes';
      }
    | { readonly kind: 'pause_agent'; readonly agent: number; readonly forMs: number }
    /** Damage: only ever of a minority, and it must be found. The server stays away until it is replaced. */
    | { readonly kind: 'flip_bit'; readonly target: Target; readonly salt: number }
    | { readonly kind: 'wipe_disk'; readonly target: Target }
    | { readonly kind: 'older_disk'; readonly target: Target }
    /** A copy that was made while the server ran is put back after a while. */
    | { readonly kind: 'earlier_disk'; readonly target: Target; readonly forMs: number }
    /** What was synced within this time before a crash is gone after it. */
    | { readonly kind: 'lying_disk'; readonly target: Target; readonly forMs: number }
    /** A new server with an empty disk: a learner, for the time being if `promote`. */
    | { readonly kind: 'add_member'; readonly promote: boolean; readonly startAfterMs: number }
    | { readonly kind: 'promote_member' }
    | { readonly kind: 'remove_member'; readonly target: Target }
    | {
        readonly kind: 'replace_member';
        readonly target: Target;
        /** By a server with another name, under the same name elsewhere, or in the place of one that is lost. */
        readonly how: 'new' | 'same_name' | 'in_place';
        readonly startAfterMs: number;
      }
    | Ambush
    /** To the target, or to `anyone` but the leader. */
    | { readonly kind: 'transfer_leader'; readonly target: Target; readonly anyone: boolean }
    /** It takes no agents and does not lead, or takes them again. */
    | {
        readonly kind: 'drain_server';
        readonly target: Target;
        readonly graceMs: number;
        readonly end: boolean;
      }
    | { readonly kind: 'rebalance'; readonly graceMs: number }
    /** From then on these agents have only so much, and all others everything. */
    | {
        readonly kind: 'apply_policies';
        readonly restrictions: readonly (readonly [agent: number, restriction: Restriction])[];
      }
    | { readonly kind: 'revoke' | 'restore'; readonly agent: number }
    /** A second process with the agent's certificate, which opens a session and stays until it is told not to. */
    | { readonly kind: 'copy_agent'; readonly agent: number }
  );

export type FaultKind = Fault['kind'];

export interface AgentPlan {
  readonly id: number;
  readonly startMs: number;
  /** Mean between two things it does. */
  readonly thinkMs: number;
  readonly writes: number;
  readonly reads: number;
  readonly lists: number;
  readonly awaits: number;
  readonly batches: number;
  readonly statuses: number;
  /** How many subscriptions it has. */
  readonly subscriptions: number;
  readonly concurrency: number;
  readonly sessionGraceMs: number;
  readonly timeoutMs: number | undefined;
  /** It speaks JSON instead of protobuf. */
  readonly json?: boolean;
}

export interface ServerPlan {
  readonly wallOffsetMs: number;
  readonly clockRate: number;
  readonly diskLatencyMs: number;
  /** Where its own differs from the others'. */
  readonly logRetainBytes?: number;
}

export interface Plan {
  readonly seed: number;
  /** Of the first phase. */
  readonly durationMs: number;
  readonly servers: readonly ServerPlan[];
  readonly electionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly logRetainBytes: number;
  /** Bounds of raft, small so that they are met. */
  readonly raft: {
    readonly inflightMessagesMax?: number;
    readonly inflightBytesMax?: number;
    readonly appendBytesMax?: number;
    readonly uncommittedBytesMax?: number;
  };
  readonly store: {
    readonly tombstonesMax?: number;
    readonly tombstoneAgeMs?: number;
  };
  readonly network: {
    readonly latencyMs: number;
    readonly jitterMs: number;
    readonly loss: number;
    readonly duplication: number;
    readonly reordering: number;
    readonly reorderMs: number;
  };
  /** Batches between servers pass through the codec of the real links. */
  readonly encodesPeers?: boolean;
  /** Servers that have been up are given a file with all members when they start again; else the one that they began with. */
  readonly filesFollow?: boolean;
  /** After the healing those whose disks are lost are replaced; else they stay away. */
  readonly replacesLost?: boolean;
  readonly agentsLatencyMs: number;
  /** Of the gateways, small so that answers and pushes wait for slow readers; 16 KiB at least. */
  readonly answerBufferedBytesMax?: number;
  /** Of the gateways: after about this time an agent is asked to connect again. */
  readonly connectionMaxAgeMs?: number;
  /** Each agent knows one server by its configuration, in turn, and an address where nobody is any more. */
  readonly oneServerEach?: boolean;
  /** The policies allow each agent one connection. */
  readonly soleConnections?: boolean;
  readonly keys: number;
  readonly valueBytesMax: number;
  readonly agents: readonly AgentPlan[];
  readonly faults: readonly Fault[];
}
