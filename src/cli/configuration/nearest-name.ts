/** How many characters must be inserted, removed, replaced or swapped with their neighbour to get from `a` to `b`. */
export const editDistance = (a: string, b: string): number => {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const present = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const same = a[row - 1] === b[column - 1];
      let cost = Math.min(
        (last[column] ?? 0) + 1,
        (present[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (same ? 0 : 1),
      );
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) cost = Math.min(cost, (beforeLast[column - 2] ?? 0) + 1);
      present.push(cost);
    }
    beforeLast = last;
    last = present;
  }
  return last[b.length] ?? 0;
};

/** No setting's name is longer; a longer one is not worth a quadratic comparison. */
const nameLengthMax = 64;

/** The known name that was probably meant, if one is near enough. */
export const nearestName = (name: string, known: readonly string[]): string | undefined => {
  if (name.length > nameLengthMax) return undefined;
  const plain = (text: string): string => text.toLowerCase().replaceAll('-', '_');
  const distanceMax = Math.max(1, Math.floor(name.length / 3));
  let best: { readonly name: string; readonly distance: number } | undefined;
  for (const candidate of known) {
    const distance = editDistance(plain(name), plain(candidate));
    if (distance <= distanceMax && (best === undefined || distance < best.distance))
      best = { name: candidate, distance };
  }
  return best?.name;
};
