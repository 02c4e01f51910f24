import { describe, expect, test } from 'vitest';
import { listCluster } from './support/cluster.ts';

/** More than one heartbeat is sent in these. */
const someTicks = 5;

describe('that nobody needs those who left any more', () => {
  test('is known to a follower by a heartbeat once the leader knows, and not before', () => {
    const cluster = listCluster(4);
    cluster.elect(1);
    cluster.filter = ({ kind }) => (kind === 'append_response' ? 'hold' : 'pass');
    cluster.change(1, [1, 2, 3]);
    for (let round = 0; cluster.status(2).configuration.voters.length > 3; round += 1) {
      expect(round).toBeLessThan(20);
      cluster.release();
      cluster.run(1);
    }
    // It has applied the change; that its leader sealed it is on no quorum's disks yet.
    cluster.run(someTicks);
    expect(cluster.status(1).changeSettled).toBe(false);
    expect(cluster.status(2).changeSettled).toBe(false);
    cluster.filter = () => 'pass';
    cluster.release();
    cluster.run(someTicks);
    for (const id of [1, 2, 3]) expect(cluster.status(id).changeSettled).toBe(true);
  });

  test('is known to a follower that was sent a snapshot instead of the seal', () => {
    const cluster = listCluster(5);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.change(1, [1, 2, 3, 4]);
    cluster.run(someTicks);
    for (let entry = 0; entry < 20; entry += 1) cluster.propose(1, `entry ${entry}`);
    cluster.settle();
    cluster.compact(1);
    cluster.heal();
    cluster.run(50);
    expect(cluster.status(3).firstIndex).toBeGreaterThan(20);
    expect(cluster.status(3)).toMatchObject({ role: 'follower', changeSettled: true });
  });

  test('is not said of a change after the one that a heartbeat spoke of', () => {
    const cluster = listCluster(5);
    cluster.elect(1);
    cluster.run(someTicks);
    expect(cluster.status(2).changeSettled).toBe(true);
    cluster.filter = ({ kind }) => (kind === 'heartbeat_request' ? 'drop' : 'pass');
    cluster.change(1, [1, 2, 3, 4]);
    cluster.settle();
    expect(cluster.status(2).configuration.voters).toHaveLength(4);
    expect(cluster.status(1).changeSettled).toBe(true);
    expect(cluster.status(2).changeSettled).toBe(false);
  });
});
