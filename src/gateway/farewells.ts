/**
 * Connections last, so agents stay where they once came to: after a restart one server has none, and the others have all.
 * Where an age is set, each connection is asked to go when it has it, more or less, and loses nothing by it: it serves
 * until the next one is there.
 */
import type { AgentConnection } from './connection.ts';
import { closeCodes } from '../protocol/index.ts';

/** More or less by so much: those who came at once must not go at once. */
const spreadShare = 0.2;

/** Multiples of it fall evenly over [0, 1), however many there are; no two neighbours are near each other. */
const goldenShare = 0.618_033_988_749_895;

export interface FarewellLimits {
  /** 0: none. */
  readonly connectionMaxAgeMs: number;
  readonly farewellGraceMs: number;
}

type Bucket = Set<AgentConnection>;

export class Farewells {
  readonly #maxAgeMs: number;
  readonly #graceMs: number;
  /** By the second in which they are asked to go, and by the one in which those who have not gone are closed. */
  readonly #asked = new Map<number, Bucket>();
  readonly #closed = new Map<number, Bucket>();
  #second: number | undefined;

  constructor({ connectionMaxAgeMs, farewellGraceMs }: FarewellLimits) {
    this.#maxAgeMs = connectionMaxAgeMs;
    this.#graceMs = farewellGraceMs;
  }

  /** It has said hello. */
  add(connection: AgentConnection): void {
    if (this.#maxAgeMs > 0) addTo(this.#asked, this.#secondOf(connection), connection);
  }

  /** It has ended. */
  remove(connection: AgentConnection): void {
    if (this.#maxAgeMs === 0) return;
    const second = this.#secondOf(connection);
    removeFrom(this.#asked, second, connection);
    removeFrom(this.#closed, second + this.#graceSeconds, connection);
  }

  /** Once a second or so. */
  tick(nowMs: number): void {
    if (this.#maxAgeMs === 0) return;
    const now = Math.floor(nowMs / 1000);
    for (let second = this.#second ?? now; second < now; second += 1) this.#passed(second);
    this.#second = now;
  }

  #passed(second: number): void {
    const leaving = take(this.#asked, second);
    for (const connection of leaving) {
      addTo(this.#closed, second + this.#graceSeconds, connection);
      const reason = 'the connection has lasted as long as it may: connect again';
      // The server goes on: who finds no other one is to have its next connection here before this one ends.
      connection.goaway(this.#graceMs, reason, { here: true });
    }
    for (const connection of take(this.#closed, second))
      connection.close(closeCodes.draining, 'the connection has lasted longer than it may: connect again');
  }

  get #graceSeconds(): number {
    return Math.ceil(this.#graceMs / 1000) + 1;
  }

  /** The last whole second of its time. */
  #secondOf({ id, acceptedAtMs }: AgentConnection): number {
    const between = (id * goldenShare) % 1;
    const ageMs = this.#maxAgeMs * (1 - spreadShare + 2 * spreadShare * between);
    return Math.floor((acceptedAtMs + ageMs) / 1000);
  }
}

const addTo = (buckets: Map<number, Bucket>, second: number, connection: AgentConnection): void => {
  const bucket = buckets.get(second);
  if (bucket === undefined) buckets.set(second, new Set([connection]));
  else bucket.add(connection);
};

const removeFrom = (buckets: Map<number, Bucket>, second: number, connection: AgentConnection): void => {
  const bucket = buckets.get(second);
  if (bucket?.delete(connection) === true && bucket.size === 0) buckets.delete(second);
};

/** Out of the map first: what is done with them may take them out one by one. */
const take = (buckets: Map<number, Bucket>, second: number): readonly AgentConnection[] => {
  const bucket = buckets.get(second);
  buckets.delete(second);
  return bucket === undefined ? [] : [...bucket];
};
