/** One run: load and faults, then healing, then everything that must hold. */
import { setTimeout as sleep } from 'node:timers/promises';
import { writeHistory } from '../../src/simulation/checks/index.ts';
import { seededRandom } from '../raft/support/random.ts';
import { checkEnd, checkHistory } from './checks.ts';
import { faultKinds, missingFor } from './faults.ts';
import type { FaultContext, FaultKind, FaultPlan } from './faults.ts';
import { startLoad } from './load-process.ts';
import type { LoadHandle } from './load-process.ts';
import { nowMs } from './load.ts';
import type { LoadReport } from './load.ts';
import { ChaosServers } from './servers.ts';

export interface ChaosOptions {
  readonly servers: 3 | 5;
  /** Of faults under load; healing and checks come on top. */
  readonly seconds: number;
  /** It lasts longer, if need be, until so many have ended: a busy machine gets less far in a second. */
  readonly faultsMin?: number;
  readonly seed: number;
  /** Names of kinds; empty: all that this machine allows. */
  readonly faults: readonly string[];
  /** Where the clients' history goes, as JSON lines. */
  readonly history?: string;
  readonly clients?: number;
  readonly electionTimeoutMs?: number;
  /** Ends the faults early; healing and checks follow. */
  readonly signal?: AbortSignal;
  /** Told of each fault as it ends, and of what is skipped. */
  readonly log?: (line: string) => void;
}

export interface FaultRecord {
  readonly name: string;
  readonly target: string;
  readonly atMs: number;
  readonly tookMs: number;
  /** From its end to the first write that was called and acknowledged after it; undefined: other faults were on. */
  readonly recoveredMs: number | undefined;
  readonly outcome: string;
}

export interface ChaosReport {
  readonly faults: readonly FaultRecord[];
  readonly skipped: readonly string[];
  readonly load: LoadReport;
  readonly longestOutageMs: number;
  readonly durationsMs: Readonly<Record<string, number>>;
  readonly violations: readonly string[];
  /** Of the checks. */
  readonly notes: readonly string[];
  /** Kept because of violations. */
  readonly directory: string | undefined;
}

const defaults = { clients: 6, electionTimeoutMs: 500 };

/** With all servers there, a write must be acknowledged within this time. */
const recoveryTimeoutMs = 30_000;
/** What the load is left to do between two faults, most of the time, and for how long at most. */
const progressAnswers = 250;
const progressTimeoutMs = 4_000;
/** The second fault of two at a time is the rarer one. */
const secondLanePauseMs = 5_000;
/** Load goes on for so long after everything is healed. */
const calmMs = 2_000;

class Faults {
  readonly records: FaultRecord[] = [];
  readonly violations: string[] = [];
  readonly #servers: ChaosServers;
  readonly #load: LoadHandle;
  readonly #options: ChaosOptions;
  readonly #random: () => number;
  readonly #kinds: readonly FaultKind[];
  readonly #startedMs = nowMs();
  readonly #active = new Set<FaultPlan>();
  #deck: FaultKind[] = [];

  constructor(servers: ChaosServers, load: LoadHandle, kinds: readonly FaultKind[], options: ChaosOptions) {
    this.#servers = servers;
    this.#load = load;
    this.#kinds = kinds;
    this.#options = options;
    this.#random = seededRandom(options.seed);
  }

