import { describe, expect, test } from 'vitest';
import { DueReads } from '../../src/server/due-reads.ts';
import type { InFlight } from '../../src/server/requests.ts';

const read = (connection: number, request: number): InFlight => ({
  gateway: 0,
  request: { kind: 'get', connection, request, key: 'a', stale: true },
  over: false,
  readOnAfter: undefined,
  command: undefined,
  deadlineMs: Infinity,
});

/** A clock that stands still, and reads that were added: `count` of each connection. */
const dueReads = (
  counts: Readonly<Record<number, number>>,
): { due: DueReads; spendMs: (ms: number) => void } => {
  let nowMs = 0;
  const due = new DueReads({ monotonicMs: () => nowMs });
  for (const [connection, count] of Object.entries(counts))
    for (let request = 1; request <= count; request++)
      due.add(Number(connection), read(Number(connection), request));
  return { due, spendMs: (ms) => (nowMs += ms) };
};

const named = ({ request }: InFlight): string => `${request.connection}/${request.request}`;

describe('reads that may be answered', () => {
  test('are taken a slice of each connection in turn, each once and in its order', () => {
    const { due } = dueReads({ 1: 130, 2: 3 });
    const order: string[] = [];
    due.run((inFlight) => order.push(named(inFlight)));
    expect(due.any).toBe(false);
    const first = Array.from({ length: 130 }, (_, index) => `1/${index + 1}`);
    expect(order).toEqual([...first.slice(0, 64), '2/1', '2/2', '2/3', ...first.slice(64)]);
  });

  test('that nobody waits for any more are left out', () => {
    const { due } = dueReads({});
    due.add(1, { ...read(1, 1), over: true });
    due.run(() => expect.fail('it was read'));
    expect(due.any).toBe(false);
  });

  test('leave off when their time is over, and go on in the next turn with the other connections', () => {
    const { due, spendMs } = dueReads({ 1: 20, 2: 2 });
    const turns: string[][] = [];
    while (due.any) {
      const turn: string[] = [];
      due.run((inFlight) => {
        turn.push(named(inFlight));
        spendMs(1);
      });
      turns.push(turn);
    }
    expect(turns[0]).toEqual(['1/1', '1/2', '1/3', '1/4', '1/5']);
    expect(turns[1]?.slice(0, 2)).toEqual(['2/1', '2/2']);
    expect(turns.flat()).toHaveLength(22);
  });

  test('that have to read on are not lost where others of their connection are left for the next turn', () => {
    const { due, spendMs } = dueReads({ 1: 80 });
    const times = new Map<string, number>();
    const run = (): void =>
      due.run((inFlight) => {
        const before = times.get(named(inFlight)) ?? 0;
        times.set(named(inFlight), before + 1);
        spendMs(1);
        if (before < 2) due.add(1, inFlight);
      });
    while (due.any) run();
    expect(times.size).toBe(80);
    expect([...times.values()].every((count) => count === 3)).toBe(true);
  });
});
