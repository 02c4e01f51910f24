/** Several Puppet agents on this machine, each with directories, a certificate and a relay of its own, at one cluster. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { join, resolve as resolvePath } from 'node:path';
import { parse, stringify } from 'yaml';
import { command, eventually, run, type ProcessCluster } from './process-cluster.ts';

/** Undefined: there is none on this machine. */
export const puppetVersion = spawnSync('puppet', ['--version'], { encoding: 'utf8' }).stdout?.trim();

interface Applied {
  readonly code: number | null;
  /** Standard output and error, in the order in which they came. */
  readonly output: string;
}

export interface Application {
  readonly ended: Promise<Applied>;
  /** What it has said so far. */
  readonly output: () => string;
  readonly pid: number;
}

export interface ApplyOptions {
  /** More arguments of `puppet apply`. */
  readonly args?: readonly string[];
  /** Of Deferreds. Default: lazily, as the module needs it. */
  readonly preprocess?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** What a container that may not look at the first process makes Facter say, again and again. */
const noise = /^.*Facter: Permission denied.*\n/gm;

const clean = (text: string): string => text.replaceAll(noise, '');

/** One request to a relay; undefined: nobody answers. */
const askRelay = (socketPath: string, path: string): Promise<unknown> =>
  new Promise((resolve) => {
    const asked = request({ socketPath, path }, (response) => {
      let text = '';
      response.on('data', (data: Buffer) => (text += data.toString()));
      response.on('end', () => resolve(JSON.parse(text)));
    });
    asked.on('error', () => resolve(undefined));
    asked.end();
  });

export class PuppetAgents {
  readonly #cluster: ProcessCluster;
  readonly #modules: string;
  readonly #relays = new Map<string, ChildProcess>();
  readonly #applications = new Set<ChildProcess>();

