/**
 * A site: one real server in this process, behind a real gateway that can go away and come back, and relays that are
 * started, stopped and killed. Cluster time and the machine's clocks are moved by the test.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { futureAsJson } from '../../../src/cli/output.ts';
import { connect } from '../../../src/client/index.ts';
import type { Client, ClientOptions } from '../../../src/client/index.ts';
import { createGateway } from '../../../src/gateway/index.ts';
import type { LocalGateway } from '../../../src/gateway/index.ts';
import { startRelay } from '../../../src/relay/index.ts';
import type { MachineClock, Relay, RelayOptions } from '../../../src/relay/index.ts';
import { compilePolicies } from '../../../src/scopes/index.ts';
import { nodeEnvironment, noMetrics, silentLogger, startServer } from '../../../src/server/index.ts';
import type { Gateway, Server } from '../../../src/server/index.ts';
import { MemoryDisk, openMemoryStorage } from '../../../src/storage/index.ts';
import { issue, makeCa } from '../../support/certificates.ts';

/** `issuer`: the PEM of the agents' authority. */
const policies = (issuer: string): Parameters<typeof compilePolicies>[0] => ({
  realms: { agents: { tls: { issuer, identity: 'cn' }, vars: { node: 'cn' } } },
  policies: {
    agent: [
      { allow: ['get', 'await', 'list', 'subscribe'], on: ['nodes/**', 'shared/**'] },
      { allow: ['declare', 'resolve', 'reject', 'touch', 'delete'], on: ['nodes/**', 'shared/**'] },
      { allow: ['await'], on: 'awaited/**' },
      { allow: ['resolve'], on: 'awaited/**' },
      { allow: ['cluster.status'] },
    ],
  },
  bindings: [{ realm: 'agents', policies: ['agent'] }],
});

/** The machine of the relays: by what it has run more than the real one, and its wall clock is wrong. */
export class Machine implements MachineClock {
  bootId = 'boot-1';
  aheadMs = 0;
  wallWrongMs = 0;

  sinceBootMs(): number {
    return performance.now() + this.aheadMs;
  }

  wallMs(): number {
    return Date.now() + this.aheadMs + this.wallWrongMs;
  }
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  /** Of JSON what it says, else the text. */
  readonly body: unknown;
}

export interface AskOptions {
  readonly method?: string;
  /** An object is sent as JSON, a string as it is. */
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  readonly readOnly?: boolean;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks again and again until it holds. */
export const eventually = async (what: string, holds: () => Promise<boolean> | boolean): Promise<void> => {
  const endMs = performance.now() + 10_000;
  for (;;) {
    if (await holds()) return;
    if (performance.now() > endMs) throw new Error(`${what}: not within 10 s`);
    await sleep(5);
  }
};

/** One answer over a Unix socket. */
export const ask = (socketPath: string, path: string, options: AskOptions = {}): Promise<Reply> =>
  new Promise((resolve, reject) => {
    const { body, signal } = options;
    const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body);
    const request = httpRequest(
      {
        socketPath,
        path,
        method: options.method ?? (text === undefined ? 'GET' : 'POST'),
        agent: false,
        ...(signal === undefined ? {} : { signal }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const said = Buffer.concat(chunks).toString();
          const isJson = said !== '' && response.headers['content-type'] === 'application/json';
          const { statusCode: status = 0, headers } = response;
          resolve({ status, headers, body: isJson ? (JSON.parse(said) as unknown) : said });
        });
      },
    );
    request.once('error', reject);
    request.end(text);
  });

interface Certificates {
  readonly server: { readonly cert: string; readonly key: string };
  readonly agent: { readonly cert: string; readonly key: string };
  readonly serverCa: string;
  readonly agentCa: string;
}

let made: Promise<Certificates> | undefined;

const certificates = (): Promise<Certificates> => {
  made ??= (async () => {
    const [serverCa, agentCa] = await Promise.all([makeCa('servers'), makeCa('agents')]);
    return {
      server: await issue(serverCa, { cn: 'server-1', server: ['127.0.0.1'] }),
      agent: await issue(agentCa, { cn: 'web1', client: true }),
      serverCa: serverCa.cert,
      agentCa: agentCa.cert,
    };
  })();
  return made;
};

/** A relay of the site as local programs see it. */
export class RunningRelay {
  readonly socket: string;
  readonly readOnlySocket: string;
  readonly #relay: Relay;
  readonly #clients: readonly Client[];

  constructor(relay: Relay, socket: string, readOnlySocket: string, clients: readonly Client[]) {
    this.#relay = relay;
    this.socket = socket;
    this.readOnlySocket = readOnlySocket;
    this.#clients = clients;
  }

  /** The clients it has made so far. */
  get clients(): readonly Client[] {
    return this.#clients;
  }

  ask(path: string, options: AskOptions = {}): Promise<Reply> {
    return ask(options.readOnly === true ? this.readOnlySocket : this.socket, path, options);
  }

  post(path: string, body: unknown, options: AskOptions = {}): Promise<Reply> {
    return this.ask(path, { ...options, body });
  }

