/** Thousands of agents, each of which may see and follows its own scope alone, and changes spread over all of them. */
import { createAuthority } from '../../src/cli/authority/certificates.ts';
import { connect, loadProfile } from '../../src/client/index.ts';
import { AgentIssuer } from '../../test/agents/certificates.ts';
import { planAgent, planAgents } from '../../test/agents/plan.ts';
import { machineMs } from '../../test/support/light-client.ts';
import { sleep } from '../../test/support/process-cluster.ts';
import type { ProcessObject } from '../../test/support/process-object.ts';
import type { EtcdClient } from '../load/etcd-client.ts';
import { changeKey, scopeOf, type Fleet, type FleetOptions } from '../load/fleet.ts';
import { etcdFleet, subscriberFleet } from '../load/fleet-processes.ts';
import { openLoop } from '../load/open-loop.ts';
import { changeValue } from '../load/told-times.ts';
import { processorSeconds, residentBytes } from '../machine.ts';
import { percentile } from '../statistics.ts';
import { startEtcdWithUsers } from '../systems/etcd.ts';
import { another, type RunningFuturestore } from '../systems/futurestore.ts';
import { giveScopes } from '../systems/scopes.ts';
import type { Measured, SystemsWorkload } from '../workload.ts';

interface Sizes {
  readonly agents: number;
  readonly perSecond: number;
  /** Changes before those that count: servers that have been at work have their code compiled. */
  readonly warming: number;
  readonly measured: number;
}

const sizesOf = (quick: boolean): Sizes =>
  quick
    ? { agents: 500, perSecond: 500, warming: 1_000, measured: 2_000 }
    : { agents: 5_000, perSecond: 5_000, warming: 15_000, measured: 50_000 };

/** Of clients that write, on the servers in turn. */
const writers = 12;
/** A server gives a handshake up after five seconds. */
const handshakesAtOnce = 32;
/** Before memory is read. */
const settleMs = 2_000;
/** Who is not told by then is not told. */
const patienceMs = 15_000;
const usersAtOnce = 32;
/** Each user of etcd takes longer to make than the one before: 1,000 took ten seconds, 5,000 more than two minutes. */
const etcdAgentsMax = 1_000;

const figures = {
  half: 'scheduled → told p50',
  most: 'scheduled → told p99',
  last: 'scheduled → told, the last',
  never: 'never told',
  processor: 'processor of the servers',
  memory: 'memory of the servers',
} as const;

/** What is the same on every store. */
interface Scoped {
  readonly sizes: Sizes;
  readonly pids: readonly number[];
  readonly fleet: ProcessObject<Fleet, FleetOptions>;
  /** By the writer of this number, who is on the server of this number in turn. */
  put(writer: number, key: string, value: string): Promise<unknown>;
}

const untilTold = async ({ fleet }: Scoped, changes: number): Promise<void> => {
  const endMs = performance.now() + patienceMs;
  while ((await fleet.call('told')) < changes && performance.now() < endMs) await sleep(100);
};

/** Each change is written on another server than that of the agent that it is for. */
const change = async (scoped: Scoped, from: number, count: number): Promise<void> => {
  const { agents, perSecond } = scoped.sizes;
  // Both clocks run alike: only where they begin differs.
  const offsetMs = machineMs() - performance.now();
  await openLoop(perSecond, count, async (index, atMs) => {
    const number = from + index;
    const agent = planAgent(number % agents);
    const value = changeValue(number, atMs + offsetMs);
    try {
      await scoped.put((agent.index + 1) % writers, changeKey(agent, number), value);
    } catch {
      // Who is not told of it is counted: a store that is overrun has figures, too.
    }
  });
  await untilTold(scoped, from + count);
};

const measure = async (scoped: Scoped): Promise<Measured> => {
  const { fleet, pids } = scoped;
  const { agents, warming, measured } = scoped.sizes;
  await fleet.call('prepare');
  await sleep(settleMs);
  const bytesBefore = residentBytes(pids);
  await fleet.call('connect');
  await sleep(settleMs);
  const bytes = residentBytes(pids) - bytesBefore;
  await change(scoped, 0, warming);
  const secondsBefore = processorSeconds(pids);
  await change(scoped, warming, measured);
  const seconds = processorSeconds(pids) - secondsBefore;
  const afterMs = (await fleet.call('toldAfterMs')).subarray(warming);
  const told = afterMs.filter((ms) => !Number.isNaN(ms));
  return {
    [figures.half]: percentile(told, 0.5),
    [figures.most]: percentile(told, 0.99),
    [figures.last]: percentile(told, 1),
    [figures.never]: measured - told.length,
    [figures.processor]: (seconds * 1e6) / told.length,
    [figures.memory]: bytes / 1024 / agents,
  };
};

