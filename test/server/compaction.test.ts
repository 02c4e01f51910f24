import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { asLogIndex, asTerm } from '../../src/raft/index.ts';
import { CompactionPolicy } from '../../src/server/compaction.ts';

/** As the policy counts an entry. */
const overheadBytes = 128;
const KiB = 1024;
const MiB = 1024 * KiB;

const sizes = fc.array(fc.oneof(fc.nat(300), fc.nat(64 * KiB), fc.nat(512 * KiB)), {
  minLength: 50,
  maxLength: 400,
});

test('pitfall 42: the log is shortened by itself, a bounded piece at a time, and what is to be kept is kept', () => {
  fc.assert(
    fc.property(fc.integer({ min: 4 * KiB, max: 8 * MiB }), sizes, (retainBytes, payloads) => {
      const policy = new CompactionPolicy(retainBytes);
      const lengths: number[] = [];
      let first = 1;
      const bytesBetween = (from: number, to: number): number =>
        lengths.slice(from - 1, to).reduce((sum, length) => sum + length + overheadBytes, 0);
      for (const [at, length] of payloads.entries()) {
        lengths.push(length);
        const index = at + 1;
        policy.applied({
          index: asLogIndex(index),
          term: asTerm(1),
          kind: 'commands',
          payload: new Uint8Array(length),
        });
        const place = policy.cut();
        if (place !== undefined) {
          expect(place.index).toBeGreaterThanOrEqual(first);
          expect(place.index).toBeLessThan(index);
          // A few milliseconds of work at most: beside the last entries, no more than one cut is to be.
          expect(bytesBetween(first, place.index)).toBeLessThanOrEqual(
            4 * MiB + 2 * (512 * KiB + overheadBytes),
          );
          first = place.index + 1;
          expect(bytesBetween(first, index)).toBeGreaterThanOrEqual(retainBytes);
        }
        // Never more than that: nobody has to free anything by hand.
        const most =
          retainBytes + Math.min(4 * MiB, retainBytes) + 2 * (512 * KiB + overheadBytes) + 256 * KiB;
        expect(bytesBetween(first, index)).toBeLessThanOrEqual(most);
      }
    }),
    { numRuns: 100 },
  );
});
