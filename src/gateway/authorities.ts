/**
 * The authorities that a realm pins. One is recognised by verifying a signature with its key, never by its name: any
 * two authorities may have one name.
 */
import { X509Certificate } from 'node:crypto';
import { FuturestoreError } from '../protocol/index.ts';
import { authorityProblem, serialOf } from './certificates.ts';

export interface Authority {
  readonly realm: string;
  readonly certificate: X509Certificate;
  /** SHA-256 of the certificate. */
  readonly fingerprint: string;
  readonly serial: string;
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number;
  /** The one of the same realm that signed it, if that is pinned too. */
  parent: Authority | undefined;
}

const certificatePattern = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;
/** A realm has a root and a few intermediates; each is tried for each new connection. */
const authoritiesMax = 32;

const invalid = (realm: string, problem: string, cause?: unknown): FuturestoreError =>
  new FuturestoreError('CONFIGURATION_INVALID', `realm ${realm}: ${problem}`, { cause });

/** Throws CONFIGURATION_INVALID for what is no certificate of an authority. `pem` may hold several. */
export const parseAuthorities = (realm: string, pem: string): readonly Authority[] => {
  const blocks = pem.match(certificatePattern) ?? [];
  if (blocks.length === 0) {
    throw invalid(
      realm,
      `its issuer holds no PEM certificate: give the file of the CA that signs its agents' certificates`,
    );
  }
  if (blocks.length > authoritiesMax) {
    throw invalid(
      realm,
      `its issuer holds ${blocks.length} certificates, at most ${authoritiesMax} are allowed`,
    );
  }
  const authorities = blocks.map((block) => parseAuthority(realm, block));
  for (const authority of authorities) {
    authority.parent = authorities.find(
      (other) => other.fingerprint !== authority.fingerprint && hasIssued(other, authority.certificate),
    );
  }
  return authorities;
};

const parseAuthority = (realm: string, block: string): Authority => {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(block);
  } catch (error) {
    throw invalid(realm, "its issuer's PEM cannot be read: make it anew", error);
  }
  const problem = authorityProblem(certificate);
  if (problem !== undefined)
    throw invalid(realm, `its issuer ${JSON.stringify(certificate.subject)} ${problem}`);
  return {
    realm,
    certificate,
    fingerprint: certificate.fingerprint256,
    serial: serialOf(certificate.serialNumber),
    expiresAtMs: Date.parse(certificate.validTo),
    parent: undefined,
  };
};

export const hasIssued = ({ certificate }: Authority, issued: X509Certificate): boolean =>
  issued.checkIssued(certificate) && issued.verify(certificate.publicKey);

/** From the one that signed the leaf up to the last that is pinned. */
export const chainOf = (authority: Authority): readonly Authority[] => {
  const chain: Authority[] = [];
  for (let one: Authority | undefined = authority; one !== undefined; one = one.parent) {
    // Two authorities that have signed each other end here as well.
    if (chain.includes(one)) break;
    chain.push(one);
  }
  return chain;
};

/** Throws CONFIGURATION_INVALID where two realms pin one key: nobody could tell their agents apart. */
export const refuseSharedKeys = (authorities: readonly Authority[]): void => {
  const realmByKey = new Map<string, string>();
  for (const { realm, certificate } of authorities) {
    const key = certificate.publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
    const other = realmByKey.get(key);
    if (other !== undefined && other !== realm) {
      throw new FuturestoreError(
        'CONFIGURATION_INVALID',
        `realms ${other} and ${realm} have the same issuer, so nobody could tell their agents apart: give each its own CA`,
      );
    }
    realmByKey.set(key, realm);
  }
};
