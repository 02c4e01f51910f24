/** The rules of a document, compiled: every problem is reported with its place. */
import {
  clusterVerbs,
  isClusterVerb,
  isKeyVerb,
  keyVerbs,
  type ClusterVerb,
  type KeyVerb,
  type LimitDocument,
  type RuleDocument,
} from './document.ts';
import { millisecondsIn } from './durations.ts';
import { parsePattern, type Pattern } from './patterns.ts';
import type { ScopeLimits } from './scope.ts';
import { parseSize } from './sizes.ts';

export type Report = (place: string, problem: string) => void;

export interface Rule {
  readonly policy: string;
  /** The rule's place in its policy; the first is 0. */
  readonly index: number;
  readonly effect: 'allow' | 'deny' | 'limit';
  readonly keyVerbs: ReadonlySet<KeyVerb>;
  readonly clusterVerbs: ReadonlySet<ClusterVerb>;
  readonly patterns: readonly Pattern[];
  readonly valueBytesMax: number;
  readonly ttlMaxMs: number;
  readonly limits: Partial<ScopeLimits>;
}

type Effect = Rule['effect'];

const effects = ['allow', 'deny', 'limit'] as const satisfies readonly Effect[];

export function compileRules(
  policy: string,
  rules: readonly RuleDocument[],
  variables: ReadonlySet<string>,
  report: Report,
): readonly Rule[] {
  return rules.map((rule, index) => {
    const place = `policies.${policy}[${index}]`;
    return { policy, index, ...compileRule(place, rule, variables, report) };
  });
}

type RuleBody = Omit<Rule, 'policy' | 'index'>;

function compileRule(
  place: string,
  rule: RuleDocument,
  variables: ReadonlySet<string>,
  report: Report,
): RuleBody {
  const named = effects.filter((effect) => rule[effect] !== undefined);
  const [effect = 'allow'] = named;
  if (named.length !== 1) report(place, 'needs exactly one of allow, deny and limit');
  if (effect === 'limit') return compileLimitRule(place, rule, report);
  const verbs = compileVerbs(`${place}.${effect}`, rule[effect] ?? [], report);
  return {
    effect,
    ...verbs,
    patterns: compilePatterns(place, rule, verbs, variables, report),
    valueBytesMax: compileAllowMax(place, effect, rule, valueMax, report),
    ttlMaxMs: compileAllowMax(place, effect, rule, ttlMax, report),
    limits: {},
  };
}

type Verbs = Pick<Rule, 'keyVerbs' | 'clusterVerbs'>;

function compileVerbs(place: string, names: readonly string[], report: Report): Verbs {
  const ofKeys = new Set<KeyVerb>();
  const ofCluster = new Set<ClusterVerb>();
  if (names.length === 0) report(place, 'names no verb');
  for (const name of names) {
    if (name === '*') for (const verb of keyVerbs) ofKeys.add(verb);
    else if (isKeyVerb(name)) ofKeys.add(name);
    else if (isClusterVerb(name)) ofCluster.add(name);
    else
      report(
        place,
        `there is no verb '${name}': known are * ${keyVerbs.join(' ')} ${clusterVerbs.join(' ')}`,
      );
  }
  return { keyVerbs: ofKeys, clusterVerbs: ofCluster };
}

function compilePatterns(
  place: string,
  { on }: RuleDocument,
  verbs: Verbs,
  variables: ReadonlySet<string>,
  report: Report,
): readonly Pattern[] {
  const texts = on === undefined ? [] : typeof on === 'string' ? [on] : on;
  const aboutKeys = verbs.keyVerbs.size > 0;
  if (texts.length === 0 && aboutKeys)
    report(`${place}.on`, 'is missing: on which keys? (for all of them: **)');
  if (on !== undefined && !aboutKeys && verbs.clusterVerbs.size > 0) {
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
  return patterns;
}

/** A setting that bounds what an allow allows. */
interface AllowMax {
  readonly setting: 'value_max' | 'ttl_max';
  readonly parse: (text: string) => number | undefined;
  readonly inDeny: string;
  readonly unreadable: string;
}

const valueMax: AllowMax = {
  setting: 'value_max',
  parse: parseSize,
  inDeny: 'has no meaning in a deny: a deny forbids values of any size',
  unreadable: 'is no size: write a whole number with B, KiB or MiB, as in 64KiB',
};

const ttlMax: AllowMax = {
  setting: 'ttl_max',
  parse: millisecondsIn,
  inDeny: 'has no meaning in a deny: a deny forbids values for any time',
  unreadable: 'is no duration: write a whole number with ms, s, m, h or d, as in 30d',
};

function compileAllowMax(
  place: string,
  effect: Effect,
  rule: RuleDocument,
  { setting, parse, inDeny, unreadable }: AllowMax,
  report: Report,
): number {
  const text = rule[setting];
  if (text === undefined) return Number.POSITIVE_INFINITY;
  if (effect === 'deny') report(`${place}.${setting}`, inDeny);
  const most = parse(text);
  if (most === undefined) report(`${place}.${setting}`, `'${text}' ${unreadable}`);
  return most ?? 0;
}

function compileLimitRule(place: string, rule: RuleDocument, report: Report): RuleBody {
  for (const setting of ['on', 'value_max', 'ttl_max'] as const) {
    if (rule[setting] === undefined) continue;
    report(`${place}.${setting}`, 'has no meaning beside limit, which is for the whole principal');
  }
  return {
    effect: 'limit',
    keyVerbs: new Set(),
    clusterVerbs: new Set(),
    patterns: [],
    valueBytesMax: 0,
    ttlMaxMs: 0,
    limits: compileLimits(`${place}.limit`, rule.limit ?? {}, report),
  };
}

/** The settings of a limit that are counts, and the least that lets a principal do anything at all. */
const counts = [
  ['pending', 'pending', 0],
  ['keys', 'keys', 0],
  ['subscriptions', 'subscriptions', 0],
  ['requests_in_flight', 'requestsInFlight', 1],
  ['requests_per_second', 'requestsPerSecond', 1],
  ['connections', 'connections', 1],
] as const;

/** More than any server has; a larger number is a slip. */
const countMax = 1_000_000_000;

function compileLimits(place: string, limit: LimitDocument, report: Report): Partial<ScopeLimits> {
  const limits: { -readonly [Name in keyof ScopeLimits]?: number } = {};
  if (Object.keys(limit).length === 0) report(place, 'names nothing to limit');
  for (const [setting, name, least] of counts) {
    const count = limit[setting];
    if (count === undefined) continue;
    if (Number.isInteger(count) && count >= least && count <= countMax) limits[name] = count;
    else report(`${place}.${setting}`, `${count} is no whole number from ${least} to ${countMax}`);
  }
  if (limit.stored !== undefined) {
    const bytes = parseSize(limit.stored);
    if (bytes === undefined) report(`${place}.stored`, `'${limit.stored}' ${valueMax.unreadable}`);
    else limits.storedBytes = bytes;
  }
  return limits;
}
