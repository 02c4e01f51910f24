/** Real clusters: the built command in processes of its own, on loopback, killed by the process id we started. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve as resolvePath } from 'node:path';
import { parse, stringify } from 'yaml';
import { connect, loadProfile, type Client } from '../../src/client/index.ts';

/** The built command; tests and benchmarks run in the package's folder. */
export const command = resolvePath('dist', 'cli', 'futurestore.js');

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command to its end. */
export const run = (
  args: readonly string[],
  options: {
    readonly input?: string;
    readonly env?: Record<string, string>;
    readonly cwd?: string;
    readonly command?: string;
  } = {},
): Promise<CommandResult> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [options.command ?? command, ...args],
      { env: { ...process.env, ...options.env }, ...(options.cwd !== undefined && { cwd: options.cwd }) },
      (error, stdout, stderr) => {
        const code = typeof error?.code === 'number' ? error.code : error ? 1 : 0;
        resolve({ code, stdout, stderr });
      },
    );
    if (options.input !== undefined) child.stdin?.end(options.input);
  });

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });

/** A base port with all the ports of a cluster free behind it. */
export const freeBasePort = async (): Promise<number> => {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    const base = 12_000 + Math.floor(Math.random() * 18_000);
    const ports = [0, 10, 20].flatMap((block) =>
      [0, 1, 2, 3, 4, 5, 6].map((offset) => base + block + offset),
    );
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return base;
  }
  throw new Error('no range of free ports was found');
};

export interface ClusterOptions {
  readonly servers?: number;
  /** Settings put into every server.yaml. */
  readonly settings?: Record<string, unknown>;
  /** One address for each server. Default: all on loopback. */
  readonly hosts?: readonly string[];
  /** Another build's command, which makes the cluster's files. Default: this one's. */
  readonly command?: string;
  /** Another Node, which the servers run on. Default: this process's. */
  readonly node?: string;
}

const defaultServers = 3;

/** How a server's process is started. */
export interface Launch {
  /** Another build's command. */
  readonly command?: string;
  /** A command that executes the rest of its arguments in its own place, so that the process id stays. */
  readonly prefix?: readonly string[];
  /** Behind the server's own. */
  readonly args?: readonly string[];
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks again and again until it holds. */
export const eventually = async (
  what: string,
  holds: () => Promise<boolean>,
  withinMs = 20_000,
): Promise<void> => {
  const endMs = performance.now() + withinMs;
  for (;;) {
    if (await holds()) return;
    if (performance.now() > endMs) throw new Error(`${what}: not within ${withinMs} ms`);
    await sleep(25);
  }
};

export class ProcessCluster {
  readonly directory: string;
  readonly port: number;
  readonly ids: readonly number[];
  /** What the servers run on. */
  readonly node: string;
  readonly #children = new Map<number, ChildProcess>();
  readonly #clients: Client[] = [];
  readonly #hosts: readonly string[];
  readonly #directories = new Map<number, string>();

  private constructor(directory: string, port: number, options: ClusterOptions) {
    const { servers = defaultServers, hosts = [], node = process.execPath } = options;
    this.directory = directory;
    this.port = port;
    this.node = node;
    this.#hosts = hosts;
    this.ids = Array.from({ length: servers }, (_, index) => index + 1);
  }

  /** Made, but not started. */
  static async create(options: ClusterOptions = {}): Promise<ProcessCluster> {
    const servers = options.servers ?? defaultServers;
    const directory = mkdtempSync(join(tmpdir(), 'futurestore-test-'));
    const port = await freeBasePort();
    const hosts = options.hosts ?? [];
    const cluster = new ProcessCluster(directory, port, options);
    const made = await run(
      [
        'init',
        join(directory, 'cluster'),
        '--servers',
        `${servers}`,
        '--port',
        `${port}`,
        ...(hosts.length === 0 ? [] : ['--host', ...hosts]),
      ],
      options.command === undefined ? {} : { command: options.command },
    );
    if (made.code !== 0) throw new Error(`init failed: ${made.stderr}`);
    for (const id of cluster.ids) cluster.#configure(id, options.settings ?? {});
    return cluster;
  }

