/**
 * Known bugs, each one rule broken in one place. Put into the code one at a time, each must be found by the
 * simulation: one that survives is a hole in the checks, or something that the simulated world never does.
 */
import type { Mutation } from './mutation.ts';
import { accessMutations } from './rooms/access.ts';
import { clientMutations } from './rooms/client.ts';
import { feedMutations } from './rooms/feed.ts';
import { gatewayMutations } from './rooms/gateway.ts';
import { peersMutations } from './rooms/peers.ts';
import { raftMutations } from './rooms/raft.ts';
import { raftMembershipMutations } from './rooms/raft-membership.ts';
import { serverMutations } from './rooms/server.ts';
import { storageMutations } from './rooms/storage.ts';
import { storeMutations } from './rooms/store.ts';

export const mutations: readonly Mutation[] = [
  ...raftMutations,
  ...raftMembershipMutations,
  ...peersMutations,
  ...storageMutations,
  ...storeMutations,
  ...serverMutations,
  ...feedMutations,
  ...gatewayMutations,
  ...clientMutations,
  ...accessMutations,
];
