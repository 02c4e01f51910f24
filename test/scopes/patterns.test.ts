import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bindVariables,
  contains,
  exactPattern,
  isSegment,
  keyProblem,
  matches,
  overlaps,
  parsePattern,
  SegmentTrie,
  widenVariables,
} from '../../src/scopes/index.ts';
import type { Pattern } from '../../src/scopes/index.ts';

function parsed(text: string, variables = false): Pattern {
  const result = parsePattern(text, { variables });
  if (!result.ok) throw new Error(`${text} ${result.problem}`);
  return result.pattern;
}

/** All keys of up to five segments, one more than the patterns have; `z` is in no pattern, so it stands for every other text. */
const smallKeys = smallSpace(5);

function smallSpace(depth: number): string[] {
  if (depth === 0) return [];
  const shorter = smallSpace(depth - 1);
  return ['a', 'b', 'z'].flatMap((head) => [head, ...shorter.map((tail) => `${head}/${tail}`)]);
}

const smallPattern: fc.Arbitrary<Pattern> = fc
  .tuple(fc.array(fc.constantFrom('a', 'b', '*'), { maxLength: 3 }), fc.constantFrom('a', '*', '**'))
  .map(([segments, last]) => parsed([...segments, last].join('/')));

/** The definition, as plainly as it can be written. */
function naiveMatches(pattern: Pattern, key: string): boolean {
  const expression = pattern.text
    .split('/')
    .map((segment) => (segment === '**' ? '[^/]+(/[^/]+)*' : segment === '*' ? '[^/]+' : segment))
    .join('/');
  return new RegExp(`^${expression}$`).test(key);
}

describe('keys', () => {
  test.each([
    'a',
    'nodes/web1.example.com/ssh-key',
    'A/b_c~d@e:f=g-h',
    '...',
    'a/.b/..c',
    Array(16).fill('x').join('/'),
    'x'.repeat(128),
  ])('%s is a key', (key) => {
    expect(keyProblem(key)).toBeUndefined();
  });

  test.each([
    ['', /is empty/],
    ['/', /empty segment/],
    ['/a', /empty segment/],
    ['a/', /empty segment/],
    ['a//b', /empty segment/],
    ['.', /'\.' or '\.\.'/],
    ['a/../b', /'\.' or '\.\.'/],
    ['a/.', /'\.' or '\.\.'/],
    ['a b', /U\+0020/],
    ['a*', /'\*'/],
    ['a\u0000', /U\+0000/],
    ['ä', /U\+00E4/],
    ['а', /U\+0430/],
    ['a/\u{1F600}', /U\+1F600/],
    ['${node}', /'\$'/],
    [Array(17).fill('x').join('/'), /17 segments/],
    ['x'.repeat(129), /longer than 128/],
    [`${'x'.repeat(127)}/`.repeat(5), /longer than 512/],
  ])('%j is no key, and it is said why', (key, problem) => {
    expect(keyProblem(key)).toMatch(problem);
  });

  test('a text is a key exactly if it follows the grammar', () => {
    const grammar = /^(?!.*(^|\/)\.{1,2}(\/|$))[A-Za-z0-9._~@:=-]{1,128}(\/[A-Za-z0-9._~@:=-]{1,128}){0,15}$/;
    const text = fc.string({ unit: fc.constantFrom('a', '.', '/', 'Z', '9', '*', 'ä', ' '), maxLength: 12 });
    fc.assert(
      fc.property(text, (key) => {
        expect(keyProblem(key) === undefined).toBe(grammar.test(key));
        expect(isSegment(key)).toBe(grammar.test(key) && !key.includes('/'));
      }),
      { numRuns: 2000 },
    );
  });
});

