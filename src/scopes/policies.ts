/**
 * Policies: what a principal may do with which keys. Default is deny; deny beats allow.
 *
 * A document is plain data, as it stands in a policy file. Compiling it checks all of it and reports every problem
 * with its place; asking a compiled policy for a principal's scope binds the variables.
 */
import {
  bindVariables,
  contains,
  isSegment,
  matches,
  overlaps,
  parsePattern,
  widenVariables,
} from './patterns.ts';
import type { Pattern } from './patterns.ts';
import { parseSize } from './sizes.ts';

/** What can be done with a key; `*` in a rule stands for these and no others. */
export const keyVerbs = [
  'get',
  'await',
  'list',
  'subscribe',
  'declare',
  'resolve',
  'reject',
  'delete',
  'touch',
] as const;
/**
 * What can be done with the cluster: in no wildcard, so each is granted by its name only. `member.change`: add,
 * promote, replace and remove servers, and hand leadership over. `snapshot.save`: read all keys and values.
 */
export const clusterVerbs = ['cluster.status', 'member.list', 'member.change', 'snapshot.save'] as const;

export type KeyVerb = (typeof keyVerbs)[number];
export type ClusterVerb = (typeof clusterVerbs)[number];
export type Verb = KeyVerb | ClusterVerb;

export interface RealmDocument {
  /** Who signs the realm's certificates (the name of a PEM file), and what in them is the principal's name. */
  readonly tls?: { readonly issuer: string; readonly identity: 'cn' };
  /** Variables for patterns, and what in the certificate gives their values. */
  readonly vars?: Readonly<Record<string, 'cn'>>;
}

export interface RuleDocument {
  /** Exactly one of allow and deny: verbs, or '*' for all verbs of keys. */
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  /** A pattern or several; not for rules with nothing but verbs of the cluster. */
  readonly on?: string | readonly string[];
  /** With allow: the largest value that may be written under this rule, for example '64KiB'. */
  readonly value_max?: string;
}

export interface BindingDocument {
  /** Absent: every realm. */
  readonly realm?: string;
  /** One principal of the realm, by its name; absent: all of them. */
  readonly principal?: string;
  readonly policies: readonly string[];
}

export interface PolicyDocument {
  readonly realms: Readonly<Record<string, RealmDocument>>;
  readonly policies: Readonly<Record<string, readonly RuleDocument[]>>;
  readonly bindings: readonly BindingDocument[];
}

export interface PolicyProblem {
  /** Where in the document: 'policies.agent[1].on'. */
  readonly place: string;
  readonly problem: string;
}

/** Every problem of a document, each with its place. */
export class PolicyError extends Error {
  readonly problems: readonly PolicyProblem[];

  constructor(problems: readonly PolicyProblem[]) {
    super(problems.map(({ place, problem }) => `${place}: ${problem}`).join('; '));
    this.name = 'PolicyError';
    this.problems = problems;
  }
}

export interface Principal {
  readonly realm: string;
  readonly name: string;
}

/** What one principal may do. */
export interface Scope {
  /**
   * Whether some allow matches the key and no deny does. The key must be valid; for a verb of the cluster there is
   * none, so it is not looked at.
   */
  allows(verb: Verb, key: string): boolean;
  /**
   * Whether the whole pattern is allowed: it is contained in the pattern of one single allow, and shares no key with
   * any deny. A pattern that only the union of several allows covers is refused, and so is a text that is no pattern.
   */
  allowsPattern(verb: Verb, pattern: Pattern | string): boolean;
  /**
   * The largest value, in bytes, that may be written to the key: the most generous of the allows that match, Infinity
   * where one of them sets no limit, 0 where the key is not allowed.
   */
  valueBytesMax(verb: Verb, key: string): number;
}

export interface Policies {
  scopeFor(principal: Principal): Scope;
}

interface Rule {
  readonly effect: 'allow' | 'deny';
  readonly verbs: ReadonlySet<string>;
  readonly patterns: readonly Pattern[];
  readonly valueBytesMax: number;
}

interface Binding {
  readonly realm: string | undefined;
  readonly principal: string | undefined;
  readonly rules: readonly Rule[];
}

type Report = (place: string, problem: string) => void;

