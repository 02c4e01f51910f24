import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect, loadProfile, type Client, type Position } from '../../src/client/index.ts';
import {
  command,
  eventually,
  freeBasePort,
  ProcessCluster,
  run,
  sleep,
  type CommandResult,
} from '../support/process-cluster.ts';

let cluster: ProcessCluster;
let load: Load;

beforeAll(async () => {
  cluster = await ProcessCluster.start();
  load = new Load(await Promise.all([1, 2, 3, 4].map(() => cluster.connect())));
});
afterAll(async () => {
  await load?.stop();
  for (const child of started) child.kill('SIGKILL');
  await Promise.all(clients.map((client) => client.close().catch(() => undefined)));
  await cluster?.close();
});

/** A few clients that write one future after the other, all the time. */
class Load {
  readonly acknowledged = new Set<string>();
  readonly failures: unknown[] = [];
  readonly #writing: Promise<unknown>;
  #stopped = false;

  constructor(writers: readonly Client[]) {
    this.#writing = Promise.all(writers.map((client, writer) => this.#write(client, writer)));
  }

  async #write(client: Client, writer: number): Promise<void> {
    for (let number = 0; !this.#stopped; number += 1) {
      const key = `load/${writer}/${number}`;
      try {
        await client.resolve(key, key, { timeoutMs: 30_000 });
        this.acknowledged.add(key);
      } catch (error) {
        this.failures.push(error);
      }
      await sleep(5);
    }
  }

  /** All of them are served: each of them writes. */
  async goesOn(): Promise<void> {
    const before = this.acknowledged.size;
    await eventually('writes are acknowledged', async () => this.acknowledged.size > before + 20);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#writing;
  }
}

const started: ChildProcess[] = [];
const clients: Client[] = [];

interface Process {
  readonly ended: Promise<number | null>;
  log(): string;
}

/** `futurestore server`, to be ended with the tests if it does not end by itself. */
const serve = (directory: string, ...more: string[]): Process => {
  const file = join(directory, 'test.log');
  const log = openSync(file, 'a');
  const args = [command, 'server', '--config', join(directory, 'server.yaml'), ...more];
  const child = spawn(process.execPath, args, { stdio: ['ignore', log, log] });
  closeSync(log);
  started.push(child);
  return {
    ended: new Promise((resolve) => child.once('exit', (code) => resolve(code))),
    log: () => readFileSync(file, 'utf8'),
  };
};

const connectTo = (profileFile: string, endpoints?: readonly string[]): Client => {
  const profile = loadProfile(profileFile);
  const client = connect({ ...profile, ...(endpoints && { endpoints: [...endpoints] }) });
  clients.push(client);
  return client;
};

const admin = (...args: readonly string[]): Promise<CommandResult> =>
  run([...args, '--profile', cluster.path('admin.yaml'), '--timeout', '30s']);

const done = async (...args: readonly string[]): Promise<string> => {
  const { code, stdout, stderr } = await admin(...args);
  expect(`${code} ${stderr}`, args.join(' ')).toBe('0 ');
  return stdout;
};

interface Listed {
  readonly leader: number | null;
  readonly members: readonly {
    readonly id: number;
    readonly standing: string;
    readonly reachable: boolean;
    readonly agentsUrl: string;
  }[];
}

const list = async (): Promise<Listed> => JSON.parse(await done('member', 'list', '--json')) as Listed;

const voters = async (): Promise<number[]> =>
  (await list()).members.filter(({ standing }) => standing === 'voter').map(({ id }) => id);

const isReady = async (port: number): Promise<boolean> => {
  try {
    return (await fetch(`http://127.0.0.1:${port}/readyz`)).status === 200;
  } catch {
    return false;
  }
};

const removedLine = 'stopped: this server is no member of the cluster any more';

