/** Changes of policies and revocations for a part of the runs, by a stream of chance of their own. */
import type { Fault, Plan, Restriction } from './plan.ts';
import { Random, weighted } from './random.ts';

const restrictions: readonly Restriction[] = [
  'nothing',
  'reads',
  'writes',
  'few_keys',
  'few_keys',
  'without_one',
  'without_one',
  'few_pending',
];

type Kind = 'apply_policies' | 'revoke' | 'restore';

const change = (random: Random, atMs: number, agents: number): Fault => {
  const kind = weighted<Kind>(random, [
    ['apply_policies', 5],
    ['revoke', 3],
    ['restore', 3],
  ]);
  if (kind !== 'apply_policies') return { atMs, kind, agent: random.whole(1, agents) };
  const numbers = Array.from({ length: agents }, (_, at) => at + 1);
  return {
    atMs,
    kind,
    restrictions: numbers
      .filter(() => random.chance(0.4))
      .map((agent) => [agent, random.pick(restrictions)] as const),
  };
};

/** Readers that stand still, so that something waits for them when they may see it no more. */
const standStill = (random: Random, atMs: number, agents: number): Fault[] =>
  Array.from({ length: agents }, (_, at) => at + 1)
    .filter(() => random.chance(0.4))
    .map((agent) => ({
      atMs: Math.max(0, atMs - random.whole(50, 800)),
      kind: 'pause_agent',
      agent,
      forMs: random.whole(500, 2500),
    }));

/** Answers that are so large that some wait for readers who stand still. A socket tells only from 16 KiB on that it has room again. */
const slowly = (plan: Plan, random: Random): Plan => ({
  ...plan,
  answerBufferedBytesMax: random.pick([20_000, 40_000]),
  keys: Math.max(plan.keys, 20),
  valueBytesMax: Math.max(plan.valueBytesMax, 4000),
  // In JSON large values would not fit where a client takes them to fit.
  agents: plan.agents.map((agent) => ({ ...agent, json: false, lists: Math.max(agent.lists, 4) })),
});

export const withAccess = (plan: Plan): Plan => {
  const random = new Random(plan.seed, 'access');
  if (!random.chance(0.25)) return plan;
  const agents = plan.agents.length;
  const meanMs = random.pick([300, 800, 2000]);
  const slow = random.chance(0.5);
  const faults: Fault[] = [];
  let atMs = random.chance(0.7) ? 3 * plan.electionTimeoutMs : 0;
  for (;;) {
    atMs += Math.round(random.exponential(meanMs)) + 1;
    if (atMs >= plan.durationMs) break;
    faults.push(change(random, atMs, agents));
    if (slow) faults.push(...standStill(random, atMs, agents));
  }
  return {
    ...(slow ? slowly(plan, random) : plan),
    faults: [...plan.faults, ...faults].sort((one, other) => one.atMs - other.atMs),
  };
};
