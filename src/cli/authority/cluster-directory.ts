/** A cluster's directory: what `init` makes of an empty one, and what `cert` adds. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { FuturestoreError } from '../../protocol/index.ts';
import { keyProblem } from '../../scopes/index.ts';
import { formatHostAndPort } from '../configuration/scalars.ts';
import { commonNameLengthMax, createAuthority, issueLeaf } from './certificates.ts';
import type { Credentials } from './certificates.ts';
import {
  adminProfileOf,
  makeDirectory,
  readClusterFile,
  serverDirectoryOf,
  writeCredentials,
  writePublic,
} from './files.ts';
import { issueServerCertificates, writeServerDirectory } from './server-directory.ts';
import type { PlannedServer } from './yaml-text.ts';
import { policyText, profileText } from './yaml-text.ts';

export interface InitOptions {
  readonly directory: string;
  /** 1–9. */
  readonly servers: number;
  /**
   * Names and addresses under which servers are reached: one for each of several servers, in order; else the first is
   * where all are. All of them go into every server's certificates. None: 127.0.0.1.
   */
  readonly hosts: readonly string[];
  /** Agents' ports are this and the following; peers' begin 10 later, admin's 20. */
  readonly basePort: number;
  /** Milliseconds since 1970: what certificates are dated by. */
  readonly nowMs: number;
}

export interface InitializedCluster {
  readonly clusterId: string;
  readonly adminProfile: string;
  /** The server.yaml of each. */
  readonly serverConfigurations: readonly string[];
}

/** The distance between the three ranges of ports, and so the most servers that `init` makes. */
export const portStride = 10;
export const serversMax = portStride - 1;
export const basePortMax = 65_535 - 3 * portStride;

const refuse = (message: string): FuturestoreError => new FuturestoreError('CONFIGURATION_INVALID', message);

/** What `init` would overwrite. */
const presentParts = async (directory: string): Promise<string[]> => {
  if (!existsSync(directory)) return [];
  const names = await readdir(directory);
  return names.filter((name) => /^(ca|admin\.(yaml|pem|key)|policy\.yaml|agents|server-[0-9]+)$/.test(name));
};

/** In the subject of an authority that `init` made for agents: the first eight digits of its cluster's id. */
export const agentsAuthorityPattern = /^CN=Futurestore ([0-9a-f]{8}) agents CA$/;

/** Whether `init` has been completed in the directory. */
export const isInitialized = (directory: string): boolean => existsSync(adminProfileOf(directory));

const plan = (options: InitOptions): PlannedServer[] => {
  const { hosts } = options;
  const oneEach = hosts.length === options.servers;
  // A cluster that is reached from elsewhere listens everywhere; one of this machine only here.
  const listenHost = hosts.length === 0 ? '127.0.0.1' : '0.0.0.0';
  return Array.from({ length: options.servers }, (_, index) => {
    const host = (oneEach ? hosts[index] : hosts[0]) ?? '127.0.0.1';
    const at = (offset: number): number => options.basePort + offset * portStride + index;
    return {
      id: index + 1,
      name: `server-${index + 1}`,
      peers: formatHostAndPort({ host, port: at(1) }),
      agentsUrl: `wss://${formatHostAndPort({ host, port: at(0) })}`,
      agentsListen: formatHostAndPort({ host: listenHost, port: at(0) }),
      peersListen: formatHostAndPort({ host: listenHost, port: at(1) }),
      adminListen: formatHostAndPort({ host: '127.0.0.1', port: at(2) }),
    };
  });
};

const refuseIfPresent = async (directory: string): Promise<void> => {
  const present = await presentParts(directory);
  if (present.length === 0) return;
  if (isInitialized(directory)) {
    throw refuse(
      `${directory} holds a cluster already: choose another directory, or move this one away first`,
    );
  }
  throw refuse(
    `${directory} holds parts of a cluster (${present.join(', ')}) but no admin.yaml, as an interrupted init leaves it: ` +
      `remove them and run init again`,
  );
};

/**
 * Makes authorities, certificates, configurations and the administrator's profile. Private keys get mode 0600,
 * directories 0700. Throws CONFIGURATION_INVALID if the directory holds a cluster or parts of one.
 */
export const initCluster = async (options: InitOptions): Promise<InitializedCluster> => {
  const { directory, nowMs } = options;
  await refuseIfPresent(directory);
  const clusterId = randomBytes(16).toString('hex');
  const short = clusterId.slice(0, 8);
  const authorities = {
    servers: await createAuthority(`Futurestore ${short} servers CA`, nowMs),
    agents: await createAuthority(`Futurestore ${short} agents CA`, nowMs),
  };
  await makeDirectory(directory);
  const ca = join(directory, 'ca');
  await makeDirectory(ca);
  await writeCredentials(ca, 'servers', authorities.servers);
  await writeCredentials(ca, 'agents', authorities.agents);
  await writePublic(join(directory, 'policy.yaml'), policyText());
  const servers = plan(options);
  const serverConfigurations: string[] = [];
  for (const self of servers) {
    const file = await writeServerDirectory({
      path: serverDirectoryOf(directory, self.id),
      clusterId,
      certificates: await issueServerCertificates(authorities.servers, self.name, options.hosts, nowMs),
      members: servers,
      self,
      join: false,
    });
    serverConfigurations.push(file);
  }
  await makeDirectory(join(directory, 'agents'));
  // The administrator's profile comes last: where it is, the rest is.
  const endpoints = servers.map(({ agentsUrl }) => agentsUrl);
  await writeAdmin(directory, endpoints, authorities.agents, nowMs);
  return { clusterId, adminProfile: adminProfileOf(directory), serverConfigurations };
};

