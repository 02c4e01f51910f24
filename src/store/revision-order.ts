/** Items in the order of their revisions, in steps: sorting a million at once would stop the loop for half a second. */

const digitBits = 16;
const digits = 1 << digitBits;
/** At some tens of nanoseconds each these are a millisecond or two. */
const itemsPerStep = 16_384;

/** Those of one revision stay in the order in which they came. */
export function* inRevisionOrder<T extends { readonly revision: number }>(
  items: readonly T[],
): Generator<void, readonly T[], undefined> {
  const revisions = new Float64Array(items.length);
  let order = new Uint32Array(items.length);
  let next = new Uint32Array(items.length);
  let greatest = 0;
  let filled = 0;
  for (const { revision } of items) {
    revisions[filled] = revision;
    order[filled] = filled;
    if (revision > greatest) greatest = revision;
    filled += 1;
    if (filled % itemsPerStep === 0) yield;
  }
  const places = new Uint32Array(digits);
  // From the lowest digit to the highest: each pass keeps the order of the one before among equals.
  for (let scale = 1; greatest / scale >= 1; scale *= digits) {
    const digitOf = (index: number): number => Math.floor((revisions[index] ?? 0) / scale) % digits;
    places.fill(0);
    for (let index = 0; index < items.length; index += 1) {
      if (index % itemsPerStep === itemsPerStep - 1) yield;
      const digit = digitOf(index);
      places[digit] = (places[digit] ?? 0) + 1;
    }
    let before = 0;
    for (let digit = 0; digit < digits; digit += 1) {
      const count = places[digit] ?? 0;
      places[digit] = before;
      before += count;
    }
    let placed = 0;
    for (const index of order) {
      placed += 1;
      if (placed % itemsPerStep === 0) yield;
      const digit = digitOf(index);
      const place = places[digit] ?? 0;
      places[digit] = place + 1;
      next[place] = index;
    }
    [order, next] = [next, order];
    yield;
  }
  const sorted: T[] = [];
  for (const index of order) {
    const item = items[index];
    if (item === undefined) throw new RangeError(`there is no item ${index} of ${items.length}`);
    sorted.push(item);
    if (sorted.length % itemsPerStep === 0) yield;
  }
  return sorted;
}
