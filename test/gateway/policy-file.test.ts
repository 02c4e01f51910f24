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
