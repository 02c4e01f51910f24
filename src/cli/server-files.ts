/** The files that a server's configuration names, read and checked: certificates, keys, policies. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parsePolicyFile } from '../gateway/index.ts';
import { FuturestoreError } from '../protocol/index.ts';
import type { Policies, PolicyDocument, RealmDocument } from '../scopes/index.ts';
import { compilePolicies, PolicyError } from '../scopes/index.ts';
import type { ServerConfiguration } from './configuration/server-configuration.ts';
import { parseServerConfiguration } from './configuration/server-configuration.ts';

const invalid = (message: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError('CONFIGURATION_INVALID', message, { cause });

const systemText = (error: unknown): string => {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') return 'it does not exist';
  if (code === 'EACCES') return 'this user may not read it';
  if (code === 'EISDIR') return 'it is a directory';
  return error instanceof Error ? error.message : String(error);
};

const readText = (file: string, what: string): string => {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw invalid(`cannot read ${what} ${file}: ${systemText(error)}`, error);
  }
};

export const readServerConfiguration = (file: string): ServerConfiguration =>
  parseServerConfiguration(readText(file, 'the configuration'), file);

interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

const parseCertificate = (pem: string, file: string): X509Certificate => {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw invalid(`${file} holds no certificate in PEM form: give the file that init made`, error);
  }
};

/** Reads a certificate and its key, and finds out now, not at the first handshake, whether they can work. */
const readKeyPair = (
  place: string,
  files: KeyPair,
  nowMs: number,
): KeyPair & { readonly leaf: X509Certificate } => {
  const cert = readText(files.cert, `the certificate of ${place}`);
  const key = readText(files.key, `the private key of ${place}`);
  const leaf = parseCertificate(cert, files.cert);
  if (Date.parse(leaf.validTo) <= nowMs) {
    throw invalid(`${files.cert} has expired at ${leaf.validTo}: issue a new certificate for ${place}`);
  }
  const fits = ((): boolean => {
    try {
      return leaf.checkPrivateKey(createPrivateKey(key));
    } catch (error) {
      throw invalid(
        `${files.key} holds no usable private key in PEM form: give the one that belongs to ${files.cert}`,
        error,
      );
    }
  })();
  if (!fits)
    throw invalid(`${files.key} is not the private key of ${files.cert}: give the two that belong together`);
  return { cert, key, leaf };
};

export interface ServerFiles {
  readonly agents: KeyPair;
  readonly peers: KeyPair & { readonly ca: string };
  readonly policies: Policies;
}

/** What certificates and keys of realms stand in files: their paths, for those who look whether they change. */
export const realmFiles = ({ policyFile }: ServerConfiguration): readonly string[] =>
  Object.values(parsedPolicies(policyFile).realms).flatMap(({ tls, jwt }) => [
    ...(tls === undefined || isPem(tls.issuer) ? [] : [resolve(dirname(policyFile), tls.issuer)]),
    ...(jwt === undefined || isJson(jwt.keys) ? [] : [resolve(dirname(policyFile), jwt.keys)]),
  ]);

/** A policy file's document with the texts of the files that it names in their place. Throws CONFIGURATION_INVALID. */
export const readPolicyDocument = (file: string): PolicyDocument => {
  const document = parsedPolicies(file);
  const realms = Object.entries(document.realms).map(([name, realm]): [string, RealmDocument] => [
    name,
    withTexts(name, realm, dirname(file)),
  ]);
  return { ...document, realms: Object.fromEntries(realms) };
};

const parsedPolicies = (file: string): PolicyDocument => parsePolicyFile(readText(file, 'the policy'), file);

const isPem = (text: string): boolean => text.includes('-----BEGIN ');
const isJson = (text: string): boolean => text.trimStart().startsWith('{');

const withTexts = (name: string, realm: RealmDocument, directory: string): RealmDocument => {
  const { tls, jwt } = realm;
  const textOf = (text: string, isText: boolean, what: string): string =>
    isText ? text : readText(resolve(directory, text), `${what} of realm ${name}`);
  return {
    ...realm,
    ...(tls && {
      tls: {
        ...tls,
        issuer: textOf(tls.issuer, isPem(tls.issuer), 'the issuer'),
        // Read again and again while the server runs, so its path stays.
        ...(tls.crl !== undefined && { crl: resolve(directory, tls.crl) }),
      },
    }),
    ...(jwt && { jwt: { ...jwt, keys: textOf(jwt.keys, isJson(jwt.keys), 'the keys') } }),
  };
};

const readPolicies = (file: string): Policies => {
  try {
    return compilePolicies(readPolicyDocument(file));
  } catch (error) {
    if (error instanceof PolicyError) throw invalid(`${file}: ${error.message}`, error);
    throw error;
  }
};

const commonNameOf = (leaf: X509Certificate): unknown => leaf.toLegacyObject().subject?.CN;

/** What agents are shown. Throws CONFIGURATION_INVALID. `nowMs`: milliseconds since 1970. */
export const readAgentsFiles = ({ agents }: ServerConfiguration, nowMs: number): ServerFiles['agents'] => {
  const { cert, key } = readKeyPair('agents', agents, nowMs);
  return { cert, key };
};

/** What the other servers are shown, and known by. Throws CONFIGURATION_INVALID. */
export const readPeersFiles = ({ peers, self }: ServerConfiguration, nowMs: number): ServerFiles['peers'] => {
  const { leaf, ...pair } = readKeyPair('peers', peers, nowMs);
  const commonName = commonNameOf(leaf);
  if (commonName !== self.name) {
    throw invalid(
      `${peers.cert} is of ${JSON.stringify(commonName)}, but this server is ${self.name}: ` +
        `the other servers would refuse it; give the certificate whose CN is the server's name`,
    );
  }
  const ca = readText(peers.ca, 'the CA of peers');
  parseCertificate(ca, peers.ca);
  return { ...pair, ca };
};

/** Throws CONFIGURATION_INVALID, naming the file and what is wrong with it. `nowMs`: milliseconds since 1970. */
export const readServerFiles = (configuration: ServerConfiguration, nowMs: number): ServerFiles => ({
  peers: readPeersFiles(configuration, nowMs),
  agents: readAgentsFiles(configuration, nowMs),
  policies: readPolicies(configuration.policyFile),
});
