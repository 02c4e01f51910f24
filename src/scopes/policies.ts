/**
 * Policies: what a principal may do with which keys. Default is deny; deny beats allow.
 *
 * Compiling a document checks all of its meaning and reports every problem with its place. Principals that have the
 * same policies share what was compiled; a scope of its own holds no more than the values of its variables.
 */
import {
  isKeyVerb,
  jwtAlgorithms,
  PolicyError,
  type BindingDocument,
  type ClusterVerb,
  type KeyVerb,
  type PolicyDocument,
  type PolicyProblem,
  type RealmDocument,
  type Verb,
} from './document.ts';
import {
  bindVariables,
  contains,
  isSegment,
  overlaps,
  parsePattern,
  widenVariables,
  type Pattern,
} from './patterns.ts';
import { allowed, ask, denied, RuleTrie, type VariableValues } from './rule-trie.ts';
import { compileRules, type Report, type Rule } from './rules.ts';
import type { Decision, Policies, Principal, Scope, ScopeLimits } from './scope.ts';
import { parseVariableSource, type VariableSource } from './variable-sources.ts';

type Variables = ReadonlyMap<string, VariableSource>;

interface Binding {
  readonly realm: string | undefined;
  readonly where: readonly (readonly [variable: string, value: string])[];
  readonly policies: readonly string[];
}

/** Throws PolicyError with all problems of the document. */
export function compilePolicies(document: PolicyDocument): Policies {
  const problems: PolicyProblem[] = [];
  const report: Report = (place, problem) => problems.push({ place, problem });

  const realms = new Map<string, Variables>();
  for (const [name, realm] of Object.entries(document.realms)) {
    const place = `realms.${name}`;
    if (!isSegment(name) || name.includes(':'))
      report(place, "is no name for a realm: one key segment without ':'");
    checkAuthorities(place, realm, report);
    realms.set(name, compileVariables(`${place}.vars`, realm, report));
  }
  const variables = new Set([...realms.values()].flatMap((vars) => [...vars.keys()]));

  const policies = new Map<string, readonly Rule[]>();
  for (const [name, rules] of Object.entries(document.policies)) {
    policies.set(name, compileRules(name, rules, variables, report));
  }
  for (const [index, binding] of document.bindings.entries()) {
    checkBinding(`bindings[${index}]`, binding, realms, policies, report);
  }
  if (problems.length > 0) throw new PolicyError(problems);
  return new CompiledPolicies(document, realms, policies);
}

function checkAuthorities(place: string, { tls, jwt }: RealmDocument, report: Report): void {
  for (const setting of ['issuer', 'crl'] as const) {
    if (tls?.[setting] === '') report(`${place}.tls.${setting}`, 'is empty');
  }
  if (jwt === undefined) return;
  for (const setting of ['issuer', 'audience', 'keys', 'identity'] as const) {
    if (jwt[setting] === '') report(`${place}.jwt.${setting}`, 'is empty');
  }
  if (jwt.algorithms.length === 0) report(`${place}.jwt.algorithms`, 'names no algorithm');
  for (const [index, algorithm] of jwt.algorithms.entries()) {
    if (jwtAlgorithms.some((known) => known === algorithm)) continue;
    report(
      `${place}.jwt.algorithms[${index}]`,
      `'${algorithm}' is not accepted: tokens are signed with one of ${jwtAlgorithms.join(' ')}`,
    );
  }
}

function compileVariables(place: string, realm: RealmDocument, report: Report): Variables {
  const variables = new Map<string, VariableSource>();
  const identity = realm.tls?.identity ?? 'cn';
  for (const [name, text] of Object.entries(realm.vars ?? {})) {
    if (!parsePattern(`\${${name}}`, { variables: true }).ok) {
      report(
        `${place}.${name}`,
        'is no name for a variable: a-z first, then a-z, 0-9 and _, at most 32 characters',
      );
    }
    const source = parseVariableSource(text);
    if (source === undefined) {
      report(
        `${place}.${name}`,
        `'${text}' is no source of a value: write cn (or dns), extension:pp_role (or another name of Puppet's), oid:1.3.6.1…, or claim:NAME`,
      );
      continue;
    }
    if (source.kind === 'name' && source.identity !== identity)
      report(`${place}.${name}`, `'${text}' is not what names are in this realm: write ${identity}`);
    if (source.kind === 'extension' && realm.tls === undefined)
      report(`${place}.${name}`, `'${text}' is of a certificate, and the realm has no tls`);
    if (source.kind === 'claim' && realm.jwt === undefined)
      report(`${place}.${name}`, `'${text}' is of a token, and the realm has no jwt`);
    variables.set(name, source);
  }
  // Builds that know common names only would take these for names; this source is what they refuse.
  if (identity === 'dns' && ![...variables.values()].some(({ kind }) => kind === 'name'))
    report(place, 'has no variable that is the name: write for example node: dns');
  return variables;
}

