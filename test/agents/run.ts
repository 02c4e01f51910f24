/**
 * One run: thousands of agents connect to three servers, get what is theirs, lose servers, and some of them their rights.
 * Each phase is a round of values, and each round ends with the whole matrix of agents and keys.
 */
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { createAuthority } from '../../src/cli/authority/certificates.ts';
import { serverMemory } from '../../src/cli/server-memory.ts';
import { loadProfile } from '../../src/client/index.ts';
import type { Client } from '../../src/client/index.ts';
import { applyPolicies } from '../support/apply-policies.ts';
import { machineMs } from '../support/light-client.ts';
import { ProcessCluster, sleep } from '../support/process-cluster.ts';
import { waitedForProcessorMs } from '../support/processor-wait.ts';
import { electionsIn, judgeElections } from './elections.ts';
import type { FleetProgress } from './fleet.ts';
import { openFleet } from './fleet-process.ts';
import type { FleetHandle } from './fleet-process.ts';
import { processorSeconds, residentKiB } from './memory.ts';
import {
  bulkKeys,
  isRevoked,
  planAgents,
  policiesAtFirst,
  policiesNarrowed,
  realm,
  usesLibrary,
  usualKeys,
} from './plan.ts';
import type { PolicyDocument } from './policy-model.ts';
import { Publication } from './publisher.ts';
import type { RoundReport, Verdict } from './round-judge.ts';

export interface AgentsOptions {
  readonly agents: number;
  /** In which the agents live. */
  readonly processes: number;
  /** A round's values come over at least so long. */
  readonly roundMs: number;
  /** How long everything is left alone before memory is read. */
  readonly settleMs: number;
  readonly log: (line: string) => void;
  /** Ends the run, its servers and its agents. */
  readonly signal?: AbortSignal;
}

export interface AgentsReport {
  readonly rows: readonly (readonly [name: string, text: string])[];
  readonly violations: readonly string[];
  /** Of the server on which an agent costs most, in KiB of resident memory. */
  readonly kibPerAgent: number;
  /** Where the servers' files are; undefined: they are gone. */
  readonly directory?: string;
}

const kibPerAgentMax = 64;
/** What a process has to take before it has worked at all is some 35 MiB, which fewer agents do not share well … */
const agentsForWhole = 10_000;
/** … and with fewer than these it varies by more than what they cost. */
const agentsForFurther = 3_000;
const firstShare = 0.1;
const closedWithinMs = 1_000;
/** What comes too much comes soon. */
const surplusMs = 500;
const phaseTimeoutMsMin = 120_000;
const phaseTimeoutMsPerAgent = 100;
/** The servers' default. */
const electionTimeoutMs = 1_000;
const revocationsAtOnce = 32;
const publishers = 4;

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
const count = (value: number): string => value.toLocaleString('en');
const at = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

interface ServerMemory {
  readonly kib: number;
  readonly agents: number;
}

/** KiB for each agent that came between the two. */
const costOf = (before: ServerMemory, after: ServerMemory): number =>
  (after.kib - before.kib) / Math.max(1, after.agents - before.agents);

class AgentsRun {
  readonly #options: AgentsOptions;
  readonly #cluster: ProcessCluster;
  readonly #fleets: readonly FleetHandle[];
  readonly #policies: PolicyDocument;
  readonly #rows: (readonly [string, string])[] = [];
  readonly violations: string[] = [];
  #clients: readonly Client[] = [];
  #round = 0;
  kibPerAgent = 0;

  constructor(
    options: AgentsOptions,
    cluster: ProcessCluster,
    fleets: readonly FleetHandle[],
    policies: PolicyDocument,
  ) {
    this.#options = options;
    this.#cluster = cluster;
    this.#fleets = fleets;
    this.#policies = policies;
  }

  get rows(): readonly (readonly [string, string])[] {
    return this.#rows;
  }

