import { connect as connectTls } from 'node:tls';
import { crc32 } from 'node:zlib';
import { describe, expect, onTestFinished, test } from 'vitest';
import { asLogIndex, asMemberId, asTerm } from '../../src/raft/index.ts';
import type { MemberId, SnapshotPoint } from '../../src/raft/index.ts';
import type { AcceptPeer, PeerPresence, PeerRefusal, SnapshotSource } from '../../src/peers/index.ts';
import { encodeFrame } from '../../src/peers/peer-codec.ts';
import {
  batchOf,
  certificateOf,
  freePort,
  heartbeat,
  memberAt,
  membersAt,
  nameOf,
  one,
  optionsFor,
  peersCa,
  Ports,
  startPair,
  startPeer,
  TestPeer,
  three,
  two,
} from './cluster.ts';
import { issue, makeCa } from '../support/certificates.ts';
import { answersTo, framesUntilClosed, hello, letIn, rawClient } from './raw.ts';

const point: SnapshotPoint = {
  index: asLogIndex(40),
  term: asTerm(2),
  configuration: { voters: [one, two], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};

/** It never ends. */
const endless = (): SnapshotSource => {
  const records = Buffer.alloc(64 * 1024);
  let number = -1;
  return {
    point,
    next: () => {
      number += 1;
      return Promise.resolve({ number, records, checksum: crc32(records), last: false, recordsTotal: 0 });
    },
  };
};

describe('members that come and go', () => {
  test('a member that is added is linked both ways', async () => {
    const ports = new Ports();
    const first = await startPeer(1, ports);
    const second = await startPeer(2, ports);
    const third = await startPeer(3, ports, { members: membersAt(ports, 1, 2, 3) });
    await first.signal.until(() => first.up.has(two));
    expect(first.transport.send(three, batchOf(heartbeat(one, three, 1)))).toBe(false);
    for (const peer of [first, second]) peer.transport.setMembers(membersAt(ports, 1, 2, 3));
    await first.signal.until(() => first.up.has(three));
    await third.signal.until(() => third.up.size === 2);
    expect(first.transport.send(three, batchOf(heartbeat(one, three, 1)))).toBe(true);
    expect(third.transport.send(one, batchOf(heartbeat(three, one, 2)))).toBe(true);
    await third.signal.until(() => third.heard.length === 1);
    await first.signal.until(() => first.heard.length === 1);
    // Who was a member before and after has kept its link.
    expect([first.connects, first.disconnects]).toEqual([2, 0]);
  });

  test('a member that is removed is neither spoken to nor heard, and its links are closed', async () => {
    const ports = new Ports();
    const all = { members: membersAt(ports, 1, 2, 3) };
    const first = await startPeer(1, ports, all);
    const second = await startPeer(2, ports, all);
    const third = await startPeer(3, ports, all);
    for (const peer of [first, second, third]) await peer.signal.until(() => peer.up.size === 2);
    first.transport.setMembers(membersAt(ports, 1, 2));
    expect(first.transport.send(three, batchOf(heartbeat(one, three, 1)))).toBe(false);
    await first.signal.until(() => !first.up.has(three));
    await third.signal.until(() => !third.up.has(one));
    await expect(first.transport.sendSnapshot(three, asTerm(5), endless())).rejects.toThrow(
      /no link to member 3/,
    );
    // It dials again, in vain.
    await first.signal.until(() => first.warnings.some(({ reason }) => reason === 'no member has this name'));
    expect([...third.up]).toEqual([two]);
    expect([...first.up]).toEqual([two]);
    expect([first.connects, first.disconnects]).toEqual([2, 1]);

    first.transport.setMembers(membersAt(ports, 1, 2, 3));
    await first.signal.until(() => first.up.has(three));
    await third.signal.until(() => third.up.has(one));
  });

  test('nothing is heard of a member from the moment it is removed', async () => {
    const ports = new Ports();
    const peer = await startPeer(1, ports);
    peer.onReceived = () => peer.transport.setMembers([]);
    const answers = await answersTo(
      peer.transport.port,
      nameOf(2),
      hello(),
      { kind: 'batch', batch: batchOf(heartbeat(two, one, 1)) },
      { kind: 'batch', batch: batchOf(heartbeat(two, one, 2)) },
    );
    expect(answers.length).toBeLessThanOrEqual(1);
    expect(peer.heard.map(({ batch }) => batch.raft)).toEqual([[heartbeat(two, one, 1)]]);
  });

  test('a snapshot to a member that is removed ends', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    const sending = first.transport.sendSnapshot(two, asTerm(5), endless());
    const ended = expect(sending).rejects.toThrow(/not delivered: it is not a member any more/);
    await second.signal.until(() => second.parts.length > 2);
    first.transport.setMembers([]);
    await ended;
  });

  test('a snapshot from a member that is removed ends', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    const sending = first.transport.sendSnapshot(two, asTerm(5), endless());
    const ended = expect(sending).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await second.signal.until(() => second.parts.length > 2);
    second.transport.setMembers([]);
    await ended;
    const taken = second.parts.length;
    await first.signal.until(() => !first.up.has(two));
    expect(second.parts.length).toBe(taken);
  });

  test('pitfall 31: a member whose disk turns out to be another one is not heard from then on, and told why', async () => {
    const ports = new Ports();
    const refusals: PeerRefusal[] = [];
    const first = await startPeer(1, ports, { acceptPeer: () => refusals[0] });
    const second = await startPeer(2, ports);
    await second.signal.until(() => second.up.has(one));
    first.transport.setMembers(membersAt(ports, 1, 2));
    second.transport.send(one, batchOf(heartbeat(two, one, 1)));
    await first.signal.until(() => first.heard.length === 1);
    expect(second.disconnects).toBe(0);
    refusals.push({ reason: 'it has another disk', removed: false });
    first.transport.setMembers(membersAt(ports, 1, 2));
    await second.signal.until(() => second.refusals.length > 0);
    expect(second.refusals[0]).toEqual({ by: one, ...refusals[0] });
    expect([...second.up]).toEqual([]);
    expect(first.heard).toHaveLength(1);
  });

  test('a new address is taken at the next attempt, and breaks no link', async () => {
    const ports = new Ports();
    const second = await startPeer(2, ports);
    const at = (port: number) => [{ id: two, name: nameOf(2), address: `127.0.0.1:${port}` }];
    const first = await startPeer(1, ports, { members: at(second.transport.port) });
    await first.signal.until(() => first.up.has(two));
    const moved = await startPeer(2, new Ports(), { run: 2 });
    first.transport.setMembers(at(moved.transport.port));
    first.transport.send(two, batchOf(heartbeat(one, two, 1)));
    await second.signal.until(() => second.heard.length === 1);
    expect(first.disconnects).toBe(0);
    await second.transport.close();
    await first.signal.until(() => first.connects === 2);
    first.transport.send(two, batchOf(heartbeat(one, two, 2)));
    await moved.signal.until(() => moved.heard.length === 1);
  });

  test('a member whose certificate has another name now is linked anew', async () => {
    const ports = new Ports();
    const [first, second] = [await startPeer(1, ports), await startPeer(2, ports)];
    await first.signal.until(() => first.up.has(two));
    await second.signal.until(() => second.up.has(one));
    first.transport.setMembers([memberAt(ports, 2, 'renamed.test')]);
    await first.signal.until(() => !first.up.has(two));
    await second.signal.until(() => !second.up.has(one));
    await second.transport.close();
    const renamed = await startPeer(2, ports, { ...(await certificateOf('renamed.test')) });
    await first.signal.until(() => first.up.has(two));
    await renamed.signal.until(() => renamed.up.has(one));
  });

  test('the members may be said before the start, this server among them, and nothing follows after the end', async () => {
    const ports = new Ports();
    const first = new TestPeer(await optionsFor(1, ports, { members: [] }));
    first.transport.setMembers(membersAt(ports, 1, 2));
    await first.transport.start(first);
    ports.set(1, first.transport.port);
    const second = await startPeer(2, ports);
    await first.signal.until(() => first.up.has(two));
    await second.signal.until(() => second.up.has(one));
    await first.transport.close();
    await second.signal.until(() => !second.up.has(one));
    first.transport.setMembers(membersAt(ports, 1, 2, 3));
    expect(first.transport.send(two, batchOf(heartbeat(one, two, 1)))).toBe(false);
    expect([[...first.up], first.connects]).toEqual([[two], 1]);
  });
});

