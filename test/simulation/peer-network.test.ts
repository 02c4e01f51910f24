import { expect, test } from 'vitest';
import type { PeerEvents } from '../../src/peers/index.ts';
import { asMemberId } from '../../src/raft/index.ts';
import { Life, VirtualTime } from '../../src/simulation/clock.ts';
import { PeerNetwork } from '../../src/simulation/peer-network.ts';
import { Random } from '../../src/simulation/random.ts';
import { Counts } from '../../src/simulation/statistics.ts';
import { Trace } from '../../src/simulation/trace.ts';

const networkOf = (time: VirtualTime): PeerNetwork =>
  new PeerNetwork({
    time,
    random: new Random(1, 'peer network'),
    trace: new Trace(() => time.nowMs),
    counts: new Counts(),
    conditions: {
      latencyMs: 1,
      jitterMs: 0,
      loss: 0,
      duplication: 0,
      reordering: 0,
      reorderMs: 0,
    },
    encodes: false,
    onSent: () => undefined,
    onReceived: () => undefined,
    onRefused: () => undefined,
  });

const memberOf = (id: number) => ({
  id: asMemberId(id),
  name: `server-${id}`,
  address: PeerNetwork.addressOf(id),
});

/** A server of the two; gives its process's life and whom it has reached so far. */
const start = (network: PeerNetwork, id: number): { readonly life: Life; readonly reached: number[] } => {
  const life = new Life(`server ${id}`);
  const reached: number[] = [];
  const events: PeerEvents = {
    received: () => undefined,
    connected: (peer) => reached.push(peer),
    refused: () => undefined,
    disconnected: () => undefined,
    snapshotPart: () => Promise.resolve(),
  };
  const transport = network.transport({
    ...memberOf(id),
    life,
    accept: () => undefined,
    presence: { run: 1, diskId: new Uint8Array(16) },
  });
  transport.setMembers([memberOf(1), memberOf(2)]);
  void transport.start(events);
  return { life, reached };
};

test('a server that was dialed while it stood still and then ended is dialed again', () => {
  // Whenever it is: the handshake is under way in some of these milliseconds.
  for (let stopAtMs = 1; stopAtMs <= 8; stopAtMs += 1) {
    const time = new VirtualTime();
    const network = networkOf(time);
    const { reached } = start(network, 1);
    const ended = start(network, 2);
    time.at(stopAtMs, time.world, 'input', () => time.stop(ended.life));
    // Longer than a dialer waits.
    time.at(3000, time.world, 'input', () => {
      ended.life.alive = false;
      network.gone(2, false);
      start(network, 2);
    });
    while (time.runNext(3000));
    reached.length = 0;
    while (time.runNext(6000));
    expect(reached, `it stood still at ${stopAtMs} ms`).toEqual([2]);
  }
});
