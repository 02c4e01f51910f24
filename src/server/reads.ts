/**
 * Linearizable reads by ReadIndex (Raft thesis §6.4): all reads of one turn share one question to the leader, and are
 * answered from the local state once it has caught up with the index in the reply.
 */
import type { LogIndex, Raft, Token } from '../raft/index.ts';
import type { InFlight } from './requests.ts';

export class Reads {
  #queued: InFlight[] = [];
  readonly #asked = new Map<Token, InFlight[]>();
  /** Confirmed, but for an index that is not applied here yet; in the order of confirmation. */
  #confirmed: { readonly index: LogIndex; readonly requests: readonly InFlight[] }[] = [];
  #lastToken = 0;
  /** The last question was dropped: ask again at the next tick or when there is a leader, not at once. */
  #held = false;

  add(request: InFlight): void {
    this.#queued.push(request);
  }

  ask(raft: Raft): void {
    if (this.#held || this.#queued.length === 0) return;
    const requests = this.#queued.filter((request) => !request.over);
    this.#queued = [];
    if (requests.length === 0) return;
    this.#lastToken += 1;
    this.#asked.set(this.#lastToken, requests);
    raft.step({ kind: 'read_index', token: this.#lastToken });
  }

  confirmed(token: Token, index: LogIndex): void {
    const requests = this.#asked.get(token);
    if (requests === undefined)
      throw new Error(`raft confirmed read ${token}, which was never asked or has ended`);
    this.#asked.delete(token);
    this.#confirmed.push({ index, requests });
  }

  dropped(token: Token): void {
    const requests = this.#asked.get(token);
    if (requests === undefined)
      throw new Error(`raft dropped read ${token}, which was never asked or has ended`);
    this.#asked.delete(token);
    this.#queued = requests.concat(this.#queued);
    this.#held = true;
  }

  /** Time has passed, or there is a new leader: what was dropped may be asked again. */
  retry(): void {
    this.#held = false;
  }

  /** Gives what may be answered from a state that has applied `index`. */
  release(index: LogIndex): readonly InFlight[] {
    if (this.#confirmed.length === 0) return [];
    const released: InFlight[] = [];
    this.#confirmed = this.#confirmed.filter((batch) => {
      if (batch.index > index) return true;
      for (const request of batch.requests) if (!request.over) released.push(request);
      return false;
    });
    return released;
  }

  get waiting(): boolean {
    return this.#queued.length > 0;
  }
}