function checkBinding(
  place: string,
  { realm, principal, where, policies: names }: BindingDocument,
  realms: ReadonlyMap<string, Variables>,
  policies: ReadonlyMap<string, readonly Rule[]>,
  report: Report,
): void {
  const known = [...realms].filter(([name]) => realm === undefined || name === realm);
  if (realm !== undefined && !realms.has(realm))
    report(`${place}.realm`, `there is no realm '${realm}' under realms`);
  if (principal !== undefined && realm === undefined) {
    report(`${place}.principal`, 'needs a realm beside it: the same name in two realms is two principals');
  }
  if (principal !== undefined && !isSegment(principal)) {
    report(`${place}.principal`, `'${principal}' is no principal's name: one key segment, not a pattern`);
  }
  for (const variable of Object.keys(where ?? {})) {
    if (known.some(([, variables]) => variables.has(variable))) continue;
    const whose = realm === undefined ? "any realm's vars" : `the vars of realm '${realm}'`;
    report(`${place}.where.${variable}`, `the variable '${variable}' is not in ${whose}`);
  }
  if (where !== undefined && Object.keys(where).length === 0)
    report(`${place}.where`, 'names no variable: leave it out for all principals');
  if (names.length === 0) report(`${place}.policies`, 'names no policy');
  for (const [index, name] of names.entries()) {
    if (!policies.has(name))
      report(`${place}.policies[${index}]`, `there is no policy '${name}' under policies`);
  }
}

/** Combinations of policies whose tries are kept; scopes that are in use keep their own beyond that. */
const ruleSetsMax = 1024;

class CompiledPolicies implements Policies {
  readonly document: PolicyDocument;
  readonly #realms: ReadonlyMap<string, Variables>;
  readonly #policies: ReadonlyMap<string, readonly Rule[]>;
  /** The number of each variable, of whichever realm. */
  readonly #variables = new Map<string, number>();
  /** The bindings of everybody, or of whoever has the variables. */
  readonly #common: Binding[] = [];
  /** By 'realm name': the bindings of one principal. A realm's name has no blank. */
  readonly #own = new Map<string, Binding[]>();
  readonly #ruleSets = new Map<string, RuleSet>();

