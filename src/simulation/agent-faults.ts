/** Faults of agents and of their connections. */
import type { Agent } from './agent.ts';
import type { AgentNetwork } from './agent-network.ts';
import type { VirtualTime } from './clock.ts';
import type { Fault } from './plan.ts';
import { Random } from './random.ts';

export interface AgentFaultWorld {
  readonly seed: number;
  readonly time: VirtualTime;
  readonly agents: readonly Agent[];
  readonly agentNetwork: AgentNetwork;
  /** Calls back after `forMs`, or when all is healed. */
  readonly until: (forMs: number, end: () => void) => void;
}

/** Of a share of those who have one, of one at least. */
export const loseConnections = (
  { seed, agentNetwork }: AgentFaultWorld,
  { kind, share, atMs }: Extract<Fault, { kind: 'reconnect_storm' | 'half_open' }>,
): boolean => {
  const connected = new Random(seed, `${kind}/${atMs}`).shuffled(agentNetwork.connected);
  const chosen = new Set(connected.slice(0, Math.max(1, Math.round(share * connected.length))));
  const lost = (agent: number): boolean => chosen.has(agent);
  return (kind === 'half_open' ? agentNetwork.kill(lost) : agentNetwork.reset(lost)) > 0;
};

export const stopAgent = (
  { time, agents, until }: AgentFaultWorld,
  fault: Extract<Fault, { kind: 'kill_agent' | 'pause_agent' }>,
): boolean => {
  const agent = agents.find(({ id }) => id === fault.agent);
  const life = agent?.life;
  if (agent === undefined || life === undefined) return false;
  if (fault.kind === 'pause_agent') {
    if (life.stopped) return false;
    time.stop(life);
    until(fault.forMs, () => time.resume(life, true));
    return true;
  }
  const ends = fault.how === 'closes' ? agent.close() : agent.kill(fault.how === 'vanishes');
  // Closing takes up to two seconds.
  time.after(fault.downMs + 3000, time.world, 'input', () => agent.start());
  return ends;
};

export const cutFromAgents = (
  { agents, agentNetwork, until }: AgentFaultWorld,
  place: number,
  forMs: number,
): void => {
  for (const { id } of agents) agentNetwork.block(id, place);
  until(forMs, () => {
    for (const { id } of agents) agentNetwork.unblock(id, place);
  });
};
