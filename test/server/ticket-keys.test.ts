import { afterEach, describe, expect, test } from 'vitest';
import { ServerCluster } from './support/server-cluster.ts';

let cluster: ServerCluster | undefined;
afterEach(async () => {
  for (const id of cluster?.running ?? []) await cluster?.stop(id);
  cluster = undefined;
});

const hourMs = 3_600_000;

/** The keys that the server has told its gateway, in order. */
const told = (id: number): string[] =>
  (cluster?.ticketKeys(id) ?? []).map((keys) => Buffer.from(keys).toString('hex'));

const allHave = (count: number) => (): boolean =>
  (cluster?.running ?? []).every((id) => told(id).length === count);

describe('keys for TLS session tickets', () => {
  test('are made once, are the same at all servers, and are there again after a restart', async () => {
    cluster = await ServerCluster.start({ servers: 3 });
    await cluster.time.until('all have keys', allHave(1));
    const [keys] = told(1);
    expect(keys).toMatch(/^[0-9a-f]{96}$/);
    expect([told(2), told(3)]).toEqual([[keys], [keys]]);
    await cluster.stop(2);
    await cluster.start(2);
    await cluster.time.until('the restarted one has keys', allHave(1));
    expect(told(2)).toEqual([keys]);
  });

  test('are changed twice a day, by whoever leads then', async () => {
    cluster = await ServerCluster.start({ servers: 1 });
    await cluster.time.until('there are keys', allHave(1));
    await cluster.time.run(11 * hourMs);
    expect(told(1)).toHaveLength(1);
    await cluster.time.run(2 * hourMs);
    expect(told(1)).toHaveLength(2);
    expect(new Set(told(1)).size).toBe(2);
  });

  test('wait while a server is there that could not read them in its log, or might not', async () => {
    cluster = new ServerCluster({ servers: 3 });
    await cluster.start(1);
    await cluster.start(2);
    await cluster.start(3, { version: 2 });
    await cluster.time.run(60_000);
    expect([told(1), told(2), told(3)]).toEqual([[], [], []]);
    await cluster.stop(3);
    await cluster.time.run(60_000);
    expect(told(1)).toEqual([]);
    await cluster.start(3);
    await cluster.time.until('all have keys', allHave(1));
  });
});
