import type { AgentsDoor, AgentsMove } from '../../../src/server/index.ts';

/** A process's gateways, as far as its server has a say over them. */
export class FakeAgentsDoor implements AgentsDoor {
  readonly calls: string[] = [];
  readonly moves: (readonly AgentsMove[])[] = [];
  /** Why agents cannot be taken again. */
  problem: Error | undefined;
  #drained: (() => void)[] = [];

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
    if (this.problem !== undefined) return Promise.reject(this.problem);
    this.empty();
    return Promise.resolve();
  }

  sendAway(moves: readonly AgentsMove[], graceMs: number): Promise<number> {
    this.calls.push(`move over ${graceMs}`);
    this.moves.push(moves);
    return Promise.resolve(moves.reduce((sum, { agents }) => sum + agents, 0));
  }
}
