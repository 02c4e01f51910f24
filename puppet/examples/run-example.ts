/** One example from its cluster's start to the end of everything that it started. */
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { jsonOf, type Client } from '../../src/client/index.ts';
import { freeBasePort, ProcessCluster, sleep } from '../../test/support/process-cluster.ts';
import { PuppetAgents, type Application } from '../../test/support/puppet-agents.ts';
import type { LiveTable } from './live-table.ts';
import type { Example, ExampleAgent, Places } from './scenarios.ts';

export interface Result {
  readonly worked: boolean;
  readonly said: string;
}

/** Two ports for each agent, in the blocks of free ones that a cluster would have. */
const placesOf = async (example: Example, agents: PuppetAgents): Promise<Places> => {
  const base = await freeBasePort();
  const place = (agent: string): number => example.agents.findIndex(({ name }) => name === agent);
  return {
    work: (agent, file) => agents.path(agent, 'work', file),
    address: (agent) => `127.0.1.${place(agent) + 1}`,
    port: (agent) => base + 10 * Math.floor(place(agent) / 2) + 2 * (place(agent) % 2),
  };
};

/** Shows what an agent says while it runs. */
const follow = (agent: ExampleAgent, run: Application, work: string, table: LiveTable): (() => void) => {
  let seen = 0;
  const look = (): void => {
    const text = run.output();
    const lines = text.slice(seen, text.lastIndexOf('\n') + 1).split('\n');
    seen = text.lastIndexOf('\n') + 1;
    for (const line of lines) {
      const awaited = /this catalog awaits (.*)$/.exec(line)?.[1];
      if (awaited !== undefined) table.change(agent.name, (row) => (row.awaited = awaited.split(', ')));
      const waiting = /waiting for (.*)$/.exec(line)?.[1];
      if (waiting !== undefined) {
        const set = (row: { state: string }): void => {
          row.state = 'waiting';
        };
        table.change(agent.name, set, `waits for ${waiting}`);
      } else if (line.startsWith('Notice: /Stage[main]')) {
        const resource = /\/Main\/(.*\])\/[a-z]+:/.exec(line)?.[1]?.replace(`${work}/`, '') ?? '';
        table.change(
          agent.name,
          (row) => {
            row.applied += 1;
            row.state = 'applying';
          },
          resource.startsWith('Futurestore_value') ? undefined : `applied ${resource}`,
        );
      } else if (line.startsWith('Error: /')) table.change(agent.name, () => {}, line);
    }
  };
  const timer = setInterval(look, 50);
  return () => {
    clearInterval(timer);
    look();
  };
};

/** Shows what is published as the servers tell it. */
const followFutures = async (client: Client, table: LiveTable, signal: AbortSignal): Promise<void> => {
  try {
    for await (const event of client.subscribe('nodes/*/out/**', { signal })) {
      if (event.kind !== 'future' || event.future.state !== 'resolved') continue;
      const { key } = event.future;
      const set = (row: { produced: string[] }): void => {
        if (!row.produced.includes(key)) row.produced.push(key);
      };
      table.change(key.split('/')[1] ?? '', set, `published ${key}`);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
};

const applyAll = async (
  example: Example,
  folder: string,
  agents: PuppetAgents,
  places: Places,
  table: LiveTable,
): Promise<readonly string[]> => {
  const runs = example.agents.map(async (agent) => {
    const manifest = readFileSync(join(folder, agent.manifest), 'utf8');
    table.change(agent.name, (row) => {
      row.state = 'compiling';
      row.startMs = performance.now();
    });
    const run = agents.apply(agent.name, manifest, {
      args: ['--verbose'],
      env: {
        FACTER_example_dir: places.work(agent.name, '.'),
        FACTER_example_port: String(places.port(agent.name)),
        FACTER_example_node: agent.name,
        FACTER_example_address: places.address(agent.name),
        FACTER_example_source: folder,
      },
    });
    const stop = follow(agent, run, agents.path(agent.name, 'work'), table);
    const { code, output } = await run.ended;
    stop();
    const state = code === 2 || code === 0 ? 'done' : `failed (exit code ${code})`;
    const set = (row: { state: string; endMs: number | undefined }): void => {
      row.state = state;
      row.endMs = performance.now();
    };
    table.change(agent.name, set, `is ${state}`);
    return code === 2 || code === 0 ? '' : `${agent.name} ended with exit code ${code}:\n${output}`;
  });
  return (await Promise.all(runs)).filter((text) => text !== '');
};

/** Services that the manifests have started, by the process ids that they left. */
const stopServices = (example: Example, agents: PuppetAgents): void => {
  for (const { name } of example.agents) {
    const work = agents.path(name, 'work');
    for (const file of readdirSync(work).filter((one) => one.endsWith('.pid'))) {
      try {
        process.kill(Number(readFileSync(join(work, file), 'utf8')), 'SIGKILL');
      } catch {
        // It has ended by itself.
      }
    }
  }
};

const outcomes = async (example: Example, client: Client): Promise<string> => {
  const keys = example.agents.map(({ name }) => `nodes/${name}/run`);
  const runs = await client.await(keys, { timeoutMs: 10_000 });
  const texts = runs.map((run, at) => {
    const { status } = jsonOf(run) as { readonly status: string };
    return `${example.agents[at]?.name ?? ''} ${status}`;
  });
  return `the runs' outcomes, as futures: ${texts.join(', ')}`;
};

export const runExample = async (example: Example, table: LiveTable): Promise<Result> => {
  const folder = resolve('puppet', 'examples', example.name);
  const cluster = await ProcessCluster.create();
  const agents = new PuppetAgents(cluster);
  const over = new AbortController();
  try {
    copyFileSync(join(folder, 'policy.yaml'), cluster.path('policy.yaml'));
    for (const id of cluster.ids) cluster.startServer(id);
    await cluster.ready();
    await Promise.all(example.agents.map(({ name }) => agents.add(name)));
    const places = await placesOf(example, agents);
    const client = await cluster.connect();
    const following = followFutures(client, table, over.signal);
    const failures = await applyAll(example, folder, agents, places, table);
    // The last future's event is on its way.
    await sleep(100);
    over.abort();
    await following;
    table.finish();
    if (failures.length > 0) return { worked: false, said: failures.join('\n') };
    return { worked: true, said: `${await outcomes(example, client)}\n${example.check(places)}` };
  } finally {
    over.abort();
    stopServices(example, agents);
    await agents.close();
    await cluster.close();
  }
};