  async run(): Promise<void> {
    for (const id of this.#cluster.ids) startServer(this.#cluster, id);
    await this.#cluster.ready(this.#cluster.ids, phaseTimeoutMsMin);
    this.#clients = await Promise.all(Array.from({ length: publishers }, () => this.#cluster.connect()));
    await applyPolicies(this.#cluster, this.#policies, 'agents-first.yaml');
    const preparedMs = await timed(() => this.#all((fleet) => fleet.call('prepare')));
    await this.#expect(usualKeys(this.#options.agents));
    this.#row('certificates', `${count(this.#options.agents)} made in ${seconds(preparedMs)}`);
    await this.#connect();
    await this.#publish();
    await this.#losesServer('a follower', await this.#someFollower(), true);
    await this.#losesServer('the leader', await this.#cluster.someLeader(), false);
    await this.#revoke();
  }

  #row(name: string, text: string): void {
    this.#rows.push([name, text]);
    this.#options.log(`${name.padEnd(16)} ${text}`);
  }

  #all<T>(call: (fleet: FleetHandle) => Promise<T>): Promise<T[]> {
    return Promise.all(this.#fleets.map(call));
  }

  async #expect(keys: readonly string[]): Promise<void> {
    await this.#all((fleet) => fleet.call('expect', this.#policies, keys));
  }

  async #progress(): Promise<Omit<FleetProgress, 'processId'>> {
    const all = await this.#all((fleet) => fleet.call('progress'));
    const sum = (of: (one: FleetProgress) => number): number =>
      all.reduce((total, one) => total + of(one), 0);
    return {
      agents: sum((one) => one.agents),
      served: sum((one) => one.served),
      shutOut: sum((one) => one.shutOut),
      complete: sum((one) => one.complete),
      servedBy: this.#cluster.ids.map((_, server) => sum((one) => one.servedBy[server] ?? 0)),
    };
  }