  static async start(options: ClusterOptions = {}): Promise<ProcessCluster> {
    const cluster = await ProcessCluster.create(options);
    try {
      for (const id of cluster.ids) cluster.startServer(id);
      await cluster.ready();
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  path(...parts: string[]): string {
    return join(this.directory, 'cluster', ...parts);
  }

  host(id: number): string {
    return this.#hosts[id - 1] ?? '127.0.0.1';
  }

  /** Of a server's own directory. */
  serverPath(id: number, ...parts: string[]): string {
    return this.path(this.#directories.get(id) ?? `server-${id}`, ...parts);
  }

  configuration(id: number): string {
    return this.serverPath(id, 'server.yaml');
  }

  /** From now on the server at this place is another member, with a directory of its own. */
  moveTo(id: number, directory: string, settings: Record<string, unknown>): void {
    this.#directories.set(id, directory);
    this.#configure(id, settings);
  }

  #configure(id: number, settings: Record<string, unknown>): void {
    const file = this.configuration(id);
    // The operators' port is on loopback only, which is another one in a network namespace.
    const admin =
      this.#hosts.length === 0 ? {} : { admin: { listen: `${this.host(id)}:${this.port + 20 + id - 1}` } };
    const made = parse(readFileSync(file, 'utf8')) as object;
    writeFileSync(file, stringify({ ...made, ...admin, ...settings }));
  }

  log(id: number): string {
    const file = this.serverPath(id, 'test.log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  startServer(id: number, launch: Launch = {}): ChildProcess {
    const log = openSync(this.serverPath(id, 'test.log'), 'a');
    const server = [
      launch.command ?? command,
      'server',
      '--config',
      this.configuration(id),
      ...(launch.args ?? []),
    ];
    const [executable = this.node, ...args] = [...(launch.prefix ?? []), this.node, ...server];
    const child = spawn(executable, args, { stdio: ['ignore', log, log] });
    closeSync(log);
    this.#children.set(id, child);
    child.once('exit', () => {
      if (this.#children.get(id) === child) this.#children.delete(id);
    });
    return child;
  }

  /** Of a server that runs. */
  processId(id: number): number {
    const pid = this.#children.get(id)?.pid;
    if (pid === undefined) throw new Error(`server ${id} does not run`);
    return pid;
  }

  isRunning(id: number): boolean {
    return this.#children.has(id);
  }

  /** Sends a signal and waits for the end; gives the exit code. */
  async signal(id: number, signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
    const child = this.#children.get(id);
    if (!child) return null;
    const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
    child.kill(signal);
    return await ended;
  }

  /** Stops the process where it is, or lets it go on. */
  pause(id: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#children.get(id)?.kill(signal);
  }

  kill(id: number): Promise<number | null> {
    return this.signal(id, 'SIGKILL');
  }

  async adminGet(id: number, path: string): Promise<{ status: number; text: string } | undefined> {
    try {
      // A stopped process takes connections and never answers.
      const response = await fetch(`http://${this.host(id)}:${this.port + 20 + id - 1}${path}`, {
        signal: AbortSignal.timeout(1000),
      });
      return { status: response.status, text: await response.text() };
    } catch {
      return undefined;
    }
  }

  /** A gauge or counter of a server; undefined: it is not to be had. */
  async metric(id: number, name: string): Promise<number | undefined> {
    const text = (await this.adminGet(id, '/metrics'))?.text ?? '';
    const line = text
      .split('\n')
      .find((candidate) => candidate.startsWith(`${name} `) || candidate.startsWith(`${name}{`));
    return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ') + 1));
  }

  async ready(ids: readonly number[] = this.ids, withinMs?: number): Promise<void> {
    await eventually(
      `servers ${ids.join(', ')} are ready (in ${this.directory})`,
      async () => {
        const answers = await Promise.all(ids.map((id) => this.adminGet(id, '/readyz')));
        return answers.every((answer) => answer?.status === 200);
      },
      withinMs,
    );
  }

  async leader(): Promise<number | undefined> {
    for (const id of this.ids) {
      if (this.isRunning(id) && (await this.metric(id, 'futurestore_is_leader')) === 1) return id;
    }
    return undefined;
  }

  async someLeader(): Promise<number> {
    let found: number | undefined;
    await eventually('there is a leader', async () => {
      found = await this.leader();
      return found !== undefined;
    });
    return found as number;
  }

  /** A client of the cluster's administrator, or of an agent; of all servers, or of one. */
  async connect(options: { readonly profile?: string; readonly server?: number } = {}): Promise<Client> {
    const profile = loadProfile(options.profile ?? this.path('admin.yaml'));
    const endpoints =
      options.server === undefined
        ? profile.endpoints
        : [`wss://${this.host(options.server)}:${this.port + options.server - 1}`];
    const client = connect({ ...profile, endpoints });
    this.#clients.push(client);
    return client;
  }

  /** Ends everything; the files stay. */
  async stop(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close().catch(() => {})));
    await Promise.all([...this.#children.keys()].map((id) => this.kill(id)));
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
