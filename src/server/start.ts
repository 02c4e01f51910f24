import { FuturestoreError } from '../protocol/index.ts';
import {
  asLogIndex,
  asMemberId,
  asTerm,
  initialConfiguration,
  Raft,
  type HardState,
  type SnapshotPoint,
} from '../raft/index.ts';
import type { PeerTransport } from '../peers/index.ts';
import type { Storage } from '../storage/index.ts';
import { Store, type StoreOptions } from '../store/index.ts';
import { makeRun } from './runs.ts';
import { Server, type ServerOptions } from './server.ts';
import { tickMsOf, ticksPerHeartbeat } from './ticks.ts';

export interface StartServerOptions extends ServerOptions {
  readonly storage: Storage;
  /** Gets the means to refuse a peer whose disk is not the one that the cluster knows, and the run to announce. */
  readonly transport: (acceptPeer: AcceptPeer, run: number) => PeerTransport;
  readonly store?: Omit<StoreOptions, 'clusterId'>;
  /** Bounds of raft; defaults are raft's own. */
  readonly raft?: {
    readonly inflightMessagesMax?: number;
    readonly inflightBytesMax?: number;
    readonly appendBytesMax?: number;
    readonly uncommittedBytesMax?: number;
  };
}

/** Small commands of so many bytes are applied within a turn (10 ms). */
const applyBytesMax = 128 * 1024;

/** Why this peer must not take part; undefined: it may. */
export type AcceptPeer = (member: number, run: number, diskId: Uint8Array) => string | undefined;

/**
 * Recovers what is on disk and begins to take part in the cluster.
 *
 * Throws DATA_DAMAGED for state that can't be read back, CONFIGURATION_INVALID when the configured members are not
 * the ones on disk.
 */
export const startServer = async (options: StartServerOptions): Promise<Server> => {
  const { storage, environment } = options;
  const { recovered } = storage;
  const storeOptions: StoreOptions = { ...options.store, clusterId: options.clusterId };
  const store = new Store(storeOptions);
  for await (const records of storage.readState()) store.load(records);
  store.finishLoad();
  const snapshot = recovered.snapshot ?? (await bootstrap(options));
  checkMembers(options, snapshot);
  const none: HardState = { term: asTerm(0), vote: undefined, commit: asLogIndex(0) };
  const raft = new Raft({
    applyBytesMax,
    ...options.raft,
    id: asMemberId(options.self.id),
    hardState: recovered.hardState ?? none,
    snapshot,
    entries: recovered.entries,
    applied: recovered.applied.index,
    random: () => environment.random(),
    electionTicks: Math.max(2, Math.round(options.electionTimeoutMs / tickMsOf(options))),
    heartbeatTicks: ticksPerHeartbeat,
  });
  const started: { server?: Server } = {};
  const run = makeRun(recovered.run, environment);
  const acceptPeer: AcceptPeer = (member, peerRun, diskId) =>
    started.server?.refusePeer(member, peerRun, diskId);
  const transport = options.transport(acceptPeer, run);
  const server = new Server(options, { storage, transport, raft, run, store, storeOptions });
  started.server = server;
  await server.start();
  return server;
};

/**
 * The first start of a new member: the configured members are the first configuration. It is written down at once,
 * so that a later edit of the file can't change who counts.
 */
const bootstrap = async (options: StartServerOptions): Promise<SnapshotPoint> => {
  const configuration = initialConfiguration(options.members.map(({ id }) => asMemberId(id)));
  const point: SnapshotPoint = { index: asLogIndex(0), term: asTerm(0), configuration };
  await options.storage.write({ entries: [], stateWrites: [], compactTo: point, sync: true });
  return point;
};

const checkMembers = (options: StartServerOptions, snapshot: SnapshotPoint): void => {
  const onDisk = snapshot.configuration.voters.join(', ');
  const configured = options.members
    .map(({ id }) => id)
    .sort((a, b) => a - b)
    .join(', ');
  if (onDisk === configured) return;
  throw new FuturestoreError(
    'CONFIGURATION_INVALID',
    `cluster.members names the members ${configured}, but this server's data was made for the members ${onDisk}; ` +
      'put the members back as they were: a change of the file does not change the cluster',
  );
};
