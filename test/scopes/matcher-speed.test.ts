import { describe, expect, test } from 'vitest';
import { parsePattern } from '../../src/scopes/index.ts';
import { bestPerSecond, checksOf, scopesOf, thousandRules } from './support/thousand-rules.ts';

/**
 * Fractions of what `npm run bench -- matcher` shows, so that only a change of the method fails: going through the
 * rules one by one would do some ten thousand checks a second.
 */
describe('with 1,000 rules loaded, a second of one core is enough for', () => {
  const policies = thousandRules();
  const scopes = scopesOf(policies, 500);
  const checks = checksOf(2048);

  test('300,000 checks of keys', () => {
    let allowed = 0;
    const perSecond = bestPerSecond(12, 10 * checks.length, () => {
      for (let turn = 0; turn < 10; turn += 1) {
        for (const [number, { verb, key }] of checks.entries()) {
          if (scopes[number % scopes.length]?.allows(verb, key) === true) allowed += 1;
        }
      }
    });
    expect(allowed).toBeGreaterThan(0);
    expect(perSecond).toBeGreaterThan(300_000);
  });

  test('10,000 checks of patterns, also of those that could share keys with every rule', () => {
    const wide = [
      'apps/*/config/**',
      'apps/*/*/token',
      '*/*/state/x',
      'sites/*/*/state',
      'roles/*/*/*',
    ].flatMap((text) => {
      const parsed = parsePattern(text);
      return parsed.ok ? [parsed.pattern] : [];
    });
    expect(wide).toHaveLength(5);
    let allowed = 0;
    const perSecond = bestPerSecond(12, 100 * wide.length, () => {
      for (let turn = 0; turn < 100; turn += 1) {
        for (const pattern of wide) if (scopes[turn]?.allowsPattern('get', pattern) === true) allowed += 1;
      }
    });
    expect(allowed).toBe(0);
    expect(perSecond).toBeGreaterThan(10_000);
  });

  test("20,000 principals' scopes", () => {
    let made = 0;
    const perSecond = bestPerSecond(8, 5_000, () => {
      made += scopesOf(policies, 5_000).length;
    });
    expect(made).toBe(40_000);
    expect(perSecond).toBeGreaterThan(20_000);
  });
});