describe('patterns', () => {
  test.each([
    '**/a',
    'a/**/b',
    'a*',
    'a/b*',
    '***',
    'a//b',
    '/a',
    'a/',
    '',
    '.',
    'a/${x}',
    'a/${',
    'a b',
    Array(17).fill('*').join('/'),
  ])('%j is no pattern', (text) => {
    expect(parsePattern(text)).toMatchObject({ ok: false });
  });

  test.each(['a/x${node}', 'a/${node}x', '${}', '${Node}', '${a-b}', '${a}${b}', '${__proto__}'])(
    '%j has no proper variable',
    (text) => {
      expect(parsePattern(text, { variables: true })).toMatchObject({ ok: false });
    },
  );

  test.each([
    ['a/b', 'a/b', true],
    ['a/b/**', 'a/b/', false],
    ['a/*/c', 'a/', false],
    ['*', '', false],
    ['**', '', false],
  ])('%s has the literal prefix %j', (text, literalPrefix, exact) => {
    expect(parsed(text)).toMatchObject({ text, literalPrefix, exact });
  });

  test('a pattern matches what its definition says', () => {
    fc.assert(
      fc.property(smallPattern, (pattern) => {
        for (const key of smallKeys) {
          expect(matches(pattern, key)).toBe(naiveMatches(pattern, key));
          if (matches(pattern, key)) expect(key.startsWith(pattern.literalPrefix)).toBe(true);
        }
      }),
    );
  });

  test('one pattern contains another exactly if it matches all of its keys', () => {
    fc.assert(
      fc.property(smallPattern, smallPattern, (outer, inner) => {
        const all = smallKeys
          .filter((key) => naiveMatches(inner, key))
          .every((key) => naiveMatches(outer, key));
        expect(contains(outer, inner)).toBe(all);
      }),
      { numRuns: 1000 },
    );
  });

  test('two patterns overlap exactly if they have a key in common', () => {
    fc.assert(
      fc.property(smallPattern, smallPattern, (one, other) => {
        const common = smallKeys.some((key) => naiveMatches(one, key) && naiveMatches(other, key));
        expect(overlaps(one, other)).toBe(common);
        expect(overlaps(other, one)).toBe(common);
      }),
      { numRuns: 1000 },
    );
  });

  test("a '**' in the sixteenth place is a '*'", () => {
    const head = Array(15).fill('a').join('/');
    expect(contains(parsed(`${head}/*`), parsed(`${head}/**`))).toBe(true);
  });

  test('pitfall 48: a prefix ends at a segment', () => {
    expect(matches(parsed('nodes/web1/**'), 'nodes/web10/key')).toBe(false);
    expect(matches(parsed('nodes/web1/**'), 'nodes/web1/key')).toBe(true);
    expect(matches(parsed('nodes/web1/**'), 'nodes/web1')).toBe(false);
  });

  test('case counts', () => {
    expect(matches(parsed('nodes/Web1/*'), 'nodes/web1/a')).toBe(false);
  });

  test('matching, containing and overlapping refuse an unbound variable', () => {
    const open = parsed('a/${node}', true);
    expect(() => matches(open, 'a/b')).toThrow(/unbound/);
    expect(() => contains(open, parsed('a/b'))).toThrow(/unbound/);
    expect(() => overlaps(parsed('a/b'), open)).toThrow(/unbound/);
    expect(() => new SegmentTrie<number>().add(open, 1)).toThrow(/unbound/);
  });
});

describe('variables', () => {
  const open = parsed('nodes/${node}/**', true);

  test.each(['', '.', '..', '*', '**', 'a/b', '${node}', 'a b', 'ä', 'a*', 'x'.repeat(129)])(
    'pitfall 50: the value %j binds nothing',
    (value) => {
      expect(bindVariables(open, { node: value })).toBeUndefined();
    },
  );

  test('a variable without a value binds nothing, whatever objects inherit', () => {
    expect(bindVariables(open, {})).toBeUndefined();
    expect(bindVariables(parsed('${constructor}', true), {})).toBeUndefined();
  });

  test('a value becomes one literal segment, and the bound pattern is never wider than the open one', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', '*', '/', '.', '$', '{', '}', 'b'), maxLength: 5 }),
        (value) => {
          const bound = bindVariables(open, { node: value });
          if (!isSegment(value)) {
            expect(bound).toBeUndefined();
            return;
          }
          expect(bound?.segments[1]).toEqual({ kind: 'literal', text: value });
          if (bound === undefined) throw new Error('unreachable');
          expect(contains(widenVariables(open), bound)).toBe(true);
          expect(matches(bound, `nodes/${value}x/k`)).toBe(false);
          expect(matches(bound, `nodes/${value}/k`)).toBe(true);
        },
      ),
    );
  });
});

describe('the trie of segments', () => {
  const fewPatterns = ['a', 'a/b', 'a/b/a', 'a/*', 'a/**', '*', '*/b', '*/b/**', '**', 'b/a'].map((text) =>
    parsed(text),
  );
  const operation = fc.tuple(fc.boolean(), fc.constantFrom(...fewPatterns), fc.integer({ min: 0, max: 1 }));
  const fewKeys = ['a', 'b', 'a/b', 'b/a', 'a/b/a', 'b/b/a', 'a/z', 'z/b/z/z', 'z'];

  test('finds exactly the pairs whose pattern matches, whatever was added and removed before', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 30 }), fc.constantFrom(...fewKeys), (operations, key) => {
        const trie = new SegmentTrie<number>();
        const model = new Map<string, { pattern: Pattern; value: number }>();
        for (const [add, pattern, value] of operations) {
          const name = `${pattern.text} ${value}`;
          expect(add ? trie.add(pattern, value) : trie.remove(pattern, value)).toBe(add !== model.has(name));
          if (add) model.set(name, { pattern, value });
          else model.delete(name);
        }
        const found: number[] = [];
        trie.match(key, (value) => found.push(value));
        const expected = [...model.values()].filter(({ pattern }) => naiveMatches(pattern, key));
        expect(found.toSorted((a, b) => a - b)).toEqual(
          expected.map(({ value }) => value).toSorted((a, b) => a - b),
        );
        expect(trie.size).toBe(model.size);
      }),
      { numRuns: 500 },
    );
  });

  test('an exact pattern finds its key', () => {
    const trie = new SegmentTrie<string>();
    trie.add(exactPattern('a/b'), 'x');
    const found: string[] = [];
    trie.match('a/b', (value) => found.push(value));
    trie.match('a/bb', (value) => found.push(value));
    expect(found).toEqual(['x']);
  });
});
