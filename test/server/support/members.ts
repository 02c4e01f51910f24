/** What tests of the members need again and again. */
import { expect } from 'vitest';
import { resolveOperation, ServerCluster } from './server-cluster.ts';

export const put = (key: string, value = 'v') => [resolveOperation(key, value, { supersede: true })];

export const write = async (cluster: ServerCluster, at: number, count: number, bytes = 10): Promise<void> => {
  const agent = cluster.agent(at);
  agent.open();
  for (let number = 0; number < count; number += 1)
    await cluster.answer(agent, agent.write(put(`k/${number}`, 'x'.repeat(bytes))));
};

export const expectServing = async (cluster: ServerCluster, at: number, withinMs = 5000): Promise<void> => {
  const agent = cluster.agent(at);
  agent.open();
  expect(await cluster.answer(agent, agent.write(put(`serving/${at}`)), withinMs)).toMatchObject({
    kind: 'written',
  });
  const read = agent.send({ kind: 'get', key: `serving/${at}`, stale: false });
  expect(await cluster.answer(agent, read, withinMs)).toMatchObject({ future: { state: 'resolved' } });
};

export const voters = async (cluster: ServerCluster, at: number): Promise<number[]> =>
  (await cluster.list(at)).members.filter(({ standing }) => standing === 'voter').map(({ id }) => id);

export const started = (servers: number, more: { logRetainBytes?: number; seed?: number } = {}) =>
  ServerCluster.start({ servers, ...more });
