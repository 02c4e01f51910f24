import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Client } from '../../src/client/index.ts';
import { eventually, ProcessCluster, run } from '../support/process-cluster.ts';

interface Standing {
  readonly draining: boolean;
  readonly agents: number;
  readonly leader: number | null;
}

interface Share {
  readonly member: number;
  readonly agents: number;
  readonly moving: number;
}

/** Each has one wait for a key of its own. */
class Agents {
  readonly clients: Client[] = [];
  readonly waits: Promise<unknown>[] = [];
  readonly failures: unknown[] = [];
  settled = 0;

  add(client: Client): void {
    const wait = client.await(keyOf(this.clients.length));
    wait.then(
      () => (this.settled += 1),
      (error: unknown) => this.failures.push(error),
    );
    this.clients.push(client);
    this.waits.push(wait);
  }

  get endpoints(): (string | undefined)[] {
    return this.clients.map(({ state }) => (state.kind === 'connected' ? state.endpoint : undefined));
  }
}

const keyOf = (agent: number): string => `drained/${agent}`;
const agentsCount = 30;

let cluster: ProcessCluster;
const agents = new Agents();
beforeAll(async () => {
  cluster = await ProcessCluster.start();
  for (let count = 0; count < agentsCount; count += 1) agents.add(await cluster.connect());
  await Promise.all(agents.clients.map((client) => client.get('nothing')));
});
afterAll(async () => {
  await cluster?.close();
});

const command = (...args: string[]) => run([...args, '--profile', cluster.path('admin.yaml')]);

const json = async <T>(...args: string[]): Promise<T> => {
  const result = await command(...args, '--json');
  expect(result).toMatchObject({ code: 0, stderr: '' });
  return JSON.parse(result.stdout) as T;
};

const url = (id: number): string => `wss://127.0.0.1:${cluster.port + id - 1}`;
const agentsAt = (id: number): number => agents.endpoints.filter((endpoint) => endpoint === url(id)).length;

/** As its log has them come and go. (One that goes just then is not told of by the clients in time.) */
const agentsWhenDrained = (log: string): number => {
  const [before, ...after] = log.split('this server takes no agents any more');
  expect(after).toHaveLength(1);
  const count = (what: string): number => (before ?? '').split(`"msg":"${what}"`).length - 1;
  return count('an agent connected') - count('a connection ended');
};

interface Status {
  /** Who was asked. */
  readonly serverId: number;
  readonly members: readonly {
    readonly id: number;
    readonly role: string;
    readonly connections: number;
    readonly draining?: true;
  }[];
}

const leader = async (): Promise<number> => {
  const { members } = await json<Status>('status');
  return members.find(({ role }) => role === 'leader')?.id ?? 0;
};

describe('maintenance of a server that runs', () => {
  test('drain moves the agents and the leadership of a server elsewhere, and no wait is lost', async () => {
    const drained = await leader();
    const before = agentsAt(drained);
    // Those that threads serve are counted once a second.
    await eventually(
      'the server has counted its agents',
      async () => (await cluster.metric(drained, 'futurestore_connections')) === before,
    );
    const standing = await json<Standing>('drain', String(drained), '--grace', '2s');
    expect(standing).toMatchObject({ draining: true });
    expect(standing.agents).toBeGreaterThanOrEqual(agentsWhenDrained(cluster.log(drained)));
    expect(standing.leader).not.toBe(drained);
    expect(standing.leader).toBe(await leader());
    expect(await cluster.adminGet(drained, '/readyz')).toEqual({
      status: 503,
      text: 'the server is drained: it takes no agents\n',
    });
    await eventually('all agents are elsewhere', () =>
      Promise.resolve(agentsAt(drained) === 0 && !agents.endpoints.includes(undefined)),
    );
    expect(await cluster.metric(drained, 'futurestore_draining')).toBe(1);
    await eventually(
      'nobody is connected there',
      async () => (await cluster.metric(drained, 'futurestore_connections')) === 0,
    );
    const { members } = await json<Status>('status');
    expect(members.filter(({ draining }) => draining === true).map(({ id }) => id)).toEqual([drained]);
    expect((await command('member', 'list')).stdout).toContain('voter, draining');
    expect((await command('transfer-leader', String(drained))).code).toBe(7);
    // It votes and has all data, but only the other two serve agents.
    const last = cluster.ids.find((id) => id !== drained);
    await json('drain', String(last), '--grace', '1s');
    const remaining = cluster.ids.find((id) => id !== drained && id !== last);
    expect(await command('drain', String(remaining))).toMatchObject({
      code: 7,
      stderr: expect.stringContaining('nowhere to go') as string,
    });
    await json('drain', String(last), '--end');
    await json('drain', String(drained), '--end');
    expect((await cluster.adminGet(drained, '/readyz'))?.status).toBe(200);
    expect(agents.failures).toEqual([]);
    expect(agents.settled).toBe(0);
  });

  test('rebalance moves just so many agents that their numbers are even', async () => {
    await eventually('everybody is somewhere', () => Promise.resolve(!agents.endpoints.includes(undefined)));
    // A rebalance by older numbers than these moves too many or too few: the servers tell each other once a second.
    await eventually('the server that is asked has heard how many agents each has', async () => {
      const { serverId, members } = await json<Status>('status');
      return members.every(({ id, connections }) => connections === agentsAt(id) + (id === serverId ? 1 : 0));
    });
    const even = async (): Promise<readonly Share[]> => {
      const { servers } = await json<{ servers: readonly Share[] }>('rebalance', '--grace', '1s');
      return servers;
    };
    let before = agents.endpoints;
    let shares: readonly Share[] = [];
    await eventually('there is something to move', async () => {
      before = agents.endpoints;
      shares = await even();
      return shares.some(({ moving }) => moving > 0);
    });
    const moving = shares.reduce((sum, share) => sum + share.moving, 0);
    await eventually('the numbers are even', () =>
      Promise.resolve(
        cluster.ids.every((id) => Math.abs(agentsAt(id) - agentsCount / cluster.ids.length) <= 1),
      ),
    );
    const moved = agents.endpoints.filter((endpoint, index) => endpoint !== before[index]).length;
    expect(moved).toBeLessThanOrEqual(moving);
    await eventually('nothing is left to move', async () =>
      (await even()).every((share) => share.moving === 0),
    );
    expect(agents.failures).toEqual([]);
    expect(agents.settled).toBe(0);
  });

  test('all waits end with their values', async () => {
    const [producer] = agents.clients;
    for (let agent = 0; agent < agentsCount; agent += 1) await producer?.resolve(keyOf(agent), 'value');
    await Promise.all(agents.waits);
    expect(agents.failures).toEqual([]);
  });

  test('a restart ends a drain', async () => {
    const standing = await json<Standing>('drain', '3', '--grace', '500ms', '--wait');
    expect(standing.draining).toBe(true);
    expect((await cluster.adminGet(3, '/readyz'))?.status).toBe(503);
    await cluster.signal(3, 'SIGTERM');
    cluster.startServer(3);
    await cluster.ready();
    await eventually('all know it', async () => {
      const { members } = await json<Status>('status');
      return members.every(({ draining }) => draining === undefined);
    });
  });
});
