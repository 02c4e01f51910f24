/** A client's certificate as plain data: what a realm may ask about it, once its signature has been verified. */
import 'reflect-metadata';
import type { X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { isSegment, parseSerial } from '../scopes/index.ts';
import type { TlsIdentity } from '../scopes/index.ts';
import { extensionText } from './extension-text.ts';

export interface CertificateFacts {
  /** As it is written there: a segment of a key. */
  readonly name: string;
  /** What in the certificate the name is. */
  readonly namedBy: TlsIdentity;
  /** Lower-case hex without leading zeros. */
  readonly serial: string;
  /** Milliseconds since 1970. */
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  /** By OID: the extensions whose value is one short text. */
  readonly extensions: ReadonlyMap<string, string>;
}

export type CertificateVerdict =
  | { readonly ok: true; readonly facts: CertificateFacts }
  /** For the one who is refused, and the log. */
  | { readonly ok: false; readonly problem: string };

const clientAuthentication = '1.3.6.1.5.5.7.3.2';
const anyUsage = '2.5.29.37.0';
const keyUsages = '2.5.29.15';
const subjectAlternativeName = '2.5.29.17';
const basicConstraints = '2.5.29.19';
const nameConstraints = '2.5.29.30';
const certificatePolicies = '2.5.29.32';
const extendedUsages = '2.5.29.37';

/** Critical ones that are not here mean something that would go unheeded: RFC 5280, 4.2, says to refuse them. */
const heeded: ReadonlySet<string> = new Set([
  keyUsages,
  subjectAlternativeName,
  basicConstraints,
  certificatePolicies,
  extendedUsages,
]);

/** As revocations name it. */
export const serialOf = (hex: string): string => parseSerial(hex) ?? hex;

/**
 * `leaf`: signed by a pinned issuer; whatever else is wrong with it is found here, but for its time. `identity`: what the
 * realm takes names from.
 */
export const readCertificate = (leaf: X509Certificate, identity: TlsIdentity): CertificateVerdict => {
  const { extensions, signatureAlgorithm } = new x509.X509Certificate(leaf.raw);
  const name = identity === 'cn' ? commonNameOf(leaf) : dnsNameOf(extensions);
  if (!name.ok) return name;
  const problem =
    strengthProblem(leaf, signatureAlgorithm as unknown as SignatureAlgorithm) ??
    usageProblem(leaf, extensions);
  if (problem !== undefined) return { ok: false, problem };
  const texts = new Map<string, string>();
  for (const { type, value } of extensions) {
    const text = extensionText(new Uint8Array(value));
    if (text !== undefined) texts.set(type, text);
  }
  const facts: CertificateFacts = {
    name: name.name,
    namedBy: identity,
    serial: serialOf(leaf.serialNumber),
    issuedAtMs: Date.parse(leaf.validFrom),
    expiresAtMs: Date.parse(leaf.validTo),
    extensions: texts,
  };
  return { ok: true, facts };
};

/** For SHA-1 and older somebody else could make a certificate with the signature of a good one. */
const soundHashes: ReadonlySet<string> = new Set(['SHA-256', 'SHA-384', 'SHA-512']);
const hashless: ReadonlySet<string> = new Set(['Ed25519', 'Ed448']);
const rsaBitsMin = 2048;

/** The library's type says it by types of the browser's, and that there is always a hash. */
interface SignatureAlgorithm {
  readonly name: string;
  readonly hash?: { readonly name: string };
}

const strengthProblem = (leaf: X509Certificate, { name, hash }: SignatureAlgorithm): string | undefined => {
  if (!hashless.has(name) && !soundHashes.has(hash?.name ?? ''))
    return `the certificate is signed with ${name} and ${hash?.name ?? 'an unknown hash'}: have it issued with SHA-256`;
  const bits = leaf.publicKey.asymmetricKeyDetails?.modulusLength;
  return bits !== undefined && bits < rsaBitsMin
    ? `the certificate's RSA key has ${bits} bits: make one with at least ${rsaBitsMin}`
    : undefined;
};

const usageProblem = (leaf: X509Certificate, extensions: readonly x509.Extension[]): string | undefined => {
  const seen = new Set<string>();
  for (const { type, critical } of extensions) {
    if (seen.has(type)) return `the certificate has the extension ${type} twice: issue one that has it once`;
    seen.add(type);
    if (critical && !heeded.has(type))
      return `the certificate has the critical extension ${type}, which means nothing here: issue one without it`;
  }
  if (leaf.ca)
    return 'the certificate is that of an authority: issue one for the agent itself, which signs nothing';
  const usages = extensions.find((extension) => extension instanceof x509.KeyUsagesExtension);
  if (usages !== undefined && (usages.usages & x509.KeyUsageFlags.digitalSignature) === 0)
    return 'the certificate is not for signatures (key usage), which TLS needs: issue one that is';
  const purposes = extensions.find((extension) => extension instanceof x509.ExtendedKeyUsageExtension);
  if (purposes === undefined) return undefined;
  const forClients = purposes.usages.some((usage) => usage === clientAuthentication || usage === anyUsage);
  return forClients
    ? undefined
    : 'the certificate is not for clients (extended key usage): issue one for client authentication';
};

/** What makes an authority's certificate unfit to be pinned; undefined: nothing. */
export const authorityProblem = (certificate: X509Certificate): string | undefined => {
  if (!certificate.ca) return 'is no certificate of an authority: give the one that signs the certificates';
  const { extensions } = new x509.X509Certificate(certificate.raw);
  const constrained = extensions.some(({ type }) => type === nameConstraints);
  return constrained ? 'has name constraints, which are not checked here: pin one without them' : undefined;
};

type NameVerdict =
  { readonly ok: true; readonly name: string } | { readonly ok: false; readonly problem: string };

/** Of RFC 5280's preferred syntax (and '_', which names of services have), in lower case and without a dot at the end. */
const dnsNamePattern = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/;

const dnsNameOf = (extensions: readonly x509.Extension[]): NameVerdict => {
  const names = extensions
    .filter((extension) => extension instanceof x509.SubjectAlternativeNameExtension)
    .flatMap((extension) => extension.names.items)
    .filter(({ type }) => type === 'dns')
    .map(({ value }) => value);
  const [name] = names;
  if (name === undefined) {
    const problem =
      'the certificate has no DNS name (subject alternative name): issue one with the name of the agent';
    return { ok: false, problem };
  }
  if (names.length > 1) {
    const problem = `the certificate has ${names.length} DNS names (subject alternative names): issue one with exactly one`;
    return { ok: false, problem };
  }
  const shown = JSON.stringify(name.slice(0, 40));
  if (name.includes('*'))
    return { ok: false, problem: `the DNS name ${shown} is a wildcard, which is nobody's name` };
  // DNS knows no case and keys do: one host would be two principals.
  if (!dnsNamePattern.test(name)) {
    const problem = `the DNS name ${shown} is not a name of a-z 0-9 - _ between dots, in lower case: issue one so`;
    return { ok: false, problem };
  }
  return segmentProblem('DNS name', name) ?? { ok: true, name };
};

const commonNameOf = (leaf: X509Certificate): NameVerdict => {
  // The legacy object lists every attribute of the subject on its own; the text form would have to be parsed.
  const names: unknown = leaf.toLegacyObject().subject?.CN;
  if (names === undefined) {
    const problem = 'the certificate has no common name (CN): issue one with the name of the agent';
    return { ok: false, problem };
  }
  if (typeof names !== 'string') {
    const problem = 'the certificate has more than one common name (CN): issue one with exactly one';
    return { ok: false, problem };
  }
  return segmentProblem('common name', names) ?? { ok: true, name: names };
};

/** The name goes into keys as one whole segment, case and all: what is none would not be the same name there. */
export const segmentProblem = (
  what: string,
  name: string,
): { readonly ok: false; readonly problem: string } | undefined => {
  if (isSegment(name)) return undefined;
  const shown = JSON.stringify(name.slice(0, 40));
  const problem = `the ${what} ${shown} is no segment of a key: 1 to 128 of A-Z a-z 0-9 . _ ~ @ : = -, not . or ..`;
  return { ok: false, problem };
};
