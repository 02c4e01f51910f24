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

/** Of those that were due while nobody was asked, so many seconds' at once: they must not all go when that is over. */
const secondsPerTickMax = 2;

export interface FarewellLimits {
  /** 0: none. */
  readonly connectionMaxAgeMs: number;
  readonly farewellGraceMs: number;
}

type Bucket = Set<AgentConnection>;

export class Farewells {
  readonly #maxAgeMs: number;
  readonly #graceMs: number;
  /** By the second in which they are asked to go. */
  readonly #asked = new Map<number, Bucket>();
  /** Those who were asked, in that order, and the second in which those who have not gone are closed. */
  readonly #leaving = new Map<AgentConnection, number>();
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
    removeFrom(this.#asked, this.#secondOf(connection), connection);
    this.#leaving.delete(connection);
  }

  /** Once a second or so. `asks`: those who are due; without it they are put off, and who was asked before has his grace. */
  tick(nowMs: number, asks: boolean): void {
    if (this.#maxAgeMs === 0) return;
    const now = Math.floor(nowMs / 1000);
    for (const [connection, second] of this.#leaving) {
      if (second >= now) break;
      connection.close(closeCodes.draining, 'the connection has lasted longer than it may: connect again');
    }
    this.#second ??= now;
    const until = asks ? Math.min(now, this.#second + secondsPerTickMax) : this.#second;
    for (; this.#second < until; this.#second += 1) this.#due(this.#second, now);
  }

  #due(second: number, now: number): void {
    for (const connection of take(this.#asked, second)) {
      this.#leaving.set(connection, now - 1 + this.#graceSeconds);
      const reason = 'the connection has lasted as long as it may: connect again';
      // The server goes on: who finds no other one is to have its next connection here before this one ends.
      connection.goaway(this.#graceMs, reason, { here: true });
    }
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
