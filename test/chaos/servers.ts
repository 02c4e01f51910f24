/** The servers under faults: real processes, their disks, their network, and what became of each. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, statfsSync } from 'node:fs';
import process from 'node:process';
import { promisify } from 'node:util';
import { eventually, ProcessCluster } from '../support/process-cluster.ts';
import type { Launch } from '../support/process-cluster.ts';
import { openNetwork } from './network.ts';
import type { Network } from './network.ts';

const execute = promisify(execFile);

/** A disk of a server that is wide enough for a run, and in memory. */
const diskBytes = 512 * 1024 * 1024;
const startTimeoutMs = 40_000;

export interface ChaosServersOptions {
  readonly servers: number;
  readonly electionTimeoutMs: number;
  readonly wantNetwork: boolean;
  readonly wantDisks: boolean;
}

interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class ChaosServers {
  readonly processes: ProcessCluster;
  readonly network: Network | undefined;
  /** Why there is none. */
  readonly noNetwork: string | undefined;
  /** Why the servers' data are not on disks of their own; undefined: they are. */
  readonly noDisks: string | undefined;
  /** Damaged ones: they must not come back. */
  readonly away = new Set<number>();
  readonly violations: string[] = [];
  /** Their end is ours, or what a fault is to bring about. */
  readonly #endsExpected = new Set<number>();
  readonly #logAtStart = new Map<number, number>();
  readonly #mounted: readonly string[];

  private constructor(
    processes: ProcessCluster,
    network: Network | string,
    noDisks: string | undefined,
    mounted: readonly string[],
  ) {
    this.processes = processes;
    this.network = typeof network === 'string' ? undefined : network;
    this.noNetwork = typeof network === 'string' ? network : undefined;
    this.noDisks = noDisks;
    this.#mounted = mounted;
  }

  static async start(options: ChaosServersOptions): Promise<ChaosServers> {
    const { servers, electionTimeoutMs, wantNetwork, wantDisks } = options;
    const network = wantNetwork ? await openNetwork(servers) : 'not wanted';
    const processes = await ProcessCluster.create({
      servers,
      ...(typeof network === 'string' ? {} : { hosts: network.hosts }),
      settings: {
        election_timeout: `${electionTimeoutMs}ms`,
        heartbeat_interval: `${Math.max(10, Math.round(electionTimeoutMs / 10))}ms`,
        // The least there is, so that servers that were away get snapshots.
        log_retain: '1MiB',
      },
    });
    const mounted: string[] = [];
    const noDisks = wantDisks ? await mountDisks(processes, mounted) : 'not wanted';
    const made = new ChaosServers(processes, network, noDisks, mounted);
    try {
      for (const id of processes.ids) made.#launch(id);
      await processes.ready(processes.ids, startTimeoutMs);
      return made;
    } catch (error) {
      await made.close(true);
      throw error;
    }
  }

  get present(): readonly number[] {
    return this.processes.ids.filter((id) => !this.away.has(id));
  }

  dataDirectory(id: number): string {
    return this.processes.path(`server-${id}`, 'data');
  }

  leader(): Promise<number | undefined> {
    return this.processes.leader();
  }

  async kill(id: number): Promise<void> {
    this.#endsExpected.add(id);
    await this.processes.kill(id);
  }

  /** Started and alive; whether it serves depends on the others. */
  async start(id: number): Promise<void> {
    this.#launch(id);
    await eventually(
      `server ${id} has started`,
      async () => {
        if (!this.processes.isRunning(id))
          throw new Error(`server ${id} ended at its start: ${this.lastWords(id)}`);
        return (await this.processes.adminGet(id, '/livez'))?.status === 200;
      },
      startTimeoutMs,
    );
  }

  /** Started in the belief that it will end by itself; gives its end, or undefined if it did not come in time. */
  async startToEnd(id: number, withinMs: number): Promise<End | undefined> {
    const child = this.#launch(id, { endsExpected: true });
    const end = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    const timeout = AbortSignal.timeout(withinMs);
    const late = once(timeout, 'abort').then(() => undefined);
    const first = await Promise.race([end, late]);
    return first === undefined ? undefined : { code: first[0], signal: first[1] };
  }

  /** Starts it so that no file of it can grow beyond so many bytes. */
  startLimited(id: number, fileBytesMax: number): void {
    const blocks = Math.floor(fileBytesMax / 512);
    this.#launch(id, {
      endsExpected: true,
      prefix: ['sh', '-c', 'ulimit -f "$0"; exec "$@"', `${blocks}`],
    });
  }

  expectEnd(id: number): void {
    this.#endsExpected.add(id);
  }

  async ended(id: number, withinMs: number): Promise<boolean> {
    try {
      await eventually(`server ${id} ends`, async () => !this.processes.isRunning(id), withinMs);
      return true;
    } catch {
      return false;
    }
  }

  /** What it wrote since its last start, without the usual. */
  lastWords(id: number): string {
    const lines = this.processes
      .log(id)
      .slice(this.#logAtStart.get(id) ?? 0)
      .trimEnd()
      .split('\n');
    const telling = lines.filter((line) => !/"level":"(info|debug|warn)"/.test(line));
    return telling.slice(-3).join(' | ').slice(0, 1500);
  }

  /** Leaves its disk so many bytes. */
  async shrinkDisk(id: number, freeBytes: number): Promise<void> {
    const directory = this.dataDirectory(id);
    const { blocks, bfree, bsize } = statfsSync(directory);
    await execute('mount', ['-o', `remount,size=${(blocks - bfree) * bsize + freeBytes}`, directory]);
  }

  async growDisk(id: number): Promise<void> {
    await execute('mount', ['-o', `remount,size=${diskBytes}`, this.dataDirectory(id)]);
  }

  /** `keep`: the files, for whoever wants to know what went wrong. */
  async close(keep: boolean): Promise<void> {
    for (const id of this.processes.ids) {
      this.#endsExpected.add(id);
      this.processes.pause(id, 'SIGCONT');
    }
    await this.processes.stop();
    for (const directory of this.#mounted) {
      if (keep) cpSync(directory, `${directory}.kept`, { recursive: true });
      await execute('umount', [directory]);
    }
    await this.network?.close();
    if (!keep) await this.processes.close();
  }

  #launch(id: number, options: Launch & { readonly endsExpected?: boolean } = {}) {
    if (options.endsExpected === true) this.#endsExpected.add(id);
    else this.#endsExpected.delete(id);
    this.#logAtStart.set(id, this.processes.log(id).length);
    const prefix = [...(this.network?.prefix(id) ?? []), ...(options.prefix ?? [])];
    const child = this.processes.startServer(id, { prefix });
    child.once('exit', (code, signal) => {
      if (this.#endsExpected.has(id)) return;
      this.violations.push(
        `server ${id} ended by itself with ${signal ?? `code ${code}`}: ${this.lastWords(id)}`,
      );
    });
    return child;
  }
}

/** Puts every server's data on a file system of its own that can be made full. The reason where that can't be had. */
const mountDisks = async (processes: ProcessCluster, mounted: string[]): Promise<string | undefined> => {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'mounting a tmpfs needs Linux and root';
  for (const id of processes.ids) {
    const directory = processes.path(`server-${id}`, 'data');
    mkdirSync(directory, { mode: 0o700 });
    try {
      await execute('mount', ['-t', 'tmpfs', '-o', `size=${diskBytes},mode=0700`, 'tmpfs', directory]);
      mounted.push(directory);
    } catch (error) {
      return `mount: ${error instanceof Error ? error.message.trim().split('\n').at(-1) : String(error)}`;
    }
  }
  return undefined;
};
