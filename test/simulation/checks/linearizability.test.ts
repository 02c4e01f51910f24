import { assert as assertProperty, integer, nat, property } from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkLinearizable, formatHistory, parseHistory } from '../../../src/simulation/checks/index.ts';
import type { HistoryOperation, HistorySeen } from '../../../src/simulation/checks/index.ts';
import { checkHistory } from '../../chaos/checks.ts';
import { HistoryMaker, seededRandom } from './support/history-maker.ts';

const exact = { earlySlackMs: 0, lateSlackMs: 0 };

const resolved = (value: string, generation: number, revision: number): HistorySeen => ({
  state: 'resolved',
  value,
  generation,
  revision,
});

const get = (callMs: number, returnMs: number, output: HistorySeen, key = 'k'): HistoryOperation => ({
  client: 1,
  kind: 'get',
  key,
  callMs,
  returnMs,
  output,
});

const put = (
  callMs: number,
  returnMs: number | undefined,
  value: string,
  told: { generation: number; revision: number } | undefined,
  key = 'k',
): HistoryOperation => ({
  client: 2,
  kind: 'resolve',
  key,
  callMs,
  returnMs,
  input: { kind: 'resolve', key, value, supersede: true },
  output: told === undefined ? 'unknown' : { ...told, state: 'resolved', unchanged: false },
});

const verdict = (...history: readonly HistoryOperation[]): string => checkLinearizable(history, exact).kind;

describe('a history that is right', () => {
  test('is accepted, whatever overlaps, expires or goes unanswered', () => {
    assertProperty(
      property(nat(), integer({ min: 1, max: 6 }), integer({ min: 1, max: 8 }), (seed, keys, overlap) => {
        const history = HistoryMaker.make(seed, { operations: 80, keys, overlap, lost: 0.08 });
        expect(checkLinearizable(history, exact)).toMatchObject({ kind: 'ok' });
        expect(checkLinearizable(history)).toMatchObject({ kind: 'ok' });
      }),
      { numRuns: 60 },
    );
  });

  test('survives being written and read', () => {
    const history = HistoryMaker.make(7, { operations: 60, keys: 4 });
    expect(checkLinearizable(parseHistory(formatHistory(history)), exact)).toMatchObject({ kind: 'ok' });
    expect(parseHistory(formatHistory(history))).toEqual(history);
  });

  test('may have a write that nobody heard of happen late, or never', () => {
    expect(
      verdict(
        put(0, undefined, 'a', undefined),
        get(1, 2, { state: 'absent' }),
        get(5, 6, resolved('a', 1, 1)),
      ),
    ).toBe('ok');
    expect(verdict(put(0, undefined, 'a', undefined), get(5, 6, { state: 'absent' }))).toBe('ok');
  });

  test('of 10,000 operations on 50 keys is judged within two seconds', () => {
    const history = HistoryMaker.make(1, { operations: 10_000, keys: 50, overlap: 16, lost: 0.01 });
    // By the processor's time: other tests run beside this one.
    const started = process.cpuUsage();
    expect(checkLinearizable(history, exact)).toMatchObject({ kind: 'ok' });
    const { user, system } = process.cpuUsage(started);
    expect((user + system) / 1000).toBeLessThan(2000);
  });
});

