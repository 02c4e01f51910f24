/** From a resolve on one server to the one who waits for it on another. */
import { keyOf, value } from '../load/operations.ts';
import { openLoop } from '../load/open-loop.ts';
import { percentile } from '../statistics.ts';
import type { EtcdClient } from '../load/etcd-client.ts';
import { whenDone, type KeyValueClient, type KeyValueEndpoint } from '../load/key-value-client.ts';
import { connectKeyValue } from '../load/key-value-clients.ts';
import type { Conditions, Measured, SystemsWorkload } from '../workload.ts';
import { manySettles } from './settle.ts';

const waiters = 1000;
const perSecond = 1000;
const connections = 10;

const measured = (tookMs: readonly number[], missing: number): Measured => ({
  'scheduled → told p50': percentile(tookMs, 0.5),
  'scheduled → told p99': percentile(tookMs, 0.99),
  'never told': missing,
});

export const awaitWorkload: SystemsWorkload = {
  name: 'await',
  about: `${waiters} waiters on distinct keys, ${perSecond} resolves/s at fixed times on another server, until each is told (etcd: watches and puts)`,
  warm: true,
  figures: [
    { name: 'scheduled → told p50', unit: 'ms', better: 'less', limit: 50 },
    { name: 'scheduled → told p99', unit: 'ms', better: 'less', ratioGoal: 0.5, limit: 50 },
    { name: 'never told', unit: '', better: 'less', limit: 0, everyRound: true },
  ],
  // The few thousand writes of a round are not enough to have the servers' code compiled.
  futurestore: async (system, conditions) => {
    if (conditions.warming) await manySettles.futurestore(system, conditions);
    return await onKeyValue(system.loadEndpoints, conditions);
  },
  etcd: async (system, conditions) => {
    if (conditions.warming) await manySettles.etcd?.(system, conditions);
    const listening: EtcdClient[] = [];
    const producing: EtcdClient[] = [];
    for (let index = 0; index < connections; index += 1) {
      listening.push(system.client(index % system.endpoints.length));
      producing.push(system.client((index + 1) % system.endpoints.length));
    }
    const result = await byWatches(conditions, {
      watch: async (own, keys, told) =>
        (await listening[own]?.watch(keys, ({ key }) => told(key))) ?? nothing,
      put: (own, key) => producing[own]?.put(key, value),
    });
    for (const client of [...listening, ...producing]) client.close();
    return result;
  },
  keyValue: async (system, conditions) => {
    if (conditions.warming) await manySettles.keyValue?.(system, conditions);
    return await onKeyValue(system.endpoints, conditions);
  },
};

/** Waiters are on the servers in turn; each key is put by a client of the next server. */
const onKeyValue = async (
  endpoints: readonly KeyValueEndpoint[],
  conditions: Conditions,
): Promise<Measured> => {
  const clients = (shift: number): Promise<KeyValueClient[]> =>
    Promise.all(
      Array.from({ length: connections }, (_, index) =>
        connectKeyValue(at(endpoints, (index + shift) % endpoints.length)),
      ),
    );
  const listening = await clients(0);
  const producing = await clients(1);
  const result = await byWatches(conditions, {
    watch: async (own, keys, told) => {
      await at(listening, own).watch(keys, told);
      return nothing;
    },
    put: (own, key) => whenDone((done) => at(producing, own).put(key, value, done)),
  });
  for (const client of [...listening, ...producing]) client.close();
  return result;
};

const nothing = (): void => {};

const at = <T>(list: readonly T[], index: number): T => {
  const found = list[index];
  if (found === undefined) throw new Error(`there is nothing at ${index} of ${list.length}`);
  return found;
};

interface Watching {
  /** By one of the connections; gives what ends it. */
  readonly watch: (own: number, keys: readonly string[], told: (key: string) => void) => Promise<() => void>;
  readonly put: (own: number, key: string) => Promise<void> | undefined;
}

const byWatches = async (
  { quick, round, warming }: Conditions,
  { watch, put }: Watching,
): Promise<Measured> => {
  const rounds = quick && !warming ? 2 : 5;
  const tookMs: number[] = [];
  for (let part = 0; part < rounds; part += 1) {
    const scheduled = new Map<string, number>();
    const keys = Array.from({ length: waiters }, (_, index) => keyOf(`a${round}-${part}`, index, 0));
    let left = waiters;
    let resolve = nothing;
    const allTold = new Promise<void>((told) => (resolve = told));
    const stops = await Promise.all(
      Array.from({ length: connections }, (_, own) =>
        watch(
          own,
          keys.filter((_key, index) => index % connections === own),
          (key) => {
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
      return put(index % connections, key);
    });
    await allTold;
    for (const stop of stops) stop();
  }
  return measured(tookMs, rounds * waiters - tookMs.length);
};
