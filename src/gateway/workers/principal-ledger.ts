/**
 * The connections of each principal over all gateway threads of a server, kept where all of them ask. A principal with
 * connections at several threads may make its requests per second over all of them: each thread admits the part that its
 * connections are of them all, so that the parts add up to the whole.
 */

export interface LedgerOwner {
  /** Which part of the principal's requests the thread may admit. */
  tellShare(thread: number, principal: string, share: number): void;
  /** A connection at another thread, there since then, is to take the place of the one that the principal may have. */
  tellReplaced(thread: number, principal: string, sinceMs: number): void;
}

export class PrincipalLedger {
  readonly #owner: LedgerOwner;
  /** By principal: how many each thread has that has any. */
  readonly #counts = new Map<string, Map<number, number>>();
  /**
   * By principal that may have one: since when each thread has the one that it has, as it said last. Some threads may not
   * have said it yet, since each finds by itself that policies have changed.
   */
  readonly #soleSinceMs = new Map<string, Map<number, number>>();

  constructor(owner: LedgerOwner) {
    this.#owner = owner;
  }

  /** Whether one more is within `max`, or takes the place of the only one: then it counts, and `tellShares` is to follow. */
  enter(thread: number, principal: string, max: number, nowMs: number): boolean {
    const counts = this.#counts.get(principal) ?? new Map<number, number>();
    if (max > 1 && sumOf(counts) >= max) return false;
    counts.set(thread, (counts.get(thread) ?? 0) + 1);
    this.#counts.set(principal, counts);
    if (max === 1) this.#setSole(thread, principal, nowMs);
    return true;
  }

  /**
   * A connection that is there since then is the only one that its principal may have now, though it was admitted as one
   * of several: of those of all threads the newest one stays.
   */
  sole(thread: number, principal: string, sinceMs: number): void {
    if (this.#counts.get(principal)?.has(thread) !== true) return;
    for (const [other, otherSinceMs] of this.#setSole(thread, principal, sinceMs)) {
      if (other === thread) continue;
      if (otherSinceMs >= sinceMs) return this.#owner.tellReplaced(thread, principal, otherSinceMs);
      this.#owner.tellReplaced(other, principal, sinceMs);
    }
  }

  #setSole(thread: number, principal: string, sinceMs: number): ReadonlyMap<number, number> {
    const since = this.#soleSinceMs.get(principal) ?? new Map<number, number>();
    since.set(thread, sinceMs);
    this.#soleSinceMs.set(principal, since);
    return since;
  }

  #hasNone(thread: number, principal: string): void {
    const since = this.#soleSinceMs.get(principal);
    since?.delete(thread);
    if (since?.size === 0) this.#soleSinceMs.delete(principal);
  }

  leave(thread: number, principal: string): void {
    const counts = this.#counts.get(principal);
    const count = counts?.get(thread);
    if (counts === undefined || count === undefined)
      throw new Error(`gateway thread ${thread} has no connection of ${principal} that could leave`);
    const wereSeveral = counts.size > 1;
    if (count > 1) counts.set(thread, count - 1);
    else counts.delete(thread);
    if (count === 1) this.#hasNone(thread, principal);
    if (counts.size === 0) this.#counts.delete(principal);
    else if (wereSeveral) this.#tell(principal, counts);
  }

  /** To all threads that have connections of the principal, where they are several. */
  tellShares(principal: string): void {
    const counts = this.#counts.get(principal);
    if (counts !== undefined && counts.size > 1) this.#tell(principal, counts);
  }

  /** To all threads but this one that have connections of the principal. */
  tellReplaced(by: number, principal: string, sinceMs: number): void {
    for (const thread of this.#counts.get(principal)?.keys() ?? [])
      if (thread !== by) this.#owner.tellReplaced(thread, principal, sinceMs);
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
