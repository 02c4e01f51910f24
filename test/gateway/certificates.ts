/** Certificates with subjects that no sound authority would write. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const hourMs = 3_600_000;
let serial = 1;

export interface Authority {
  readonly certificate: x509.X509Certificate;
  readonly pem: string;
  readonly key: webcrypto.CryptoKey;
}

export interface Credentials {
  readonly cert: string;
  readonly key: string;
}

/** `subject`: an X.500 name such as 'CN=web1'. `notBefore`, `notAfter`: hours from now. */
export interface CertificateRequest {
  readonly subject: string;
  readonly notBefore?: number;
  readonly notAfter?: number;
  readonly server?: boolean;
  /** Instead of that for clients or servers; none: no extended key usage at all. */
  readonly usages?: readonly x509.ExtendedKeyUsage[];
  readonly keyUsages?: x509.KeyUsageFlags;
  /** With which the authority signs. */
  readonly hash?: string;
  /** Instead of a key on P-256. */
  readonly rsaBits?: number;
  readonly extensions?: readonly x509.Extension[];
  /** Without it only the issuer's name and signature tell who issued. */
  readonly keyIdentifier?: boolean;
}

const nextSerial = (): string => (serial++).toString(16).padStart(4, '0');

const pair = (): Promise<webcrypto.CryptoKeyPair> =>
  webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);

const rsaPair = (modulusLength: number): Promise<webcrypto.CryptoKeyPair> => {
  const of = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', publicExponent: new Uint8Array([1, 0, 1]) };
  return webcrypto.subtle.generateKey({ ...of, modulusLength }, true, ['sign', 'verify']);
};

interface AuthorityRequest {
  /** Hours from now. */
  readonly notAfter?: number;
  readonly isAuthority?: boolean;
}

export const makeAuthority = async (
  subject: string,
  parent?: Authority,
  { notAfter = 24, isAuthority = true }: AuthorityRequest = {},
): Promise<Authority> => {
  const keys = await pair();
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: nextSerial(),
    subject,
    issuer: parent?.certificate.subject ?? subject,
    notBefore: new Date(Date.now() - 24 * hourMs),
    notAfter: new Date(Date.now() + notAfter * hourMs),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: parent?.key ?? keys.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(isAuthority, undefined, true),
      // By these TLS tells two authorities of one name apart.
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  return { certificate, pem: `${certificate.toString('pem')}\n`, key: keys.privateKey };
};

export const issue = async (authority: Authority, request: CertificateRequest): Promise<Credentials> => {
  const keys = request.rsaBits === undefined ? await pair() : await rsaPair(request.rsaBits);
  const { subject, notBefore = -1, notAfter = 1, server = false, keyIdentifier = true } = request;
  const usage = server ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  const { usages = [usage], keyUsages, extensions = [] } = request;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: nextSerial(),
    subject,
    issuer: authority.certificate.subject,
    notBefore: new Date(Date.now() + notBefore * hourMs),
    notAfter: new Date(Date.now() + notAfter * hourMs),
    signingAlgorithm: { ...algorithm, hash: request.hash ?? algorithm.hash },
    publicKey: keys.publicKey,
    signingKey: authority.key,
    extensions: [
      new x509.BasicConstraintsExtension(false),
      ...(keyIdentifier
        ? [
            await x509.AuthorityKeyIdentifierExtension.create(
              authority.certificate.publicKey,
              false,
              webcrypto,
            ),
          ]
        : []),
      ...(usages.length > 0 ? [new x509.ExtendedKeyUsageExtension([...usages])] : []),
      ...(keyUsages === undefined ? [] : [new x509.KeyUsagesExtension(keyUsages, true)]),
      ...extensions,
      ...(server
        ? [
            new x509.SubjectAlternativeNameExtension([
              { type: 'ip', value: '127.0.0.1' },
              { type: 'dns', value: 'localhost' },
            ]),
          ]
        : []),
    ],
  });
  const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return { cert: certificate.toString('pem'), key: x509.PemConverter.encode(key, 'PRIVATE KEY') };
};

/** An extension as Puppet writes it: a UTF8String. */
export const puppetExtension = (oid: string, text: string, critical = false): x509.Extension => {
  const bytes = Buffer.from(text);
  return new x509.Extension(oid, critical, Buffer.concat([Buffer.from([0x0c, bytes.length]), bytes]));
};

/** `from`, `until`: hours from now. `name`: whose list it says to be; default: the signer's. */
interface RevocationListRequest {
  readonly revoked?: readonly string[];
  readonly from?: number;
  readonly until?: number;
  readonly name?: string;
  readonly extensions?: readonly x509.Extension[];
}

/** PEM. */
export const makeRevocationList = async (
  signer: Authority,
  { revoked = [], from = -1, until = 1, name, extensions = [] }: RevocationListRequest = {},
): Promise<string> => {
  const list = await x509.X509CrlGenerator.create({
    issuer: name ?? signer.certificate.subject,
    thisUpdate: new Date(Date.now() + from * hourMs),
    nextUpdate: new Date(Date.now() + until * hourMs),
    signingAlgorithm: algorithm,
    signingKey: signer.key,
    entries: revoked.map((serialNumber) => ({ serialNumber, revocationDate: new Date(Date.now() - hourMs) })),
    extensions: [...extensions],
  });
  // As openssl and Puppet name it.
  return `${x509.PemConverter.encode(list.rawData, 'X509 CRL')}\n`;
};
