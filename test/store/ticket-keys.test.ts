import { describe, expect, test } from 'vitest';
import { Store } from '../../src/store/index.ts';
import { ClusterOfOne, recordsOf, startMs } from './support/cluster-of-one.ts';

const keysOf = (byte: number): Uint8Array => new Uint8Array(48).fill(byte);
const replace = (number: number, keys = keysOf(number)) => ({ kind: 'ticket_keys', number, keys }) as const;

describe('keys for TLS session tickets', () => {
  test('follow each other: two leaders that wish for new ones make one change', () => {
    const cluster = new ClusterOfOne();
    expect(cluster.store.ticketKeys).toBeUndefined();
    cluster.one(replace(2));
    expect(cluster.store.ticketKeys).toBeUndefined();
    cluster.one(replace(1));
    cluster.one(replace(1, keysOf(9)));
    expect(cluster.store.ticketKeys).toEqual({ number: 1, keys: keysOf(1), madeAtMs: startMs });
    cluster.one(replace(2));
    expect(cluster.store.ticketKeys?.keys).toEqual(keysOf(2));
  });

  test('of the wrong size change nothing', () => {
    const cluster = new ClusterOfOne();
    cluster.one(replace(1, new Uint8Array(47)));
    expect(cluster.store.ticketKeys).toBeUndefined();
  });

  test('are a part of the state, and not of what a restored cluster begins with', () => {
    const cluster = new ClusterOfOne();
    const without = cluster.store.digest();
    cluster.one(replace(1));
    expect(cluster.store.digest()).not.toBe(without);
    cluster.flush();
    const copy = cluster.copy();
    expect(copy.ticketKeys).toEqual(cluster.store.ticketKeys);
    copy.prepareRestored({ keepAccess: true });
    expect(copy.ticketKeys).toBeUndefined();
    expect(copy.takeStateWrites()).toContainEqual({ key: 'ticket_keys', value: undefined });
  });

  test('that are damaged on disk are refused', () => {
    const cluster = new ClusterOfOne();
    cluster.one(replace(1));
    cluster.flush();
    const records = recordsOf(cluster).map(({ key, value }) =>
      key === 'ticket_keys' ? { key, value: value.subarray(0, 10) } : { key, value },
    );
    const store = new Store({ clusterId: 'test' });
    expect(() => store.load(records)).toThrow(/ticket_keys/);
  });
});
