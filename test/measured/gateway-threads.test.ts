/** Servers whose agents are served in threads: real processes, real TLS, several threads at one listening socket. */
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import type { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { parse } from 'yaml';
import { issueLeaf } from '../../src/cli/authority/certificates.ts';
import { loadProfile, type Client } from '../../src/client/index.ts';
import { jsonCodec, protobufCodec } from '../../src/protocol/index.ts';
import type { PolicyDocument } from '../../src/scopes/index.ts';
import { hello, subscribe, TestAgent } from '../gateway/harness.ts';
import { applyPolicies } from '../support/apply-policies.ts';
import { eventually, ProcessCluster, run, sleep } from '../support/process-cluster.ts';

const threads = 2;
const text = (value: Uint8Array | undefined): string => Buffer.from(value ?? []).toString();

let cluster: ProcessCluster;
const open: TestAgent[] = [];
const profileOf = (name: string): string =>
  name === 'admin' ? cluster.path('admin.yaml') : cluster.path('agents', `${name}.yaml`);

/** By thread, as of the last second. */
const connectionsOfThreads = async (): Promise<number[]> => {
  const metrics = (await cluster.adminGet(1, '/metrics'))?.text ?? '';
  const lines = metrics.matchAll(/^futurestore_gateway_thread_connections\{thread="(\d+)"\} (\d+)$/gm);
  return [...lines].map(([, , count]) => Number(count));
};

/** Below the library. */
const connectRaw = async (name: string, codec = protobufCodec): Promise<TestAgent> => {
  const { ca, cert, key } = loadProfile(profileOf(name));
  const ws = new WebSocket(`wss://127.0.0.1:${cluster.port}/`, [codec.subprotocol], {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
  });
  const agent = new TestAgent(ws, codec);
  open.push(agent);
  await agent.opened;
  agent.send({ hello, requests: [] });
  return agent;
};

/** The numbers are told once a second, and those of an earlier test may still be leaving. */
const settledConnections = async (): Promise<readonly number[]> => {
  for (let last = ''; ;) {
    const now = await connectionsOfThreads();
    if (now.join() === last) return now;
    last = now.join();
    await sleep(1100);
  }
};

/**
 * Each thread accepts what it gets hold of first, and one that is idle gets hold of nearly all that come one by one: so
 * they come several at once, more in each round, until both threads have at least two more.
 */
const connectToBoth = async (name: string, least: number): Promise<TestAgent[]> => {
  const before = await settledConnections();
  const agents: TestAgent[] = [];
  for (let round = 1; round <= 10; round += 1) {
    const more = await Promise.all(Array.from({ length: 8 * round }, () => connectRaw(name)));
    await Promise.all(more.map((agent) => agent.frame()));
    agents.push(...more);
    if (agents.length < least) continue;
    await sleep(1100);
    const now = await connectionsOfThreads();
    if (now.length === threads && now.every((each, place) => each >= (before[place] ?? 0) + 2)) return agents;
  }
  throw new Error(`all connections went to one thread: ${(await connectionsOfThreads()).join(', ')}`);
};

const closeAll = async (agents: readonly TestAgent[]): Promise<void> => {
  for (const { ws } of agents) ws.close();
  await Promise.all(agents.map(({ closed }) => closed));
};

beforeAll(async () => {
  cluster = await ProcessCluster.create({ servers: 1, settings: { gateway: { workers: threads } } });
  for (const name of ['web1', 'web2', 'web3']) {
    const made = await run(['cert', name, '--dir', cluster.path()]);
    if (made.code !== 0) throw new Error(made.stderr);
  }
  const policy = cluster.path('policy.yaml');
  const limits = `
  few:
    - limit: { connections: 8, requests_per_second: 20 }
    - allow: [get]
      on: "shared/**"
`;
  writeFileSync(
    policy,
    readFileSync(policy, 'utf8')
      .replace('\npolicies:', `\npolicies:${limits}`)
      .replace('\nbindings:', '\nbindings:\n  - { realm: agents, principal: web2, policies: [few] }'),
  );
  cluster.startServer(1);
  await cluster.ready();
});
afterAll(async () => {
  for (const { ws } of open) ws.terminate();
  await cluster?.close();
});

describe('agents in several threads of one server', () => {
  test('write, read and wait for each other, whichever thread serves them', async () => {
    const clients: Client[] = [];
    for (let index = 0; index < 12; index += 1) clients.push(await cluster.connect());
    await Promise.all(clients.map((client) => client.clock()));
    await eventually('all are counted', async () => {
      const counts = await connectionsOfThreads();
      return counts.length === threads && counts.reduce((a, b) => a + b, 0) === clients.length;
    });
    const waits = clients.map((client, index) =>
      client.await(`shared/cross/${(index + 5) % clients.length}`),
    );
    await Promise.all(clients.map((client, index) => client.resolve(`shared/cross/${index}`, `of ${index}`)));
    const values = (await Promise.all(waits)).map(({ value }) => text(value));
    expect(values).toEqual(clients.map((_, index) => `of ${(index + 5) % clients.length}`));
    for (const client of clients) expect(text((await client.get('shared/cross/3'))?.value)).toBe('of 3');
    const large = new Uint8Array(1024 * 1024).fill(7);
    await clients[0]?.resolve('shared/large', large);
    const read = await Promise.all(clients.map((client) => client.get('shared/large')));
    for (const future of read) expect(Buffer.compare(future?.value ?? new Uint8Array(), large)).toBe(0);
    await Promise.all(clients.map((client) => client.close()));
  });

  test('are all sent what they subscribed to, in order, in either encoding', async () => {
    const agents = [
      ...(await connectToBoth('web1', 6)),
      ...(await Promise.all([connectRaw('web1', jsonCodec), connectRaw('web1', jsonCodec)])),
    ];
    for (const agent of agents) await agent.answer(agent.request(subscribe('shared/fan/**')));
    const writer = await cluster.connect();
    for (let change = 0; change < 20; change += 1) await writer.resolve(`shared/fan/${change}`, `${change}`);
    for (const agent of agents) {
      const changes = () => agent.frames.flatMap(({ pushes }) => pushes.flatMap((push) => push.changes));
      await agent.until(() => changes().length === 20);
      const seen = changes().map((change) => change.kind === 'future' && text(change.future.value));
      expect(seen).toEqual(Array.from({ length: 20 }, (_, index) => `${index}`));
    }
    await closeAll(agents);
  });

  test('are cut off on all of them within a second when they are revoked, and not let in again', async () => {
    const agents = await connectToBoth('web3', 6);
    const operator = await cluster.connect();
    await operator.status();
    const startedMs = performance.now();
    await operator.revoke({ kind: 'principal', realm: 'agents', name: 'web3' });
    for (const { closed } of agents) expect((await closed).code).toBe(4503);
    expect(performance.now() - startedMs).toBeLessThan(1000);
    for (let more = 0; more < 4; more += 1) expect((await (await connectRaw('web3')).closed).code).toBe(4503);
  });

  test('have the connections and requests a second that their policies allow them, over all threads', async () => {
    const agents = await Promise.all(Array.from({ length: 14 }, () => connectRaw('web2')));
    const outcomes = await Promise.all(
      agents.map((agent) =>
        Promise.race([agent.frame().then(() => 0), agent.closed.then(({ code }) => code)]),
      ),
    );
    expect(outcomes.filter((code) => code === 0)).toHaveLength(8);
    expect(outcomes.filter((code) => code === 4031)).toHaveLength(6);
    const admitted = agents.filter((_, index) => outcomes[index] === 0);
    const startedMs = performance.now();
    const answers = await Promise.all(
      admitted.flatMap((agent) =>
        Array.from({ length: 10 }, () =>
          agent.answer(agent.request({ kind: 'get', key: 'shared/x', stale: false })),
        ),
      ),
    );
    const seconds = (performance.now() - startedMs) / 1000;
    const refused = answers.filter((body) => body.kind === 'failed');
    expect(new Set(refused.map((body) => body.kind === 'failed' && body.failure.code))).toEqual(
      new Set(['RATE_LIMITED']),
    );
    // What is not a whole request of a thread's part is lost to it, and each may make one.
    expect(answers.length - refused.length).toBeGreaterThanOrEqual(20 - threads);
    expect(answers.length - refused.length).toBeLessThanOrEqual(20 * (1 + seconds) + threads);
    await closeAll(admitted);
  });

  test('are shown a new certificate by all of them when the server is asked to read its files again', async () => {
    const authority = {
      certificate: readFileSync(cluster.path('ca', 'servers.pem'), 'utf8'),
      privateKey: readFileSync(cluster.path('ca', 'servers.key'), 'utf8'),
    };
    const options = { commonName: 'server-1', hosts: ['127.0.0.1'], server: true, client: false };
    const made = await issueLeaf(authority, options, Date.now());
    writeFileSync(cluster.serverPath(1, 'server.pem'), made.certificate);
    writeFileSync(cluster.serverPath(1, 'server.key'), made.privateKey);
    process.kill(cluster.processId(1), 'SIGHUP');
    await eventually('the log says so', async () => cluster.log(1).includes('"of":"agents"'));
    const wanted = new X509Certificate(made.certificate).fingerprint256;
    const agents = await connectToBoth('web1', 6);
    for (const { ws } of agents) {
      const socket = Reflect.get(ws, '_socket') as TLSSocket;
      expect(socket.getPeerCertificate().fingerprint256).toBe(wanted);
    }
    await closeAll(agents);
  });

  test('have one left over all threads, the newest, once policies say that they may have one', async () => {
    const agents = await connectToBoth('web1', 6);
    await sleep(100);
    const newest = await connectRaw('web1');
    await newest.frame();
    const document = parse(readFileSync(cluster.path('policy.yaml'), 'utf8')) as PolicyDocument;
    const bindings = [{ realm: 'agents', principal: 'web1', policies: ['one'] }, ...document.bindings];
    const policies = { ...document.policies, one: [{ limit: { connections: 1 } }] };
    const startedMs = performance.now();
    await applyPolicies(cluster, { ...document, policies, bindings }, 'one.yaml');
    for (const { closed } of agents) expect((await closed).code).toBe(4509);
    expect(performance.now() - startedMs).toBeLessThan(5000);
    expect(await newest.answer(newest.request({ kind: 'get', key: 'shared/x', stale: true }))).toMatchObject({
      kind: 'got',
    });
    await closeAll([newest]);
    await applyPolicies(cluster, document, 'many.yaml');
  });

  test('are told to go elsewhere, all of them, before the server ends, which it does in good order', async () => {
    const agents = await connectToBoth('web1', 6);
    const [code] = await Promise.all([
      cluster.signal(1, 'SIGTERM'),
      ...agents.map(async (agent) => {
        expect((await agent.closed).code).toBe(4090);
        expect(agent.frames.some(({ goaway }) => goaway !== undefined)).toBe(true);
      }),
    ]);
    expect(code).toBe(0);
    expect(cluster.log(1)).toContain('"msg":"stopped"');
    // The threads write to one output, and never into each other's lines.
    const lines = cluster.log(1).trim().split('\n');
    const connected = lines
      .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
      .filter(({ msg, server }) => msg === 'an agent connected' && server === 'server-1');
    expect(new Set(connected.map(({ thread }) => thread))).toEqual(new Set([0, 1]));
    expect(cluster.log(1)).not.toContain('"level":"fatal"');
    cluster.startServer(1);
    await cluster.ready();
    const client = await cluster.connect();
    expect(text((await client.get('shared/cross/3'))?.value)).toBe('of 3');
  });
});

describe('a gateway thread', () => {
  test('that fails ends its server at once, which says why', async () => {
    const failing = await ProcessCluster.create({ servers: 1, settings: { gateway: { workers: threads } } });
    try {
      const trigger = failing.path('fail');
      const preload = failing.path('fail.cjs');
      writeFileSync(
        preload,
        `const { isMainThread } = require('node:worker_threads');
const { existsSync } = require('node:fs');
if (!isMainThread) setInterval(() => { if (existsSync(${JSON.stringify(trigger)})) throw new Error('as the test wants'); }, 20);`,
      );
      const child = failing.startServer(1, { prefix: ['env', `NODE_OPTIONS=--require ${preload}`] });
      await failing.ready();
      const ended = new Promise((resolve) => child.once('exit', resolve));
      writeFileSync(trigger, '');
      expect(await ended).toBe(1);
      expect(failing.log(1)).toMatch(/"level":"fatal".*gateway thread [01] has failed: as the test wants/);
    } finally {
      await failing.close();
    }
  });
});
