/** One run: faults and load first, with checks after every step; then all heals, and everyone must be served. */
import type { HistoryOperation } from './checks/index.ts';
import { inOwnTurn } from './microtasks.ts';
import { textOf } from './machine.ts';
import type { Plan } from './plan.ts';
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

export const run = (plan: Plan, options: RunOptions = {}): Promise<RunResult> => inOwnTurn(() => runNow(plan, options));

const runNow = (plan: Plan, options: RunOptions): RunResult => {
  const startedMs = performance.now();
  const world = new World(plan, options.sink);
  const rejected = (error: unknown): void => {
    world.fail('unhandled rejection', textOf(error));
  };
  process.on('unhandledRejection', rejected);
  try {
    phases(world);
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
      realMs: performance.now() - startedMs,
      events: time.events,
      faults: world.faultCounts.toObject(),
      operations: world.operations.toObject(),
      happenings: world.happenings.toObject(),
    },
  };
};

const phases = (world: World): void => {
  world.begin();
  if (!world.runUntil(world.plan.durationMs)) return;
  world.faults.heal();
  for (const agent of world.agents) agent.quiet = true;
  if (!settle(world)) return;
  if (!serveAll(world)) return;
  if (!converge(world, 'after the healing')) return;
  // What is on the disks is what was in memory.
  for (const machine of world.machines) machine.crash({ silent: false, keepSome: false });
  for (const machine of world.machines) machine.start();
  converge(world, 'after a restart of all');
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
      return agents.every((agent) => agent.inFlight === 0 && agent.awaits.size === 0);
    },
    () => {
      const stuck = agents.filter((agent) => agent.inFlight > 0 || agent.awaits.size > 0);
      const words = stuck.map(
        (agent) =>
          `agent ${agent.id} (${agent.client?.state.kind}) has ${agent.inFlight} requests and ` +
          `${[...agent.awaits].map((open) => open.keys.join('+')).join(', ') || 'no awaits'}`,
      );
      return ['every request ends', `${settleWithinMs} ms after the healing ${words.join('; ')}`];
    },
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

const converge = (world: World, when: string): boolean => {
  const processes = () => world.machines.filter(({ refused }) => !refused).map(({ id, process }) => ({ id, process }));
  const applied = (): string =>
    processes()
      .map(({ id, process }) => `${id}: ${process?.server.status().appliedIndex ?? 'down'}`)
      .join(', ');
  const same = (): boolean => {
    const places = new Set(processes().map(({ process }) => process?.server.status().appliedIndex ?? -1));
    const idle = processes().every(({ process }) => process?.server.status().pendingCommands === 0);
    return places.size === 1 && !places.has(-1) && idle && world.feed.complete;
  };
  const reached = until(world, convergeWithinMs, same, () => ['convergence', `${when}, applied are ${applied()}`]);
  if (!reached) return false;
  world.judge(() => {
    world.feed.converged();
    for (const { id, process } of processes()) {
      if (process === undefined) continue;
      world.state.digest(id, process.server.status().appliedIndex, process.server.stateDigest());
    }
  });
  return world.failure === undefined;
};
