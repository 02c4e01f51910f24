import { createServer } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { jsonCodec, levelAmong, levelToken, protobufCodec } from '../../src/protocol/index.ts';
import type { AnswerBody, ClusterStatus, MemberList } from '../../src/protocol/index.ts';
import { departures } from '../../src/gateway/departures.ts';
import { issue } from './certificates.ts';
import { startGateway } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

let rig: Rig;
beforeEach(async () => {
  rig = await startGateway();
});
afterEach(() => rig.close());

const isGoaway = ({ goaway }: { readonly goaway?: unknown }): boolean => goaway !== undefined;
const told = ({ frames }: TestAgent) => frames.flatMap(({ goaway }) => goaway ?? []);
const untilTold = (agent: TestAgent) => agent.until((frames) => frames.some(isGoaway));
/** What an agent ends the gateway hears of later. */
const connectionsAre = async (count: number): Promise<void> => {
  while (rig.gateway.connections !== count) await turn();
};
const newer = { offers: [levelToken] };

describe('a drained gateway', () => {
  test('refuses connections at once, and takes them again on the same port when the drain is ended', async () => {
    for (let round = 0; round < 2; round += 1) {
      const agent = await rig.greeted();
      const drained = rig.gateway.drain(1000);
      await untilTold(agent);
      await expect(rig.agent()).rejects.toThrow(/ECONNREFUSED/);
      rig.clock.advance(1000);
      await drained;
      expect(rig.gateway.connections).toBe(0);
      await rig.gateway.admit();
      const again = await rig.greeted();
      expect(rig.gateway.connections).toBe(1);
      again.ws.close();
      await connectionsAre(0);
    }
  });

  test('closes nobody any more when the drain is ended before all have left, and says that it is over', async () => {
    const agents = await Promise.all(Array.from({ length: 10 }, () => rig.greeted()));
    const drained = rig.gateway.drain(10_000);
    rig.clock.advance(3000);
    await rig.gateway.admit();
    await drained;
    rig.clock.advance(10_000);
    await Promise.all(agents.slice(0, 3).map((agent) => agent.closed));
    expect(rig.gateway.connections).toBe(7);
    await rig.gateway.admit();
    await rig.greeted();
  });

  test('gives those who are left the new grace when it is asked once more', async () => {
    await Promise.all(Array.from({ length: 10 }, () => rig.greeted()));
    const first = rig.gateway.drain(100_000);
    rig.clock.advance(10_000);
    expect(rig.gateway.connections).toBe(9);
    const second = rig.gateway.drain(9000);
    rig.clock.advance(1000);
    expect(rig.gateway.connections).toBe(8);
    rig.clock.advance(8000);
    await Promise.all([first, second]);
    expect(rig.gateway.connections).toBe(0);
  });

  test('stays drained when its port was taken meanwhile, and takes agents once it is free', async () => {
    await rig.gateway.drain(0);
    const thief = createServer();
    await new Promise<void>((resolve) => thief.listen(rig.tcpPort, '127.0.0.1', resolve));
    await expect(rig.gateway.admit()).rejects.toThrow(/EADDRINUSE/);
    await new Promise((resolve) => thief.close(resolve));
    await rig.gateway.admit();
    await rig.greeted();
  });
});

