import { setTimeout as sleep } from 'node:timers/promises';
import process from 'node:process';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Load } from '../chaos/load.ts';
import { checkHistory } from '../chaos/checks.ts';
import { buildOf } from '../support/other-build.ts';
import type { OtherBuild } from '../support/other-build.ts';
import { eventually, ProcessCluster } from '../support/process-cluster.ts';

/** Default: the commit before this one. */
const revision = process.env['FUTURESTORE_UPGRADE_FROM'] ?? 'HEAD~1';

let found: OtherBuild | string = 'not looked for';
beforeAll(async () => {
  found = await buildOf(revision);
  if (typeof found === 'string') console.warn(`SKIPPED: no upgrade from another build is tested: ${found}`);
});
afterAll(() => {
  if (typeof found !== 'string') found.close();
});

let cluster: ProcessCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

type Build = 'old' | 'new';

/** Three servers of both builds, under load. */
class MixedCluster {
  readonly processes: ProcessCluster;
  readonly #old: OtherBuild;
  readonly #builds = new Map<number, Build>();
  readonly #load: Load;

  private constructor(processes: ProcessCluster, old: OtherBuild, load: Load) {
    this.processes = processes;
    this.#old = old;
    this.#load = load;
  }

  /** The files are the old build's: an upgrade finds what is there. */
  static async start(old: OtherBuild, builds: readonly Build[]): Promise<MixedCluster> {
    const processes = await ProcessCluster.create({
      servers: builds.length,
      command: old.command,
      settings: { log_retain: '1MiB', election_timeout: '500ms', heartbeat_interval: '50ms' },
    });
    cluster = processes;
    const profile = processes.path('admin.yaml');
    for (const [index, build] of builds.entries()) {
      processes.startServer(index + 1, build === 'old' ? { command: old.command } : {});
    }
    await processes.ready();
    const mixed = new MixedCluster(processes, old, new Load({ profile, clients: 3, seed: 1 }));
    for (const [index, build] of builds.entries()) mixed.#builds.set(index + 1, build);
    return mixed;
  }

  /** Starts a server that is down, with the build it had or another. */
  async start(id: number, build: Build = this.#builds.get(id) ?? 'new'): Promise<void> {
    this.#builds.set(id, build);
    this.processes.startServer(id, build === 'old' ? { command: this.#old.command } : {});
    await this.processes.ready();
  }

  async restart(id: number, build?: Build): Promise<void> {
    await this.processes.signal(id, 'SIGTERM');
    await this.start(id, build);
    await this.goesOn();
  }

  /** Writes that are called from now on are acknowledged. */
  async goesOn(): Promise<void> {
    const sinceMs = performance.timeOrigin + performance.now();
    await eventually(
      'writes are acknowledged',
      async () => this.#load.progress.lastAcknowledged.callMs > sinceMs,
    );
  }

  /** Until this server leads. */
  async makeLeader(id: number): Promise<void> {
    for (;;) {
      const leader = await this.processes.someLeader();
      if (leader === id) return;
      await this.restart(leader);
    }
  }

  /** Takes a server away for so long that it needs a snapshot, which the present leader makes. */
  async bringBackBySnapshot(id: number): Promise<void> {
    await this.processes.kill(id);
    const leader = await this.processes.someLeader();
    const client = await this.processes.connect({ server: leader });
    for (let round = 0; round < 40; round += 1) {
      await client.resolve(`filler/${round}`, 'x'.repeat(100_000), { supersede: true, timeoutMs: 20_000 });
    }
    await this.start(id);
    await eventually('a snapshot was received', async () => {
      return ((await this.processes.metric(id, 'futurestore_snapshots_received_total')) ?? 0) > 0;
    });
    await this.goesOn();
  }

  /** Ends the load: nothing is lost, all clients were told the truth, all servers hold the same. */
  async finish(): Promise<void> {
    await sleep(500);
    const report = await this.#load.stop();
    expect(report.violations).toEqual([]);
    expect(report.acknowledged.length).toBeGreaterThan(100);
    expect(report.awaitsEnded).toBe(report.awaitsMade);
    expect(checkHistory(report.history).violations).toEqual([]);
    const states: string[] = [];
    for (const id of this.processes.ids) {
      const client = await this.processes.connect({ server: id });
      // From a linearizable read on the server's own state is at least as new.
      await client.get('chaos/end', { timeoutMs: 20_000 });
      const values = new Map<string, string>();
      const futures: string[] = [];
      for await (const future of client.listAll('**', { values: true, stale: true })) {
        values.set(future.key, Buffer.from(future.value ?? []).toString());
        futures.push(`${future.key} ${future.generation} ${future.state} ${future.revision}`);
      }
      const lost = report.acknowledged.filter(([key, value]) => values.get(key) !== value);
      expect(lost, `lost on server ${id}`).toEqual([]);
      states.push(futures.join('\n'));
    }
    expect(states[1] === states[0] && states[2] === states[0], 'all servers hold the same').toBe(true);
  }
}

describe('a cluster of this build and the commit before it', () => {
  test.for<{ readonly name: string; readonly builds: readonly [Build, Build, Build] }>([
    { name: 'one old server among two new ones', builds: ['old', 'new', 'new'] },
    { name: 'one new server among two old ones', builds: ['new', 'old', 'old'] },
  ])('$name: they serve, restart, and send each other snapshots', async ({ builds }, { skip }) => {
    if (typeof found === 'string') {
      skip(found);
      return;
    }
    const mixed = await MixedCluster.start(found, builds);
    await mixed.goesOn();
    await mixed.makeLeader(2);
    await mixed.bringBackBySnapshot(1);
    await mixed.makeLeader(1);
    await mixed.bringBackBySnapshot(2);
    for (const id of mixed.processes.ids) await mixed.restart(id);
    await mixed.finish();
  });

  test('it is upgraded server by server, and back, under load', async ({ skip }) => {
    if (typeof found === 'string') {
      skip(found);
      return;
    }
    const mixed = await MixedCluster.start(found, ['old', 'old', 'old']);
    await mixed.goesOn();
    for (const id of mixed.processes.ids) await mixed.restart(id, 'new');
    await sleep(500);
    for (const id of mixed.processes.ids) await mixed.restart(id, 'old');
    await mixed.restart(2, 'new');
    await mixed.finish();
  });
});
