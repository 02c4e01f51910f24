/** What must hold at the end: on the servers, and in what the clients were told. */
import { createHash } from 'node:crypto';
import type { Client } from '../../src/client/index.ts';
import { checkLinearizable, undecidedShareMax } from '../../src/simulation/checks/index.ts';
import type { HistoryOperation } from '../../src/simulation/checks/index.ts';
import { eventually } from '../support/process-cluster.ts';
import type { LoadReport } from './load.ts';
import type { ChaosServers } from './servers.ts';

const checkTimeoutMs = 30_000;
const examplesMax = 5;

interface ServerState {
  readonly revision: number;
  readonly keys: number;
  readonly digest: string;
  readonly values: ReadonlyMap<string, string>;
}

/** All that one server holds, as it says itself. */
const stateOf = async (client: Client): Promise<ServerState> => {
  const hash = createHash('sha256');
  const values = new Map<string, string>();
  const { revision } = await client.list('**', { stale: true, limit: 1, timeoutMs: checkTimeoutMs });
  const all = client.listAll('**', { values: true, stale: true, limit: 1000, timeoutMs: checkTimeoutMs });
  for await (const future of all) {
    const value = future.value === undefined ? undefined : Buffer.from(future.value).toString();
    if (value !== undefined) values.set(future.key, value);
    hash.update(JSON.stringify({ ...future, value }));
  }
  return { revision, keys: values.size, digest: hash.digest('hex').slice(0, 16), values };
};

/** The leader's log has come to its end everywhere. */
const settled = async (servers: ChaosServers): Promise<void> => {
  await eventually(
    'all servers have applied the same',
    async () => {
      const applied = await Promise.all(
        servers.present.map((id) => servers.processes.metric(id, 'futurestore_applied_index')),
      );
      return applied.every((index) => index !== undefined && index === applied[0]);
    },
    checkTimeoutMs,
  );
};

const lost = (id: number, state: ServerState, acknowledged: LoadReport['acknowledged']): string[] => {
  const missing = acknowledged.filter(([key, value]) => state.values.get(key) !== value);
  if (missing.length === 0) return [];
  const some = missing.slice(0, examplesMax).map(([key]) => key);
  return [`server ${id} lost ${missing.length} acknowledged futures: ${some.join(', ')}`];
};

/** Every server that is there serves, lost nothing that was acknowledged, and holds what the others hold. */
export const checkEnd = async (servers: ChaosServers, load: LoadReport): Promise<string[]> => {
  const violations: string[] = [];
  const clients = new Map<number, Client>();
  try {
    for (const id of servers.present) {
      const client = await servers.processes.connect({ server: id });
      clients.set(id, client);
      await client.resolve(`end/${id}`, 'served', { timeoutMs: checkTimeoutMs });
      await client.get(`end/${id}`, { timeoutMs: checkTimeoutMs });
    }
    await settled(servers);
    const states = new Map<number, ServerState>();
    for (const [id, client] of clients) states.set(id, await stateOf(client));
    for (const [id, state] of states) violations.push(...lost(id, state, load.acknowledged));
    const told = [...states].map(
      ([id, { revision, digest }]) => ({ id, state: `revision ${revision}, digest ${digest}` }) as const,
    );
    if (new Set(told.map(({ state }) => state)).size > 1) {
      violations.push(
        `the servers differ: ${told.map(({ id, state }) => `server ${id}: ${state}`).join('; ')}`,
      );
    }
  } catch (error) {
    violations.push(`not every server serves in the end: ${String(error)}`);
  }
  if (load.awaitsMade !== load.awaitsEnded) {
    violations.push(`${load.awaitsMade - load.awaitsEnded} of ${load.awaitsMade} awaits did not end`);
  }
  return violations;
};

export interface Judgement {
  readonly violations: readonly string[];
  readonly notes: readonly string[];
}

/** Servers and clients read the same clock; what they read may be apart by the time a busy machine takes them to. */
const clocks = { earlySlackMs: 50, lateSlackMs: 1000 };

/** Whether an order of all operations explains every answer. `stepsMax`: of the search for one key, as there. */
export const checkHistory = (history: readonly HistoryOperation[], stepsMax?: number): Judgement => {
  const verdict = checkLinearizable(history, { ...clocks, ...(stepsMax !== undefined && { stepsMax }) });
  switch (verdict.kind) {
    case 'ok':
      return { violations: [], notes: [`of ${verdict.keys} keys 0 are undecided`] };
    case 'violated':
      return { violations: [verdict.explanation], notes: [] };
    case 'undecided': {
      const { keys, undecided, explanation } = verdict;
      const told = `of ${keys} keys ${undecided} are undecided: ${explanation}`;
      // What was not judged is no success.
      const isMuch = undecided > undecidedShareMax * keys;
      return isMuch ? { violations: [told], notes: [] } : { violations: [], notes: [told] };
    }
    default:
      return verdict satisfies never;
  }
};
