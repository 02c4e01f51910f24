/**
 * Draws a run from its seed. Swarm testing (Groce et al., 2012): each seed has only some kinds of faults, at rates of
 * its own, since a kind that is always there hides what only shows without it.
 */
import { withAccess } from './access-faults.ts';
import { withConnections, withStaleProfiles } from './connection-faults.ts';
import { withDrains } from './drain-faults.ts';
import { canCut } from './partitions.ts';
import type { AgentPlan, Fault, FaultKind, PartitionShape, Plan, ServerPlan, Target } from './plan.ts';
import { Random, weighted } from './random.ts';
import { withTheme } from './themes.ts';

const clusterSizes: readonly (readonly [size: number, weight: number])[] = [
  [1, 4],
  [2, 6],
  [3, 40],
  [4, 10],
  [5, 28],
  [6, 4],
  [7, 8],
];

const shapes: readonly PartitionShape[] = [
  'deaf_to',
  'mute_to',
  'one_way',
  'ring',
  'alone',
  'alone',
  'split',
  'bridge',
  'swizzle',
];

interface Context {
  readonly servers: number;
  readonly agents: number;
  readonly electionTimeoutMs: number;
}

/** Those that cut something; where there is one server, there may be two by then. */
const shapesFor = ({ servers }: Context): readonly PartitionShape[] =>
  shapes.filter((shape) => canCut(shape, Math.max(2, servers)));

const target = (random: Random, { servers }: Context): Target =>
  weighted<Target>(random, [
    ['leader', 4],
    ['follower', 2],
    [random.whole(1, servers), 4],
    ['newest', 1],
  ]);

type Draw = (
  random: Random,
  context: Context,
) => Fault extends infer One ? (One extends Fault ? Omit<One, 'atMs'> : never) : never;

const downMs = (random: Random): number => Math.round(random.exponential(2000)) + 50;
const forMs = (random: Random, context: Context): number =>
  Math.round(random.exponential(2 * context.electionTimeoutMs)) + 50;

type Drawn = Exclude<
  FaultKind,
  'ambush' | 'apply_policies' | 'revoke' | 'restore' | 'drain_server' | 'rebalance' | 'copy_agent'
>;

