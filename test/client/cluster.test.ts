import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { AnswerBody, MemberList, Request, SnapshotReadPart } from '../../src/protocol/index.ts';
import { World, failed, watch } from './support/world.ts';

const newMember = { name: 'server-4', peersAddress: 'fs4:7431', agentsUrl: 'wss://fs4:7421' };

const list: MemberList = {
  members: [
    {
      id: 1,
      name: 'server-1',
      peersAddress: 'fs1:7431',
      agentsUrl: 'wss://fs1:7421',
      standing: 'voter',
      wanted: 'voter',
      reachable: true,
      lag: 0,
      joined: true,
    },
  ],
  changePending: false,
  leader: 1,
};

describe('members', () => {
  test('are asked for and changed as the caller says, and answers are given back', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = ({ body }): AnswerBody => {
      if (body.kind === 'member_list') return { kind: 'members', list };
      if (body.kind === 'transfer_leader') return { kind: 'leader_transferred', member: body.member ?? 3 };
      return { kind: 'member_changed', member: 'member' in body ? body.member : 4 };
    };
    const client = world.client();
    const given = [
      client.members(),
      client.addMember(newMember),
      client.addMember({ ...newMember, replaces: 2 }),
      client.promoteMember(4),
      client.removeMember(2),
      client.transferLeader(),
      client.transferLeader({ to: 1 }),
    ].map((promise) => watch<unknown>(promise));
    await world.settle();
    expect(given.map(({ value }) => value)).toEqual([list, 4, 4, undefined, undefined, 3, 1]);
    expect(server.connection.requests.map(({ body }) => body)).toEqual([
      { kind: 'member_list' },
      { kind: 'member_add', ...newMember },
      { kind: 'member_add', ...newMember, replaces: 2 },
      { kind: 'member_promote', member: 4 },
      { kind: 'member_remove', member: 2 },
      { kind: 'transfer_leader' },
      { kind: 'transfer_leader', member: 1 },
    ]);
  });

  test('whose change is refused hear why, at once', async () => {
    const world = new World();
    world.server('wss://a').handle = () => failed('MEMBERSHIP_REFUSED', 'server 4 is 5000 entries behind');
    const promoted = watch(world.client().promoteMember(4));
    await world.settle();
    expect(promoted).toMatchObject({ state: 'rejected', error: { code: 'MEMBERSHIP_REFUSED' } });
  });

  test('that cannot be are refused here', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    const bad = [
      client.addMember({ ...newMember, peersAddress: 'fs4' }),
      client.addMember({ ...newMember, agentsUrl: 'https://fs4:7421' }),
      client.removeMember(0),
      client.transferLeader({ to: 1.5 }),
    ].map((promise) => watch<unknown>(promise));
    await world.settle();
    for (const one of bad)
      expect(one).toMatchObject({ state: 'rejected', error: { code: 'INVALID_ARGUMENT' } });
    expect(server.connection.requests).toEqual([]);
  });

  test('are asked about again over the next connection', async () => {
    const world = new World();
    const server = world.server('wss://a');
    const client = world.client();
    const removed = watch(client.removeMember(2));
    await world.settle();
    server.connection.break();
    server.handle = () => ({ kind: 'member_changed', member: 2 });
    await world.advance(1_000);
    expect(removed.state).toBe('fulfilled');
  });
});

const partOf = (number: number, more: Partial<SnapshotReadPart> = {}): SnapshotReadPart => {
  const records = Buffer.from(`records of part ${number}`);
  return {
    snapshot: 77,
    part: number,
    records: new Uint8Array(records),
    checksum: crc32(records),
    last: number === 2,
    recordsTotal: number === 2 ? 9 : 0,
    clusterId: 'c1',
    epoch: 1,
    revision: 40,
    index: 50,
    term: 3,
    ...more,
  };
};

const serving =
  (change: (number: number) => Partial<SnapshotReadPart> = () => ({})) =>
  ({ body }: Request): AnswerBody => {
    if (body.kind !== 'snapshot_read') throw new Error(`a ${body.kind} came`);
    return { kind: 'snapshot_part', part: partOf(body.part, change(body.part)) };
  };

const readAll = async (parts: AsyncIterable<SnapshotReadPart>): Promise<number[]> => {
  const numbers: number[] = [];
  for await (const { part } of parts) numbers.push(part);
  return numbers;
};

describe('a snapshot', () => {
  test('is read part by part up to the last one, each when the one before was taken', async () => {
    const world = new World();
    const server = world.server('wss://a');
    server.handle = serving();
    const parts = world.client().readSnapshot();
    const first = watch(parts.next());
    await world.advance(10);
    expect(first.value).toEqual({ done: false, value: partOf(0) });
    expect(server.connection.requests.map(({ body }) => body)).toEqual([{ kind: 'snapshot_read', part: 0 }]);
    const rest = watch(readAll(parts));
    await world.advance(10);
    expect(rest.value).toEqual([1, 2]);
    expect(server.connection.requests.map(({ body }) => body)).toEqual([
      { kind: 'snapshot_read', part: 0 },
      { kind: 'snapshot_read', snapshot: 77, part: 1 },
      { kind: 'snapshot_read', snapshot: 77, part: 2 },
    ]);
  });

  test.each<[string, (number: number) => Partial<SnapshotReadPart>, string]>([
    ['a flipped bit', (number) => (number === 1 ? { checksum: 1 } : {}), 'DATA_DAMAGED'],
    ['a part of another snapshot', (number) => (number === 1 ? { snapshot: 78 } : {}), 'PROTOCOL_ERROR'],
    ['a part as of another revision', (number) => (number === 1 ? { revision: 41 } : {}), 'PROTOCOL_ERROR'],
    ['a part of another cluster', (number) => (number === 1 ? { clusterId: 'c2' } : {}), 'PROTOCOL_ERROR'],
    ['a part out of turn', (number) => (number === 1 ? { part: 2 } : {}), 'PROTOCOL_ERROR'],
  ])('with %s is not believed', async (_what, change, code) => {
    const world = new World();
    world.server('wss://a').handle = serving(change);
    const read = watch(readAll(world.client().readSnapshot()));
    await world.advance(10);
    expect(read).toMatchObject({ state: 'rejected', error: { code } });
  });

  test('fails where its server does not know it any more: begun again, it may be read', async () => {
    const world = new World();
    world.server('wss://a').handle = (request) =>
      request.body.kind === 'snapshot_read' && request.body.part === 1
        ? failed('INVALID_ARGUMENT', 'snapshot 77 is not open on this server')
        : serving()(request);
    const read = watch(readAll(world.client().readSnapshot()));
    await world.advance(10);
    expect(read).toMatchObject({ state: 'rejected', error: { code: 'UNAVAILABLE' } });
  });
});
