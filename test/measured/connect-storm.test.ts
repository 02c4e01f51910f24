/** Hundreds of agents that connect to one server as fast as it can take them, each with a full TLS handshake. */
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { loadProfile } from '../../src/client/index.ts';
import { protobufCodec } from '../../src/protocol/index.ts';
import { hello, TestAgent } from '../gateway/harness.ts';
import { ProcessCluster, run, sleep } from '../support/process-cluster.ts';
import { ranOnProcessorMs, waitedForProcessorMs } from '../support/processor-wait.ts';

const agentsCount = 600;
const idleForMs = 3000;
/** More at once take longer than the deadline of a handshake where others use the processors, too. */
const atOnce = 40;
const principal = 'web1';

interface Storm {
  /** Until all had been answered a linearizable read. */
  readonly tookMs: number;
  /** Of the leader, to which they all came; without what it does in that time anyway. */
  readonly mainThreadMs: number;
  readonly mainThreadWaitedMs: number;
  readonly loopDelayMaxMs: number;
  readonly loopDelayP99Ms: number;
  readonly terms: readonly number[];
}

describe('a storm of new connections', () => {
  let cluster: ProcessCluster;
  let agents: TestAgent[] = [];
  const end = async (): Promise<void> => {
    for (const { ws } of agents) ws.terminate();
    agents = [];
    await cluster?.close();
  };
  afterEach(end);

  /** Comes again as a client would, when it took too long for the server's deadlines. */
  const served = async (port: number): Promise<void> => {
    const { ca, cert, key } = loadProfile(cluster.path('agents', `${principal}.yaml`));
    for (;;) {
      const ws = new WebSocket(`wss://127.0.0.1:${port}/`, [protobufCodec.subprotocol], {
        ...(ca !== undefined && { ca }),
        ...(cert !== undefined && { cert }),
        ...(key !== undefined && { key }),
      });
      const agent = new TestAgent(ws, protobufCodec);
      agents.push(agent);
      try {
        await agent.opened;
      } catch {
        await sleep(100 + Math.random() * 400);
        continue;
      }
      agent.send({ hello, requests: [] });
      const answered = agent.answer(agent.request({ kind: 'get', key: 'shared/x', stale: false }));
      const outcome = await Promise.race([answered, agent.closed]);
      if ('kind' in outcome && outcome.kind === 'got') return;
      await sleep(100 + Math.random() * 400);
    }
  };

  const storm = async (workers: number): Promise<Storm> => {
    cluster = await ProcessCluster.start({ settings: { gateway: { workers } } });
    await run(['cert', principal, '--dir', cluster.path()]);
    const leader = await cluster.someLeader();
    const pid = cluster.processId(leader);
    const metric = async (name: string): Promise<number> => (await cluster.metric(leader, name)) ?? NaN;
    const termBefore = await metric('futurestore_term');
    // Its loop's delay is that since the last look.
    await cluster.adminGet(leader, '/metrics');
    const idleMs = ranOnProcessorMs(pid);
    await sleep(idleForMs);
    const idleShare = (ranOnProcessorMs(pid) - idleMs) / idleForMs;
    const [ranMs, waitedMs] = [ranOnProcessorMs(pid), waitedForProcessorMs(pid)];
    const startedMs = performance.now();
    let left = agentsCount;
    const serveMore = async (): Promise<void> => {
      while (left > 0) {
        left -= 1;
        await served(cluster.port + leader - 1);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, serveMore));
    const tookMs = performance.now() - startedMs;
    const mainThreadMs = Math.max(0, ranOnProcessorMs(pid) - ranMs - idleShare * tookMs);
    const mainThreadWaitedMs = waitedForProcessorMs(pid) - waitedMs;
    let text = '';
    while (text === '') text = (await cluster.adminGet(leader, '/metrics'))?.text ?? '';
    const delay = (quantile: string): number => {
      const found = new RegExp(
        `^futurestore_event_loop_delay_seconds\\{quantile="${quantile}"\\} (\\S+)$`,
        'm',
      );
      return Number(found.exec(text)?.[1]) * 1000;
    };
    return {
      tookMs,
      mainThreadMs,
      mainThreadWaitedMs,
      loopDelayMaxMs: delay('1'),
      loopDelayP99Ms: delay('0.99'),
      terms: [termBefore, await metric('futurestore_term')],
    };
  };

  const shown = (name: string, figures: Storm): void => {
    const round = (_: string, value: unknown): unknown =>
      typeof value === 'number' ? Math.round(value) : value;
    console.log(`${agentsCount} agents come to the leader, ${name}: ${JSON.stringify(figures, round)}`);
  };

  test('is taken off the loop that runs Raft by a gateway thread, and brings no election', async () => {
    // By the loop that runs Raft, where there are no gateway threads.
    const without = await storm(0);
    shown('workers 0', without);
    await end();
    const figures = await storm(1);
    shown('workers 1', figures);
    // Processor time is what the noise of the machine moves least.
    expect(figures.mainThreadMs).toBeLessThan(without.mainThreadMs / 2);
    expect(figures.terms[1]).toBe(figures.terms[0]);
  });
});
