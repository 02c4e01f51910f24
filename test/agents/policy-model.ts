/**
 * What policies allow, worked out a second time straight from their definition, so that the servers' matcher is not its
 * own judge: rule by rule and segment by segment, without tries, and without a line of src/.
 */

interface Rule {
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  readonly on?: string | readonly string[];
}

interface Binding {
  readonly realm?: string;
  readonly principal?: string;
  readonly where?: Readonly<Record<string, string>>;
  readonly policies: readonly string[];
}

export interface PolicyDocument {
  readonly realms: Readonly<Record<string, unknown>>;
  readonly policies: Readonly<Record<string, readonly Rule[]>>;
  readonly bindings: readonly Binding[];
}

export interface ModelPrincipal {
  readonly realm: string;
  readonly name: string;
  readonly variables: Readonly<Record<string, string>>;
}

type Segments = readonly string[];

interface BoundRule {
  readonly effect: 'allow' | 'deny';
  readonly verbs: readonly string[];
  readonly patterns: readonly Segments[];
}

/** `*`: exactly one segment; a last `**`: one or more. */
export const matches = (pattern: Segments, key: Segments): boolean => {
  const last = pattern.length - 1;
  const isOpen = pattern[last] === '**';
  if (isOpen ? key.length < pattern.length : key.length !== pattern.length) return false;
  for (let at = 0; at < pattern.length; at += 1) {
    if (isOpen && at === last) return true;
    if (pattern[at] !== '*' && pattern[at] !== key[at]) return false;
  }
  return true;
};

/** Whether every key of `inner` is one of `outer`. */
const isInside = (inner: Segments, outer: Segments): boolean => {
  const [a, ...innerRest] = inner;
  const [b, ...outerRest] = outer;
  if (a === undefined || b === undefined) return a === b;
  if (b === '**') return true;
  if (a === '**' || (b !== '*' && a !== b)) return false;
  return isInside(innerRest, outerRest);
};

/** Whether some key is in both. */
const share = (one: Segments, other: Segments): boolean => {
  const [a, ...oneRest] = one;
  const [b, ...otherRest] = other;
  if (a === undefined || b === undefined) return a === b;
  if (a === '**' || b === '**') return true;
  if (a !== '*' && b !== '*' && a !== b) return false;
  return share(oneRest, otherRest);
};

const variableIn = (segment: string): string | undefined => /^\$\{(.*)\}$/.exec(segment)?.[1];

/** Undefined: it allows nothing, because the principal lacks a variable. A deny is for all values then. */
const bind = (
  text: string,
  effect: BoundRule['effect'],
  variables: ModelPrincipal['variables'],
): Segments | undefined => {
  const segments: string[] = [];
  for (const segment of text.split('/')) {
    const variable = variableIn(segment);
    const value = variable === undefined ? segment : variables[variable];
    if (value === undefined && effect === 'allow') return undefined;
    segments.push(value ?? '*');
  }
  return segments;
};

/** What one principal may do. */
export class ModelScope {
  readonly #rules: readonly BoundRule[];

  constructor(document: PolicyDocument, principal: ModelPrincipal) {
    const names = document.bindings
      .filter((binding) => isFor(binding, principal))
      .flatMap(({ policies }) => policies);
    this.#rules = names
      .flatMap((name) => document.policies[name] ?? [])
      .map((rule) => boundRule(rule, principal));
  }

  allows(verb: string, key: string): boolean {
    const asked = key.split('/');
    const hit = (effect: BoundRule['effect']): boolean =>
      this.#some(effect, verb, (pattern) => matches(pattern, asked));
    return !hit('deny') && hit('allow');
  }

  /** As a whole, within one rule's pattern. */
  allowsPattern(verb: string, text: string): boolean {
    const asked = text.split('/');
    return (
      !this.#some('deny', verb, (pattern) => share(asked, pattern)) &&
      this.#some('allow', verb, (pattern) => isInside(asked, pattern))
    );
  }

  #some(effect: BoundRule['effect'], verb: string, holds: (pattern: Segments) => boolean): boolean {
    return this.#rules.some(
      (rule) =>
        rule.effect === effect &&
        (rule.verbs.includes(verb) || rule.verbs.includes('*')) &&
        rule.patterns.some(holds),
    );
  }
}

const isFor = ({ realm, principal, where = {} }: Binding, asked: ModelPrincipal): boolean =>
  (realm === undefined || realm === asked.realm) &&
  (principal === undefined || principal === asked.name) &&
  Object.entries(where).every(([variable, value]) => asked.variables[variable] === value);

const boundRule = ({ allow, deny, on = [] }: Rule, { variables }: ModelPrincipal): BoundRule => {
  const effect = deny === undefined ? 'allow' : 'deny';
  const texts = typeof on === 'string' ? [on] : on;
  return {
    effect,
    verbs: deny ?? allow ?? [],
    patterns: texts.flatMap((text) => {
      const bound = bind(text, effect, variables);
      return bound === undefined ? [] : [bound];
    }),
  };
};
