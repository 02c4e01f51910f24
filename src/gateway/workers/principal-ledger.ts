/**
 * The connections of each principal over all gateway threads of a server, kept where all of them ask. A principal with
 * connections at several threads may make its requests per second over all of them: each thread admits the part that its
 * connections are of them all, so that the parts add up to the whole.
 */

export interface LedgerOwner {
  /** Which part of the principal's requests the thread may admit. */
  tellShare(thread: number, principal: string, share: number): void;
  /** A connection at another thread has taken the place of the one that the principal may have. */
  tellReplaced(thread: number, principal: string): void;
}

export class PrincipalLedger {
  readonly #owner: LedgerOwner;
  /** By principal: how many each thread has that has any. */
  readonly #counts = new Map<string, Map<number, number>>();

  constructor(owner: LedgerOwner) {
    this.#owner = owner;
  }

  /** Whether one more is within `max`, or takes the place of the only one: then it counts, and `tellShares` is to follow. */
  enter(thread: number, principal: string, max: number): boolean {
    const counts = this.#counts.get(principal) ?? new Map<number, number>();
    if (max > 1 && sumOf(counts) >= max) return false;
    counts.set(thread, (counts.get(thread) ?? 0) + 1);
    this.#counts.set(principal, counts);
    return true;
  }

  leave(thread: number, principal: string): void {
    const counts = this.#counts.get(principal);
    const count = counts?.get(thread);
    if (counts === undefined || count === undefined)
      throw new Error(`gateway thread ${thread} has no connection of ${principal} that could leave`);
    const wereSeveral = counts.size > 1;
    if (count > 1) counts.set(thread, count - 1);
    else counts.delete(thread);
    if (counts.size === 0) this.#counts.delete(principal);
    else if (wereSeveral) this.#tell(principal, counts);
  }

  /** To all threads that have connections of the principal, where they are several. */
  tellShares(principal: string): void {
    const counts = this.#counts.get(principal);
    if (counts !== undefined && counts.size > 1) this.#tell(principal, counts);
  }

  /** To all threads but this one that have connections of the principal. */
  tellReplaced(by: number, principal: string): void {
    for (const thread of this.#counts.get(principal)?.keys() ?? [])
      if (thread !== by) this.#owner.tellReplaced(thread, principal);
  }

  #tell(principal: string, counts: ReadonlyMap<number, number>): void {
    const total = sumOf(counts);
    for (const [thread, count] of counts) this.#owner.tellShare(thread, principal, count / total);
  }
}

const sumOf = (counts: ReadonlyMap<number, number>): number => {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
};
