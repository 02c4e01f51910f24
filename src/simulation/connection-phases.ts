/** What must be true of connections once all has healed. */
import { farewellGraceMs } from './machine.ts';
import type { World } from './world.ts';

/**
 * A dead connection is noticed after 45 s and a round of heartbeats; one that is older than another one is told of
 * again each half minute.
 */
const oneEachWithinMs = 100_000;

const stepMs = 200;

/** The age is more or less by a fifth, clocks go wrong by a few percent, and gateways look once a second. */
const ageMax = (maxAgeMs: number): number => 1.3 * maxAgeMs + farewellGraceMs + 4000;

/**
 * Who has more than one. A server that was restarted, or sent a snapshot, may not know when sessions at others were taken
 * up; then both stay, rather than none.
 */
const several = (world: World): number[] => {
  const knowsAll = (server: number): boolean =>
    world.machines.some((machine) => machine.id === server && machine.starts === 1 && machine.installs === 0);
  return [...world.agentNetwork.openConnections]
    .filter(([agent, open]) => agent <= world.plan.agents.length && open.length > 1)
    .filter(([, open]) => open.every(({ server }) => knowsAll(server)))
    .map(([agent]) => agent);
};

/** Where an agent may have one connection it soon has one at most; while it moves it may have two for a moment. */
export const oneConnectionEach = (world: World): boolean => {
  if (world.plan.soleConnections !== true) return true;
  const endMs = world.time.nowMs + oneEachWithinMs;
  const before = new Set(several(world));
  while (before.size > 0) {
    if (world.time.nowMs >= endMs) {
      const agents = [...before].join(', ');
      world.fail(
        'one connection each',
        `${oneEachWithinMs} ms after the healing agents ${agents} have several`,
      );
      return false;
    }
    if (!world.runUntil(world.time.nowMs + stepMs)) return false;
    const now = several(world);
    for (const agent of before) if (!now.includes(agent)) before.delete(agent);
  }
  return true;
};

/** For a while nobody's connection is older than it may be, and everybody leaves when asked. */
export const nobodyOverstays = (world: World): boolean => {
  const { connectionMaxAgeMs } = world.plan;
  if (connectionMaxAgeMs === undefined) return true;
  const maxMs = ageMax(connectionMaxAgeMs);
  const { agentNetwork, time } = world;
  const healedAtMs = time.nowMs;
  const endMs = healedAtMs + 2 * maxMs;
  let overstayed = 0;
  while (time.nowMs < endMs) {
    if (!world.runUntil(time.nowMs + stepMs)) return false;
    // Those who were asked to go before all healed may not have been able to.
    if (time.nowMs < healedAtMs + maxMs) {
      overstayed = agentNetwork.overstayed;
      continue;
    }
    for (const [agent, open] of agentNetwork.openConnections) {
      const ageMs = time.nowMs - Math.min(...open.map(({ sinceMs }) => sinceMs));
      if (ageMs <= maxMs) continue;
      world.fail(
        'connections end',
        `agent ${agent} has one that is ${ageMs} ms old, at most ${maxMs} ms are allowed`,
      );
      return false;
    }
  }
  if (agentNetwork.overstayed === overstayed) return true;
  world.fail(
    'agents leave when asked',
    `${agentNetwork.overstayed - overstayed} connections had to be closed`,
  );
  return false;
};
