import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  asLogIndex,
  asMemberId,
  asTerm,
  describeMessage,
  initialConfiguration,
} from '../../src/raft/index.ts';
import type { Entry } from '../../src/raft/index.ts';
import { Inflights } from '../../src/raft/inflights.ts';
import { Log } from '../../src/raft/log.ts';

const snapshot = { index: asLogIndex(10), term: asTerm(3), configuration: initialConfiguration([1]) };

const entry = (index: number, term: number, bytes = 1): Entry => ({
  term: asTerm(term),
  index: asLogIndex(index),
  kind: 'commands',
  payload: new Uint8Array(bytes),
});

/** After index 10 of term 3, entries of these terms, all durable. */
const logOf = (terms: readonly number[]): Log =>
  new Log({
    snapshot,
    entries: terms.map((term, i) => entry(11 + i, term)),
    commit: asLogIndex(10),
    applied: asLogIndex(10),
  });

const risingTerms = fc
  .array(fc.integer({ min: 3, max: 8 }), { maxLength: 20 })
  .map((terms) => terms.sort((a, b) => a - b));

describe('the log', () => {
  test('finds the last place where another log may agree', () => {
    fc.assert(
      fc.property(
        risingTerms,
        fc.integer({ min: 10, max: 35 }),
        fc.integer({ min: 3, max: 9 }),
        (terms, at, term) => {
          const log = logOf(terms);
          let expected = 10;
          for (let index = 10; index <= Math.min(at, log.last); index += 1) {
            if ((log.termAt(asLogIndex(index)) ?? 99) <= term) expected = index;
          }
          expect(log.lastIndexOfTerm(asLogIndex(at), asTerm(term))).toBe(expected);
        },
      ),
    );
  });

  test('keeps its sums and bounds through appends, truncations, commits, writes and compactions', () => {
    const step = fc.record({
      kind: fc.constantFrom(
        'append',
        'append',
        'truncate',
        'commit',
        'take',
        'persisted',
        'apply',
        'compact',
      ),
      amount: fc.nat(20),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const log = logOf([3, 4]);
        let sequence = 0;
        for (const { kind, amount } of steps) {
          const between = (low: number, high: number) => asLogIndex(low + (amount % (high - low + 1)));
          if (kind === 'append') log.append(entry(log.last + 1, log.lastTerm + (amount % 2), amount));
          if (kind === 'truncate' && log.last > log.commit)
            log.truncateFrom(between(log.commit + 1, log.last));
          if (kind === 'commit') log.commitTo(between(log.commit, log.last));
          if (kind === 'take' && log.hasUnsaved) log.takeUnsaved((sequence += 1));
          if (kind === 'persisted') log.persisted(between(0, sequence));
          if (kind === 'apply') {
            const last = log.takeToApply(amount).at(-1);
            if (last !== undefined) log.appliedTo(last.index);
          }
          if (kind === 'compact') log.compact(between(log.baseIndex, log.applied));
          log.check(1000);
        }
      }),
    );
  });

  test('refuses gaps, falling terms and truncation of what is committed', () => {
    const log = logOf([3, 4]);
    expect(() => log.append(entry(14, 4))).toThrow(/gap/);
    expect(() => log.append(entry(13, 3))).toThrow(/below/);
    log.commitTo(asLogIndex(12));
    expect(() => log.truncateFrom(asLogIndex(12))).toThrow(/two histories/);
    expect(() => log.compact(asLogIndex(12))).toThrow(/only 10 is applied/);
  });
});

describe('the window of appends', () => {
  test('counts its messages and bytes exactly, however it is filled and freed', () => {
    const step = fc.record({ kind: fc.constantFrom('add', 'add', 'free', 'reset'), amount: fc.nat(9) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const window = new Inflights(5, 30);
        let model: { last: number; bytes: number }[] = [];
        let last = 0;
        for (const { kind, amount } of steps) {
          if (kind === 'add' && !window.full) {
            last += 1 + amount;
            window.add(asLogIndex(last), amount);
            model.push({ last, bytes: amount });
          } else if (kind === 'free') {
            const to = Math.max(last - amount, 0);
            window.freeTo(asLogIndex(to));
            model = model.filter((item) => item.last > to);
          } else if (kind === 'reset') {
            window.reset();
            model = [];
          }
          const bytes = model.reduce((sum, item) => sum + item.bytes, 0);
          expect(window).toMatchObject({
            count: model.length,
            bytes,
            full: model.length === 5 || bytes >= 30,
          });
          expect(window.sumBytes()).toBe(bytes);
        }
      }),
    );
  });
});

describe('a printed message', () => {
  test('shows places and sizes, never a payload', () => {
    const printed = describeMessage({
      from: asMemberId(1),
      to: asMemberId(2),
      term: asTerm(4),
      kind: 'append_request',
      previousIndex: asLogIndex(10),
      previousTerm: asTerm(3),
      commit: asLogIndex(9),
      entries: [entry(11, 3, 5), entry(12, 4, 6)],
    });
    expect(printed).toBe('1→2 t4 append_request after 10@3, entries 11@3..12@4 (11 bytes), commit 9');
  });
});