const draws: { readonly [Kind in Drawn]: Draw } = {
  crash: (random, context) => ({
    kind: 'crash',
    target: target(random, context),
    downMs: downMs(random),
    silent: random.chance(0.3),
    keepSome: random.chance(0.5),
  }),
  crash_all: (random) => ({ kind: 'crash_all', downMs: downMs(random), keepSome: random.chance(0.5) }),
  crash_majority: (random) => ({
    kind: 'crash_majority',
    downMs: downMs(random),
    keepSome: random.chance(0.5),
  }),
  restart: (random, context) => ({
    kind: 'restart',
    target: target(random, context),
    graceMs: random.whole(0, 2000),
    downMs: downMs(random),
  }),
  pause: (random, context) => ({
    kind: 'pause',
    target: target(random, context),
    forMs: Math.round(random.between(0.2, 5) * context.electionTimeoutMs),
    timersFirst: random.chance(0.7),
  }),
  partition: (random, context) => ({
    kind: 'partition',
    shape: random.pick(shapesFor(context)),
    target: target(random, context),
    forMs: forMs(random, context),
    salt: random.whole(0, 1_000_000),
  }),
  reset_links: (random, context) => ({ kind: 'reset_links', target: target(random, context) }),
  cut_from_agents: (random, context) => ({
    kind: 'cut_from_agents',
    target: target(random, context),
    forMs: forMs(random, context),
  }),
  bad_network: (random, context) => ({
    kind: 'bad_network',
    forMs: 2 * forMs(random, context),
    loss: random.pick([0, 0.01, 0.1, 0.3]),
    duplication: random.pick([0, 0.01, 0.2]),
    reordering: random.pick([0, 0.02, 0.3]),
    reorderMs: random.pick([10, 100, 2000]),
    latencyMs: random.pick([1, 5, 40]),
    jitterMs: random.pick([0, 5, 100]),
  }),
  slow_disk: (random, context) => ({
    kind: 'slow_disk',
    target: target(random, context),
    forMs: forMs(random, context),
    factor: random.pick([5, 30, 200]),
  }),
  hung_disk: (random, context) => ({
    kind: 'hung_disk',
    target: target(random, context),
    forMs: forMs(random, context),
  }),
  full_disk: (random, context) => ({
    kind: 'full_disk',
    target: target(random, context),
    forMs: forMs(random, context),
  }),
  failing_disk: (random, context) => ({
    kind: 'failing_disk',
    target: target(random, context),
    downMs: downMs(random),
  }),
  clock_jump: (random, context) => ({
    kind: 'clock_jump',
    target: target(random, context),
    byMs: random.pick([-3_600_000, -5000, -500, 500, 5000, 3_600_000]),
  }),
  clock_drift: (random, context) => ({
    kind: 'clock_drift',
    target: target(random, context),
    rate: random.pick([0.98, 0.999, 1.001, 1.02]),
  }),
  slow_processor: (random, context) => ({
    kind: 'slow_processor',
    target: target(random, context),
    forMs: forMs(random, context),
    lookTakesMs: random.pick([0.1, 1, 6]),
  }),
  reconnect_storm: (random) => ({ kind: 'reconnect_storm', share: random.pick([0.3, 1]) }),
  half_open: (random) => ({ kind: 'half_open', share: random.pick([0.2, 0.6]) }),
  kill_agent: (random, { agents }) => ({
    kind: 'kill_agent',
    agent: random.whole(1, agents),
    downMs: downMs(random),
    how: random.pick(['killed', 'killed', 'vanishes', 'closes']),
  }),
  pause_agent: (random, { agents }) => ({
    kind: 'pause_agent',
    agent: random.whole(1, agents),
    forMs: Math.round(random.exponential(3000)) + 50,
  }),
  flip_bit: (random, context) => ({
    kind: 'flip_bit',
    target: target(random, context),
    salt: random.whole(0, 1_000_000),
  }),
  wipe_disk: (random, context) => ({ kind: 'wipe_disk', target: target(random, context) }),
  older_disk: (random, context) => ({ kind: 'older_disk', target: target(random, context) }),
  earlier_disk: (random, context) => ({
    kind: 'earlier_disk',
    target: target(random, context),
    forMs: random.whole(1500, 5000),
  }),
  add_member: (random) => ({
    kind: 'add_member',
    promote: random.chance(0.7),
    startAfterMs: random.whole(0, 2000),
  }),
  promote_member: () => ({ kind: 'promote_member' }),
  remove_member: (random, context) => ({ kind: 'remove_member', target: target(random, context) }),
  replace_member: (random, context) => ({
    kind: 'replace_member',
    target: random.chance(0.5) ? 'damaged' : target(random, context),
    how: random.pick(['new', 'same_name', 'in_place']),
    startAfterMs: random.whole(0, 2000),
  }),
  transfer_leader: (random, context) => ({
    kind: 'transfer_leader',
    target: target(random, context),
    anyone: random.chance(0.5),
  }),
  lying_disk: (random, context) => ({
    kind: 'lying_disk',
    target: target(random, context),
    forMs: Math.round(random.exponential(1000)) + 100,
  }),
};

const membership: ReadonlySet<Drawn> = new Set<Drawn>([
  'add_member',
  'promote_member',
  'remove_member',
  'replace_member',
  'transfer_leader',
]);

/** How often a kind comes, when it is switched on, relative to the others. */
const weights: { readonly [Kind in Drawn]: number } = {
  crash: 10,
  crash_all: 1,
  crash_majority: 2,
  restart: 3,
  pause: 6,
  partition: 12,
  reset_links: 3,
  cut_from_agents: 2,
  bad_network: 5,
  slow_disk: 3,
  hung_disk: 3,
  full_disk: 1,
  failing_disk: 1,
  clock_jump: 3,
  clock_drift: 2,
  slow_processor: 2,
  reconnect_storm: 2,
  half_open: 2,
  kill_agent: 4,
  pause_agent: 2,
  flip_bit: 1.5,
  wipe_disk: 1.5,
  older_disk: 1.5,
  lying_disk: 0.5,
  earlier_disk: 0.5,
  add_member: 4,
  promote_member: 2,
  remove_member: 3,
  replace_member: 3,
  transfer_leader: 2,
};

