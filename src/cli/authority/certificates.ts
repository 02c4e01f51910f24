/** X.509: certificate authorities and what they issue. P-256 throughout: an RSA handshake costs servers ten times as much. */
import 'reflect-metadata';
import { createPrivateKey, randomBytes, webcrypto, X509Certificate as NodeCertificate } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 24 * 3600 * 1000;

/** Authorities live ten years. */
export const authorityDays = 3653;
/** Everything else lives 825 days, the most that strict TLS libraries accept of a private authority's leaf. */
export const leafDays = 825;
/** A machine whose clock is a little behind must accept what was made just now: it judges servers by TLS itself. */
const backdatedMs = 3600 * 1000;
/** X.520's upper bound of a common name. */
export const commonNameLengthMax = 64;

/** PEM texts. */
export interface Credentials {
  readonly certificate: string;
  readonly privateKey: string;
}

export interface LeafOptions {
  readonly commonName: string;
  /** Names and IP addresses under which it is connected to; none: it serves nobody. */
  readonly hosts: readonly string[];
  readonly server: boolean;
  readonly client: boolean;
}

/** RFC 5280: positive, at most 20 octets; 16 random ones below a first byte that keeps it positive and never short. */
const randomSerial = (): string => `4${randomBytes(16).toString('hex').slice(1)}`;

/** Escapes as RFC 4514 wants, so that no name is more than one attribute. */
const distinguishedName = (commonName: string): x509.JsonName => [{ CN: [commonName] }];

const newKeys = () => webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);

const privateKeyPem = async (key: webcrypto.CryptoKey): Promise<string> =>
  x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY') + '\n';

const validity = (nowMs: number, days: number, beforeMs = backdatedMs) => ({
  notBefore: new Date(nowMs - beforeMs),
  notAfter: new Date(nowMs + days * dayMs),
});

/** A new authority that can sign leaves, and no other authorities. `nowMs`: milliseconds since 1970. */
export const createAuthority = async (commonName: string, nowMs: number): Promise<Credentials> => {
  x509.cryptoProvider.set(webcrypto);
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: distinguishedName(commonName),
    ...validity(nowMs, authorityDays),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return {
    certificate: `${certificate.toString('pem')}\n`,
    privateKey: await privateKeyPem(keys.privateKey),
  };
};

const extendedUsages = (options: LeafOptions): x509.ExtendedKeyUsage[] => [
  ...(options.server ? [x509.ExtendedKeyUsage.serverAuth] : []),
  ...(options.client ? [x509.ExtendedKeyUsage.clientAuth] : []),
];

/** Certificates and keys that were read from files may not belong together; a leaf made of them would fail much later. */
const assertBelongTogether = (authority: Credentials): void => {
  if (!new NodeCertificate(authority.certificate).checkPrivateKey(createPrivateKey(authority.privateKey))) {
    throw new TypeError("the authority's private key is not that of its certificate");
  }
};

/** A new key and a certificate of it. The authority's key must be its certificate's. `nowMs`: milliseconds since 1970. */
export const issueLeaf = async (
  authority: Credentials,
  options: LeafOptions,
  nowMs: number,
): Promise<Credentials> => {
  x509.cryptoProvider.set(webcrypto);
  assertBelongTogether(authority);
  const issuer = new x509.X509Certificate(authority.certificate);
  const pkcs8 = createPrivateKey(authority.privateKey).export({ type: 'pkcs8', format: 'der' });
  const signingKey = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']);
  const keys = await newKeys();
  const alternativeNames = options.hosts.map(
    (host) => ({ type: isIP(host) === 0 ? 'dns' : 'ip', value: host }) satisfies x509.JsonGeneralName,
  );
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    subject: distinguishedName(options.commonName),
    issuer: issuer.subject,
    // A client's is judged by servers, which know that clocks differ, and by when it was issued: it must be true.
    ...validity(nowMs, leafDays, options.server ? backdatedMs : 0),
    signingAlgorithm: algorithm,
    signingKey,
    publicKey: keys.publicKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(extendedUsages(options)),
      ...(alternativeNames.length > 0 ? [new x509.SubjectAlternativeNameExtension(alternativeNames)] : []),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return {
    certificate: `${certificate.toString('pem')}\n`,
    privateKey: await privateKeyPem(keys.privateKey),
  };
};
