/** The operators' HTTP: plain, meant for loopback, read-only. */
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';

interface AdminServerOptions {
  /** Port 0: any free one. Nobody is asked who they are, so the host should be a loopback address. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Whether agents can be served now; reasons why not, each one line. */
  readonly readiness: () => { readonly ready: boolean; readonly reasons: readonly string[] };
  /** Whether the process works at all; if not, it should be started anew. */
  readonly liveness: () => { readonly live: boolean; readonly reasons: readonly string[] };
  readonly registry: Registry;
  readonly logger?: { error(fields: object, message: string): void };
}

export interface AdminServer {
  listen(): Promise<{ readonly port: number }>;
  close(): Promise<void>;
}

export const createAdminServer = (options: AdminServerOptions): AdminServer => new HttpAdminServer(options);

const indexText = `Futurestore, for operators:
/livez            the process works (200) or should be started anew (503)
/readyz           agents can be served now (200) or why not (503); /readyz?verbose says more
/metrics          Prometheus metrics
`;

const plainText = 'text/plain; charset=utf-8';
const requestMs = 5_000;
const headerBytesMax = 8 * 1024;
/** A few probes and scrapers; whoever opens more is broken. */
const connectionsMax = 100;

interface Reply {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

const plain = (status: number, text: string): Reply => ({ status, type: plainText, text });

class HttpAdminServer implements AdminServer {
  readonly #options: AdminServerOptions;
  readonly #server: Server;

  constructor(options: AdminServerOptions) {
    this.#options = options;
    this.#server = createServer(
      {
        maxHeaderSize: headerBytesMax,
        headersTimeout: requestMs,
        requestTimeout: requestMs,
        connectionsCheckingInterval: 1000,
        keepAliveTimeout: requestMs,
      },
      (request, response) => void this.#serve(request, response),
    );
    this.#server.maxConnections = connectionsMax;
  }

  async listen(): Promise<{ readonly port: number }> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.listen, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    return { port: (this.#server.address() as AddressInfo).port };
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // What is sent along is of no interest, but would hold up the next request of the connection.
    request.resume();
    const reply = await this.#reply(request);
    response.writeHead(reply.status, {
      'content-type': reply.type,
      'content-length': Buffer.byteLength(reply.text),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...(reply.status === 405 && { allow: 'GET, HEAD' }),
    });
    response.end(request.method === 'HEAD' ? '' : reply.text);
  }

  async #reply(request: IncomingMessage): Promise<Reply> {
    if (request.method !== 'GET' && request.method !== 'HEAD') return plain(405, 'only GET and HEAD\n');
    const [path, query] = (request.url ?? '/').split('?', 2);
    try {
      switch (path) {
        case '/':
          return plain(200, indexText);
        case '/livez':
          return this.#livez();
        case '/readyz':
          return this.#readyz(query !== undefined && /(^|&)verbose(=|&|$)/.test(query));
        case '/metrics': {
          const { registry } = this.#options;
          return { status: 200, type: registry.contentType, text: await registry.metrics() };
        }
        default:
          return plain(404, 'no such page: see /\n');
      }
    } catch (error) {
      this.#options.logger?.error({ err: error, path }, 'a bug: an admin page failed');
      return plain(500, 'a bug in the server, see its log\n');
    }
  }

  #livez(): Reply {
    const { live, reasons } = this.#options.liveness();
    return live ? plain(200, 'ok\n') : plain(503, lines(reasons, 'not live'));
  }

  #readyz(verbose: boolean): Reply {
    const { ready, reasons } = this.#options.readiness();
    if (!verbose) return ready ? plain(200, 'ok\n') : plain(503, lines(reasons, 'not ready'));
    const { live, reasons: liveReasons } = this.#options.liveness();
    const said = [
      `ready: ${yesNo(ready)}`,
      ...reasons.map(indent),
      `live: ${yesNo(live)}`,
      ...liveReasons.map(indent),
    ];
    return plain(ready ? 200 : 503, lines(said, ''));
  }
}

const lines = (texts: readonly string[], otherwise: string): string =>
  (texts.length > 0 ? texts : [otherwise]).map((text) => `${text.replaceAll(/[\r\n]+/g, ' ')}\n`).join('');

const indent = (text: string): string => `  ${text}`;

const yesNo = (yes: boolean): string => (yes ? 'yes' : 'no');
