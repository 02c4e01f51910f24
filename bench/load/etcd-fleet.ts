/** Agents of etcd: a user each, whose name is in its certificate, and a watch on what its role may read. */
import { AgentIssuer } from '../../test/agents/certificates.ts';
import { planAgents } from '../../test/agents/plan.ts';
import { Turnstile } from '../../test/support/turnstile.ts';
import { EtcdClient } from './etcd-client.ts';
import { scopeOf, type Fleet, type FleetOptions } from './fleet.ts';
import { ToldTimes } from './told-times.ts';

interface Agent {
  readonly endpoint: string;
  readonly prefix: string;
  readonly cert: string;
  readonly key: string;
}

export class EtcdFleet implements Fleet {
  readonly #options: FleetOptions;
  readonly #agents: Agent[] = [];
  readonly #times: ToldTimes;

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#times = new ToldTimes(options.changes);
  }

  async prepare(): Promise<void> {
    const { agents, authority, endpoints } = this.#options;
    const issuer = await AgentIssuer.of(authority);
    for (const plan of planAgents(0, agents)) {
      const { certificate: cert, privateKey: key } = await issuer.issue(plan);
      const endpoint = endpoints[plan.index % endpoints.length] ?? '';
      this.#agents.push({ endpoint, prefix: scopeOf(plan), cert, key });
    }
  }

  async connect(): Promise<void> {
    const turnstile = new Turnstile(this.#options.handshakesAtOnce);
    const { ca } = this.#options;
    await Promise.all(
      this.#agents.map(async ({ endpoint, prefix, cert, key }) => {
        const leave = await turnstile.enter();
        const client = new EtcdClient(endpoint, { ca, cert, key });
        await client.watchPrefix(prefix, ({ value }) => {
          this.#times.take(Buffer.from(value).toString());
        });
        leave();
      }),
    );
  }

  async told(): Promise<number> {
    return this.#times.told;
  }

  async toldAfterMs(): Promise<Float64Array> {
    return this.#times.ms;
  }
}
