import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { connect, loadProfile, textOf, type Client } from '../../src/client/index.ts';
import { eventually, ProcessCluster, run } from '../support/process-cluster.ts';

const version = spawnSync('haproxy', ['-v'], { encoding: 'utf8' })
  .stdout?.split('\n', 1)[0]
  ?.match(/version (\S+)/)?.[1];

if (version === undefined)
  console.warn('SKIPPED: there is no haproxy on this machine, so none is tried (Debian: haproxy)');

/** Where its connections to the servers come from; agents come from 127.0.0.1. */
const balancerAddress = '127.0.0.9';

/** README's, with this cluster's addresses. Every replacement must find what it replaces. */
const configurationOf = (port: number, cluster: ProcessCluster): string => {
  const found = /```haproxy\n([^`]+)```/.exec(readFileSync('README.md', 'utf8'))?.[1];
  if (found === undefined) throw new Error('README.md has no configuration of HAProxy');
  const replacements = [
    ['bind :443', `bind 127.0.0.1:${port}`],
    ['balance leastconn', `balance leastconn\n  source ${balancerAddress}`],
    ...[1, 2, 3].map((id) => [
      `fs${id}.example.com:${7420 + id} port ${7440 + id}`,
      `127.0.0.1:${cluster.port + id - 1} port ${cluster.port + 20 + id - 1}`,
    ]),
  ] as const;
  return replacements.reduce((text, [ours = '', theirs = '']) => {
    expect(text.split(ours), ours).toHaveLength(2);
    return text.replace(ours, theirs);
  }, found);
};

describe.skipIf(version === undefined)(`HAProxy ${version} before the servers`, () => {
  const agents = 24;
  const clients: Client[] = [];
  let cluster: ProcessCluster;
  let balancer: ChildProcess;
  let endpoint: string;
  /** What the balancer has said of the servers' health. */
  let said = '';

  beforeAll(async () => {
    cluster = await ProcessCluster.create({ settings: { stop_grace: '2s' } });
    // Of the range that was found free; the servers take the first three.
    const port = cluster.port + 4;
    endpoint = `wss://127.0.0.1:${port}`;
    for (const id of cluster.ids) {
      const settings = parse(readFileSync(cluster.configuration(id), 'utf8')) as { readonly agents: object };
      const more = { advertise: [endpoint], proxy_protocol: { trusted: [balancerAddress] } };
      writeFileSync(
        cluster.configuration(id),
        stringify({ ...settings, agents: { ...settings.agents, ...more } }),
      );
      cluster.startServer(id);
    }
    await cluster.ready();
    const file = cluster.path('haproxy.cfg');
    writeFileSync(file, configurationOf(port, cluster));
    balancer = spawn('haproxy', ['-db', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] });
    balancer.stderr?.setEncoding('utf8').on('data', (text: string) => (said += text));
  });

  afterAll(async () => {
    await Promise.all(clients.map((client) => client.close({ graceMs: 0 })));
    if (balancer?.exitCode === null && balancer.kill('SIGKILL')) await once(balancer, 'exit');
    await cluster?.close();
  });

  const agent = (): Client => {
    const client = connect({ ...loadProfile(cluster.path('admin.yaml')), endpoints: [endpoint] });
    clients.push(client);
    return client;
  };

  const connections = async (): Promise<readonly number[]> =>
    Promise.all(
      cluster.ids.map(async (id) =>
        cluster.isRunning(id) ? ((await cluster.metric(id, 'futurestore_connections')) ?? 0) : 0,
      ),
    );

  /** The servers that the balancer said last of that they are down. */
  const isDown = (): readonly number[] =>
    cluster.ids.filter((id) => {
      const told = [...said.matchAll(new RegExp(`/server-${id} is (UP|DOWN)`, 'g'))].at(-1);
      return told?.[1] === 'DOWN';
    });

  const allAreConnected = (what: string): Promise<void> =>
    eventually(
      what,
      async () => (await connections()).reduce((sum, count) => sum + count, 0) === clients.length,
    );

  test('spreads agents, which are served on and lose no wait while one server is stopped and another one killed', async () => {
    const waits = Array.from({ length: agents }, (_, index) => agent().await(`balanced/${index}`));
    for (const wait of waits) wait.catch(() => undefined);
    const writer = clients[0];
    if (writer === undefined) throw new Error('there is no agent');
    await allAreConnected('all agents are connected');
    // Each counts as many as it has been given; all checks of its health count for none.
    expect(Math.min(...(await connections()))).toBeGreaterThanOrEqual(agents / 3 - 2);

    const stopped = cluster.signal(1, 'SIGTERM');
    await eventually('it says that it is stopping', async () => {
      const answer = await cluster.adminGet(1, '/readyz');
      return answer?.status === 503 || !cluster.isRunning(1);
    });
    expect(await stopped).toBe(0);
    await allAreConnected('those of the stopped server are connected to the others');
    expect((await connections())[0]).toBe(0);
    await writer.resolve('balanced/0', 'after the stop', { timeoutMs: 20_000 });
    const [first] = await Promise.all(waits.slice(0, 1));
    expect(first && textOf(first)).toBe('after the stop');

    cluster.startServer(1);
    await cluster.ready();
    await cluster.kill(2);
    await allAreConnected('those of the killed server are connected to the others');
    for (let index = 1; index < agents; index++)
      await writer.resolve(`balanced/${index}`, `value ${index}`, { timeoutMs: 20_000 });
    const values = await Promise.all(waits.map(async (wait) => textOf(await wait)));
    expect(values.slice(1)).toEqual(Array.from({ length: agents - 1 }, (_, index) => `value ${index + 1}`));
  });

  test('takes out a server that is drained, and gives it agents again when its drain is ended', async () => {
    for (const id of cluster.ids) if (!cluster.isRunning(id)) cluster.startServer(id);
    await cluster.ready();
    await eventually('the balancer has taken all servers in again', () =>
      Promise.resolve(isDown().length === 0),
    );
    while (clients.length < agents) agent();
    const waits = clients.map((client, index) => client.await(`drained/${index}`));
    for (const wait of waits) wait.catch(() => undefined);
    await allAreConnected('all agents are connected');
    const counts = await connections();
    const drained = counts.indexOf(Math.max(...counts)) + 1;
    const drain = async (...options: string[]): Promise<void> => {
      const profile = ['--profile', cluster.path('admin.yaml')];
      expect(await run(['drain', `server-${drained}`, ...options, ...profile])).toMatchObject({ code: 0 });
    };
    const health = (text: string): Promise<void> => {
      const from = said.length;
      return eventually(`the balancer says ${text}`, () => Promise.resolve(said.slice(from).includes(text)));
    };
    const isOut = health(`server-${drained} is DOWN, reason: Layer7 wrong status, code: 503`);
    await drain('--grace', '1s');
    await eventually('it has no agents', async () => (await connections())[drained - 1] === 0);
    await allAreConnected('its agents are at the others');
    await isOut;
    const newcomer = agent();
    for (const index of waits.keys())
      await newcomer.resolve(`drained/${index}`, `${index}`, { timeoutMs: 20_000 });
    const values = await Promise.all(waits.map(async (wait) => textOf(await wait)));
    expect(values).toEqual(waits.map((_, index) => `${index}`));
    expect((await connections())[drained - 1]).toBe(0);

    const isIn = health(`server-${drained} is UP`);
    await drain('--end');
    await isIn;
    await Promise.all([agent(), agent()].map((client) => client.get('nothing')));
    await eventually('it gets those who come', async () => (await connections())[drained - 1] === 2);
  });

  test("the servers' logs have the agents' own addresses, and agents are told the balancer's", async () => {
    const remotes = cluster.ids.flatMap((id) =>
      cluster
        .log(id)
        .split('\n')
        .filter((line) => line.includes('an agent connected'))
        .map((line) => (JSON.parse(line) as { readonly remote: string }).remote),
    );
    expect(remotes.length).toBeGreaterThanOrEqual(agents);
    expect(new Set(remotes)).toEqual(new Set(['127.0.0.1']));
    const told = await new Promise<readonly string[]>((resolve) => {
      const profile = loadProfile(cluster.path('admin.yaml'));
      const client = connect({
        ...profile,
        endpoints: [endpoint],
        onStateChange: (state) => {
          if (state.kind === 'connected') resolve(state.server.endpoints);
        },
      });
      clients.push(client);
    });
    expect(told).toEqual([endpoint]);
  });
});
