/** Certificates for thousands of agents: what an authority is made of travels to each process, which issues its own. */
import 'reflect-metadata';
import { createPrivateKey, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { Credentials } from '../../src/cli/authority/certificates.ts';
import { puppetExtension } from '../gateway/certificates.ts';
import type { PlannedAgent } from './plan.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Puppet's pp_role. */
const roleOid = '1.3.6.1.4.1.34380.1.1.13';

export class AgentIssuer {
  readonly #issuer: string;
  readonly #signingKey: webcrypto.CryptoKey;

  private constructor(issuer: string, signingKey: webcrypto.CryptoKey) {
    this.#issuer = issuer;
    this.#signingKey = signingKey;
  }

  static async of(authority: Credentials): Promise<AgentIssuer> {
    x509.cryptoProvider.set(webcrypto);
    const pkcs8 = createPrivateKey(authority.privateKey).export({ type: 'pkcs8', format: 'der' });
    const key = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']);
    return new AgentIssuer(new x509.X509Certificate(authority.certificate).subject, key);
  }

  /** Its own key, its name, and its role in an extension; valid for a day. */
  async issue({ index, name, role }: PlannedAgent): Promise<Credentials> {
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const nowMs = Date.now();
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: (index + 1).toString(16).padStart(8, '0'),
      subject: `CN=${name}`,
      issuer: this.#issuer,
      notBefore: new Date(nowMs - dayMs),
      notAfter: new Date(nowMs + dayMs),
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey: this.#signingKey,
      extensions: [
        new x509.BasicConstraintsExtension(false),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
        puppetExtension(roleOid, role),
      ],
    });
    const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
    return {
      certificate: `${certificate.toString('pem')}\n`,
      privateKey: x509.PemConverter.encode(key, 'PRIVATE KEY'),
    };
  }
}
