/** A new server for a running cluster: its id from the cluster, its directory from the one that `init` made. */
import { join } from 'node:path';
import type { Member, MemberList } from '../protocol/index.ts';
import { isAgentsUrl, isMemberName, isPeersAddress } from '../protocol/index.ts';
import { serversMax } from './authority/cluster-directory.ts';
import { serverDirectoryOf } from './authority/files.ts';
import type { ServerCertificates } from './authority/server-directory.ts';
import {
  issueServerCertificates,
  readServersAuthority,
  refuseIfUsed,
  updateAdminEndpoints,
  writeServerDirectory,
} from './authority/server-directory.ts';
import type { PlannedMember } from './authority/yaml-text.ts';
import { memberLine } from './authority/yaml-text.ts';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { addressesFor, isLoopback } from './member-addresses.ts';
import type { ServerAddresses } from './member-addresses.ts';
import { titleOf } from './member-changes.ts';

/** Where its files come from. */
export type Place =
  | {
      readonly kind: 'directory';
      /** As `init` made it: with the authorities. */
      readonly directory: string;
      readonly host?: string;
      readonly port?: number;
    }
  /** The user makes them. */
  | { readonly kind: 'elsewhere'; readonly peersAddress: string; readonly agentsUrl: string };

export interface JoinRequest {
  readonly name: string;
  readonly place: Place;
  readonly replaced: Member | undefined;
  readonly list: MemberList;
  readonly timeoutMs: number;
}

export interface Joined {
  readonly member: number;
  readonly name: string;
  readonly peersAddress: string;
  readonly agentsUrl: string;
  /** Where its files are; undefined: the user makes them. */
  readonly directory: string | undefined;
  /** What is to be done, line by line. */
  readonly instructions: readonly string[];
}

const checkedName = (name: string): string => {
  if (isMemberName(name)) return name;
  throw new UsageError(
    `${JSON.stringify(name)} is no name for a server: write 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit`,
  );
};

/** As they are known to the cluster, without those that leave. */
const remaining = ({ members }: MemberList, replaced: Member | undefined): Member[] =>
  members.filter(({ id, wanted }) => wanted !== 'removed' && id !== replaced?.id);

const planned = ({ id, name, peersAddress, agentsUrl }: Member): PlannedMember => ({
  id,
  name,
  peers: peersAddress,
  agentsUrl,
});

const refuseIfFull = (others: readonly Member[]): void => {
  if (others.length < serversMax) return;
  throw new UsageError(
    `the cluster has ${others.length} servers, as many as it may have: remove or replace one instead`,
  );
};

/** Asks the cluster for a new server, and makes what it needs to be started. */
export const joinServer = async (
  environment: CommandEnvironment,
  client: CommandClient,
  request: JoinRequest,
): Promise<Joined> => {
  checkedName(request.name);
  refuseIfFull(remaining(request.list, request.replaced));
  return request.place.kind === 'directory'
    ? joinFromDirectory(environment, client, request, request.place)
    : joinFromElsewhere(client, request, request.place);
};

const ask = (
  client: CommandClient,
  { name, replaced, timeoutMs }: JoinRequest,
  { peersAddress, agentsUrl }: { readonly peersAddress: string; readonly agentsUrl: string },
): Promise<number> =>
  client.addMember(
    { name, peersAddress, agentsUrl, ...(replaced === undefined ? {} : { replaces: replaced.id }) },
    { timeoutMs },
  );

const joinFromElsewhere = async (
  client: CommandClient,
  request: JoinRequest,
  place: Extract<Place, { readonly kind: 'elsewhere' }>,
): Promise<Joined> => {
  const { peersAddress, agentsUrl } = place;
  if (!isPeersAddress(peersAddress))
    throw new UsageError(`--peers ${JSON.stringify(peersAddress)} is no address: write host:port`);
  if (!isAgentsUrl(agentsUrl))
    throw new UsageError(`--agents ${JSON.stringify(agentsUrl)} is no address: write wss://host:port`);
  const { name } = request;
  const member = await ask(client, request, place);
  const members = [
    ...remaining(request.list, request.replaced)
      .filter(({ id }) => id !== member)
      .map(planned),
    { id: member, name, peers: peersAddress, agentsUrl },
  ];
  const lines = members.map((one) => memberLine(one).trimEnd());
  return {
    member,
    name,
    peersAddress,
    agentsUrl,
    directory: undefined,
    instructions: [
      `make its certificates (the CN of its peers' certificate is ${name}) and a server.yaml as the others have it, with`,
      'cluster:',
      '  members:',
      ...lines,
      `member: ${member}`,
      'join: true',
      'then start it on an empty data directory:',
      '  futurestore server --config server.yaml --join',
    ],
  };
};

