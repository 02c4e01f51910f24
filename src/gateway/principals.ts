/** How many connections each principal has, over all gateways of one server. */
export interface Principals {
  /**
   * Tells, at once or later, whether one more is within `max`; then it counts until it leaves. Where it is 1 the newest is
   * always admitted, and takes the place of the one before it: at this gateway that is the caller's business.
   */
  enter(principal: string, max: number, told: (admitted: boolean) => void): void;
  /**
   * One that was admitted when its principal might have several, and is there for so long, is the one that it may have
   * now: of those at other gateways each older one is told to go, or this one is.
   */
  sole(principal: string, ageMs: number): void;
  /** Of one that was admitted. */
  leave(principal: string): void;
  /** Which part of the principal's requests per second this gateway may admit: above 0, at most 1. */
  shareOf(principal: string): number;
}

/** Of a server that has one gateway. */
export class OwnPrincipals implements Principals {
  readonly #counts = new Map<string, number>();

  enter(principal: string, max: number, told: (admitted: boolean) => void): void {
    const count = this.#counts.get(principal) ?? 0;
    const admitted = max === 1 || count < max;
    if (admitted) this.#counts.set(principal, count + 1);
    told(admitted);
  }

  sole(): void {
    // There is no other gateway.
  }

  leave(principal: string): void {
    const count = this.#counts.get(principal) ?? 0;
    if (count > 1) this.#counts.set(principal, count - 1);
    else this.#counts.delete(principal);
  }

  shareOf(): number {
    return 1;
  }
}
