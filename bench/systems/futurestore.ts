/** This build: as `init` makes a cluster, with mutual TLS and policies; nothing is tuned for the benchmark. */
import process from 'node:process';
import { connect, loadProfile, type Client } from '../../src/client/index.ts';
import { command, ProcessCluster } from '../../test/support/process-cluster.ts';
import type { KeyValueEndpoint } from '../load/key-value-client.ts';
import { versionOf } from './programs.ts';
import type { RunningSystem, System } from './system.ts';

export interface RunningFuturestore extends RunningSystem {
  /** The administrator's. */
  readonly profile: string;
  readonly cluster: ProcessCluster;
  /** For loads, as the administrator. */
  readonly loadEndpoints: readonly KeyValueEndpoint[];
}

const runningFuturestore = (cluster: ProcessCluster): RunningFuturestore => ({
  cluster,
  profile: cluster.path('admin.yaml'),
  endpoints: cluster.ids.map((id) => `wss://127.0.0.1:${cluster.port + id - 1}`),
  get loadEndpoints() {
    const { ca, cert, key } = loadProfile(cluster.path('admin.yaml'));
    if (cert === undefined || key === undefined) throw new Error('the administrator has no certificate');
    return cluster.ids.map((id): KeyValueEndpoint => {
      return {
        store: 'futurestore',
        host: '127.0.0.1',
        port: cluster.port + id - 1,
        ca,
        identity: { cert, key },
      };
    });
  },
  get pids() {
    return cluster.ids.map((id) => cluster.processId(id));
  },
  leader: async () => cluster.ids.indexOf(await cluster.someLeader()),
  kill: async (index) => {
    await cluster.kill(idAt(cluster, index));
  },
  restart: async (index) => {
    cluster.startServer(idAt(cluster, index));
    await cluster.ready();
  },
  stop: () => cluster.close(),
});

const idAt = (cluster: ProcessCluster, index: number): number => {
  const id = cluster.ids[index];
  if (id === undefined) throw new Error(`there is no server at ${index}`);
  return id;
};

/** `node`: what the servers run on; whatever makes load runs on this process's. */
const started = async (node: string, servers = 3): Promise<RunningFuturestore> => {
  const cluster = await ProcessCluster.start({ servers, node });
  await cluster.someLeader();
  return runningFuturestore(cluster);
};

export const futurestore: System<RunningFuturestore> = {
  name: 'futurestore',
  version: () => versionOf(process.execPath, [command, '--version'], /(\S+)/),
  start: () => started(process.execPath),
};

/** The same with servers on another Node. */
export const futurestoreOn = (node: string): System<RunningFuturestore> => ({
  name: `on Node ${versionOf(node, ['--version'], /v(\d+)/) ?? '?'}`,
  version: () => {
    const build = versionOf(node, [command, '--version'], /(\d\S*)/);
    return build === undefined ? undefined : `${build}, Node ${versionOf(node, ['--version'], /v(\S+)/)}`;
  },
  start: () => started(node),
});

/** A cluster of its own, on what this one runs on. */
export const another = ({ cluster }: RunningFuturestore, servers?: number): Promise<RunningFuturestore> =>
  started(cluster.node, servers);

/** The administrator's, of one server. */
export const clientOf = (system: RunningFuturestore, index: number): Client => {
  const profile = loadProfile(system.profile);
  return connect({ ...profile, endpoints: [system.endpoints[index] ?? ''] });
};

/** The index of another one of three. */
export const otherThan = (index: number): number => (index + 1) % 3;
