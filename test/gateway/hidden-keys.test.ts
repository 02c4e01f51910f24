/** What is read by pattern takes the work that the reader's own keys take, whatever else there is. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { listWithin, subscribeWithin } from '../../src/gateway/allowances.ts';
import {
  compilePolicies,
  KeyShape,
  matches,
  parsePattern,
  type Pattern,
  type RuleDocument,
  type Scope,
} from '../../src/scopes/index.ts';
import type { ListPage } from '../../src/store/index.ts';
import { ClusterOfOne, op } from '../store/support/cluster-of-one.ts';

const patternOf = (text: string): Pattern => {
  const parsed = parsePattern(text);
  if (!parsed.ok) throw new Error(`${text} ${parsed.problem}`);
  return parsed.pattern;
};

const scopeOf = (rules: readonly RuleDocument[]): Scope =>
  compilePolicies({
    realms: { puppet: { tls: { issuer: 'PEM', identity: 'cn' }, vars: { node: 'cn' } } },
    policies: { agent: rules },
    bindings: [{ policies: ['agent'] }],
  }).scopeFor({ realm: 'puppet', name: 'web1' });

interface Read {
  readonly keys: readonly string[];
  readonly looked: number;
}

/** Page by page, as the server does it: it goes on by itself where nothing was found yet. */
const listed = (cluster: ClusterOfOne, scope: Scope, text: string, limit = 1000): readonly Read[] => {
  const { within } = listWithin(text, scope);
  const pages: Read[] = [];
  let after = '';
  for (;;) {
    let looked = 0;
    let page: ListPage | undefined;
    let from = after;
    do {
      page = cluster.store.list({
        pattern: patternOf(text),
        within: within === undefined ? undefined : patternOf(within),
        after: from,
        limit,
        bytesMax: 1e6,
        values: true,
        nowMs: cluster.nowMs,
      });
      looked += page.looked;
      from = page.readOnAfter ?? '';
    } while (page.readOnAfter !== undefined);
    pages.push({ keys: page.futures.map(({ key }) => key), looked });
    if (page.next === undefined) return pages;
    after = page.next;
  }
};

/** The present state, as a subscription's slices read it. */
const followed = (cluster: ClusterOfOne, scope: Scope, text: string): readonly Read[] => {
  const { within } = subscribeWithin([text], scope);
  const { store } = cluster;
  const pages: Read[] = [];
  let revision = 0;
  let manyKeys = false;
  while (revision < store.revision) {
    const page = store.changesAfter({
      revision,
      patterns: [patternOf(text)],
      within: within?.map((each) => (each === '' ? undefined : patternOf(each))),
      manyKeys,
      limit: 256,
      bytesMax: 1e6,
      visitMax: 1024,
    });
    pages.push({ keys: page.changes.map(({ kind, key }) => `${kind} ${key}`), looked: page.looked });
    ({ upTo: revision, manyKeys } = page);
  }
  return pages;
};

const write = (cluster: ClusterOfOne, keys: readonly string[]): void => {
  for (let at = 0; at < keys.length; at += 256)
    cluster.write(keys.slice(at, at + 256).map((key) => op.resolve(key, 'v', { supersede: true })));
};

/** A subscriber so far behind that its few keys are collected, whatever has changed elsewhere. */
const grow = (cluster: ClusterOfOne): void => {
  for (let times = 0; times < 600; times += 1)
    cluster.write(op.resolve('shared/clock', `${times}`, { supersede: true }));
};

const many = 100_000;
const everyNode = (tail: string): string[] =>
  Array.from({ length: many }, (_, number) => `nodes/n${number}/${tail}`);

describe('with 100,000 keys that the reader may not see', () => {
  const all = ['list', 'subscribe'] as const;
  const cases: readonly { what: string; rules: readonly RuleDocument[]; on: string; own: string[] }[] = [
    {
      what: 'below a prefix of its own, which begins like others',
      rules: [{ allow: all, on: 'nodes/${node}/**' }],
      on: 'nodes/web1/**',
      own: ['nodes/web1/a', 'nodes/web1/b/c'],
    },
    {
      what: 'one key for each node',
      rules: [{ allow: all, on: 'nodes/*/out' }],
      on: 'nodes/*/out',
      own: ['nodes/n7/out', 'nodes/web1/out'],
    },
    {
      what: 'the keys right below a place',
      rules: [{ allow: all, on: 'nodes/*' }],
      on: 'nodes/*',
      own: ['nodes/n7', 'nodes/web1'],
    },
    {
      what: 'a part of what is allowed for each node',
      rules: [{ allow: all, on: 'nodes/*/out/**' }],
      on: 'nodes/*/out/a/*',
      own: ['nodes/n7/out/a/1', 'nodes/n7/out/b', 'nodes/web1/out/a/2'],
    },
    {
      what: 'its own name behind a wildcard',
      rules: [{ allow: all, on: '*/*/${node}/**' }],
      on: '*/*/web1/x',
      own: ['nodes/n7/web1/x', 'nodes/n9/web1/y'],
    },
    {
      what: 'what a deny leaves of each node',
      rules: [
        { allow: all, on: 'nodes/**' },
        { deny: ['*'], on: 'nodes/*/private/**' },
      ],
      on: 'nodes/*/out',
      own: ['nodes/n7/out', 'nodes/web1/out'],
    },
  ];
  test('as many keys are looked at as without them, whatever the policies leave', { timeout: 60_000 }, () => {
    const cluster = new ClusterOfOne();
    write(cluster, [...new Set(cases.flatMap(({ own }) => own))]);
    grow(cluster);
    const scopes = cases.map(({ rules }) => scopeOf(rules));
    const read = () =>
      cases.map(({ what, on }, index) => {
        const scope = scopes[index] ?? scopeOf([]);
        for (const verb of all) expect(scope.allowsPattern(verb, on)).toBe(true);
        const pages = [listed(cluster, scope, on, 1), listed(cluster, scope, on)];
        return { what, pages, followed: followed(cluster, scope, on) };
      });
    const before = read();
    for (const { pages } of before) expect(pages[1]?.[0]?.keys.length).toBeGreaterThan(0);
    const hidden = everyNode('private/x');
    for (const scope of scopes) expect(hidden.some((key) => scope.allows('list', key))).toBe(false);
    write(cluster, hidden);
    expect(read()).toEqual(before);
    // Half of them deleted, which is remembered.
    for (let at = 0; at < many / 2; at += 250)
      cluster.write(hidden.slice(at, at + 250).map((key) => op.delete(key)));
    expect(read()).toEqual(before);
  });
});

