/**
 * Servers in network namespaces of their own, on one bridge with this machine's clients. Packets from one to another
 * are dropped without a word by a neighbour entry with an address that nobody has: that works in one direction and
 * needs nothing but `ip`.
 */
import { execFile } from 'node:child_process';
import process from 'node:process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Server id, or the clients' side. */
export type Party = number | 'clients';

const nobody = '02:00:00:00:de:ad';

const attempt = async (file: string, ...args: string[]): Promise<string | undefined> => {
  try {
    await execute(file, args);
    return undefined;
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    return (stderr.trim() === '' ? message : stderr).trim().split('\n')[0];
  }
};

const must = async (file: string, ...args: string[]): Promise<void> => {
  const problem = await attempt(file, ...args);
  if (problem !== undefined) throw new Error(`${[file, ...args].join(' ')}: ${problem}`);
};

export interface Network {
  readonly hosts: readonly string[];
  /** Why there is no loss or no delay; undefined: there is. */
  readonly noLoss: string | undefined;
  readonly noDelay: string | undefined;
  readonly noNarrow: string | undefined;
  /** Starts a command in a server's namespace. */
  prefix(server: number): readonly string[];
  cut(from: Party, to: Party): Promise<void>;
  join(from: Party, to: Party): Promise<void>;
  /** On what a server sends. */
  lose(server: number, percent: number): Promise<void>;
  delay(server: number, ms: number): Promise<void>;
  /** A line of so many kilobits a second with a short queue: late packets and, where it is full, lost ones. */
  narrow(server: number, kilobits: number): Promise<void>;
  /** Ends loss, delay, narrowness of a server. */
  widen(server: number): Promise<void>;
  close(): Promise<void>;
}

class NamespaceNetwork implements Network {
  readonly hosts: readonly string[];
  readonly #name: string;
  readonly #subnet: string;
  noLoss: string | undefined;
  noDelay: string | undefined;
  noNarrow: string | undefined;
  #lossByRules = false;

  constructor(servers: number) {
    const { pid } = process;
    this.#name = `fs${pid}`;
    this.#subnet = `10.${200 + (pid % 50)}.${Math.floor(pid / 50) % 250}`;
    this.hosts = Array.from({ length: servers }, (_, index) => `${this.#subnet}.${index + 1}`);
  }

  get #bridge(): string {
    return `${this.#name}b`;
  }

  #namespace(server: number): string {
    return `${this.#name}-${server}`;
  }

  #address(party: Party): string {
    return party === 'clients' ? `${this.#subnet}.254` : `${this.#subnet}.${party}`;
  }

  async open(): Promise<void> {
    await must('ip', 'link', 'add', this.#bridge, 'type', 'bridge');
    await must('ip', 'address', 'add', `${this.#address('clients')}/24`, 'dev', this.#bridge);
    await must('ip', 'link', 'set', this.#bridge, 'up');
    for (const [index, host] of this.hosts.entries()) {
      const namespace = this.#namespace(index + 1);
      const outside = `${this.#name}v${index + 1}`;
      await must('ip', 'netns', 'add', namespace);
      await must('ip', 'link', 'add', outside, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace);
      await must('ip', 'link', 'set', outside, 'master', this.#bridge, 'up');
      await must('ip', '-n', namespace, 'address', 'add', `${host}/24`, 'dev', 'eth0');
      await must('ip', '-n', namespace, 'link', 'set', 'eth0', 'up');
      await must('ip', '-n', namespace, 'link', 'set', 'lo', 'up');
    }
    await this.#findMeans();
  }

  /** Which of the ways to disturb a line this kernel and its tools have. */
  async #findMeans(): Promise<void> {
    const noNetem = await attempt(...this.#shape(1, 'netem', 'delay', '1ms'));
    await this.widen(1);
    this.noDelay = noNetem === undefined ? undefined : `tc netem: ${noNetem}`;
    this.noNarrow = await attempt(
      ...this.#shape(1, 'tbf', 'rate', '1mbit', 'burst', '16kb', 'latency', '50ms'),
    );
    await this.widen(1);
    if (noNetem === undefined) return;
    const noRules = await attempt('ip', ...this.#inside(1), 'nft', 'list', 'ruleset');
    this.#lossByRules = noRules === undefined;
    this.noLoss = noRules === undefined ? undefined : `${this.noDelay}; nft: ${noRules}`;
  }

  #inside(server: number): string[] {
    return ['netns', 'exec', this.#namespace(server)];
  }

  #shape(server: number, ...discipline: string[]): [string, ...string[]] {
    return ['ip', ...this.#inside(server), 'tc', 'qdisc', 'replace', 'dev', 'eth0', 'root', ...discipline];
  }

  prefix(server: number): readonly string[] {
    return ['ip', ...this.#inside(server)];
  }

  #neighbours(from: Party): { readonly where: string[]; readonly device: string } {
    return from === 'clients'
      ? { where: [], device: this.#bridge }
      : { where: ['-n', this.#namespace(from)], device: 'eth0' };
  }

  async cut(from: Party, to: Party): Promise<void> {
    const { where, device } = this.#neighbours(from);
    const entry = [this.#address(to), 'lladdr', nobody, 'dev', device, 'nud', 'permanent'];
    await must('ip', ...where, 'neighbour', 'replace', ...entry);
  }

  async join(from: Party, to: Party): Promise<void> {
    const { where, device } = this.#neighbours(from);
    await must('ip', ...where, 'neighbour', 'delete', this.#address(to), 'dev', device);
  }

  async lose(server: number, percent: number): Promise<void> {
    if (!this.#lossByRules) {
      await must(...this.#shape(server, 'netem', 'loss', `${percent}%`));
      return;
    }
    const rules =
      'table inet chaos { chain out { type filter hook output priority 0; ' +
      `numgen random mod 100 < ${percent} drop; } }`;
    await must('ip', ...this.#inside(server), 'nft', rules);
  }

  async delay(server: number, ms: number): Promise<void> {
    await must(...this.#shape(server, 'netem', 'delay', `${ms}ms`, `${Math.ceil(ms / 2)}ms`));
  }

  async narrow(server: number, kilobits: number): Promise<void> {
    const shape = ['tbf', 'rate', `${kilobits}kbit`, 'burst', '4kb', 'latency', '100ms'];
    await must(...this.#shape(server, ...shape));
  }

  async widen(server: number): Promise<void> {
    await attempt('ip', ...this.#inside(server), 'tc', 'qdisc', 'delete', 'dev', 'eth0', 'root');
    if (this.#lossByRules) {
      await attempt('ip', ...this.#inside(server), 'nft', 'delete', 'table', 'inet', 'chaos');
    }
  }

  async close(): Promise<void> {
    for (const index of this.hosts.keys()) await attempt('ip', 'netns', 'delete', this.#namespace(index + 1));
    await attempt('ip', 'link', 'delete', this.#bridge);
  }
}

/** The reason in words where this machine allows none. */
export const openNetwork = async (servers: number): Promise<Network | string> => {
  if (process.platform !== 'linux') return 'network namespaces are Linux only';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const network = new NamespaceNetwork(servers);
  try {
    await network.open();
    return network;
  } catch (error) {
    await network.close();
    return error instanceof Error ? error.message : String(error);
  }
};
