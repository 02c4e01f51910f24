import { afterEach, describe, expect, test } from 'vitest';
import { SocketCounts } from '../../src/gateway/socket-counts.ts';
import { startGateway } from './harness.ts';
import type { Rig } from './harness.ts';

describe('sockets of several gateways of one server', () => {
  let rig: Rig;
  afterEach(() => rig.close());

  test('count together: one too many is turned away', async () => {
    const memory = SocketCounts.memory(3);
    const [own, others] = [new SocketCounts(memory, 0), new SocketCounts(memory, 2)];
    expect([own.gateways, own.othersOpen]).toEqual([3, 0]);
    rig = await startGateway({ connectionsMax: 10 }, { sockets: own });
    others.publish(9, 0);
    await rig.greeted();
    expect(others.othersOpen).toBe(1);
    await expect(rig.agent()).rejects.toThrow();
    expect(rig.counts.all).toContain('turned away capacity');
    others.publish(8, 0);
    await rig.greeted();
  });

  test('that have no identity yet take up places for each other, but one is always there', async () => {
    const memory = SocketCounts.memory(2);
    const [own, others] = [new SocketCounts(memory, 0), new SocketCounts(memory, 1)];
    rig = await startGateway({ unauthenticatedMax: 5 }, { sockets: own });
    others.publish(100, 100);
    await rig.greeted();
    expect([others.othersOpen, others.othersWaiting]).toEqual([1, 0]);
  });
});