describe('agents that are to move', () => {
  test('are told where to, as many as are asked for, and nobody is closed', async () => {
    const agents = await Promise.all(Array.from({ length: 6 }, () => rig.greeted(newer)));
    const moves = [
      { endpoint: 'wss://one:7421', agents: 2 },
      { endpoint: 'wss://three:7421', agents: 1 },
    ];
    expect(await rig.gateway.sendAway(moves, 4000)).toBe(3);
    await Promise.all(agents.slice(3).map(untilTold));
    const all = agents.flatMap(told);
    expect(all.map(({ endpoints }) => endpoints?.[0] ?? '').toSorted((a, b) => a.localeCompare(b))).toEqual([
      'wss://one:7421',
      'wss://one:7421',
      'wss://three:7421',
    ]);
    expect(all[0]).toMatchObject({ graceMs: 4000, reason: expect.stringContaining('more agents') as string });
    rig.clock.advance(10_000);
    expect(rig.gateway.connections).toBe(6);
  });

  test('are counted when the same is asked again within their grace: no others go', async () => {
    const agents = await Promise.all(Array.from({ length: 6 }, () => rig.greeted(newer)));
    const moves = [{ endpoint: 'wss://one:7421', agents: 3 }];
    expect(await rig.gateway.sendAway(moves, 4000)).toBe(3);
    expect(await rig.gateway.sendAway(moves, 4000)).toBe(3);
    await Promise.all(agents.slice(3).map(untilTold));
    agents[5]?.ws.close();
    await connectionsAre(5);
    expect(await rig.gateway.sendAway([{ endpoint: '', agents: 2 }], 4000)).toBe(2);
    expect(agents.flatMap(told)).toHaveLength(3);
  });

  test.each([protobufCodec, jsonCodec])(
    'hear of endpoints only over a connection of level 2, over $subprotocol',
    async (codec) => {
      const older = await rig.greeted({ codec });
      const late = await rig.greeted({ ...newer, codec });
      await rig.gateway.sendAway([{ endpoint: 'wss://one:7421', agents: 2 }], 4000);
      await Promise.all([older, late].map(untilTold));
      expect([told(older)[0]?.endpoints, told(late)[0]?.endpoints]).toEqual([undefined, ['wss://one:7421']]);
    },
  );

  test('are first those who can be told where to go, and of these who came last', () => {
    const agent = (name: string, level: number, sentAway = false) => ({ name, level, sentAway });
    const there = [agent('a', 2), agent('b', 1), agent('c', 2), agent('d', 2, true), agent('e', 1)];
    const order = (count: number, leaving: number) =>
      departures(there, leaving, [{ endpoint: 'x', agents: count }]).map(({ connection }) => connection.name);
    expect(order(9, 0)).toEqual(['c', 'a', 'e', 'b']);
    expect(order(3, 1)).toEqual(['c', 'a']);
    expect(order(1, 2)).toEqual([]);
    expect(departures(there, 0, [{ endpoint: 'x', agents: Number.MAX_SAFE_INTEGER }])).toHaveLength(4);
  });
});

describe('levels', () => {
  test('a client is of the level that it offers, else of the first', () => {
    expect(levelAmong([])).toBe(1);
    expect(levelAmong(['futurestore.v1.protobuf', 'futurestore.v1.level.x', 'futurestore.v1.level.0'])).toBe(
      1,
    );
    expect(levelAmong(['futurestore.v1.protobuf', 'futurestore.v1.level.7'])).toBe(7);
    expect(levelAmong([levelToken])).toBe(3);
  });

  test('what members are draining is told to level 2 only: an earlier client would hang up', async () => {
    const member = { id: 1, name: 'server-1', agentsUrl: 'wss://one:7421', lag: 0 };
    const status: ClusterStatus = {
      clusterId: 'c0ffee',
      epoch: 3,
      revision: 1,
      serverId: 1,
      members: [
        {
          ...member,
          role: 'follower',
          term: 1,
          commitIndex: 1,
          appliedIndex: 1,
          keys: 0,
          connections: 0,
          version: '1',
          heardMsAgo: 0,
          draining: true,
        },
      ],
    };
    const list: MemberList = {
      members: [
        {
          ...member,
          peersAddress: 'one:7431',
          standing: 'voter',
          wanted: 'voter',
          reachable: true,
          joined: true,
          draining: true,
        },
      ],
      changePending: false,
      leader: 1,
    };
    const bodies: AnswerBody[] = [
      { kind: 'status', status },
      { kind: 'members', list },
    ];
    rig.port.onSubmit = ([first]) => {
      const body = bodies[first?.kind === 'status' ? 0 : 1];
      if (first !== undefined && body !== undefined)
        rig.gateway.deliver([{ ...first, kind: 'answer', body }]);
    };
    const drainingFor = async (agent: TestAgent): Promise<unknown[]> => {
      agent.request({ kind: 'status' }, 1);
      agent.request({ kind: 'member_list' }, 2);
      const [first, second] = [await agent.answer(1), await agent.answer(2)];
      if (first.kind !== 'status' || second.kind !== 'members') throw new Error('other answers');
      return [first.status.members[0]?.draining, second.list.members[0]?.draining];
    };
    const credentials = await issue(rig.world.puppet, { subject: 'CN=admin' });
    expect(await drainingFor(await rig.greeted({ credentials }))).toEqual([undefined, undefined]);
    expect(await drainingFor(await rig.greeted({ ...newer, credentials }))).toEqual([true, true]);
  });
});
