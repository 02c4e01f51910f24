import type { Pattern } from './patterns.ts';

interface Node<T> {
  literals: Map<string, Node<T>> | undefined;
  one: Node<T> | undefined;
  /** Values of patterns that end here. */
  here: Set<T> | undefined;
  /** Values of patterns that go on with a last `**`. */
  rest: Set<T> | undefined;
}

const makeNode = <T>(): Node<T> => ({
  literals: undefined,
  one: undefined,
  here: undefined,
  rest: undefined,
});

const isEmpty = <T>(node: Node<T>): boolean =>
  node.literals === undefined && node.one === undefined && node.here === undefined && node.rest === undefined;

/**
 * Finds which of many patterns match a key, in time that depends on the key's segments and on the patterns that
 * match its beginning, not on all patterns. A (pattern, value) pair is there at most once. Patterns have no variables.
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
          node.rest ??= new Set();
          return this.#insert(node.rest, value);
        case 'variable':
          throw new Error(
            `The pattern ${pattern.text} has an unbound variable: bind it before adding it to a trie`,
          );
      }
    }
    node.here ??= new Set();
    return this.#insert(node.here, value);
  }

  #insert(values: Set<T>, value: T): boolean {
    if (values.has(value)) return false;
    values.add(value);
    this.#size += 1;
    return true;
  }

  /** False: there was no such pair. Leaves no empty nodes behind. */
  remove(pattern: Pattern, value: T): boolean {
    const removed = this.#remove(this.#root, pattern, 0, value);
    if (removed) this.#size -= 1;
    return removed;
  }

  #remove(node: Node<T>, pattern: Pattern, index: number, value: T): boolean {
    const segment = pattern.segments[index];
    if (segment === undefined) {
      const removed = node.here?.delete(value) ?? false;
      if (node.here?.size === 0) node.here = undefined;
      return removed;
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
        const removed = node.rest?.delete(value) ?? false;
        if (node.rest?.size === 0) node.rest = undefined;
        return removed;
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
      if (node.here !== undefined) for (const value of node.here) visit(value);
      return;
    }
    if (node.rest !== undefined) for (const value of node.rest) visit(value);
    if (node.literals === undefined && node.one === undefined) return;
    const slashAt = key.indexOf('/', at);
    const end = slashAt < 0 ? key.length : slashAt;
    const next = node.literals?.get(key.slice(at, end));
    if (next !== undefined) this.#match(next, key, end + 1, visit);
    if (node.one !== undefined) this.#match(node.one, key, end + 1, visit);
  }
}
