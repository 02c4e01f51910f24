/**
 * How many sockets the gateways of one server have, in memory that their threads share: the caps are the server's, and
 * a socket that has just come must be judged without asking anybody. Each gateway writes its own numbers only, so the
 * sum may be behind by what the others are doing at this very moment.
 */

/** Of each gateway: all its sockets, and those of them that have no identity yet. */
const fields = 2;

export class SocketCounts {
  readonly #numbers: Int32Array;
  readonly #own: number;

  /** What several of them share. */
  static memory(gateways: number): SharedArrayBuffer {
    return new SharedArrayBuffer(gateways * fields * Int32Array.BYTES_PER_ELEMENT);
  }

  /** `place`: which of the gateways this is, from 0 on. */
  constructor(memory: SharedArrayBuffer = SocketCounts.memory(1), place = 0) {
    this.#numbers = new Int32Array(memory);
    this.#own = place * fields;
  }

  get gateways(): number {
    return this.#numbers.length / fields;
  }

  publish(open: number, waiting: number): void {
    Atomics.store(this.#numbers, this.#own, open);
    Atomics.store(this.#numbers, this.#own + 1, waiting);
  }

  get othersOpen(): number {
    return this.#ofOthers(0);
  }

  get othersWaiting(): number {
    return this.#ofOthers(1);
  }

  #ofOthers(field: number): number {
    let sum = 0;
    for (let at = field; at < this.#numbers.length; at += fields)
      if (at !== this.#own + field) sum += Atomics.load(this.#numbers, at);
    return sum;
  }
}
