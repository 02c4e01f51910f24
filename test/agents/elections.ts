/** Who has been elected since a server was killed, as the servers' logs tell it, and whether that is what may be. */

export interface Elections {
  /** By term, ascending: who led it, as all who knew have said. */
  readonly leaders: ReadonlyMap<number, ReadonlySet<number>>;
  /** Servers that handed over by themselves, because they were too slow to lead. */
  readonly handedOver: number;
}

interface Line {
  readonly msg?: string;
  readonly term?: number;
  readonly leader?: number | null;
}

const linesOf = (log: string): Line[] =>
  log
    .split('\n')
    .filter((line) => line.startsWith('{') && line.endsWith('}'))
    .map((line) => JSON.parse(line) as Line);

/** `logs`: of all servers, from when one of them was killed. `term`: of that moment. */
export const electionsIn = (logs: readonly string[], term: number): Elections => {
  const leaders = new Map<number, Set<number>>();
  let handedOver = 0;
  for (const line of logs.flatMap(linesOf)) {
    if (line.msg === 'this server is too slow to lead and hands over') handedOver += 1;
    if (line.msg !== 'leadership changed' || line.term === undefined || line.term <= term) continue;
    if (typeof line.leader !== 'number') continue;
    const known = leaders.get(line.term) ?? new Set<number>();
    leaders.set(line.term, known.add(line.leader));
  }
  return { leaders: new Map([...leaders].sort(([a], [b]) => a - b)), handedOver };
};

export interface ElectionsVerdict {
  readonly text: string;
  readonly problems: readonly string[];
}

/**
 * When a follower was lost nobody is elected. When the leader was, one is, and stays. A term may pass without one: of three
 * servers the two that are left must both agree, and where they begin at the same moment, which on a busy machine is as long
 * as a message takes, each has its own vote. `starved`: a server had no processor for an election timeout, so it was taken
 * for dead, rightly.
 */
export const judgeElections = (
  { leaders, handedOver }: Elections,
  { term, termNow, wasLeader, starved }: TermsOfLoss,
): ElectionsVerdict => {
  const problems: string[] = [];
  for (const [at, those] of leaders)
    if (those.size > 1) problems.push(`term ${at} had several leaders: ${[...those].join(', ')}`);
  const elected = leaders.size;
  const excused = starved || handedOver > 0;
  if (!wasLeader && termNow !== term && !excused)
    problems.push(`the loss of a follower caused an election: term ${term} became ${termNow}`);
  if (wasLeader && elected === 0)
    problems.push(`nobody was elected in the place of the leader: term ${termNow}`);
  if (wasLeader && elected > 1 && !excused)
    problems.push(
      `the loss of one leader caused ${elected} elections: terms ${[...leaders.keys()].join(', ')}`,
    );
  if (wasLeader && elected > 0 && termNow !== [...leaders.keys()].at(-1) && !excused)
    problems.push(`the elected leader did not stay: term ${termNow}`);
  const split = termNow - term - elected;
  const notes = [
    ...(elected > 0 ? [`${elected === 1 ? 'one leader' : `${elected} leaders`} elected`] : []),
    ...(split > 0 ? [`${split === 1 ? 'one vote' : `${split} votes`} split`] : []),
    ...(handedOver > 0 ? [`${handedOver} handed over, being too slow`] : []),
    ...(starved && elected > (wasLeader ? 1 : 0) ? ['the machine was too busy to tell why'] : []),
  ];
  return { text: `term ${term} → ${termNow}${notes.length > 0 ? ` (${notes.join(', ')})` : ''}`, problems };
};

export interface TermsOfLoss {
  readonly term: number;
  readonly termNow: number;
  readonly wasLeader: boolean;
  readonly starved: boolean;
}
