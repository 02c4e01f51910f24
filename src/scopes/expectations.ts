/** Tests of policies: who is expected to be allowed what. */
import {
  clusterVerbs,
  isClusterVerb,
  isKeyVerb,
  keyVerbs,
  PolicyError,
  type PolicyProblem,
  type Verb,
} from './document.ts';
import { parsePattern } from './patterns.ts';
import type { Report } from './rules.ts';
import { parsePrincipal, type Decision, type Policies, type Principal } from './scope.ts';
import { parseVariableSource } from './variable-sources.ts';

/** One entry of the list that a file of expectations is. */
export interface Expectation {
  /** 'realm:name'. */
  readonly as: string;
  /** The values of the realm's variables, except of those that are the name. */
  readonly variables?: Readonly<Record<string, string>>;
  readonly verb: string;
  /** A key or a pattern; absent for a verb of the cluster. */
  readonly on?: string;
  readonly expect: 'allow' | 'deny';
}

export interface ExpectationResult {
  readonly expectation: Expectation;
  readonly met: boolean;
  readonly decision: Decision;
}

interface Question {
  readonly expectation: Expectation;
  readonly principal: Principal;
  readonly verb: Verb;
  readonly on: string;
}

/**
 * Asks the policies, in the order of the list. Throws PolicyError with all problems of the list: what could be no
 * principal, verb or pattern would be denied, and a test that expects a denial would hold for the wrong reason.
 */
export function checkExpectations(
  policies: Policies,
  expectations: readonly Expectation[],
): readonly ExpectationResult[] {
  const problems: PolicyProblem[] = [];
  const questions = expectations.map((expectation, index) =>
    questionOf(`[${index}]`, expectation, policies, (place, problem) => problems.push({ place, problem })),
  );
  if (problems.length > 0) throw new PolicyError(problems);
  return questions.map(({ expectation, principal, verb, on }) => {
    const decision = policies.scopeFor(principal).explain(verb, on);
    return { expectation, met: decision.allowed === (expectation.expect === 'allow'), decision };
  });
}

function questionOf(place: string, expectation: Expectation, policies: Policies, report: Report): Question {
  const { verb, on } = expectation;
  const principal = principalOf(place, expectation, policies, report);
  const known = isKeyVerb(verb) || isClusterVerb(verb);
  if (!known)
    report(
      `${place}.verb`,
      `there is no verb '${verb}': known are ${[...keyVerbs, ...clusterVerbs].join(' ')}`,
    );
  if (isClusterVerb(verb) && on !== undefined)
    report(`${place}.on`, `has no meaning here: ${verb} is about the cluster, not about keys`);
  if (isKeyVerb(verb)) {
    const parsed = on === undefined ? undefined : parsePattern(on);
    if (parsed === undefined) report(`${place}.on`, 'is missing: on which key or pattern?');
    else if (!parsed.ok) report(`${place}.on`, `'${on}' ${parsed.problem}`);
  }
  return { expectation, principal, verb: known ? verb : 'get', on: on ?? '' };
}

function principalOf(
  place: string,
  { as, variables = {} }: Expectation,
  { document }: Policies,
  report: Report,
): Principal {
  const principal = parsePrincipal(as);
  if (principal === undefined) {
    report(
      `${place}.as`,
      `'${as}' is no principal: write the realm, a colon and the name, as in puppet:web1`,
    );
    return { realm: '', name: '' };
  }
  const realm = Object.hasOwn(document.realms, principal.realm)
    ? document.realms[principal.realm]
    : undefined;
  if (realm === undefined) {
    report(`${place}.as`, `there is no realm '${principal.realm}' under realms`);
    return principal;
  }
  for (const name of Object.keys(variables)) {
    const source = Object.hasOwn(realm.vars ?? {}, name) ? realm.vars?.[name] : undefined;
    if (source === undefined) {
      report(
        `${place}.variables.${name}`,
        `the variable '${name}' is not in the vars of realm '${principal.realm}'`,
      );
    } else if (parseVariableSource(source)?.kind === 'name') {
      report(`${place}.variables.${name}`, `the variable '${name}' is the principal's name: give it in as`);
    }
  }
  return { ...principal, variables };
}
