import { describe, expect, test } from 'vitest';
import { ClusterTimeChecks, SafetyViolation } from '../../../src/simulation/checks/index.ts';

/** What the checks say of entries of which each is made at an instant, with the time that its leader takes it for. */
const cluster = (): {
  readonly checks: ClusterTimeChecks;
  readonly makes: (leader: number, term: number, atMs: number, timeMs: number) => string;
} => {
  const checks = new ClusterTimeChecks();
  const terms = new Set<number>();
  let index = 0;
  return {
    checks,
    makes: (leader, term, atMs, timeMs) => {
      if (!terms.has(term)) checks.leads(leader, term, (index += 1), atMs);
      terms.add(term);
      checks.leads(leader, term, (index += 1), atMs);
      try {
        checks.applied(index, term, timeMs);
      } catch (error) {
        if (error instanceof SafetyViolation) return error.check;
        throw error;
      }
      return 'nothing';
    },
  };
};

describe('cluster time', () => {
  test('that jumps is seen', () => {
    const { makes } = cluster();
    expect(makes(1, 1, 1000, 50_000)).toBe('nothing');
    expect(makes(1, 1, 2000, 51_010)).toBe('nothing');
    expect(makes(1, 1, 3000, 52_200)).toBe('cluster time');
  });

  test('is that of the moment in which an entry is made, however long it waits to be applied', () => {
    const { checks } = cluster();
    checks.leads(1, 1, 1, 900);
    checks.leads(1, 1, 2, 1000);
    checks.leads(1, 1, 3, 2000);
    checks.applied(2, 1, 50_000);
    expect(() => checks.applied(3, 1, 51_000)).not.toThrow();
  });

  test('is carried on by the next leader, which has heard of it', () => {
    const { checks, makes } = cluster();
    checks.started(2);
    expect(makes(1, 1, 1000, 50_000)).toBe('nothing');
    checks.heard(2, 1000);
    expect(makes(2, 2, 2000, 60_000)).toBe('cluster time');
  });

  test('may be ahead at the next leader by what its clock gained since it began to compare, and no more', () => {
    const after = (aheadMs: number, pauseMs = 0): string => {
      const { checks, makes } = cluster();
      for (let atMs = 1000; atMs <= 60_000; atMs += 100) checks.heard(2, atMs);
      makes(1, 1, 60_000, 60_000);
      return makes(2, 2, 60_100 + pauseMs, 60_100 + pauseMs + aheadMs);
    };
    // Two comparisons of five seconds, and the rest of what may be.
    expect(after(300)).toBe('nothing');
    expect(after(450)).toBe('cluster time');
    // One that has heard nothing for long may have gained for as long.
    expect(after(800, 20_000)).toBe('nothing');
    expect(after(1400, 20_000)).toBe('cluster time');
  });

  test('comes through leaders that make no entry, and what their clocks gained is not counted twice', () => {
    const { checks, makes } = cluster();
    for (let atMs = 1000; atMs <= 60_000; atMs += 100)
      for (const member of [2, 3, 4]) checks.heard(member, atMs);
    makes(1, 1, 60_000, 60_000);
    checks.leads(2, 2, 3, 60_100);
    checks.leads(3, 3, 4, 60_200);
    expect(makes(4, 4, 60_300, 60_700)).toBe('nothing');
    expect(makes(4, 4, 60_400, 60_950)).toBe('cluster time');
  });

  test('is carried on without a gain by a leader that is elected again', () => {
    const { checks, makes } = cluster();
    makes(3, 1, 500, 500);
    for (let atMs = 1000; atMs <= 20_000; atMs += 100) checks.heard(1, atMs);
    makes(1, 2, 60_000, 60_010);
    expect(makes(1, 3, 60_100, 60_300)).toBe('cluster time');
  });

  test('may begin anew at the wall clock of a leader that has heard nothing, once', () => {
    const { checks, makes } = cluster();
    expect(makes(1, 1, 1000, 50_000)).toBe('nothing');
    expect(makes(2, 2, 2000, 90_000)).toBe('nothing');
    expect(makes(1, 3, 3000, 120_000)).toBe('cluster time');
    checks.started(1);
    expect(makes(1, 4, 4000, 150_000)).toBe('nothing');
    expect(makes(1, 4, 4100, 155_000)).toBe('cluster time');
  });

  test('of an entry that nobody was seen to make is not taken', () => {
    const { checks } = cluster();
    checks.leads(1, 1, 1, 900);
    expect(() => checks.applied(2, 1, 50_000)).toThrow('nobody was seen to make entry 2@1');
  });
});
