/** What an agent writes: operations, values and conditions as chance will have them. */
import {
  declareOperation,
  deleteOperation,
  rejectOperation,
  resolveOperation,
  touchOperation,
  type Operation,
} from '../client/index.ts';
import type { Random } from './random.ts';

export class AgentOperations {
  readonly #agent: number;
  readonly #random: Random;
  readonly #valueBytesMax: number;
  #count = 0;
  /** How often the agent was started. */
  lives = 0;
  /** What it saw of keys last: for conditions. */
  readonly #seen = new Map<string, { readonly generation: number; readonly revision: number }>();

  constructor(agent: number, random: Random, valueBytesMax: number) {
    this.#agent = agent;
    this.#random = random;
    this.#valueBytesMax = valueBytesMax;
  }

  saw(key: string, seen: { readonly generation: number; readonly revision: number }): void {
    this.#seen.set(key, seen);
  }

  /** undefined: it never saw one. */
  generationOf(key: string): number | undefined {
    return this.#seen.get(key)?.generation;
  }

  /** Never the same twice. */
  value(): string {
    this.#count += 1;
    const filler = this.#random.whole(0, this.#valueBytesMax);
    return `${this.#agent}.${this.lives}.${this.#count}${filler > 8 ? ` ${'x'.repeat(filler)}` : ''}`;
  }

  operation(key: string): Operation {
    const random = this.#random;
    const ttl = random.chance(0.3) ? { ttlMs: random.whole(300, 6000) } : {};
    const conditions = random.chance(0.15) ? this.#conditions(key) : {};
    const draw = random.next();
    if (draw < 0.33) return resolveOperation(key, this.value(), { supersede: true, ...ttl, ...conditions });
    if (draw < 0.53) return resolveOperation(key, this.value(), { ...ttl, ...conditions });
    if (draw < 0.76) {
      return declareOperation(key, {
        renew: random.chance(0.6),
        tied: random.chance(0.5),
        ...(random.chance(0.4) && { deadlineMs: random.whole(200, 6000) }),
        ...conditions,
      });
    }
    if (draw < 0.84) {
      return rejectOperation(key, { code: 'FAILED', supersede: random.chance(0.5), ...ttl, ...conditions });
    }
    if (draw < 0.93) return deleteOperation(key, conditions);
    return touchOperation(key, random.whole(300, 6000), conditions);
  }

  #conditions(key: string): { ifRevision?: number; ifGeneration?: number; ifAbsent?: boolean } {
    const seen = this.#seen.get(key);
    const draw = this.#random.next();
    if (draw < 0.3 || seen === undefined) return { ifAbsent: true };
    return draw < 0.65 ? { ifRevision: seen.revision } : { ifGeneration: seen.generation };
  }
}
