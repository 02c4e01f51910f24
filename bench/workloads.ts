/** The workloads: each measures one promise or one path, on a cluster of real servers of its own. */
import { performance } from 'node:perf_hooks';
import { connect, loadProfile, type Client } from '../src/client/index.ts';
import { sleep } from '../test/support/process-cluster.ts';
import { clients, closeAll, percentile, type Bench, type Workload } from './workload.ts';

/** 32-byte keys and 256-byte values, as etcd's own tool has them by default in comparisons. */
const keyOf = (writer: number, number: number): string => `bench/${writer}/${number}`.padEnd(32, '_');
const value = 'v'.repeat(256);

/** Closed loop: every lane sends its next request when it has the answer to the last one. */
const settle = async (
  bench: Bench,
  connections: number,
  outstanding: number,
  seconds: number,
): Promise<void> => {
  const all = clients(bench.cluster, connections);
  await Promise.all(all.map((client) => client.get('warm/up')));
  const latencies: number[] = [];
  const endMs = performance.now() + seconds * 1000;
  const lane = async (client: Client, writer: number): Promise<void> => {
    for (let number = 0; ; number += 1) {
      const startedMs = performance.now();
      if (startedMs >= endMs) return;
      await client.resolve(keyOf(writer, number), value);
      latencies.push(performance.now() - startedMs);
    }
  };
  await Promise.all(
    all.flatMap((client, index) =>
      Array.from({ length: outstanding }, (_, slot) => lane(client, index * outstanding + slot)),
    ),
  );
  bench.report({ figure: 'settles (peak, closed loop)', value: latencies.length / seconds, unit: '/s' });
  bench.report({ figure: 'latency p50', value: percentile(latencies, 0.5), unit: 'ms' });
  bench.report({ figure: 'latency p99', value: percentile(latencies, 0.99), unit: 'ms' });
  await closeAll(all);
};

const settleWorkload = (name: string, connections: number, outstanding: number): Workload => ({
  name,
  about: `${connections} connections × ${outstanding} outstanding, a new future each`,
  run: (bench) => settle(bench, connections, outstanding, bench.quick ? 2 : 8),
});

const awaitWorkload: Workload = {
  name: 'await',
  about: 'from the call of resolve on one server to the awaited value on another, all pairs of servers',
  run: async (bench) => {
    const rounds = bench.quick ? 20 : 100;
    const tookMs: number[] = [];
    const waiters = clients(bench.cluster, bench.cluster.ids.length);
    const producers = clients(bench.cluster, bench.cluster.ids.length);
    for (let round = 0; round < rounds; round += 1) {
      for (const [from, waiter] of waiters.entries()) {
        for (const [to, producer] of producers.entries()) {
          const key = `bench/${round}/${from}/${to}`;
          const awaited = waiter.await(key).then(() => performance.now());
          // The await is registered when a later read of the same connection has been answered.
          await waiter.get(key);
          const startedMs = performance.now();
          await producer.resolve(key, value);
          tookMs.push((await awaited) - startedMs);
        }
      }
    }
    bench.report({ figure: 'resolve → waiter p50', value: percentile(tookMs, 0.5), unit: 'ms', limit: 50 });
    bench.report({ figure: 'resolve → waiter p99', value: percentile(tookMs, 0.99), unit: 'ms', limit: 50 });
    await closeAll([...waiters, ...producers]);
  },
};

const failoverWorkload: Workload = {
  name: 'failover',
  about: 'SIGKILL of the leader, election timeout 1 s: time until a write is acknowledged again',
  run: async (bench) => {
    const { cluster } = bench;
    for (let round = 0; round < (bench.quick ? 1 : 5); round += 1) {
      const leader = await cluster.someLeader();
      const survivor = cluster.ids.find((id) => id !== leader) ?? leader;
      const profile = loadProfile(cluster.path('admin.yaml'));
      const client = connect({ ...profile, endpoints: [profile.endpoints[survivor - 1] ?? ''] });
      await client.resolve(`failover/${round}/before`, value);
      await cluster.kill(leader);
      const startedMs = performance.now();
      await client.resolve(`failover/${round}/after`, value);
      bench.report({
        figure: `round ${round + 1}`,
        value: performance.now() - startedMs,
        unit: 'ms',
        limit: 3000,
      });
      await client.close();
      cluster.startServer(leader);
      await cluster.ready();
    }
  },
};

