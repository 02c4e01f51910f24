import { describe, expect, test } from 'vitest';
import { changeValue, ToldTimes } from '../../bench/load/told-times.ts';
import { machineMs } from '../support/light-client.ts';

describe('what is measured of changes that agents are told', () => {
  test('is how long after its scheduled time each was told, by its number', () => {
    const times = new ToldTimes(3);
    const value = changeValue(2, machineMs() - 40);
    expect(value).toHaveLength(256);
    times.take(value);
    expect(times.told).toBe(1);
    expect(times.ms[2]).toBeGreaterThanOrEqual(39.9);
    expect([...times.ms.subarray(0, 2)]).toEqual([Number.NaN, Number.NaN]);
  });

  test('is the first time where one is told twice, and nothing of a change that nobody made', () => {
    const times = new ToldTimes(1);
    times.take(changeValue(0, machineMs() - 1_000));
    const [first] = times.ms;
    times.take(changeValue(0, machineMs() - 9_000));
    times.take(changeValue(7, machineMs()));
    expect(times.told).toBe(1);
    expect([...times.ms]).toEqual([first]);
  });
});
