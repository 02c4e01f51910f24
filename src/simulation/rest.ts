/** What a world still waits for after the healing: whatever was asked is to be answered, or refused with good reason. */
import type { World } from './world.ts';

/** What is not at rest, in words; undefined: nothing. */
export const unrestOf = (world: World): string | undefined => {
  const problems = [accessUnrest(world), ...agentsUnrest(world)].filter((problem) => problem !== undefined);
  return problems.length === 0 ? undefined : problems.join('; ');
};

const agentsUnrest = ({ agents }: World): readonly string[] =>
  agents
    .filter(({ inFlight, awaits }) => inFlight > 0 || awaits.size > 0)
    .map(({ id, client, inFlight, awaits }) => {
      const keys = [...awaits].map((open) => open.keys.join('+'));
      const waits = keys.length === 0 ? '' : `, awaits ${keys.join(', ')}`;
      return `agent ${id} (${client?.state.kind}) has ${inFlight} requests${waits}`;
    });

/** Access is open for everybody again: as far as it was ever changed. */
const accessUnrest = (world: World): string | undefined => {
  const { accessOperator, state } = world;
  if (!accessOperator.idle && isRefusedForGood(world)) accessOperator.giveUp();
  const asked = accessOperator.asked;
  if (asked !== undefined) return `the access operator asks ${asked}`;
  // What it waits for may close doors once it is answered.
  if (!state.access.active || accessOperator.opened()) return undefined;
  return 'not everything is open for everybody';
};

/**
 * The first change of access waits until all servers have been in touch once: for good, if one of them was lost before
 * and nobody replaces it. Once there was a change, or there are keys for tickets, it is no reason any more; nor is it
 * while something is under way that may become the first.
 */
const isRefusedForGood = ({ plan, accessOperator, state, machines, members }: World): boolean => {
  const absent = accessOperator.refusedFor;
  if (absent === undefined || plan.replacesLost === true || state.access.active) return false;
  const lost = machines.find(({ id }) => id === absent);
  if (lost === undefined || lost.damage === undefined || lost.on || !members.includes(absent)) return false;
  return machines.every(({ process }) => {
    if (process === undefined) return true;
    const { ticketKeys, access } = process.server.inspect().store;
    const knows = ticketKeys !== undefined || access !== undefined;
    return !knows && process.server.status().pendingCommands === 0;
  });
};
