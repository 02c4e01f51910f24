/**
 * How a pattern's keys are walked without looking at others: where the order of keys can be skipped, and into which
 * groups keys are parted so that those of a pattern with `*` stand next to each other.
 */
import { segmentAt, type Pattern } from './patterns.ts';

/** Right behind '/': all keys below a place are before the place with it. */
const behindSlash = '0';

/**
 * Where a walk in the order of keys (by their characters) goes on behind a key that the pattern does not match, and
 * that is not below its literal prefix: no key before it matches. The key itself: at the next one. undefined: no key
 * behind it matches.
 */
export function skipFrom(pattern: Pattern, key: string): string | undefined {
  const { segments, literalPrefix } = pattern;
  if (pattern.exact || !key.startsWith(literalPrefix)) return undefined;
  let at = 0;
  for (let index = 0; ; index += 1) {
    const segment = segmentAt(pattern, index);
    // It is longer than what matches: so is all that begins with as many of its segments.
    if (segment === undefined) return behindPlace(key, at, literalPrefix);
    const slashAt = key.indexOf('/', at);
    const end = slashAt < 0 ? key.length : slashAt;
    if (
      segment.kind === 'literal' &&
      !(end - at === segment.text.length && key.startsWith(segment.text, at))
    ) {
      const wanted = key.slice(0, at) + segment.text + (index === segments.length - 1 ? '' : '/');
      return wanted > key ? wanted : behindPlace(key, at, literalPrefix);
    }
    // It is too short; between it and what is below it there may be others: 'a-b/c' is before 'a/c'.
    if (slashAt < 0) return key;
    at = end + 1;
  }
}

/** Behind all keys that begin with the segments before `at`. */
const behindPlace = (key: string, at: number, literalPrefix: string): string | undefined =>
  at <= literalPrefix.length ? undefined : key.slice(0, at - 1) + behindSlash;

/**
 * Which segments a pattern with `*` fixes. Keys that agree in these, and are as long as such a pattern wants, are a
 * group: exactly the keys that one pattern of this shape matches.
 */
export class KeyShape {
  /** The same for all patterns of the shape. */
  readonly id: string;
  readonly #fixed: readonly boolean[];
  /** With a last `**`. */
  readonly #open: boolean;

  constructor(pattern: Pattern) {
    const closed = pattern.segments.filter(({ kind }) => kind !== 'rest');
    this.#fixed = closed.map(({ kind }) => kind === 'literal');
    this.#open = closed.length < pattern.segments.length;
    this.id = this.#fixed.map((fixed) => (fixed ? '=' : '*')).join('') + (this.#open ? '+' : '');
  }

  /** undefined: the key is too long or too short. */
  groupOf(key: string): string | undefined {
    let group = '';
    let at = 0;
    for (const fixed of this.#fixed) {
      if (at > key.length) return undefined;
      const slashAt = key.indexOf('/', at);
      const end = slashAt < 0 ? key.length : slashAt;
      if (fixed) group += `${key.slice(at, end)}/`;
      at = end + 1;
    }
    const goesOn = at <= key.length;
    return goesOn === this.#open ? group : undefined;
  }
}

/** Whether the pattern's keys are one run in the order of keys: it has no `*`. */
export const isOneRun = ({ segments }: Pattern): boolean => segments.every(({ kind }) => kind !== 'one');

/** The group of the keys that the pattern matches, in the parts of its own shape. */
export const groupOfPattern = ({ segments }: Pattern): string =>
  segments.map((segment) => (segment.kind === 'literal' ? `${segment.text}/` : '')).join('');
