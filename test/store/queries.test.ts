import { beforeEach, describe, expect, test } from 'vitest';
import { matches } from '../../src/scopes/index.ts';
import type { ListQuery } from '../../src/store/index.ts';
import { ClusterOfOne, bytes, op, pattern, startMs } from './support/cluster-of-one.ts';

let cluster: ClusterOfOne;
beforeEach(() => {
  cluster = new ClusterOfOne();
});

const query = (text: string, more: Partial<ListQuery> = {}): ListQuery => ({
  pattern: pattern(text),
  after: '',
  limit: 100,
  bytesMax: 1e6,
  values: true,
  nowMs: cluster.nowMs,
  ...more,
});
const keys = (text: string, more: Partial<ListQuery> = {}): string[] =>
  cluster.store.list(query(text, more)).futures.map(({ key }) => key);

const after = (
  revision: number,
  more: { limit?: number; bytesMax?: number; visitMax?: number; on?: string } = {},
) =>
  cluster.store.changesAfter({
    revision,
    patterns: [pattern(more.on ?? '**')],
    limit: more.limit ?? 1000,
    bytesMax: more.bytesMax ?? 1e6,
    visitMax: more.visitMax ?? 1e6,
  });

describe('list', () => {
  beforeEach(() => {
    cluster.write(
      ['b/2', 'a/1', 'b/1', 'b/10', 'b', 'bb/1', 'b/1/x'].map((key) => op.resolve(key, `v ${key}`)),
    );
  });

  test('gives the matching keys in order, not those that only begin alike', () => {
    expect(keys('**')).toEqual(['a/1', 'b', 'b/1', 'b/1/x', 'b/10', 'b/2', 'bb/1']);
    expect(keys('b/*')).toEqual(['b/1', 'b/10', 'b/2']);
    expect(keys('b/**')).toEqual(['b/1', 'b/1/x', 'b/10', 'b/2']);
    expect(keys('b/1')).toEqual(['b/1']);
    expect(keys('b/1', { after: 'b/1' })).toEqual([]);
    expect(keys('c/**')).toEqual([]);
    expect(keys('*/1')).toEqual(['a/1', 'b/1', 'bb/1']);
  });

  test('deleted keys are gone', () => {
    cluster.write(op.delete('b/10'));
    expect(keys('b/*')).toEqual(['b/1', 'b/2']);
  });

  test('goes on behind a key, whether that is still there or not; the last page says so', () => {
    const first = cluster.store.list(query('b/**', { limit: 2 }));
    expect(first.next).toBe('b/1/x');
    cluster.write(op.delete('b/1/x'));
    const second = cluster.store.list(query('b/**', { limit: 2, after: 'b/1/x' }));
    expect(second.futures.map(({ key }) => key)).toEqual(['b/10', 'b/2']);
    expect(second.next).toBeUndefined();
  });

  test('a page ends at its bytes, but holds one future at least', () => {
    cluster.write(op.resolve('b/0', 'x'.repeat(1000)));
    const page = cluster.store.list(query('b/**', { bytesMax: 500 }));
    expect(page.futures.map(({ key }) => key)).toEqual(['b/0']);
    expect(page.next).toBe('b/0');
    expect(keys('b/**', { bytesMax: 200, after: 'b/0' })).toEqual(['b/1', 'b/1/x']);
  });

  test('the work of a page is bounded where nothing matches', () => {
    for (let at = 0; at < 12_000; at += 250) {
      cluster.write(Array.from({ length: 250 }, (_, i) => op.declare(`n/${at + i}`)));
    }
    const page = cluster.store.list(query('n/*/none'));
    expect(page.futures).toEqual([]);
    expect(page).toMatchObject({ next: undefined, readOnAfter: expect.stringMatching(/^n\//) });
    expect(cluster.store.list(query('n/*/none', { after: page.readOnAfter ?? '' }))).toMatchObject({
      futures: [],
      next: undefined,
      readOnAfter: undefined,
    });
  });

  test('a page names no key that the pattern does not match, also where the asker goes on from', () => {
    for (let at = 0; at < 12_000; at += 250) {
      cluster.write(Array.from({ length: 250 }, (_, i) => op.declare(`n/${at + i}/private`)));
    }
    cluster.write([op.declare('n/0/out'), op.declare('n/z/out')]);
    const first = cluster.store.list(query('n/*/out'));
    expect(first).toMatchObject({ futures: [{ key: 'n/0/out' }], next: 'n/0/out', readOnAfter: undefined });
    const second = cluster.store.list(query('n/*/out', { after: first.next ?? '' }));
    expect(second).toMatchObject({ futures: [], next: undefined, readOnAfter: expect.any(String) });
    const third = cluster.store.list(query('n/*/out', { after: second.readOnAfter ?? '' }));
    expect(third).toMatchObject({ futures: [{ key: 'n/z/out' }], next: undefined, readOnAfter: undefined });
  });

  test('a page says that there is more only if more of it matches, whatever other keys follow', () => {
    cluster.write([op.declare('n/a/out'), op.declare('n/z/private')]);
    expect(cluster.store.list(query('n/*/out', { limit: 1 }))).toMatchObject({
      futures: [{ key: 'n/a/out' }],
      next: undefined,
      readOnAfter: undefined,
    });
    cluster.write(op.declare('n/z/out'));
    expect(cluster.store.list(query('n/*/out', { limit: 1 })).next).toBe('n/a/out');
  });

  test('shows no value that is sensitive, was not asked for, or is not fresh any more', () => {
    cluster.write([op.resolve('s/1', 'secret', { sensitive: true }), op.resolve('s/2', 'v', { ttlMs: 10 })]);
    expect(cluster.store.list(query('s/*')).futures.map(({ value }) => value)).toEqual([
      undefined,
      bytes('v'),
    ]);
    const without = cluster.store.list(query('s/*', { values: false })).futures;
    expect(without.map(({ value, state }) => [value, state])).toEqual([
      [undefined, 'resolved'],
      [undefined, 'resolved'],
    ]);
    const late = cluster.store.list(query('s/2', { nowMs: startMs + 10 })).futures[0];
    expect([late?.state, late?.value]).toEqual(['expired', undefined]);
  });
});

describe('changesAfter', () => {
  test('gives each key’s latest change only, in the order of revisions, deletions included', () => {
    cluster.write(op.declare('a'));
    cluster.write(op.declare('b'));
    cluster.write(op.resolve('a', 'v'));
    cluster.write(op.declare('c'));
    cluster.write(op.delete('b'));
    const page = after(0);
    expect(page.changes.map(({ kind, key, revision }) => [kind, key, revision])).toEqual([
      ['future', 'a', 3],
      ['future', 'c', 4],
      ['deleted', 'b', 5],
    ]);
    expect(page.upTo).toBe(5);
    expect(after(3).changes.map(({ key }) => key)).toEqual(['c', 'b']);
    expect(after(5)).toMatchObject({ changes: [], upTo: 5 });
    expect(after(9)).toMatchObject({ changes: [], upTo: 9 });
  });

  test('a page that is cut says up to where it is complete; the next one goes on there without gap or repeat', () => {
    for (let i = 0; i < 20; i++) cluster.write([op.declare(`a/${i}`), op.declare(`b/${i}`)]);
    for (const more of [{ limit: 3 }, { visitMax: 5 }, { bytesMax: 300 }]) {
      const seen: string[] = [];
      let from = 0;
      let pages = 0;
      while (from < cluster.store.revision) {
        const page = after(from, { ...more, on: 'b/*' });
        expect(page.upTo).toBeGreaterThan(from);
        seen.push(...page.changes.map(({ key }) => key));
        from = page.upTo;
        pages++;
      }
      expect(seen).toEqual(Array.from({ length: 20 }, (_, i) => `b/${i}`));
      expect(pages).toBeGreaterThan(3);
    }
  });

  test('the changes of one revision are never parted', () => {
    cluster.write(op.declare('z'));
    cluster.write(Array.from({ length: 50 }, (_, i) => op.declare(`k/${i}`)));
    cluster.write(op.declare('y'));
    expect(after(0, { limit: 10 })).toMatchObject({ upTo: 1, changes: [{ key: 'z' }] });
    expect(after(1, { limit: 10 }).changes).toHaveLength(50);
    expect(after(1, { limit: 10 }).upTo).toBe(2);
    expect(after(1, { visitMax: 10 }).upTo).toBe(2);
    expect(after(2, { limit: 10 }).upTo).toBe(3);
  });

  test('overlapping patterns give a key once', () => {
    cluster.write(op.declare('a/b'));
    const page = cluster.store.changesAfter({
      revision: 0,
      patterns: [pattern('a/*'), pattern('**'), pattern('a/b')],
      limit: 10,
      bytesMax: 1000,
      visitMax: 10,
    });
    expect(page.changes).toHaveLength(1);
  });
});

describe('forgetting deletions', () => {
  test('beyond their number the oldest go, one revision wholly or not at all', () => {
    cluster = new ClusterOfOne({ tombstonesMax: 3 });
    cluster.write(['a', 'b', 'c', 'd', 'e'].map((key) => op.declare(key)));
    cluster.write([op.delete('a'), op.delete('b')]);
    cluster.write(op.delete('c'));
    expect(cluster.store.forgottenUpTo).toBe(0);
    cluster.write(op.delete('d'));
    expect(cluster.store.forgottenUpTo).toBe(2);
    expect(cluster.store.tombstones).toBe(2);
    expect(after(0).changes.map(({ key, kind }) => [key, kind])).toEqual([
      ['e', 'future'],
      ['c', 'deleted'],
      ['d', 'deleted'],
    ]);
  });

  test('those past their age go, by the state’s time', () => {
    cluster = new ClusterOfOne({ tombstoneAgeMs: 1000 });
    cluster.write(op.declare('a'));
    cluster.write(op.delete('a'));
    cluster.later(999);
    cluster.apply();
    expect(cluster.store.tombstones).toBe(1);
    cluster.later(1);
    cluster.apply();
    expect(cluster.store.tombstones).toBe(0);
    expect(cluster.store.forgottenUpTo).toBe(2);
  });

  test('no generation is used again after deletion and forgetting, not even across keys', () => {
    cluster = new ClusterOfOne({ tombstonesMax: 0 });
    for (let i = 0; i < 5; i++) {
      cluster.write(op.declare('a'));
      cluster.write(op.delete('a'));
    }
    cluster.write(op.declare('a'));
    expect(cluster.state('a')).toBe('pending 6');
    cluster.write(op.declare('new'));
    expect(cluster.state('new')).toBe('pending 6');
  });

  test('one entry forgets a bounded number, later ones the rest', () => {
    cluster = new ClusterOfOne({ tombstoneAgeMs: 1000 });
    for (let i = 0; i < 1000; i++) cluster.write([op.declare(`k/${i}`), op.delete(`k/${i}`)]);
    cluster.later(1000);
    cluster.apply();
    expect(cluster.store.tombstones).toBeGreaterThan(500);
    for (let i = 0; i < 4; i++) cluster.apply();
    expect(cluster.store.tombstones).toBe(0);
  });

  test('pitfall 41: who stands before what is forgotten can tell so by forgottenUpTo, which survives a restart', () => {
    cluster = new ClusterOfOne({ tombstonesMax: 1 });
    cluster.write([op.declare('a'), op.declare('b')]);
    cluster.write(op.delete('a'));
    const position = cluster.store.revision - 1;
    expect(position).toBeGreaterThanOrEqual(cluster.store.forgottenUpTo);
    cluster.write(op.delete('b'));
    expect(position).toBeLessThan(cluster.store.forgottenUpTo);
    const copy = cluster.copy();
    expect(copy.forgottenUpTo).toBe(cluster.store.forgottenUpTo);
    expect([copy.epoch, copy.clusterId]).toEqual([1, 'test']);
  });
});

describe('changesAfter, for a few keys among many', () => {
  const scopes = ['small/**', 'small/1', '*/2'];
  beforeEach(() => {
    cluster.write(['small/1', 'small/2', 'small/3', 'other/2'].map((key) => op.resolve(key, 'old')));
    for (let number = 0; number < 1000; number += 1) cluster.write([op.resolve(`many/${number}`, 'v')]);
    cluster.write([op.delete('small/2')]);
    for (let number = 0; number < 1000; number += 1) cluster.write([op.delete(`many/${number}`)]);
    cluster.write([op.resolve('small/3', 'new', { supersede: true })]);
    cluster.write([op.delete('small/1')]);
    cluster.write([op.resolve('small/1', 'again')]);
  });

  test('gives the same as walking all changes', () => {
    for (const on of scopes) {
      const expected = after(0, { limit: 1e6 }).changes.filter(({ key }) => matches(pattern(on), key));
      const page = after(0, { on });
      expect(page.changes, on).toEqual(expected);
      expect(page.upTo).toBe(cluster.store.revision);
    }
    expect(after(0, { on: 'small/**' }).changes.map(({ kind, key }) => `${kind} ${key}`)).toEqual([
      'deleted small/2',
      'future small/3',
      'future small/1',
    ]);
  });

  test('looks at these keys only', () => {
    expect(after(0, { on: 'small/**', visitMax: 3 })).toMatchObject({ upTo: cluster.store.revision });
    expect(after(0, { on: '**', visitMax: 3 }).upTo).toBeLessThan(cluster.store.revision);
  });

  test('comes in pages that join without a gap', () => {
    const keys: string[] = [];
    let upTo = 0;
    while (upTo < cluster.store.revision) {
      const page = after(upTo, { on: 'small/**', limit: 1 });
      keys.push(...page.changes.map(({ key }) => key));
      expect(page.upTo).toBeGreaterThan(upTo);
      ({ upTo } = page);
    }
    expect(keys).toEqual(['small/2', 'small/3', 'small/1']);
  });
});