  constructor(cluster: ProcessCluster) {
    this.#cluster = cluster;
    this.#modules = cluster.path('modules');
    mkdirSync(this.#modules);
    symlinkSync(resolvePath('puppet'), join(this.#modules, 'futurestore'));
  }

  /** Of an agent's own directory. */
  path(name: string, ...parts: string[]): string {
    return this.#cluster.path(`agent-${name}`, ...parts);
  }

  socket(name: string): string {
    return this.path(name, 'relay.sock');
  }

  /** With a certificate, directories, and a relay that is connected. */
  async add(name: string, settings = ''): Promise<void> {
    const made = await run(['cert', name, '--dir', this.#cluster.path()]);
    if (made.code !== 0) throw new Error(`no certificate for ${name}: ${made.stderr}`);
    this.#prepare(name, settings);
    this.startRelay(name);
    await this.connected(name);
  }

  /**
   * One that has a Puppet server: the certificate that this one signs for it is its identity at the cluster, too. The
   * settings are those of an administrator's puppet.conf.
   */
  async addServed(name: string, serverPort: number): Promise<void> {
    this.#prepare(name, '');
    const settings = {
      vardir: this.path(name, 'var'),
      ssldir: this.path(name, 'ssl'),
      certname: name,
      server: 'localhost',
      serverport: serverPort,
      preprocess_deferred: false,
      keylength: 2048,
    };
    const lines = Object.entries(settings).map(([setting, value]) => `${setting} = ${value}`);
    writeFileSync(this.path(name, 'conf', 'puppet.conf'), `[main]\n${lines.join('\n')}\n`);
    const { code, output } = await this.#start(['ssl', 'bootstrap', ...this.#confdir(name)]).ended;
    if (code !== 0) throw new Error(`no certificate for ${name}: ${output}`);
    const profile = this.path(name, 'profile.yaml');
    const made = parse(readFileSync(this.#cluster.path('admin.yaml'), 'utf8')) as object;
    const cert = join('ssl', 'certs', `${name}.pem`);
    const key = join('ssl', 'private_keys', `${name}.pem`);
    const ca = this.#cluster.path('ca', 'servers.pem');
    writeFileSync(profile, stringify({ ...made, ca, cert, key }));
    this.startRelay(name, profile);
    await this.connected(name);
  }

  #prepare(name: string, settings: string): void {
    for (const part of ['conf', 'var', 'work']) mkdirSync(this.path(name, part), { recursive: true });
    writeFileSync(this.path(name, 'conf', 'futurestore.yaml'), `socket: ${this.socket(name)}\n${settings}`);
  }

  startRelay(name: string, profile = this.#cluster.path('agents', `${name}.yaml`)): void {
    const log = openSync(this.path(name, 'relay.log'), 'a');
    const args = ['--profile', profile, '--socket', this.socket(name), '--state', this.path(name, 'state')];
    const child = spawn(process.execPath, [command, 'relay', ...args], { stdio: ['ignore', log, log] });
    closeSync(log);
    this.#relays.set(name, child);
  }

  async stopRelay(name: string, signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#relays.get(name);
    if (child === undefined) return;
    this.#relays.delete(name);
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill(signal);
    await ended;
  }

  async connected(name: string, wanted = true): Promise<void> {
    await eventually(`the relay of ${name} is ${wanted ? '' : 'dis'}connected`, async () => {
      const status = (await askRelay(this.socket(name), '/v1/status')) as { connected?: boolean } | undefined;
      return status?.connected === wanted;
    });
  }

  #confdir(name: string): string[] {
    return ['--confdir', this.path(name, 'conf')];
  }

  /** One run of `puppet agent`, with the server's catalog. */
  runServed(name: string): Application {
    const args = ['agent', '--onetime', '--no-daemonize', '--verbose', '--detailed-exitcodes'];
    return this.#start([...args, ...this.#confdir(name)]);
  }

  /** Where `puppet apply` finds its things. */
  #places(name: string): string[] {
    return [
      '--modulepath',
      this.#modules,
      '--confdir',
      this.path(name, 'conf'),
      '--vardir',
      this.path(name, 'var'),
      '--certname',
      name,
    ];
  }

  /** Applies a manifest, or a compiled catalog where `args` say so, as this agent. */
  apply(name: string, manifest: string, options: ApplyOptions = {}): Application {
    const file = this.path(name, 'site.pp');
    writeFileSync(file, manifest);
    const lazy = options.preprocess === true ? '--preprocess_deferred' : '--no-preprocess_deferred';
    const what = options.args?.includes('--catalog') === true ? [] : [file];
    const args = [
      'apply',
      lazy,
      '--detailed-exitcodes',
      ...this.#places(name),
      ...(options.args ?? []),
      ...what,
    ];
    return this.#start(args, options.env);
  }

  /** Compiles a manifest to a catalog file, as a server would. */
  async compile(name: string, manifest: string): Promise<string> {
    const file = this.path(name, 'site.pp');
    writeFileSync(file, manifest);
    const compiled = this.#start([
      'catalog',
      'compile',
      name,
      '--render-as',
      'rich_data_json',
      '--manifest',
      file,
      ...this.#places(name),
    ]);
    const { output } = await compiled.ended;
    const catalog = this.path(name, 'catalog.json');
    writeFileSync(catalog, output.slice(/^\{/m.exec(output)?.index ?? 0));
    return catalog;
  }

  #start(args: readonly string[], env: Readonly<Record<string, string>> = {}): Application {
    const child = spawn('puppet', [...args, '--color', 'false'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    this.#applications.add(child);
    let text = '';
    const take = (data: Buffer): void => {
      text += data.toString();
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    const ended = new Promise<Applied>((resolve) =>
      child.once('close', (code) => {
        this.#applications.delete(child);
        resolve({ code, output: clean(text) });
      }),
    );
    return { ended, output: () => clean(text), pid: child.pid ?? 0 };
  }

  /** The text of the report of the agent's last run. */
  report(name: string): string {
    const file = this.path(name, 'var', 'state', 'last_run_report.yaml');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  async close(): Promise<void> {
    for (const child of this.#applications) child.kill('SIGKILL');
    await Promise.all([...this.#relays.keys()].map((name) => this.stopRelay(name)));
  }
}