/** Throws PolicyError with all problems of the document. */
export function compilePolicies(document: PolicyDocument): Policies {
  const problems: PolicyProblem[] = [];
  const report: Report = (place, problem) => problems.push({ place, problem });

  const variables = new Map<string, readonly string[]>();
  for (const [name, realm] of Object.entries(document.realms)) {
    if (!isSegment(name) || name.includes(':'))
      report(`realms.${name}`, "is no name for a realm: one key segment without ':'");
    variables.set(name, compileVariables(`realms.${name}.vars`, realm, report));
  }
  const everyVariable = new Set([...variables.values()].flat());

  const policies = new Map<string, readonly Rule[]>();
  for (const [name, rules] of Object.entries(document.policies)) {
    const place = `policies.${name}`;
    policies.set(
      name,
      rules.map((rule, index) => compileRule(`${place}[${index}]`, rule, everyVariable, report)),
    );
  }
  const bindings = document.bindings.map((binding, index) =>
    compileBinding(`bindings[${index}]`, binding, new Set(variables.keys()), policies, report),
  );
  if (problems.length > 0) throw new PolicyError(problems);
  return new CompiledPolicies(variables, bindings);
}

function compileVariables(place: string, realm: RealmDocument, report: Report): readonly string[] {
  const names = Object.keys(realm.vars ?? {});
  for (const name of names) {
    if (!parsePattern(`\${${name}}`, { variables: true }).ok) {
      report(
        `${place}.${name}`,
        'is no name for a variable: a-z first, then a-z, 0-9 and _, at most 32 characters',
      );
    }
  }
  return names;
}

function compileRule(
  place: string,
  rule: RuleDocument,
  variables: ReadonlySet<string>,
  report: Report,
): Rule {
  const effect = rule.deny === undefined ? 'allow' : 'deny';
  if ((rule.allow === undefined) === (rule.deny === undefined))
    report(place, 'needs exactly one of allow and deny');
  const verbs = compileVerbs(`${place}.${effect}`, rule[effect] ?? [], report);
  const aboutKeys = keyVerbs.some((verb) => verbs.has(verb));
  const { on, value_max: valueMax } = rule;
  const texts = on === undefined ? [] : typeof on === 'string' ? [on] : on;
  if (texts.length === 0 && aboutKeys)
    report(`${place}.on`, 'is missing: on which keys? (for all of them: **)');
  if (on !== undefined && !aboutKeys && verbs.size > 0) {
    report(`${place}.on`, 'has no meaning here: all verbs of the rule are about the cluster, not about keys');
  }
  const patterns: Pattern[] = [];
  for (const [index, text] of texts.entries()) {
    const parsed = parsePattern(text, { variables: true });
    const patternPlace = typeof on === 'string' ? `${place}.on` : `${place}.on[${index}]`;
    if (!parsed.ok) {
      report(patternPlace, `the pattern '${text}' ${parsed.problem}`);
      continue;
    }
    for (const segment of parsed.pattern.segments) {
      if (segment.kind === 'variable' && !variables.has(segment.name)) {
        report(patternPlace, `the variable '${segment.name}' is in no realm's vars`);
      }
    }
    patterns.push(parsed.pattern);
  }
  return { effect, verbs, patterns, valueBytesMax: compileValueMax(place, effect, valueMax, report) };
}

function compileVerbs(place: string, names: readonly string[], report: Report): ReadonlySet<string> {
  const verbs = new Set<string>();
  if (names.length === 0) report(place, 'names no verb');
  for (const name of names) {
    if (name === '*') for (const verb of keyVerbs) verbs.add(verb);
    else if ([...keyVerbs, ...clusterVerbs].some((verb) => verb === name)) verbs.add(name);
    else
      report(
        place,
        `there is no verb '${name}': known are * ${keyVerbs.join(' ')} ${clusterVerbs.join(' ')}`,
      );
  }
  return verbs;
}

function compileValueMax(
  place: string,
  effect: Rule['effect'],
  text: string | undefined,
  report: Report,
): number {
  if (text === undefined) return Number.POSITIVE_INFINITY;
  if (effect === 'deny')
    report(`${place}.value_max`, 'has no meaning in a deny: a deny forbids values of any size');
  const bytes = parseSize(text);
  if (bytes === undefined)
    report(
      `${place}.value_max`,
      `'${text}' is no size: write a whole number with B, KiB or MiB, as in 64KiB`,
    );
  return bytes ?? 0;
}

