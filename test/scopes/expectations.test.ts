import { describe, expect, test } from 'vitest';
import {
  checkExpectations,
  compilePolicies,
  parsePrincipal,
  PolicyError,
  type Expectation,
} from '../../src/scopes/index.ts';

const policies = compilePolicies({
  realms: {
    puppet: { tls: { issuer: 'PEM', identity: 'cn' }, vars: { node: 'cn', role: 'extension:pp_role' } },
    ci: {},
  },
  policies: {
    agent: [
      { allow: ['get', 'list'], on: ['shared/**', 'nodes/${node}/**'] },
      { deny: ['*'], on: 'shared/secret/**' },
    ],
    web: [{ allow: ['get'], on: 'roles/${role}/**' }],
    operator: [{ allow: ['cluster.status'] }],
  },
  bindings: [
    { policies: ['agent'] },
    { realm: 'puppet', policies: ['web'] },
    { realm: 'puppet', principal: 'admin', policies: ['operator'] },
  ],
});

const problemsOf = (expectations: readonly Expectation[]): readonly string[] => {
  try {
    checkExpectations(policies, expectations);
  } catch (error) {
    if (error instanceof PolicyError) return error.problems.map(({ place }) => place);
  }
  return [];
};

describe('expectations of policies', () => {
  test('are met or not, each with the rule that decided', () => {
    const results = checkExpectations(policies, [
      { as: 'puppet:web1', verb: 'get', on: 'nodes/web1/x', expect: 'allow' },
      { as: 'puppet:web1', verb: 'get', on: 'nodes/web2/x', expect: 'allow' },
      { as: 'ci:web1', verb: 'list', on: 'shared/**', expect: 'deny' },
      { as: 'puppet:web1', variables: { role: 'db' }, verb: 'get', on: 'roles/db/x', expect: 'allow' },
      { as: 'puppet:admin', verb: 'cluster.status', expect: 'allow' },
      { as: 'puppet:web1', verb: 'cluster.status', expect: 'deny' },
    ]);
    expect(results.map(({ met, decision }) => [met, decision])).toEqual([
      [
        true,
        { allowed: true, rule: { policy: 'agent', index: 0, effect: 'allow', pattern: 'nodes/${node}/**' } },
      ],
      [false, { allowed: false }],
      [
        true,
        { allowed: false, rule: { policy: 'agent', index: 1, effect: 'deny', pattern: 'shared/secret/**' } },
      ],
      [
        true,
        { allowed: true, rule: { policy: 'web', index: 0, effect: 'allow', pattern: 'roles/${role}/**' } },
      ],
      [true, { allowed: true, rule: { policy: 'operator', index: 0, effect: 'allow', pattern: '' } }],
      [true, { allowed: false }],
    ]);
  });

  test('about what cannot be in the document are errors, each with its place, and no denials', () => {
    const right: Expectation = { as: 'puppet:web1', verb: 'get', on: 'a', expect: 'deny' };
    const { on: _on, ...withoutKey } = right;
    expect(
      problemsOf([
        right,
        { ...right, as: 'web1' },
        { ...right, as: 'pupet:web1' },
        { ...right, as: '__proto__:web1' },
        { ...right, verb: 'gett' },
        { ...right, on: 'a//b' },
        { ...right, verb: 'acl.get' },
        { ...right, variables: { rol: 'db', node: 'web2' } },
        withoutKey,
      ]),
    ).toEqual([
      '[1].as',
      '[2].as',
      '[3].as',
      '[4].verb',
      '[5].on',
      '[6].on',
      '[7].variables.rol',
      '[7].variables.node',
      '[8].on',
    ]);
  });
});

test.each([
  ['puppet:web1', { realm: 'puppet', name: 'web1' }],
  ['ci:repo:main', { realm: 'ci', name: 'repo:main' }],
  ['web1', undefined],
  [':web1', undefined],
  ['puppet:', undefined],
  ['', undefined],
])('%j names the principal %j', (text, expected) => {
  expect(parsePrincipal(text)).toEqual(expected);
});

test('a variable that is the name is given in as, whatever in the certificate the name is', () => {
  const named = compilePolicies({
    realms: { services: { tls: { issuer: 'PEM', identity: 'dns' }, vars: { node: 'dns' } } },
    policies: { agent: [{ allow: ['get'], on: 'nodes/${node}/**' }] },
    bindings: [{ policies: ['agent'] }],
  });
  const given = (variables: Readonly<Record<string, string>>): unknown =>
    checkExpectations(named, [
      { as: 'services:web1.example', variables, verb: 'get', on: 'nodes/db1/x', expect: 'deny' },
    ]);
  expect(() => given({})).not.toThrow();
  expect(() => given({ node: 'web2.example' })).toThrow("is the principal's name: give it in as");
});