const writeAdmin = async (
  directory: string,
  endpoints: readonly string[],
  agents: Credentials,
  nowMs: number,
): Promise<void> => {
  const leaf = { commonName: administratorName, hosts: [], server: false, client: true };
  await writeCredentials(directory, administratorName, await issueLeaf(agents, leaf, nowMs));
  await writePublic(
    adminProfileOf(directory),
    profileText({
      endpoints,
      ca: 'ca/servers.pem',
      cert: 'admin.pem',
      key: 'admin.key',
      owner: 'the administrator',
    }),
  );
};

/** The principal that policy.yaml gives everything to. */
export const administratorName = 'admin';

export interface CertificateRequest {
  readonly directory: string;
  readonly name: string;
  /** Also where the name has a certificate, or is the administrator's. */
  readonly reissue: boolean;
  readonly nowMs: number;
}

export interface IssuedAgent {
  readonly name: string;
  readonly profile: string;
  readonly files: readonly string[];
}

const checkName = (name: string): void => {
  const problem = name.includes('/') ? 'has more than one segment' : keyProblem(name);
  if (problem !== undefined) {
    throw new FuturestoreError(
      'INVALID_ARGUMENT',
      `the name ${JSON.stringify(name)} ${problem}: an agent's name is one segment of a key, such as web1 or web1.example.com`,
    );
  }
  if (name.length > commonNameLengthMax) {
    throw new FuturestoreError(
      'INVALID_ARGUMENT',
      `the name has ${name.length} characters: a certificate's common name has at most ${commonNameLengthMax}`,
    );
  }
};

const readEndpoints = async (directory: string): Promise<string[]> => {
  const profile = adminProfileOf(directory);
  const content: unknown = parse(await readClusterFile(profile));
  const endpoints: unknown =
    typeof content === 'object' && content !== null && 'endpoints' in content ? content.endpoints : undefined;
  const texts = Array.isArray(endpoints) ? endpoints.filter((endpoint) => typeof endpoint === 'string') : [];
  if (texts.length === 0)
    throw refuse(`${profile} names no endpoints: list the servers' wss:// addresses there`);
  return texts;
};

/**
 * Issues an agent's certificate: `agents/NAME.{yaml,pem,key,ca}`, four files that belong together wherever they are
 * copied. Throws INVALID_ARGUMENT for a name that is no segment of a key, is the administrator's or has a
 * certificate (unless `reissue`), and CONFIGURATION_INVALID if the directory holds no cluster.
 */
export const issueAgentCertificate = async (request: CertificateRequest): Promise<IssuedAgent> => {
  const { directory, name, nowMs } = request;
  checkName(name);
  const ca = join(directory, 'ca');
  const authority = {
    certificate: await readClusterFile(join(ca, 'agents.pem')),
    privateKey: await readClusterFile(join(ca, 'agents.key')),
  };
  const endpoints = await readEndpoints(directory);
  if (name === administratorName) return reissueAdmin(request, endpoints, authority);
  const agents = join(directory, 'agents');
  const profile = join(agents, `${name}.yaml`);
  if (!request.reissue && existsSync(profile)) {
    throw new FuturestoreError(
      'INVALID_ARGUMENT',
      `${name} has a certificate already (${profile}): use it, choose another name, or replace it with --force-reissue`,
    );
  }
  await makeDirectory(agents);
  const leaf = { commonName: name, hosts: [], server: false, client: true };
  await writeCredentials(agents, name, await issueLeaf(authority, leaf, nowMs));
  await writePublic(join(agents, `${name}.ca`), await readClusterFile(join(ca, 'servers.pem')));
  await writePublic(
    profile,
    profileText({
      endpoints,
      ca: `${name}.ca`,
      cert: `${name}.pem`,
      key: `${name}.key`,
      owner: `the agent ${name}`,
    }),
  );
  return {
    name,
    profile,
    files: ['yaml', 'pem', 'key', 'ca'].map((ending) => join(agents, `${name}.${ending}`)),
  };
};

const reissueAdmin = async (
  request: CertificateRequest,
  endpoints: readonly string[],
  authority: Credentials,
): Promise<IssuedAgent> => {
  if (!request.reissue) {
    throw new FuturestoreError(
      'INVALID_ARGUMENT',
      `the name ${administratorName} is reserved: policy.yaml lets it do everything. Choose another name, or renew the administrator's own certificate with --force-reissue`,
    );
  }
  await writeAdmin(request.directory, endpoints, authority, request.nowMs);
  const files = ['yaml', 'pem', 'key'].map((ending) =>
    join(request.directory, `${administratorName}.${ending}`),
  );
  return { name: administratorName, profile: adminProfileOf(request.directory), files };
};
