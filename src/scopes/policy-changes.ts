/** What is different between two policy documents, for people to read before one replaces the other. */
import { canonicalJson } from './canonical-json.ts';
import type { BindingDocument, PolicyDocument, RealmDocument, RuleDocument } from './document.ts';

export type PolicyPart = RealmDocument | RuleDocument | readonly RuleDocument[] | BindingDocument;

/** `place`: where in the document after the change, of what was removed where it was before. */
export type PolicyChange =
  | { readonly kind: 'added'; readonly place: string; readonly after: PolicyPart }
  | { readonly kind: 'removed'; readonly place: string; readonly before: PolicyPart }
  | {
      readonly kind: 'changed';
      readonly place: string;
      readonly before: PolicyPart;
      readonly after: PolicyPart;
    };

/**
 * Realms as a whole, policies rule by rule, bindings one by one; in this order, what was removed first in each. The
 * order of rules and bindings, of verbs, patterns and names in a list, and whether one pattern is in a list make no
 * difference, because they decide nothing. Empty: the documents mean the same, word by word.
 */
export function policyChanges(before: PolicyDocument, after: PolicyDocument): readonly PolicyChange[] {
  return [
    ...byName('realms', before.realms, after.realms, (place, old, now) =>
      canonicalJson(old) === canonicalJson(now) ? [] : [{ kind: 'changed', place, before: old, after: now }],
    ),
    ...byName('policies', before.policies, after.policies, (place, old, now) =>
      oneByOne(place, old, now, meaningOfRule),
    ),
    ...oneByOne('bindings', before.bindings, after.bindings, meaningOfBinding),
  ];
}

function byName<T extends PolicyPart>(
  section: string,
  before: Readonly<Record<string, T>>,
  after: Readonly<Record<string, T>>,
  compare: (place: string, before: T, after: T) => readonly PolicyChange[],
): PolicyChange[] {
  const old = new Map(Object.entries(before));
  const now = new Map(Object.entries(after));
  const changes: PolicyChange[] = [];
  for (const [name, part] of old) {
    if (!now.has(name)) changes.push({ kind: 'removed', place: `${section}.${name}`, before: part });
  }
  for (const [name, part] of now) {
    const place = `${section}.${name}`;
    const was = old.get(name);
    if (was === undefined) changes.push({ kind: 'added', place, after: part });
    else changes.push(...compare(place, was, part));
  }
  return changes;
}

/** Parts without names: one that means the same is the same, wherever it is in its list. */
function oneByOne<T extends PolicyPart>(
  place: string,
  before: readonly T[],
  after: readonly T[],
  meaning: (part: T) => string,
): PolicyChange[] {
  const left = new Map<string, number>();
  for (const part of after) {
    const text = meaning(part);
    left.set(text, (left.get(text) ?? 0) + 1);
  }
  const kept = new Map<string, number>();
  const changes: PolicyChange[] = [];
  for (const [index, part] of before.entries()) {
    const text = meaning(part);
    const count = left.get(text) ?? 0;
    if (count === 0) {
      changes.push({ kind: 'removed', place: `${place}[${index}]`, before: part });
      continue;
    }
    left.set(text, count - 1);
    kept.set(text, (kept.get(text) ?? 0) + 1);
  }
  for (const [index, part] of after.entries()) {
    const text = meaning(part);
    const count = kept.get(text) ?? 0;
    if (count === 0) changes.push({ kind: 'added', place: `${place}[${index}]`, after: part });
    else kept.set(text, count - 1);
  }
  return changes;
}

const asSet = (texts: readonly string[]): readonly string[] => [...new Set(texts)].toSorted();

const meaningOfRule = ({ allow, deny, on, ...more }: RuleDocument): string =>
  canonicalJson({
    ...more,
    allow: allow && asSet(allow),
    deny: deny && asSet(deny),
    on: on === undefined ? undefined : asSet(typeof on === 'string' ? [on] : on),
  });

const meaningOfBinding = ({ policies, ...more }: BindingDocument): string =>
  canonicalJson({ ...more, policies: asSet(policies) });
