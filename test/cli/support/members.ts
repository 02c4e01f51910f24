/** A cluster's members as a test changes them. */
import type { CommandClient } from '../../../src/cli/index.ts';
import type { ClusterStatus, Member, MemberList } from '../../../src/protocol/index.ts';

const clusterId = '0123456789abcdef0123456789abcdef';

export const member = (id: number, rest: Partial<Member> = {}): Member => ({
  id,
  name: `server-${id}`,
  peersAddress: `127.0.0.1:${7430 + id}`,
  agentsUrl: `wss://127.0.0.1:${7420 + id}`,
  standing: 'voter',
  wanted: 'voter',
  reachable: true,
  lag: 0,
  joined: true,
  ...rest,
});

export const listOf = (members: readonly Member[], rest: Partial<MemberList> = {}): MemberList => ({
  members,
  changePending: false,
  leader: 1,
  ...rest,
});

export const three = listOf([1, 2, 3].map((id) => member(id)));

const status = (id: string): ClusterStatus => ({
  clusterId: id,
  epoch: 1,
  revision: 7,
  serverId: 1,
  members: [],
});

/** A client whose lists of members are these, one after the other; the last one stays. */
export const clientWith = (
  lists: readonly MemberList[],
  more: Partial<CommandClient> = {},
  id = clusterId,
): Partial<CommandClient> => {
  let asked = 0;
  return {
    members: () => {
      const list = lists[Math.min(asked, lists.length - 1)] ?? three;
      asked += 1;
      return Promise.resolve(list);
    },
    status: () => Promise.resolve(status(id)),
    ...more,
  };
};