  constructor(
    document: PolicyDocument,
    realms: ReadonlyMap<string, Variables>,
    policies: ReadonlyMap<string, readonly Rule[]>,
  ) {
    this.document = document;
    this.#realms = realms;
    this.#policies = policies;
    for (const variables of realms.values()) {
      for (const name of variables.keys()) {
        if (!this.#variables.has(name)) this.#variables.set(name, this.#variables.size);
      }
    }
    for (const { realm, principal, where = {}, policies: names } of document.bindings) {
      const binding = { realm, where: Object.entries(where), policies: names };
      if (principal === undefined) {
        this.#common.push(binding);
        continue;
      }
      const whose = `${realm ?? ''} ${principal}`;
      const own = this.#own.get(whose);
      if (own === undefined) this.#own.set(whose, [binding]);
      else own.push(binding);
    }
  }

  scopeFor(principal: Principal): Scope {
    const variables = this.#realms.get(principal.realm);
    if (variables === undefined) return new BoundScope([], [], {});
    const values: Record<string, string> = {};
    for (const [name, source] of variables) {
      const value = source.kind === 'name' ? principal.name : ownValue(principal.variables, name);
      if (value !== undefined) values[name] = value;
    }
    const common = boundPolicies(this.#common, principal.realm, values);
    const own = boundPolicies(
      this.#own.get(`${principal.realm} ${principal.name}`) ?? [],
      principal.realm,
      values,
    );
    for (const policy of common) own.delete(policy);
    // One trie for what many share and one for the principal's own, so that neither is made for each principal.
    const ruleSets = [common, own].filter(({ size }) => size > 0).map((names) => this.#ruleSetOf(names));
    return new BoundScope(ruleSets, this.#numbered(values), values);
  }

  #numbered(values: Readonly<Record<string, string>>): VariableValues {
    return Array.from(this.#variables.keys(), (name) => {
      const value = ownValue(values, name);
      return value !== undefined && isSegment(value) ? value : undefined;
    });
  }

  #ruleSetOf(names: ReadonlySet<string>): RuleSet {
    const key = JSON.stringify([...names]);
    const known = this.#ruleSets.get(key);
    if (known !== undefined) return known;
    const made = new RuleSet(
      [...names].flatMap((name) => this.#policies.get(name) ?? []),
      this.#variables,
    );
    const [oldest] = this.#ruleSets.keys();
    if (this.#ruleSets.size >= ruleSetsMax && oldest !== undefined) this.#ruleSets.delete(oldest);
    this.#ruleSets.set(key, made);
    return made;
  }
}

const ownValue = (values: Readonly<Record<string, string>> | undefined, name: string): string | undefined =>
  values !== undefined && Object.hasOwn(values, name) ? values[name] : undefined;

/** In the document's order, each once. */
function boundPolicies(
  bindings: readonly Binding[],
  realm: string,
  values: Readonly<Record<string, string>>,
): Set<string> {
  const names = new Set<string>();
  for (const binding of bindings) {
    if (binding.realm !== undefined && binding.realm !== realm) continue;
    if (!binding.where.every(([variable, value]) => ownValue(values, variable) === value)) continue;
    for (const name of binding.policies) names.add(name);
  }
  return names;
}

/** The rules of some policies, for all principals that have them. */
class RuleSet {
  readonly rules: readonly Rule[];
  readonly trie: RuleTrie;
  readonly clusterAllows: ReadonlySet<ClusterVerb>;
  readonly clusterDenies: ReadonlySet<ClusterVerb>;
  readonly limits: Partial<ScopeLimits>;

  constructor(rules: readonly Rule[], variables: ReadonlyMap<string, number>) {
    this.rules = rules;
    this.trie = new RuleTrie(rules, variables);
    this.clusterAllows = clusterVerbsOf(rules, 'allow');
    this.clusterDenies = clusterVerbsOf(rules, 'deny');
    this.limits = mostGenerous(rules.map(({ limits }) => limits));
  }
}

const clusterVerbsOf = (rules: readonly Rule[], effect: Rule['effect']): ReadonlySet<ClusterVerb> =>
  new Set(rules.filter((rule) => rule.effect === effect).flatMap((rule) => [...rule.clusterVerbs]));

const unlimited: ScopeLimits = {
  pending: Number.POSITIVE_INFINITY,
  keys: Number.POSITIVE_INFINITY,
  subscriptions: Number.POSITIVE_INFINITY,
  requestsInFlight: Number.POSITIVE_INFINITY,
  requestsPerSecond: Number.POSITIVE_INFINITY,
  storedBytes: Number.POSITIVE_INFINITY,
  connections: Number.POSITIVE_INFINITY,
};

/** Quantity by quantity; what nobody limits is not there. */
function mostGenerous(all: readonly Partial<ScopeLimits>[]): Partial<ScopeLimits> {
  const most: { -readonly [Name in keyof ScopeLimits]?: number } = {};
  for (const limits of all) {
    for (const name of Object.keys(unlimited) as (keyof ScopeLimits)[]) {
      const limit = limits[name];
      if (limit !== undefined) most[name] = Math.max(most[name] ?? 0, limit);
    }
  }
  return most;
}

class BoundScope implements Scope {
  readonly #ruleSets: readonly RuleSet[];
  readonly #numbered: VariableValues;
  readonly #values: Readonly<Record<string, string>>;

  constructor(
    ruleSets: readonly RuleSet[],
    numbered: VariableValues,
    values: Readonly<Record<string, string>>,
  ) {
    this.#ruleSets = ruleSets;
    this.#numbered = numbered;
    this.#values = values;
  }

  get limits(): ScopeLimits {
    return { ...unlimited, ...mostGenerous(this.#ruleSets.map(({ limits }) => limits)) };
  }

  allows(verb: Verb, key: string): boolean {
    if (!isKeyVerb(verb)) return this.#allowsCluster(verb);
    ask(verb, key, this.#numbered);
    let granted = false;
    for (const { trie } of this.#ruleSets) {
      const found = trie.decide(granted);
      if (found === denied) return false;
      if (found === allowed) granted = true;
    }
    return granted;
  }

  #allowsCluster(verb: ClusterVerb): boolean {
    return (
      this.#ruleSets.some(({ clusterAllows }) => clusterAllows.has(verb)) &&
      !this.#ruleSets.some(({ clusterDenies }) => clusterDenies.has(verb))
    );
  }

  allowsPattern(verb: Verb, asked: Pattern | string): boolean {
    const pattern = typeof asked === 'string' ? patternOrNone(asked) : asked;
    if (pattern === undefined || !isKeyVerb(verb)) return false;
    for (const { trie } of this.#ruleSets) if (trie.deniesPart(verb, pattern, this.#numbered)) return false;
    for (const { trie } of this.#ruleSets) if (trie.contains(verb, pattern, this.#numbered)) return true;
    return false;
  }

  allowanceOf(verb: Verb, pattern: Pattern): string | undefined {
    if (!isKeyVerb(verb)) return undefined;
    for (const { trie } of this.#ruleSets) {
      const allowance = trie.allowanceOf(verb, pattern, this.#numbered);
      if (allowance !== undefined) return allowance;
    }
    return undefined;
  }

  patternsOf(verb: KeyVerb): { readonly allow: readonly Pattern[]; readonly deny: readonly Pattern[] } {
    const allow: Pattern[] = [];
    const deny: Pattern[] = [];
    for (const { rules } of this.#ruleSets) {
      for (const { effect, keyVerbs, patterns } of rules) {
        if (!keyVerbs.has(verb)) continue;
        for (const pattern of patterns) {
          if (effect === 'deny') deny.push(widenVariables(pattern, this.#values));
          const bound = effect === 'allow' ? bindVariables(pattern, this.#values) : undefined;
          if (bound !== undefined) allow.push(bound);
        }
      }
    }
    return { allow, deny };
  }

  valueBytesMax(verb: Verb, key: string): number {
    return this.#most('valueBytesMax', verb, key);
  }

  ttlMaxMs(verb: Verb, key: string): number {
    return this.#most('ttlMaxMs', verb, key);
  }

  #most(quantity: 'valueBytesMax' | 'ttlMaxMs', verb: Verb, key: string): number {
    if (!isKeyVerb(verb)) return 0;
    ask(verb, key, this.#numbered);
    let most = 0;
    for (const { trie } of this.#ruleSets) {
      const found = trie.most(quantity);
      if (found < 0) return 0;
      most = Math.max(most, found);
    }
    return most;
  }

  explain(verb: Verb, keyOrPattern: string): Decision {
    const rules = this.#ruleSets.flatMap((ruleSet) => ruleSet.rules);
    for (const effect of ['deny', 'allow'] as const) {
      for (const rule of rules) {
        if (rule.effect !== effect) continue;
        const pattern = isKeyVerb(verb)
          ? this.#decidingPattern(rule, effect, verb, keyOrPattern)
          : rule.clusterVerbs.has(verb)
            ? ''
            : undefined;
        if (pattern === undefined) continue;
        const { policy, index } = rule;
        return { allowed: effect === 'allow', rule: { policy, index, effect, pattern } };
      }
    }
    return { allowed: false };
  }

  /** By the definition, so without the trie. */
  #decidingPattern(
    rule: Rule,
    effect: 'allow' | 'deny',
    verb: KeyVerb,
    keyOrPattern: string,
  ): string | undefined {
    const asked = patternOrNone(keyOrPattern);
    if (asked === undefined || !rule.keyVerbs.has(verb)) return undefined;
    for (const pattern of rule.patterns) {
      if (effect === 'deny') {
        if (overlaps(widenVariables(pattern, this.#values), asked)) return pattern.text;
        continue;
      }
      const bound = bindVariables(pattern, this.#values);
      if (bound !== undefined && contains(bound, asked)) return pattern.text;
    }
    return undefined;
  }
}

function patternOrNone(text: string): Pattern | undefined {
  const parsed = parsePattern(text);
  return parsed.ok ? parsed.pattern : undefined;
}
