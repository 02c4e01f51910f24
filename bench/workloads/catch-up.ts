/** A server that was away for so long that the log does not reach back: it gets a snapshot. */
import { eventually } from '../../test/support/process-cluster.ts';
import { fill } from '../load/fill.ts';
import { value } from '../load/operations.ts';
import { clientOf, otherThan } from '../systems/futurestore.ts';
import type { SystemsWorkload } from '../workload.ts';

/** When the server said so last, in ms since 1970. */
const saidAtMs = (log: string, what: string): number => {
  const line = log.split('\n').findLast((candidate) => candidate.includes(`"msg":"${what}"`));
  if (line === undefined) throw new Error(`the server never said '${what}'`);
  const { time } = JSON.parse(line) as { time: string };
  return Date.parse(time);
};

export const catchUpWorkload: SystemsWorkload = {
  name: 'catch-up',
  about:
    '1,000,000 futures (--quick: 300,000) made while a follower is away: it is sent a snapshot; megabytes are those of keys and values alone',
  figures: [
    { name: 'snapshot, begun → installed', unit: 'MB/s', better: 'more', limit: 100 },
    { name: 'start → has everything', unit: 'ms', better: 'less' },
  ],
  futurestore: async (system, { quick, round }) => {
    const futures = quick ? 300_000 : 1_000_000;
    const { cluster } = system;
    const leader = await system.leader();
    const away = otherThan(leader);
    await system.kill(away);
    const client = clientOf(system, leader);
    // The same keys in each round: their generations differ, their number does not.
    await (round === 0 ? fill(client, futures) : fill(client, futures, { supersede: true }));
    await client.close();
    const target = (await cluster.metric(leader + 1, 'futurestore_applied_index')) ?? 0;
    const startedMs = performance.now();
    cluster.startServer(away + 1);
    await eventually(
      'the server has caught up',
      async () => ((await cluster.metric(away + 1, 'futurestore_applied_index')) ?? 0) >= target,
      120_000,
    );
    const tookMs = performance.now() - startedMs;
    const log = cluster.log(away + 1);
    const snapshotMs = saidAtMs(log, 'the snapshot is the state now') - saidAtMs(log, 'receiving a snapshot');
    const bytes = futures * (value.length + `fill/${futures - 1}`.length);
    return {
      'snapshot, begun → installed': bytes / 1e6 / (snapshotMs / 1000),
      'start → has everything': tookMs,
    };
  },
};
