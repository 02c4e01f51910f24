/** What a server says of itself: to its gateways, its peers, and operators. */
import type { Feed } from '../feed/index.ts';
import type { PeerStatus } from '../peers/index.ts';
import type { ClusterStatus } from '../protocol/index.ts';
import type { Raft } from '../raft/index.ts';
import type { Store } from '../store/index.ts';
import type { Commands } from './commands.ts';
import type { Gateways } from './gateways.ts';
import type { Membership } from './membership.ts';
import type { ServerOptions, ServerStatus } from './options.ts';
import type { ServerIdentity } from './port.ts';
import { ownStatus, type PeerStatuses } from './status.ts';

export interface SelfDescriptionParts {
  readonly options: ServerOptions;
  readonly raft: Raft;
  readonly store: () => Store;
  readonly membership: Membership;
  readonly statuses: PeerStatuses;
  readonly gateways: () => Gateways;
  readonly commands: Commands;
  readonly feed: Feed;
  readonly isDraining: () => boolean;
}

export class SelfDescription {
  readonly #parts: SelfDescriptionParts;

  constructor(parts: SelfDescriptionParts) {
    this.#parts = parts;
  }

  identity(): ServerIdentity {
    const { options, store, membership } = this.#parts;
    return {
      clusterId: options.clusterId,
      epoch: store().epoch,
      serverId: options.self.id,
      serverName: options.self.name,
      endpoints: membership.endpoints,
    };
  }

  /** For peers. */
  own(): PeerStatus {
    const { options, raft, store, membership, gateways, isDraining } = this.#parts;
    return ownStatus(raft.status(), membership.isLearner, {
      name: options.self.name,
      keys: store().keys,
      connections: gateways().connections,
      version: options.version,
      draining: isDraining(),
    });
  }

  cluster(): ClusterStatus {
    const { options, raft, store, membership, statuses } = this.#parts;
    const { self, clusterId, environment } = options;
    return statuses.cluster(
      membership.directory.current,
      { id: self.id, status: this.own() },
      raft.status().leader,
      (member) => membership.isReachable(member),
      { clusterId, epoch: store().epoch, revision: store().revision },
      environment.monotonicMs(),
    );
  }

  /** For operators. */
  status(): ServerStatus {
    const { raft, store, commands, feed } = this.#parts;
    return {
      ...this.own(),
      leader: raft.status().leader,
      revision: store().revision,
      pendingCommands: commands.pending,
      sessions: store().sessions,
      waits: feed.counts.waits,
      subscriptions: feed.counts.subscriptions,
    };
  }
}
