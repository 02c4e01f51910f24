/**
 * Decides by all rules of a policy at once: a trie of segments whose nodes say which verbs are decided below them, so
 * that a check walks only what could still decide it. Variables stay open in the trie, and each principal's values are
 * passed in: one trie serves all principals that have the same policies.
 *
 * Where a variable has no value, a deny goes on as with `*`, and no allow does.
 */
import { keyVerbs, type KeyVerb } from './document.ts';
import { segmentAt, type Pattern, type Segment } from './patterns.ts';
import type { Rule } from './rules.ts';

/** By a variable's number; undefined: there is no value that is a legal segment. */
export type VariableValues = readonly (string | undefined)[];

/** How far the most generous of some allows goes. */
interface Bound {
  verbs: number;
  readonly valueBytesMax: number;
  readonly ttlMaxMs: number;
}

type Quantity = 'valueBytesMax' | 'ttlMaxMs';

/** What the patterns that end at one place decide; verbs are bits. */
interface Verdict {
  allow: number;
  deny: number;
  readonly bounds: Bound[];
}

class Node {
  /** The verbs that some allow, some deny, at or below this node decides. */
  allow = 0;
  deny = 0;
  /** Of denies with at least one more segment. */
  denyBelow = 0;
  literals: Map<string, Node> | undefined = undefined;
  one: Node | undefined = undefined;
  variables: { readonly variable: number; readonly node: Node }[] | undefined = undefined;
  here: Verdict | undefined = undefined;
  rest: Verdict | undefined = undefined;
}

const bits = Object.fromEntries(keyVerbs.map((verb, index) => [verb, 1 << index])) as Readonly<
  Record<KeyVerb, number>
>;

/** Nothing decides; an allow does; a deny does. Of two the larger counts. */
const undecided = 0;
export const allowed = 1;
export const denied = 2;
type Found = typeof undecided | typeof allowed | typeof denied;

/** No most: the key is denied. */
const deniedMost = -1;

/** A key in its segments, and what is asked about it. */
interface Question {
  key: string;
  readonly segments: string[];
  count: number;
  verb: number;
  values: VariableValues;
}

/** Made once: a check makes no garbage but the key's segments, and none begins within another. */
const question: Question = { key: '', segments: [''], count: 1, verb: 0, values: [] };

/** Splits the key, for all tries that are asked next. A write asks several times about the same one. */
export function ask(verb: KeyVerb, key: string, values: VariableValues): void {
  question.verb = bits[verb];
  question.values = values;
  if (key === question.key) return;
  question.key = key;
  let count = 0;
  let start = 0;
  for (;;) {
    const slash = key.indexOf('/', start);
    question.segments[count] = slash < 0 ? key.slice(start) : key.slice(start, slash);
    count += 1;
    if (slash < 0) break;
    start = slash + 1;
  }
  question.count = count;
}

export class RuleTrie {
  readonly #root = new Node();

