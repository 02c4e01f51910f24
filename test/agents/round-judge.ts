/** Holds what each agent received in a round against what it was to receive. */
import type { Expectation } from './expectation.ts';
import type { FleetAgent } from './fleet-agent.ts';
import { isBulk } from './plan.ts';

/** What was published in a round, and what was taken away meanwhile. */
export interface RoundReport {
  /** The revision of each key. */
  readonly published: ReadonlyMap<string, number>;
  /** By the agent's number, at which revision it was revoked and when that was answered. */
  readonly revoked: ReadonlyMap<number, { readonly revision: number; readonly atMs: number }>;
  /** At which revision the policies became what `narrowed` told. */
  readonly narrowedAt?: number;
}

export interface Verdict {
  /** Agents × keys. */
  readonly cells: number;
  readonly received: number;
  /** Would have been received but for revocations and new policies. */
  readonly withheld: number;
  /** Bulk values that those got who had stopped reading. */
  readonly receivedAsleep: number;
  /** How long after its revocation was answered a connection was closed; sorted. */
  readonly closedAfterMs: readonly number[];
  readonly problems: readonly string[];
}

/** By the policies at the beginning of the round, and by those at its end. */
export interface Expected {
  readonly before: Expectation;
  after: Expectation;
}

export class RoundJudge {
  readonly #report: RoundReport;
  readonly #sleepers: ReadonlySet<FleetAgent>;
  received = 0;
  withheld = 0;
  receivedAsleep = 0;
  readonly closedAfterMs: number[] = [];
  readonly problems: string[] = [];

  constructor(report: RoundReport, sleepers: ReadonlySet<FleetAgent>) {
    this.#report = report;
    this.#sleepers = sleepers;
  }

  look(agent: FleetAgent, { before, after }: Expected): void {
    const { record, plan } = agent;
    this.problems.push(...record.problems);
    const revoked = this.#report.revoked.get(plan.index);
    const endMs = revoked?.revision;
    const told = (until: number | undefined): string =>
      until === undefined ? 'nothing was taken away' : `it lost it at revision ${until}`;
    const compare = (
      from: string,
      got: ReadonlyMap<string, number>,
      wanted: ReadonlySet<string>,
      stays: ReadonlySet<string>,
      isTold: (key: string) => boolean,
    ): void => {
      this.received += got.size;
      for (const [key, revision] of got) {
        if (!wanted.has(key)) this.#found(plan.name, `${from} gave ${key}, which it may not have`);
        const published = this.#report.published.get(key);
        if (published !== revision)
          this.#found(
            plan.name,
            `${from} gave ${key} of revision ${revision}, but it was published at ${published}`,
          );
        const until = endMs ?? (stays.has(key) ? undefined : this.#report.narrowedAt);
        if (until !== undefined && revision >= until)
          this.#found(plan.name, `${from} gave ${key} of revision ${revision}, but ${told(until)}`);
      }
      for (const key of wanted) {
        if (got.has(key)) continue;
        if (endMs === undefined && stays.has(key))
          this.#found(plan.name, `${from} did not give ${key} (${told(undefined)})`);
        else this.withheld += 1;
        if (endMs === undefined && !stays.has(key) && !isTold(key))
          this.#found(plan.name, `it was not told that ${from} gives ${key} no more`);
      }
    };
    const isEnded = (): boolean => record.subscriptionEnd === 'PERMISSION_DENIED';
    const isRefused = (key: string): boolean => record.refused.get(key) === 'PERMISSION_DENIED';
    compare('the subscription', record.pushed, before.pushed, after.pushed, isEnded);
    compare('an await', record.answered, before.answered, after.answered, isRefused);
    if (revoked !== undefined) this.#lookAtRevoked(agent, revoked.atMs);
    else if (agent.servedAtMs === undefined) this.#found(plan.name, 'it is not connected');
  }

  /** The connection it had is closed within the time, and there is no other. */
  #lookAtRevoked(agent: FleetAgent, atMs: number): void {
    const { record, plan } = agent;
    if (this.#sleepers.has(agent)) this.receivedAsleep += [...record.pushed.keys()].filter(isBulk).length;
    if (!agent.shutOut || record.endings.at(-1)?.code !== 4503)
      this.#found(plan.name, `it was revoked, but not told with 4503: ${JSON.stringify(record.endings)}`);
    const [first] = record.endings;
    if (first !== undefined && !this.#sleepers.has(agent)) this.closedAfterMs.push(first.atMs - atMs);
  }

  #found(name: string, text: string): void {
    this.problems.push(`${name}: ${text}`);
  }
}
