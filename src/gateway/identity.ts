/**
 * Who an agent is: the one common name of a certificate that a realm's pinned certificate has signed. The issuer is
 * recognised by verifying the signature with the pinned key, never by its name: any two authorities may have one name.
 */
import { X509Certificate } from 'node:crypto';
import { FuturestoreError } from '../protocol/index.ts';
import { isSegment } from '../scopes/index.ts';

export interface Identity {
  readonly realm: string;
  /** The certificate's common name, as it is written there. */
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number;
}

export type IdentityVerdict =
  | { readonly ok: true; readonly identity: Identity }
  /** For the one who is refused, and the log. */
  | { readonly ok: false; readonly problem: string };

interface PinnedIssuer {
  readonly realm: string;
  readonly certificate: X509Certificate;
}

const certificatePattern = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

/** Judges certificates by the realms' pinned issuers. */
export class Realms {
  readonly #issuers: readonly PinnedIssuer[];

  /** Throws CONFIGURATION_INVALID for what is no certificate, and for an issuer that two realms share. */
  constructor(realmCertificates: Readonly<Record<string, string>>) {
    const issuers: PinnedIssuer[] = [];
    for (const [realm, pem] of Object.entries(realmCertificates)) {
      for (const certificate of parseCertificates(realm, pem)) issuers.push({ realm, certificate });
    }
    refuseSharedKeys(issuers);
    this.#issuers = issuers;
  }

  /** For TLS: every certificate of every realm. */
  get authorities(): string[] {
    return this.#issuers.map((issuer) => issuer.certificate.toString());
  }

  /** `leaf`: what the peer proved to hold the key of. To be asked after every handshake, resumed ones too. */
  judge(leaf: X509Certificate | undefined, wallMs: number): IdentityVerdict {
    if (leaf === undefined)
      return refused('the client sent no certificate: connect with the one that its realm issued');
    const issuer = this.#issuers.find(
      ({ certificate }) => leaf.checkIssued(certificate) && leaf.verify(certificate.publicKey),
    );
    if (issuer === undefined) {
      return refused(
        'the certificate is not signed directly by a CA of any realm here: have it issued by one',
      );
    }
    const expiresAtMs = Date.parse(leaf.validTo);
    if (!(expiresAtMs > wallMs)) return refused(`the certificate expired at ${leaf.validTo}: renew it`);
    if (!(Date.parse(leaf.validFrom) <= wallMs)) {
      return refused(`the certificate is not valid before ${leaf.validFrom}: check the clocks`);
    }
    return nameOf(leaf, issuer.realm, expiresAtMs);
  }
}

const refused = (problem: string): IdentityVerdict => ({ ok: false, problem });

const nameOf = (leaf: X509Certificate, realm: string, expiresAtMs: number): IdentityVerdict => {
  // The legacy object lists every attribute of the subject on its own; the text form would have to be parsed.
  const names: unknown = leaf.toLegacyObject().subject?.CN;
  if (names === undefined)
    return refused('the certificate has no common name (CN): issue one with the name of the agent');
  if (typeof names !== 'string') {
    return refused('the certificate has more than one common name (CN): issue one with exactly one');
  }
  // The name goes into keys as one whole segment, case and all: what is none would not be the same name there.
  if (!isSegment(names)) {
    const shown = JSON.stringify(names.slice(0, 40));
    return refused(
      `the common name ${shown} is no segment of a key: 1 to 128 of A-Z a-z 0-9 . _ ~ @ : = -, not . or ..`,
    );
  }
  return { ok: true, identity: { realm, name: names, expiresAtMs } };
};

const parseCertificates = (realm: string, pem: string): X509Certificate[] => {
  const blocks = pem.match(certificatePattern) ?? [];
  if (blocks.length === 0) {
    throw new FuturestoreError(
      'CONFIGURATION_INVALID',
      `realm ${realm}: its issuer holds no PEM certificate: give the file of the CA that signs its agents' certificates`,
    );
  }
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (error) {
      throw new FuturestoreError(
        'CONFIGURATION_INVALID',
        `realm ${realm}: its issuer's PEM cannot be read: make it anew`,
        {
          cause: error,
        },
      );
    }
  });
};

const refuseSharedKeys = (issuers: readonly PinnedIssuer[]): void => {
  const realmByKey = new Map<string, string>();
  for (const { realm, certificate } of issuers) {
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
