/** Which agents of a server with too many are asked to go, and where to. */
import type { AgentsMove } from '../server/index.ts';
import { drainingSince } from './told-by-level.ts';

/** What is asked of a connection. */
interface Candidate {
  readonly level: number;
  /** It has been asked before. */
  readonly sentAway: boolean;
}

export interface Departure<T> {
  readonly connection: T;
  /** '': anywhere else. */
  readonly endpoint: string;
}

/**
 * `leaving` are on their way already, which the moves don't know of: so many fewer go. Who can be told where to goes first,
 * since the others may go to the next one that has too many; and among them who came last.
 */
export const departures = <T extends Candidate>(
  connections: readonly T[],
  leaving: number,
  moves: readonly AgentsMove[],
): Departure<T>[] => {
  const endpoints = moves.flatMap(({ endpoint, agents }) =>
    Array<string>(Math.min(agents, connections.length)).fill(endpoint),
  );
  const free = connections.filter(({ sentAway }) => !sentAway).reverse();
  const inOrder = [
    ...free.filter(({ level }) => level >= drainingSince),
    ...free.filter(({ level }) => level < drainingSince),
  ];
  return endpoints.slice(leaving).flatMap((endpoint, index) => {
    const connection = inOrder[index];
    return connection === undefined ? [] : [{ connection, endpoint }];
  });
};
