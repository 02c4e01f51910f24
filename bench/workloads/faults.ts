/** What happens when a server is lost, comes back, or very much expires at once. */
import { sleep } from '../../test/support/process-cluster.ts';
import { fill } from '../load/fill.ts';
import { value } from '../load/operations.ts';
import { residentBytes } from '../machine.ts';
import { clientOf, otherThan } from '../systems/futurestore.ts';
import type { EtcdClient } from '../load/etcd-client.ts';
import type { SystemsWorkload } from '../workload.ts';

export const failoverWorkload: SystemsWorkload = {
  name: 'failover',
  about:
    'SIGKILL of the leader, election timeout 1 s on both: time until a write to another server is acknowledged',
  figures: [{ name: 'next acknowledged write', unit: 'ms', better: 'less', ratioGoal: 1, limit: 3000 }],
  futurestore: async (system, { round }) => {
    const leader = await system.leader();
    const client = clientOf(system, otherThan(leader));
    await client.resolve(`failover/${round}/before`, value);
    await system.kill(leader);
    const startedMs = performance.now();
    await client.resolve(`failover/${round}/after`, value);
    const tookMs = performance.now() - startedMs;
    await client.close();
    await system.restart(leader);
    return { 'next acknowledged write': tookMs };
  },
  etcd: async (system, { round }) => {
    const leader = await system.leader();
    const client = system.client(otherThan(leader));
    await client.put(`failover/${round}/before`, value);
    await system.kill(leader);
    const startedMs = performance.now();
    await firstOf(() => client.put(`failover/${round}/after`, value));
    const tookMs = performance.now() - startedMs;
    client.close();
    await system.restart(leader);
    return { 'next acknowledged write': tookMs };
  },
};

/** A new try every 50 ms, since etcd lets one that it took during the election time out; until one is acknowledged. */
const firstOf = (attempt: () => Promise<void>): Promise<void> =>
  new Promise((resolve) => {
    const tries = setInterval(() => {
      attempt().then(
        () => {
          clearInterval(tries);
          resolve();
        },
        () => {
          // The next one may go through.
        },
      );
    }, 50);
  });

export const restartWorkload: SystemsWorkload = {
  name: 'restart',
  about:
    '1,000,000 futures (--quick: 200,000): SIGKILL of a follower, its start, a linearizable read answered by it',
  figures: [
    { name: 'start → serves', unit: 'ms', better: 'less', limit: 8000 },
    { name: 'resident memory', unit: 'MB', better: 'less', limit: 1200 },
  ],
  futurestore: async (system, { quick, round }) => {
    const futures = quick ? 200_000 : 1_000_000;
    if (round === 0) {
      const client = clientOf(system, await system.leader());
      await fill(client, futures);
      await client.close();
    }
    const index = otherThan(await system.leader());
    await system.kill(index);
    const startedMs = performance.now();
    system.cluster.startServer(index + 1);
    // A client that found nobody there would wait for seconds before it tries again.
    await system.cluster.ready([index + 1], 60_000);
    const client = clientOf(system, index);
    await client.get(`fill/${futures - 1}`);
    const tookMs = performance.now() - startedMs;
    await client.close();
    const bytes = residentBytes([system.cluster.processId(index + 1)]);
    return { 'start → serves': tookMs, 'resident memory': bytes / 1e6 };
  },
};

export const stormWorkload: SystemsWorkload = {
  name: 'ttl-storm',
  about:
    '100,000 futures that end at one instant, and one write after the other meanwhile (etcd: all on one lease, which it checks by the second)',
  figures: [
    { name: 'all expired after', unit: 'ms', better: 'less', limit: 2000 },
    { name: 'longest other write', unit: 'ms', better: 'less' },
  ],
  futurestore: async (system) => {
    const futures = 100_000;
    const leader = await system.leader();
    const client = clientOf(system, leader);
    const { cluster } = system;
    const expired = async (): Promise<number> =>
      (await cluster.metric(leader + 1, 'futurestore_expired_total')) ?? 0;
    const before = await expired();
    const atMs = Date.now() + 15_000;
    await fill(client, futures, { ttlMs: () => Math.max(1, atMs - Date.now()) });
    await sleep(Math.max(0, atMs - Date.now()));
    const probe = startProbe((number) => client.resolve('probe', `${number}`, { supersede: true }));
    while ((await expired()) - before < futures) await sleep(50);
    const tookMs = Date.now() - atMs;
    const longest = await probe.stop();
    await client.close();
    return { 'all expired after': tookMs, 'longest other write': longest };
  },
  etcd: async (system) => {
    const futures = 100_000;
    const client: EtcdClient = system.client(await system.leader());
    const seconds = 30;
    const lease = await client.lease(seconds);
    const atMs = Date.now() + seconds * 1000;
    const perTransaction = 100;
    for (let from = 0; from < futures; from += 8 * perTransaction) {
      const parts = Array.from({ length: 8 }, (_, part) => from + part * perTransaction);
      await Promise.all(
        parts.map((start) =>
          client.putAll(
            Array.from({ length: perTransaction }, (_, index) => `fill/${start + index}`),
            value,
            lease,
          ),
        ),
      );
    }
    await sleep(Math.max(0, atMs - Date.now()));
    const probe = startProbe((number) => client.put('probe', `${number}`));
    while ((await client.count('fill/')) > 0) await sleep(50);
    const tookMs = Date.now() - atMs;
    const longest = await probe.stop();
    client.close();
    return { 'all expired after': tookMs, 'longest other write': longest };
  },
};

/** One write after the other, until stopped; gives how long the longest took, in ms. */
const startProbe = (write: (number: number) => Promise<unknown>): { stop(): Promise<number> } => {
  const over = new AbortController();
  const longest = (async () => {
    let most = 0;
    for (let number = 0; !over.signal.aborted; number += 1) {
      const startedMs = performance.now();
      await write(number);
      most = Math.max(most, performance.now() - startedMs);
      await sleep(5);
    }
    return most;
  })();
  return {
    stop: () => {
      over.abort();
      return longest;
    },
  };
};
