import { expect, test } from 'vitest';
import type { AcceptPeer, PeerEvents, PeerTransport } from '../../src/peers/index.ts';
import { asMemberId, asTerm, type Message } from '../../src/raft/index.ts';
import { Life, VirtualTime } from '../../src/simulation/clock.ts';
import { PeerNetwork } from '../../src/simulation/peer-network.ts';
import { Random } from '../../src/simulation/random.ts';
import { Counts } from '../../src/simulation/statistics.ts';
import { Trace } from '../../src/simulation/trace.ts';

const networkOf = (time: VirtualTime, reordering = 0): PeerNetwork =>
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
      reordering,
      reorderMs: 1000,
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

interface Started {
  readonly life: Life;
  readonly transport: PeerTransport;
  /** Whom it has reached so far. */
  readonly reached: number[];
  /** From which runs it has heard. */
  readonly heardOf: number[];
}

const letsIn: AcceptPeer = () => undefined;

/** A server of the two. */
const start = (network: PeerNetwork, id: number, accept = letsIn): Started => {
  const life = new Life(`server ${id}`);
  const reached: number[] = [];
  const heardOf: number[] = [];
  const events: PeerEvents = {
    received: (_from, run) => heardOf.push(run),
    connected: (peer) => reached.push(peer),
    refused: () => undefined,
    disconnected: () => undefined,
    snapshotPart: () => Promise.resolve(),
  };
  const transport = network.transport({
    ...memberOf(id),
    life,
    accept,
    presence: { run: 1, diskId: new Uint8Array(16) },
  });
  transport.setMembers([memberOf(1), memberOf(2)]);
  void transport.start(events);
  return { life, transport, reached, heardOf };
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

test('what is late comes to a later process of the receiver too, but only once that has let the sender in', () => {
  const message: Message = {
    kind: 'heartbeat_response',
    from: asMemberId(1),
    to: asMemberId(2),
    term: asTerm(1),
    readRound: 1,
  };
  const later = (accept: AcceptPeer): readonly number[] => {
    const time = new VirtualTime();
    const network = networkOf(time, 1);
    const { transport } = start(network, 1);
    const earlier = start(network, 2);
    while (time.runNext(500));
    for (let count = 0; count < 20; count += 1)
      transport.send(asMemberId(2), { raft: [message], forward: [], forwardTerm: 1 });
    earlier.life.alive = false;
    network.gone(2, false);
    const { heardOf } = start(network, 2, accept);
    while (time.runNext(2500));
    // The batches themselves were lost with the link.
    return heardOf;
  };
  expect(later(letsIn).length).toBeGreaterThan(0);
  expect(later(() => ({ reason: 'it is an older copy', removed: false }))).toEqual([]);
});
