/** Connections that may last only so long, and agents that may have one, for a part of the runs, by a stream of chance of its own. */
import type { Fault, FaultKind, Plan } from './plan.ts';
import { Random } from './random.ts';

/** After these a server may be gone for good, and with it all that some agents know. */
const lasting: ReadonlySet<FaultKind> = new Set<FaultKind>([
  'flip_bit',
  'wipe_disk',
  'older_disk',
  'earlier_disk',
  'lying_disk',
  'remove_member',
  'replace_member',
]);

export const withConnections = (plan: Plan): Plan => {
  const random = new Random(plan.seed, 'connections');
  if (!random.chance(0.25)) return plan;
  const aged = random.chance(0.6) ? { connectionMaxAgeMs: random.pick([5000, 10_000, 20_000]) } : {};
  if (!random.chance(0.6) || plan.agents.length === 0) return { ...plan, ...aged };
  const copies = Array.from({ length: random.whole(1, 4) }, (): Fault => ({
    atMs: random.whole(3 * plan.electionTimeoutMs, Math.max(plan.durationMs, 3 * plan.electionTimeoutMs + 1)),
    kind: 'copy_agent',
    agent: random.whole(1, plan.agents.length),
  })).filter(({ atMs }) => atMs < plan.durationMs);
  const faults = [...plan.faults, ...copies].sort((one, other) => one.atMs - other.atMs);
  return { ...plan, ...aged, soleConnections: true, faults };
};

/** Where connections may last only so long, some profiles name one server that is there. */
export const withStaleProfiles = (plan: Plan): Plan => {
  if (plan.connectionMaxAgeMs === undefined || plan.faults.some(({ kind }) => lasting.has(kind))) return plan;
  return new Random(plan.seed, 'profiles').chance(0.5) ? { ...plan, oneServerEach: true } : plan;
};