describe('a history that is wrong', () => {
  test('by a lost write is refused', () => {
    expect(verdict(put(0, 1, 'a', { generation: 1, revision: 1 }), get(2, 3, { state: 'absent' }))).toBe(
      'violated',
    );
  });

  test('by a stale read is refused', () => {
    const writes = [
      put(0, 1, 'a', { generation: 1, revision: 1 }),
      put(2, 3, 'b', { generation: 2, revision: 2 }),
    ];
    expect(verdict(...writes, get(4, 5, resolved('a', 1, 1)))).toBe('violated');
    expect(verdict(...writes, get(2, 5, resolved('a', 1, 1)))).toBe('ok');
    expect(verdict(...writes, get(1, 2, resolved('b', 2, 2)), get(2, 3, resolved('a', 1, 1)))).toBe('ok');
    expect(verdict(...writes, get(1, 2, resolved('b', 2, 2)), get(2.5, 3, resolved('a', 1, 1)))).toBe(
      'violated',
    );
  });

  test('by a generation settled twice is refused', () => {
    expect(
      verdict(put(0, 1, 'a', { generation: 1, revision: 1 }), put(2, 3, 'b', { generation: 1, revision: 2 })),
    ).toBe('violated');
    expect(
      verdict(
        put(0, undefined, 'a', undefined),
        get(1, 2, resolved('a', 1, 1)),
        get(3, 4, resolved('b', 1, 2)),
        put(0, undefined, 'b', undefined),
      ),
    ).toBe('violated');
  });

  test('by revisions against the order of time is refused, on other keys too', () => {
    expect(
      verdict(
        put(0, 1, 'a', { generation: 1, revision: 2 }, 'a'),
        put(2, 3, 'b', { generation: 1, revision: 1 }, 'b'),
      ),
    ).toBe('violated');
    expect(
      verdict(
        put(0, 1, 'a', { generation: 1, revision: 1 }, 'a'),
        put(0, 1, 'b', { generation: 1, revision: 1 }, 'b'),
      ),
    ).toBe('violated');
  });

  test('by half a batch is refused', () => {
    const batch: HistoryOperation = {
      client: 3,
      kind: 'batch',
      callMs: 0,
      input: [
        { kind: 'resolve', key: 'a', value: 'batch' },
        { kind: 'resolve', key: 'b', value: 'batch', supersede: true },
      ],
      output: 'unknown',
    };
    const before = put(0, 1, 'b', { generation: 1, revision: 1 }, 'b');
    const half = [before, batch, get(2, 3, resolved('batch', 1, 2), 'a')];
    expect(verdict(...half, get(4, 5, resolved('batch', 2, 2), 'b'))).toBe('ok');
    expect(verdict(...half, get(4, 5, resolved('b', 1, 1), 'b'))).toBe('violated');
  });

  test('by a value that expired too early, or was shown too late, is refused', () => {
    const written: HistoryOperation = {
      client: 1,
      kind: 'resolve',
      key: 'k',
      callMs: 0,
      returnMs: 5,
      input: { kind: 'resolve', key: 'k', value: 'a', ttlMs: 100 },
      output: { generation: 1, state: 'resolved', revision: 1, unchanged: false },
    };
    const expired: HistorySeen = { state: 'expired', generation: 1, revision: 2 };
    expect(verdict(written, get(90, 99, expired))).toBe('violated');
    expect(verdict(written, get(90, 100, expired))).toBe('ok');
    expect(verdict(written, get(105, 110, resolved('a', 1, 1)))).toBe('ok');
    expect(verdict(written, get(106, 110, resolved('a', 1, 1)))).toBe('violated');
    expect(verdict(written, get(106, 110, expired), get(111, 112, resolved('a', 1, 3)))).toBe('violated');
  });

  test('by an answer that contradicts the state is refused', () => {
    const refused = (error: string): HistoryOperation => ({
      client: 1,
      kind: 'resolve',
      key: 'k',
      callMs: 2,
      returnMs: 3,
      input: { kind: 'resolve', key: 'k', value: 'b', ifGeneration: 1 },
      output: { error },
    });
    const written = put(0, 1, 'a', { generation: 1, revision: 1 });
    expect(verdict(written, refused('ALREADY_SETTLED'))).toBe('ok');
    expect(verdict(written, refused('PRECONDITION_FAILED'))).toBe('violated');
    expect(verdict(refused('PRECONDITION_FAILED'))).toBe('ok');
    expect(verdict(refused('ALREADY_SETTLED'))).toBe('violated');
    expect(verdict(refused('UNAVAILABLE'))).toBe('ok');
  });

  test('is explained by the first answer that makes no sense', () => {
    const history = HistoryMaker.make(3, { operations: 100, keys: 1, lost: 0 });
    const last = history.at(-1)?.callMs ?? 0;
    const wrong = get(last + 100, last + 101, resolved('never written', 99, 9999), 'k/0');
    const found = checkLinearizable([...history, wrong], exact);
    expect(found.kind).toBe('violated');
    expect(found.kind === 'violated' ? found.explanation : '').toMatch(
      new RegExp(`no order of the operations on k/0 explains what was told at ${last + 101} ms`),
    );
  });

  test('is refused wherever one read or written number is another', () => {
    const missed: string[] = [];
    let corrupted = 0;
    for (let seed = 0; seed < 200; seed += 1) {
      const random = seededRandom(seed);
      const history = HistoryMaker.make(seed, { operations: 60, keys: 2, lost: 0, overlap: 2 });
      const at = Math.floor(random() * history.length);
      const operation = history[at];
      if (operation === undefined || operation.kind === 'batch') continue;
      const { output } = operation;
      if (output === 'unknown' || 'error' in output || output.state === 'absent') continue;
      corrupted += 1;
      const changed = { ...output, generation: output.generation + 1 };
      const wrong = history.with(at, { ...operation, output: changed } as HistoryOperation);
      if (checkLinearizable(wrong, exact).kind !== 'violated') missed.push(`${seed} at ${at}`);
    }
    expect(corrupted).toBeGreaterThan(80);
    // The last generation of a key, told to one alone, can be any: a deletion may have been forgotten before it.
    expect(missed.length).toBeLessThan(corrupted / 5);
  });

  test('that is too tangled is undecided, never accepted', () => {
    const history = HistoryMaker.make(5, { operations: 200, keys: 1, overlap: 20 });
    const tangled = checkLinearizable(history, { ...exact, stepsMax: 10 });
    expect(tangled).toMatchObject({ kind: 'undecided', keys: 1, undecided: 1 });
    expect(checkLinearizable(history, exact)).toEqual({ kind: 'ok', keys: 1 });
  });

  test('is no success where processes are broken: what was not judged is told, and not kept', () => {
    const history = HistoryMaker.make(5, { operations: 200, keys: 1, overlap: 20 });
    const { violations } = checkHistory(history, 10);
    expect(violations).toEqual([expect.stringContaining('of 1 keys 1 are undecided')]);
    expect(checkHistory(history)).toEqual({ violations: [], notes: ['of 1 keys 0 are undecided'] });
  });
});

test('of many writes without an answer those that happened are found by what others were told', () => {
  // No two are alike: which of them happened makes a difference.
  const lost = Array.from({ length: 25 }, (_, at): HistoryOperation => {
    const value = `lost ${at}`;
    const input = { kind: 'resolve', key: 'k', value, supersede: true, ttlMs: 5000 + at } as const;
    return { client: 2, kind: 'resolve', key: 'k', callMs: 10 * at, input, output: 'unknown' };
  });
  // Tried in the wrong order the first leaves every subset of the lost ones to be looked at.
  const told = [
    get(300, 900, resolved('lost 20', 1, 5)),
    put(310, 900, 'told', { generation: 2, revision: 43 }),
  ];
  expect(checkLinearizable([...lost, ...told], { stepsMax: 20_000 })).toEqual({ kind: 'ok', keys: 1 });
  const never = get(300, 900, resolved('never', 1, 5));
  expect(checkLinearizable([...lost, never, ...told.slice(1)], { stepsMax: 20_000 }).kind).toBe('violated');
});
