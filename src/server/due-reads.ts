/** Reads that may be answered now, connection by connection, as many as a turn has time for. */
import type { Environment } from './environment.ts';
import type { InFlight } from './requests.ts';

/** What reads may take of one turn. */
const readsMsMax = 5;
const readsPerSlice = 64;

export class DueReads {
  readonly #environment: Pick<Environment, 'monotonicMs'>;
  /**
   * To be answered at the end of this turn or a later one, from the state as it is then. No answer is made in between:
   * its request could be cancelled and its number used again before the answer is delivered, to the wrong one.
   */
  readonly #queues = new Map<number, InFlight[]>();

  constructor(environment: Pick<Environment, 'monotonicMs'>) {
    this.#environment = environment;
  }

  get any(): boolean {
    return this.#queues.size > 0;
  }

  /** `connection`: its number among those of all gateways. Also from within `run`: then behind all others. */
  add(connection: number, inFlight: InFlight): void {
    const queue = this.#queues.get(connection);
    if (queue === undefined) this.#queues.set(connection, [inFlight]);
    else queue.push(inFlight);
  }

  /** A slice of each connection's in turn, the others' first: thousands of lists may come in one frame. */
  run(read: (inFlight: InFlight) => void): void {
    const untilMs = this.#environment.monotonicMs() + readsMsMax;
    for (const [connection, queue] of this.#queues) {
      this.#queues.delete(connection);
      let done = 0;
      while (done < queue.length && done < readsPerSlice) {
        const inFlight = queue[done];
        done += 1;
        if (inFlight !== undefined && !inFlight.over) read(inFlight);
        if (this.#environment.monotonicMs() >= untilMs) break;
      }
      if (done < queue.length) this.#putBack(connection, queue.slice(done));
      if (this.#environment.monotonicMs() >= untilMs) return;
    }
  }

  /** Behind all others' (a Map visits what is set while it is gone through), and before what was added meanwhile. */
  #putBack(connection: number, rest: InFlight[]): void {
    const added = this.#queues.get(connection);
    this.#queues.delete(connection);
    this.#queues.set(connection, added === undefined ? rest : [...rest, ...added]);
  }
}
