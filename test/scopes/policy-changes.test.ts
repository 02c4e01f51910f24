import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  canonicalJson,
  policyChanges,
  type PolicyDocument,
  type RuleDocument,
} from '../../src/scopes/index.ts';

const before: PolicyDocument = {
  realms: { puppet: { tls: { issuer: 'PEM', identity: 'cn' } }, old: {} },
  policies: {
    agent: [
      { allow: ['get', 'list'], on: ['a/**', 'b/**'] },
      { deny: ['get'], on: 'a/secret' },
    ],
    gone: [{ allow: ['get'], on: '**' }],
  },
  bindings: [{ realm: 'puppet', policies: ['agent', 'gone'] }, { policies: ['agent'] }],
};

describe('the changes between two documents', () => {
  test('are told by realm, by rule and by binding, with their places', () => {
    const after: PolicyDocument = {
      realms: { puppet: { tls: { issuer: 'OTHER', identity: 'cn' } }, fresh: {} },
      policies: {
        agent: [
          { deny: ['get'], on: 'a/secret' },
          { allow: ['get'], on: ['a/**', 'b/**'] },
        ],
        fresh: [],
      },
      bindings: [{ policies: ['agent'] }, { realm: 'fresh', policies: ['fresh'] }],
    };
    expect(policyChanges(before, after)).toEqual([
      { kind: 'removed', place: 'realms.old', before: {} },
      {
        kind: 'changed',
        place: 'realms.puppet',
        before: before.realms['puppet'],
        after: after.realms['puppet'],
      },
      { kind: 'added', place: 'realms.fresh', after: {} },
      { kind: 'removed', place: 'policies.gone', before: before.policies['gone'] },
      {
        kind: 'removed',
        place: 'policies.agent[0]',
        before: { allow: ['get', 'list'], on: ['a/**', 'b/**'] },
      },
      { kind: 'added', place: 'policies.agent[1]', after: { allow: ['get'], on: ['a/**', 'b/**'] } },
      { kind: 'added', place: 'policies.fresh', after: [] },
      { kind: 'removed', place: 'bindings[0]', before: { realm: 'puppet', policies: ['agent', 'gone'] } },
      { kind: 'added', place: 'bindings[1]', after: { realm: 'fresh', policies: ['fresh'] } },
    ]);
  });

  test('are none where only what decides nothing is different', () => {
    const same: PolicyDocument = {
      bindings: [{ policies: ['agent', 'agent'] }, { policies: ['gone', 'agent'], realm: 'puppet' }],
      policies: {
        gone: [{ on: ['**'], allow: ['get'] }],
        agent: [
          { deny: ['get'], on: ['a/secret'] },
          { on: ['b/**', 'a/**'], allow: ['list', 'get', 'list'] },
        ],
      },
      realms: { old: {}, puppet: { tls: { identity: 'cn', issuer: 'PEM' } } },
    };
    expect(policyChanges(before, same)).toEqual([]);
  });

  test('lead from the one to the other: applied to the rules before, they give the rules after', () => {
    const rule: fc.Arbitrary<RuleDocument> = fc.constantFrom(
      { allow: ['get'], on: 'a' },
      { deny: ['get'], on: 'a' },
      { allow: ['list'], on: 'a' },
    );
    const rules = fc.array(rule, { maxLength: 6 });
    const asDocument = (agent: readonly RuleDocument[]): PolicyDocument => ({
      realms: {},
      policies: { agent },
      bindings: [],
    });
    const inOrder = (all: readonly unknown[]): string[] => all.map(canonicalJson).toSorted();
    fc.assert(
      fc.property(rules, rules, (old, now) => {
        const changes = policyChanges(asDocument(old), asDocument(now));
        const left = inOrder(old);
        for (const change of changes) {
          if (change.kind === 'removed') left.splice(left.indexOf(canonicalJson(change.before)), 1);
          else left.push(canonicalJson(change.after));
        }
        expect(left.toSorted()).toEqual(inOrder(now));
        const [there, back] = [changes.length, policyChanges(asDocument(now), asDocument(old)).length];
        expect(there).toBe(back);
        expect(policyChanges(asDocument(now), asDocument(now.toReversed()))).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });
});

describe('canonical JSON', () => {
  test('is the same text for the same data, in whatever order they were written', () => {
    const text = canonicalJson({ b: [{ d: 1, c: 'x' }], a: { 10: null, 9: true } });
    expect(canonicalJson({ a: { 9: true, 10: null }, b: [{ c: 'x', d: 1 }] })).toBe(text);
    expect(text).toBe('{"a":{"9":true,"10":null},"b":[{"c":"x","d":1}]}');
  });

  test('reads back as the data, names like __proto__ included', () => {
    fc.assert(
      fc.property(fc.json(), (json) => {
        const data: unknown = JSON.parse(json);
        expect(JSON.stringify(JSON.parse(canonicalJson(data)))).toBe(canonicalJson(data));
        expect(canonicalJson(JSON.parse(canonicalJson(data)))).toBe(canonicalJson(data));
      }),
    );
    expect(canonicalJson(JSON.parse('{"b":1,"__proto__":{"a":2}}'))).toBe('{"__proto__":{"a":2},"b":1}');
  });
});