const drawFaults = (random: Random, context: Context, durationMs: number): Fault[] => {
  const share = random.pick([0, 0.15, 0.4, 0.8]);
  const membersShare = random.pick([0, 0, 0.5, 1]);
  const kinds = (Object.keys(draws) as Drawn[]).filter((kind) =>
    random.chance(membership.has(kind) ? membersShare : share),
  );
  if (kinds.length === 0) return [];
  const rates = kinds.map((kind) => [kind, weights[kind] * random.between(0.2, 2)] as const);
  const meanMs = random.pick([400, 1000, 2500, 6000]);
  const faults: Fault[] = [];
  // Learners that are there from the start.
  const learners = membersShare === 0 ? 0 : random.pick([0, 0, 0, 1, 2]);
  for (let at = 0; at < learners; at += 1)
    faults.push({ atMs: context.electionTimeoutMs, kind: 'add_member', promote: false, startAfterMs: 0 });
  // The cluster is to exist before it is hurt, mostly.
  let atMs = random.chance(0.8) ? 3 * context.electionTimeoutMs : 0;
  for (;;) {
    atMs += Math.round(random.exponential(meanMs)) + 1;
    if (atMs >= durationMs) return faults;
    faults.push({ atMs, ...draws[weighted(random, rates)](random, context) });
  }
};

/**
 * Leaders deposed one after the other: each is cut off while its agents write on, and the next one dies soon after its
 * election. Logs that disagree over several entries come of little else.
 */
const drawRelay = (random: Random, { electionTimeoutMs }: Context, durationMs: number): Fault[] => {
  if (!random.chance(0.3)) return [];
  const faults: Fault[] = [];
  let atMs = 0;
  for (;;) {
    atMs += Math.round((4 + random.exponential(6)) * electionTimeoutMs);
    if (atMs >= durationMs) return faults;
    const span = (least: number, most: number): number =>
      Math.round(random.between(least, most) * electionTimeoutMs);
    const salt = random.whole(0, 1_000_000);
    faults.push({ atMs, kind: 'partition', shape: 'alone', target: 'leader', forMs: span(1.4, 3.5), salt });
    const crash = { kind: 'crash', target: 'leader', silent: random.chance(0.5), keepSome: true } as const;
    faults.push({ atMs: atMs + span(1.2, 2.8), ...crash, downMs: span(0.5, 4) });
  }
};

const drawAgent = (
  random: Random,
  id: number,
  busyMs: number,
  { timeouts, json }: { readonly timeouts: boolean; readonly json: boolean },
): AgentPlan => {
  const some = (weight: number): number => (random.chance(0.7) ? weight * random.between(0.3, 2) : 0);
  return {
    id,
    startMs: random.whole(0, 3000),
    thinkMs: busyMs * random.between(0.4, 2),
    writes: 10 * random.between(0.3, 1.5),
    reads: some(8),
    lists: some(0.6),
    awaits: some(3),
    batches: some(2),
    statuses: some(0.2),
    subscriptions: random.chance(0.4) ? random.whole(1, 3) : 0,
    concurrency: random.pick([1, 3, 10]),
    sessionGraceMs: random.pick([1000, 3000, 60_000]),
    timeoutMs: timeouts && random.chance(0.5) ? random.whole(500, 8000) : undefined,
    json: json && random.chance(0.15),
  };
};

const drawServer = (random: Random, skewedMs: number, drifts: boolean): ServerPlan => ({
  wallOffsetMs: Math.round(random.between(-skewedMs, skewedMs)),
  clockRate: drifts ? 1 + random.between(-0.001, 0.001) : 1,
  diskLatencyMs: random.pick([1, 3, 3, 10]),
});

/**
 * What the speed is measured with: five servers and no faults; 20 agents that ask for 100 things a second together, half
 * of them writes, with eight subscriptions to all keys.
 */
