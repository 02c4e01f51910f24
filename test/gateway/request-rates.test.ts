import { expect, test } from 'vitest';
import { RequestRates } from '../../src/gateway/request-rates.ts';

test('each principal may make so many in a burst, and then so many a second', () => {
  const rates = new RequestRates();
  const waits = [0, 0, 0, 500, 1000].map((nowMs) => rates.waitFor('agents:web1', 2, nowMs));
  expect(waits).toEqual([0, 0, 500, 0, 0]);
  expect(rates.waitFor('agents:web2', 2, 1000)).toBe(0);
});

test('who has used up what it may is not forgotten when thousands of others come', () => {
  const rates = new RequestRates();
  expect(rates.waitFor('agents:greedy', 1, 0)).toBe(0);
  for (let other = 0; other < 5000; other += 1) rates.waitFor(`agents:web${other}`, 1, 10);
  expect(rates.waitFor('agents:greedy', 1, 20)).toBeGreaterThan(0);
});

test('thousands that come at once cost what they cost one by one', () => {
  const secondsFor = (principals: number): number => {
    const rates = new RequestRates();
    const from = process.cpuUsage().user;
    for (let one = 0; one < principals; one += 1) rates.waitFor(`agents:web${one}`, 1, 0);
    return (process.cpuUsage().user - from) / 1e6;
  };
  secondsFor(4000);
  // Each going through all before it: 30,000² / 2 steps, which take seconds.
  expect(secondsFor(30_000)).toBeLessThan(0.5);
});

test('a part of less than one a second is one now and then', () => {
  const rates = new RequestRates();
  const waits = [0, 0, 2000, 4000, 4000].map((nowMs) => rates.waitFor('agents:web1', 0.25, nowMs));
  expect(waits).toEqual([0, 4000, 2000, 0, 4000]);
});

test('nor is who has a part of one a second forgotten before it may make another', () => {
  const rates = new RequestRates();
  expect(rates.waitFor('agents:greedy', 0.25, 0)).toBe(0);
  for (let other = 0; other < 5000; other += 1) rates.waitFor(`agents:web${other}`, 1, 2500);
  expect(rates.waitFor('agents:greedy', 0.25, 2600)).toBeGreaterThan(0);
});
