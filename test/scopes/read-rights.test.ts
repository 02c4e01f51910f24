/** Whether less may be read, against the definition: what was allowed and is not. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compilePolicies, readsLess, type RuleDocument, type Scope } from '../../src/scopes/index.ts';

const scopeOf = (rules: readonly RuleDocument[], variables: Readonly<Record<string, string>> = {}): Scope =>
  compilePolicies({
    realms: {
      agents: { tls: { issuer: 'ca.pem', identity: 'cn' }, vars: { node: 'cn', role: 'extension:pp_role' } },
    },
    policies: { some: rules },
    bindings: [{ realm: 'agents', policies: ['some'] }],
  }).scopeFor({ realm: 'agents', name: 'a', variables });

const verbs = ['get', 'await', 'list', 'subscribe'] as const;
const segment = fc.constantFrom('a', 'b', '*', '${node}', '${role}');
const on = fc
  .tuple(fc.array(segment, { maxLength: 2 }), fc.oneof(segment, fc.constant('**')))
  .map(([head, last]) => [...head, last].join('/'));
const named = fc.uniqueArray(fc.constantFrom(...verbs, 'resolve', '*'), { minLength: 1, maxLength: 2 });
const rule: fc.Arbitrary<RuleDocument> = fc.oneof(
  fc.record({ allow: named, on }),
  fc.record({ deny: named, on }),
  fc.record({ allow: fc.constantFrom(['cluster.status'], ['acl.get'], ['snapshot.save'], ['member.list']) }),
);
const rules = fc.array(rule, { maxLength: 5 });
const variables = fc.constantFrom({}, { role: 'a' }, { role: 'b' });

const texts = ['a', 'b', 'z', '*', '**'].flatMap((last) => [
  last,
  ...['a', 'b', 'z', '*'].map((head) => `${head}/${last}`),
]);
const keys = texts.filter((text) => !text.includes('*'));

/** Something that the one allows and the other does not. */
const lost = (before: Scope, now: Scope): boolean =>
  (['cluster.status', 'acl.get', 'snapshot.save', 'member.list'] as const).some(
    (verb) => before.allows(verb, '') && !now.allows(verb, ''),
  ) ||
  verbs.some(
    (verb) =>
      keys.some((key) => before.allows(verb, key) && !now.allows(verb, key)) ||
      texts.some((text) => before.allowsPattern(verb, text) && !now.allowsPattern(verb, text)),
  );

describe('whether less may be read', () => {
  test('is told wherever a key or a pattern was allowed and is not', () => {
    fc.assert(
      fc.property(rules, variables, rules, variables, (old, oldValues, next, nextValues) => {
        const before = scopeOf(old, oldValues);
        const now = scopeOf(next, nextValues);
        if (lost(before, now)) expect(readsLess(before, now)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  test('is not said of the same rules, of more allows, of fewer denies and of other writes', () => {
    fc.assert(
      fc.property(rules, rules, variables, (old, more, values) => {
        const kept = old.filter(({ deny }, index) => deny === undefined || index % 2 === 0);
        const added = more.map((one) => (one.deny === undefined ? one : { ...one, deny: ['resolve'] }));
        expect(readsLess(scopeOf(old, values), scopeOf([...added, ...kept], values))).toBe(false);
      }),
    );
  });

  test('is not said of a deny beside what was allowed, or of what was denied already', () => {
    const before = scopeOf([
      { allow: ['get'], on: ['a/**', 'b/c'] },
      { deny: ['get'], on: 'b/**' },
    ]);
    const now = scopeOf([
      { allow: ['get'], on: '**' },
      { deny: ['get'], on: ['b/**', 'z/**'] },
    ]);
    expect(readsLess(before, now)).toBe(false);
    expect(readsLess(now, before)).toBe(true);
  });
});
