import { mkdirSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test } from 'vitest';
import { loadProfile, textOf, type Client } from '../../src/client/index.ts';
import { eventually, ProcessCluster, run } from '../support/process-cluster.ts';
import { python, PythonClient } from '../support/python-client.ts';

if (python === undefined) {
  console.warn(
    'SKIPPED: there is no Python with websockets and protobuf on this machine, or no protoc, so no client is written ' +
      'in another language (Debian: python3-websockets python3-protobuf protobuf-compiler)',
  );
}

describe.skipIf(python === undefined)(
  'a client in Python, made of proto/agent.proto and its page alone',
  () => {
    let cluster: ProcessCluster;
    let admin: Client;
    let client: PythonClient;

    beforeAll(async () => {
      cluster = await ProcessCluster.start();
      admin = await cluster.connect();
      const made = await run(['cert', 'web1', '--dir', cluster.path()]);
      expect(made).toMatchObject({ code: 0 });
      mkdirSync(cluster.path('generated'));
    });
    afterAll(async () => {
      await cluster?.close();
    });
    beforeEach(() => {
      client = new PythonClient({
        executable: python ?? '',
        directory: cluster.path('generated'),
        ca: cluster.path('ca', 'servers.pem'),
        cert: cluster.path('agents', 'web1.pem'),
        key: cluster.path('agents', 'web1.key'),
        endpoints: loadProfile(cluster.path('admin.yaml')).endpoints,
      });
    });
    afterEach(async () => {
      await client.close();
    });

    const resolved = (key: string) => client.event(`${key} is resolved`, (event) => event.resolved === key);

    test('is who its certificate says, awaits and resolves, and is told what it may not', async () => {
      const { principal } = await client.event('it is connected', ({ connected }) => connected !== undefined);
      expect(principal).toBe('agents:web1');
      client.tell({ await: 'nodes/web1/in/token' });
      client.tell({ resolve: 'nodes/web1/out/url', value: 'http://web1' });
      expect(await resolved('nodes/web1/out/url')).toMatchObject({ generation: 1 });
      expect(textOf(await admin.await('nodes/web1/out/url'))).toBe('http://web1');
      await admin.resolve('nodes/web1/in/token', 't0p');
      const awaited = await client.event('it has the token', (event) => event.awaited !== undefined);
      expect(awaited).toMatchObject({ awaited: 'nodes/web1/in/token', state: 'RESOLVED', value: 't0p' });
      client.tell({ await: 'nodes/db1/out/x' });
      expect(await client.event('it is refused', ({ failed }) => failed !== undefined)).toMatchObject({
        failed: 'PERMISSION_DENIED',
      });
    });

    test('an await goes on over a connection that was cut, and over the loss of its server', async () => {
      const { connected } = await client.event('it is connected', (event) => event.connected !== undefined);
      client.tell({ await: 'nodes/web1/in/late' });
      await eventually('it waits', async () => (await waits()) === 1);
      let heard = client.events.length;
      client.tell({ cut: true });
      const again = await client.event('it is back', (event) => event.connected !== undefined, heard);
      await eventually('it waits again', async () => (await waits()) === 1);
      heard = client.events.length;
      const server = again.connected ?? connected ?? 0;
      await cluster.kill(server);
      await client.event('it is back elsewhere', (event) => event.connected !== undefined, heard);
      await admin.resolve('nodes/web1/in/late', 'yes', { timeoutMs: 20_000 });
      const awaited = await client.event('it has the value', (event) => event.awaited !== undefined);
      expect(awaited).toMatchObject({ awaited: 'nodes/web1/in/late', value: 'yes' });
      cluster.startServer(server);
      await cluster.ready();
    });

    /** Of all servers that run. */
    const waits = async (): Promise<number> => {
      const counts = await Promise.all(
        cluster.ids.map(async (id) => (await cluster.metric(id, 'futurestore_waits')) ?? 0),
      );
      return counts.reduce((sum, count) => sum + count, 0);
    };

    test('a write happens once, though its connection is cut before the answer', async () => {
      const key = 'nodes/web1/out/counted';
      const writes = 30;
      await admin.resolve(key, '1');
      for (let write = 2; write <= writes; write += 1) {
        const heard = client.events.length;
        const command = { resolve: key, value: `${write}`, if_generation: write - 1 };
        // From before it is applied to after it is answered.
        client.tell({ ...command, cut_after_ms: write / 2 });
        const told = await client.event(
          'what became of it',
          ({ resolved: known, failed }) => known === key || failed !== undefined,
          heard,
        );
        // Were it done a second time, the generation would not be that one any more.
        expect(told).toMatchObject({ generation: write });
      }
      expect((await admin.get(key))?.generation).toBe(writes);
    });

    test('a subscription is resumed where it was cut: no change is missed and none comes twice', async () => {
      const pattern = 'nodes/web1/in/**';
      client.tell({ subscribe: pattern });
      await client.event('it has caught up', (event) => event.caught_up === pattern);
      const heard = client.events.length;
      const count = 60;
      for (let change = 0; change < count; change += 1) {
        if (change % 12 === 5) client.tell({ cut: true });
        await admin.resolve(`nodes/web1/in/n${change}`, `${change}`);
      }
      const last = `nodes/web1/in/n${count - 1}`;
      await client.event('it has the last change', (event) => event.changed === last, heard);
      const events = client.events.slice(heard);
      expect(events.filter(({ reset }) => reset !== undefined)).toEqual([]);
      expect(events.filter(({ connected }) => connected !== undefined).length).toBeGreaterThan(1);
      const changes = events.filter(({ changed }) => changed !== undefined);
      expect(changes.map(({ changed }) => changed)).toEqual(
        Array.from({ length: count }, (_, change) => `nodes/web1/in/n${change}`),
      );
      const revisions = changes.map(({ revision }) => revision ?? 0);
      expect(revisions).toEqual([...revisions].sort((one, other) => one - other));
    });
  },
);
