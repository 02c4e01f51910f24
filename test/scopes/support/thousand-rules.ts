/** A thousand rules of the kinds that large sites write, and what is asked of them, for measuring. */
import process from 'node:process';
import { compilePolicies, type Policies, type RuleDocument, type Scope } from '../../../src/scopes/index.ts';

const applications = 250;

const rules: readonly RuleDocument[] = Array.from({ length: applications }, (_, number): RuleDocument[] => [
  { allow: ['get', 'await', 'list', 'subscribe'], on: `apps/app${number}/**` },
  {
    allow: ['declare', 'resolve', 'reject'],
    on: `apps/app${number}/nodes/\${node}/out/**`,
    value_max: '64KiB',
    ttl_max: '30d',
  },
  { allow: ['get', 'await'], on: [`sites/*/app${number}/state`, `roles/\${role}/app${number}/*`] },
  { deny: ['*'], on: `apps/app${number}/secret/**` },
]).flat();

export const thousandRules = (): Policies =>
  compilePolicies({
    realms: {
      puppet: { tls: { issuer: 'PEM', identity: 'cn' }, vars: { node: 'cn', role: 'extension:pp_role' } },
    },
    policies: { site: rules },
    bindings: [{ realm: 'puppet', policies: ['site'] }],
  });

export const scopesOf = (policies: Policies, count: number): readonly Scope[] =>
  Array.from({ length: count }, (_, number) =>
    policies.scopeFor({
      realm: 'puppet',
      name: `web${number}.example.com`,
      variables: { role: `role${number % 10}` },
    }),
  );

interface Check {
  readonly verb: 'get' | 'resolve';
  readonly key: string;
  readonly pattern: string;
}

/** Allowed and refused ones in turn, of every kind of rule. */
export const checksOf = (count: number): readonly Check[] =>
  Array.from({ length: count }, (_, number): Check => {
    const application = (number * 7919) % (applications + 10);
    const node = `web${number % 100}.example.com`;
    switch (number % 5) {
      case 0:
        return {
          verb: 'get',
          key: `apps/app${application}/config/url`,
          pattern: `apps/app${application}/config/*`,
        };
      case 1:
        return {
          verb: 'resolve',
          key: `apps/app${application}/nodes/${node}/out/port`,
          pattern: `apps/app${application}/nodes/${node}/out/**`,
        };
      case 2:
        return { verb: 'get', key: `sites/berlin/app${application}/state`, pattern: 'sites/*/*/state' };
      case 3:
        return {
          verb: 'get',
          key: `apps/app${application}/secret/token`,
          pattern: `apps/app${application}/**`,
        };
      default:
        return {
          verb: 'get',
          key: `roles/role${number % 10}/app${application}/x`,
          pattern: `roles/*/app${application}/*`,
        };
    }
  });

/**
 * How often `work`, which does it `times` times, is done in a second of one core: the best of some rounds, by the
 * processor time they took, because what else runs on the machine is no part of it.
 */
export const bestPerSecond = (rounds: number, times: number, work: () => void): number => {
  let best = 0;
  for (let round = 0; round < rounds; round += 1) {
    const before = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(before);
    best = Math.max(best, times / ((user + system) / 1e6));
  }
  return best;
};
