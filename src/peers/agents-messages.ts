/** Orders about a server's agents, and what became of them, as messages of peer.proto and back. Throw RangeErrors. */
import { isAgentsUrl, limits, type messages } from '../protocol/index.ts';
import { asMemberId } from '../raft/index.ts';
import { asWhole } from './raft-messages.ts';
import type { AgentsMove, AgentsOrder, AgentsOutcome, NumberedOrder, NumberedOutcome } from './types.ts';

type OrderMessage = messages.peer.AgentsOrder.$Properties;
type OutcomeMessage = messages.peer.AgentsOutcome.$Properties;
type MoveMessage = messages.peer.AgentsMove.$Properties;

/** A cluster has nine servers. */
const movesMax = 64;
const refusalLengthMax = 1000;

export const orderToMessage = ({ id, order }: NumberedOrder): OrderMessage => {
  switch (order.kind) {
    case 'drain':
      return { id: asWhole(id), drain: { graceMs: asWhole(order.graceMs ?? 0) } };
    case 'admit':
      return { id: asWhole(id), admit: {} };
    case 'move':
      return {
        id: asWhole(id),
        move: { graceMs: asWhole(order.graceMs), moves: order.moves.map((move) => ({ ...move })) },
      };
    default: {
      const unknown: never = order;
      throw new TypeError(`unknown order ${JSON.stringify(unknown)}`);
    }
  }
};

const numbered = (id: number | null | undefined): number => {
  const whole = asWhole(id ?? 0);
  if (whole === 0) throw new RangeError('an order about agents, or its outcome, has no number');
  return whole;
};

const graceFromMessage = (graceMs: number | null | undefined): number => {
  const whole = asWhole(graceMs ?? 0);
  if (whole > limits.departureGraceMsMax)
    throw new RangeError(`a grace of ${whole} ms, at most ${limits.departureGraceMsMax}`);
  return whole;
};

const moveFromMessage = ({ endpoint, agents }: MoveMessage): AgentsMove => {
  const where = endpoint ?? '';
  if (where !== '' && !isAgentsUrl(where))
    throw new RangeError('agents are to move to what is no wss://host:port');
  return { endpoint: where, agents: asWhole(agents ?? 0) };
};

const whatFromMessage = ({ drain, admit, move }: OrderMessage): AgentsOrder => {
  if (drain) {
    const graceMs = graceFromMessage(drain.graceMs);
    return graceMs === 0 ? { kind: 'drain' } : { kind: 'drain', graceMs };
  }
  if (admit) return { kind: 'admit' };
  if (!move) throw new RangeError('an order about agents says nothing');
  const moves = move.moves ?? [];
  if (moves.length > movesMax)
    throw new RangeError(`agents are to move to ${moves.length} places, at most ${movesMax}`);
  return { kind: 'move', graceMs: graceFromMessage(move.graceMs), moves: moves.map(moveFromMessage) };
};

export const orderFromMessage = (message: OrderMessage): NumberedOrder => ({
  id: numbered(message.id),
  order: whatFromMessage(message),
});

export const outcomeToMessage = ({ id, outcome }: NumberedOutcome): OutcomeMessage => {
  const { refusal = '', agents, graceMs, leader } = outcome;
  return {
    id: asWhole(id),
    refusal: refusal.slice(0, refusalLengthMax),
    agents: asWhole(agents),
    graceMs: asWhole(graceMs),
    leader: asWhole(leader ?? 0),
  };
};

export const outcomeFromMessage = (message: OutcomeMessage): NumberedOutcome => {
  const { refusal, agents, graceMs, leader } = message;
  const why = refusal ?? '';
  if (why.length > refusalLengthMax)
    throw new RangeError(`a refusal has ${why.length} characters, at most ${refusalLengthMax}`);
  const outcome: AgentsOutcome = {
    refusal: why === '' ? undefined : why,
    agents: asWhole(agents ?? 0),
    graceMs: asWhole(graceMs ?? 0),
    leader: leader ? asMemberId(leader) : undefined,
  };
  return { id: numbered(message.id), outcome };
};
