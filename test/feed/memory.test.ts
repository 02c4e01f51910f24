import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { Feed } from '../../src/feed/index.ts';
import { FakeSource } from './support/fake-source.ts';
import { encodeForTest } from './support/reader.ts';

setFlagsFromString('--expose-gc');
const collect: unknown = runInNewContext('gc');
const heapBytes = (): number => {
  if (typeof collect !== 'function') throw new Error('there is no collector to call');
  collect();
  collect();
  return process.memoryUsage().heapUsed;
};

/** Heap bytes for each of many, above what the texts themselves take. */
const bytesEach = (
  count: number,
  prepare: (at: number) => string[],
  use: (at: number, texts: string[]) => void,
): number => {
  const texts = Array.from({ length: count }, (_, at) => prepare(at));
  const before = heapBytes();
  for (const [at, mine] of texts.entries()) use(at, mine);
  return (heapBytes() - before) / count;
};

describe('memory', () => {
  test('a waiting key takes at most 300 bytes', () => {
    const feed = new Feed({ source: new FakeSource(), encode: encodeForTest });
    const one = bytesEach(
      50_000,
      (at) => [`nodes/web${at}/out/certificate`],
      (at, keys) => feed.await({ gateway: 1, connection: at >> 8, request: at, alternatives: [keys] }, 0),
    );
    const many = bytesEach(
      5000,
      (at) => Array.from({ length: 10 }, (_, key) => `nodes/db${at}/out/${key}`),
      (at, keys) => feed.await({ gateway: 2, connection: at >> 8, request: at, alternatives: [keys] }, 0),
    );
    expect(feed.counts.waitingKeys).toBe(100_000);
    expect(one).toBeLessThanOrEqual(300);
    expect(many / 10).toBeLessThanOrEqual(300);
  });

  test('an idle subscription takes at most 400 bytes beside its patterns and its connection', () => {
    const feed = new Feed({ source: new FakeSource(), encode: encodeForTest });
    const start = { kind: 'only_new' } as const;
    const each = bytesEach(
      50_000,
      (at) => [`nodes/web${at % 10}/**`],
      (at, patterns) => {
        feed.subscribe({ gateway: 1, connection: at >> 8, request: at, patterns, start });
        if (at % 1000 === 999) while (feed.pending) feed.take(0);
      },
    );
    expect(feed.counts.subscriptions).toBe(50_000);
    expect(feed.pending).toBe(false);
    expect(each).toBeLessThanOrEqual(400);
  });
});