  async status(): Promise<{ readonly connected: boolean; readonly queue: { readonly entries: number } }> {
    const { body } = await this.ask('/v1/status');
    return body as { connected: boolean; queue: { entries: number } };
  }

  connected(is = true): Promise<void> {
    return eventually(`the relay is connected: ${is}`, async () => (await this.status()).connected === is);
  }

  close(): Promise<void> {
    return this.#relay.close();
  }
}

export class Site {
  readonly machine = new Machine();
  readonly directory = mkdtempSync(join(tmpdir(), 'futurestore-relay-'));
  readonly #certificates: Certificates;
  readonly server: Server;
  readonly #clock: { aheadMs: number };
  #gateway: LocalGateway | undefined;
  #port = 0;
  #relays: RunningRelay[] = [];
  #clients: Client[] = [];

  private constructor(certificatesOf: Certificates, server: Server, clock: { aheadMs: number }) {
    this.#certificates = certificatesOf;
    this.server = server;
    this.#clock = clock;
  }

  static async start({ clusterId = 'c'.repeat(32) } = {}): Promise<Site> {
    const clock = { aheadMs: 0 };
    const storage = await openMemoryStorage({ identity: { clusterId, member: 1 }, disk: new MemoryDisk() });
    const description = { id: 1, name: 'server-1', peersAddress: 's1:7431', agentsUrl: 'wss://s1' };
    const server = await startServer({
      clusterId,
      self: description,
      members: [description],
      version: 'test',
      electionTimeoutMs: 100,
      heartbeatIntervalMs: 25,
      logRetainBytes: 64 * 1024 * 1024,
      environment: {
        ...nodeEnvironment,
        monotonicMs: () => performance.now() + clock.aheadMs,
        wallMs: () => Date.now() + clock.aheadMs,
      },
      logger: silentLogger,
      metrics: noMetrics,
      onFatal: (error) => {
        throw error;
      },
      storage,
      // There are no others.
      transport: () => ({
        start: () => Promise.resolve(),
        setMembers: () => undefined,
        send: () => false,
        sendSnapshot: () => Promise.reject(new Error('nobody needs a snapshot')),
        close: () => Promise.resolve(),
      }),
    });
    const site = new Site(await certificates(), server, clock);
    await site.back();
    await eventually('the server leads', () => server.readiness().ready);
    return site;
  }

  /** Nobody answers any more: agents' sessions go on. */
  async away(): Promise<void> {
    await this.#gateway?.close();
    this.#gateway = undefined;
  }

  async back(): Promise<void> {
    const forward: Gateway = {
      deliver: (events) => gateway.deliver(events),
      get connections() {
        return gateway.connections;
      },
    };
    const gateway: LocalGateway = createGateway({
      listen: { host: '127.0.0.1', port: this.#port },
      ...this.#certificates.server,
      policies: compilePolicies(policies(this.#certificates.agentCa)),
      port: this.server.attachGateway(forward),
    });
    this.#gateway = gateway;
    this.#port = (await gateway.listen()).port;
  }

  /** Time goes on at the cluster and on the machine. */
  passes(ms: number): void {
    this.#clock.aheadMs += ms;
    this.machine.aheadMs += ms;
  }

  /** Time goes on until the cluster has forgotten all sessions; they must be detached, or about to be. */
  sessionsEnd(): Promise<void> {
    return eventually('all sessions have ended', () => {
      this.passes(60_000);
      return this.server.status().sessions === 0;
    });
  }

  /** Agents that are connected. */
  get connections(): number {
    return this.#gateway?.connections ?? 0;
  }

  /** As the agent web1, unless another certificate is given. */
  connect(
    options: Omit<ClientOptions, 'endpoints'> & { readonly cert?: string; readonly key?: string } = {},
  ): Client {
    const { agent, serverCa } = this.#certificates;
    const client = connect({
      endpoints: [`wss://127.0.0.1:${this.#port}`],
      ca: serverCa,
      ...agent,
      ...options,
    });
    this.#clients.push(client);
    return client;
  }

  async relay(options: Partial<RelayOptions> = {}): Promise<RunningRelay> {
    const socket = join(this.directory, 'relay.sock');
    const readOnlySocket = join(this.directory, 'read-only.sock');
    const clients: Client[] = [];
    const relay = await startRelay({
      socket,
      readOnlySocket,
      stateDirectory: join(this.directory, 'state'),
      makeClient: (clientOptions) => {
        const client = this.connect(clientOptions);
        clients.push(client);
        return client;
      },
      sessionGraceMs: 60_000,
      formatFuture: futureAsJson,
      version: 'test',
      logger: silentLogger,
      onFatal: (error) => {
        throw error;
      },
      clock: this.machine,
      ...options,
    });
    const running = new RunningRelay(relay, socket, readOnlySocket, clients);
    this.#relays.push(running);
    return running;
  }

  async close(): Promise<void> {
    for (const relay of this.#relays) await relay.close().catch(() => undefined);
    await Promise.all(this.#clients.map((client) => client.close({ graceMs: 0 })));
    await this.away();
    await this.server.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
