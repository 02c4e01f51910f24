import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bindVariables,
  clusterVerbs,
  compilePolicies,
  keyVerbs,
  matches,
  millisecondsIn,
  parsePattern,
  parseSize,
  parseVariableSource,
  PolicyError,
} from '../../src/scopes/index.ts';
import type { PolicyDocument, RuleDocument, Scope } from '../../src/scopes/index.ts';

const puppet = {
  puppet: { tls: { issuer: 'ca.pem', identity: 'cn' as const }, vars: { node: 'cn' as const } },
};

function scope(rules: readonly RuleDocument[], name = 'web1'): Scope {
  const document: PolicyDocument = {
    realms: puppet,
    policies: { agent: rules },
    bindings: [{ realm: 'puppet', policies: ['agent'] }],
  };
  return compilePolicies(document).scopeFor({ realm: 'puppet', name });
}

const places = (document: PolicyDocument): readonly string[] => {
  try {
    compilePolicies(document);
  } catch (error) {
    if (error instanceof PolicyError) return error.problems.map(({ place }) => place);
  }
  return [];
};

describe('a scope', () => {
  test('allows nothing that no rule allows', () => {
    const empty = scope([]);
    for (const verb of keyVerbs) {
      expect(empty.allows(verb, 'a')).toBe(false);
      expect(empty.allowsPattern(verb, 'a')).toBe(false);
    }
    for (const verb of clusterVerbs) expect(empty.allows(verb, '')).toBe(false);
    expect(empty.valueBytesMax('resolve', 'a')).toBe(0);
  });

  test('binds the principal into its patterns', () => {
    const own = scope([{ allow: ['get'], on: 'nodes/${node}/**' }]);
    expect(own.allows('get', 'nodes/web1/a')).toBe(true);
    expect(own.allows('get', 'nodes/web10/a')).toBe(false);
    expect(own.allows('await', 'nodes/web1/a')).toBe(false);
  });

  test('a deny beats every allow, in whatever order', () => {
    const rules: RuleDocument[] = [
      { allow: ['*'], on: '**' },
      { deny: ['get'], on: 'secret/**' },
    ];
    for (const order of [rules, rules.toReversed()]) {
      expect(scope(order).allows('get', 'secret/a')).toBe(false);
      expect(scope(order).allows('await', 'secret/a')).toBe(true);
      expect(scope(order).allowsPattern('get', '**')).toBe(false);
      expect(scope(order).allowsPattern('get', 'open/**')).toBe(true);
    }
  });

  test.each(['*', '**', '.', '..', '', 'a/b', 'web1/**', 'ä'])(
    'pitfall 50: for the principal %j an allow with a variable does not match, and a deny matches all it could',
    (name) => {
      const strange = scope(
        [
          { allow: ['get'], on: ['nodes/${node}/**', 'open/**', 'nodes/web1/public'] },
          { deny: ['get'], on: 'open/${node}/private' },
        ],
        name,
      );
      expect(strange.allows('get', 'nodes/web1/a')).toBe(false);
      expect(strange.allows('get', 'open/anything/private')).toBe(false);
      expect(strange.allows('get', 'open/anything/public')).toBe(true);
      expect(strange.allowsPattern('get', 'open/**')).toBe(false);
    },
  );

  test('a pattern must be contained in one single allow', () => {
    const two = scope([{ allow: ['list'], on: ['a/*', 'a/*/**'] }]);
    expect(two.allowsPattern('list', 'a/*')).toBe(true);
    expect(two.allowsPattern('list', 'a/**')).toBe(false);
    expect(two.allowsPattern('list', 'no pattern')).toBe(false);
  });

  test("'*' is all verbs of keys and no other", () => {
    const all = scope([{ allow: ['*'], on: '**' }]);
    expect(keyVerbs.every((verb) => all.allows(verb, 'a/b'))).toBe(true);
    for (const verb of clusterVerbs) expect([verb, all.allows(verb, '')]).toEqual([verb, false]);
    expect(scope([{ allow: ['cluster.status'] }]).allows('cluster.status', '')).toBe(true);
    expect(
      scope([{ allow: ['cluster.status'] }, { deny: ['cluster.status'] }]).allows('cluster.status', ''),
    ).toBe(false);
  });

  test('the most generous of the matching allows limits values', () => {
    const limited = scope([
      { allow: ['resolve'], on: 'a/**', value_max: '64KiB' },
      { allow: ['resolve'], on: 'a/big/**', value_max: '1MiB' },
      { allow: ['resolve'], on: 'free/*' },
    ]);
    expect(limited.valueBytesMax('resolve', 'a/x')).toBe(65_536);
    expect(limited.valueBytesMax('resolve', 'a/big/x')).toBe(1_048_576);
    expect(limited.valueBytesMax('resolve', 'free/x')).toBe(Infinity);
    expect(limited.valueBytesMax('resolve', 'b')).toBe(0);
  });

  test('bindings are by realm and principal, and an unknown realm has nothing', () => {
    const policies = compilePolicies({
      realms: { ...puppet, other: {} },
      policies: {
        read: [{ allow: ['get'], on: '**' }],
        write: [{ allow: ['resolve'], on: '**' }],
        list: [{ allow: ['list'], on: '**' }],
      },
      bindings: [
        { policies: ['read'] },
        { realm: 'puppet', principal: 'web1', policies: ['write'] },
        { realm: 'other', policies: ['list'] },
      ],
    });
    const can = (realm: string, name: string): readonly boolean[] =>
      (['get', 'resolve', 'list'] as const).map((verb) =>
        policies.scopeFor({ realm, name }).allows(verb, 'a'),
      );
    expect(can('puppet', 'web1')).toEqual([true, true, false]);
    expect(can('puppet', 'web2')).toEqual([true, false, false]);
    expect(can('other', 'web1')).toEqual([true, false, true]);
    expect(can('nowhere', 'web1')).toEqual([false, false, false]);
    expect(can('__proto__', 'web1')).toEqual([false, false, false]);
  });

  test('the most generous of the matching allows limits TTLs', () => {
    const limited = scope([
      { allow: ['resolve'], on: 'a/**', ttl_max: '1h' },
      { allow: ['resolve'], on: 'a/long/**', ttl_max: '30d' },
      { allow: ['resolve'], on: 'free/*' },
      { allow: ['resolve'], on: 'a/long/**', ttl_max: '60d' },
      { deny: ['resolve'], on: 'a/long/never' },
    ]);
    expect(limited.ttlMaxMs('resolve', 'a/x')).toBe(3_600_000);
    expect(limited.ttlMaxMs('resolve', 'a/long/x')).toBe(60 * 86_400_000);
    expect(limited.ttlMaxMs('resolve', 'free/x')).toBe(Infinity);
    expect(limited.ttlMaxMs('resolve', 'a/long/never')).toBe(0);
    expect(limited.ttlMaxMs('reject', 'a/x')).toBe(0);
  });

  test('of several limits the most generous counts, quantity by quantity, and what none names is unlimited', () => {
    const none = Number.POSITIVE_INFINITY;
    const unlimited = {
      pending: none,
      keys: none,
      subscriptions: none,
      requestsInFlight: none,
      requestsPerSecond: none,
      storedBytes: none,
      connections: none,
    };
    expect(scope([{ allow: ['get'], on: '**' }]).limits).toEqual(unlimited);
    const policies = compilePolicies({
      realms: puppet,
      policies: {
        few: [{ limit: { pending: 0, stored: '1KiB', requests_in_flight: 1, requests_per_second: 9 } }],
        more: [{ limit: { pending: 5, subscriptions: 2, connections: 3 } }, { limit: { pending: 3 } }],
      },
      bindings: [{ policies: ['few'] }, { realm: 'puppet', principal: 'web1', policies: ['more'] }],
    });
    const few = { ...unlimited, pending: 0, storedBytes: 1024, requestsInFlight: 1, requestsPerSecond: 9 };
    expect(policies.scopeFor({ realm: 'puppet', name: 'web2' }).limits).toEqual(few);
    expect(policies.scopeFor({ realm: 'puppet', name: 'web1' }).limits).toEqual({
      ...few,
      pending: 5,
      subscriptions: 2,
      connections: 3,
    });
    expect(policies.scopeFor({ realm: 'nowhere', name: 'web1' }).limits).toEqual(unlimited);
  });

  test('a binding with conditions is only for those whose variables have exactly these values', () => {
    const policies = compilePolicies({
      realms: {
        puppet: {
          tls: { issuer: 'PEM', identity: 'cn' },
          vars: { node: 'cn', role: 'extension:pp_role', zone: 'extension:pp_zone' },
        },
        other: { vars: { node: 'cn' } },
      },
      policies: { web: [{ allow: ['get'], on: 'web/**' }], own: [{ allow: ['get'], on: '${role}/**' }] },
      bindings: [
        { where: { role: 'web', zone: 'a b' }, policies: ['web'] },
        { where: { node: 'web9' }, policies: ['web'] },
        { realm: 'puppet', policies: ['own'] },
      ],
    });
    const may = (realm: string, name: string, variables?: Readonly<Record<string, string>>): boolean =>
      policies
        .scopeFor(variables === undefined ? { realm, name } : { realm, name, variables })
        .allows('get', 'web/x');
    expect(may('puppet', 'web1', { role: 'web', zone: 'a b' })).toBe(true);
    expect(may('puppet', 'web1', { role: 'web1', zone: 'a b' })).toBe(false);
    expect(may('puppet', 'web1', { zone: 'a b' })).toBe(false);
    expect(may('puppet', 'web1')).toBe(false);
    expect(may('puppet', 'web9')).toBe(true);
    expect(may('puppet', 'web1', { role: 'web' })).toBe(true);
    // What the principal says of itself is no value: the name is the name, and another realm has no roles.
    expect(may('puppet', 'web1', { node: 'web9' })).toBe(false);
    expect(may('other', 'web1', { role: 'web', zone: 'a b' })).toBe(false);
    expect(may('other', 'web9', {})).toBe(true);
  });

  test('a deny of several variables is widened only where a value is missing', () => {
    const policies = compilePolicies({
      realms: {
        puppet: {
          tls: { issuer: 'PEM', identity: 'cn' },
          vars: { node: 'cn', role: 'extension:pp_role' },
        },
      },
      policies: {
        all: [
          { allow: ['get'], on: '**' },
          { deny: ['get'], on: '${node}/${role}' },
        ],
      },
      bindings: [{ policies: ['all'] }],
    });
    const own = policies.scopeFor({ realm: 'puppet', name: 'web1' });
    expect(own.allows('get', 'web1/anything')).toBe(false);
    expect(own.allows('get', 'web2/anything')).toBe(true);
    expect(own.allowsPattern('get', 'web2/*')).toBe(true);
    expect(own.explain('get', 'web1/anything')).toEqual({
      allowed: false,
      rule: { policy: 'all', index: 1, effect: 'deny', pattern: '${node}/${role}' },
    });
  });

  test('decides as the definition says: some allow matches and no deny does', () => {
    const pattern = fc.constantFrom('a', '*', '**', 'a/*', 'a/**', '${node}', '${node}/**', '*/b');
    const rule = fc.record({
      effect: fc.constantFrom('allow' as const, 'deny' as const),
      on: fc.array(pattern, { minLength: 1, maxLength: 2 }),
    });
    const keys = ['a', 'b', 'a/a', 'a/b', 'b/b', 'b/a', 'a/b/c', 'b/b/b'];
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 4 }), fc.constantFrom('a', 'b', '*', ''), (rules, name) => {
        const compiled = scope(
          rules.map(({ effect, on }) => ({ [effect]: ['get'], on })),
          name,
        );
        const hits = (effect: string, key: string): boolean =>
          rules.some(
            (one) =>
              one.effect === effect && one.on.some((text) => naive(text, name, key, effect === 'deny')),
          );
        for (const key of keys) {
          const expected = hits('allow', key) && !hits('deny', key);
          expect(compiled.allows('get', key)).toBe(expected);
          if (compiled.allowsPattern('get', '**')) expect(expected).toBe(true);
          if (key.startsWith('a/') && compiled.allowsPattern('get', 'a/**')) expect(expected).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});

/** `unbound`: what an unbindable variable decides. */
function naive(text: string, name: string, key: string, unbound: boolean): boolean {
  const parsed = parsePattern(text, { variables: true });
  if (!parsed.ok) throw new Error(parsed.problem);
  const bound = bindVariables(parsed.pattern, { node: name });
  if (bound !== undefined) return matches(bound, key);
  const widened = parsePattern(text.replaceAll('${node}', '*'));
  return unbound && widened.ok && matches(widened.pattern, key);
}

describe('compiling policies', () => {
  test('reports every problem, each with its place', () => {
    const document: PolicyDocument = {
      realms: { 'a/b': {}, puppet: { vars: { Node: 'cn' } } },
      policies: {
        agent: [
          { allow: ['get', 'gett'], on: 'a/**/b' },
          { allow: ['get'], deny: ['get'], on: ['a', 'b/${other}'] },
          { allow: ['get'] },
          { allow: ['acl.write'], on: 'a' },
          { deny: ['resolve'], on: 'a', value_max: '1KiB' },
          { allow: ['resolve'], on: 'a', value_max: '64 kilobytes' },
          { allow: ['cluster.status'], on: 'a' },
          { allow: [], on: 'a' },
        ],
      },
      bindings: [
        { realm: 'nowhere', policies: ['nothing'] },
        { principal: 'a', policies: [] },
      ],
    };
    expect(places(document)).toEqual([
      'realms.a/b',
      'realms.puppet.vars.Node',
      'policies.agent[0].allow',
      'policies.agent[0].on',
      'policies.agent[1]',
      'policies.agent[1].on[1]',
      'policies.agent[2].on',
      'policies.agent[3].allow',
      'policies.agent[4].value_max',
      'policies.agent[5].value_max',
      'policies.agent[6].on',
      'policies.agent[7].allow',
      'bindings[0].realm',
      'bindings[0].policies[0]',
      'bindings[1].principal',
      'bindings[1].policies',
    ]);
  });

  test('reports every problem of realms, limits and conditions, each with its place', () => {
    const jwt = {
      issuer: 'https://ci',
      audience: 'futurestore',
      algorithms: ['ES256'],
      keys: '{}',
      identity: 'sub',
    };
    const document: PolicyDocument = {
      realms: {
        none: { jwt: { ...jwt, algorithms: ['none', 'ES256', 'HS256'], issuer: '' } },
        empty: { jwt: { ...jwt, algorithms: [], keys: '', audience: '', identity: '' } },
        puppet: {
          tls: { issuer: '', identity: 'cn', crl: '' },
          vars: { role: 'extension:pp_rolle', dept: 'claim:department', site: 'san', oid: 'oid:1.2.x' },
        },
        ci: { jwt, vars: { role: 'extension:pp_role', node: 'cn', dept: 'claim:department' } },
      },
      policies: {
        agent: [
          { limit: { pending: -1, subscriptions: 1.5, requests_in_flight: 0, stored: '1 kb' } },
          { limit: { connections: 0, requests_per_second: Number.NaN } },
          { limit: {} },
          { limit: { pending: 1 }, on: '**', value_max: '1KiB', ttl_max: '1d' },
          { limit: { pending: 1 }, allow: ['get'], on: '**' },
          { deny: ['resolve'], on: 'a', ttl_max: '1d' },
          { allow: ['resolve'], on: 'a', ttl_max: '1 week' },
          {},
        ],
      },
      bindings: [
        { realm: 'ci', where: { site: 'x' }, policies: ['agent'] },
        { where: { dept: 'x', nothing: 'y' }, policies: ['agent'] },
        { where: {}, policies: ['agent'] },
      ],
    };
    expect(places(document)).toEqual([
      'realms.none.jwt.issuer',
      'realms.none.jwt.algorithms[0]',
      'realms.none.jwt.algorithms[2]',
      'realms.empty.jwt.audience',
      'realms.empty.jwt.keys',
      'realms.empty.jwt.identity',
      'realms.empty.jwt.algorithms',
      'realms.puppet.tls.issuer',
      'realms.puppet.tls.crl',
      'realms.puppet.vars.role',
      'realms.puppet.vars.dept',
      'realms.puppet.vars.site',
      'realms.puppet.vars.oid',
      'realms.ci.vars.role',
      'policies.agent[0].limit.pending',
      'policies.agent[0].limit.subscriptions',
      'policies.agent[0].limit.requests_in_flight',
      'policies.agent[0].limit.stored',
      'policies.agent[1].limit.requests_per_second',
      'policies.agent[1].limit.connections',
      'policies.agent[2].limit',
      'policies.agent[3].on',
      'policies.agent[3].value_max',
      'policies.agent[3].ttl_max',
      'policies.agent[4]',
      'policies.agent[5].ttl_max',
      'policies.agent[6].ttl_max',
      'policies.agent[7]',
      'policies.agent[7].allow',
      'bindings[0].where.site',
      'bindings[1].where.nothing',
      'bindings[2].where',
    ]);
  });

  test('takes the name from what the realm says, and has it among the variables of a realm of DNS names', () => {
    const documentOf = (identity: 'cn' | 'dns', vars: Readonly<Record<string, string>>): PolicyDocument => ({
      realms: { hosts: { tls: { issuer: 'PEM', identity }, vars } },
      policies: { agent: [{ allow: ['get'], on: Object.keys(vars).map((name) => `nodes/\${${name}}/**`) }] },
      bindings: [],
    });
    const compiled = compilePolicies({
      ...documentOf('dns', { node: 'dns' }),
      bindings: [{ realm: 'hosts', policies: ['agent'] }],
    });
    const scope = compiled.scopeFor({ realm: 'hosts', name: 'web1.example.com' });
    expect(scope.allows('get', 'nodes/web1.example.com/out')).toBe(true);
    expect(places(documentOf('dns', { node: 'cn', role: 'extension:pp_role' }))).toEqual([
      'realms.hosts.vars.node',
    ]);
    expect(places(documentOf('cn', { node: 'dns' }))).toEqual(['realms.hosts.vars.node']);
    // Builds that know common names only refuse the source, and with it what they would misread.
    expect(places(documentOf('dns', { role: 'extension:pp_role' }))).toEqual(['realms.hosts.vars']);
    expect(places(documentOf('dns', {}))).toContain('realms.hosts.vars');
  });

  test('keeps the document that it compiled', () => {
    const document: PolicyDocument = { realms: puppet, policies: {}, bindings: [] };
    expect(compilePolicies(document).document).toBe(document);
  });

  test("no verb of the cluster's administration is known to '*'", () => {
    expect(keyVerbs.some((verb) => verb.includes('.'))).toBe(false);
  });
});

test.each([
  ['0B', 0],
  ['64KiB', 65_536],
  ['1 MiB', 1_048_576],
  ['2GiB', 2 ** 31],
  ['64', undefined],
  ['64kb', undefined],
  ['-1KiB', undefined],
  ['1.5KiB', undefined],
  ['999999999999999GiB', undefined],
])('the size %s is %s', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each([
  ['cn', { kind: 'name', identity: 'cn' }],
  ['dns', { kind: 'name', identity: 'dns' }],
  ['extension:pp_uuid', { kind: 'extension', oid: '1.3.6.1.4.1.34380.1.1.1' }],
  ['extension:pp_role', { kind: 'extension', oid: '1.3.6.1.4.1.34380.1.1.13' }],
  ['extension:pp_hostname', { kind: 'extension', oid: '1.3.6.1.4.1.34380.1.1.25' }],
  ['extension:pp_auth_role', { kind: 'extension', oid: '1.3.6.1.4.1.34380.1.3.13' }],
  ['oid:1.3.6.1.4.1.34380.1.1.13', { kind: 'extension', oid: '1.3.6.1.4.1.34380.1.1.13' }],
  ['claim:department', { kind: 'claim', name: 'department' }],
  ['claim:https://example.com/roles', { kind: 'claim', name: 'https://example.com/roles' }],
  ['CN', undefined],
  ['extension:', undefined],
  ['extension:1.2.3', undefined],
  ['oid:1', undefined],
  ['oid:1.02', undefined],
  ['oid:3.1', undefined],
  ['claim:', undefined],
  ['claim:a b', undefined],
  ['pp_role', undefined],
  ['', undefined],
])('the source of a variable %j is %j', (text, source) => {
  expect(parseVariableSource(text)).toEqual(source);
});

test('a document with thousands of problems has a text that can be sent, of the first ones', () => {
  const verbs = [...Array.from({ length: 30_000 }, () => 'x'), `\ud800${'y'.repeat(5000)}`];
  const text = (allow: readonly string[]): string => {
    const policies = { agent: [{ allow, on: '**' }] };
    try {
      compilePolicies({ realms: puppet, policies, bindings: [] });
    } catch (error) {
      if (error instanceof PolicyError) return error.message;
    }
    return '';
  };
  expect(text(verbs)).toMatch(/there is no verb 'x'.* and 29981 more$/);
  expect(text(verbs).length).toBeLessThan(10_000);
  expect(text(verbs.slice(-1))).toMatch(/there is no verb '\ufffdyyy/);
  expect(text(verbs.slice(-1))).not.toMatch(/\p{Surrogate}/u);
});

test.each([
  ['500ms', 500],
  ['30 d', 2_592_000_000],
  ['0s', 0],
  ['30', undefined],
  ['1w', undefined],
  ['1.5h', undefined],
  ['999999999999999d', undefined],
])('the duration %s is %s ms', (text, milliseconds) => {
  expect(millisecondsIn(text)).toBe(milliseconds);
});