export const benchPlan: Plan = {
  seed: 1,
  durationMs: 120_000,
  servers: Array.from({ length: 5 }, () => ({ wallOffsetMs: 0, clockRate: 1, diskLatencyMs: 3 })),
  electionTimeoutMs: 1000,
  heartbeatIntervalMs: 100,
  logRetainBytes: 1_000_000,
  raft: {},
  store: {},
  network: { latencyMs: 1, jitterMs: 0, loss: 0, duplication: 0, reordering: 0, reorderMs: 5 },
  agentsLatencyMs: 1,
  keys: 50,
  valueBytesMax: 100,
  agents: Array.from({ length: 20 }, (_, at) => ({
    id: at + 1,
    startMs: 1000 + 50 * at,
    thinkMs: 200,
    writes: 9,
    reads: 7,
    lists: 0.5,
    awaits: 2,
    batches: 1.5,
    statuses: 0,
    subscriptions: at < 8 ? 1 : 0,
    concurrency: 10,
    sessionGraceMs: 60_000,
    timeoutMs: undefined,
  })),
  faults: [],
};

export const drawPlan = (seed: number): Plan =>
  withStaleProfiles(withConnections(withDrains(withAccess(withTheme(drawBare(seed))))));

const drawBare = (seed: number): Plan => {
  const random = new Random(seed, 'scenario');
  const size = weighted(random, clusterSizes);
  const electionTimeoutMs = random.pick([300, 500, 1000]);
  // Many short ones and some long: most of what a fault can do it has done after a few election timeouts.
  const durationMs = Math.round(4000 * (30 / 4) ** random.next());
  const agentCount = random.whole(2, 10);
  const context: Context = { servers: size, agents: agentCount, electionTimeoutMs };
  const skewedMs = random.pick([0, 50, 5000, 3_600_000]);
  const drifts = random.chance(0.5);
  const busyMs = random.pick([100, 300, 800]);
  const timeouts = random.chance(0.5);
  const lossy = random.chance(0.25);
  const smallRaft = random.chance(0.5);
  // A state that is more than one part of a snapshot.
  const values = random.chance(0.08)
    ? { keys: 60, valueBytesMax: 25_000 }
    : { keys: random.pick([3, 8, 20]), valueBytesMax: random.pick([0, 100, 100, 2000]) };
  // The client counts bytes as protobuf has them: in JSON large values would not fit where it takes them to fit.
  const json = values.valueBytesMax <= 100;
  return {
    seed,
    durationMs,
    servers: Array.from({ length: size }, () => drawServer(random, skewedMs, drifts)),
    electionTimeoutMs,
    heartbeatIntervalMs: electionTimeoutMs / random.pick([5, 10]),
    logRetainBytes: random.pick([500, 500, 2_000, 5_000, 20_000, 1_000_000]),
    raft: smallRaft
      ? {
          inflightMessagesMax: random.pick([1, 2, 8]),
          appendBytesMax: random.pick([100, 1000, 20_000]),
          inflightBytesMax: random.pick([1000, 50_000]),
          uncommittedBytesMax: random.pick([5_000, 100_000]),
        }
      : {},
    store: random.chance(0.4)
      ? { tombstonesMax: random.pick([1, 5, 50]), tombstoneAgeMs: random.pick([500, 20_000]) }
      : {},
    network: {
      latencyMs: random.pick([1, 1, 3, 10]),
      jitterMs: random.pick([0, 0, 1, 5]),
      loss: lossy ? random.pick([0.001, 0.01, 0.05]) : 0,
      duplication: lossy ? random.pick([0, 0.01, 0.05]) : 0,
      reordering: lossy ? random.pick([0, 0.01, 0.05]) : 0,
      reorderMs: random.pick([5, 50, 500]),
    },
    encodesPeers: random.chance(0.2),
    filesFollow: random.chance(0.5),
    replacesLost: random.chance(0.6),
    agentsLatencyMs: random.pick([1, 1, 10]),
    ...values,
    agents: Array.from({ length: agentCount }, (_, at) =>
      drawAgent(random, at + 1, busyMs, { timeouts, json }),
    ),
    faults: [
      ...drawFaults(random, context, durationMs),
      ...drawRelay(new Random(seed, 'relay'), context, durationMs),
    ].sort((one, other) => one.atMs - other.atMs),
  };
};
