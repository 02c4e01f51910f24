/** The tries of a scope against the definition, as plainly as it can be written. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bindVariables,
  compilePolicies,
  contains,
  isSegment,
  matches,
  overlaps,
  parsePattern,
  widenVariables,
  type BindingDocument,
  type KeyVerb,
  type Pattern,
  type RuleDocument,
  type Scope,
} from '../../src/scopes/index.ts';

const patternOf = (text: string): Pattern => {
  const parsed = parsePattern(text, { variables: true });
  if (!parsed.ok) throw new Error(`${text} ${parsed.problem}`);
  return parsed.pattern;
};

const verbs = ['get', 'list', 'resolve'] as const satisfies readonly KeyVerb[];
const sizes = ['1B', '2B', '3B'] as const;
const days = ['1d', '2d'] as const;

const segment = fc.constantFrom('a', 'b', '*', '${node}', '${role}');
const patternText = fc
  .tuple(fc.array(segment, { maxLength: 3 }), fc.oneof(segment, fc.constant('**')))
  .map(([head, last]) => [...head, last].join('/'));

const rule: fc.Arbitrary<RuleDocument> = fc
  .record({
    deny: fc.boolean(),
    verbs: fc.uniqueArray(fc.constantFrom(...verbs, '*'), { minLength: 1 }),
    on: fc.array(patternText, { minLength: 1, maxLength: 3 }),
    size: fc.option(fc.constantFrom(...sizes), { nil: undefined }),
    ttl: fc.option(fc.constantFrom(...days), { nil: undefined }),
  })
  .map(({ deny, verbs: named, on, size, ttl }) => {
    if (deny) return { deny: named, on };
    return {
      allow: named,
      on,
      ...(size === undefined ? {} : { value_max: size }),
      ...(ttl === undefined ? {} : { ttl_max: ttl }),
    };
  });

const policies = fc.record({
  first: fc.array(rule, { maxLength: 5 }),
  second: fc.array(rule, { maxLength: 5 }),
  third: fc.array(rule, { maxLength: 3 }),
});
type Name = 'first' | 'second' | 'third';

const someNames = fc.uniqueArray(fc.constantFrom<Name>('first', 'second', 'third'), { minLength: 1 });
const binding: fc.Arbitrary<Omit<BindingDocument, 'policies'> & { readonly policies: readonly Name[] }> =
  fc.oneof(
    fc.record({ policies: someNames }),
    fc.record({
      realm: fc.constant('puppet'),
      principal: fc.constantFrom('a', 'b'),
      policies: someNames,
    }),
    fc.record({ where: fc.record({ role: fc.constantFrom('a', 'b/c') }), policies: someNames }),
  );

/** Values that are segments, and some that are none. */
const value = fc.constantFrom('a', 'b', 'z', '*', '', 'b/c', '**');
const principal = fc.record({
  realm: fc.constant('puppet'),
  name: value,
  variables: fc.oneof(fc.constant({}), fc.record({ role: value })),
});

const keys = ((): string[] => {
  const heads = ['a', 'b', 'z'];
  let longest = heads;
  const all = [...heads];
  for (let depth = 1; depth < 4; depth += 1) {
    longest = longest.flatMap((tail) => heads.map((head) => `${head}/${tail}`));
    all.push(...longest);
  }
  return all;
})();

/** What is decided, by going through all rules. */
class Model {
  readonly #rules: readonly RuleDocument[];
  readonly #values: Readonly<Record<string, string>>;
  readonly #allowed: Partial<Record<KeyVerb, { rule: RuleDocument; pattern: Pattern }[]>> = {};
  readonly #denied: Partial<Record<KeyVerb, Pattern[]>> = {};

  constructor(rules: readonly RuleDocument[], values: Readonly<Record<string, string>>) {
    this.#rules = rules;
    this.#values = values;
  }

