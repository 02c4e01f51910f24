/** One key that very many follow. */
import { connect, loadProfile } from '../../src/client/index.ts';
import { value } from '../load/futurestore-jobs.ts';
import type { EtcdClient } from '../load/etcd-client.ts';
import type { SystemsWorkload } from '../workload.ts';

const key = 'fan/out'.padEnd(32, '_');

const sizes = (quick: boolean): { connections: number; each: number; changes: number } =>
  quick ? { connections: 100, each: 10, changes: 20 } : { connections: 1000, each: 10, changes: 20 };

const deliveries = 'deliveries';

export const fanOutWorkload: SystemsWorkload = {
  name: 'fan-out',
  about:
    'one key, 10,000 subscriptions on 1,000 connections (--quick: 1,000 on 100), 20 changes one after the other, each when all were told the last',
  warm: true,
  figures: [{ name: deliveries, unit: '/s', better: 'more', ratioGoal: 5 }],
  futurestore: async (system, { quick }) => {
    const { connections, each, changes } = sizes(quick);
    const profile = loadProfile(system.profile);
    const clients = Array.from({ length: connections }, (_, index) =>
      connect({ ...profile, endpoints: [system.endpoints[index % system.endpoints.length] ?? ''] }),
    );
    let told = 0;
    let goal = 0;
    let reached = (): void => {};
    const subscriptions = clients.flatMap((client) =>
      Array.from({ length: each }, () => client.subscribe(key)),
    );
    let caughtUp = 0;
    const readers = subscriptions.map(async (subscription) => {
      for await (const event of subscription) {
        if (event.kind === 'caught_up') {
          caughtUp += 1;
          if (caughtUp === subscriptions.length) reached();
        }
        if (event.kind !== 'future' || goal === 0) continue;
        told += 1;
        if (told === goal) reached();
      }
    });
    await new Promise<void>((resolve) => (reached = resolve));
    const [producer] = clients;
    const startedMs = performance.now();
    for (let change = 0; change < changes; change += 1) {
      goal = told + subscriptions.length;
      const all = new Promise<void>((resolve) => (reached = resolve));
      await producer?.resolve(key, `${change}${value}`, { supersede: true });
      await all;
    }
    const seconds = (performance.now() - startedMs) / 1000;
    await Promise.all(clients.map((client) => client.close()));
    await Promise.allSettled(readers);
    return { [deliveries]: told / seconds };
  },
  etcd: async (system, { quick }) => {
    const { connections, each, changes } = sizes(quick);
    const clients: EtcdClient[] = Array.from({ length: connections }, (_, index) =>
      system.client(index % system.endpoints.length),
    );
    let told = 0;
    let goal = 0;
    let reached = (): void => {};
    await Promise.all(
      clients.map((client) =>
        client.watch(
          Array.from({ length: each }, () => key),
          () => {
            told += 1;
            if (told === goal) reached();
          },
        ),
      ),
    );
    const startedMs = performance.now();
    for (let change = 0; change < changes; change += 1) {
      goal = told + connections * each;
      const all = new Promise<void>((resolve) => (reached = resolve));
      await clients[0]?.put(key, `${change}${value}`);
      await all;
    }
    const seconds = (performance.now() - startedMs) / 1000;
    for (const client of clients) client.close();
    return { [deliveries]: told / seconds };
  },
};
