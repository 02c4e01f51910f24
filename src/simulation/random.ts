/** Chance that depends on a seed alone. Each stream has a name, so that one more draw here changes nothing there. */

const textHash = (text: string): number => {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
};

/** splitmix32: spreads what is alike. */
const spread = (value: number): number => {
  let z = (value + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return (z ^ (z >>> 15)) >>> 0;
};

/** sfc32: small, fast, and good enough for statistics. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;
  /** For callers that want a bare function. */
  readonly next: () => number;

  constructor(seed: number, name: string) {
    this.#a = spread(seed | 0);
    this.#b = spread(textHash(name));
    this.#c = spread(this.#a ^ Math.imul(this.#b, 31));
    this.next = () => this.#draw() / 4294967296;
    for (let round = 0; round < 8; round += 1) this.#draw();
  }

  #draw(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + t) | 0;
    return t >>> 0;
  }

  chance(probability: number): boolean {
    return probability > 0 && this.next() < probability;
  }

  /** A whole number, both ends included. */
  whole(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  between(least: number, most: number): number {
    return least + this.next() * (most - least);
  }

  /** Mostly small, sometimes much more: a mean, cut off at ten times of it. */
  exponential(mean: number): number {
    return Math.min(10 * mean, -Math.log(1 - this.next()) * mean);
  }

  pick<Item>(from: readonly Item[]): Item {
    const item = from[Math.floor(this.next() * from.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }

  shuffled<Item>(items: readonly Item[]): Item[] {
    const left = [...items];
    for (let at = left.length - 1; at > 0; at -= 1) {
      const other = this.whole(0, at);
      [left[at], left[other]] = [left[other] as Item, left[at] as Item];
    }
    return left;
  }

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let at = 0; at < count; at += 1) bytes[at] = this.#draw() & 0xff;
    return bytes;
  }
}

/** More often what weighs more. */
export const weighted = <Item>(
  random: Random,
  items: readonly (readonly [item: Item, weight: number])[],
): Item => {
  let at = random.next() * items.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [item, weight] of items) if ((at -= weight) < 0) return item;
  const [first] = items;
  if (first === undefined) throw new Error('nothing to draw from');
  return first[0];
};
