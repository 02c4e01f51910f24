/**
 * Makes a failing run smaller: its faults and agents are lists, so what the failure does not need is left out (delta
 * debugging: A. Zeller, R. Hildebrandt, 2002), as long as the same check still fails.
 */
import type { Plan } from './plan.ts';
import type { RunResult } from './run.ts';

export interface Shrunk {
  readonly plan: Plan;
  readonly result: RunResult;
  readonly reruns: number;
}

interface Best {
  plan: Plan;
  result: RunResult;
}

/** Runs a plan: the simulator's `run`, but for tests. */
export type Runner = (plan: Plan) => Promise<RunResult>;

class Shrinker {
  readonly #run: Runner;
  readonly #check: string;
  readonly #rerunsMax: number;
  best: Best;
  reruns = 0;

  constructor(run: Runner, plan: Plan, result: RunResult, rerunsMax: number) {
    this.#run = run;
    this.best = { plan, result };
    this.#check = result.failure?.check ?? '';
    this.#rerunsMax = rerunsMax;
  }

  get exhausted(): boolean {
    return this.reruns >= this.#rerunsMax;
  }

  /** Whether the plan fails in the same way; then it is the best so far. */
  async #fails(plan: Plan): Promise<boolean> {
    if (this.exhausted) return false;
    this.reruns += 1;
    const result = await this.#run(plan);
    if (result.failure?.check !== this.#check) return false;
    this.best = { plan, result };
    return true;
  }

  /** What comes after the failure is not needed, if the failure came before the healing. */
  async shorten(): Promise<void> {
    const atMs = this.best.result.failure?.atMs ?? Infinity;
    const { plan } = this.best;
    if (atMs >= plan.durationMs) return;
    const faults = plan.faults.filter((fault) => fault.atMs <= atMs);
    const agents = plan.agents.filter((agent) => agent.startMs <= atMs);
    await this.#fails({ ...plan, faults, agents, durationMs: Math.ceil(atMs) + 1 });
  }

  async reduce<Item>(
    itemsOf: (plan: Plan) => readonly Item[],
    withItems: (plan: Plan, items: readonly Item[]) => Plan,
    least: number,
  ): Promise<void> {
    let parts = 2;
    for (;;) {
      const items = itemsOf(this.best.plan);
      if (items.length <= least || this.exhausted) return;
      const size = Math.max(1, Math.ceil(items.length / parts));
      let smaller = false;
      for (let from = 0; from < items.length && !this.exhausted; from += size) {
        const kept = [...items.slice(0, from), ...items.slice(from + size)];
        if (kept.length < least) continue;
        if (await this.#fails(withItems(this.best.plan, kept))) {
          smaller = true;
          break;
        }
      }
      if (smaller) parts = Math.max(2, parts - 1);
      else if (size === 1) return;
      else parts = Math.min(items.length, parts * 2);
    }
  }

  /** A calm network, one kind of thing at a time. */
  async simplify(): Promise<void> {
    const calm = { loss: 0, duplication: 0, reordering: 0, jitterMs: 0 };
    const { plan } = this.best;
    await this.#fails({ ...plan, network: { ...plan.network, ...calm } });
    await this.#fails({ ...this.best.plan, raft: {} });
    await this.#fails({ ...this.best.plan, store: {} });
    const servers = this.best.plan.servers.map((server) => ({ ...server, wallOffsetMs: 0, clockRate: 1 }));
    await this.#fails({ ...this.best.plan, servers });
  }
}

/** At most `rerunsMax` runs more. */
export const shrink = async (
  run: Runner,
  plan: Plan,
  result: RunResult,
  rerunsMax: number,
): Promise<Shrunk> => {
  const shrinker = new Shrinker(run, plan, result, rerunsMax);
  await shrinker.shorten();
  await shrinker.reduce(
    ({ faults }) => faults,
    (before, faults) => ({ ...before, faults }),
    0,
  );
  await shrinker.reduce(
    ({ agents }) => agents,
    (before, agents) => ({ ...before, agents }),
    1,
  );
  await shrinker.simplify();
  await shrinker.shorten();
  return { ...shrinker.best, reruns: shrinker.reruns };
};
