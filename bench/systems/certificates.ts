/** Certificates for the peers that are measured: P-256 as ours, so that nobody pays for longer keys. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAuthority, issueLeaf } from '../../src/cli/authority/certificates.ts';

export interface CertificateFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** A CA and one certificate for 127.0.0.1 and localhost, for servers and clients; written into the directory. */
export const makeCertificates = async (directory: string): Promise<CertificateFiles> => {
  const authority = await createAuthority('benchmark', Date.now());
  const leaf = await issueLeaf(
    authority,
    { commonName: 'localhost', hosts: ['127.0.0.1', 'localhost'], server: true, client: true },
    Date.now(),
  );
  const files = {
    ca: join(directory, 'ca.pem'),
    cert: join(directory, 'server.pem'),
    key: join(directory, 'server.key'),
  };
  writeFileSync(files.ca, authority.certificate);
  writeFileSync(files.cert, leaf.certificate);
  writeFileSync(files.key, leaf.privateKey, { mode: 0o600 });
  return files;
};