/** What was begun is gone on with: the same name and addresses give the same id. */
const begunBefore = (members: readonly Member[], name: string): Member | undefined =>
  members.find((member) => member.name === name && member.wanted !== 'removed');

const joinFromDirectory = async (
  environment: CommandEnvironment,
  client: CommandClient,
  request: JoinRequest,
  place: Extract<Place, { readonly kind: 'directory' }>,
): Promise<Joined> => {
  const { name, replaced, list, timeoutMs } = request;
  const { directory, host, port } = place;
  const others = remaining(list, replaced);
  const takenOver = begunBefore(others, name) ?? replaced;
  const addresses = addressesFor(list.members, {
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port }),
    ...(takenOver === undefined ? {} : { takenOver }),
  });
  const { clusterId } = await client.status({ timeoutMs });
  // Whatever could fail does so before the cluster is asked: who has an id should get a directory too.
  const authority = await readServersAuthority(directory, clusterId);
  const certificates = await issueServerCertificates(authority, name, [addresses.host], environment.now());
  const member = await ask(client, request, addresses);
  try {
    const path = await writeDirectory({
      directory,
      clusterId,
      certificates,
      member,
      name,
      addresses,
      others,
    });
    return {
      member,
      name,
      peersAddress: addresses.peersAddress,
      agentsUrl: addresses.agentsUrl,
      directory: path,
      instructions: startInstructions(directory, path, addresses.host, member),
    };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const again =
      replaced === undefined ? 'run the command again' : `replace it: futurestore member replace ${member}`;
    throw new Error(
      `${titleOf({ id: member, name })} is added, but its directory could not be made: ${why}; then ${again}`,
      { cause: error },
    );
  }
};

const writeDirectory = async (made: {
  readonly directory: string;
  readonly clusterId: string;
  readonly certificates: ServerCertificates;
  readonly member: number;
  readonly name: string;
  readonly addresses: ServerAddresses;
  readonly others: readonly Member[];
}): Promise<string> => {
  const { directory, clusterId, certificates, member, name, addresses } = made;
  const path = serverDirectoryOf(directory, member);
  refuseIfUsed(path);
  const others = made.others.filter(({ id }) => id !== member);
  // One that is reached from elsewhere listens everywhere; one of this machine only here.
  const listenHost = isLoopback(addresses.host) ? addresses.host : '0.0.0.0';
  const listen = (host: string, port: number): string =>
    host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const self = {
    id: member,
    name,
    peers: addresses.peersAddress,
    agentsUrl: addresses.agentsUrl,
    agentsListen: listen(listenHost, addresses.agentsPort),
    peersListen: listen(listenHost, addresses.peersPort),
    adminListen: listen('127.0.0.1', addresses.adminPort),
  };
  const members = [...others.map(planned), self];
  await writeServerDirectory({ path, clusterId, certificates, members, self, join: true });
  await updateAdminEndpoints(directory, [...others.map(({ agentsUrl }) => agentsUrl), self.agentsUrl]);
  return path;
};

const startInstructions = (directory: string, path: string, host: string, member: number): string[] => {
  if (isLoopback(host))
    return ['start it:', `  futurestore server --config ${join(path, 'server.yaml')} --join`];
  return [
    `copy to ${host}, in the same arrangement, from ${directory}:`,
    `  server-${member}/  ca/servers.pem  ca/agents.pem  policy.yaml`,
    'and start it there:',
    `  futurestore server --config server-${member}/server.yaml --join`,
  ];
};
