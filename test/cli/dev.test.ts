import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseServerConfiguration } from '../../src/cli/configuration/server-configuration.ts';
import type { Machine } from '../../src/cli/dev-machine.ts';
import { runDevelopmentCluster } from '../../src/cli/dev.ts';
import type { CommandEnvironment } from '../../src/cli/index.ts';
import { removedText } from '../../src/cli/removed-server.ts';
import type { ClusterStatus } from '../../src/protocol/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { fakeClient, temporaryDirectory } from './support/command.ts';

/** A machine without processes: servers run when they are launched and end when the test or a signal says so. */
class FakeMachine implements Machine {
  readonly launched: {
    readonly configurationFile: string;
    readonly end: (how: string) => void;
    readonly signals: string[];
  }[] = [];
  readonly takenPorts = new Set<number>();
  hanging = false;
  log: string | undefined;
  /** Called at each pause, which otherwise takes no time. */
  onPause: (count: number) => void = () => {};
  #pauses = 0;
  elapsedMs = 0;

  launch(configurationFile: string) {
    const signals: string[] = [];
    let end: (how: string) => void = () => {};
    const ended = new Promise<string>((resolve) => (end = resolve));
    this.launched.push({ configurationFile, end, signals });
    return {
      pid: 1000 + this.launched.length,
      ended,
      signal: (name: 'SIGTERM' | 'SIGKILL') => {
        signals.push(name);
        if (!this.hanging || name === 'SIGKILL') end('exit code 0');
      },
    };
  }

  isFree({ port }: { readonly port: number }): Promise<boolean> {
    return Promise.resolve(!this.takenPorts.has(port));
  }