  /** Two at a time, so that faults meet each other. */
  async run(): Promise<void> {
    if (this.#kinds.length === 0) await sleep(this.#options.seconds * 1000);
    else await Promise.all([this.#lane(0), this.#lane(1)]);
  }

  get #isOver(): boolean {
    if (this.violations.length > 0 || this.#options.signal?.aborted === true) return true;
    const endMs = this.#startedMs + this.#options.seconds * 1000;
    return nowMs() >= endMs && this.records.length >= (this.#options.faultsMin ?? 0);
  }

  async #lane(lane: number): Promise<void> {
    await sleep(500 + lane * 1500);
    while (!this.#isOver) {
      const kind = this.#draw();
      const plan = await kind.plan(this.#context());
      if (plan === undefined || this.#isTaken(plan)) await sleep(50);
      else {
        await this.#apply(kind, plan);
        // Now and then the next one comes at once; else there is something to lose first.
        if (this.#random() < 0.7) await this.#progress();
        if (lane > 0) await sleep(this.#random() * secondLanePauseMs);
      }
    }
  }

  /** Until the load got some way, if it does in time. */
  async #progress(): Promise<void> {
    const { answered } = this.#load.progress();
    const endMs = nowMs() + progressTimeoutMs;
    while (this.#load.progress().answered < answered + progressAnswers && nowMs() < endMs) await sleep(20);
  }

  /** Each kind comes once before one comes again. */
  #draw(): FaultKind {
    if (this.#deck.length === 0) {
      this.#deck = this.#kinds
        .map((kind) => ({ kind, order: this.#random() }))
        .sort((a, b) => a.order - b.order)
        .map(({ kind }) => kind);
    }
    const kind = this.#deck.pop();
    if (kind === undefined) throw new Error('there are no kinds of faults');
    return kind;
  }

  #context(): FaultContext {
    const taken = new Set([...this.#active].flatMap((plan) => plan.servers));
    return {
      servers: this.#servers,
      random: this.#random,
      electionTimeoutMs: this.#options.electionTimeoutMs ?? defaults.electionTimeoutMs,
      free: this.#servers.present.filter((id) => !taken.has(id)),
      progress: (nowMs() - this.#startedMs) / (this.#options.seconds * 1000),
      networkFree: ![...this.#active].some((plan) => plan.network === true),
    };
  }

  /** The other lane may have been quicker. */
  #isTaken(plan: FaultPlan): boolean {
    return [...this.#active].some(
      (other) =>
        (plan.network === true && other.network === true) ||
        plan.servers.some((id) => other.servers.includes(id)),
    );
  }

  async #apply(kind: FaultKind, plan: FaultPlan): Promise<void> {
    const atMs = nowMs();
    this.#active.add(plan);
    let outcome: string;
    try {
      outcome = await plan.run();
    } catch (error) {
      outcome = error instanceof Error ? error.message : String(error);
      this.violations.push(`${kind.name} (${plan.target}): ${outcome}`);
    }
    this.#active.delete(plan);
    const tookMs = nowMs() - atMs;
    const recoveredMs = this.violations.length > 0 ? undefined : await this.#recovery(kind, plan);
    const record = {
      name: kind.name,
      target: plan.target,
      atMs: atMs - this.#startedMs,
      tookMs,
      recoveredMs,
      outcome,
    };
    this.records.push(record);
    this.#options.log?.(faultLine(record));
  }

  async #recovery(kind: FaultKind, plan: FaultPlan): Promise<number | undefined> {
    const healedMs = nowMs();
    while (this.#active.size === 0) {
      const { callMs, returnMs } = this.#load.progress().lastAcknowledged;
      if (callMs >= healedMs) return returnMs - healedMs;
      if (nowMs() > healedMs + recoveryTimeoutMs) {
        this.violations.push(
          `no write was acknowledged within ${recoveryTimeoutMs} ms after ${kind.name} (${plan.target})`,
        );
        return undefined;
      }
      await sleep(20);
    }
    return undefined;
  }
}

export const faultLine = ({ name, target, atMs, tookMs, recoveredMs, outcome }: FaultRecord): string => {
  const at = `${(atMs / 1000).toFixed(1)} s`.padStart(8);
  const took = `${(tookMs / 1000).toFixed(1)} s`.padStart(7);
  const recovered = recoveredMs === undefined ? '–' : `${Math.round(recoveredMs)} ms`;
  return `${at} ${name.padEnd(14)} ${target.padEnd(30)} ${took} ${recovered.padStart(9)}  ${outcome}`;
};

export const faultHead = `${'at'.padStart(8)} ${'fault'.padEnd(14)} ${'of'.padEnd(30)} ${'lasted'.padStart(7)} ${'writes in'.padStart(9)}  outcome`;

const wantedKinds = (names: readonly string[]): readonly FaultKind[] => {
  const unknown = names.filter((name) => !faultKinds.some((kind) => kind.name === name));
  if (unknown.length > 0) {
    const known = faultKinds.map((kind) => kind.name).join(', ');
    throw new RangeError(`there is no fault ${unknown.join(', ')}; there are ${known}`);
  }
  return names.length === 0 ? faultKinds : faultKinds.filter((kind) => names.includes(kind.name));
};

const needsNetwork: ReadonlySet<unknown> = new Set(['network', 'delay', 'loss', 'narrow']);

/** Everyone is back, the network is whole: all must serve. */
const heal = async (servers: ChaosServers): Promise<string[]> => {
  try {
    await servers.processes.ready(servers.present, recoveryTimeoutMs);
    return [];
  } catch (error) {
    return [`after all was healed: ${error instanceof Error ? error.message : String(error)}`];
  }
};

/** Throws a RangeError for faults that there are not. */
export const runChaos = async (options: ChaosOptions): Promise<ChaosReport> => {
  const { log = () => undefined, electionTimeoutMs = defaults.electionTimeoutMs } = options;
  const wanted = wantedKinds(options.faults);
  const durationsMs: Record<string, number> = {};
  const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const startedMs = nowMs();
    try {
      return await work();
    } finally {
      durationsMs[name] = nowMs() - startedMs;
    }
  };
  const servers = await timed('start', () =>
    ChaosServers.start({
      servers: options.servers,
      electionTimeoutMs,
      wantNetwork: wanted.some((kind) => needsNetwork.has(kind.needs)),
      wantDisks: wanted.some((kind) => kind.needs === 'disks'),
    }),
  );
  const violations: string[] = servers.violations;
  let kept = true;
  try {
    const skipped = wanted.flatMap((kind) => {
      const missing = missingFor(kind, servers);
      return missing === undefined ? [] : [`${kind.name}: SKIPPED, not possible on this machine: ${missing}`];
    });
    if (servers.noReplacement !== undefined)
      skipped.push(`replacement: SKIPPED, damaged servers stay away: ${servers.noReplacement}`);
    for (const line of skipped) log(line);
    const kinds = wanted.filter((kind) => missingFor(kind, servers) === undefined);
    const load = await startLoad({
      profile: servers.processes.path('admin.yaml'),
      clients: options.clients ?? defaults.clients,
      seed: options.seed,
    });
    const faults = new Faults(servers, load, kinds, options);
    await timed('faults', () => faults.run());
    violations.push(...faults.violations);
    violations.push(...(await timed('healing', () => heal(servers))));
    await sleep(calmMs);
    const { longestOutageMs } = load.progress();
    const report = await timed('end of load', () => load.stop());
    violations.push(...report.violations);
    if (options.history !== undefined) writeHistory(options.history, report.history);
    const end = await timed('state', () => checkEnd(servers, report));
    const judged = await timed('history', async () => checkHistory(report.history));
    violations.push(...end, ...judged.violations);
    kept = violations.length > 0;
    return {
      faults: faults.records,
      skipped,
      load: report,
      longestOutageMs,
      durationsMs,
      violations,
      notes: judged.notes,
      directory: kept ? servers.processes.directory : undefined,
    };
  } catch (error) {
    log(`the servers' files are kept in ${servers.processes.directory}`);
    throw error;
  } finally {
    await servers.close(kept);
  }
};
