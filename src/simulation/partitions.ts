/** Which ways between servers a partition cuts. */
import type { PartitionShape } from './plan.ts';
import type { Random } from './random.ts';

export type Cut = readonly [from: number, to: number];

/** Fewer servers have no way that the shape would cut. */
const serversMin: { readonly [Shape in PartitionShape]: number } = {
  deaf_to: 2,
  mute_to: 2,
  one_way: 2,
  // Three in a ring are all neighbours.
  ring: 4,
  alone: 2,
  split: 2,
  // One on each side, and the one between them.
  bridge: 3,
  swizzle: 2,
};

export const canCut = (shape: PartitionShape, servers: number): boolean => servers >= serversMin[shape];

/** None where there are too few servers for the shape, or where `chosen` is not among them and has to be. */
export const cutsOf = (
  shape: PartitionShape,
  chosen: number,
  ids: readonly number[],
  random: Random,
): readonly Cut[] => {
  if (!canCut(shape, ids.length)) return [];
  const all = ids.flatMap((from) => ids.filter((to) => to !== from).map((to): Cut => [from, to]));
  switch (shape) {
    case 'deaf_to':
      return all.filter(([from]) => from === chosen);
    case 'mute_to':
      return all.filter(([, to]) => to === chosen);
    case 'one_way':
      return ids.includes(chosen) ? [[chosen, random.pick(ids.filter((id) => id !== chosen))]] : [];
    case 'alone':
      return all.filter(([from, to]) => from === chosen || to === chosen);
    case 'ring': {
      const order = random.shuffled(ids);
      const next = (id: number): number | undefined => order[(order.indexOf(id) + 1) % order.length];
      return all.filter(([from, to]) => next(from) !== to && next(to) !== from);
    }
    case 'split': {
      const side = new Set(random.shuffled(ids).slice(0, random.whole(1, ids.length - 1)));
      return all.filter(([from, to]) => side.has(from) !== side.has(to));
    }
    case 'bridge': {
      const others = ids.filter((id) => id !== chosen);
      const side = (id: number): number => others.indexOf(id) % 2;
      return all.filter(([from, to]) => from !== chosen && to !== chosen && side(from) !== side(to));
    }
    case 'swizzle': {
      const some = all.filter(() => random.chance(0.5));
      return some.length > 0 ? some : [random.pick(all)];
    }
    default:
      return shape satisfies never;
  }
};
