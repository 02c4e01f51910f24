/** Where a server that is added will be reached: as told, as the one it replaces was, or beside the others. */
import type { Member } from '../protocol/index.ts';
import { formatHostAndPort, parseHostAndPort } from '../protocol/index.ts';
import { portStride } from './authority/cluster-directory.ts';
import { UsageError } from './exit-codes.ts';

/** Ports as `init` lays them out: peers' are 10 above agents', the operators' 20. */
export interface ServerAddresses {
  readonly host: string;
  /** host:port */
  readonly peersAddress: string;
  /** wss://host:port */
  readonly agentsUrl: string;
  readonly agentsPort: number;
  readonly peersPort: number;
  readonly adminPort: number;
}

export interface AddressWish {
  readonly host?: string;
  /** Agents'. */
  readonly port?: number;
  /** In whose place it comes, or who it is, if it was added before. */
  readonly takenOver?: Member;
}

const agentsOf = ({ agentsUrl }: Member) => parseHostAndPort(agentsUrl.replace(/^wss:\/\//, ''));
const peersOf = ({ peersAddress }: Member) => parseHostAndPort(peersAddress);

export const isLoopback = (host: string): boolean => /^(127\.[0-9.]+|::1|localhost)$/.test(host);

const at = (host: string, agentsPort: number, peersPort = agentsPort + portStride): ServerAddresses => ({
  host,
  peersAddress: formatHostAndPort({ host, port: peersPort }),
  agentsUrl: `wss://${formatHostAndPort({ host, port: agentsPort })}`,
  agentsPort,
  peersPort,
  adminPort: agentsPort + 2 * portStride,
});

/** Of a cluster on one machine: that machine. Elsewhere nobody but the user can know it. */
const hostBeside = (members: readonly Member[]): string => {
  const hosts = members.map((member) => peersOf(member)?.host ?? '');
  const [first] = hosts;
  if (first !== undefined && hosts.every(isLoopback)) return first;
  throw new UsageError(
    `--host is missing: the servers are at ${[...new Set(hosts)].join(', ')}; name the host of the new one`,
  );
};

/** The lowest ports, from those of the others on, that none of them has on any host. */
const freePort = (members: readonly Member[]): number => {
  const taken = new Set<number>();
  for (const member of members) {
    const agents = agentsOf(member)?.port;
    const peers = peersOf(member)?.port;
    if (agents !== undefined) taken.add(agents).add(agents + 2 * portStride);
    if (peers !== undefined) taken.add(peers);
  }
  const isFree = (port: number): boolean =>
    [0, 1, 2].every((offset) => !taken.has(port + offset * portStride));
  let port = Math.min(...members.map((member) => agentsOf(member)?.port ?? Infinity));
  if (port === Infinity) throw new UsageError('--port is missing: no server has told its own');
  while (!isFree(port)) port += 1;
  return port;
};

/** Throws UsageError where the user has to say more. */
export const addressesFor = (members: readonly Member[], wish: AddressWish): ServerAddresses => {
  const { takenOver } = wish;
  const before = takenOver === undefined ? undefined : agentsOf(takenOver);
  const host = wish.host ?? before?.host ?? hostBeside(members);
  if (wish.port !== undefined) return at(host, wish.port);
  if (takenOver !== undefined && before !== undefined && (host !== before.host || !takenOver.reachable))
    return at(host, before.port, peersOf(takenOver)?.port);
  return at(host, freePort(members));
};