describe('the members of a cluster change while agents write', () => {
  let fourth: Process;

  test('a server is added with an empty disk, catches up, votes, and leads when it is told to', async () => {
    const away = (await cluster.someLeader()) === 3 ? 2 : 3;
    await cluster.kill(away);
    const added = await done('member', 'add', 'server-4');
    expect(added).toContain('server 4 (server-4) is added, as a learner');
    expect(added).toContain(`futurestore server --config ${cluster.path('server-4', 'server.yaml')} --join`);
    expect(added).toContain('futurestore member promote 4');
    fourth = serve(cluster.path('server-4'), '--join');
    expect(await done('member', 'promote', 'server-4')).toBe('server 4 (server-4) votes now\n');
    expect(await done('transfer-leader', '4')).toBe('server 4 (server-4) leads now\n');
    await load.goesOn();

    // Its file and its disk know nothing of the one that leads.
    expect(readFileSync(cluster.configuration(away), 'utf8')).not.toContain('server-4');
    cluster.startServer(away);
    await cluster.ready([away]);
    expect(cluster.log(away)).toContain('a server that is not known here (yet) is linked');
    expect(await voters()).toEqual([1, 2, 3, 4]);
    await eventually('all are in touch', async () =>
      (await list()).members.every(({ reachable }) => reachable),
    );
  });

  test('a server that has lost its disk is refused, ends and stays out, and is replaced', async () => {
    const lost = 2;
    await cluster.kill(lost);
    rmSync(cluster.path(`server-${lost}`, 'data'), { recursive: true });
    cluster.startServer(lost);
    const refusal = /member 2 has come back with another data directory than the cluster knows/;
    await eventually('it is refused and ends', async () => !cluster.isRunning(lost));
    expect(cluster.log(lost)).toMatch(refusal);
    expect(cluster.log(lost)).toContain('"code":"DATA_OUTDATED"');

    const port = cluster.port + 4;
    const replacing = admin('member', 'replace', `${lost}`, '--port', `${port}`);
    const directory = cluster.path('server-5');
    await eventually('it has a directory', async () => existsSync(join(directory, 'server.yaml')));
    serve(directory, '--join');
    const { code, stdout, stderr } = await replacing;
    expect(`${code} ${stderr}`).toBe('0 ');
    expect(stdout).toContain('server 5 (server-2) comes in the place of server 2 (server-2)\n');
    expect(stdout).toContain('the cluster counts on server 5 (server-2) now, and server 2 (server-2) is no');
    await eventually('it serves', () => isReady(port + 20));
    expect(await voters()).toEqual([1, 3, 4, 5]);
    await load.goesOn();

    const again = serve(cluster.path(`server-${lost}`));
    expect(await again.ended).toBe(9);
    expect(again.log()).toMatch(
      /futurestore: The data in .* must not be used any more: member 2 has come back/,
    );
  });

  test('the leader is removed: it says so and ends with 0, each time it is started', async () => {
    if ((await list()).leader !== 4) await done('transfer-leader', '4');
    expect(await done('member', 'remove', '4')).toContain(
      'server 4 (server-4) is no member any more, its process ends by itself\nnever start it again',
    );
    expect(await fourth.ended).toBe(0);
    const times = (log: string): number => log.split(removedLine).length - 1;
    expect(times(fourth.log())).toBe(1);
    expect(await voters()).toEqual([1, 3, 5]);
    await load.goesOn();
    const again = serve(cluster.path('server-4'));
    expect(await again.ended).toBe(0);
    expect(times(again.log())).toBe(2);
  });

  test('a server that is removed while it is down says so when it is started', async () => {
    await cluster.kill(1);
    const { code, stderr } = await admin('member', 'remove', '3');
    expect(code).toBe(7);
    expect(stderr).toMatch(/there would be 2 voters, of which 2 are needed and 1 are reachable/);
    await done('member', 'remove', '1');
    const again = serve(cluster.path('server-1'));
    expect(await again.ended).toBe(0);
    expect(again.log()).toContain(removedLine);
    expect(await voters()).toEqual([3, 5]);
  });

  test('nothing that was acknowledged is lost, and nothing failed', async () => {
    await load.goesOn();
    await load.stop();
    expect(load.failures).toEqual([]);
    expect(load.acknowledged.size).toBeGreaterThan(200);
    for (const { agentsUrl } of (await list()).members) {
      const client = connectTo(cluster.path('admin.yaml'), [agentsUrl]);
      await client.get('load/0/0');
      const found = new Set<string>();
      for await (const future of client.listAll('load/**', { values: true, stale: true }))
        if (future.generation === 1 && Buffer.from(future.value ?? []).toString() === future.key)
          found.add(future.key);
      expect([...load.acknowledged].filter((key) => !found.has(key))).toEqual([]);
    }
  });
});

describe('a snapshot of a running cluster', () => {
  const file = (): string => join(cluster.directory, 'saved');
  let position: Position;

  /** The position at which a subscription has all there is, and whether it had to begin anew. */
  const caughtUp = async (
    client: Client,
    from?: Position,
  ): Promise<{ position: Position; reset: boolean }> => {
    let reset = false;
    const signal = AbortSignal.timeout(20_000);
    for await (const event of client.subscribe('load/0/**', { signal, ...(from && { from }) })) {
      if (event.kind === 'reset') reset = true;
      if (event.kind === 'caught_up') return { position: event.position, reset };
    }
    throw new Error('the subscription ended');
  };

  test('is saved, and verified to the last byte', async () => {
    ({ position } = await caughtUp(connectTo(cluster.path('admin.yaml'))));
    expect(await done('snapshot', 'save', file())).toContain('is written: revision');
    expect(await run(['snapshot', 'verify', file()])).toMatchObject({ code: 0, stderr: '' });
    const damaged = `${file()}.damaged`;
    const bytes = readFileSync(file());
    const middle = Math.floor(bytes.length / 2);
    bytes.writeUInt8(bytes.readUInt8(middle) ^ 1, middle);
    writeFileSync(damaged, bytes);
    const directory = join(cluster.directory, 'none');
    for (const args of [
      ['verify', damaged],
      ['restore', damaged, directory],
    ]) {
      const { code, stdout, stderr } = await run(['snapshot', ...args]);
      expect({ code, stdout }).toEqual({ code: 9, stdout: '' });
      expect(stderr).toMatch(/damaged/);
    }
    expect(existsSync(directory)).toBe(false);
  });

  test('becomes a new cluster with the data, in which positions of the old one begin anew', async () => {
    const directory = join(cluster.directory, 'restored');
    const port = await freeBasePort();
    const restored = await run(['snapshot', 'restore', file(), directory, '--port', `${port}`]);
    expect(restored).toMatchObject({ code: 0, stderr: '' });
    for (const id of [1, 2, 3]) serve(join(directory, `server-${id}`));
    await eventually('all serve', async () =>
      (await Promise.all([20, 21, 22].map((offset) => isReady(port + offset)))).every(Boolean),
    );
    const client = connectTo(join(directory, 'admin.yaml'));
    const found = new Set<string>();
    for await (const { key } of client.listAll('load/**')) found.add(key);
    expect([...load.acknowledged].filter((key) => !found.has(key))).toEqual([]);
    const now = await caughtUp(client, position);
    expect(now.reset).toBe(true);
    expect(now.position.clusterId).not.toBe(position.clusterId);
    expect(await caughtUp(client, now.position)).toMatchObject({ reset: false });
    await client.resolve('load/new', 'value');
  });
});
