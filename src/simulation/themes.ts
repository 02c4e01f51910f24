/**
 * What some runs are about besides what is drawn anyway: several things that have to come together, in an order, to be
 * of any danger. A theme has a stream of chance of its own, and leaves the other runs as they are.
 */
import type { Fault, Plan, ServerPlan, Target } from './plan.ts';
import { Random, weighted } from './random.ts';

type Theme = (plan: Plan, random: Random) => Plan;

/** Faults that begin at moments `gapMs` apart, on the average; each may be several. */
const series = (
  { durationMs, electionTimeoutMs }: Plan,
  random: Random,
  gapMs: { readonly least: number; readonly more: number },
  draw: (atMs: number) => readonly Fault[],
): Fault[] => {
  const faults: Fault[] = [];
  // The cluster is to exist before.
  let atMs = 3 * electionTimeoutMs;
  for (;;) {
    atMs += Math.round(gapMs.least + random.exponential(gapMs.more));
    if (atMs >= durationMs) return faults;
    faults.push(...draw(atMs));
  }
};

const withServers = ({ servers }: Plan, least: number, most: number): readonly ServerPlan[] => {
  const [first] = servers;
  if (first === undefined) return servers;
  const added = Array.from({ length: Math.max(0, least - servers.length) }, () => first);
  return [...servers, ...added].slice(0, most);
};

/** Agents that write so often that there is always something under way. */
const busy = (plan: Plan): Plan['agents'] =>
  plan.agents.map((agent) => ({ ...agent, thinkMs: Math.min(agent.thinkMs, 80) }));

const sorted = (faults: readonly Fault[]): Fault[] => [...faults].sort((one, other) => one.atMs - other.atMs);

const electionTimeouts = (plan: Plan, random: Random, least: number, most: number): number =>
  Math.round(random.between(least, most) * plan.electionTimeoutMs);

// ---- several members change at once, and the cluster falls apart in the middle of it ----

const change = (random: Random, atMs: number): Fault[] => {
  const startAfterMs = random.pick([0, 0, 200]);
  const replace = (target: Target): Fault => ({
    atMs,
    kind: 'replace_member',
    target,
    how: random.pick(['new', 'same_name']),
    startAfterMs,
  });
  const add = { atMs, kind: 'add_member', promote: true, startAfterMs } as const;
  const draw = random.next();
  if (draw < 0.35) return [replace(random.pick<Target>(['leader', 'follower', 'newest']))];
  if (draw < 0.55) return [replace('leader'), replace('follower')];
  if (draw < 0.7) return [add, replace('follower')];
  if (draw < 0.8) return [add, add];
  return [{ atMs, kind: 'remove_member', target: random.pick<Target>(['follower', 'newest', 'leader']) }];
};

const changes: Theme = (plan, random) => {
  const durationMs = Math.max(plan.durationMs, 12_000);
  const longer = { ...plan, durationMs, servers: withServers(plan, 3, 5) };
  const faults = series(longer, random, { least: 2000, more: 2000 }, (atMs) => {
    const forMs = electionTimeouts(plan, random, 2.5, 6);
    const joint = {
      moment: 'joint',
      half: random.chance(0.7) ? 'incoming' : 'outgoing',
      by: random.pick(['leader', 'follower'] as const),
    } as const;
    const moment = random.chance(0.75) ? joint : ({ moment: 'unsealed' } as const);
    return [{ atMs, kind: 'ambush', forMs, ...moment }, ...change(random, atMs + 1)];
  });
  return { ...longer, faults: random.chance(0.4) ? sorted([...plan.faults, ...faults]) : faults };
};

// ---- copies of disks ----

/** Whatever damages nothing else, and changes no members. */
const besideCopies: ReadonlySet<Fault['kind']> = new Set<Fault['kind']>([
  'crash',
  'crash_all',
  'crash_majority',
  'restart',
  'pause',
  'partition',
  'bad_network',
  'slow_disk',
  'hung_disk',
  'reset_links',
  'clock_jump',
  'half_open',
  'kill_agent',
  'transfer_leader',
]);

