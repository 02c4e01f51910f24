/** Gives every key its value of a round, in an order that mixes the agents, through several of the administrator's clients. */
import type { Client } from '../../src/client/index.ts';
import { sleep } from '../support/process-cluster.ts';
import { valueOf } from './plan.ts';

const operationsPerWrite = 64;
/** A frame has little more than 1 MiB. */
const bytesPerWrite = 512 * 1024;
const writeTimeoutMs = 60_000;

/** Deterministic: the same order in every run. */
const mixed = (keys: readonly string[]): string[] =>
  keys
    .map((key, index) => [Math.imul(index + 1, 0x9e3779b1) >>> 0, key] as const)
    .sort(([a], [b]) => a - b)
    .map(([, key]) => key);

const inWrites = (keys: readonly string[], round: number): string[][] => {
  const writes: string[][] = [];
  let write: string[] = [];
  let bytes = 0;
  for (const key of keys) {
    const next = valueOf(key, round).length;
    if (write.length === operationsPerWrite || (write.length > 0 && bytes + next > bytesPerWrite)) {
      writes.push(write);
      write = [];
      bytes = 0;
    }
    write.push(key);
    bytes += next;
  }
  if (write.length > 0) writes.push(write);
  return writes;
};

export class Publication {
  /** The revision of each key that has its value. */
  readonly revisions = new Map<string, number>();
  readonly #clients: readonly Client[];
  readonly #round: number;
  readonly #writes: readonly (readonly string[])[];
  readonly #spreadMs: number;
  #next = 0;
  readonly done: Promise<void>;

  /** `spreadMs`: takes at least so long. */
  constructor(clients: readonly Client[], keys: readonly string[], round: number, spreadMs: number) {
    this.#clients = clients;
    this.#round = round;
    this.#writes = inWrites(mixed(keys), round);
    this.#spreadMs = spreadMs;
    const lanes = clients.map((client) => this.#lane(client));
    this.done = Promise.all(lanes).then(() => undefined);
    // Who waits for a share of it comes to the end later.
    this.done.catch(() => undefined);
  }

  /** Resolves when so much of it has been acknowledged. */
  async reached(share: number): Promise<void> {
    const total = this.#writes.reduce((sum, { length }) => sum + length, 0);
    while (this.revisions.size < total * share) await Promise.race([sleep(5), this.#failure()]);
  }

  async #failure(): Promise<void> {
    await this.done;
  }

  async #lane(client: Client): Promise<void> {
    const pauseMs = (this.#spreadMs * this.#clients.length) / Math.max(1, this.#writes.length);
    for (;;) {
      const keys = this.#writes[this.#next];
      this.#next += 1;
      if (keys === undefined) return;
      const dueMs = performance.now() + pauseMs;
      const { results } = await client.batch(
        (batch) => {
          for (const key of keys)
            batch.resolve(key, valueOf(key, this.#round), { supersede: this.#round > 1 });
        },
        { timeoutMs: writeTimeoutMs },
      );
      for (const [at, key] of keys.entries()) this.revisions.set(key, results[at]?.revision ?? 0);
      if (dueMs > performance.now()) await sleep(dueMs - performance.now());
    }
  }
}