  /** `variables`: the number of each variable. */
  constructor(rules: readonly Rule[], variables: ReadonlyMap<string, number>) {
    for (const rule of rules) {
      let verbs = 0;
      for (const verb of rule.keyVerbs) verbs |= bits[verb];
      if (verbs === 0) continue;
      for (const pattern of rule.patterns) addPattern(this.#root, rule, verbs, pattern, variables);
    }
  }

  /** What the rules decide about the key of `ask`. `deniesOnly`: it is allowed already, look for a deny. */
  decide(deniesOnly: boolean): Found {
    return decide(this.#root, question, 0, deniesOnly);
  }

  /** The most that the allows grant to the key of `ask`; 0 where there is none, negative where it is denied. */
  most(quantity: Quantity): number {
    return mostOf(this.#root, question, 0, false, quantity);
  }

  /** Whether one single allow contains the pattern. */
  contains(verb: KeyVerb, pattern: Pattern, values: VariableValues): boolean {
    return contains(this.#root, pattern, 0, bits[verb], values);
  }

  /** The pattern of an allow that contains the pattern, its variables bound; undefined: none does. */
  allowanceOf(verb: KeyVerb, pattern: Pattern, values: VariableValues): string | undefined {
    return allowanceOf(this.#root, pattern, 0, bits[verb], values);
  }

  /** Whether a deny has a key in common with the pattern. */
  deniesPart(verb: KeyVerb, pattern: Pattern, values: VariableValues): boolean {
    return overlaps(this.#root, pattern, 0, bits[verb], values);
  }
}

function addPattern(
  root: Node,
  rule: Rule,
  verbs: number,
  pattern: Pattern,
  variables: ReadonlyMap<string, number>,
): void {
  let node = root;
  for (const segment of pattern.segments) {
    if (rule.effect === 'allow') node.allow |= verbs;
    else {
      node.deny |= verbs;
      node.denyBelow |= verbs;
    }
    if (segment.kind === 'rest') {
      node.rest ??= { allow: 0, deny: 0, bounds: [] };
      addVerdict(node.rest, rule, verbs);
      return;
    }
    node = childFor(node, segment, variables);
  }
  if (rule.effect === 'allow') node.allow |= verbs;
  else node.deny |= verbs;
  node.here ??= { allow: 0, deny: 0, bounds: [] };
  addVerdict(node.here, rule, verbs);
}

function childFor(
  node: Node,
  segment: Exclude<Segment, { kind: 'rest' }>,
  variables: ReadonlyMap<string, number>,
): Node {
  switch (segment.kind) {
    case 'one':
      node.one ??= new Node();
      return node.one;
    case 'literal': {
      node.literals ??= new Map();
      let next = node.literals.get(segment.text);
      if (next === undefined) {
        next = new Node();
        node.literals.set(segment.text, next);
      }
      return next;
    }
    case 'variable': {
      const variable = variables.get(segment.name);
      if (variable === undefined) throw new Error(`The variable ${segment.name} has no number: give it one`);
      node.variables ??= [];
      const known = node.variables.find((edge) => edge.variable === variable);
      if (known !== undefined) return known.node;
      const next = new Node();
      node.variables.push({ variable, node: next });
      return next;
    }
    default:
      return segment satisfies never;
  }
}

function addVerdict(verdict: Verdict, rule: Rule, verbs: number): void {
  if (rule.effect === 'deny') {
    verdict.deny |= verbs;
    return;
  }
  verdict.allow |= verbs;
  const { valueBytesMax, ttlMaxMs } = rule;
  const same = verdict.bounds.find(
    (bound) => bound.valueBytesMax === valueBytesMax && bound.ttlMaxMs === ttlMaxMs,
  );
  if (same === undefined) verdict.bounds.push({ verbs, valueBytesMax, ttlMaxMs });
  else same.verbs |= verbs;
}

function foundIn(verdict: Verdict | undefined, verb: number, deniesOnly: boolean): Found {
  if (verdict === undefined) return undecided;
  if ((verdict.deny & verb) !== 0) return denied;
  return !deniesOnly && (verdict.allow & verb) !== 0 ? allowed : undecided;
}

/** `deniesOnly`: allows do not count here, or one was found already, and only a deny could change that. */
function decide(node: Node, asked: Question, index: number, deniesOnly: boolean): Found {
  const { verb } = asked;
  if (((deniesOnly ? node.deny : node.allow | node.deny) & verb) === 0) return undecided;
  const segment = asked.segments[index];
  if (index >= asked.count || segment === undefined) return foundIn(node.here, verb, deniesOnly);
  let best = foundIn(node.rest, verb, deniesOnly);
  if (best === denied) return denied;
  const literal = node.literals?.get(segment);
  if (literal !== undefined) {
    const found = decide(literal, asked, index + 1, deniesOnly || best === allowed);
    if (found === denied) return denied;
    if (found > best) best = found;
  }
  if (node.variables !== undefined) {
    for (const { variable, node: next } of node.variables) {
      const value = asked.values[variable];
      if (value !== undefined && value !== segment) continue;
      const found = decide(next, asked, index + 1, deniesOnly || value === undefined || best === allowed);
      if (found === denied) return denied;
      if (found > best) best = found;
    }
  }
  if (node.one !== undefined) {
    const found = decide(node.one, asked, index + 1, deniesOnly || best === allowed);
    if (found > best) best = found;
  }
  return best;
}

function mostIn(verdict: Verdict | undefined, verb: number, deniesOnly: boolean, quantity: Quantity): number {
  if (verdict === undefined) return 0;
  if ((verdict.deny & verb) !== 0) return deniedMost;
  if (deniesOnly || (verdict.allow & verb) === 0) return 0;
  let most = 0;
  for (const bound of verdict.bounds) {
    if ((bound.verbs & verb) !== 0 && bound[quantity] > most) most = bound[quantity];
  }
  return most;
}

function mostOf(node: Node, asked: Question, index: number, deniesOnly: boolean, quantity: Quantity): number {
  const { verb } = asked;
  if (((deniesOnly ? node.deny : node.allow | node.deny) & verb) === 0) return 0;
  const segment = asked.segments[index];
  if (index >= asked.count || segment === undefined) return mostIn(node.here, verb, deniesOnly, quantity);
  let most = mostIn(node.rest, verb, deniesOnly, quantity);
  if (most === deniedMost) return deniedMost;
  const literal = node.literals?.get(segment);
  if (literal !== undefined) {
    const found = mostOf(literal, asked, index + 1, deniesOnly, quantity);
    if (found === deniedMost) return deniedMost;
    most = Math.max(most, found);
  }
  if (node.variables !== undefined) {
    for (const { variable, node: next } of node.variables) {
      const value = asked.values[variable];
      if (value !== undefined && value !== segment) continue;
      const found = mostOf(next, asked, index + 1, deniesOnly || value === undefined, quantity);
      if (found === deniedMost) return deniedMost;
      most = Math.max(most, found);
    }
  }
  if (node.one !== undefined) {
    const found = mostOf(node.one, asked, index + 1, deniesOnly, quantity);
    if (found === deniedMost) return deniedMost;
    most = Math.max(most, found);
  }
  return most;
}

/** Whether an allow at or below the node contains what of the pattern begins at the index. */
function contains(
  node: Node,
  pattern: Pattern,
  index: number,
  verb: number,
  values: VariableValues,
): boolean {
  if ((node.allow & verb) === 0) return false;
  const segment = segmentAt(pattern, index);
  if (segment === undefined) return allowsIn(node.here, verb);
  if (allowsIn(node.rest, verb)) return true;
  if (segment.kind === 'rest') return false;
  if (node.one !== undefined && contains(node.one, pattern, index + 1, verb, values)) return true;
  if (segment.kind !== 'literal') return false;
  const literal = node.literals?.get(segment.text);
  if (literal !== undefined && contains(literal, pattern, index + 1, verb, values)) return true;
  for (const { variable, node: next } of node.variables ?? []) {
    if (values[variable] === segment.text && contains(next, pattern, index + 1, verb, values)) return true;
  }
  return false;
}

/**
 * As `contains`, and which allow it is: what of its pattern begins at the index; '' where that has ended. Literals come
 * first, and `*` last: in the order of keys, who reads by it walks one run rather than many.
 */
function allowanceOf(
  node: Node,
  pattern: Pattern,
  index: number,
  verb: number,
  values: VariableValues,
): string | undefined {
  if ((node.allow & verb) === 0) return undefined;
  const segment = segmentAt(pattern, index);
  if (segment === undefined) return allowsIn(node.here, verb) ? '' : undefined;
  if (allowsIn(node.rest, verb)) return '**';
  if (segment.kind === 'rest') return undefined;
  const below = (next: Node, text: string): string | undefined => {
    const tail = allowanceOf(next, pattern, index + 1, verb, values);
    if (tail === undefined) return undefined;
    return tail === '' ? text : `${text}/${tail}`;
  };
  let found: string | undefined;
  if (segment.kind === 'literal') {
    const literal = node.literals?.get(segment.text);
    if (literal !== undefined) found = below(literal, segment.text);
    for (const { variable, node: next } of node.variables ?? []) {
      if (found !== undefined) return found;
      if (values[variable] === segment.text) found = below(next, segment.text);
    }
  }
  return found ?? (node.one === undefined ? undefined : below(node.one, '*'));
}

const allowsIn = (verdict: Verdict | undefined, verb: number): boolean =>
  verdict !== undefined && (verdict.allow & verb) !== 0;

const deniesIn = (verdict: Verdict | undefined, verb: number): boolean =>
  verdict !== undefined && (verdict.deny & verb) !== 0;

/** Whether a deny at or below the node shares a key with what of the pattern begins at the index. */
function overlaps(
  node: Node,
  pattern: Pattern,
  index: number,
  verb: number,
  values: VariableValues,
): boolean {
  if ((node.deny & verb) === 0) return false;
  const segment = segmentAt(pattern, index);
  if (segment === undefined) return deniesIn(node.here, verb);
  if (segment.kind === 'rest') return (node.denyBelow & verb) !== 0;
  if (deniesIn(node.rest, verb)) return true;
  if (node.one !== undefined && overlaps(node.one, pattern, index + 1, verb, values)) return true;
  for (const { variable, node: next } of node.variables ?? []) {
    const value = values[variable];
    const apart = segment.kind === 'literal' && value !== undefined && value !== segment.text;
    if (!apart && overlaps(next, pattern, index + 1, verb, values)) return true;
  }
  if (node.literals === undefined) return false;
  if (segment.kind === 'literal') {
    const literal = node.literals.get(segment.text);
    return literal !== undefined && overlaps(literal, pattern, index + 1, verb, values);
  }
  for (const next of node.literals.values()) {
    if (overlaps(next, pattern, index + 1, verb, values)) return true;
  }
  return false;
}
