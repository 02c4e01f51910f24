/** Servers that are drained for a while, and agents that are moved, for a part of the runs, by a stream of chance of its own. */
import type { Fault, Plan } from './plan.ts';
import { Random } from './random.ts';

const drain = (random: Random, plan: Plan, atMs: number): Fault[] => {
  const target = random.chance(0.4) ? 'leader' : random.whole(1, plan.servers.length);
  const drained: Fault = {
    atMs,
    kind: 'drain_server',
    target,
    graceMs: random.pick([1, 300, 1500]),
    end: false,
  };
  // Some stay drained until all heals, or their process ends.
  if (target === 'leader' || random.chance(0.3)) return [drained];
  const untilMs = atMs + random.whole(200, 3000);
  const ended: Fault = { atMs: untilMs, kind: 'drain_server', target, graceMs: 1, end: true };
  return untilMs < plan.durationMs ? [drained, ended] : [drained];
};

export const withDrains = (plan: Plan): Plan => {
  const random = new Random(plan.seed, 'drain');
  if (!random.chance(0.25)) return plan;
  const meanMs = random.pick([800, 2000, 4000]);
  const faults: Fault[] = [];
  let atMs = 3 * plan.electionTimeoutMs;
  for (;;) {
    atMs += Math.round(random.exponential(meanMs)) + 1;
    if (atMs >= plan.durationMs) break;
    if (random.chance(0.3)) faults.push({ atMs, kind: 'rebalance', graceMs: random.pick([300, 1500]) });
    else faults.push(...drain(random, plan, atMs));
  }
  return { ...plan, faults: [...plan.faults, ...faults].sort((one, other) => one.atMs - other.atMs) };
};