describe('by any policies', () => {
  const segment = fc.constantFrom('a', 'a-b', 'web1', 'x');
  const keys = fc.array(
    fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join('/')),
    { maxLength: 80 },
  );
  const patternText = (variables: boolean) =>
    fc
      .tuple(
        fc.array(fc.constantFrom('a', 'a-b', 'web1', '*', '*', ...(variables ? ['${node}'] : [])), {
          maxLength: 3,
        }),
        fc.constantFrom('a', 'x', '*', '**'),
      )
      .map(([head, last]) => [...head, last].join('/'));
  const rule = fc.record({ on: patternText(true), allow: fc.boolean() });
  const drawn = fc
    .record({
      rules: fc.array(rule, { minLength: 1, maxLength: 4 }),
      asked: fc.array(patternText(false), { minLength: 10, maxLength: 20 }),
    })
    .map(({ rules, asked }) => ({
      scope: scopeOf(
        rules.map(({ on, allow }) =>
          allow ? { allow: ['list', 'subscribe'], on } : { deny: ['list', 'subscribe'], on },
        ),
      ),
      // Of the allows themselves, too: what is drawn by itself is refused mostly.
      asked: [...asked, ...rules.map(({ on }) => on.replaceAll('${node}', 'web1'))],
    }));

  /** No more shapes than a store keeps groups of. */
  const ofFewShapes = (scope: Scope, texts: readonly string[], verb: 'list' | 'subscribe'): string[] => {
    const shapes = new Set<string>();
    return texts.filter((text) => {
      if (!scope.allowsPattern(verb, text)) return false;
      const { within } =
        verb === 'list' ? listWithin(text, scope) : { within: subscribeWithin([text], scope).within?.[0] };
      if (within === undefined) return true;
      const { id } = new KeyShape(patternOf(within));
      return shapes.size < 8 ? shapes.add(id) : shapes.has(id);
    });
  };

  test('a list shows what matches, and neither its pages nor their work tell of other keys', () => {
    let allowed = 0;
    fc.assert(
      fc.property(drawn, keys, fc.integer({ min: 1, max: 3 }), ({ scope, asked }, drawnKeys, limit) => {
        const everything = [...new Set(drawnKeys)].sort((a, b) => (a < b ? -1 : 1));
        const visible = everything.filter((key) => scope.allows('list', key));
        const [full, bare] = [new ClusterOfOne(), new ClusterOfOne()];
        write(full, everything);
        write(bare, visible);
        for (const text of ofFewShapes(scope, asked, 'list')) {
          allowed += 1;
          const pages = listed(full, scope, text, limit);
          expect(pages.flatMap((page) => page.keys)).toEqual(
            everything.filter((key) => matches(patternOf(text), key)),
          );
          expect([text, pages]).toEqual([text, listed(bare, scope, text, limit)]);
        }
      }),
      { numRuns: 300 },
    );
    expect(allowed).toBeGreaterThan(500);
  });

  test('so does a subscription that begins, if its keys are few', () => {
    fc.assert(
      fc.property(drawn, keys, ({ scope, asked }, drawnKeys) => {
        const everything = [...new Set(drawnKeys)];
        const visible = everything.filter((key) => scope.allows('subscribe', key));
        const [full, bare] = [new ClusterOfOne(), new ClusterOfOne()];
        write(full, everything);
        write(bare, visible);
        for (const cluster of [full, bare]) grow(cluster);
        for (const text of ofFewShapes(scope, asked, 'subscribe')) {
          if (matches(patternOf(text), 'shared/clock')) continue;
          expect([text, followed(full, scope, text)]).toEqual([text, followed(bare, scope, text)]);
        }
      }),
      { numRuns: 25 },
    );
  });
});
