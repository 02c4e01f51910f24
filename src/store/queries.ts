/** Reads over many keys. The work of each is bounded: what is left waits for the next page. */
import type { Change, Future } from '../protocol/index.ts';
import { matches, type Pattern } from '../scopes/index.ts';
import type { FutureTable, KeyRecord } from './future-table.ts';
import { freshAt } from './transitions.ts';
import type { ChangesPage, ChangesQuery, ListPage, ListQuery } from './types.ts';

/** Keys looked at for one page of a list: about 2 ms when none of them match. */
const listVisitMax = 10_000;
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

export const list = (table: FutureTable, query: ListQuery): ListPage => {
  const { pattern, after, limit, bytesMax, nowMs } = query;
  const prefix = pattern.literalPrefix;
  const futures: Future[] = [];
  let bytes = 0;
  let visits = 0;
  let last = '';
  let more = false;
  table.ordered.scan(after > prefix ? after : prefix, (key) => {
    if (key === after) return true;
    if (!key.startsWith(prefix)) return false;
    if (futures.length >= limit || visits >= listVisitMax) {
      more = true;
      return false;
    }
    if (matches(pattern, key)) {
      const future = table.find(key)?.future;
      if (future !== undefined) {
        const fresh = freshAt(future, nowMs);
        const shown = query.values && !fresh.sensitive ? fresh : withoutValue(fresh);
        bytes += sizeOf(shown);
        if (bytes > bytesMax && futures.length > 0) {
          more = true;
          return false;
        }
        futures.push(shown);
      }
    }
    visits++;
    last = key;
    // Nothing that an exact pattern matches comes behind it.
    return !pattern.exact;
  });
  // The last key that was looked at may be none of the pattern's, and so none that the asker may know of.
  const shown = futures.at(-1)?.key;
  return {
    futures,
    next: more ? shown : undefined,
    readOnAfter: more && shown === undefined ? last : undefined,
  };
};

const matchesAny = (patterns: readonly Pattern[], key: string): boolean => {
  for (const pattern of patterns) if (matches(pattern, key)) return true;
  return false;
};

const changeOf = ({ key, revision, future }: KeyRecord): Change =>
  future === undefined ? { kind: 'deleted', revision, key } : { kind: 'future', revision, key, future };

/** So few keys are sorted by revision sooner than a long tail of changes is walked. */
const scopeKeysMax = 512;

/**
 * What changed after the revision among the keys that begin as the patterns do, in the order of revisions; undefined:
 * there are too many such keys.
 */
const changedInScope = (table: FutureTable, query: ChangesQuery): readonly KeyRecord[] | undefined => {
  const changed = new Set<KeyRecord>();
  let left = scopeKeysMax;
  for (const pattern of query.patterns) {
    const prefix = pattern.literalPrefix;
    for (const keys of [table.ordered, table.deleted]) {
      keys.scan(prefix, (key) => {
        if (left === 0 || !key.startsWith(prefix)) return false;
        left--;
        const record = matches(pattern, key) ? table.find(key) : undefined;
        if (record !== undefined && record.revision > query.revision) changed.add(record);
        return !pattern.exact;
      });
      if (left === 0) return undefined;
    }
  }
  return [...changed].sort((a, b) => a.revision - b.revision);
};

/** Visits what changed after the query's revision, in the order of revisions: by the shorter of the two ways. */
const walkChanges = (
  table: FutureTable,
  query: ChangesQuery,
  revision: number,
  visit: (record: KeyRecord) => boolean,
): void => {
  const inScope = revision - query.revision > scopeKeysMax ? changedInScope(table, query) : undefined;
  if (inScope === undefined) table.revisions.walk(query.revision, visit);
  else inScope.every(visit);
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
  walkChanges(table, query, revision, (record) => {
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
  return { changes, upTo: cut ? upTo : Math.max(query.revision, revision) };
};