  #named(effect: 'allow' | 'deny', verb: KeyVerb): { rule: RuleDocument; pattern: Pattern }[] {
    return this.#rules.flatMap((one) =>
      (one[effect] ?? []).some((name) => name === verb || name === '*')
        ? [one.on ?? []].flat().map((text) => ({ rule: one, pattern: patternOf(text) }))
        : [],
    );
  }

  #allows(verb: KeyVerb): { rule: RuleDocument; pattern: Pattern }[] {
    return (this.#allowed[verb] ??= this.#boundAllows(verb));
  }

  #boundAllows(verb: KeyVerb): { rule: RuleDocument; pattern: Pattern }[] {
    return this.#named('allow', verb).flatMap(({ rule: one, pattern }) => {
      const bound = bindVariables(pattern, this.#values);
      return bound === undefined ? [] : [{ rule: one, pattern: bound }];
    });
  }

  #denies(verb: KeyVerb): Pattern[] {
    return (this.#denied[verb] ??= this.#named('deny', verb).map(
      ({ pattern }) => bindVariables(pattern, this.#values) ?? widenUnbound(pattern, this.#values),
    ));
  }

  allows(verb: KeyVerb, key: string): boolean {
    if (this.#denies(verb).some((pattern) => matches(pattern, key))) return false;
    return this.#allows(verb).some(({ pattern }) => matches(pattern, key));
  }

  allowsPattern(verb: KeyVerb, asked: Pattern): boolean {
    if (this.#denies(verb).some((pattern) => overlaps(pattern, asked))) return false;
    return this.#allows(verb).some(({ pattern }) => contains(pattern, asked));
  }

  containing(verb: KeyVerb, asked: Pattern): string[] {
    return this.#allows(verb).flatMap(({ pattern }) => (contains(pattern, asked) ? [pattern.text] : []));
  }

  most(verb: KeyVerb, key: string, of: (one: RuleDocument) => number): number {
    if (!this.allows(verb, key)) return 0;
    return Math.max(
      ...this.#allows(verb).flatMap(({ rule: one, pattern }) => (matches(pattern, key) ? [of(one)] : [])),
    );
  }
}

/** Only the variables without a usable value are widened; the others are as strict as ever. */
const widenUnbound = (pattern: Pattern, values: Readonly<Record<string, string>>): Pattern =>
  widenVariables(
    patternOf(
      pattern.segments
        .map((one) => {
          if (one.kind === 'literal') return one.text;
          if (one.kind !== 'variable') return one.kind === 'one' ? '*' : '**';
          const bound = values[one.name];
          return bound !== undefined && isSegment(bound) ? bound : '*';
        })
        .join('/'),
    ),
  );

const sizeOf = (one: RuleDocument): number =>
  one.value_max === undefined ? Infinity : Number(one.value_max.slice(0, -1));
const ttlOf = (one: RuleDocument): number =>
  one.ttl_max === undefined ? Infinity : Number(one.ttl_max.slice(0, -1)) * 86_400_000;

const drawn = fc.record({
  policies,
  bindings: fc.array(binding, { maxLength: 4 }),
  principal,
});
type Drawn = typeof drawn extends fc.Arbitrary<infer T> ? T : never;

/** `prefix`: what all patterns begin with. */
const both = (from: Drawn, prefix = ''): { scope: Scope; model: Model } => {
  const under = (rules: readonly RuleDocument[]): RuleDocument[] =>
    rules.map((one) => ({ ...one, on: [one.on ?? []].flat().map((text) => prefix + text) }));
  const documents = {
    first: under(from.policies.first),
    second: under(from.policies.second),
    third: under(from.policies.third),
  };
  const { name, variables } = from.principal;
  const values: Record<string, string> = { node: name, ...variables };
  const compiled = compilePolicies({
    realms: {
      puppet: { tls: { issuer: 'PEM', identity: 'cn' }, vars: { node: 'cn', role: 'extension:pp_role' } },
    },
    policies: documents,
    bindings: from.bindings,
  });
  const bound = from.bindings.filter(
    ({ principal: whose, where }) =>
      (whose === undefined || whose === name) && (where === undefined || where['role'] === values['role']),
  );
  const rules = bound.flatMap((one) => one.policies.flatMap((policy) => documents[policy]));
  return { scope: compiled.scopeFor(from.principal), model: new Model(rules, values) };
};

describe('a scope by its tries', () => {
  test('decides about every key as the definition does', () => {
    fc.assert(
      fc.property(drawn, fc.constantFrom(...verbs), (from, verb) => {
        const { scope, model } = both(from);
        const decided = keys.map((key) => ({
          key,
          allowed: scope.allows(verb, key),
          asPattern: scope.allowsPattern(verb, key),
          valueBytesMax: scope.valueBytesMax(verb, key),
          ttlMaxMs: scope.ttlMaxMs(verb, key),
        }));
        expect(decided).toEqual(
          keys.map((key) => {
            const allowed = model.allows(verb, key);
            const [valueBytesMax, ttlMaxMs] = [model.most(verb, key, sizeOf), model.most(verb, key, ttlOf)];
            return { key, allowed, asPattern: allowed, valueBytesMax, ttlMaxMs };
          }),
        );
      }),
      { numRuns: 200 },
    );
  });

  test.each([0, 12])(
    'decides about every pattern as the definition does, after %i segments in common',
    (depth) => {
      const prefix = 'p/'.repeat(depth);
      const asked = fc
        .tuple(
          fc.array(fc.constantFrom('a', 'b', 'z', '*'), { maxLength: 3 }),
          fc.constantFrom('a', 'z', '*', '**'),
        )
        .map(([head, last]) => patternOf(prefix + [...head, last].join('/')));
      fc.assert(
        fc.property(
          drawn,
          fc.constantFrom(...verbs),
          fc.array(asked, { minLength: 20 }),
          (from, verb, all) => {
            const { scope, model } = both(from, prefix);
            for (const pattern of all) {
              const expected = model.allowsPattern(verb, pattern);
              expect([pattern.text, scope.allowsPattern(verb, pattern)]).toEqual([pattern.text, expected]);
              expect(scope.explain(verb, pattern.text).allowed).toBe(expected);
            }
          },
        ),
        { numRuns: 300 },
      );
    },
  );

  test('names an allow that contains a pattern, one of those that there are, exactly if one does', () => {
    let named = 0;
    fc.assert(
      fc.property(drawn, fc.constantFrom(...verbs), patternText, (from, verb, text) => {
        const asked = widenVariables(patternOf(text));
        const { scope, model } = both(from);
        const allowance = scope.allowanceOf(verb, asked);
        const containing = model.containing(verb, asked);
        if (allowance === undefined) expect(containing).toEqual([]);
        else expect(containing).toContain(allowance);
        if (allowance !== undefined) named += 1;
      }),
      { numRuns: 2000 },
    );
    expect(named).toBeGreaterThan(200);
  });

  test('allows a pattern only if it allows each of its keys', () => {
    fc.assert(
      fc.property(drawn, patternText, (from, text) => {
        const asked = widenVariables(patternOf(text));
        const { scope } = both(from);
        if (!scope.allowsPattern('get', asked)) return;
        for (const key of keys) if (matches(asked, key)) expect(scope.allows('get', key)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  test('never allows more after a deny was added, whatever it says', () => {
    fc.assert(
      fc.property(drawn, patternText, (from, text) => {
        const { scope: before } = both(from);
        const { scope: after } = both({
          ...from,
          policies: {
            ...from.policies,
            first: [...from.policies.first, { deny: ['get'], on: text }],
          },
        });
        for (const key of keys) if (after.allows('get', key)) expect(before.allows('get', key)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test('says of each decision which rule made it, and the rule alone would say the same', () => {
    fc.assert(
      fc.property(drawn, fc.constantFrom(...keys), (from, key) => {
        const { scope } = both(from);
        const { allowed, rule: deciding } = scope.explain('get', key);
        expect(allowed).toBe(scope.allows('get', key));
        if (deciding === undefined) {
          expect(allowed).toBe(false);
          return;
        }
        expect(deciding.effect).toBe(allowed ? 'allow' : 'deny');
        const only = from.policies[deciding.policy as Name][deciding.index] ?? {};
        expect([only.on].flat()).toContain(deciding.pattern);
        const alone = {
          ...(only.deny ? { deny: only.deny } : { allow: only.allow ?? [] }),
          on: deciding.pattern,
        };
        const everything: RuleDocument[] = only.deny ? [{ allow: ['*'], on: '**' }] : [];
        const { scope: byRule } = both({
          ...from,
          policies: { first: [alone, ...everything], second: [], third: [] },
          bindings: [{ policies: ['first'] }],
        });
        expect(byRule.allows('get', key)).toBe(allowed);
      }),
      { numRuns: 1000 },
    );
  });
});
