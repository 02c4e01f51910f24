/**
 * Stands in for a Puppet server, as far as an agent needs one for a run: it signs the agent's certificate request,
 * gives it the modules' plugins, a catalog that was compiled before, and takes its report. Its authority is a root with
 * an intermediate that signs, as `puppetserver ca setup` makes them.
 */
import 'reflect-metadata';
import { createHash } from 'node:crypto';
import { constants, readdirSync, readFileSync, statSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join, relative } from 'node:path';
import type { TLSSocket } from 'node:tls';
import * as x509 from '@peculiar/x509';
import { issue, makeAuthority, makeRevocationList, type Authority } from '../gateway/certificates.ts';

const dayMs = 86_400_000;

interface Answer {
  readonly status?: number;
  readonly type?: string;
  readonly body: string | Buffer;
}

const json = (value: unknown): Answer => ({ type: 'application/json', body: JSON.stringify(value) });
const plain = (body: string): Answer => ({ type: 'text/plain', body });
const notFound: Answer = { status: 404, type: 'text/plain', body: 'Not Found' };
const forbidden: Answer = { status: 403, type: 'text/plain', body: 'Forbidden request' };

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
};

export class PuppetServer {
  /** PEM, the intermediate first: what agents get as their ca.pem. */
  readonly authorities: string;
  /** PEM, a list of each authority. */
  readonly revocations: string;
  /** What agents reported, the latest of each. */
  readonly reports = new Map<string, string>();
  /** Requests that were answered, as `GET /puppet/v3/…`, without their queries. */
  readonly requests: string[] = [];
  readonly #signer: Authority;
  readonly #server: Server;
  readonly #plugins: string;
  readonly #version: string;
  readonly #certificates = new Map<string, string>();
  readonly #catalogs = new Map<string, string>();

  private constructor(
    made: Pick<PuppetServer, 'authorities' | 'revocations'> & {
      signer: Authority;
      cert: string;
      key: string;
    },
    options: { readonly plugins: string; readonly version: string },
  ) {
    this.authorities = made.authorities;
    this.revocations = made.revocations;
    this.#signer = made.signer;
    this.#plugins = options.plugins;
    this.#version = options.version;
    const tls = { cert: `${made.cert}\n${made.signer.pem}`, key: made.key, ca: made.authorities };
    this.#server = createServer(
      { ...tls, requestCert: true, rejectUnauthorized: false },
      (request, response) => void this.#serve(request, response),
    );
  }

  /** `plugins`: the `lib` directory of the one module. `version`: Puppet's, which the server says it is. */
  static async start(options: { readonly plugins: string; readonly version: string }): Promise<PuppetServer> {
    const root = await makeAuthority('CN=Puppet Root CA: 89db9d414e6b24');
    const signer = await makeAuthority('CN=Puppet CA: puppet.test', root);
    const lists = await Promise.all([signer, root].map((authority) => makeRevocationList(authority)));
    const authorities = `${signer.pem}${root.pem}`;
    const leaf = await issue(signer, { subject: 'CN=puppet.test', server: true });
    const made = { authorities, revocations: lists.join(''), signer, ...leaf };
    const server = new PuppetServer(made, options);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** What the agent gets at its next run, in rich data's JSON. */
  setCatalog(agent: string, catalog: string): void {
    this.#catalogs.set(agent, catalog);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'https://localhost');
    const [, , ...parts] = url.pathname.split('/').map(decodeURIComponent);
    const version = url.pathname.startsWith('/puppet-ca/v1/') ? 'ca' : 'puppet';
    const body = await bodyOf(request);
    const peer = request.socket as TLSSocket;
    const asker = peer.authorized ? peer.getPeerCertificate().subject.CN : undefined;
    const what = `${request.method} ${url.pathname}`;
    const answer =
      version === 'ca'
        ? await this.#sign(request.method ?? '', parts.slice(1), body)
        : asker === undefined
          ? forbidden
          : this.#give(String(asker), what, parts.slice(1), url.searchParams, body);
    this.requests.push(what);
    response.writeHead(answer.status ?? 200, {
      'Content-Type': answer.type ?? 'text/plain',
      'X-Puppet-Version': this.#version,
    });
    response.end(answer.body);
  }

  /** Every request is signed at once, as with `autosign = true`. */
  async #sign(method: string, [what, name = '']: readonly string[], body: string): Promise<Answer> {
    if (what === 'certificate_revocation_list') return plain(this.revocations);
    if (what === 'certificate' && name === 'ca') return plain(this.authorities);
    if (what === 'certificate') {
      const certificate = this.#certificates.get(name);
      return certificate === undefined ? notFound : plain(certificate);
    }
    if (what !== 'certificate_request' || method !== 'PUT') return notFound;
    const asked = new x509.Pkcs10CertificateRequest(body);
    if (asked.subject !== `CN=${name}` || !(await asked.verify())) return { ...forbidden, status: 400 };
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: (this.#certificates.size + 2).toString(16).padStart(4, '0'),
      subject: asked.subject,
      issuer: this.#signer.certificate.subject,
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + dayMs),
      signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      publicKey: asked.publicKey,
      signingKey: this.#signer.key,
      extensions: [
        new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: name }]),
        await x509.AuthorityKeyIdentifierExtension.create(this.#signer.certificate.publicKey),
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.ExtendedKeyUsageExtension(
          [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth],
          true,
        ),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment,
          true,
        ),
      ],
    });
    this.#certificates.set(name, `${certificate.toString('pem')}\n`);
    return plain('');
  }

  #give(
    asker: string,
    what: string,
    [kind = '', name = '', ...rest]: readonly string[],
    query: URLSearchParams,
    body: string,
  ): Answer {
    if (kind === 'file_metadatas') {
      const recurse = query.get('recurse') === 'true' && name === 'plugins';
      return json(this.#metadata(recurse));
    }
    if (kind === 'file_content' && name === 'plugins') {
      return { type: 'application/octet-stream', body: readFileSync(join(this.#plugins, ...rest)) };
    }
    // Puppet's own rules: each node has its own only.
    if (name !== asker) return forbidden;
    if (kind === 'node') return json({ name, parameters: {}, environment: 'production' });
    if (kind === 'catalog') {
      const catalog = this.#catalogs.get(name);
      return catalog === undefined ? notFound : { type: 'application/vnd.puppet.rich+json', body: catalog };
    }
    if (kind === 'report' && what.startsWith('PUT ')) {
      this.reports.set(name, body);
      return json(['store']);
    }
    return notFound;
  }

  #metadata(recurse: boolean): object[] {
    const found = recurse ? readdirSync(this.#plugins, { recursive: true, withFileTypes: true }) : [];
    const paths = found
      .map((entry) => relative(this.#plugins, join(entry.parentPath, entry.name)))
      .toSorted();
    return ['.', ...paths].map((path) => {
      const file = join(this.#plugins, path);
      const { uid, gid, mode } = statSync(file);
      const isFile = (mode & constants.S_IFMT) === constants.S_IFREG;
      const sum = isFile ? createHash('sha256').update(readFileSync(file)).digest('hex') : '';
      return {
        path: this.#plugins,
        relative_path: path,
        links: 'follow',
        owner: uid,
        group: gid,
        mode: mode & 0o777,
        checksum: isFile
          ? { type: 'sha256', value: `{sha256}${sum}` }
          : { type: 'ctime', value: `{ctime}2026-01-01 00:00:00 +0000` },
        type: isFile ? 'file' : 'directory',
        destination: null,
      };
    });
  }
}