  async #until(what: string, holds: (progress: Omit<FleetProgress, 'processId'>) => boolean): Promise<void> {
    const timeoutMs = Math.max(phaseTimeoutMsMin, phaseTimeoutMsPerAgent * this.#options.agents);
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      this.#options.signal?.throwIfAborted();
      const progress = await this.#progress();
      if (holds(progress)) return;
      if (performance.now() > endMs) {
        this.violations.push(`${what}: not within ${seconds(timeoutMs)}: ${JSON.stringify(progress)}`);
        return;
      }
      await sleep(100);
    }
  }

  async #beginRound(): Promise<void> {
    this.#round += 1;
    await this.#all((fleet) => fleet.call('beginRound', this.#round));
  }

  async #verify(phase: string, report: RoundReport): Promise<Verdict> {
    await sleep(surplusMs);
    const all = await this.#all((fleet) => fleet.call('verify', report));
    this.violations.push(...all.flatMap(({ problems }) => problems.map((problem) => `${phase}: ${problem}`)));
    const sum = (of: (one: Verdict) => number): number => all.reduce((total, one) => total + of(one), 0);
    return {
      cells: sum((one) => one.cells),
      received: sum((one) => one.received),
      withheld: sum((one) => one.withheld),
      receivedAsleep: sum((one) => one.receivedAsleep),
      closedAfterMs: all.flatMap((one) => one.closedAfterMs).sort((a, b) => a - b),
      problems: all.flatMap((one) => one.problems),
    };
  }

  #serverIds(): readonly number[] {
    return this.#cluster.ids.filter((id) => this.#cluster.isRunning(id));
  }

  async #connect(): Promise<void> {
    const { agents, settleMs } = this.#options;
    const pids = this.#serverIds().map((id) => this.#cluster.processId(id));
    const none = await this.#readMemory(pids);
    const spentBefore = pids.map(processorSeconds);
    await this.#beginRound();
    let few = none;
    const ms = await timed(async () => {
      await this.#start(firstShare);
      few = await this.#readMemory(pids);
      await this.#start(1);
    });
    const took = ms - settleMs;
    const spent = pids.reduce(
      (sum, pid, index) => sum + processorSeconds(pid) - (spentBefore[index] ?? 0),
      0,
    );
    const each = `${((spent / agents) * 1000).toFixed(1)} ms of servers' processor time each`;
    this.#row(
      'connected',
      `${count(agents)} in ${seconds(took)}: ${count(Math.round((agents / took) * 1000))}/s, ${each}`,
    );
    this.#judgeMemory(none, few, await this.#readMemory(pids));
  }

  async #start(share: number): Promise<void> {
    const started = await this.#all((fleet) => fleet.call('start', share));
    const total = started.reduce((sum, one) => sum + one, 0);
    await this.#until('all are connected', ({ served }) => served === total);
  }

  async #readMemory(pids: readonly number[]): Promise<readonly ServerMemory[]> {
    await sleep(this.#options.settleMs);
    const { servedBy } = await this.#progress();
    return pids.map((pid, index) => ({ kib: residentKiB(pid), agents: servedBy[index] ?? 0 }));
  }

  #judgeMemory(
    none: readonly ServerMemory[],
    few: readonly ServerMemory[],
    all: readonly ServerMemory[],
  ): void {
    const { agents } = this.#options;
    const mib = (kib: number): string => `${(kib / 1024).toFixed(0)} MiB`;
    const costs = all.map((memory, index) => {
      const before = none[index] ?? memory;
      const whole = costOf(before, memory);
      const further = costOf(few[index] ?? before, memory);
      this.#row(
        `server-${this.#serverIds()[index] ?? ''}`,
        `${mib(before.kib)} → ${mib(memory.kib)} with ${count(memory.agents)} agents: ${whole.toFixed(1)} KiB each, ${further.toFixed(1)} KiB each after the first tenth`,
      );
      return { whole, further };
    });
    this.kibPerAgent = Math.max(...costs.map(({ whole }) => whole));
    const further = Math.max(...costs.map((cost) => cost.further));
    const judged = agents >= agentsForWhole ? this.kibPerAgent : agents >= agentsForFurther ? further : 0;
    if (judged >= kibPerAgentMax)
      this.violations.push(
        `an agent costs ${judged.toFixed(1)} KiB of a server, less than ${kibPerAgentMax} is right`,
      );
  }

  async #publish(): Promise<void> {
    const { agents, roundMs } = this.#options;
    const publication = new Publication(this.#clients, usualKeys(agents), this.#round, roundMs);
    const ms = await timed(async () => {
      await publication.done;
      await this.#until('every agent has its values', ({ complete }) => complete === agents);
    });
    const verdict = await this.#verify('values', { published: publication.revisions, revoked: new Map() });
    this.#row(
      'values',
      `${count(publication.revisions.size)} published, ${count(verdict.received)} received in ${seconds(ms)}; ${count(verdict.cells)} cells compared`,
    );
    const foreign = await this.#all((fleet) => fleet.call('askForForeign'));
    this.violations.push(...foreign.flatMap(({ problems }) => problems));
    const asked = foreign.reduce((sum, one) => sum + one.asked, 0);
    this.#row('foreign keys', `${count(asked)} requests, all refused without a hint`);
  }

  async #someFollower(): Promise<number> {
    const leader = await this.#cluster.someLeader();
    return this.#cluster.ids.find((id) => id !== leader) ?? leader;
  }

  async #term(): Promise<number> {
    const { members } = await (this.#clients[0] as Client).status();
    return Math.max(...members.map(({ term }) => term));
  }

  /** In the middle of a round; those who were there come to the others, and nobody misses anything. */
  async #losesServer(which: string, id: number, isFollower: boolean): Promise<void> {
    const { agents, roundMs } = this.#options;
    const waitedBefore = this.#waitedMs();
    const term = await this.#term();
    const logged = this.#cluster.ids.map((each) => this.#cluster.log(each).length);
    const { servedBy } = await this.#progress();
    const lost = servedBy[this.#cluster.ids.indexOf(id)] ?? 0;
    await this.#beginRound();
    const publication = new Publication(this.#clients, usualKeys(agents), this.#round, roundMs);
    await publication.reached(0.3);
    const killedAtMs = machineMs();
    await this.#cluster.kill(id);
    await sleep(50);
    await this.#until('all are served again', ({ served, servedBy: now }) => {
      return served === agents && now[this.#cluster.ids.indexOf(id)] === 0;
    });
    const since = await this.#all((fleet) => fleet.call('servedSince', killedAtMs));
    const back = since
      .flat()
      .map((atMs) => atMs - killedAtMs)
      .sort((a, b) => a - b);
    await publication.done;
    await this.#until('every agent has its values', ({ complete }) => complete === agents);
    const verdict = await this.#verify(`${which} killed`, {
      published: publication.revisions,
      revoked: new Map(),
    });
    const termNow = await this.#term();
    // Who has no processor for so long is taken for dead, and rightly.
    const starved = this.#waitedMs() - waitedBefore >= electionTimeoutMs;
    const logs = this.#cluster.ids.map((each, index) => this.#cluster.log(each).slice(logged[index]));
    const elections = judgeElections(electionsIn(logs, term), {
      term,
      termNow,
      wasLeader: !isFollower,
      starved,
    });
    this.violations.push(...elections.problems);
    this.#row(
      `${which} killed`,
      `${count(lost)} agents back on the others: half after ${seconds(at(back, 0.5))}, all after ${seconds(at(back, 1))}; ${elections.text}; ${count(verdict.received)} values, none missed`,
    );
    startServer(this.#cluster, id);
    await this.#cluster.ready(this.#cluster.ids, phaseTimeoutMsMin);
  }

  async #revoke(): Promise<void> {
    const { agents, roundMs } = this.#options;
    const keys = [...usualKeys(agents), ...bulkKeys(agents)];
    const narrowed = policiesNarrowed(this.#policies, agents);
    await this.#expect(keys);
    await this.#all((fleet) => fleet.call('narrow', narrowed));
    // The bulk is of the last generation at once, so that its values are told from those of rounds before.
    await this.#beginRound();
    await this.#all((fleet) => fleet.call('sleep'));
    const bulk = new Publication(this.#clients, bulkKeys(agents), this.#round, 0);
    await bulk.done;
    const usual = new Publication(this.#clients, usualKeys(agents), this.#round, roundMs);
    await usual.reached(0.3);
    const waitedBefore = this.#waitedMs();
    const leaving = planAgents(0, agents).filter(isRevoked);
    const revoked = new Map<number, { revision: number; atMs: number }>();
    const revokedMs = await timed(async () => {
      for (let first = 0; first < leaving.length; first += revocationsAtOnce) {
        await Promise.all(
          leaving.slice(first, first + revocationsAtOnce).map(async ({ index, name }, lane) => {
            const client = this.#clients[lane % this.#clients.length] as Client;
            const { revision } = await client.revoke({ kind: 'principal', realm, name });
            revoked.set(index, { revision, atMs: machineMs() });
          }),
        );
      }
    });
    await applyPolicies(this.#cluster, narrowed, 'agents-narrowed.yaml');
    const narrowedAt = (await (this.#clients[0] as Client).access()).revision;
    await this.#all((fleet) => fleet.call('wake'));
    await usual.done;
    await this.#until('the revoked are out', ({ shutOut, served }) => {
      return shutOut === leaving.length && served === agents - leaving.length;
    });
    // What the others were to get has no count of its own: they are given the time that all had before.
    await sleep(roundMs);
    const waited = this.#waitedMs() - waitedBefore;
    const published = new Map([...bulk.revisions, ...usual.revisions]);
    const verdict = await this.#verify('revocation', { published, revoked, narrowedAt });
    const slowest = at(verdict.closedAfterMs, 1);
    if (slowest > closedWithinMs + waited)
      this.violations.push(
        `a revoked connection was closed after ${slowest.toFixed(0)} ms (${waited.toFixed(0)} ms of them without a processor)`,
      );
    const library = leaving.filter(usesLibrary).length;
    this.#row(
      'revoked',
      `${count(leaving.length)} principals (${library} with the client library) in ${seconds(revokedMs)}; closed after ${at(verdict.closedAfterMs, 0.5).toFixed(0)} ms (half), ${slowest.toFixed(0)} ms (all)`,
    );
    this.#row(
      'taken away',
      `${count(verdict.received)} values received, ${count(verdict.withheld)} withheld by revocations and narrower policies`,
    );
    this.#row(
      'asleep',
      `of ${bulk.revisions.size} large values that were sent to revoked agents who did not read, ${verdict.receivedAsleep} had left the servers before`,
    );
    if (bulk.revisions.size > 0 && verdict.receivedAsleep === bulk.revisions.size)
      this.violations.push(
        'all that was sent to those who did not read had left the servers: nothing was queued',
      );
    if (verdict.withheld === 0)
      this.violations.push('nothing was withheld: the revocations came too late to be a test');
  }

  /** Of servers and agents, for want of a processor: the longest. */
  #waitedMs(): number {
    const pids = [
      ...this.#serverIds().map((id) => this.#cluster.processId(id)),
      ...this.#fleets.map(({ processId }) => processId),
    ];
    return Math.max(...pids.map(waitedForProcessorMs));
  }
}

