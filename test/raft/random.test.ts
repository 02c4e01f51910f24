import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { membersOf } from '../../src/raft/index.ts';
import { play, runs, script, seed } from './support/random-scripts.ts';

const runScripts = (withChanges: boolean): void => {
  fc.assert(
    fc.property(script, (played) => {
      const { cluster, reads } = play(played, withChanges);
      cluster.convergeOrFail();

      const leader = cluster.leader() ?? 0;
      const proposal = cluster.propose(leader, 'last');
      const read = cluster.read(leader);
      cluster.settle();
      cluster.run(12);
      expect(cluster.dropped.get(proposal)).toBeUndefined();
      for (const id of membersOf(cluster.status(leader).configuration)) {
        expect(cluster.machine(id).items.at(-1)).toBe('last');
      }
      expect(cluster.reads.get(read)?.kind).toBe('index');
      // Every read of a member that did not crash since has ended, one way or the other.
      for (const token of reads.keys()) expect(cluster.reads.has(token)).toBe(true);
    }),
    { numRuns: runs, seed, endOnFailure: false },
  );
};

describe('random scripts', () => {
  test('stay safe under any faults, and converge when these end', { timeout: 600_000 }, () => {
    runScripts(false);
  });

  test('stay safe while members change too, and every change is finished', { timeout: 600_000 }, () => {
    runScripts(true);
  });
});
