/** What operators ask of servers' agents, and are told of it, as agent.proto's messages and back. */
import type { DrainStanding, Rebalanced, RequestBody, ServerShare } from './frames.ts';
import { incoming, malformed, outgoing } from './future-messages.ts';
import type { messages } from './messages.ts';

type DrainServer = Extract<RequestBody, { kind: 'drain_server' }>;
type Rebalance = Extract<RequestBody, { kind: 'rebalance' }>;
type DrainServerMessage = messages.agent.DrainServer.$Properties;
type RebalanceMessage = messages.agent.Rebalance.$Properties;
type DrainResultMessage = messages.agent.DrainResult.$Properties;
type RebalanceResultMessage = messages.agent.RebalanceResult.$Properties;

export function drainServerToMessage({ member, graceMs, end }: DrainServer): DrainServerMessage {
  return { member, graceMs: graceMs ?? 0, end };
}

export function drainServerFromMessage(message: DrainServerMessage): DrainServer {
  const member = incoming(message.member, 'drain_server.member');
  const graceMs = incoming(message.graceMs, 'drain_server.grace_ms');
  const end = message.end ?? false;
  return { kind: 'drain_server', member, end, ...(graceMs !== 0 && { graceMs }) };
}

export function rebalanceToMessage({ graceMs }: Rebalance): RebalanceMessage {
  return { graceMs: graceMs ?? 0 };
}

export function rebalanceFromMessage(message: RebalanceMessage): Rebalance {
  const graceMs = incoming(message.graceMs, 'rebalance.grace_ms');
  return { kind: 'rebalance', ...(graceMs !== 0 && { graceMs }) };
}

export function drainStandingToMessage(standing: DrainStanding): DrainResultMessage {
  const { member, draining, agents, graceMs, leader } = standing;
  return {
    member: outgoing(member),
    draining,
    agents: outgoing(agents),
    graceMs: outgoing(graceMs),
    leader: outgoing(leader ?? 0),
  };
}

export function drainStandingFromMessage(message: DrainResultMessage): DrainStanding {
  const field = 'answer.drain_server';
  const member = incoming(message.member, `${field}.member`);
  if (member === 0) throw malformed(`${field}.member`, 'is missing');
  const leader = incoming(message.leader, `${field}.leader`);
  return {
    member,
    draining: message.draining ?? false,
    agents: incoming(message.agents, `${field}.agents`),
    graceMs: incoming(message.graceMs, `${field}.grace_ms`),
    leader: leader === 0 ? undefined : leader,
  };
}

export function rebalancedToMessage({ servers, graceMs }: Rebalanced): RebalanceResultMessage {
  return {
    servers: servers.map(({ member, name, agents, moving, leftOut }) => ({
      member: outgoing(member),
      name,
      agents: outgoing(agents),
      moving: outgoing(moving),
      leftOut,
    })),
    graceMs: outgoing(graceMs),
  };
}

export function rebalancedFromMessage(message: RebalanceResultMessage): Rebalanced {
  const field = 'answer.rebalance';
  const servers = (message.servers ?? []).map((share) => shareFromMessage(share, `${field}.servers`));
  for (const [index, { member }] of servers.entries()) {
    const before = servers[index - 1]?.member ?? 0;
    if (member <= before) throw malformed(`${field}.servers`, `has ${member} after ${before}`);
  }
  return { servers, graceMs: incoming(message.graceMs, `${field}.grace_ms`) };
}

function shareFromMessage(message: messages.agent.ServerShare.$Properties, field: string): ServerShare {
  return {
    member: incoming(message.member, `${field}.member`),
    name: message.name ?? '',
    agents: incoming(message.agents, `${field}.agents`),
    moving: incoming(message.moving, `${field}.moving`),
    leftOut: message.leftOut ?? false,
  };
}
