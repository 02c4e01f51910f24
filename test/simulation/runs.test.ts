import { describe, expect, test } from 'vitest';
import { drawPlan, run } from '../../src/simulation/index.ts';

const traceOf = async (
  seed: number,
): Promise<{ readonly lines: readonly string[]; readonly history: string }> => {
  const lines: string[] = [];
  const { history } = await run(drawPlan(seed), { sink: (line) => void lines.push(line) });
  return { lines, history: JSON.stringify(history) };
};

describe('simulated runs', () => {
  test.each([2, 7, 11])(
    'seed %i is the same run each time, to the byte of its trace',
    async (seed) => {
      const [first, second] = [await traceOf(seed), await traceOf(seed)];
      expect(first.lines.length).toBeGreaterThan(500);
      expect(second.lines.length).toBe(first.lines.length);
      expect(second.lines.join('\n') === first.lines.join('\n')).toBe(true);
      expect(second.history === first.history).toBe(true);
    },
    120_000,
  );

  test('differ from seed to seed', () => {
    const plans = new Set(
      Array.from({ length: 50 }, (_, seed) => JSON.stringify({ ...drawPlan(seed), seed: 0 })),
    );
    expect(plans.size).toBe(50);
  });

  test('lie in wait for each moment there is, in some of the first 60 seeds', () => {
    const faults = Array.from({ length: 60 }, (_, at) => drawPlan(at + 1).faults).flat();
    const moments = new Set(faults.flatMap((fault) => (fault.kind === 'ambush' ? [fault.moment] : [])));
    expect(moments).toEqual(new Set(['joint', 'unsealed', 'install', 'opening']));
  });

  test('keep every promise under faults, and serve everyone once these are over', async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const { failure } = await run(drawPlan(seed));
      expect(failure, `seed ${seed}`).toBeUndefined();
    }
  }, 300_000);
});