const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
};

/** As the README wants it. */
const startServer = (cluster: ProcessCluster, id: number): void => {
  const variables = Object.entries(serverMemory).map(([name, value]) => `${name}=${value}`);
  cluster.startServer(id, { prefix: ['env', ...variables] });
};

export const runAgents = async (options: AgentsOptions): Promise<AgentsReport> => {
  const { agents, processes } = options;
  const authority = await createAuthority('agents', Date.now());
  const cluster = await ProcessCluster.create();
  const { ca } = loadProfile(cluster.path('admin.yaml'));
  const base = parse(readFileSync(cluster.path('policy.yaml'), 'utf8')) as PolicyDocument;
  const each = Math.ceil(agents / processes);
  const fleets = Array.from({ length: processes }, (_, index) =>
    openFleet({
      agents,
      first: index * each,
      end: Math.min(agents, (index + 1) * each),
      ports: cluster.ids.map((id) => cluster.port + id - 1),
      localAddress: `127.0.1.${index + 1}`,
      ca,
      authority,
    }),
  );
  const made = new AgentsRun(options, cluster, fleets, policiesAtFirst(base, authority.certificate));
  let isSound = false;
  const end = (): void => {
    for (const fleet of fleets) void fleet.close();
    void cluster.stop();
  };
  options.signal?.addEventListener('abort', end);
  try {
    await made.run();
    isSound = made.violations.length === 0;
  } finally {
    options.signal?.removeEventListener('abort', end);
    await Promise.all(fleets.map((fleet) => fleet.close()));
    if (isSound) await cluster.close();
    else await cluster.stop();
  }
  return {
    rows: made.rows,
    violations: made.violations,
    kibPerAgent: made.kibPerAgent,
    ...(!isSound && { directory: cluster.directory }),
  };
};
