/** What those who only wait cost a server: all of it behind the sockets, from the decoded frame to the feed. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { Feed } from '../../src/feed/index.ts';
import type { Request } from '../../src/protocol/index.ts';
import type { GatewayRequest } from '../../src/server/index.ts';
import { FakeSource } from '../feed/support/fake-source.ts';
import { ServerCluster } from '../server/support/server-cluster.ts';
import { ManyConnections } from './many-connections.ts';

setFlagsFromString('--expose-gc');
const collect: unknown = runInNewContext('gc');
const heapBytes = (): number => {
  if (typeof collect !== 'function') throw new Error('there is no collector to call');
  collect();
  collect();
  return process.memoryUsage().heapUsed;
};

interface Idle {
  readonly connections: number;
  readonly each: number;
  /** The request that is idle, or leads to what is; `id` begins with 1 on each connection. */
  readonly request: (connection: number, id: number) => Request;
}

const requestsOf = ({ each, request }: Idle, connection: number): Request[] =>
  Array.from({ length: each }, (_, at) => request(connection, at + 1));

/** Bytes for each that the whole server takes for them beyond what their connections do. */
const ofServer = async (idle: Idle): Promise<number> => {
  const cluster = await ServerCluster.start({ servers: 1 });
  const many = new ManyConnections((gateway) => cluster.server(1).attachGateway(gateway));
  many.connect(idle.connections);
  await cluster.time.run(1000);
  const before = heapBytes();
  for (let connection = 0; connection < idle.connections; connection += 1)
    many.ask(connection, requestsOf(idle, connection));
  await cluster.time.run(1000);
  const each = (heapBytes() - before) / (idle.connections * idle.each);
  const { waits, subscriptions } = cluster.server(1).status();
  expect(waits + subscriptions).toBe(idle.connections * idle.each);
  expect(many.failures).toBe(0);
  return each;
};

/** The same of a gateway alone, in front of a server that keeps nothing. */
const ofGateway = (idle: Idle): number => {
  let deliver: (request: GatewayRequest) => void = () => undefined;
  const many = new ManyConnections((gateway) => {
    deliver = ({ connection, request }) => {
      const position = { clusterId: 'c0ffee', epoch: 1, revision: 1 };
      const body = { kind: 'subscribed', position, reset: false } as const;
      gateway.deliver([{ kind: 'answer', connection, request, body }]);
    };
    return {
      submit: (requests) => {
        for (const request of requests) if (request.kind === 'subscribe') deliver(request);
      },
      notify: () => undefined,
      standing: {
        identity: { clusterId: 'c0ffee', epoch: 1, serverId: 1, serverName: 'one', endpoints: [] },
        revision: 1,
        leaderlessMs: 0,
      },
    };
  });
  many.connect(idle.connections);
  const before = heapBytes();
  for (let connection = 0; connection < idle.connections; connection += 1)
    many.ask(connection, requestsOf(idle, connection));
  const each = (heapBytes() - before) / (idle.connections * idle.each);
  expect(many.failures).toBe(0);
  return each;
};

/** The same of a feed alone, without the texts, which it shares with its caller. */
const ofFeed = (idle: Idle): number => {
  const feed = new Feed({ source: new FakeSource() });
  const all = Array.from({ length: idle.connections }, (_, connection) => requestsOf(idle, connection));
  const before = heapBytes();
  for (const [connection, requests] of all.entries()) {
    for (const { id: request, body } of requests) {
      const ids = { gateway: 0, connection, request };
      if (body.kind === 'subscribe') feed.subscribe({ ...ids, patterns: body.patterns, start: body.start });
      else if (body.kind === 'await') feed.await({ ...ids, alternatives: body.alternatives }, 0);
    }
    while (feed.pending) feed.take(0);
  }
  const each = (heapBytes() - before) / (idle.connections * idle.each);
  expect(feed.counts.waits + feed.counts.subscriptions).toBe(idle.connections * idle.each);
  expect(all).toHaveLength(idle.connections);
  return each;
};

const measure = async (what: string, idle: Idle): Promise<number> => {
  const [feed, gateway, server] = [ofFeed(idle), ofGateway(idle), await ofServer(idle)];
  const rest = server - feed - gateway;
  const rooms = { feed, gateway, 'server and the rest': rest, together: server };
  const shown = Object.entries(rooms).map(([room, bytes]) => `${room} ${Math.round(bytes)}`);
  console.log(`${what}, bytes each: ${shown.join(', ')}`);
  return server;
};

const start = { kind: 'present_state' } as const;
const awaitOf = (id: number, key: string): Request => ({
  id,
  timeoutMs: 3_600_000,
  body: { kind: 'await', alternatives: [[key]] },
});

describe('on a whole server, behind the sockets', { timeout: 120_000 }, () => {
  test('an idle subscription to the own scope takes at most 400 bytes, with its pattern', async () => {
    const each = await measure('subscription, one on each of 100,000 connections', {
      connections: 100_000,
      each: 1,
      request: (connection, id) => ({
        id,
        body: { kind: 'subscribe', patterns: [`nodes/agent${connection}/**`], start },
      }),
    });
    expect(each).toBeLessThanOrEqual(400);
  });

  test('a waiting key takes at most 300 bytes, with its name and its timeout', async () => {
    const many = await measure('awaited key, 100 on each of 1,000 connections', {
      connections: 1000,
      each: 100,
      request: (connection, id) => awaitOf(id, `nodes/web${connection}/out/certificate-${id}`),
    });
    const lone = await measure('awaited key, one on each of 100,000 connections', {
      connections: 100_000,
      each: 1,
      request: (connection, id) => awaitOf(id, `nodes/web${connection}/out/certificate`),
    });
    const shared = await measure('one key awaited on 10,000 connections', {
      connections: 10_000,
      each: 1,
      request: (_connection, id) => awaitOf(id, `shared/database/certificate`),
    });
    expect(many).toBeLessThanOrEqual(300);
    expect(lone).toBeLessThanOrEqual(300);
    expect(shared).toBeLessThanOrEqual(300);
  });
});
