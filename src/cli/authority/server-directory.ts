/** The directory of one server: its certificates and its server.yaml. */
import { X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseDocument } from 'yaml';
import { FuturestoreError } from '../../protocol/index.ts';
import { issueLeaf } from './certificates.ts';
import type { Credentials } from './certificates.ts';
import { adminProfileOf, makeDirectory, readClusterFile, writeCredentials, writePublic } from './files.ts';
import type { PlannedMember, PlannedServer } from './yaml-text.ts';
import { serverText } from './yaml-text.ts';

const localHosts = ['127.0.0.1', '::1', 'localhost'];

export interface ServerCertificates {
  readonly shown: Credentials;
  readonly peer: Credentials;
}

/** `hosts`: where it is reached, besides this machine's own names. */
export const issueServerCertificates = async (
  authority: Credentials,
  name: string,
  hosts: readonly string[],
  nowMs: number,
): Promise<ServerCertificates> => {
  const base = { commonName: name, hosts: [...new Set([...localHosts, ...hosts])], server: true };
  return {
    // What agents see serves only: it can open no link between servers.
    shown: await issueLeaf(authority, { ...base, client: false }, nowMs),
    peer: await issueLeaf(authority, { ...base, client: true }, nowMs),
  };
};

export interface ServerDirectory {
  readonly path: string;
  readonly clusterId: string;
  readonly certificates: ServerCertificates;
  readonly members: readonly PlannedMember[];
  readonly self: PlannedServer;
  /** Its disk begins empty, and the cluster fills it. */
  readonly join: boolean;
}

/** Gives its server.yaml. */
export const writeServerDirectory = async (server: ServerDirectory): Promise<string> => {
  const { path, clusterId, certificates, members, self, join: joins } = server;
  await makeDirectory(path);
  await writeCredentials(path, 'server', certificates.shown);
  await writeCredentials(path, 'peer', certificates.peer);
  const file = join(path, 'server.yaml');
  await writePublic(file, serverText(clusterId, members, self, joins));
  return file;
};

/**
 * The authority of the servers' certificates. Throws CONFIGURATION_INVALID if the directory has none, or that of
 * another cluster.
 */
export const readServersAuthority = async (directory: string, clusterId: string): Promise<Credentials> => {
  const file = join(directory, 'ca', 'servers.pem');
  const certificate = await readClusterFile(file);
  const privateKey = await readClusterFile(join(directory, 'ca', 'servers.key'));
  const made = /CN=Futurestore ([0-9a-f]{8}) servers CA/.exec(new X509Certificate(certificate).subject)?.[1];
  if (made !== undefined && !clusterId.startsWith(made)) {
    throw new FuturestoreError(
      'CONFIGURATION_INVALID',
      `${file} is of the cluster ${made}…, but this one is ${clusterId}: give the directory of this cluster with --dir`,
    );
  }
  return { certificate, privateKey };
};

/** Throws CONFIGURATION_INVALID if a server has been run from this directory. */
export const refuseIfUsed = (path: string): void => {
  if (!existsSync(join(path, 'data'))) return;
  throw new FuturestoreError(
    'CONFIGURATION_INVALID',
    `${path} is the directory of a server that has been run, with its data: move it away first`,
  );
};

/** Where the administrator's profile finds the servers from now on; what else is in it stays as it is. */
export const updateAdminEndpoints = async (
  directory: string,
  endpoints: readonly string[],
): Promise<void> => {
  const profile = adminProfileOf(directory);
  if (!existsSync(profile)) return;
  const document = parseDocument(await readClusterFile(profile));
  if (document.errors.length > 0 || !document.has('endpoints')) return;
  document.set('endpoints', document.createNode([...endpoints]));
  await writePublic(profile, String(document));
};

/** The same, without this one, unless it is the only one. Of a profile that is no administrator's nothing is changed. */
export const removeAdminEndpoint = async (profile: string, endpoint: string): Promise<void> => {
  const directory = dirname(profile);
  if (profile !== adminProfileOf(directory) || !existsSync(join(directory, 'ca', 'servers.pem'))) return;
  const document = parseDocument(await readClusterFile(profile));
  if (document.errors.length > 0) return;
  const { endpoints } = (document.toJS() ?? {}) as { readonly endpoints?: unknown };
  if (!Array.isArray(endpoints)) return;
  const remaining = endpoints.filter((one): one is string => typeof one === 'string' && one !== endpoint);
  if (remaining.length > 0 && remaining.length < endpoints.length)
    await updateAdminEndpoints(directory, remaining);
};