const copies: Theme = (plan, random) => {
  const durationMs = Math.max(plan.durationMs, 14_000);
  const longer = { ...plan, durationMs, servers: withServers(plan, 3, 5) };
  const rest = random.chance(0.5) ? plan.faults.filter(({ kind }) => besideCopies.has(kind)) : [];
  const faults = series(longer, random, { least: 1000, more: 1000 }, (atMs) => {
    const target = random.whole(1, longer.servers.length);
    const salt = random.whole(0, 1_000_000);
    const forMs = random.whole(500, 2000);
    const cut = { kind: 'partition', shape: 'alone', salt } as const;
    const copied: Fault = random.chance(0.75)
      ? { atMs, kind: 'earlier_disk', target, forMs }
      : { atMs, kind: 'older_disk', target };
    const after = atMs + forMs + 1200;
    return [
      copied,
      // Now the copy would count.
      ...[0, 1500].map((laterMs): Fault => {
        const to = random.pick<Target>(['leader', 'follower', random.whole(1, longer.servers.length)]);
        return { ...cut, atMs: after + laterMs, target: to, forMs: electionTimeouts(plan, random, 2, 5) };
      }),
      { atMs: after + 3500, kind: 'replace_member', target: 'damaged', how: 'in_place', startAfterMs: 100 },
    ];
  });
  return { ...longer, agents: busy(plan), faults: sorted([...rest, ...faults]) };
};

// ---- members that need snapshots, while what was sent to them before is still under way ----

const lagging: Theme = (plan, random) => {
  const durationMs = Math.max(plan.durationMs, 10_000);
  const retained = random.pick([[500], [500, 500, 100_000, 1_000_000]]);
  const servers = withServers(plan, 3, 7).map((server) => ({
    ...server,
    logRetainBytes: random.pick(retained),
  }));
  const network = {
    ...plan.network,
    duplication: random.pick([0.05, 0.2]),
    reordering: random.pick([0.05, 0.2]),
    reorderMs: random.pick([500, 2000]),
  };
  const longer = { ...plan, durationMs, servers, network, agents: busy(plan) };
  const faults = series(longer, random, { least: 500, more: 800 }, (atMs) => {
    const salt = random.whole(0, 1_000_000);
    const target = random.pick<Target>(['follower', random.whole(1, servers.length)]);
    const away = weighted<Fault>(random, [
      [{ atMs, kind: 'reset_links', target }, 4],
      [{ atMs, kind: 'crash', target, downMs: random.whole(20, 300), silent: false, keepSome: true }, 4],
      [{ atMs, kind: 'partition', shape: 'alone', target, forMs: random.whole(200, 2000), salt }, 2],
    ]);
    const leader = random.pick(['stays', 'stays', 'dies', 'cut_off'] as const);
    const forMs = electionTimeouts(plan, random, 2, 5);
    return [away, { atMs, kind: 'ambush', moment: 'install', leader, forMs }];
  });
  return { ...longer, faults: random.chance(0.4) ? sorted([...plan.faults, ...faults]) : faults };
};

// ---- a leader is deposed while its disk is at work ----

/** What is held on a cut way arrives with its end, if that comes before the links are given up. */
const heldForMs = 1400;

const stuck: Theme = (plan, random) => {
  const electionTimeoutMs = 300;
  const faster = {
    ...plan,
    electionTimeoutMs,
    heartbeatIntervalMs: 50,
    servers: withServers(plan, 3, 7),
    agents: busy(plan),
  };
  const faults = series(faster, random, { least: 1500, more: 1500 }, (atMs) => {
    const salt = random.whole(0, 1_000_000);
    const forMs = Math.min(heldForMs, electionTimeouts(faster, random, 2.2, 4.5));
    const laterMs = random.whole(5, 150);
    return [
      { atMs, kind: 'partition', shape: 'alone', target: 'leader', forMs, salt },
      {
        atMs: atMs + laterMs,
        kind: 'hung_disk',
        target: 'leader',
        forMs: forMs - laterMs + random.whole(20, 400),
      },
    ];
  });
  return { ...faster, faults: random.chance(0.3) ? sorted([...plan.faults, ...faults]) : sorted(faults) };
};

// ---- a leader that does not know yet that there is another one hears old answers ----

