import { setImmediate as turn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { messages } from '../../src/protocol/index.ts';
import { asLogIndex, asTerm } from '../../src/raft/index.ts';
import type { PeerBatch, PeerPresence, SnapshotSource } from '../../src/peers/index.ts';
import { encodeFrame } from '../../src/peers/peer-codec.ts';
import type { PeerFrame, PeerHello } from '../../src/peers/peer-codec.ts';
import type { SnapshotPart } from '../../src/storage/index.ts';
import { batchOf, heartbeat, nameOf, one, Ports, startPair, startPeer, two } from './cluster.ts';
import { answerAsVersion1, answersTo, hello, letIn, RawListener } from './raw.ts';

/** A listener of version 1 as member 2, the hellos it got, and what it heard from whom it let in. */
const startVersion1 = async (ports: Ports) => {
  const hellos: PeerHello[] = [];
  const bytesOfHellos: Buffer[] = [];
  const heard: string[] = [];
  const listener = await RawListener.start(2, (frame, socket, bytes) => {
    if (frame.kind === 'hello') {
      hellos.push(frame.hello);
      bytesOfHellos.push(bytes);
      answerAsVersion1(frame, socket);
      return;
    }
    heard.push(frame.kind);
    const last = frame.kind === 'chunk' && frame.stream.part.last;
    if (frame.kind === 'empty' || last) socket.write(encodeFrame({ kind: 'empty' }));
  });
  ports.set(2, listener.port);
  return { listener, hellos, bytesOfHellos, heard };
};

describe('a listener of version 1', () => {
  test('hangs up without a word, and gets a hello of version 1 at once', async () => {
    const ports = new Ports();
    const { hellos, bytesOfHellos, heard } = await startVersion1(ports);
    // With this back-off, whoever does not dial again at once never does.
    const times = { reconnectMin: 60_000, reconnectMax: 60_000 };
    const first = await startPeer(1, ports, { times });
    await first.signal.until(() => first.up.has(two));
    expect(hellos.map(({ version }) => version)).toEqual([7, 1]);
    expect(first.versions).toEqual([1]);
    expect([first.refusals, first.warnings]).toEqual([[], []]);
    const diskId = new Uint8Array(16).fill(1);
    const asItWas = { clusterId: 'test', from: 1, to: 2, run: 1, diskId, version: 1 };
    const expected = messages.peer.PeerFrame.encode({ hello: asItWas }).finish();
    expect(bytesOfHellos[1]?.equals(expected)).toBe(true);

    expect(first.transport.send(two, batchOf(heartbeat(one, two, 1)))).toBe(true);
    await first.signal.until(() => first.roundTrips.length >= 2);
    expect(heard).toContain('batch');
  });

  test('is asked to speak the newest version again each time the link is made new', async () => {
    const ports = new Ports();
    const { listener, hellos } = await startVersion1(ports);
    const first = await startPeer(1, ports);
    await first.signal.until(() => first.up.has(two));
    listener.hangUp();
    await first.signal.until(() => first.connects === 2);
    expect(hellos.map(({ version }) => version)).toEqual([7, 1, 7, 1]);
    listener.close();
    await first.signal.until(() => !first.up.has(two));
    await startPeer(2, ports);
    await first.signal.until(() => first.up.has(two));
    expect(first.versions).toEqual([1, 1, 7]);
  });

  test('that refuses this server in version 1 too is told from one that only does not know the version', async () => {
    const ports = new Ports();
    const hellos: number[] = [];
    const listener = await RawListener.start(2, (frame, socket) => {
      if (frame.kind !== 'hello') return;
      hellos.push(frame.hello.version);
      if (frame.hello.version !== 1) answerAsVersion1(frame, socket);
      else socket.end(encodeFrame({ kind: 'hello_refused', reason: 'its disk was wiped', removed: false }));
    });
    ports.set(2, listener.port);
    const first = await startPeer(1, ports);
    await first.signal.until(() => first.refusals.length === 2);
    expect(first.refusals).toEqual([
      { by: two, reason: 'its disk was wiped', removed: false },
      { by: two, reason: 'its disk was wiped', removed: false },
    ]);
    expect(hellos).toEqual([7, 1, 7, 1]);
    expect(first.connects).toBe(0);
  });

  test('is not asked for a transfer of leadership, and a peer of a later version is', async () => {
    const ports = new Ports();
    const { listener, heard } = await startVersion1(ports);
    const first = await startPeer(1, ports, { times: { pingEvery: 60_000 } });
    await first.signal.until(() => first.up.has(two));
    const request = { ...batchOf(), transferTo: two };
    expect(first.transport.send(two, request)).toBe(false);
    listener.close();
    await first.signal.until(() => !first.up.has(two));
    expect(heard).toEqual([]);
    const second = await startPeer(2, ports);
    await first.signal.until(() => first.up.has(two));
    expect(first.transport.send(two, request)).toBe(true);
    await second.signal.until(() => second.heard.length === 1);
    expect(second.heard[0]?.batch).toEqual({ ...request, forward: [] });
  });

  test('gets snapshots on a link of version 1', async () => {
    const ports = new Ports();
    const { hellos, heard } = await startVersion1(ports);
    const first = await startPeer(1, ports, { times: { pingEvery: 60_000 } });
    await first.signal.until(() => first.up.has(two));
    const records = Buffer.from('records');
    const parts: SnapshotPart[] = [
      { number: 0, records, checksum: crc32(records), last: true, recordsTotal: 1 },
    ];
    const nobody = { voters: [one], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
    const source: SnapshotSource = {
      point: { index: asLogIndex(4), term: asTerm(1), configuration: nobody },
      next: () => Promise.resolve(parts.shift()),
    };
    await first.transport.sendSnapshot(two, asTerm(1), source);
    expect(heard).toEqual(['chunk']);
    expect(hellos.map(({ version, bulk }) => [version, bulk])).toEqual([
      [7, false],
      [1, false],
      [1, true],
    ]);
  });
});

describe('a dialer of version 1', () => {
  test('is let in, without a standing', async () => {
    const presences: PeerPresence[] = [];
    const peer = await startPeer(1, new Ports(), {
      acceptPeer: (_, presence) => {
        presences.push(presence);
        return undefined;
      },
    });
    const socket = await letIn(peer.transport.port, nameOf(2), hello({ version: 1, run: 6 }));
    expect(presences).toEqual([{ run: 6, diskId: new Uint8Array(16) }]);
    socket.write(encodeFrame({ kind: 'batch', batch: batchOf(heartbeat(two, one, 3)) }));
    await peer.signal.until(() => peer.heard.length === 1);
    expect(peer.heard[0]).toMatchObject({ from: two, run: 6 });
  });

  test('is told why it is refused in words that it knows', async () => {
    const peer = await startPeer(1, new Ports(), {
      acceptPeer: () => ({ reason: 'it was removed', removed: true }),
    });
    const { port } = peer.transport;
    const told = { kind: 'hello_refused', reason: 'it was removed' };
    expect(await answersTo(port, nameOf(2), hello({ version: 1 }))).toEqual([{ ...told, removed: false }]);
    expect(await answersTo(port, nameOf(2), hello({ version: 2 }))).toEqual([{ ...told, removed: true }]);
  });

  test('that says what version 1 does not have is closed', async () => {
    const peer = await startPeer(1, new Ports());
    const batch = { ...batchOf(), transferTo: two };
    const answers = await answersTo(peer.transport.port, nameOf(2), hello({ version: 1 }), {
      kind: 'batch',
      batch,
    });
    expect(answers).toEqual([{ kind: 'empty' }]);
    expect(peer.warnings.at(-1)?.reason).toBe('a peer of version 1 asked for a transfer of leadership');
    expect(peer.heard).toEqual([]);
  });
});

describe('a listener of version 2', () => {
  test('gets a hello of version 2 at once, without a lineage, also for a snapshot', async () => {
    const ports = new Ports();
    const hellos: PeerHello[] = [];
    const listener = await RawListener.start(
      2,
      (frame, socket) => {
        if (frame.kind === 'hello') hellos.push(frame.hello);
        socket.write(encodeFrame({ kind: 'empty' }));
      },
      ['futurestore-peer/2'],
    );
    ports.set(2, listener.port);
    const first = await startPeer(1, ports, { lineage: { since: 1, runs: [8] } });
    await first.signal.until(() => first.up.has(two));
    expect(first.versions).toEqual([2]);
    const records = Buffer.from('records');
    const parts: SnapshotPart[] = [
      { number: 0, records, checksum: crc32(records), last: true, recordsTotal: 1 },
    ];
    await first.transport.sendSnapshot(two, asTerm(1), {
      point: {
        index: asLogIndex(4),
        term: asTerm(1),
        configuration: {
          voters: [one],
          votersOutgoing: [],
          learners: [],
          learnersNext: [],
          autoLeave: false,
        },
      },
      next: () => Promise.resolve(parts.shift()),
    });
    expect(hellos.map(({ version, bulk, lineage }) => [version, bulk, lineage])).toEqual([
      [2, false, undefined],
      [2, true, undefined],
    ]);
    expect(hellos[0]?.standing).toEqual({ term: 3, lastIndex: 9 });
    expect([first.refusals, first.warnings]).toEqual([[], []]);
  });
});

describe('of version 4', () => {
  const order: PeerBatch = { ...batchOf(), agentsOrder: { id: 1, order: { kind: 'drain' } } };
  const outcome: PeerBatch = {
    ...batchOf(),
    agentsOutcome: { id: 1, outcome: { refusal: undefined, agents: 1, graceMs: 0, leader: undefined } },
  };
  const status = {
    name: 'server1.test',
    role: 'follower',
    term: 1,
    commitIndex: 1,
    appliedIndex: 1,
    keys: 0,
    connections: 0,
    version: '1',
  };
  const drained: PeerBatch = { ...batchOf(), status: { ...status, draining: true } };

  test('a listener gets no orders about agents, and a status without what it does not know', async () => {
    const ports = new Ports();
    const heard: PeerFrame[] = [];
    const listener = await RawListener.start(
      2,
      (frame, socket) => {
        heard.push(frame);
        socket.write(encodeFrame({ kind: 'empty' }));
      },
      ['futurestore-peer/4'],
    );
    ports.set(2, listener.port);
    const first = await startPeer(1, ports, { times: { pingEvery: 60_000 } });
    await first.signal.until(() => first.up.has(two));
    expect(first.versions).toEqual([4]);
    for (const batch of [order, outcome]) expect(first.transport.send(two, batch)).toBe(false);
    expect(first.transport.send(two, drained)).toBe(true);
    while (heard.length < 2) await turn();
    expect(heard[1]).toEqual({ kind: 'batch', batch: { ...batchOf(), forward: [], status } });
  });

  test.each([
    ['orders', order],
    ['outcomes', outcome],
    ['draining', drained],
  ])('a dialer that speaks of %s is closed', async (_, batch) => {
    const peer = await startPeer(1, new Ports());
    const answers = await answersTo(peer.transport.port, nameOf(2), hello({ version: 4 }), {
      kind: 'batch',
      batch,
    });
    expect(answers).toEqual([{ kind: 'empty' }]);
    expect(peer.warnings.at(-1)?.reason).toBe('a peer of version 4 spoke of agents');
    expect(peer.heard).toEqual([]);
  });
});

test('a hello with as many runs as a disk may remember is let in', async () => {
  const ports = new Ports();
  const runs = Array.from({ length: 4096 }, (_, at) => Number.MAX_SAFE_INTEGER - at);
  const lineages: unknown[] = [];
  const acceptPeer = (_: number, { lineage }: PeerPresence) => void lineages.push(lineage);
  const first = await startPeer(1, ports, { lineage: { since: 1, runs } });
  await startPeer(2, ports, { acceptPeer });
  await first.signal.until(() => first.up.has(two));
  expect(lineages[0]).toEqual({ since: 1, runs });
});

describe('a dialer of version 2', () => {
  test('is let in, and is not told that its disk is outdated, for it would not understand', async () => {
    const presences: PeerPresence[] = [];
    const peer = await startPeer(1, new Ports(), {
      acceptPeer: (_, presence) => {
        presences.push(presence);
        return presence.run === 6 ? undefined : { reason: 'older', removed: false, outdated: true };
      },
    });
    const { port } = peer.transport;
    await letIn(port, nameOf(2), hello({ version: 2, run: 6 }));
    expect(presences[0]).toMatchObject({ run: 6, standing: { term: 1, lastIndex: 2 } });
    expect(presences[0]).not.toHaveProperty('lineage');
    const told = { kind: 'hello_refused', reason: 'older', removed: false };
    expect(await answersTo(port, nameOf(2), hello({ version: 2, run: 7 }))).toEqual([told]);
    expect(await answersTo(port, nameOf(2), hello({ version: 3, run: 7 }))).toEqual([
      { ...told, outdated: true },
    ]);
  });
});

describe('between servers of this version', () => {
  test('both links are of the newest version, and each hello says where the server stands and the runs of its disk', async () => {
    const presences: PeerPresence[] = [];
    const [first, second] = await startPair(
      { standing: () => ({ term: 11, lastIndex: 0 }), lineage: { since: 4, runs: [5, 6] } },
      {
        acceptPeer: (_, presence) => {
          presences.push(presence);
          return undefined;
        },
      },
    );
    await first.signal.until(() => first.up.has(two));
    await second.signal.until(() => second.up.has(one));
    expect([first.versions, second.versions]).toEqual([[7], [7]]);
    expect(presences[0]).toMatchObject({
      standing: { term: 11, lastIndex: 0 },
      lineage: { since: 4, runs: [5, 6] },
    });
  });

  test('a peer of version 2 that hangs up without a word, or refuses, is not taken for one of version 1', async () => {
    const ports = new Ports();
    const versions: number[] = [];
    const listener = await RawListener.start(
      2,
      (frame, socket) => {
        if (frame.kind !== 'hello') return;
        versions.push(frame.hello.version);
        if (versions.length === 1) socket.destroy();
        else if (versions.length === 2) {
          socket.end(encodeFrame({ kind: 'hello_refused', reason: 'not now', removed: false }));
        } else socket.write(encodeFrame({ kind: 'empty' }));
      },
      ['futurestore-peer/2'],
    );
    ports.set(2, listener.port);
    const first = await startPeer(1, ports);
    await first.signal.until(() => first.up.has(two));
    expect(versions).toEqual([2, 2, 2]);
    expect(first.versions).toEqual([2]);
    expect(first.refusals).toEqual([{ by: two, reason: 'not now', removed: false }]);
  });

  test.each([0, 8])('version %d is refused with the versions that are known', async (version) => {
    const peer = await startPeer(1, new Ports());
    expect(await answersTo(peer.transport.port, nameOf(2), hello({ version }))).toEqual([
      {
        kind: 'hello_refused',
        reason: `version ${version} of the protocol is not known here, 1 to 7 are`,
        removed: false,
      },
    ]);
  });
});
