/** The servers under faults: real processes, their disks, their network, and what became of each. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readdirSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';
import { eventually, ProcessCluster, run, sleep } from '../support/process-cluster.ts';
import type { Launch } from '../support/process-cluster.ts';
import { openNetwork } from './network.ts';
import type { Network } from './network.ts';

const execute = promisify(execFile);

/** A disk of a server that is wide enough for a run, and in memory. */
const diskBytes = 512 * 1024 * 1024;
const startTimeoutMs = 40_000;
const shrinkAttemptsMax = 20;
/** Other faults may keep the cluster from agreeing on it for a while. */
const replaceTimeoutMs = 60_000;

export interface ChaosServersOptions {
  readonly servers: number;
  readonly electionTimeoutMs: number;
  readonly wantNetwork: boolean;
  readonly wantDisks: boolean;
}

const whyNoReplacement = async (): Promise<string | undefined> => {
  const { stdout } = await run(['member', 'replace', '--help']);
  return stdout.includes('member replace') ? undefined : 'this build has no `member replace`';
};

export interface End {
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
  readonly #mounted: string[];
  /** Member ids where they are no more those of the places. */
  readonly #members = new Map<number, number>();
  #settings: Record<string, unknown> = {};
  #noReplacement: string | undefined;

  private constructor(
    processes: ProcessCluster,
    network: Network | string,
    noDisks: string | undefined,
    mounted: string[],
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
    const settings = {
      election_timeout: `${electionTimeoutMs}ms`,
      heartbeat_interval: `${Math.max(10, Math.round(electionTimeoutMs / 10))}ms`,
      // The least there is, so that servers that were away get snapshots.
      log_retain: '1MiB',
    };
    const processes = await ProcessCluster.create({
      servers,
      ...(typeof network === 'string' ? {} : { hosts: network.hosts }),
      settings,
    });
    const mounted: string[] = [];
    let noDisks = wantDisks ? undefined : 'not wanted';
    for (const id of processes.ids) noDisks ??= await mountDisk(processes.serverPath(id, 'data'), mounted);
    const made = new ChaosServers(processes, network, noDisks, mounted);
    made.#settings = settings;
    made.#noReplacement = await whyNoReplacement();
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

  /** Why a damaged server cannot be replaced; undefined: it can. */
  get noReplacement(): string | undefined {
    return this.#noReplacement;
  }

  /**
   * Puts a new member with an empty disk at the place of one that is lost, and waits until it votes. The cluster may
   * refuse for as long as others are away too.
   */
  async replace(id: number): Promise<void> {
    const lost = this.#members.get(id) ?? id;
    const admin = ['--profile', this.processes.path('admin.yaml'), '--timeout', '5s', '--json'];
    const place = ['--dir', this.processes.path(), '--host', this.processes.host(id)];
    const port = ['--port', `${this.processes.port + id - 1}`];
    const command = ['member', 'replace', `${lost}`, ...place, ...port, '--no-wait', ...admin];
    const endMs = performance.now() + replaceTimeoutMs;
    let made = await run(command);
    while (made.code !== 0 && performance.now() < endMs) {
      await sleep(500);
      made = await run(command);
    }
    if (made.code !== 0) throw new Error(`server ${id} cannot be replaced: ${made.stderr.trim()}`);
    const { member } = JSON.parse(made.stdout) as { readonly member: number };
    this.#members.set(id, member);
    this.processes.moveTo(id, `server-${member}`, this.#settings);
    if (this.noDisks === undefined) await mountDisk(this.dataDirectory(id), this.#mounted);
    this.away.delete(id);
    await this.start(id, ['--join']);
    await eventually(
      `member ${member}, in the place of ${lost}, votes`,
      async () => {
        const { code, stdout } = await run(['member', 'list', ...admin]);
        if (code !== 0) return false;
        const { members } = JSON.parse(stdout) as {
          readonly members: readonly { readonly id: number; readonly standing: string }[];
        };
        const isVoter = members.some((one) => one.id === member && one.standing === 'voter');
        return isVoter && !members.some((one) => one.id === lost);
      },
      replaceTimeoutMs,
    );
  }

  dataDirectory(id: number): string {
    return this.processes.serverPath(id, 'data');
  }

  leader(): Promise<number | undefined> {
    return this.processes.leader();
  }

  async kill(id: number): Promise<void> {
    this.#endsExpected.add(id);
    await this.processes.kill(id);
  }

  /** Started and alive; whether it serves depends on the others. */
  async start(id: number, args: readonly string[] = []): Promise<void> {
    this.#launch(id, { args });
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

  wipe(id: number): void {
    const directory = this.dataDirectory(id);
    for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true });
  }

  /** Leaves its disk about so many bytes. */
  async shrinkDisk(id: number, freeBytes: number): Promise<void> {
    const directory = this.dataDirectory(id);
    for (let attempt = 0; ; attempt += 1) {
      const { blocks, bfree, bsize } = statfsSync(directory);
      const size = (blocks - bfree) * bsize + freeBytes * (attempt + 1);
      try {
        await execute('mount', ['-o', `remount,size=${size}`, directory]);
        return;
      } catch (error) {
        // The server wrote more in the meantime than was to be left.
        if (attempt === shrinkAttemptsMax) throw error;
      }
    }
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
    const child = this.processes.startServer(id, { prefix, ...(options.args && { args: options.args }) });
    child.once('exit', (code, signal) => {
      if (this.#endsExpected.has(id)) return;
      this.violations.push(
        `server ${id} ended by itself with ${signal ?? `code ${code}`}: ${this.lastWords(id)}`,
      );
    });
    return child;
  }
}

/** The reason where a server's data can't be put on a file system of its own that can be made full. */
const mountDisk = async (directory: string, mounted: string[]): Promise<string | undefined> => {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'mounting a tmpfs needs Linux and root';
  mkdirSync(directory, { mode: 0o700 });
  try {
    await execute('mount', ['-t', 'tmpfs', '-o', `size=${diskBytes},mode=0700`, 'tmpfs', directory]);
    mounted.push(directory);
    return undefined;
  } catch (error) {
    return `mount: ${error instanceof Error ? error.message.trim().split('\n').at(-1) : String(error)}`;
  }
};
