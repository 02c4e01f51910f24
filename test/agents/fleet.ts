/** The agents of one process, and what can be asked of all of them. All that goes in and out is plain data. */
import process from 'node:process';
import { createSecureContext } from 'node:tls';
import type { Credentials } from '../../src/cli/authority/certificates.ts';
import { AgentIssuer } from './certificates.ts';
import { expectationOf, splitKeys } from './expectation.ts';
import type { Expectation } from './expectation.ts';
import type { FleetAgent } from './fleet-agent.ts';
import { askForForeign } from './foreign.ts';
import type { ForeignReport } from './foreign.ts';
import { LibraryAgent } from './library-agent.ts';
import { LightAgent } from './light-agent.ts';
import { planAgents, planSleepers, usesLibrary } from './plan.ts';
import type { PolicyDocument } from './policy-model.ts';
import { RoundJudge } from './round-judge.ts';
import type { Expected, RoundReport, Verdict } from './round-judge.ts';
import { Turnstile } from './turnstile.ts';

export interface FleetOptions {
  /** Of the whole cluster. */
  readonly agents: number;
  /** Those of this process. */
  readonly first: number;
  readonly end: number;
  /** The servers'. */
  readonly ports: readonly number[];
  readonly localAddress: string;
  /** PEM: of the servers. */
  readonly ca: string;
  /** Signs the agents' certificates. */
  readonly authority: Credentials;
}

export interface FleetProgress {
  readonly processId: number;
  readonly agents: number;
  /** Of each server, by its place. */
  readonly servedBy: readonly number[];
  readonly served: number;
  readonly shutOut: number;
  /** Have got, in this round, all that they were to get by the policies at its beginning. */
  readonly complete: number;
}

/** Of one process. A server gives a handshake up after five seconds, also where its processor is not its own. */
const handshakesAtOnce = 16;
const problemsMax = 20;
const nothing: Expectation = { pushed: new Set(), answered: new Set() };
const probedEvery = 10;

export class Fleet {
  readonly #options: FleetOptions;
  readonly #agents: FleetAgent[] = [];
  readonly #expected = new Map<FleetAgent, Expected>();
  #first: PolicyDocument | undefined;
  #keys: readonly string[] = [];
  #started = 0;

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  /** Makes the agents and their certificates. */
  async prepare(): Promise<void> {
    const { first, end, authority, ca, ports, localAddress } = this.#options;
    const issuer = await AgentIssuer.of(authority);
    const turnstile = new Turnstile(handshakesAtOnce);
    for (const plan of planAgents(first, end)) {
      const credentials = await issuer.issue(plan);
      if (usesLibrary(plan)) {
        this.#agents.push(new LibraryAgent(plan, { ports, ca, credentials }));
        continue;
      }
      const { certificate: cert, privateKey: key } = credentials;
      const context = createSecureContext({ ca, cert, key, minVersion: 'TLSv1.3' });
      this.#agents.push(new LightAgent(plan, context, { ports, localAddress, turnstile }));
    }
  }

  /** What is to be received of these keys by this policy. */
  async expect(document: PolicyDocument, keys: readonly string[]): Promise<void> {
    this.#first = document;
    this.#keys = keys;
    const split = splitKeys(keys);
    for (const agent of this.#agents) {
      const before = expectationOf(document, agent.plan, split);
      this.#expected.set(agent, { before, after: before });
      // Thousands of agents and keys take seconds, and connections want to be served meanwhile.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** In the middle of this round the policies are going to become these. */
  async narrow(document: PolicyDocument): Promise<void> {
    const split = splitKeys(this.#keys);
    for (const agent of this.#agents) {
      const expected = this.#expected.get(agent);
      if (expected !== undefined) expected.after = expectationOf(document, agent.plan, split);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async beginRound(round: number): Promise<void> {
    for (const agent of this.#agents) agent.beginRound(round);
  }

  /** Lets so many of them connect that this share has been started; gives how many these are. */
  async start(share: number): Promise<number> {
    const end = Math.round(this.#agents.length * share);
    for (const agent of this.#agents.slice(this.#started, end)) agent.start();
    this.#started = end;
    return end;
  }

  async progress(): Promise<FleetProgress> {
    const servedBy = this.#options.ports.map(() => 0);
    let served = 0;
    let shutOut = 0;
    let complete = 0;
    for (const agent of this.#agents) {
      if (agent.shutOut) shutOut += 1;
      if (agent.servedAtMs !== undefined) {
        served += 1;
        if (agent.server !== undefined) servedBy[agent.server] = (servedBy[agent.server] ?? 0) + 1;
      }
      const { before } = this.#expected.get(agent) ?? { before: nothing };
      const { pushed, answered } = agent.record;
      if (pushed.size >= before.pushed.size && answered.size >= before.answered.size) complete += 1;
    }
    return { processId: process.pid, agents: this.#agents.length, servedBy, served, shutOut, complete };
  }

  /** When those who came back since then were served again, by the machine's clock; sorted. */
  async servedSince(sinceMs: number): Promise<readonly number[]> {
    return this.#agents
      .map(({ servedAtMs }) => servedAtMs ?? -Infinity)
      .filter((atMs) => atMs > sinceMs)
      .sort((a, b) => a - b);
  }

  async askForForeign(): Promise<ForeignReport> {
    const document = this.#first;
    if (document === undefined) throw new Error('the policies are not known yet');
    let asked = 0;
    const problems: string[] = [];
    for (const agent of this.#agents) {
      if (!(agent instanceof LightAgent) || agent.plan.index % probedEvery !== 0) continue;
      const report = await askForForeign(agent, document, this.#options.agents);
      asked += report.asked;
      problems.push(...report.problems);
    }
    return { asked, problems: problems.slice(0, problemsMax) };
  }

  async sleep(): Promise<void> {
    for (const agent of this.#sleepers()) agent.sleep();
  }

  async wake(): Promise<void> {
    for (const agent of this.#sleepers()) agent.wake();
  }

  #sleepers(): LightAgent[] {
    const planned = new Set(planSleepers(this.#options.agents).map(({ index }) => index));
    return this.#agents.filter(
      (agent): agent is LightAgent => agent instanceof LightAgent && planned.has(agent.plan.index),
    );
  }

  async verify(report: RoundReport): Promise<Verdict> {
    const judge = new RoundJudge(report, new Set(this.#sleepers()));
    for (const agent of this.#agents) {
      const expected = this.#expected.get(agent);
      if (expected !== undefined) judge.look(agent, expected);
    }
    return {
      cells: this.#agents.length * report.published.size,
      received: judge.received,
      withheld: judge.withheld,
      receivedAsleep: judge.receivedAsleep,
      closedAfterMs: judge.closedAfterMs.sort((a, b) => a - b),
      problems: judge.problems.slice(0, problemsMax),
    };
  }

  async stop(): Promise<void> {
    for (const agent of this.#agents) agent.stop();
  }
}