  async pause(ms: number): Promise<void> {
    this.elapsedMs += ms;
    this.#pauses += 1;
    this.onPause(this.#pauses);
    // Servers that end do so before a pause is over.
    await new Promise(setImmediate);
  }

  lastLine(): string | undefined {
    return this.log;
  }
}

let directory: ReturnType<typeof temporaryDirectory>;
let machine: FakeMachine;
let interruption: AbortController;
let output: string;
let errors: string;
let status: () => Promise<ClusterStatus>;

const unavailable = () => Promise.reject(new FuturestoreError('UNAVAILABLE', 'nobody answers'));

beforeEach(() => {
  directory = temporaryDirectory();
  machine = new FakeMachine();
  interruption = new AbortController();
  output = '';
  errors = '';
  status = unavailable;
});
afterEach(() => directory.remove());

const environment = (): CommandEnvironment => ({
  stdout: { write: (data) => (output += String(data)) },
  stderr: { write: (data) => (errors += String(data)) },
  stdin: (async function* () {})(),
  variables: {},
  workingDirectory: directory.path,
  now: () => Date.UTC(2026, 0, 1) + machine.elapsedMs,
  pause: () => Promise.reject(new Error('only the machine pauses')),
  connect: () => Promise.resolve(fakeClient({ status: () => status() }).client),
  onHangup: () => undefined,
  interruption: () => interruption.signal,
});

const clusterDirectory = (): string => join(directory.path, '.futurestore');
const dev = (servers = 3, chosen = false): Promise<void> =>
  runDevelopmentCluster(
    environment(),
    { directory: clusterDirectory(), servers, hosts: [], basePort: 7421, nowMs: Date.UTC(2026, 0, 1) },
    chosen,
    machine,
  );

const clusterStatus = (roles: readonly string[], clusterId = 'ours'): ClusterStatus => ({
  clusterId,
  epoch: 1,
  revision: 0,
  serverId: 1,
  members: roles.map((role, index) => ({
    id: index + 1,
    name: `server-${index + 1}`,
    role,
    term: 1,
    commitIndex: 1,
    appliedIndex: 1,
    keys: 0,
    connections: 0,
    agentsUrl: `wss://127.0.0.1:${7421 + index}`,
    version: '0.1.0',
    heardMsAgo: 0,
    lag: 0,
  })),
});
const healthy = () => Promise.resolve(clusterStatus(['follower', 'leader', 'follower']));

/** Runs until the table is there, then does something and waits for the end. */
const devUntilReady = async (then: () => void, ...parameters: Parameters<typeof dev>): Promise<void> => {
  status = healthy;
  const running = dev(...parameters);
  const settled = running.then(
    () => true,
    () => true,
  );
  while (
    !output.includes('Ctrl-C') &&
    !(await Promise.race([settled, new Promise((resolve) => setImmediate(resolve, false))]))
  );
  then();
  await running;
};

describe('dev', () => {
  test('makes a cluster, runs its servers, says who leads and what to paste, and stops them when interrupted', async () => {
    await devUntilReady(() => interruption.abort());
    expect(machine.launched.map(({ configurationFile }) => configurationFile)).toEqual(
      [1, 2, 3].map((id) => join(clusterDirectory(), `server-${id}`, 'server.yaml')),
    );
    expect(output).toMatch(
      /^server-2 +leader +wss:\/\/127\.0\.0\.1:7422 +http:\/\/127\.0\.0\.1:7442 +1002 +\.futurestore\/server-2\/server\.log$/m,
    );
    expect(output).toContain('npx futurestore await nodes/web1/out/url\n');
    expect(output).toContain('npx futurestore resolve nodes/web1/out/url http://web1:8080\n');
    expect(machine.launched.map(({ signals }) => signals)).toEqual([['SIGTERM'], ['SIGTERM'], ['SIGTERM']]);
    expect(errors).toBe('');
  });

  test('runs a cluster that is there as it is', async () => {
    await devUntilReady(() => interruption.abort(), 2);
    const before = readdirSync(clusterDirectory());
    [interruption, machine, output] = [new AbortController(), new FakeMachine(), ''];
    await devUntilReady(() => interruption.abort(), 5, true);
    expect(machine.launched).toHaveLength(2);
    expect(readdirSync(clusterDirectory())).toEqual(before);
    expect(errors).toMatch(/has 2 servers, not 5/);
  });

  test('waits until there is a leader and every server has been heard of', async () => {
    const seen: string[] = [];
    const stages = [
      unavailable,
      () => Promise.resolve(clusterStatus(['follower', 'candidate', 'unreachable'])),
      () => Promise.resolve(clusterStatus(['follower', 'leader', 'unreachable'])),
      healthy,
    ];
    status = () => unavailable();
    machine.onPause = (count) => {
      seen.push(output.includes('Ctrl-C') ? 'early' : 'not yet');
      status = stages[count] ?? healthy;
      if (count > 10) interruption.abort();
    };
    const running = dev();
    while (!output.includes('Ctrl-C')) await new Promise(setImmediate);
    interruption.abort();
    await running;
    expect(seen.slice(0, 3)).toEqual(['not yet', 'not yet', 'not yet']);
  });

  test('a second dev says that the cluster is already running, and starts nothing', async () => {
    await devUntilReady(() => interruption.abort());
    const file = join(clusterDirectory(), 'server-1', 'server.yaml');
    const { clusterId } = parseServerConfiguration(readFileSync(file, 'utf8'), file);
    [interruption, machine] = [new AbortController(), new FakeMachine()];
    machine.takenPorts.add(7421);
    status = () => Promise.resolve(clusterStatus(['leader'], clusterId));
    await expect(dev()).rejects.toThrow(/is already running/);
    expect(machine.launched).toEqual([]);
  });

  test('a port that another program uses is named', async () => {
    machine.takenPorts.add(7432).add(7443);
    await expect(dev()).rejects.toThrow(
      /cannot listen on 127\.0\.0\.1:7432 \(peers of server-2\), 127\.0\.0\.1:7443 \(admin of server-3\)/,
    );
    expect(machine.launched).toEqual([]);
    expect(existsSync(clusterDirectory())).toBe(true);
  });

  test('a server that does not start stops all, with the last line of its log', async () => {
    machine.log = 'futurestore: cannot listen\ton 127.0.0.1:7421';
    machine.onPause = () => machine.launched[1]?.end('exit code 1');
    await expect(dev()).rejects.toThrow(
      /the cluster did not start: server-2 ended with exit code 1: futurestore: cannot listen on 127\.0\.0\.1:7421/,
    );
    expect(machine.launched.map(({ signals }) => signals)).toEqual([['SIGTERM'], ['SIGTERM'], ['SIGTERM']]);
  });

  test('a server that the cluster has removed does not keep the others from being run', async () => {
    machine.log = `{"level":"info","msg":"${removedText}"}`;
    machine.onPause = () => machine.launched[1]?.end('exit code 0');
    const stages = [unavailable, unavailable];
    status = () => (stages.pop() ?? (() => Promise.resolve(clusterStatus(['leader']))))();
    const running = dev();
    while (!output.includes('Ctrl-C')) await new Promise(setImmediate);
    interruption.abort();
    await running;
    expect(output).toMatch(/^server-2 +no member /m);
    expect(errors).toBe(
      `futurestore: server-2 (server 2) is no member of the cluster any more: ${join(clusterDirectory(), 'server-2')} is no longer used, remove it\n`,
    );
  });

  test('of two servers with one address the later one is run: the other was removed before', async () => {
    await devUntilReady(() => interruption.abort());
    const second = join(clusterDirectory(), 'server-2');
    const fourth = join(clusterDirectory(), 'server-4');
    cpSync(second, fourth, { recursive: true });
    const file = join(fourth, 'server.yaml');
    const text = readFileSync(file, 'utf8');
    const asFourth = text.replace(/^member: 2$/m, 'member: 4').replace('id: 2,', 'id: 4,');
    writeFileSync(file, asFourth);
    [interruption, machine, output] = [new AbortController(), new FakeMachine(), ''];
    await devUntilReady(() => interruption.abort());
    expect(machine.launched.map(({ configurationFile }) => configurationFile)).toEqual(
      [1, 3, 4].map((id) => join(clusterDirectory(), `server-${id}`, 'server.yaml')),
    );
    expect(errors).toContain(
      `server-2 (server 2) is no member of the cluster any more, server 4 has its address: ${second} is no longer used`,
    );
  });

  test('a cluster without a leader is given up in time', async () => {
    await expect(dev()).rejects.toThrow(/no leader after 30 s/);
    expect(machine.elapsedMs).toBeGreaterThanOrEqual(30_000);
    expect(machine.launched.map(({ signals }) => signals)).toEqual([['SIGTERM'], ['SIGTERM'], ['SIGTERM']]);
  });

  test('an interruption before the cluster is ready stops it', async () => {
    machine.onPause = () => interruption.abort();
    await dev();
    expect(machine.launched.map(({ signals }) => signals)).toEqual([['SIGTERM'], ['SIGTERM'], ['SIGTERM']]);
    expect(output).not.toContain('Ctrl-C');
  });

  test('a server that ends is told, and not started again; with the last one dev ends too', async () => {
    const ended = devUntilReady(() =>
      machine.launched.forEach(({ end }, index) => end(`exit code ${index}`)),
    );
    await expect(ended).rejects.toThrow(/all servers have ended/);
    expect(errors.split('\n').slice(0, 3)).toEqual(
      [0, 1, 2].map(
        (index) =>
          expect.stringContaining(`server-${index + 1} ended with exit code ${index}: see `) as unknown,
      ),
    );
    expect(machine.launched).toHaveLength(3);
  });

  test('a server that does not stop in time is killed', async () => {
    machine.hanging = true;
    await devUntilReady(() => interruption.abort());
    expect(machine.launched.map(({ signals }) => signals)).toEqual(
      Array.from({ length: 3 }, () => ['SIGTERM', 'SIGKILL']),
    );
    expect(errors).toContain('did not stop within 30 s');
  });
});