const fill = async (client: Client, futures: number, ttlMs?: () => number): Promise<void> => {
  const perBatch = 250;
  const lanes = Array.from({ length: 8 }, (_, lane) => lane);
  await Promise.all(
    lanes.map(async (lane) => {
      for (let from = lane * perBatch; from < futures; from += lanes.length * perBatch) {
        await client.batch((batch) => {
          const ttl = ttlMs === undefined ? {} : { ttlMs: ttlMs() };
          for (let number = from; number < from + perBatch; number += 1)
            batch.resolve(`fill/${number}`, value, ttl);
        });
      }
    }),
  );
};

const restartWorkload: Workload = {
  name: 'restart',
  about: '200,000 futures: SIGKILL of a follower, its start, a linearizable read answered by it',
  run: async (bench) => {
    const { cluster } = bench;
    const futures = 200_000;
    const [client] = clients(cluster, 1) as [Client];
    await fill(client, futures);
    await client.close();
    for (let round = 0; round < (bench.quick ? 1 : 3); round += 1) {
      const leader = await cluster.someLeader();
      const id = cluster.ids.find((candidate) => candidate !== leader) ?? leader;
      await cluster.kill(id);
      const startedMs = performance.now();
      cluster.startServer(id);
      const profile = loadProfile(cluster.path('admin.yaml'));
      const local = connect({ ...profile, endpoints: [profile.endpoints[id - 1] ?? ''] });
      await local.get(`fill/${futures - 1}`);
      bench.report({
        figure: `round ${round + 1}`,
        value: performance.now() - startedMs,
        unit: 'ms',
        limit: 5000,
      });
      await local.close();
    }
  },
};

const stormWorkload = (name: string, servers: number): Workload => ({
  name,
  about: `100,000 futures with one deadline, servers: ${servers}; until all are expired, the longest other write meanwhile`,
  servers,
  run: async (bench) => {
    const { cluster } = bench;
    const futures = 100_000;
    const leader = await cluster.someLeader();
    const profile = loadProfile(cluster.path('admin.yaml'));
    const client = connect({ ...profile, endpoints: [profile.endpoints[leader - 1] ?? ''] });
    const atMs = Date.now() + 12_000;
    await fill(client, futures, () => Math.max(1, atMs - Date.now()));
    await sleep(Math.max(0, atMs - Date.now()));
    const over = new AbortController();
    const longestMs = (async () => {
      let longest = 0;
      while (!over.signal.aborted) {
        const startedMs = performance.now();
        await client.resolve('probe', value, { supersede: true });
        longest = Math.max(longest, performance.now() - startedMs);
        await sleep(5);
      }
      return longest;
    })();
    while (((await cluster.metric(leader, 'futurestore_expired_total')) ?? 0) < futures) await sleep(100);
    bench.report({ figure: 'all expired after', value: Date.now() - atMs, unit: 'ms', limit: 2000 });
    over.abort();
    bench.report({ figure: 'longest other write', value: await longestMs, unit: 'ms', limit: 50 });
    await client.close();
  },
});

export const workloads: readonly Workload[] = [
  settleWorkload('settle-1', 1, 1),
  settleWorkload('settle-100', 100, 1),
  settleWorkload('settle-1000', 100, 10),
  awaitWorkload,
  failoverWorkload,
  restartWorkload,
  stormWorkload('ttl-storm-1', 1),
  stormWorkload('ttl-storm-3', 3),
];