describe('two members of one name', () => {
  const shared = (ports: Ports) => [
    memberAt(ports, 1),
    memberAt(ports, 2),
    memberAt(ports, 3, nameOf(2)),
    memberAt(ports, 4),
  ];

  test('are both let in under their certificate, each as the one it says it is', async () => {
    const ports = new Ports();
    const peer = await startPeer(1, ports, { members: shared(ports) });
    const { port } = peer.transport;
    const links = await Promise.all(
      [two, three].map(async (from) => ({ from, socket: await letIn(port, nameOf(2), hello({ from })) })),
    );
    for (const { from, socket } of links)
      socket.write(encodeFrame({ kind: 'batch', batch: batchOf(heartbeat(from, one, 1)) }));
    await peer.signal.until(() => peer.heard.length === 2);
    expect(new Set(peer.heard.map(({ from }) => from))).toEqual(new Set([two, three]));
  });

  test('are no others', async () => {
    const ports = new Ports();
    const asked: MemberId[] = [];
    const acceptPeer: AcceptPeer = (member) => {
      asked.push(member);
      return { reason: 'it was removed', removed: true };
    };
    const peer = await startPeer(1, ports, { members: shared(ports), acceptPeer });
    const four = asMemberId(4);
    expect(await answersTo(peer.transport.port, nameOf(2), hello({ from: four }))).toEqual([
      {
        kind: 'hello_refused',
        reason: 'the certificate is of "server2.test", which is member 2 and 3, not 4',
        removed: false,
      },
    ]);
    // Whoever has not the certificate of a member is no reason to ask about it, nor is one who says it is this server.
    const [answer] = await answersTo(peer.transport.port, nameOf(2), hello({ from: one }));
    expect(answer).toMatchObject({ kind: 'hello_refused', removed: false });
    expect(asked).toEqual([]);
  });

  test('are dialled both, where one has the certificate of this server', async () => {
    const ports = new Ports();
    const members = [memberAt(ports, 1), memberAt(ports, 2), memberAt(ports, 3, nameOf(2))];
    const old = await startPeer(2, ports, { members });
    const successor = await startPeer(3, ports, { members, ...(await certificateOf(nameOf(2))) });
    await old.signal.until(() => old.up.has(three));
    await successor.signal.until(() => successor.up.has(two));
  });
});

