import { describe, expect, test } from 'vitest';
import { HandshakeLine } from '../../src/gateway/handshake-line.ts';

interface Bench {
  readonly line: HandshakeLine<number>;
  readonly begun: number[];
  readonly late: number[];
  nowMs: number;
  /** All others have had their turn. */
  turn(): void;
}

const lineOf = (placesMax = 100): Bench => {
  let due: (() => void) | undefined;
  const begun: number[] = [];
  const late: number[] = [];
  const bench: Bench = {
    nowMs: 0,
    begun,
    late,
    line: new HandshakeLine<number>({
      placesMax,
      perTurnMax: 3,
      waitMs: 1_000,
      nowMs: () => bench.nowMs,
      nextTurn: (callback) => {
        expect(due).toBeUndefined();
        due = callback;
      },
      begin: (socket) => begun.push(socket),
      tooLate: (socket) => late.push(socket),
    }),
    turn: () => {
      const callback = due;
      due = undefined;
      callback?.();
    },
  };
  return bench;
};

describe('the line for handshakes', () => {
  test('whoever comes alone is begun at once', () => {
    const bench = lineOf();
    bench.line.enter(1);
    expect(bench.begun).toEqual([1]);
    bench.turn();
    bench.turn();
    bench.line.enter(2);
    expect(bench.begun).toEqual([1, 2]);
  });

  test('of many only so many are begun between two turns of the others, in the order of their coming', () => {
    const bench = lineOf();
    for (let socket = 1; socket <= 10; socket += 1) bench.line.enter(socket);
    const begun: number[] = [bench.begun.length];
    for (let turns = 0; turns < 4; turns += 1) {
      bench.turn();
      begun.push(bench.begun.length);
    }
    expect(begun).toEqual([3, 6, 9, 10, 10]);
    expect(bench.begun).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  test('one that leaves holds nobody up', () => {
    const bench = lineOf();
    for (let socket = 1; socket <= 6; socket += 1) bench.line.enter(socket);
    bench.line.leave(4);
    bench.turn();
    expect(bench.begun).toEqual([1, 2, 3, 5, 6]);
  });

  test('those who have waited too long are let go, and cost the others no turn', () => {
    const bench = lineOf();
    for (let socket = 1; socket <= 5; socket += 1) bench.line.enter(socket);
    bench.nowMs = 1_001;
    for (let socket = 6; socket <= 8; socket += 1) bench.line.enter(socket);
    bench.turn();
    expect(bench.late).toEqual([4, 5]);
    expect(bench.begun).toEqual([1, 2, 3, 6, 7, 8]);
  });

  test('has so many places and no more', () => {
    const bench = lineOf(2);
    const entered = [1, 2, 3, 4, 5, 6].map((socket) => bench.line.enter(socket));
    expect(entered).toEqual([true, true, true, true, true, false]);
    bench.turn();
    expect(bench.line.enter(7)).toBe(true);
  });
});
