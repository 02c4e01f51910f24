/** All agents come at once: for the first time, again with the servers' tickets, and a third of them when a server dies. */
import { createAuthority } from '../../src/cli/authority/certificates.ts';
import { loadProfile } from '../../src/client/index.ts';
import { machineMs } from '../../test/support/light-client.ts';
import { eventually, sleep, type ProcessCluster } from '../../test/support/process-cluster.ts';
import { waitedForProcessorMs } from '../../test/support/processor-wait.ts';
import type { ProcessObject } from '../../test/support/process-object.ts';
import type { FleetOptions } from '../load/fleet.ts';
import { subscriberFleet } from '../load/fleet-processes.ts';
import type { FleetProgress, SubscriberFleet } from '../load/subscriber-fleet.ts';
import type { RunningFuturestore } from '../systems/futurestore.ts';
import { giveScopes } from '../systems/scopes.ts';
import type { Measured, SystemsWorkload } from '../workload.ts';

const figures = {
  cold: 'cold',
  again: 'with TLS sessions of before',
  resumed: 'sessions taken up again',
  killed: 'kill → all served again',
  elections: 'elections',
  waited: 'a server without a processor',
} as const;

type Agents = ProcessObject<SubscriberFleet, FleetOptions>;

/** A storm that is not over by then has failed. */
const patienceMs = 180_000;

const until = async (
  what: string,
  fleet: Agents,
  holds: (progress: FleetProgress) => boolean,
): Promise<FleetProgress> => {
  const endMs = performance.now() + patienceMs;
  for (;;) {
    const progress = await fleet.call('progress');
    if (holds(progress)) return progress;
    if (performance.now() > endMs)
      throw new Error(`${what}: not within ${patienceMs} ms: ${JSON.stringify(progress)}`);
    await sleep(50);
  }
};

interface Storm {
  readonly perSecond: number;
  /** A share of the agents. */
  readonly resumed: number;
}

const storm = async (fleet: Agents, agents: number): Promise<Storm> => {
  const startedAtMs = await fleet.call('start');
  const { lastServedAtMs, resumed } = await until(
    'all agents are connected',
    fleet,
    ({ served }) => served === agents,
  );
  return { perSecond: agents / ((lastServedAtMs - startedAtMs) / 1000), resumed: resumed / agents };
};

/** The highest of those who run: each election has a new one. */
const term = async (cluster: ProcessCluster): Promise<number> => {
  const running = cluster.ids.filter((id) => cluster.isRunning(id));
  let terms: readonly (number | undefined)[] = [];
  await eventually('all servers tell their terms', async () => {
    terms = await Promise.all(running.map((id) => cluster.metric(id, 'futurestore_term')));
    return terms.every((one) => one !== undefined);
  });
  return Math.max(...terms.map((one) => one ?? Number.NaN));
};

/** Which of the servers waited longest for a processor: elections that come of it are the machine's. */
const longestWaitMs = (pids: readonly number[], before: readonly number[]): number =>
  Math.max(...pids.map((pid, index) => waitedForProcessorMs(pid) - (before[index] ?? 0)));

const onFuturestore = async (system: RunningFuturestore, agents: number): Promise<Measured> => {
  const { cluster, endpoints, pids } = system;
  const authority = await createAuthority('agents', Date.now());
  await giveScopes(cluster, authority);
  const { ca } = loadProfile(system.profile);
  const handshakesAtOnce = agents;
  const fleet = subscriberFleet({ agents, endpoints, ca, authority, handshakesAtOnce, changes: 0 });
  try {
    await fleet.call('prepare');
    const termBefore = await term(cluster);
    const waitedBefore = pids.map(waitedForProcessorMs);
    const cold = await storm(fleet, agents);
    await fleet.call('drop');
    const again = await storm(fleet, agents);
    const follower = ((await system.leader()) + 1) % endpoints.length;
    const killedAtMs = machineMs();
    await system.kill(follower);
    const { lastServedAtMs } = await until(
      'all agents are served again',
      fleet,
      ({ served, servedBy }) => served === agents && servedBy[follower] === 0,
    );
    const elections = (await term(cluster)) - termBefore;
    // Of the one that was killed nothing is to be had any more.
    const waited = longestWaitMs(
      pids.filter((_, index) => index !== follower),
      waitedBefore.filter((_, index) => index !== follower),
    );
    await system.restart(follower);
    return {
      [figures.cold]: cold.perSecond,
      [figures.again]: again.perSecond,
      [figures.resumed]: again.resumed * 100,
      [figures.killed]: lastServedAtMs - killedAtMs,
      [figures.elections]: elections,
      [figures.waited]: waited,
    };
  } finally {
    await fleet.close();
  }
};

export const connectStormWorkload: SystemsWorkload = {
  name: 'connect-storm',
  about:
    '2,000 agents (--quick: 300) with a certificate and a subscription each connect at once, until all are served; all are cut off and come again; then a follower is killed',
  warm: true,
  figures: [
    { name: figures.cold, unit: '/s', better: 'more' },
    { name: figures.again, unit: '/s', better: 'more' },
    { name: figures.resumed, unit: '%', better: 'more' },
    { name: figures.killed, unit: 'ms', better: 'less' },
    { name: figures.elections, unit: '', better: 'less', limit: 0, everyRound: true },
    { name: figures.waited, unit: 'ms', better: 'less' },
  ],
  futurestore: (system, { quick }) => onFuturestore(system, quick ? 300 : 2_000),
};