describe('servers that are in no list', () => {
  const removedBelow4: AcceptPeer = (member) =>
    member < 4 ? { reason: `member ${member} was removed`, removed: true } : undefined;

  test('a server that was removed is told so, each time it dials', async () => {
    const ports = new Ports();
    const first = await startPeer(1, ports, { members: [], acceptPeer: removedBelow4 });
    const second = await startPeer(2, ports);
    await second.signal.until(() => second.refusals.length === 2);
    const refusal = { by: one, reason: 'member 2 was removed', removed: true };
    expect(second.refusals).toEqual([refusal, refusal]);
    expect(second.up.size).toBe(0);
    expect(
      first.warnings.some(
        ({ message, reason }) => message.endsWith('it is of no peer') && reason === 'member 2 was removed',
      ),
    ).toBe(true);
    expect(first.heard).toEqual([]);
  });

  test('a server that was removed is told so when its successor has its certificate', async () => {
    const ports = new Ports();
    const members = [memberAt(ports, 1), memberAt(ports, 3, nameOf(2))];
    const first = await startPeer(1, ports, { members, acceptPeer: removedBelow4 });
    expect(await answersTo(first.transport.port, nameOf(2), hello({ from: two }))).toEqual([
      { kind: 'hello_refused', reason: 'member 2 was removed', removed: true },
    ]);
  });

  test('a server of which the cluster says only that it may take part is not let in, nor told why', async () => {
    const first = await startPeer(1, new Ports(), { acceptPeer: () => undefined });
    const { port } = first.transport;
    const nine = asMemberId(9);
    expect(await answersTo(port, nameOf(9), hello({ from: nine }))).toEqual([]);
    expect(first.warnings.at(-1)).toEqual({
      message: 'refused a connection to the peer port: it is of no peer',
      reason: 'no member has this name',
    });
    // Nor with the certificate of a member, which gets to know why.
    const reason = 'the certificate is of "server2.test", which is member 2, not 9';
    expect(await answersTo(port, nameOf(2), hello({ from: nine }))).toEqual([
      { kind: 'hello_refused', reason, removed: false },
    ]);
    expect(first.heard).toEqual([]);
  });

  test('a server of which the cluster says that it may not take part is told why', async () => {
    const refusal = { reason: 'it has to be added', removed: false };
    const first = await startPeer(1, new Ports(), { acceptPeer: () => refusal });
    const nine = asMemberId(9);
    for (const name of [nameOf(9), nameOf(2)])
      expect(await answersTo(first.transport.port, name, hello({ from: nine }))).toEqual([
        { kind: 'hello_refused', ...refusal },
      ]);
    expect(first.warnings.filter(({ reason }) => reason === refusal.reason)).toHaveLength(2);
  });

  test('a server that the question makes a member is let in, and reached at the address in its hello', async () => {
    const ports = new Ports();
    const asked: PeerPresence[] = [];
    const acceptPeer: AcceptPeer = (member, presence) => {
      asked.push(presence);
      const { name, address } = presence.introduction ?? { name: '', address: '' };
      first.transport.setMembers([{ id: member, name, address }]);
      return undefined;
    };
    const first = await startPeer(1, ports, { members: [], acceptPeer });
    const port = await freePort();
    const address = `127.0.0.1:${port}`;
    const second = await startPeer(2, ports, { address, listen: { host: '127.0.0.1', port } });
    await first.signal.until(() => first.up.has(two));
    await second.signal.until(() => second.up.has(one));
    expect(asked.map(({ introduction }) => introduction)).toEqual([{ name: nameOf(2), address }]);
    expect(second.transport.send(one, batchOf(heartbeat(two, one, 1)))).toBe(true);
    await first.signal.until(() => first.heard.length === 1);
  });

  test('a server that the question makes a member under another name is not let in', async () => {
    const ports = new Ports();
    const acceptPeer: AcceptPeer = () => {
      first.transport.setMembers([memberAt(ports, 2, nameOf(7))]);
      return undefined;
    };
    const first = await startPeer(1, ports, { members: [], acceptPeer });
    expect(await answersTo(first.transport.port, nameOf(2), hello())).toEqual([]);
    expect(first.heard).toEqual([]);
  });

  test('pitfall 55: nobody is asked about a server whose certificate is of an authority of agents', async () => {
    let asked = 0;
    const acceptPeer: AcceptPeer = () => {
      asked += 1;
      return undefined;
    };
    const first = await startPeer(1, new Ports(), { members: [], acceptPeer });
    const agent = await issue(await makeCa('agents'), { cn: nameOf(2) });
    const socket = await rawClient(first.transport.port, nameOf(2), agent);
    socket.on('secureConnect', () => socket.write(encodeFrame(hello())));
    expect(await framesUntilClosed(socket)).toEqual([]);
    expect(asked).toBe(0);
  });

  test('a stranger learns nothing from a hello for another cluster or server', async () => {
    const first = await startPeer(1, new Ports(), { acceptPeer: removedBelow4 });
    for (const changes of [{ clusterId: 'other' }, { to: three }, { version: 8 }])
      expect(await answersTo(first.transport.port, nameOf(9), hello({ from: three, ...changes }))).toEqual(
        [],
      );
  });

  test('pitfall 52: servers in no list that only sit there are few, and keep no peer out', async () => {
    const ports = new Ports();
    const peer = await startPeer(1, ports, { times: { helloMax: 60_000 } });
    const ca = (await peersCa()).cert;
    const stranger = await certificateOf(nameOf(9));
    const sockets = Array.from({ length: 68 }, () =>
      connectTls({
        host: '127.0.0.1',
        port: peer.transport.port,
        ca,
        ...stranger,
        checkServerIdentity: () => undefined,
      }),
    );
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
    });
    let closedOnes = 0;
    await new Promise<void>((resolve) => {
      for (const socket of sockets) {
        socket.on('error', () => undefined);
        socket.on('close', () => {
          closedOnes += 1;
          if (closedOnes === 4) resolve();
        });
        socket.resume();
      }
    });
    const second = await startPeer(2, ports);
    await second.signal.until(() => second.up.has(one));
  });
});