const onFuturestore = async (running: RunningFuturestore, sizes: Sizes): Promise<Measured> => {
  const system = await another(running);
  try {
    const authority = await createAuthority('agents', Date.now());
    await giveScopes(system.cluster, authority);
    const profile = loadProfile(system.profile);
    const { endpoints, pids } = system;
    const clients = Array.from({ length: writers }, (_, index) =>
      connect({ ...profile, endpoints: [endpoints[index % endpoints.length] ?? ''] }),
    );
    await Promise.all(clients.map((client) => client.get('warm/up')));
    const { ca } = profile;
    const changes = sizes.warming + sizes.measured;
    const fleet = subscriberFleet({
      agents: sizes.agents,
      endpoints,
      ca,
      authority,
      handshakesAtOnce,
      changes,
    });
    const put = async (writer: number, key: string, value: string): Promise<unknown> =>
      await clients[writer]?.resolve(key, value);
    try {
      return await measure({ sizes, pids, fleet, put });
    } finally {
      await Promise.all(clients.map((client) => client.close()));
      await fleet.close();
    }
  } finally {
    await system.stop();
  }
};

const addUsers = async (client: EtcdClient, agents: number): Promise<void> => {
  await client.addUser('root');
  const left = planAgents(0, agents);
  await Promise.all(
    Array.from({ length: usersAtOnce }, async () => {
      for (let plan = left.pop(); plan !== undefined; plan = left.pop())
        await client.addUser(plan.name, scopeOf(plan));
    }),
  );
  await client.enableAuth();
};

const onEtcd = async (sizes: Sizes): Promise<Measured> => {
  const authority = await createAuthority('agents', Date.now());
  const issuer = await AgentIssuer.of(authority);
  const own = await issuer.issue({ index: sizes.agents, name: 'root', role: 'root' });
  const system = await startEtcdWithUsers({ authority: authority.certificate, own });
  try {
    const { endpoints, pids, ca = '' } = system;
    const clients = Array.from({ length: writers }, (_, index) => system.client(index % endpoints.length));
    const [administrator] = clients;
    if (administrator !== undefined) await addUsers(administrator, sizes.agents);
    const changes = sizes.warming + sizes.measured;
    const fleet = etcdFleet({ agents: sizes.agents, endpoints, ca, authority, handshakesAtOnce, changes });
    const put = async (writer: number, key: string, value: string): Promise<unknown> =>
      await clients[writer]?.put(key, value);
    try {
      return await measure({ sizes, pids, fleet, put });
    } finally {
      for (const client of clients) client.close();
      await fleet.close();
    }
  } finally {
    await system.stop();
  }
};

export const scopedWorkload: SystemsWorkload = {
  name: 'scoped',
  about:
    'a cluster of its own for each round, 5,000 agents with a certificate and a principal each, who follow their own scopes, 5,000 changes/s (--quick: 500, 500/s) of a key each at fixed times, on another server (etcd with TLS: a user, a role and a watch each, known by its certificate; 1,000 of them take all changes, since it makes 5,000 users in minutes)',
  figures: [
    { name: figures.half, unit: 'ms', better: 'less' },
    { name: figures.most, unit: 'ms', better: 'less' },
    // No agent is behind more than that, not even once.
    { name: figures.last, unit: 'ms', better: 'less', limit: 100 },
    { name: figures.never, unit: '', better: 'less', limit: 0, everyRound: true },
    { name: figures.processor, unit: 'µs each', better: 'less' },
    { name: figures.memory, unit: 'KiB each', better: 'less' },
  ],
  futurestore: (system, { quick }) => onFuturestore(system, sizesOf(quick)),
  // Without TLS there are no certificates to know them by.
  etcd: async ({ ca }, { quick }) => {
    if (ca === undefined) return {};
    const sizes = sizesOf(quick);
    return await onEtcd({ ...sizes, agents: Math.min(sizes.agents, etcdAgentsMax) });
  },
};
