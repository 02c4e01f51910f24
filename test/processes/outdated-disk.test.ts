import { cpSync, existsSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually, ProcessCluster, run } from '../support/process-cluster.ts';

let cluster: ProcessCluster;

beforeAll(async () => {
  cluster = await ProcessCluster.start();
});
afterAll(async () => {
  await cluster?.close();
});

const admin = (...args: readonly string[]) =>
  run([...args, '--profile', cluster.path('admin.yaml'), '--timeout', '30s']);

test('an older copy of a data directory never takes part, ends, and is replaced', async () => {
  const back = (await cluster.someLeader()) === 3 ? 2 : 3;
  const client = await cluster.connect();
  const write = async (round: string): Promise<void> => {
    for (let number = 0; number < 20; number += 1) await client.resolve(`${round}/${number}`, round);
  };
  await write('before');
  const data = cluster.serverPath(back, 'data');
  const copy = cluster.serverPath(back, 'copy');
  await cluster.signal(back, 'SIGTERM');
  cpSync(data, copy, { recursive: true });

  cluster.startServer(back);
  await cluster.ready();
  await write('after');
  await cluster.kill(back);
  rmSync(data, { recursive: true });
  cpSync(copy, data, { recursive: true });

  // Nobody is there who could refuse it; then it has been started more often than they have heard.
  const others = cluster.ids.filter((id) => id !== back);
  for (const id of others) await cluster.kill(id);
  for (let again = 0; again < 3; again += 1) {
    cluster.startServer(back);
    await eventually('it runs', async () => (await cluster.adminGet(back, '/livez'))?.status === 200);
    await cluster.kill(back);
  }
  const child = cluster.startServer(back);
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  for (const id of others) cluster.startServer(id);
  expect(await ended).toBe(9);
  const log = cluster.log(back);
  expect(log).toMatch(
    /has come back with an older copy of its data \(start 5, but not after the start 2 that/,
  );
  expect(log).toMatch(/^futurestore: The data of this server must not be used any more: member \d has come/m);
  await cluster.ready(others);
  for (let again = 0; again < 2; again += 1) {
    const started = cluster.startServer(back);
    expect(await new Promise((resolve) => started.once('exit', resolve))).toBe(9);
  }
  expect(cluster.log(back)).toMatch(/^futurestore: The data in .* must not be used any more: member \d has/m);

  const replacing = admin('member', 'replace', `${back}`);
  const directory = cluster.path('server-4');
  await eventually('it has a directory', async () => existsSync(`${directory}/server.yaml`));
  cluster.moveTo(back, 'server-4', {});
  cluster.startServer(back, { args: ['--join'] });
  const { code, stderr } = await replacing;
  expect(`${code} ${stderr}`).toBe('0 ');
  await cluster.ready();
  const reader = await cluster.connect({ server: back });
  for (const round of ['before', 'after'])
    for (let number = 0; number < 20; number += 1)
      expect(Buffer.from((await reader.get(`${round}/${number}`))?.value ?? []).toString()).toBe(round);
});
