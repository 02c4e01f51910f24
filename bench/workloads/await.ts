/** From a resolve on one server to the one who waits for it on another. */
import { connect, loadProfile, type Client } from '../../src/client/index.ts';
import { keyOf, value } from '../load/futurestore-jobs.ts';
import { openLoop } from '../load/open-loop.ts';
import { percentile } from '../statistics.ts';
import type { EtcdClient } from '../load/etcd-client.ts';
import type { RunningFuturestore } from '../systems/futurestore.ts';
import type { Measured, SystemsWorkload } from '../workload.ts';

const waiters = 1000;
const perSecond = 1000;
const connections = 10;

const measured = (tookMs: readonly number[], missing: number): Measured => ({
  'scheduled → told p50': percentile(tookMs, 0.5),
  'scheduled → told p99': percentile(tookMs, 0.99),
  'never told': missing,
});

const clientsOf = (system: RunningFuturestore, count: number, shift: number): Client[] => {
  const profile = loadProfile(system.profile);
  return Array.from({ length: count }, (_, index) =>
    connect({ ...profile, endpoints: [system.endpoints[(index + shift) % system.endpoints.length] ?? ''] }),
  );
};

/** Waiters are on the servers in turn; each key is resolved by a client of the next server. */
const onFuturestore = async (
  system: RunningFuturestore,
  rounds: number,
  prefix: string,
): Promise<Measured> => {
  const listening = clientsOf(system, connections, 0);
  const producing = clientsOf(system, connections, 1);
  const tookMs: number[] = [];
  let told = 0;
  for (let round = 0; round < rounds; round += 1) {
    const scheduled = new Map<string, number>();
    const keys = Array.from({ length: waiters }, (_, index) => keyOf(`${prefix}-${round}`, index, 0));
    const waits = keys.map(async (key, index) => {
      await listening[index % connections]?.await(key, { timeoutMs: 30_000 });
      told += 1;
      tookMs.push(performance.now() - (scheduled.get(key) ?? Number.NaN));
    });
    // A read is answered behind the awaits of the same connection.
    await Promise.all(listening.map((client) => client.get('bench/none')));
    await openLoop(perSecond, waiters, (index, atMs) => {
      const key = keys[index] ?? '';
      scheduled.set(key, atMs);
      return producing[index % connections]?.resolve(key, value);
    });
    await Promise.all(waits);
  }
  await Promise.all([...listening, ...producing].map((client) => client.close()));
  return measured(tookMs, rounds * waiters - told);
};

export const awaitWorkload: SystemsWorkload = {
  name: 'await',
  about: `${waiters} waiters on distinct keys, ${perSecond} resolves/s at fixed times on another server, until each is told (etcd: watches and puts)`,
  warm: true,
  figures: [
    { name: 'scheduled → told p50', unit: 'ms', better: 'less', limit: 50 },
    { name: 'scheduled → told p99', unit: 'ms', better: 'less', ratioGoal: 0.5, limit: 50 },
    { name: 'never told', unit: '', better: 'less', limit: 0 },
  ],
  futurestore: (system, { quick, round }) => onFuturestore(system, quick ? 2 : 5, `a${round}`),
  etcd: async (system, { quick, round }) => {
    const rounds = quick ? 2 : 5;
    const listening: EtcdClient[] = [];
    const producing: EtcdClient[] = [];
    for (let index = 0; index < connections; index += 1) {
      listening.push(system.client(index % system.endpoints.length));
      producing.push(system.client((index + 1) % system.endpoints.length));
    }
    const tookMs: number[] = [];
    for (let part = 0; part < rounds; part += 1) {
      const scheduled = new Map<string, number>();
      const keys = Array.from({ length: waiters }, (_, index) => keyOf(`a${round}-${part}`, index, 0));
      let left = waiters;
      let resolve = (): void => {};
      const allTold = new Promise<void>((told) => (resolve = told));
      const stops = await Promise.all(
        listening.map((client, own) =>
          client.watch(
            keys.filter((_, index) => index % connections === own),
            ({ key }) => {
              tookMs.push(performance.now() - (scheduled.get(key) ?? Number.NaN));
              left -= 1;
              if (left === 0) resolve();
            },
          ),
        ),
      );
      await openLoop(perSecond, waiters, (index, atMs) => {
        const key = keys[index] ?? '';
        scheduled.set(key, atMs);
        return producing[index % connections]?.put(key, value);
      });
      await allTold;
      for (const stop of stops) stop();
    }
    for (const client of [...listening, ...producing]) client.close();
    return measured(tookMs, rounds * waiters - tookMs.length);
  },
};
