/** What a workload is: what it does on each system, and what is told of it. */
import type { RunningEtcd } from './systems/etcd.ts';
import type { RunningFuturestore } from './systems/futurestore.ts';
import type { RunningKeyValue } from './systems/system.ts';

export interface Conditions {
  /** A shorter run, for a first look. */
  readonly quick: boolean;
  /** From 0; keys of one round are not those of another. */
  readonly round: number;
  /** Before the rounds that count: with many requests under way, whatever is measured then. */
  readonly warming?: true;
}

/** What one round on one system gave: a number for each of the workload's figures. */
export type Measured = Readonly<Record<string, number>>;

export interface FigureDescription {
  readonly name: string;
  readonly unit: string;
  /** Which of two is the better one. */
  readonly better: 'more' | 'less';
  /** Against etcd in the same run: at least this ratio where more is better, at most where less is. */
  readonly ratioGoal?: number;
  /** A promise of each round: the worst of them is told, not the median. */
  readonly everyRound?: true;
  /** Of ours by itself: at most this where less is better, at least where more is. */
  readonly limit?: number;
}

interface Described {
  readonly name: string;
  readonly about: string;
  readonly figures: readonly FigureDescription[];
}

/** One on three servers of each system. */
export interface SystemsWorkload extends Described {
  /**
   * A round on each system before those that count: a load is measured on servers that have been at work, as they are in
   * service, with their code compiled. (V8 is still at it after six seconds of load on a small machine.)
   */
  readonly warm?: boolean;
  readonly futurestore: (system: RunningFuturestore, conditions: Conditions) => Promise<Measured>;
  /** undefined: etcd has nothing like it. */
  readonly etcd?: (system: RunningEtcd, conditions: Conditions) => Promise<Measured>;
  /** undefined: NATS and ZooKeeper have nothing like it, or are not asked. */
  readonly keyValue?: (system: RunningKeyValue, conditions: Conditions) => Promise<Measured>;
  /** undefined: the bare parts are no store that could do it. */
  readonly parts?: (system: RunningKeyValue, conditions: Conditions) => Promise<Measured>;
}

/** One of our own code, in this process. */
export interface LocalWorkload extends Described {
  readonly local: (conditions: Conditions) => Measured;
}

export type Workload = SystemsWorkload | LocalWorkload;
