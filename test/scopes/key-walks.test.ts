import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  groupOfPattern,
  isOneRun,
  KeyShape,
  matches,
  parsePattern,
  skipFrom,
  type Pattern,
} from '../../src/scopes/index.ts';

const patternOf = (text: string): Pattern => {
  const parsed = parsePattern(text);
  if (!parsed.ok) throw new Error(`${text} ${parsed.problem}`);
  return parsed.pattern;
};

// '-' and '.' come before '/', '0' and 'a' behind it: so 'a-b/c' is before 'a/c'.
const segment = fc.constantFrom('a', 'a-', 'a-b', 'a.', 'a0', 'b', '0', '-', 'out');
const key = fc.array(segment, { minLength: 1, maxLength: 5 }).map((segments) => segments.join('/'));
const patternText = fc
  .tuple(
    fc.array(fc.oneof(segment, fc.constant('*')), { maxLength: 4 }),
    fc.oneof(segment, fc.constantFrom('*', '**')),
  )
  .map(([head, last]) => [...head, last].join('/'));

const inOrder = (keys: readonly string[]): string[] => [...new Set(keys)].sort((a, b) => (a < b ? -1 : 1));

test('a walk that skips finds what matches, in order, as one that looks at every key', () => {
  fc.assert(
    fc.property(patternText, fc.array(key, { maxLength: 60 }), (text, keys) => {
      const pattern = patternOf(text);
      const ordered = inOrder(keys);
      const found: string[] = [];
      let from: string | undefined = pattern.literalPrefix;
      for (const each of ordered) {
        if (each < from) continue;
        if (matches(pattern, each)) {
          found.push(each);
          continue;
        }
        from = skipFrom(pattern, each);
        if (from === undefined) break;
        expect(from >= each).toBe(true);
      }
      expect(found).toEqual(ordered.filter((each) => matches(pattern, each)));
    }),
    { numRuns: 3000 },
  );
});

describe('a walk', () => {
  const looked = (text: string, keys: readonly string[]): string[] => {
    const pattern = patternOf(text);
    const seen: string[] = [];
    let from: string | undefined = pattern.literalPrefix;
    for (const each of inOrder(keys)) {
      if (from === undefined || each < from) continue;
      seen.push(each);
      from = matches(pattern, each) ? each : skipFrom(pattern, each);
    }
    return seen;
  };

  test('looks once or twice at what is below a place, however much it is', () => {
    const below = (place: string): string[] =>
      Array.from({ length: 1000 }, (_, number) => `n/${place}/private/${number}`);
    expect(looked('n/*/out', [...below('a'), ...below('b'), 'n/b/out'])).toEqual([
      'n/a/private/0',
      'n/b/out',
      'n/b/private/0',
    ]);
    expect(looked('n/*/zone', [...below('a'), 'n/a/zone'])).toEqual(['n/a/private/0', 'n/a/zone']);
    expect(looked('n/*', [...below('a'), 'n/b'])).toEqual(['n/a/private/0', 'n/b']);
  });

  test('ends where nothing can match any more', () => {
    expect(skipFrom(patternOf('n/*/out'), 'o/a/out')).toBeUndefined();
    expect(skipFrom(patternOf('n/a'), 'n/a/b')).toBeUndefined();
  });
});

test('a group is what a pattern of its shape matches', () => {
  fc.assert(
    fc.property(patternText, key, (text, each) => {
      const pattern = patternOf(text);
      expect(new KeyShape(pattern).groupOf(each) === groupOfPattern(pattern)).toBe(matches(pattern, each));
      expect(isOneRun(pattern)).toBe(!text.split('/').includes('*'));
    }),
    { numRuns: 3000 },
  );
});
