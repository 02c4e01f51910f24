/** Certificate authorities and certificates for tests: P-256, valid for a day. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;

export interface TestCa {
  readonly name: string;
  /** PEM. */
  readonly cert: string;
  readonly certificate: x509.X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
}

export interface IssuedCertificate {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
}

export interface IssueOptions {
  readonly cn: string;
  /** Host names and addresses that it may serve. */
  readonly server?: readonly string[];
  readonly client?: boolean;
}

x509.cryptoProvider.set(webcrypto);

const makeKeys = (): Promise<webcrypto.CryptoKeyPair> =>
  webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);

let serial = 0;
const nextSerial = (): string => {
  serial += 1;
  return serial.toString(16).padStart(8, '0');
};

const validity = (): { notBefore: Date; notAfter: Date } => ({
  notBefore: new Date(Date.now() - dayMs),
  notAfter: new Date(Date.now() + dayMs),
});

export const makeCa = async (name: string): Promise<TestCa> => {
  const keys = await makeKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: nextSerial(),
    name: `CN=${name}`,
    ...validity(),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  return { name, cert: certificate.toString('pem'), certificate, keys };
};

/** Default: neither server nor client is stated, so it may be used as both. */
export const issue = async (ca: TestCa, { cn, server, client }: IssueOptions): Promise<IssuedCertificate> => {
  const keys = await makeKeys();
  const usages = [
    ...(server === undefined ? [] : [x509.ExtendedKeyUsage.serverAuth]),
    ...(client === true ? [x509.ExtendedKeyUsage.clientAuth] : []),
  ];
  const alternativeNames = (server ?? []).map((host) => ({
    type: /^[\d.]+$|:/.test(host) ? ('ip' as const) : ('dns' as const),
    value: host,
  }));
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: nextSerial(),
    subject: `CN=${cn}`,
    issuer: ca.certificate.subject,
    ...validity(),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: ca.keys.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(false),
      ...(usages.length === 0 ? [] : [new x509.ExtendedKeyUsageExtension(usages)]),
      ...(alternativeNames.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(alternativeNames)]),
    ],
  });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const lines = pkcs8.match(/.{1,64}/g) ?? [];
  return {
    cert: certificate.toString('pem'),
    key: `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`,
  };
};
