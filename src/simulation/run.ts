/** One run: faults and load first, with checks after every step; then all heals, and everyone must be served. */
import type { Agent } from './agent.ts';
import { checkLinearizable, type HistoryOperation } from './checks/index.ts';
import { nobodyOverstays, oneConnectionEach } from './connection-phases.ts';
import { inOwnTurn } from './microtasks.ts';
import { textOf, type Machine } from './machine.ts';
import type { Plan } from './plan.ts';
import { unrestOf } from './rest.ts';
import type { Statistics } from './statistics.ts';
import { World, type Failure } from './world.ts';

export interface RunOptions {
  /** Gets each line of the trace as it is made. */
  readonly sink?: (line: string) => void;
}

export interface RunResult {
  readonly seed: number;
  readonly ok: boolean;
  readonly failure: Failure | undefined;
  readonly statistics: Statistics;
  readonly simulatedMs: number;
  /** The last lines. */
  readonly trace: readonly string[];
  readonly history: readonly HistoryOperation[];
}

/** After the healing. A dead connection is noticed after 45 s at the latest, a lost session is opened anew. */
const settleWithinMs = 180_000;
const convergeWithinMs = 60_000;
const stepMs = 200;
/** Lines of the trace that a failure is told with. */
const tracedLines = 400;

export const run = (plan: Plan, options: RunOptions = {}): Promise<RunResult> =>
  inOwnTurn(() => runNow(plan, options));

const runNow = (plan: Plan, options: RunOptions): RunResult => {
  const started = process.cpuUsage();
  const world = new World(plan, options.sink);
  const rejected = (error: unknown): void => {
    world.fail('unhandled rejection', textOf(error));
  };
  process.on('unhandledRejection', rejected);
  let loaded = { simulatedMs: 0, processorMs: 0 };
  try {
    phases(world, () => {
      loaded = { simulatedMs: world.time.nowMs, processorMs: processorMs(started) };
    });
  } catch (error) {
    world.failWith(error);
  } finally {
    process.off('unhandledRejection', rejected);
  }
  const { failure, time } = world;
  return {
    seed: plan.seed,
    ok: failure === undefined,
    failure,
    simulatedMs: time.nowMs,
    trace: world.trace.last(tracedLines),
    history: world.history,
    statistics: {
      seeds: 1,
      simulatedMs: time.nowMs,
      processorMs: processorMs(started),
      loaded,
      events: time.events,
      faults: world.faultCounts.toObject(),
      operations: world.operations.toObject(),
      happenings: world.happenings.toObject(),
      searched: world.searched,
    },
  };
};

const processorMs = (since: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
};

const phases = (world: World, healing: () => void): void => {
  world.begin();
  if (!world.runUntil(world.plan.durationMs)) return;
  healing();
  world.faults.heal();
  for (const agent of world.agents) agent.quiet = true;
  if (!settle(world)) return;
  if (!oneConnectionEach(world) || !nobodyOverstays(world)) return;
  if (!serveAll(world)) return;
  if (!carryOut(world)) return;
  if (!shutOut(world)) return;
  if (!converge(world, 'after the healing')) return;
  // What is on the disks is what was in memory.
  const present = membersOfWorld(world);
  for (const machine of present) machine.crash({ silent: false, keepSome: false });
  for (const machine of present) machine.start();
  if (!converge(world, 'after a restart of all')) return;
  if (!staysOut(world)) return;
  explain(world);
};

/** Link stalls, and what a bad network adds: by so much may a server's idea of cluster time be old. */
const oldWordsMs = 8000;

/**
 * By how much cluster time may run ahead of the world's: a cluster that was wholly down begins again at its leader's
 * wall clock, a leader that has heard old words only begins behind and is overtaken by the next one.
 */
const earlySlackMs = ({ servers, faults, durationMs }: Plan): number => {
  let slackMs = 100 + 0.03 * (durationMs + settleWithinMs);
  for (const { wallOffsetMs } of servers) slackMs = Math.max(slackMs, 2 * Math.abs(wallOffsetMs));
  for (const fault of faults) if (fault.kind === 'clock_jump') slackMs += 2 * Math.abs(fault.byMs);
  return faults.length === 0 ? slackMs : slackMs + oldWordsMs;
};

/** Whether what clients were told can be told by one cluster. */
const explain = (world: World): void => {
  const verdict = checkLinearizable(world.history, { earlySlackMs: earlySlackMs(world.plan) });
  if (verdict.kind === 'violated') {
    world.fail('linearizability', verdict.explanation);
    return;
  }
  if (verdict.kind === 'undecided') world.trace.say(`UNDECIDED ${verdict.explanation}`);
  world.searched = {
    keys: verdict.keys,
    undecided: verdict.kind === 'undecided' ? verdict.undecided : 0,
  };
};

/** Runs until it holds; fails after `withinMs`. */
const until = (
  world: World,
  withinMs: number,
  holds: () => boolean,
  otherwise: () => readonly [check: string, problem: string],
): boolean => {
  const endMs = world.time.nowMs + withinMs;
  while (!holds()) {
    if (world.time.nowMs >= endMs) {
      world.fail(...otherwise());
      return false;
    }
    if (!world.runUntil(world.time.nowMs + stepMs)) return false;
  }
  return world.failure === undefined;
};

