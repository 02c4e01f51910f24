/** Agents of futurestore that follow their own scopes. All that goes in and out is plain data. */
import { createSecureContext } from 'node:tls';
import { textOf } from '../../src/client/index.ts';
import { AgentIssuer } from '../../test/agents/certificates.ts';
import { patternOf, planAgents } from '../../test/agents/plan.ts';
import { LightClient, machineMs } from '../../test/support/light-client.ts';
import { sleep } from '../../test/support/process-cluster.ts';
import { Turnstile } from '../../test/support/turnstile.ts';
import type { Fleet, FleetOptions } from './fleet.ts';
import { ToldTimes } from './told-times.ts';

export interface FleetProgress {
  readonly served: number;
  /** Of each server, by its place. */
  readonly servedBy: readonly number[];
  /** Of those that are served: whose TLS session is one of before. */
  readonly resumed: number;
  /** When the last of those that are served was; by `machineMs`. */
  readonly lastServedAtMs: number;
}

const problemsMax = 10;

export class SubscriberFleet implements Fleet {
  readonly #options: FleetOptions;
  readonly #agents: LightClient[] = [];
  readonly #times: ToldTimes;
  readonly #problems: string[] = [];

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#times = new ToldTimes(options.changes);
  }

  async prepare(): Promise<void> {
    const { agents, authority, ca, endpoints, handshakesAtOnce } = this.#options;
    const issuer = await AgentIssuer.of(authority);
    const ports = endpoints.map((endpoint) => Number(new URL(endpoint).port));
    const turnstile = new Turnstile(handshakesAtOnce);
    const problem = (text: string): void => {
      if (this.#problems.length < problemsMax) this.#problems.push(text);
    };
    for (const plan of planAgents(0, agents)) {
      const { certificate: cert, privateKey: key } = await issuer.issue(plan);
      const context = createSecureContext({ ca, cert, key, minVersion: 'TLSv1.3' });
      const { name, index } = plan;
      const client = new LightClient(
        {
          name,
          pattern: patternOf(plan),
          context,
          ports,
          server: index % ports.length,
          localAddress: '127.0.2.1',
          turnstile,
        },
        {
          questions: () => [],
          changed: (change) => {
            if (change.kind === 'future') this.#times.take(textOf(change.future));
          },
          subscriptionEnded: (code) => problem(`the subscription of ${name} ended with ${code}`),
          closed: () => undefined,
          problem: (text) => problem(`${name}: ${text}`),
        },
      );
      this.#agents.push(client);
    }
  }

  /** Lets all of them connect; gives when, by `machineMs`. */
  async start(): Promise<number> {
    const startedAtMs = machineMs();
    for (const agent of this.#agents) agent.start();
    return startedAtMs;
  }

  async connect(): Promise<void> {
    await this.start();
    while (this.#progress().served < this.#agents.length) await sleep(50);
  }

  /** Ends all connections at once; resolves when they are gone. */
  async drop(): Promise<void> {
    for (const agent of this.#agents) agent.stop();
    while (!this.#agents.every(({ isClosed }) => isClosed)) await sleep(10);
  }

  async progress(): Promise<FleetProgress> {
    return this.#progress();
  }

  async told(): Promise<number> {
    this.#throwProblems();
    return this.#times.told;
  }

  async toldAfterMs(): Promise<Float64Array> {
    return this.#times.ms;
  }

  #progress(): FleetProgress {
    this.#throwProblems();
    const servedBy = this.#options.endpoints.map(() => 0);
    let served = 0;
    let resumed = 0;
    let lastServedAtMs = -Infinity;
    for (const { server, servedAtMs, isResumed } of this.#agents) {
      if (server === undefined || servedAtMs === undefined) continue;
      served += 1;
      servedBy[server] = (servedBy[server] ?? 0) + 1;
      if (isResumed) resumed += 1;
      lastServedAtMs = Math.max(lastServedAtMs, servedAtMs);
    }
    return { served, servedBy, resumed, lastServedAtMs };
  }

  /** What agents were told wrongly spoils what is measured. */
  #throwProblems(): void {
    if (this.#problems.length > 0) throw new Error(this.#problems.join('; '));
  }
}
