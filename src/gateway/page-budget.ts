/**
 * How many pages of lists each principal has under way, over all its connections to a gateway: asked for, waiting, or in
 * a socket that is not read. Without it one frame can ask for thousands, and who reads none of them would fill the memory.
 */
export class PageBudget {
  readonly #max: number;
  readonly #underWay = new Map<string, number>();

  constructor(max: number) {
    this.#max = max;
  }

  /** Whether there may be one more; then it counts until it is given back. */
  take(principal: string): boolean {
    const count = this.#underWay.get(principal) ?? 0;
    if (count >= this.#max) return false;
    this.#underWay.set(principal, count + 1);
    return true;
  }

  giveBack(principal: string, pages: number): void {
    const count = (this.#underWay.get(principal) ?? 0) - pages;
    if (count > 0) this.#underWay.set(principal, count);
    else this.#underWay.delete(principal);
  }
}
