import { afterEach, describe, expect, test } from 'vitest';
import type { Client } from '../../src/client/index.ts';
import { eventually, ProcessCluster, sleep } from '../support/process-cluster.ts';

let cluster: ProcessCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

interface Writers {
  /** Key → generation, of every write that was acknowledged. */
  readonly acknowledged: Map<string, number>;
  readonly failures: unknown[];
  stop(): Promise<void>;
}

/** Twenty clients, spread over all servers, each writing one distinct future after the other. */
const startWriters = async (servers: ProcessCluster, count = 20): Promise<Writers> => {
  const acknowledged = new Map<string, number>();
  const failures: unknown[] = [];
  const stopping = new AbortController();
  const write = async (client: Client, writer: number): Promise<void> => {
    for (let number = 0; !stopping.signal.aborted; number += 1) {
      const key = `load/${writer}/${number}`;
      try {
        const result = await client.resolve(key, key, { timeoutMs: 60_000 });
        acknowledged.set(key, result.generation);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  const clients = await Promise.all(Array.from({ length: count }, () => servers.connect()));
  const running = clients.map((client, writer) => write(client, writer));
  return {
    acknowledged,
    failures,
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
    },
  };
};

/** Every acknowledged write is on every server, in its first generation: it was settled once. */
const expectAllThere = async (
  servers: ProcessCluster,
  acknowledged: ReadonlyMap<string, number>,
): Promise<void> => {
  expect([...acknowledged.values()].filter((generation) => generation !== 1)).toEqual([]);
  for (const id of servers.ids) {
    const client = await servers.connect({ server: id });
    // A linearizable read first: from then on the server's own state is at least as new.
    await client.get('load/0/0', { timeoutMs: 20_000 });
    const found = new Map<string, { generation: number; value: string }>();
    for await (const future of client.listAll('load/**', { values: true, stale: true })) {
      found.set(future.key, {
        generation: future.generation,
        value: Buffer.from(future.value ?? []).toString(),
      });
    }
    const wrong = [...acknowledged.keys()].filter((key) => {
      const future = found.get(key);
      return future?.value !== key || future.generation !== 1;
    });
    expect(wrong, `missing or wrong on server ${id}`).toEqual([]);
  }
};

describe('what was acknowledged is there afterwards, once', () => {
  test('while the leader is killed and restarted ten times under the load of 20 clients', async () => {
    cluster = await ProcessCluster.start();
    const writers = await startWriters(cluster);
    let before = 0;
    for (let round = 0; round < 10; round += 1) {
      const leader = await cluster.someLeader();
      await cluster.kill(leader);
      before = writers.acknowledged.size;
      // The others go on without it.
      await eventually('writes are acknowledged again', async () => writers.acknowledged.size > before + 20);
      cluster.startServer(leader);
      await cluster.ready();
    }
    await writers.stop();
    expect(writers.failures).toEqual([]);
    expect(writers.acknowledged.size).toBeGreaterThan(500);
    await expectAllThere(cluster, writers.acknowledged);
  });

  test('when all three are killed at once', async () => {
    cluster = await ProcessCluster.start();
    const writers = await startWriters(cluster);
    for (let round = 0; round < 3; round += 1) {
      await sleep(700);
      const running = cluster;
      await Promise.all(running.ids.map((id) => running.kill(id)));
      for (const id of cluster.ids) cluster.startServer(id);
      await cluster.ready();
    }
    await sleep(500);
    await writers.stop();
    expect(writers.failures).toEqual([]);
    expect(writers.acknowledged.size).toBeGreaterThan(100);
    await expectAllThere(cluster, writers.acknowledged);
  });

  test('when a follower was away while the log was compacted: it comes back by a snapshot', async () => {
    cluster = await ProcessCluster.start({ settings: { log_retain: '1MiB' } });
    const leader = await cluster.someLeader();
    const away = cluster.ids.find((id) => id !== leader) as number;
    await cluster.kill(away);
    const client = await cluster.connect({ server: leader });
    const acknowledged = new Map<string, number>();
    for (let round = 0; round < 20; round += 1) {
      const keys = Array.from({ length: 100 }, (_, index) => `load/${round}/${index}`);
      const value = 'x'.repeat(500);
      const results = await Promise.all(
        keys.map((key) => client.resolve(key, key, { contentType: `text/plain; x=${value.slice(0, 80)}` })),
      );
      for (const [index, key] of keys.entries()) acknowledged.set(key, results[index]?.generation ?? 0);
      await client.resolve(`other/${round}`, value.repeat(200));
    }
    cluster.startServer(away);
    await cluster.ready();
    await eventually('a snapshot was received', async () => {
      return ((await cluster?.metric(away, 'futurestore_snapshots_received_total')) ?? 0) > 0;
    });
    await expectAllThere(cluster, acknowledged);
  });
});
