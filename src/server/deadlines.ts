/** What ends at a time unless it is over before. */

/** Marked by others as over; never again anything else then. */
interface Ending {
  readonly over: boolean;
}

/**
 * A binary min-heap by deadline, in two arrays: 16 bytes for each. What is over stays in it until it comes up or
 * outnumbers the rest.
 */
export class Deadlines<T extends Ending> {
  #items: T[] = [];
  /** By the monotonic clock. */
  #atMs: number[] = [];

  get size(): number {
    return this.#items.length;
  }

  add(item: T, atMs: number): void {
    this.#items.push(item);
    this.#atMs.push(atMs);
    this.#up(this.#items.length - 1);
  }

  /** The earliest deadline of what is not over; Infinity: there is none. */
  next(): number {
    for (;;) {
      const first = this.#items[0];
      if (first === undefined) return Infinity;
      if (!first.over) return this.#at(0);
      this.#removeFirst();
    }
  }

  /** Takes out what is not over and whose time has come, the earliest first. */
  passed(nowMs: number): T[] {
    const result: T[] = [];
    while (this.next() <= nowMs) {
      const first = this.#items[0];
      if (first !== undefined) result.push(first);
      this.#removeFirst();
    }
    return result;
  }

  /** Drops what is over when that is most of it; `living`: how many there are at most that are not. */
  tidy(living: number): void {
    if (this.#items.length < 1024 || this.#items.length < living * 2) return;
    const kept: { readonly item: T; readonly atMs: number }[] = [];
    for (const [at, item] of this.#items.entries()) if (!item.over) kept.push({ item, atMs: this.#at(at) });
    // What is sorted is a heap.
    kept.sort((a, b) => a.atMs - b.atMs);
    this.#items = kept.map(({ item }) => item);
    this.#atMs = kept.map(({ atMs }) => atMs);
  }

  #at(place: number): number {
    return this.#atMs[place] ?? Infinity;
  }

  #swap(a: number, b: number): void {
    const [first, second] = [this.#items[a], this.#items[b]];
    const [firstMs, secondMs] = [this.#at(a), this.#at(b)];
    if (first === undefined || second === undefined) throw new RangeError(`no deadlines ${a} and ${b}`);
    this.#items[a] = second;
    this.#items[b] = first;
    this.#atMs[a] = secondMs;
    this.#atMs[b] = firstMs;
  }

  #up(from: number): void {
    let child = from;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (this.#at(parent) <= this.#at(child)) return;
      this.#swap(parent, child);
      child = parent;
    }
  }

  #removeFirst(): void {
    const last = this.#items.length - 1;
    if (last > 0) this.#swap(0, last);
    this.#items.pop();
    this.#atMs.pop();
    let parent = 0;
    for (;;) {
      const left = 2 * parent + 1;
      const child = this.#at(left + 1) < this.#at(left) ? left + 1 : left;
      if (this.#at(parent) <= this.#at(child)) return;
      this.#swap(parent, child);
      parent = child;
    }
  }
}
