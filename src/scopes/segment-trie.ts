import type { Pattern } from './patterns.ts';

interface Node<T> {
  literals: Map<string, Node<T>> | undefined;
  one: Node<T> | undefined;
  /** Values of patterns that end here. */
  here: T | Set<T> | undefined;
  /** Values of patterns that go on with a last `**`. */
  rest: T | Set<T> | undefined;
}

const makeNode = <T>(): Node<T> => ({
  literals: undefined,
  one: undefined,
  here: undefined,
  rest: undefined,
});

const isEmpty = <T>(node: Node<T>): boolean =>
  node.literals === undefined && node.one === undefined && node.here === undefined && node.rest === undefined;

/** A lone value, which is the usual case, has no set around it: that would be 150 bytes. */
const added = <T>(values: T | Set<T> | undefined, value: T): T | Set<T> => {
  if (values === undefined) return value;
  return values instanceof Set ? values.add(value) : new Set([values, value]);
};

const has = <T>(values: T | Set<T> | undefined, value: T): boolean =>
  values instanceof Set ? values.has(value) : values === value;

const removed = <T>(values: T | Set<T> | undefined, value: T): T | Set<T> | undefined => {
  if (!(values instanceof Set)) return undefined;
  values.delete(value);
  if (values.size > 1) return values;
  const [lone] = values;
  return lone;
};

const visitAll = <T>(values: T | Set<T>, visit: (value: T) => void): void => {
  if (values instanceof Set) for (const value of values) visit(value);
  else visit(values);
};

/**
 * Finds which of many patterns match a key, in time that depends on the key's segments and on the patterns that
 * match its beginning, not on all patterns. A (pattern, value) pair is there at most once. Patterns have no variables.
 * A value is anything but a set and undefined.
 */
export class SegmentTrie<T> {
  #root: Node<T> = makeNode();
  #size = 0;

  /** The number of (pattern, value) pairs. */
  get size(): number {
    return this.#size;
  }

  /** False: the pair was there already. */
  add(pattern: Pattern, value: T): boolean {
    let node = this.#root;
    for (const segment of pattern.segments) {
      switch (segment.kind) {
        case 'literal': {
          node.literals ??= new Map();
          let next = node.literals.get(segment.text);
          if (next === undefined) {
            next = makeNode();
            node.literals.set(segment.text, next);
          }
          node = next;
          break;
        }
        case 'one':
          node.one ??= makeNode();
          node = node.one;
          break;
        case 'rest':
          if (has(node.rest, value)) return false;
          node.rest = added(node.rest, value);
          this.#size += 1;
          return true;
        case 'variable':
          throw new Error(
            `The pattern ${pattern.text} has an unbound variable: bind it before adding it to a trie`,
          );
      }
    }
    if (has(node.here, value)) return false;
    node.here = added(node.here, value);
    this.#size += 1;
    return true;
  }

  /** False: there was no such pair. Leaves no empty nodes behind. */
  remove(pattern: Pattern, value: T): boolean {
    if (!this.#remove(this.#root, pattern, 0, value)) return false;
    this.#size -= 1;
    return true;
  }

  #remove(node: Node<T>, pattern: Pattern, index: number, value: T): boolean {
    const segment = pattern.segments[index];
    if (segment === undefined) {
      if (!has(node.here, value)) return false;
      node.here = removed(node.here, value);
      return true;
    }
    switch (segment.kind) {
      case 'literal': {
        const next = node.literals?.get(segment.text);
        if (next === undefined || !this.#remove(next, pattern, index + 1, value)) return false;
        if (isEmpty(next)) node.literals?.delete(segment.text);
        if (node.literals?.size === 0) node.literals = undefined;
        return true;
      }
      case 'one': {
        if (node.one === undefined || !this.#remove(node.one, pattern, index + 1, value)) return false;
        if (isEmpty(node.one)) node.one = undefined;
        return true;
      }
      case 'rest': {
        if (!has(node.rest, value)) return false;
        node.rest = removed(node.rest, value);
        return true;
      }
      case 'variable':
        return false;
      default:
        return segment satisfies never;
    }
  }

  /**
   * Calls `visit` for every pair whose pattern matches the key, which must be valid; a value that was added under
   * several matching patterns is visited for each. `visit` must not change the trie.
   */
  match(key: string, visit: (value: T) => void): void {
    this.#match(this.#root, key, 0, visit);
  }

  #match(node: Node<T>, key: string, at: number, visit: (value: T) => void): void {
    if (at > key.length) {
      if (node.here !== undefined) visitAll(node.here, visit);
      return;
    }
    if (node.rest !== undefined) visitAll(node.rest, visit);
    if (node.literals === undefined && node.one === undefined) return;
    const slashAt = key.indexOf('/', at);
    const end = slashAt < 0 ? key.length : slashAt;
    const next = node.literals?.get(key.slice(at, end));
    if (next !== undefined) this.#match(next, key, end + 1, visit);
    if (node.one !== undefined) this.#match(node.one, key, end + 1, visit);
  }
}
