/** Reads of one key: with a quorum's word, and from what a server has. */
import { grpcFrame, type EtcdClient } from '../load/etcd-client.ts';
import { h2load } from '../load/h2load.ts';
import { value } from '../load/operations.ts';
import { whenDone } from '../load/key-value-client.ts';
import { connectKeyValue } from '../load/key-value-clients.ts';
import { keyValueLoad } from '../load/key-value-load.ts';
import type { RunningEtcd } from '../systems/etcd.ts';
import type { RunningFuturestore } from '../systems/futurestore.ts';
import type { RunningKeyValue } from '../systems/system.ts';
import type { SystemsWorkload } from '../workload.ts';
import { loadFigures, shapeOf, withProcessors } from './settle.ts';

const connections = 100;
const outstanding = 10;
const key = 'bench/read'.padEnd(32, '_');

const putFuturestore = async ({ cluster }: RunningFuturestore): Promise<void> => {
  const client = await cluster.connect();
  await client.resolve(key, value);
  await client.close();
};

const putEtcd = async (system: RunningEtcd): Promise<void> => {
  const client: EtcdClient = system.client(0);
  await client.put(key, value);
  client.close();
};

const putKeyValue = async ({ endpoints }: RunningKeyValue): Promise<void> => {
  const [endpoint] = endpoints;
  if (endpoint === undefined) throw new Error('the store has no server');
  const client = await connectKeyValue(endpoint);
  await whenDone((done) => client.put(key, value, done));
  client.close();
};

const readWorkload = (name: string, stale: boolean, goal: number): SystemsWorkload => ({
  name,
  about: `${connections} connections × ${outstanding} outstanding, one key${stale ? ', without asking the leader (etcd: serializable)' : ''}`,
  warm: true,
  figures: loadFigures({ throughput: goal }),
  futurestore: async (system, conditions) => {
    await putFuturestore(system);
    return await withProcessors(system.pids, () =>
      keyValueLoad({
        endpoints: system.loadEndpoints,
        operation: { kind: 'get', key, stale },
        ...shapeOf(connections, outstanding, conditions),
      }),
    );
  },
  etcd: async (system, conditions) => {
    await putEtcd(system);
    const body = grpcFrame('RangeRequest', { key: Buffer.from(key), serializable: stale });
    return await withProcessors(system.pids, () =>
      h2load(
        system.endpoints,
        { method: 'etcdserverpb.KV/Range', body },
        shapeOf(connections, outstanding, conditions),
      ),
    );
  },
  keyValue: async (system, conditions) => {
    await putKeyValue(system);
    return await withProcessors(system.pids, () =>
      keyValueLoad({
        endpoints: system.endpoints,
        operation: { kind: 'get', key, stale },
        ...shapeOf(connections, outstanding, conditions),
      }),
    );
  },
});

export const readWorkloads: readonly SystemsWorkload[] = [
  readWorkload('get-linearizable', false, 8),
  readWorkload('get-stale', true, 10),
];
