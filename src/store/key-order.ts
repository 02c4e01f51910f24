/**
 * A set of keys in their order, and for some shapes of patterns with `*` also in groups: the keys of one pattern of the
 * shape, and no others, in their order. So who may see `nodes/x/out` for each x alone is not made to wait for what else
 * is below nodes/, nor can tell by that how much it is.
 *
 * Groups are made when they are asked for first, some keys at a time, and kept up from then on. They are no part of the
 * replicated state: nothing but the work of a read depends on them.
 */
import { groupOfPattern, KeyShape, type Pattern } from '../scopes/index.ts';
import { OrderedKeys } from './ordered-keys.ts';

/**
 * Shapes that have groups: each takes time for every key that comes or goes. They are those of the policies' allows, of
 * which there are a few; only who is denied a part of what an allow grants may make others by what it asks for.
 */
const shapesMax = 8;
/** A shape that nobody asked for while others were asked for so often makes room for a new one. */
const unusedMax = 1000;

/** Of one shape: about 20 MB when each is of one key. Where there are more, the shape has none. */
const groupsMax = 100_000;

class Groups {
  readonly shape: KeyShape;
  /** A lone key, which may be the usual case, has no set around it. */
  readonly #keys = new Map<string, string | OrderedKeys>();
  /** All keys up to it are in their groups; undefined: all are. */
  #madeUpTo: string | undefined = '';
  /** There would be too many. */
  abandoned = false;
  usedAt = 0;

  constructor(shape: KeyShape) {
    this.shape = shape;
  }

  get complete(): boolean {
    return this.#madeUpTo === undefined;
  }

  /** Looks at up to `most` keys. */
  make(all: OrderedKeys, most: number): void {
    let left = most;
    let last = this.#madeUpTo;
    if (last === undefined || this.abandoned) return;
    const from = last;
    this.#madeUpTo = undefined;
    all.scan(from, (key) => {
      if (key === from) return key;
      if (left === 0 || this.abandoned) {
        this.#madeUpTo = last;
        return undefined;
      }
      left--;
      last = key;
      this.#put(key);
      return key;
    });
  }

  /** What is behind those that were looked at will be looked at. */
  add(key: string): void {
    if (this.#madeUpTo === undefined || key <= this.#madeUpTo) this.#put(key);
  }

  #put(key: string): void {
    const name = this.abandoned ? undefined : this.shape.groupOf(key);
    if (name === undefined) return;
    const group = this.#keys.get(name);
    if (group === undefined) {
      this.#keys.set(name, key);
      if (this.#keys.size > groupsMax) this.#abandon();
    } else if (typeof group !== 'string') group.add(key);
    else if (group !== key) this.#keys.set(name, setOf(group, key));
  }

  #abandon(): void {
    this.abandoned = true;
    this.#keys.clear();
  }

  delete(key: string): void {
    const name = this.abandoned ? undefined : this.shape.groupOf(key);
    const group = name === undefined ? undefined : this.#keys.get(name);
    if (name === undefined || group === undefined) return;
    if (typeof group !== 'string') group.delete(key);
    if (group === key || (typeof group !== 'string' && group.size === 0)) this.#keys.delete(name);
  }

  of(name: string): OrderedKeys {
    const group = this.#keys.get(name);
    if (group === undefined) return noKeys;
    return typeof group === 'string' ? setOf(group) : group;
  }
}

const noKeys = new OrderedKeys();

const setOf = (...keys: readonly string[]): OrderedKeys => {
  const set = new OrderedKeys();
  for (const key of keys) set.add(key);
  return set;
};

export class KeyOrder {
  /** Not to be changed but by `add` and `delete`. */
  readonly all = new OrderedKeys();
  readonly #groups: Groups[] = [];
  #uses = 0;

  /** False: it was there already. */
  add(key: string): boolean {
    if (!this.all.add(key)) return false;
    for (const groups of this.#groups) groups.add(key);
    return true;
  }

  /** False: it was not there. */
  delete(key: string): boolean {
    if (!this.all.delete(key)) return false;
    for (const groups of this.#groups) groups.delete(key);
    return true;
  }

  /**
   * The keys that the pattern, one with `*`, matches. 'making': they are not known yet, but `most` keys more have been
   * looked at. undefined: as many shapes as may be have groups, or this one would have too many.
   */
  matching(pattern: Pattern, most: number): OrderedKeys | 'making' | undefined {
    const groups = this.#groupsOf(new KeyShape(pattern));
    if (groups === undefined) return undefined;
    groups.make(this.all, most);
    if (groups.abandoned) return undefined;
    return groups.complete ? groups.of(groupOfPattern(pattern)) : 'making';
  }

  #groupsOf(shape: KeyShape): Groups | undefined {
    this.#uses++;
    let groups = this.#groups.find((known) => known.shape.id === shape.id);
    if (groups === undefined) {
      if (this.#groups.length >= shapesMax) {
        const unused = this.#groups.findIndex(({ usedAt }) => this.#uses - usedAt > unusedMax);
        if (unused < 0) return undefined;
        this.#groups.splice(unused, 1);
      }
      groups = new Groups(shape);
      this.#groups.push(groups);
    }
    groups.usedAt = this.#uses;
    return groups;
  }
}
