/** Servers whose agents are served in threads: real processes, real TLS, several threads at one listening socket. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Client } from '../../src/client/index.ts';
import { eventually, ProcessCluster } from '../support/process-cluster.ts';

const threads = 2;
const text = (value: Uint8Array | undefined): string => Buffer.from(value ?? []).toString();

/** By thread. */
const connectionsOf = async (cluster: ProcessCluster, id: number): Promise<number[]> => {
  const metrics = (await cluster.adminGet(id, '/metrics'))?.text ?? '';
  const lines = metrics.matchAll(/^futurestore_gateway_thread_connections\{thread="(\d+)"\} (\d+)$/gm);
  return [...lines].map(([, , count]) => Number(count));
};

describe('agents in several threads of one server', () => {
  let cluster: ProcessCluster;
  const clients: Client[] = [];
  const many = 12;

  beforeAll(async () => {
    cluster = await ProcessCluster.start({ servers: 1, settings: { gateway: { workers: threads } } });
    for (let index = 0; index < many; index += 1) clients.push(await cluster.connect());
    await Promise.all(clients.map((client) => client.clock()));
  });
  afterAll(() => cluster.close());

  test('are spread over them', async () => {
    await eventually('both threads have some', async () => {
      const counts = await connectionsOf(cluster, 1);
      return counts.length === threads && counts.reduce((a, b) => a + b, 0) === many;
    });
    console.log(await connectionsOf(cluster, 1));
  });
});
