/** The model is an independent witness only if it says what the definition says: so both are asked the same questions. */
import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import { compilePolicies } from '../../src/scopes/index.ts';
import { ModelScope } from './policy-model.ts';
import type { PolicyDocument } from './policy-model.ts';

const segment = fc.constantFrom('a', 'b', 'x');
const variable = fc.constantFrom('${node}', '${role}');
const key = fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join('/'));
const patternOf = (one: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc
    .tuple(fc.array(one, { minLength: 1, maxLength: 3 }), fc.boolean())
    .map(([segments, isOpen]) => [...segments, ...(isOpen ? ['**'] : [])].join('/'));
const rulePattern = patternOf(fc.oneof(segment, variable, fc.constant('*')));
const askedPattern = patternOf(fc.oneof(segment, fc.constant('*')));
const verbs = fc.subarray(['get', 'await', 'subscribe', '*'], { minLength: 1 });
const rule = fc.oneof(
  fc.record({ allow: verbs, on: fc.array(rulePattern, { minLength: 1, maxLength: 2 }) }),
  fc.record({ deny: verbs, on: rulePattern }),
);
const binding = fc.record(
  {
    realm: fc.constant('puppet'),
    principal: fc.constantFrom('a', 'b'),
    where: fc.constantFrom({ role: 'x' }, { role: 'b' }, { node: 'a' }),
    policies: fc.constantFrom(['one'], ['two'], ['one', 'two']),
  },
  { requiredKeys: ['realm', 'policies'] },
);

describe('the model of the policies and the servers’ matcher agree', () => {
  const document = fc.record({
    one: fc.array(rule, { maxLength: 4 }),
    two: fc.array(rule, { maxLength: 3 }),
    bindings: fc.array(binding, { minLength: 1, maxLength: 3 }),
  });

  test.prop([document, fc.constantFrom('a', 'b'), fc.constantFrom(undefined, 'x', 'a'), key, askedPattern], {
    numRuns: 300,
  })('about keys and about patterns', ({ one, two, bindings }, name, role, asked, pattern) => {
    const variables = role === undefined ? {} : { role };
    const realms = {
      puppet: {
        tls: { issuer: 'ca.pem', identity: 'cn' as const },
        vars: { node: 'cn', role: 'extension:pp_role' },
      },
    };
    const whole = { realms, policies: { one, two }, bindings } satisfies PolicyDocument;
    const model = new ModelScope(whole, { realm: 'puppet', name, variables: { node: name, ...variables } });
    const real = compilePolicies(whole).scopeFor({ realm: 'puppet', name, variables });
    for (const verb of ['get', 'await', 'subscribe'] as const) {
      expect(model.allows(verb, asked)).toBe(real.allows(verb, asked));
      expect(model.allowsPattern(verb, pattern)).toBe(real.allowsPattern(verb, pattern));
    }
  });
});
