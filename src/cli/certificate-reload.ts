/**
 * Certificates, keys and CAs of a running server, taken anew when their files have changed. What cannot be used is told,
 * and what was there before stays: a half-written file must not stop a server that works.
 */
import type { AgentGateway, FileReader } from '../gateway/index.ts';
import type { TlsTransport } from '../peers/index.ts';
import type { ServerConfiguration } from './configuration/server-configuration.ts';
import { readAgentsFiles, readPeersFiles, readPolicyDocument, realmFiles } from './server-files.ts';

interface ReloadLogger {
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface CertificateReloadParts {
  readonly configuration: ServerConfiguration;
  readonly gateway: Pick<AgentGateway, 'replaceCertificate' | 'replaceFileRealms' | 'lookForLists'>;
  readonly transport: Pick<TlsTransport, 'replaceCertificates'>;
  readonly files: FileReader;
  readonly logger: ReloadLogger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** Files that are only of use together. */
interface Group {
  readonly what: string;
  readonly paths: readonly string[];
  readonly take: () => void | Promise<void>;
  /** As it was taken, or found to be of no use. */
  taken: string;
  /** As it was seen last. */
  seen: string;
}

export class CertificateReload {
  readonly #parts: CertificateReloadParts;
  readonly #groups: readonly Group[];

  /** What is there now counts as taken. */
  constructor(parts: CertificateReloadParts) {
    this.#parts = parts;
    const { configuration, gateway, transport, now } = parts;
    const { agents, peers, policyFile } = configuration;
    const group = (what: string, paths: readonly string[], take: Group['take']): Group => {
      const version = this.#versionOf(paths);
      return { what, paths, take, taken: version, seen: version };
    };
    this.#groups = [
      group('agents', [agents.cert, agents.key], () =>
        gateway.replaceCertificate(readAgentsFiles(configuration, now())),
      ),
      group('peers', [peers.ca, peers.cert, peers.key], () =>
        transport.replaceCertificates(readPeersFiles(configuration, now())),
      ),
      group('realms', realmFiles(configuration), () =>
        gateway.replaceFileRealms(readPolicyDocument(policyFile).realms),
      ),
    ];
  }

  /** Every few seconds. Files are taken once they look the same twice: a certificate and its key change one by one. */
  async look(): Promise<void> {
    for (const group of this.#groups) {
      const version = this.#versionOf(group.paths);
      const settled = version === group.seen;
      group.seen = version;
      if (settled && version !== group.taken) await this.#take(group, version);
    }
  }

  /** Somebody says that they have changed: at once, and whether or not it can be seen. */
  async takeAll(): Promise<void> {
    for (const group of this.#groups) await this.#take(group, this.#versionOf(group.paths));
    await this.#parts.gateway.lookForLists();
  }

  async #take(group: Group, version: string): Promise<void> {
    const { logger } = this.#parts;
    group.taken = version;
    group.seen = version;
    const fields = { of: group.what, files: group.paths };
    try {
      await group.take();
      logger.info(fields, 'certificates and keys were read again, and count for new connections');
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      logger.error(
        { ...fields, problem },
        'changed certificates or keys cannot be used: those from before stay, bring the files in order',
      );
    }
  }

  #versionOf(paths: readonly string[]): string {
    return paths.map((path) => this.#parts.files.version(path) ?? 'none').join('|');
  }
}
