import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import {
  reasonWithRetryAfter,
  retryAfterMsOfField,
  retryAfterMsOfReason,
  retryAfterSeconds,
} from '../../src/protocol/index.ts';

describe('when to come back', () => {
  test.prop([fc.integer({ min: 0, max: 3_600_000 }), fc.string()])(
    'is read from the reason of a close as it was said, never sooner',
    (ms, text) => {
      const read = retryAfterMsOfReason(reasonWithRetryAfter(ms, text));
      expect(read).toBeGreaterThanOrEqual(ms);
      expect(read).toBeLessThan(ms + 1000);
      expect(retryAfterMsOfField(String(retryAfterSeconds(ms)))).toBe(read);
    },
  );

  test('is an hour at most, whatever is said', () => {
    expect(retryAfterMsOfReason('retry-after=999999999')).toBe(3_600_000);
    expect(retryAfterMsOfField('86400')).toBe(3_600_000);
  });

  test.each([
    '',
    'too many',
    'retry-after=',
    'retry-after=-1',
    'retry-after=1.5',
    ' retry-after=1',
    'retry-after=1x',
    'retry-after=9999999999',
  ])('is not in a reason that says %j', (reason) => expect(retryAfterMsOfReason(reason)).toBeUndefined());

  test.each([undefined, '', 'soon', '-1', '1.5', 'Wed, 21 Oct 2026 07:28:00 GMT'])(
    'is not in a field that says %j',
    (field) => expect(retryAfterMsOfField(field)).toBeUndefined(),
  );
});
