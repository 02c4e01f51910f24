import { describe, expect, test } from 'vitest';
import { parsePolicyFile } from '../../src/gateway/policy-file.ts';
import { compilePolicies } from '../../src/scopes/index.ts';

const good = `
realms:
  puppet: { tls: { issuer: puppet-ca.pem, identity: cn }, vars: { node: cn } }
policies:
  agent:
    - allow: [get, await, list, subscribe]
      on: nodes/\${node}/**
    - allow: [declare, resolve, reject]
      on: ['nodes/\${node}/out/**']
      value_max: 64KiB
bindings:
  - { realm: puppet, policies: [agent] }
`;

describe('a policy file', () => {
  test('of the documented form is accepted and compiles', () => {
    const scope = compilePolicies(parsePolicyFile(good, 'p.yaml')).scopeFor({
      realm: 'puppet',
      name: 'web1',
    });
    expect(scope.allowsPattern('subscribe', 'nodes/web1/**')).toBe(true);
    expect(scope.allowsPattern('subscribe', 'nodes/**')).toBe(false);
    expect(scope.valueBytesMax('resolve', 'nodes/web1/out/a')).toBe(65_536);
  });

  test('with tokens, limits, longest TTLs and conditions is accepted and compiles', () => {
    const full = `
realms:
  puppet:
    tls: { issuer: puppet-ca.pem, identity: cn, crl: /etc/futurestore/crl.pem }
    vars: { node: cn, role: 'extension:pp_role', rack: 'oid:1.3.6.1.4.1.34380.1.2.1' }
  ci:
    jwt: { issuer: https://ci, audience: futurestore, algorithms: [ES256], keys: keys.json, identity: sub }
    vars: { dept: 'claim:department' }
policies:
  agent:
    - allow: [resolve]
      on: nodes/\${node}/out/**
      ttl_max: 30d
    - limit: { pending: 1000, keys: 500, subscriptions: 64, requests_in_flight: 256, requests_per_second: 500, stored: 16MiB, connections: 1 }
bindings:
  - { realm: puppet, where: { role: web }, policies: [agent] }
  - { realm: ci, policies: [agent] }
`;
    const policies = compilePolicies(parsePolicyFile(full, 'p.yaml'));
    const web1 = policies.scopeFor({ realm: 'puppet', name: 'web1', variables: { role: 'web' } });
    expect(web1.ttlMaxMs('resolve', 'nodes/web1/out/a')).toBe(30 * 86_400_000);
    expect(web1.limits).toEqual({
      pending: 1000,
      keys: 500,
      subscriptions: 64,
      requestsInFlight: 256,
      requestsPerSecond: 500,
      storedBytes: 16 * 1024 * 1024,
      connections: 1,
    });
    const typo = full.replace('stored:', 'store:');
    expect(() => parsePolicyFile(typo, 'p.yaml')).toThrow(
      /policies\.agent\[1\]\.limit\.store: .*did you mean 'stored'/,
    );
    const text = full.replace('pending: 1000', 'pending: many');
    expect(() => parsePolicyFile(text, 'p.yaml')).toThrow(
      /policies\.agent\[1\]\.limit\.pending: must be a number, not "many"/,
    );
  });

  test.each([
    ['nothing', '', /is empty/],
    ['a list', '- 1', /no mapping/],
    ['no YAML', 'a: b: c', /line 1/],
    [
      'an unknown setting',
      good.replace('value_max', 'value_mx'),
      /policies\.agent\[1\]\.value_mx: .*did you mean 'value_max'/,
    ],
    ['an unknown section', good.replace('bindings', 'binding'), /did you mean 'bindings'/],
    [
      'a text for a list',
      good.replace('[agent]', 'agent'),
      /bindings\[0\]\.policies: must be a list, not "agent"/,
    ],
    [
      'a number for a text',
      good.replace('realm: puppet', 'realm: 5'),
      /bindings\[0\]\.realm: must be a text, not 5/,
    ],
    ['a setting twice', `${good}bindings: []\n`, /unique/],
    ['an alias', 'a: &x 1\nb: *x', /alias/],
    ['a tag', 'realms: !!js/function x', /tag/],
    ['__proto__', `__proto__: {}${good}`, /__proto__/],
    ['another identity', good.replace('identity: cn', 'identity: san'), /realms\.puppet\.tls\.identity/],
    ['an empty name', good.replace('realm: puppet', "realm: ''"), /bindings\[0\]\.realm/],
  ])('with %s is refused, naming file and place', (_name, source, problem) => {
    const parse = (): unknown => parsePolicyFile(source, 'p.yaml');
    expect(parse).toThrow(expect.objectContaining({ code: 'CONFIGURATION_INVALID' }));
    expect(parse).toThrow(/p\.yaml/);
    expect(parse).toThrow(problem);
  });
});
