/** Values of futures as text and JSON. */
import { FuturestoreError } from '../protocol/index.ts';
import type { Future } from '../protocol/index.ts';

/** The value's bytes. NO_VALUE if the future is not resolved, or was listed without values. */
export function bytesOf(future: Future): Uint8Array {
  if (future.value !== undefined) return future.value;
  throw new FuturestoreError('NO_VALUE', `${future.key} is ${future.state} and has no value here: await it`);
}

/** The value as UTF-8 text. NO_VALUE as for `bytesOf`, INVALID_ARGUMENT if it is no UTF-8. */
export function textOf(future: Future): string {
  const bytes = bytesOf(future);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FuturestoreError(
      'INVALID_ARGUMENT',
      `the value of ${future.key} is no UTF-8 text: take its bytes`,
    );
  }
}

/** The value parsed as JSON. Errors as for `textOf`; the error text never quotes the value. */
export function jsonOf(future: Future): unknown {
  const text = textOf(future);
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new FuturestoreError('INVALID_ARGUMENT', `the value of ${future.key} is no JSON: take its text`);
  }
}
