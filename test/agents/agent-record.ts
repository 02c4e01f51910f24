/** What one agent was told in the present round, checked as it comes: each thing once, with the right value. */
import process from 'node:process';
import { textOf } from '../../src/client/index.ts';
import type { Future } from '../../src/client/index.ts';
import { generationOf, valueOf } from './plan.ts';

/** Of one clock for all processes of the machine, in milliseconds. */
export const machineMs = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

/** The end of a connection. */
export interface Ending {
  readonly code: number;
  readonly atMs: number;
}

/** The first few tell what is wrong; thousands of agents would tell the same. */
const problemsMax = 5;

export class AgentRecord {
  readonly #name: string;
  #round = 0;
  /** By key, the revision of the value. */
  readonly pushed = new Map<string, number>();
  readonly answered = new Map<string, number>();
  /** Awaits, by their keys: the error's code. */
  readonly refused = new Map<string, string>();
  /** The error's code with which the subscription ended or was refused for good. */
  subscriptionEnd: string | undefined;
  readonly endings: Ending[] = [];
  readonly problems: string[] = [];

  constructor(name: string) {
    this.#name = name;
  }

  get round(): number {
    return this.#round;
  }

  beginRound(round: number): void {
    this.#round = round;
    this.pushed.clear();
    this.answered.clear();
    this.refused.clear();
    this.endings.length = 0;
  }

  push(future: Future): void {
    this.#take('the subscription', this.pushed, future);
  }

  answer(future: Future): void {
    this.#take('an await', this.answered, future);
  }

  ended(code: number): void {
    this.endings.push({ code, atMs: machineMs() });
  }

  problem(text: string): void {
    if (this.problems.length < problemsMax) this.problems.push(`${this.#name}: ${text}`);
  }

  #take(from: string, into: Map<string, number>, future: Future): void {
    const { key, generation, state, revision } = future;
    const what = `${from} gave ${key} (generation ${generation}, revision ${revision}, ${state}) in round ${this.#round}`;
    if (into.has(key)) this.problem(`${what} a second time`);
    if (generation !== generationOf(key, this.#round) || state !== 'resolved')
      this.problem(`${what}, which is of another round`);
    else if (textOf(future) !== valueOf(key, this.#round)) this.problem(`${what} with a wrong value`);
    into.set(key, revision);
  }
}