function compileBinding(
  place: string,
  binding: BindingDocument,
  realms: ReadonlySet<string>,
  policies: ReadonlyMap<string, readonly Rule[]>,
  report: Report,
): Binding {
  const { realm, principal } = binding;
  if (realm !== undefined && !realms.has(realm))
    report(`${place}.realm`, `there is no realm '${realm}' under realms`);
  if (principal !== undefined && realm === undefined) {
    report(`${place}.principal`, 'needs a realm beside it: the same name in two realms is two principals');
  }
  if (principal !== undefined && !isSegment(principal)) {
    report(`${place}.principal`, `'${principal}' is no principal's name: one key segment, not a pattern`);
  }
  if (binding.policies.length === 0) report(`${place}.policies`, 'names no policy');
  const rules: Rule[] = [];
  for (const [index, name] of binding.policies.entries()) {
    const found = policies.get(name);
    if (found === undefined)
      report(`${place}.policies[${index}]`, `there is no policy '${name}' under policies`);
    else rules.push(...found);
  }
  return { realm, principal, rules };
}

class CompiledPolicies implements Policies {
  /** A realm's variables; each has the principal's name as its value. */
  readonly #variables: ReadonlyMap<string, readonly string[]>;
  readonly #bindings: readonly Binding[];

  constructor(variables: ReadonlyMap<string, readonly string[]>, bindings: readonly Binding[]) {
    this.#variables = variables;
    this.#bindings = bindings;
  }

  scopeFor({ realm, name }: Principal): Scope {
    const names = this.#variables.get(realm);
    if (names === undefined) return new BoundScope([], {});
    const values = Object.fromEntries(names.map((variable) => [variable, name]));
    const rules = new Set<Rule>();
    for (const binding of this.#bindings) {
      if (binding.realm !== undefined && binding.realm !== realm) continue;
      if (binding.principal !== undefined && binding.principal !== name) continue;
      for (const rule of binding.rules) rules.add(rule);
    }
    return new BoundScope([...rules], values);
  }
}

/** One pattern of an allow, with its variables bound. */
interface Allow {
  readonly pattern: Pattern;
  readonly valueBytesMax: number;
}

class BoundScope implements Scope {
  readonly #allows = new Map<string, Allow[]>();
  readonly #denies = new Map<string, Pattern[]>();
  /** The verbs of the cluster that are allowed. */
  readonly #cluster: ReadonlySet<string>;

  constructor(rules: readonly Rule[], values: Readonly<Record<string, string>>) {
    const granted = new Set<string>();
    const refused = new Set<string>();
    for (const rule of rules) {
      for (const verb of clusterVerbs) {
        if (rule.verbs.has(verb)) (rule.effect === 'allow' ? granted : refused).add(verb);
      }
      for (const verb of keyVerbs) {
        if (rule.verbs.has(verb)) this.#addRule(verb, rule, values);
      }
    }
    for (const verb of refused) granted.delete(verb);
    this.#cluster = granted;
  }

  #addRule(verb: KeyVerb, rule: Rule, values: Readonly<Record<string, string>>): void {
    for (const unbound of rule.patterns) {
      const pattern = bindVariables(unbound, values);
      if (rule.effect === 'deny') {
        // A deny that cannot be bound denies all that it could have meant.
        listIn(this.#denies, verb).push(pattern ?? widenVariables(unbound));
      } else if (pattern !== undefined) {
        listIn(this.#allows, verb).push({ pattern, valueBytesMax: rule.valueBytesMax });
      }
    }
  }

  allows(verb: Verb, key: string): boolean {
    if (this.#cluster.has(verb)) return true;
    if (this.#denied(verb, key)) return false;
    for (const { pattern } of this.#allows.get(verb) ?? []) if (matches(pattern, key)) return true;
    return false;
  }

  allowsPattern(verb: Verb, asked: Pattern | string): boolean {
    const pattern = typeof asked === 'string' ? patternOrNone(asked) : asked;
    if (pattern === undefined) return false;
    for (const denied of this.#denies.get(verb) ?? []) if (overlaps(denied, pattern)) return false;
    for (const allow of this.#allows.get(verb) ?? []) if (contains(allow.pattern, pattern)) return true;
    return false;
  }

  valueBytesMax(verb: Verb, key: string): number {
    if (this.#denied(verb, key)) return 0;
    let max = 0;
    for (const { pattern, valueBytesMax } of this.#allows.get(verb) ?? []) {
      if (valueBytesMax > max && matches(pattern, key)) max = valueBytesMax;
    }
    return max;
  }

  #denied(verb: Verb, key: string): boolean {
    for (const pattern of this.#denies.get(verb) ?? []) if (matches(pattern, key)) return true;
    return false;
  }
}

function patternOrNone(text: string): Pattern | undefined {
  const parsed = parsePattern(text);
  return parsed.ok ? parsed.pattern : undefined;
}

function listIn<T>(lists: Map<string, T[]>, name: string): T[] {
  let list = lists.get(name);
  if (list === undefined) {
    list = [];
    lists.set(name, list);
  }
  return list;
}
