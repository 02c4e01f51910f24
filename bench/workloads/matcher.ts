/** How fast scopes decide: it needs no servers. */
import {
  bestPerSecond,
  checksOf,
  scopesOf,
  thousandRules,
} from '../../test/scopes/support/thousand-rules.ts';
import { parsePattern } from '../../src/scopes/index.ts';
import type { LocalWorkload } from '../workload.ts';

export const matcherWorkload: LocalWorkload = {
  name: 'matcher',
  about: '1,000 rules with variables and denies, 1,000 principals; best round, per second of one core',
  figures: [
    { name: 'checks of a key', unit: '/s', better: 'more', limit: 1_000_000 },
    { name: 'largest values', unit: '/s', better: 'more' },
    { name: 'checks of a pattern', unit: '/s', better: 'more' },
    { name: 'scopes of principals', unit: '/s', better: 'more' },
    { name: 'documents of 1,000 rules', unit: '/s', better: 'more' },
  ],
  local: ({ quick }) => {
    const measured: Record<string, number> = {};
    const rounds = quick ? 5 : 20;
    const policies = thousandRules();
    const scopes = scopesOf(policies, 1000);
    const checks = checksOf(4096).flatMap(({ pattern, ...check }) => {
      const parsed = parsePattern(pattern);
      return parsed.ok ? [{ ...check, pattern: parsed.pattern }] : [];
    });
    const scopeAt = (number: number) => scopes[number % scopes.length];
    const tell = (figure: string, perSecond: number): void => {
      measured[figure] = perSecond;
    };
    let allowed = 0;
    const times = 50 * checks.length;
    tell(
      'checks of a key',
      bestPerSecond(rounds, times, () => {
        for (let turn = 0; turn < 50; turn += 1) {
          for (const [number, { verb, key }] of checks.entries()) {
            if (scopeAt(number)?.allows(verb, key) === true) allowed += 1;
          }
        }
      }),
    );
    tell(
      'largest values',
      bestPerSecond(rounds, times, () => {
        for (let turn = 0; turn < 50; turn += 1) {
          for (const [number, { verb, key }] of checks.entries()) {
            allowed += Math.min(1, scopeAt(number)?.valueBytesMax(verb, key) ?? 0);
          }
        }
      }),
    );
    tell(
      'checks of a pattern',
      bestPerSecond(rounds, checks.length, () => {
        for (const [number, { verb, pattern }] of checks.entries()) {
          if (scopeAt(number)?.allowsPattern(verb, pattern) === true) allowed += 1;
        }
      }),
    );
    tell(
      'scopes of principals',
      bestPerSecond(rounds, 20_000, () => scopesOf(policies, 20_000)),
    );
    tell(
      'documents of 1,000 rules',
      bestPerSecond(rounds, 1, () => scopesOf(thousandRules(), 1)),
    );
    if (allowed === 0) throw new Error('Nothing was allowed: the measured checks do not fit the rules');
    return measured;
  },
};