/** Everything that was asked is answered; what waits for keys gets them. */
const settle = (world: World): boolean => {
  const { agents } = world;
  let nextMs = world.time.nowMs + 2000;
  return until(
    world,
    settleWithinMs,
    () => {
      if (world.time.nowMs >= nextMs) {
        nextMs += 2000;
        const keys = new Set(agents.flatMap((agent) => [...agent.awaits].flatMap((open) => open.keys)));
        agents[0]?.settle([...keys]);
      }
      // Until then the first change of access may have to wait.
      if (world.plan.replacesLost === true) world.operator.cleanUp();
      return unrestOf(world) === undefined;
    },
    () => ['every request ends', `${settleWithinMs} ms after the healing ${unrestOf(world) ?? ''}`],
  );
};

const serveAll = (world: World): boolean => {
  const unserved = new Set(world.agents);
  for (const agent of unserved) agent.ask(() => unserved.delete(agent));
  return until(
    world,
    convergeWithinMs,
    () => unserved.size === 0,
    () => [
      'every client is served',
      `not served: ${[...unserved].map((agent) => `agent ${agent.id} (${agent.client?.state.kind})`).join(', ')}`,
    ],
  );
};

/** Those that are to take part: not whose disks are lost. */
const membersOfWorld = (world: World): readonly Machine[] =>
  world.machines.filter(({ id, refused }) => !refused && world.members.includes(id));

/** What is not true yet of that which was asked of the members; undefined: nothing. */
const openWish = (world: World): string | undefined => {
  const { operator, leader, machines, consensus } = world;
  if (world.plan.replacesLost === true) operator.cleanUp();
  if (!operator.idle) return 'the operator waits for an answer';
  const { configuration } = consensus;
  const server = machines.find(({ id }) => id === leader)?.process?.server;
  if (configuration === undefined || server === undefined) return 'nobody leads';
  const { raft, store } = server.inspect();
  if (raft.status().changePending || !raft.status().changeSettled) return 'a change is pending';
  const lost = new Set<number>(machines.filter(({ damage }) => damage !== undefined).map(({ id }) => id));
  const { voters, learners } = configuration;
  for (const { member, wanted } of store.members) {
    if (wanted === 'removed') return `member ${member} is still there`;
    const isVoter = voters.some((id) => id === member);
    if (lost.has(member) || isVoter) continue;
    if (wanted === 'voter') return `member ${member} does not vote`;
    if (!learners.some((id) => id === member)) return `member ${member} is not there`;
  }
  const untold = machines.find(({ id, on }) => on && !world.members.includes(id));
  if (untold !== undefined) return `server ${untold.id} has not been told that it was removed`;
  return operator.problem(configuration);
};

/** What the operator asked for, and was not refused, has come about. */
const carryOut = (world: World): boolean =>
  until(
    world,
    settleWithinMs,
    () => openWish(world) === undefined,
    () => ['wishes are carried out', `${settleWithinMs} ms after all was served: ${openWish(world) ?? ''}`],
  );

/** One agent is revoked in the end, where access has ever changed. */
const outcast = ({ state, agents, plan }: World): Agent | undefined =>
  state.access.active ? agents[plan.seed % agents.length] : undefined;

/** The revoked one is closed, and is served no more, whatever it tries. */
const shutOut = (world: World): boolean => {
  const agent = outcast(world);
  if (agent === undefined) return true;
  const { accessOperator } = world;
  accessOperator.begin({ kind: 'revoke', agent: agent.id });
  if (!isShutOut(world, agent)) return false;
  agent.ask(() => world.fail('the revoked are closed', `agent ${agent.id} is served, and was revoked`));
  return isShutOut(world, agent);
};

/** It is refused once more. */
const isShutOut = (world: World, agent: Agent): boolean => {
  const before = agent.shutOuts;
  return until(
    world,
    convergeWithinMs,
    () => agent.shutOuts > before && world.accessOperator.idle,
    () => [
      'the revoked are closed',
      `agent ${agent.id} (${agent.client?.state.kind}) is not told that it is revoked`,
    ],
  );
};

/** What is on the disks says so, too. */
const staysOut = (world: World): boolean => {
  const agent = outcast(world);
  return agent === undefined || isShutOut(world, agent);
};

const converge = (world: World, when: string): boolean => {
  const processes = () => membersOfWorld(world).map(({ id, process }) => ({ id, process }));
  const applied = (): string =>
    processes()
      .map(({ id, process }) => `${id}: ${process?.server.status().appliedIndex ?? 'down'}`)
      .join(', ');
  const same = (): boolean => {
    const places = new Set(processes().map(({ process }) => process?.server.status().appliedIndex ?? -1));
    const idle = processes().every(({ process }) => process?.server.status().pendingCommands === 0);
    return places.size === 1 && !places.has(-1) && idle && world.feed.complete;
  };
  const reached = until(world, convergeWithinMs, same, () => [
    'convergence',
    `${when}, applied are ${applied()}`,
  ]);
  if (!reached) return false;
  world.judge(() => {
    world.feed.converged();
    // A server that was removed, and started once more since, learns nothing of the cluster any more.
    world.state.access.converged(world.toldTo(membersOfWorld(world)));
    world.state.converged();
    for (const { id, process } of processes()) {
      if (process === undefined) continue;
      world.state.digest(id, process.server.status().appliedIndex, process.server.stateDigest());
    }
  });
  return world.failure === undefined;
};
