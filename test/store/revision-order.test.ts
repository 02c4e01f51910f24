import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { inRevisionOrder } from '../../src/store/revision-order.ts';

interface Item {
  readonly revision: number;
  readonly name: number;
}

const sorted = (items: readonly Item[]): { readonly steps: number; readonly result: readonly Item[] } => {
  const generator = inRevisionOrder(items);
  for (let steps = 1; ; steps += 1) {
    const next = generator.next();
    if (next.done === true) return { steps, result: next.value };
  }
};

test('items come in the order of revisions, and those of one revision as they came', () => {
  const revision = fc.oneof(fc.nat(3), fc.nat(200_000), fc.maxSafeNat());
  fc.assert(
    fc.property(fc.array(revision), (revisions) => {
      const items = revisions.map((one, name) => ({ revision: one, name }));
      expect(sorted(items).result).toEqual(items.toSorted((a, b) => a.revision - b.revision));
    }),
    { numRuns: 300 },
  );
});

test('very many are sorted in many steps', () => {
  const items = Array.from({ length: 300_000 }, (_, name) => ({ revision: (name * 7919) % 300_007, name }));
  const { steps, result } = sorted(items);
  expect(steps).toBeGreaterThan(12);
  expect(result).toEqual(items.toSorted((a, b) => a.revision - b.revision));
});
