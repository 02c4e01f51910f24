/** Whether one scope lets read less than another: what was sent by the one may then be what the other forbids. */
import type { ClusterVerb, KeyVerb } from './document.ts';
import { contains, overlaps, type Pattern } from './patterns.ts';
import type { Scope } from './scope.ts';

const keyReads = ['get', 'await', 'list', 'subscribe'] as const satisfies readonly KeyVerb[];

const clusterReads = [
  'cluster.status',
  'member.list',
  'snapshot.save',
  'acl.get',
] as const satisfies readonly ClusterVerb[];

/**
 * Whether something that `before` lets read, a key, a pattern or about the cluster, is not allowed `now`. Never false where
 * it is so. Pattern is held against pattern: what was one pattern and is the union of several now counts as lost.
 */
export const readsLess = (before: Scope, now: Scope): boolean =>
  clusterReads.some((verb) => before.allows(verb, '') && !now.allows(verb, '')) ||
  keyReads.some((verb) => readsLessBy(verb, before, now));

const readsLessBy = (verb: KeyVerb, before: Scope, now: Scope): boolean => {
  const old = before.patternsOf(verb);
  const next = now.patternsOf(verb);
  const isAllowed = within(next.allow);
  const wasDenied = within(old.deny);
  const denied = next.deny.filter((deny) => !wasDenied(deny));
  return old.allow.some(
    (allow) => !wasDenied(allow) && (!isAllowed(allow) || denied.some((deny) => overlaps(deny, allow))),
  );
};

/** Whether one of them contains a pattern. Nearly always it is among them. */
const within = (outer: readonly Pattern[]): ((inner: Pattern) => boolean) => {
  const texts = new Set(outer.map(({ text }) => text));
  return (inner) => texts.has(inner.text) || outer.some((pattern) => contains(pattern, inner));
};
