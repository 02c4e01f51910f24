/** An agent that uses the client library, as programs do. */
import { connect, FuturestoreError } from '../../src/client/index.ts';
import type { Client, ClientState, Subscription } from '../../src/client/index.ts';
import type { Credentials } from '../../src/cli/authority/certificates.ts';
import { AgentRecord, machineMs } from './agent-record.ts';
import type { FleetAgent } from './fleet-agent.ts';
import { patternOf, waitsOf } from './plan.ts';
import type { PlannedAgent } from './plan.ts';

export interface LibraryAgentOptions {
  readonly ports: readonly number[];
  /** PEM: of the servers. */
  readonly ca: string;
  readonly credentials: Credentials;
}

export class LibraryAgent implements FleetAgent {
  readonly plan: PlannedAgent;
  readonly record: AgentRecord;
  readonly #options: LibraryAgentOptions;
  #client: Client | undefined;
  #subscription: Subscription | undefined;
  #connected: { readonly server: number; readonly atMs: number } | undefined;
  #shutOut = false;
  #stopped = false;

  constructor(plan: PlannedAgent, options: LibraryAgentOptions) {
    this.plan = plan;
    this.record = new AgentRecord(plan.name);
    this.#options = options;
  }

  get servedAtMs(): number | undefined {
    const isCurrent = this.record.subscriptionEnd !== undefined || this.#subscription?.isCurrent === true;
    return isCurrent ? this.#connected?.atMs : undefined;
  }

  get shutOut(): boolean {
    return this.#shutOut;
  }

  get server(): number | undefined {
    return this.#connected?.server;
  }

  start(): void {
    const { ports, ca, credentials } = this.#options;
    const client = connect({
      endpoints: ports.map((port) => `wss://127.0.0.1:${port}`),
      ca,
      cert: credentials.certificate,
      key: credentials.privateKey,
      name: this.plan.name,
      connectTimeoutMs: 20_000,
      onStateChange: (state) => {
        this.#changed(state);
      },
    });
    this.#client = client;
    this.#subscription = client.subscribe(patternOf(this.plan));
    void this.#follow(this.#subscription);
    if (this.record.round > 0) this.#awaitAll(client);
  }

  beginRound(round: number): void {
    this.record.beginRound(round);
    if (this.#client !== undefined) this.#awaitAll(this.#client);
  }

  stop(): void {
    this.#stopped = true;
    void this.#client?.close({ graceMs: 0 }).catch(() => undefined);
  }

  #awaitAll(client: Client): void {
    for (const key of waitsOf(this.plan)) void this.#await(client, key);
  }

  async #await(client: Client, key: string): Promise<void> {
    const { round } = this.record;
    try {
      this.record.answer(await client.await(key, { leastGeneration: round }));
    } catch (error) {
      if (!this.#stopped) this.record.refused.set(key, codeOf(error));
    }
  }

  async #follow(subscription: Subscription): Promise<void> {
    try {
      for await (const event of subscription) {
        if (event.kind === 'future') this.record.push(event.future);
        else if (event.kind !== 'caught_up') this.record.problem(`the subscription told of ${event.kind}`);
      }
    } catch (error) {
      if (!this.#stopped) this.record.subscriptionEnd = codeOf(error);
    }
  }

  #changed(state: ClientState): void {
    const before = this.#connected;
    this.#connected = undefined;
    if (state.kind === 'connected') {
      const port = Number(new URL(state.endpoint).port);
      this.#connected = { server: this.#options.ports.indexOf(port), atMs: machineMs() };
      return;
    }
    if (this.#stopped) return;
    this.#shutOut = state.kind === 'closed';
    // The library tells why it is over, and no close codes: 4503 is the only one that is meant here.
    const revoked = state.kind === 'closed' && /revoked/.test(state.error.message);
    if (before !== undefined || revoked) this.record.ended(revoked ? 4503 : 1006);
  }
}

const codeOf = (error: unknown): string =>
  error instanceof FuturestoreError ? error.code : `an unknown error: ${String(error)}`;
