/** Orders about agents that cross each other: what was asked for last is what counts. */
import { describe, expect, test } from 'vitest';
import { started } from './support/members.ts';
import type { ServerCluster } from './support/server-cluster.ts';

const draining = async (cluster: ServerCluster, at: number): Promise<number[]> => {
  const agent = cluster.agent(at);
  const body = await cluster.answer(agent, agent.send({ kind: 'status' }));
  if (body.kind !== 'status') throw new Error('there is no status');
  return body.status.members.filter((one) => one.draining === true).map(({ id }) => id);
};

const order = (
  cluster: ServerCluster,
  at: number,
  member: number,
  end: boolean,
): (() => Promise<unknown>) => {
  const agent = cluster.agent(at);
  const request = agent.send({ kind: 'drain_server', member, end, ...(!end && { graceMs: 3000 }) });
  return () => cluster.answer(agent, request, 6000);
};

describe('orders that cross each other', () => {
  test('a drain that is asked for while another one is being ended counts', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    await order(cluster, 1, 2, false)();
    const listens = cluster.door(2).hold();
    const ended = order(cluster, 1, 2, true);
    await cluster.time.run(50);
    const again = order(cluster, 3, 2, false);
    await cluster.time.run(50);
    listens();
    expect(await again()).toMatchObject({ kind: 'drained', standing: { draining: true } });
    await ended();
    await cluster.time.run(500);
    expect(cluster.door(2).calls).toEqual(['drain 3000', 'admit', 'drain 3000']);
    expect(await draining(cluster, 1)).toEqual([2]);
    expect(cluster.server(2).readiness().ready).toBe(false);
  });

  test('a stop that comes while a drain is being ended is one: the server does not lead again', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    await order(cluster, 1, 2, false)();
    const listens = cluster.door(2).hold();
    order(cluster, 1, 2, true);
    await cluster.time.run(50);
    void cluster.server(2).drain(2000);
    await cluster.time.run(50);
    listens();
    await cluster.time.run(500);
    expect(cluster.door(2).calls.at(-1)).toBe('drain 2000');
    expect(await draining(cluster, 1)).toEqual([2]);
  });

  test('an earlier one that is sent again behind a later one is not carried out again', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    // Both outcomes are lost for a while, so both orders come again and again.
    cluster.network.lose(2, 1, ({ agentsOutcome }) => agentsOutcome !== undefined);
    const drain = order(cluster, 1, 2, false);
    await cluster.time.run(300);
    const end = order(cluster, 1, 2, true);
    await cluster.time.run(2500);
    cluster.network.lose(2, 1, () => false);
    expect(await end()).toMatchObject({ standing: { draining: false } });
    expect(await drain()).toMatchObject({ kind: 'drained' });
    await cluster.time.run(5000);
    expect(cluster.door(2).calls).toEqual(['drain 3000', 'admit']);
    expect(await draining(cluster, 1)).toEqual([]);
  });
});

describe('the last servers that take agents', () => {
  test('are not drained both, also when both are asked at the same instant, whoever is asked', async () => {
    for (const [seed, last] of [
      [1, [1, 2]],
      [2, [1, 3]],
      [3, [2, 3]],
      [4, [1, 2, 3]],
    ] as const) {
      const cluster = await started(3, { seed });
      await cluster.time.run(1500);
      for (const id of cluster.ids.filter((one) => !last.some((other) => other === one)))
        await order(cluster, 1, id, false)();
      await cluster.time.run(500);
      const answers = last.map((id) => order(cluster, id, id, false));
      const bodies = await Promise.all(answers.map((answer) => answer()));
      const refused = bodies.filter((body) => (body as { kind: string }).kind === 'failed');
      expect(refused.length).toBeGreaterThanOrEqual(1);
      for (const body of refused) {
        const message = expect.stringContaining('nowhere to go') as string;
        expect(body).toEqual({ kind: 'failed', failure: { code: 'DRAIN_REFUSED', message } });
      }
      await cluster.time.run(3000);
      const drained = await draining(cluster, 1);
      // What was answered is what is.
      expect(drained).toHaveLength(3 - refused.length);
      if (last.length === 2) expect(refused).toHaveLength(1);
      for (const left of cluster.ids.filter((id) => !drained.includes(id))) {
        expect(cluster.server(left).readiness().ready).toBe(true);
        expect(cluster.door(left).calls).toEqual(['drain 3000', 'admit']);
      }
      await cluster.time.run(5000);
      expect(await draining(cluster, 1)).toEqual(drained);
    }
  });

  test('gone for half a minute, a drained one takes agents again', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    await order(cluster, 3, 1, false)();
    await order(cluster, 3, 2, false)();
    await cluster.time.run(5000);
    cluster.crash(3);
    await cluster.time.run(20_000);
    // It may come back.
    expect(await draining(cluster, 1)).toEqual([1, 2]);
    await cluster.time.run(20_000);
    expect(await draining(cluster, 1)).toEqual([2]);
    expect(cluster.door(1).calls).toEqual(['drain 3000', 'admit']);
  });

  test('out of reach, a drained one stays so: it could not serve agents', async () => {
    const cluster = await started(3);
    await cluster.time.run(1500);
    await order(cluster, 3, 1, false)();
    cluster.network.isolate(1, cluster.ids);
    await cluster.time.run(40_000);
    expect(cluster.door(1).calls).toEqual(['drain 3000']);
  });
});
