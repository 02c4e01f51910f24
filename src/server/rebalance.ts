/** How many agents should go from which server to which, so that all have about as many. Pure. */
import type { AgentsMove } from '../peers/index.ts';

export interface Load {
  readonly member: number;
  readonly agents: number;
  /** Where agents reach it; '': not known. */
  readonly endpoint: string;
}

/** What one server has more or less than others is no reason to move anybody: a twentieth, and one at least. */
const toleranceOf = (mean: number): number => Math.max(1, Math.floor(mean / 20));

/** The even share of each, in whole agents. What does not divide stays with those who have most: fewer move. */
const sharesOf = (loads: readonly Load[]): Map<number, number> => {
  const total = loads.reduce((sum, { agents }) => sum + agents, 0);
  const least = Math.floor(total / loads.length);
  const more = total - least * loads.length;
  const byAgents = [...loads].sort((a, b) => b.agents - a.agents || a.member - b.member);
  return new Map(byAgents.map(({ member }, rank) => [member, rank < more ? least + 1 : least]));
};

/** By member: where how many of its agents should go. Empty where all are within the tolerance. */
export const planMoves = (loads: readonly Load[]): ReadonlyMap<number, readonly AgentsMove[]> => {
  const plan = new Map<number, AgentsMove[]>();
  if (loads.length < 2) return plan;
  const shares = sharesOf(loads);
  const surplus = (load: Load): number => load.agents - (shares.get(load.member) ?? 0);
  const mean = loads.reduce((sum, { agents }) => sum + agents, 0) / loads.length;
  if (loads.every((load) => Math.abs(surplus(load)) <= toleranceOf(mean))) return plan;
  const room = loads.filter((load) => surplus(load) < 0).map((load) => ({ load, left: -surplus(load) }));
  for (const load of loads) {
    let left = surplus(load);
    for (const place of room) {
      const agents = Math.min(left, place.left);
      if (agents <= 0) continue;
      left -= agents;
      place.left -= agents;
      const moves = plan.get(load.member) ?? [];
      plan.set(load.member, [...moves, { endpoint: place.load.endpoint, agents }]);
    }
  }
  return plan;
};
