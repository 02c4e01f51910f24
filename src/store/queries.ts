/** Reads over many keys. The work of each is bounded: what is left waits for the next page. */
import type { Change, Future } from '../protocol/index.ts';
import { isOneRun, matches, skipFrom, type Pattern } from '../scopes/index.ts';
import type { FutureTable, KeyRecord } from './future-table.ts';
import type { KeyOrder } from './key-order.ts';
import type { OrderedKeys } from './ordered-keys.ts';
import { freshAt } from './transitions.ts';
import type { ChangesPage, ChangesQuery, ListPage, ListQuery } from './types.ts';

/** Keys looked at for one page of a list: a few milliseconds when none of them match. */
const listVisitMax = 10_000;
/** Keys put into groups by one read that needs them: about two milliseconds. */
const groupedPerRead = 1000;
/** A future's numbers, times and framing. */
const futureOverheadBytes = 64;

const sizeOf = ({ key, value, contentType, rejection, producer }: Future): number =>
  futureOverheadBytes +
  key.length +
  (value?.length ?? 0) +
  contentType.length +
  (rejection === undefined ? 0 : rejection.code.length + rejection.message.length) +
  producer.length;

const withoutValue = (future: Future): Future => {
  if (future.value === undefined) return future;
  const { value: _value, ...rest } = future;
  return rest;
};

/** What to walk for the pattern; 'making': a part of the groups that it takes has been made. */
const keysFor = (order: KeyOrder, pattern: Pattern, within: Pattern | undefined): OrderedKeys | 'making' => {
  const grouped = within !== undefined && !isOneRun(within) && !isOneRun(pattern);
  return (grouped ? order.matching(within, groupedPerRead) : undefined) ?? order.all;
};

/** Whether the key is in the run of keys where all are that the pattern matches: one behind it ends a walk. */
const isInRun = ({ exact, text, literalPrefix }: Pattern, key: string): boolean =>
  exact ? key === text : key.startsWith(literalPrefix);

export const list = (table: FutureTable, query: ListQuery): ListPage => {
  const { pattern, after, limit, bytesMax, nowMs } = query;
  const keys = keysFor(table.ordered, pattern, query.within);
  if (keys === 'making') return { futures: [], next: undefined, readOnAfter: after, looked: 0 };
  const prefix = pattern.literalPrefix;
  const futures: Future[] = [];
  let bytes = 0;
  let looked = 0;
  let last = '';
  let more = false;
  keys.scan(after > prefix ? after : prefix, (key) => {
    if (!isInRun(pattern, key)) return undefined;
    if (looked >= listVisitMax) {
      more = true;
      return undefined;
    }
    looked++;
    last = key;
    if (!matches(pattern, key)) return skipFrom(pattern, key);
    if (key === after) return key;
    const future = table.find(key)?.future;
    if (future === undefined) return key;
    const fresh = freshAt(future, nowMs);
    const shown = query.values && !fresh.sensitive ? fresh : withoutValue(fresh);
    bytes += sizeOf(shown);
    // There is more only if there is more that matches: another key must not be told by a page that follows.
    if (futures.length > 0 && (futures.length >= limit || bytes > bytesMax)) {
      more = true;
      return undefined;
    }
    futures.push(shown);
    // Nothing that an exact pattern matches comes behind it.
    return pattern.exact ? undefined : key;
  });
  // The last key that was looked at may be none of the pattern's, and so none that the asker may know of.
  const shown = futures.at(-1)?.key;
  return {
    futures,
    next: more ? shown : undefined,
    readOnAfter: more && shown === undefined ? last : undefined,
    looked,
  };
};

const matchesAny = (patterns: readonly Pattern[], key: string): boolean => {
  for (const pattern of patterns) if (matches(pattern, key)) return true;
  return false;
};

const changeOf = ({ key, revision, future }: KeyRecord): Change =>
  future === undefined ? { kind: 'deleted', revision, key } : { kind: 'future', revision, key, future };

/** So far behind, a few keys are sorted by revision sooner than all changes are walked. */
const gapLeast = 512;
/** So many keys are collected for each page, at most: in about a millisecond. */
const scopeKeysMax = 2048;

/**
 * What changed after the revision among the keys that the patterns match, in the order of revisions, and how many keys
 * were looked at; `records` undefined: there are too many such keys.
 */
const changedInScope = (
  table: FutureTable,
  query: ChangesQuery,
): { readonly records: readonly KeyRecord[] | undefined; readonly looked: number } => {
  const changed = new Set<KeyRecord>();
  let looked = 0;
  for (const [number, pattern] of query.patterns.entries()) {
    for (const order of [table.ordered, table.deleted]) {
      const keys = keysFor(order, pattern, query.within?.[number]);
      // Until they are made, this page is read without.
      const walked = keys === 'making' ? order.all : keys;
      let full = false;
      walked.scan(pattern.literalPrefix, (key) => {
        if (!isInRun(pattern, key)) return undefined;
        if (looked >= scopeKeysMax) {
          full = true;
          return undefined;
        }
        looked++;
        if (!matches(pattern, key)) return skipFrom(pattern, key);
        const record = table.find(key);
        if (record !== undefined && record.revision > query.revision) changed.add(record);
        return pattern.exact ? undefined : key;
      });
      if (full) return { records: undefined, looked };
    }
  }
  return { records: [...changed].sort((a, b) => a.revision - b.revision), looked };
};

interface Walked {
  readonly looked: number;
  readonly manyKeys: boolean;
}

/** Visits what changed after the query's revision, in the order of revisions. */
const walkChanges = (
  table: FutureTable,
  query: ChangesQuery,
  revision: number,
  visit: (record: KeyRecord) => boolean,
): Walked => {
  const manyKeys = query.manyKeys ?? false;
  if (manyKeys || revision - query.revision <= gapLeast) {
    table.revisions.walk(query.revision, visit);
    return { looked: 0, manyKeys };
  }
  const { records, looked } = changedInScope(table, query);
  if (records === undefined) table.revisions.walk(query.revision, visit);
  else records.every(visit);
  return { looked, manyKeys: records === undefined };
};

export const changesAfter = (table: FutureTable, query: ChangesQuery, revision: number): ChangesPage => {
  const changes: Change[] = [];
  let visits = 0;
  let bytes = 0;
  /** Where the changes of the revision under way begin. */
  let groupFrom = 0;
  let groupRevision = 0;
  let upTo = query.revision;
  let cut = false;
  const overfull = (): boolean => changes.length > query.limit || bytes > query.bytesMax;
  /** False: the revision under way does not fit any more. */
  const closeGroup = (): boolean => {
    if (overfull() && groupFrom > 0) {
      changes.length = groupFrom;
      return false;
    }
    upTo = groupRevision;
    groupFrom = changes.length;
    return true;
  };
  const { looked, manyKeys } = walkChanges(table, query, revision, (record) => {
    if (record.revision !== groupRevision) {
      if (groupRevision !== 0) {
        cut =
          !closeGroup() ||
          changes.length >= query.limit ||
          bytes >= query.bytesMax ||
          visits >= query.visitMax;
        if (cut) return false;
      }
      groupRevision = record.revision;
    }
    visits++;
    if (matchesAny(query.patterns, record.key)) {
      const change = changeOf(record);
      changes.push(change);
      bytes += change.kind === 'future' ? sizeOf(change.future) : change.key.length;
    }
    return true;
  });
  if (!cut && groupRevision !== 0) cut = !closeGroup();
  return {
    changes,
    upTo: cut ? upTo : Math.max(query.revision, revision),
    looked: looked + visits * query.patterns.length,
    manyKeys,
  };
};
