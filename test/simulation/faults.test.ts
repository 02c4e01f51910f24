import { describe, expect, test } from 'vitest';
import { drawPlan, run, type Plan } from '../../src/simulation/index.ts';
import { canCut, cutsOf } from '../../src/simulation/partitions.ts';
import type { Fault, PartitionShape } from '../../src/simulation/plan.ts';
import { Random } from '../../src/simulation/random.ts';
import { benchPlan } from '../../src/simulation/scenario.ts';

const shapes: readonly PartitionShape[] = [
  'deaf_to',
  'mute_to',
  'one_way',
  'ring',
  'alone',
  'split',
  'bridge',
  'swizzle',
];

const numbers = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

const planOf = (servers: number, faults: readonly Fault[], agents = 2): Plan => ({
  ...benchPlan,
  durationMs: 8000,
  electionTimeoutMs: 300,
  heartbeatIntervalMs: 50,
  servers: benchPlan.servers.slice(0, servers),
  agents: benchPlan.agents.slice(0, agents).map((agent) => ({ ...agent, startMs: 0, subscriptions: 1 })),
  faults,
});

const countedIn = async (plan: Plan): Promise<Readonly<Record<string, number>>> => {
  const { failure, statistics } = await run(plan);
  expect(failure).toBeUndefined();
  return statistics.faults;
};

describe('a partition', () => {
  test.each(numbers(6).map((size) => size + 1))(
    'of %i servers, of any shape that is possible there, cuts at least one way, whoever is chosen',
    (size) => {
      const possible = shapes.filter((shape) => canCut(shape, size));
      expect(possible.length).toBe(size === 2 ? 6 : size === 3 ? 7 : 8);
      for (const shape of possible) {
        for (let salt = 0; salt < 60; salt += 1) {
          // Numbers as they are after some have been replaced.
          const ids = numbers(size).map((id) => id * ((salt % 3) + 1));
          const chosen = ids[salt % size] ?? 0;
          const cuts = cutsOf(shape, chosen, ids, new Random(salt, 'partition'));
          expect(cuts.length, `${shape} ${ids.join(', ')} salt ${salt}`).toBeGreaterThan(0);
          expect(cuts.every(([from, to]) => from !== to)).toBe(true);
        }
      }
    },
  );

  test('is drawn of shapes that are possible for as many servers as there are', () => {
    const drawn = new Set<PartitionShape>();
    for (let seed = 1; seed <= 400; seed += 1) {
      const { servers, faults } = drawPlan(seed);
      for (const fault of faults) {
        if (fault.kind !== 'partition') continue;
        drawn.add(fault.shape);
        expect(canCut(fault.shape, Math.max(2, servers.length)), `seed ${seed}: ${fault.shape}`).toBe(true);
      }
    }
    expect(drawn).toEqual(new Set(shapes));
  });
});

test('a clock that is drawn to drift goes at another rate than the world', () => {
  const drifts = numbers(400)
    .flatMap((seed) => drawPlan(seed).faults)
    .flatMap((fault) => (fault.kind === 'clock_drift' ? [fault.rate] : []));
  expect(drifts.length).toBeGreaterThan(10);
  expect(drifts).not.toContain(1);
});

const salt = 1;
const downMs = 300;

describe('a fault', () => {
  test('that does nothing is counted as not possible, and under no other name', async () => {
    const faults: readonly Fault[] = [
      { atMs: 2000, kind: 'partition', shape: 'ring', target: 1, forMs: 500, salt },
      { atMs: 2100, kind: 'clock_drift', target: 1, rate: 1 },
      { atMs: 2200, kind: 'reset_links', target: 1 },
      { atMs: 2300, kind: 'wipe_disk', target: 1 },
      { atMs: 2310, kind: 'earlier_disk', target: 1, forMs: 500 },
      { atMs: 2320, kind: 'lying_disk', target: 1, forMs: 500 },
      { atMs: 2330, kind: 'flip_bit', target: 1, salt },
      { atMs: 2400, kind: 'promote_member' },
      { atMs: 2500, kind: 'remove_member', target: 1 },
      { atMs: 2600, kind: 'kill_agent', agent: 9, downMs, how: 'killed' },
      { atMs: 2700, kind: 'restore', agent: 1 },
      { atMs: 2800, kind: 'ambush', moment: 'install', leader: 'stays', forMs: 500 },
      { ...benchPlan.network, atMs: 2900, kind: 'bad_network', forMs: 500 },
      { atMs: 5000, kind: 'crash', target: 1, downMs: 1000, silent: false, keepSome: true },
      { atMs: 5100, kind: 'crash', target: 1, downMs: 1000, silent: false, keepSome: true },
      { atMs: 5200, kind: 'crash_all', downMs: 1000, keepSome: true },
      { atMs: 5300, kind: 'hung_disk', target: 1, forMs: 100 },
      { atMs: 5400, kind: 'half_open', share: 1 },
    ];
    const counted = await countedIn(planOf(1, faults));
    const { crash, ...rest } = counted;
    expect(crash).toBe(1);
    const name = (fault: Fault): string =>
      fault.kind === 'partition' || fault.kind === 'ambush'
        ? `${fault.kind}: ${fault.kind === 'partition' ? fault.shape : fault.moment}`
        : fault.kind;
    const expected = [...faults.slice(0, 13), ...faults.slice(14)].map(
      (fault) => [`${name(fault)}: not possible`, 1] as const,
    );
    expect(rest).toEqual(Object.fromEntries(expected));
  });

  test('that does something is counted once, under its own name', async () => {
    const faults: readonly Fault[] = [
      { atMs: 2000, kind: 'partition', shape: 'ring', target: 1, forMs: 100, salt },
      { atMs: 2200, kind: 'clock_drift', target: 1, rate: 1.001 },
      { atMs: 2300, kind: 'half_open', share: 0.2 },
      { atMs: 2400, kind: 'reconnect_storm', share: 0.3 },
      { atMs: 2500, kind: 'revoke', agent: 1 },
      { atMs: 2600, kind: 'restore', agent: 1 },
      { atMs: 2700, kind: 'pause', target: 2, forMs: 100, timersFirst: true },
      { ...benchPlan.network, atMs: 2900, kind: 'bad_network', forMs: 100, loss: 0.01 },
      { atMs: 3200, kind: 'flip_bit', target: 3, salt },
      { atMs: 4500, kind: 'reset_links', target: 1 },
      { atMs: 5000, kind: 'crash', target: 1, downMs: 200, silent: false, keepSome: true },
    ];
    const counted = await countedIn(planOf(4, faults));
    const expected = faults.map(({ kind }) => [kind === 'partition' ? 'partition: ring' : kind, 1] as const);
    expect(counted).toEqual(Object.fromEntries(expected));
  });
});