const overtaken: Theme = (plan, random) => {
  const electionTimeoutMs = 300;
  const agents = plan.agents.map((agent) => ({
    ...agent,
    thinkMs: Math.min(agent.thinkMs, 30),
    writes: Math.min(agent.writes, 4),
    reads: Math.max(agent.reads, 10),
    concurrency: Math.max(agent.concurrency, 2),
  }));
  const faster = {
    ...plan,
    durationMs: Math.max(plan.durationMs, 12_000),
    electionTimeoutMs,
    heartbeatIntervalMs: 50,
    servers: withServers(plan, 3, 3),
    agents,
    keys: 12,
  };
  const faults = series(faster, random, { least: 800, more: 200 }, (atMs) => {
    const salt = random.whole(0, 1_000_000);
    // The others may have elected by then, and it does not mind yet that it hears of nobody.
    const forMs = electionTimeouts(faster, random, 1.2, 2.1);
    return [{ atMs, kind: 'partition', shape: 'alone', target: 'leader', forMs, salt }];
  });
  return { ...faster, faults: random.chance(0.3) ? sorted([...plan.faults, ...faults]) : faults };
};

// ---- who may not read any more is just being closed, and has not read what was sent ----

const parting: Theme = (plan, random) => {
  const agents = plan.agents.map((agent) => ({
    ...agent,
    thinkMs: Math.min(agent.thinkMs, 60),
    writes: Math.max(agent.writes, 6),
    subscriptions: Math.max(2, agent.subscriptions),
  }));
  const servers = withServers(plan, 2, 3);
  const longer = { ...plan, durationMs: Math.max(plan.durationMs, 14_000), servers, agents };
  const faults = series(longer, random, { least: 4500, more: 500 }, (atMs) => {
    const agent = random.whole(1, agents.length);
    const target = random.whole(1, servers.length);
    const graceMs = random.whole(50, 300);
    const drainedAtMs = atMs + random.whole(300, 1000);
    const revokedAtMs = drainedAtMs + graceMs + random.whole(50, 800);
    return [
      { atMs, kind: 'pause_agent', agent, forMs: 3500 },
      { atMs: drainedAtMs, kind: 'drain_server', target, graceMs, end: false },
      { atMs: revokedAtMs, kind: 'revoke', agent },
      { atMs: atMs + 3600, kind: 'drain_server', target, graceMs, end: true },
      { atMs: atMs + 3800, kind: 'restore', agent },
    ];
  });
  return { ...longer, faults: random.chance(0.3) ? sorted([...plan.faults, ...faults]) : sorted(faults) };
};

// ---- readers that are away for longer than deletions are remembered ----

const absent: Theme = (plan, random) => {
  const store = { tombstonesMax: random.pick([1, 3]), tombstoneAgeMs: 500 };
  const agents = busy(plan).map((agent) => ({ ...agent, subscriptions: Math.max(1, agent.subscriptions) }));
  const faults = series(plan, random, { least: 800, more: 1500 }, (atMs) => [
    { atMs, kind: 'half_open', share: random.pick([0.2, 0.6]) },
  ]);
  return {
    ...plan,
    store,
    agents,
    faults: random.chance(0.5) ? sorted([...plan.faults, ...faults]) : faults,
  };
};

// ---- the opening of a session is lost on its way, and the writes behind it are not ----

const openings: Theme = (plan, random) => {
  const latencyMs = random.pick([20, 40]);
  const agents = plan.agents.map((agent) => ({
    ...agent,
    thinkMs: Math.min(agent.thinkMs, 3 * latencyMs),
    writes: Math.max(agent.writes, 3),
    concurrency: Math.max(agent.concurrency, 2),
  }));
  const durationMs = Math.max(plan.durationMs, 8000);
  const network = { ...plan.network, latencyMs, jitterMs: 0 };
  const longer = { ...plan, durationMs, servers: withServers(plan, 3, 5), network, agents };
  const faults = series(longer, random, { least: 800, more: 500 }, (atMs) => {
    const agent = random.whole(1, agents.length);
    return [
      { atMs, kind: 'kill_agent', agent, downMs: 0, how: 'closes' },
      // It begins anew three seconds later.
      { atMs: atMs + 2500, kind: 'ambush', moment: 'opening', afterMs: random.whole(2, latencyMs - 5) },
    ];
  });
  return { ...longer, faults: random.chance(0.3) ? sorted([...plan.faults, ...faults]) : sorted(faults) };
};

const themes: readonly (readonly [theme: Theme | undefined, weight: number])[] = [
  [openings, 5],
  [undefined, 37],
  [parting, 4],
  [overtaken, 8],
  [changes, 16],
  [copies, 8],
  [lagging, 8],
  [stuck, 7],
  [absent, 7],
];

/** A part of the runs have one. */
export const withTheme = (plan: Plan): Plan => {
  const random = new Random(plan.seed, 'theme');
  const theme = weighted(random, themes);
  return theme === undefined ? plan : theme(plan, random);
};
