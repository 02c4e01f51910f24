/** Second processes with an agent's certificate: each opens a session and does nothing, until a newer one takes its place. */
import { Client } from '../client/index.ts';
import { protobufCodec } from '../protocol/index.ts';
import type { AgentNetwork } from './agent-network.ts';
import { clientEnvironment } from './client-environment.ts';
import { Life, type VirtualTime } from './clock.ts';
import type { Random } from './random.ts';
import type { Trace } from './trace.ts';

export interface CopiesWorld {
  readonly time: VirtualTime;
  readonly trace: Trace;
  readonly network: AgentNetwork;
  readonly endpoints: readonly string[];
  readonly random: (name: string) => Random;
  readonly fail: (check: string, problem: string) => void;
}

export class Copies {
  readonly #world: CopiesWorld;
  /** How many each agent had. */
  readonly #counts = new Map<number, number>();

  constructor(world: CopiesWorld) {
    this.#world = world;
  }

  has(agent: number): boolean {
    return this.#counts.has(agent);
  }

  start(agent: number): void {
    const { network, endpoints, random, trace, fail } = this.#world;
    const count = (this.#counts.get(agent) ?? 0) + 1;
    this.#counts.set(agent, count);
    const name = `copy ${count} of agent ${agent}`;
    trace.say(`${name} starts`);
    const life = new Life(name);
    const client: Client = new Client(
      {
        endpoints,
        name: 'copy',
        sessionGraceMs: 5000,
        connectTimeoutMs: 3000,
        session: { opened: () => undefined, lost: () => undefined },
        onStateChange: (state) => {
          if (state.kind !== 'closed') return;
          trace.say(`${name} ends: ${state.error.message}`);
          life.alive = false;
          network.agentGone(agent, false);
          if (!/another process took over|revoked/.test(state.error.message))
            fail('client', `${name} was shut out: ${state.error.message}`);
        },
      },
      clientEnvironment(network, agent, life, random(name), protobufCodec),
    );
    void client;
  }
}
