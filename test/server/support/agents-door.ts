import type { AgentsDoor, AgentsMove } from '../../../src/server/index.ts';

/** A process's gateways, as far as its server has a say over them. */
export class FakeAgentsDoor implements AgentsDoor {
  readonly calls: string[] = [];
  readonly moves: (readonly AgentsMove[])[] = [];
  /** Why agents cannot be taken again. */
  problem: Error | undefined;
  #drained: (() => void)[] = [];
  #held: Promise<void> = Promise.resolve();

  /** From now on taking agents again lasts until the function that it gives is called. */
  hold(): () => void {
    let release = (): void => {};
    this.#held = new Promise((resolve) => (release = resolve));
    return () => release();
  }

  drain(graceMs: number): Promise<void> {
    this.calls.push(`drain ${graceMs}`);
    return new Promise((resolve) => void this.#drained.push(resolve));
  }

  /** All agents have left. */
  empty(): void {
    for (const resolve of this.#drained) resolve();
    this.#drained = [];
  }

  admit(): Promise<void> {
    this.calls.push('admit');
    return this.#held.then(() => {
      if (this.problem !== undefined) throw this.problem;
      this.empty();
    });
  }

  sendAway(moves: readonly AgentsMove[], graceMs: number): Promise<number> {
    this.calls.push(`move over ${graceMs}`);
    this.moves.push(moves);
    return Promise.resolve(moves.reduce((sum, { agents }) => sum + agents, 0));
  }
}
