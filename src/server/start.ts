import {
  asLogIndex,
  asMemberId,
  asTerm,
  emptyConfiguration,
  initialConfiguration,
  Raft,
  type HardState,
  type SnapshotPoint,
} from '../raft/index.ts';
import type { AcceptPeer, PeerLineage, PeerStanding, PeerTransport } from '../peers/index.ts';
import type { Storage } from '../storage/index.ts';
import { Store, type StoreOptions } from '../store/index.ts';
import { lineageOf, makeRun } from './runs.ts';
import type { ServerOptions } from './options.ts';
import { Server } from './server.ts';
import { tickMsOf, ticksPerHeartbeat } from './ticks.ts';

export interface StartServerOptions extends ServerOptions {
  readonly storage: Storage;
  /**
   * Gets the means to refuse a peer that must not take part, and what to announce to peers: the run, where this
   * server's disk stood when the run began, and the runs that the disk had before. The server tells the transport its
   * members before it starts it.
   */
  readonly transport: (
    acceptPeer: AcceptPeer,
    run: number,
    standing: Standing,
    lineage: PeerLineage,
  ) => PeerTransport;
  /**
   * On an empty disk: begin no cluster, but wait until this server is added to the one that the configured members
   * are of. On a disk that has something it means nothing.
   */
  readonly join?: boolean;
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

/**
 * As of the start, not as of now: a disk that has forgotten something would be given it back by the first peer that
 * speaks to it, all but its votes, and no other would notice.
 */
type Standing = () => PeerStanding;

/** Recovers what is on disk and begins to take part in the cluster. Throws DATA_DAMAGED for what can't be read back. */
export const startServer = async (options: StartServerOptions): Promise<Server> => {
  const { storage, environment } = options;
  const { recovered } = storage;
  const storeOptions: StoreOptions = { ...options.store, clusterId: options.clusterId };
  const store = new Store(storeOptions);
  for await (const records of storage.readState()) store.load(records);
  store.finishLoad();
  const snapshot = recovered.snapshot ?? (await bootstrap(options));
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
  const lineage = lineageOf(recovered, store.server(options.self.id)?.run);
  // Before anybody hears of it: who has must find it on this disk for ever.
  await storage.write({ entries: [], stateWrites: [], lineage: [...lineage.runs, run], sync: true });
  const acceptPeer: AcceptPeer = (member, presence) =>
    started.server === undefined
      ? { reason: 'this server is about to start', removed: false }
      : started.server.refusePeer(member, presence);
  const lastIndex = recovered.entries.at(-1)?.index ?? snapshot.index;
  const standing: PeerStanding = {
    term: recovered.hardState?.term ?? 0,
    lastIndex,
    ...(lastIndex === 0 && snapshot.configuration.voters.length > 0 && { founds: true }),
  };
  const transport = options.transport(acceptPeer, run, () => standing, lineage);
  const server = new Server(options, { storage, transport, raft, run, lineage, store, storeOptions });
  started.server = server;
  await server.start();
  return server;
};

/**
 * The first start of a new member: the configured members are the first configuration. It is written down at once,
 * so that a later edit of the file can't change who counts. Who joins counts nobody until the log says who does.
 */
const bootstrap = async ({ storage, members, join = false }: StartServerOptions): Promise<SnapshotPoint> => {
  const configuration = join ? emptyConfiguration : initialConfiguration(members.map(({ id }) => id));
  const point: SnapshotPoint = { index: asLogIndex(0), term: asTerm(0), configuration };
  await storage.write({ entries: [], stateWrites: [], compactTo: point, sync: true });
  return point;
};
