import { beforeEach, describe, expect, test } from 'vitest';
import { Store, type CommandBody, type CommandResult } from '../../src/store/index.ts';
import { ClusterOfOne, alice, bob, command, op, recordsOf, sessionId } from './support/cluster-of-one.ts';

let cluster: ClusterOfOne;
beforeEach(() => {
  cluster = new ClusterOfOne();
});

const add = (name: string, more: { least?: number; replaces?: number; host?: string } = {}): CommandResult =>
  cluster.one({
    kind: 'member_add',
    least: more.least ?? 4,
    name,
    peersAddress: `${more.host ?? name}:7422`,
    agentsUrl: `wss://${more.host ?? name}:7421`,
    replaces: more.replaces ?? 0,
  });
const promote = (member: number): CommandResult => cluster.one({ kind: 'member_promote', member });
const remove = (member: number): CommandResult => cluster.one({ kind: 'member_remove', member });

/** What is wanted, as '4 north learner'. */
const wishes = (store: Store = cluster.store): string[] =>
  store.members.map(({ member, name, wanted }) => `${member} ${name || '-'} ${wanted}`);
const refused = (why: RegExp) => ({
  kind: 'failed',
  failure: { code: 'MEMBERSHIP_REFUSED', message: expect.stringMatching(why) },
});
const member = (id: number) => ({ kind: 'member', member: id });

describe('a new member', () => {
  test('gets the next id, is wanted as a learner first, and can be promoted', () => {
    expect(add('north')).toEqual(member(4));
    expect(add('south')).toEqual(member(5));
    expect(wishes()).toEqual(['4 north learner', '5 south learner']);
    expect(cluster.store.members[0]).toEqual({
      member: 4,
      name: 'north',
      peersAddress: 'north:7422',
      agentsUrl: 'wss://north:7421',
      wanted: 'learner',
    });
    expect(promote(4)).toEqual(member(4));
    expect(wishes()).toEqual(['4 north voter', '5 south learner']);
    expect(cluster.store.lastMember).toBe(5);
  });

  test('asked for once more is the same one, as long as it is there', () => {
    add('north');
    expect(add('north')).toEqual(member(4));
    promote(4);
    expect(add('north')).toEqual(member(4));
    expect(wishes()).toEqual(['4 north voter']);
    remove(4);
    expect(add('north')).toEqual(member(5));
  });

  test('with the name of another and other addresses is refused', () => {
    add('north');
    expect(add('north', { host: 'elsewhere' })).toEqual(refused(/member 4 has the name north/));
    expect(wishes()).toEqual(['4 north learner']);
  });

  test('has an id of at least what the server says, and above all that were in a configuration', () => {
    expect(add('north', { least: 9 })).toEqual(member(9));
    cluster.store.applyConfiguration([1, 2, 3, 9, 12]);
    expect(add('south', { least: 1 })).toEqual(member(13));
    expect(add('west', { least: Number.MAX_SAFE_INTEGER })).toEqual(member(Number.MAX_SAFE_INTEGER));
    expect(add('east')).toEqual(refused(/too large/));
  });

  test('in the place of another is a voter, and the other is to leave', () => {
    expect(add('north', { replaces: 3 })).toEqual(member(4));
    expect(wishes()).toEqual(['3 - removed', '4 north voter']);
    expect(add('north', { replaces: 3 })).toEqual(member(4));
    cluster.store.applyConfiguration([1, 2, 4]);
    expect(wishes()).toEqual(['4 north voter']);
    expect(add('north', { replaces: 3 })).toEqual(member(4));
    expect(wishes()).toEqual(['4 north voter']);
  });

  test('may take over the name and addresses of the one that it replaces', () => {
    add('north', { replaces: 3 });
    expect(add('north', { replaces: 4 })).toEqual(member(5));
    expect(add('north', { replaces: 4 })).toEqual(member(5));
    expect(wishes()).toEqual(['3 - removed', '4 north removed', '5 north voter']);
  });

  test('in the place of one that leaves already, or that is no member, is refused', () => {
    add('north', { replaces: 3 });
    expect(add('south', { replaces: 3 })).toEqual(refused(/3, which was to be replaced, is being removed/));
    cluster.store.applyConfiguration([1, 2, 4]);
    expect(add('south', { replaces: 3 })).toEqual(refused(/3, which was to be replaced, is no member/));
    expect(wishes()).toEqual(['4 north voter']);
  });

  test('is refused when there are too many', () => {
    for (let number = 1; number <= 100; number++) add(`server-${number}`);
    expect(add('north')).toEqual(refused(/100 members/));
    expect(add('server-7')).toEqual(member(10));
  });
});

describe('a member', () => {
  test('that the configuration files name has a record from the first command on that is about it', () => {
    expect(promote(3)).toEqual(member(3));
    expect(remove(2)).toEqual(member(2));
    expect(wishes()).toEqual(['2 - removed', '3 - voter']);
  });

  test('that is being removed stays so', () => {
    add('north');
    expect(remove(4)).toEqual(member(4));
    expect(remove(4)).toEqual(member(4));
    expect(promote(4)).toEqual(refused(/4 is being removed/));
    expect(wishes()).toEqual(['4 north removed']);
  });

  test('0 is none', () => {
    expect(promote(0)).toEqual(refused(/0 is no member/));
    expect(remove(0)).toEqual(refused(/0 is no member/));
  });

  test('that has left is gone for good: its id is not given again and no command brings it back', () => {
    add('north');
    cluster.store.applyConfiguration([1, 2, 3, 4]);
    remove(4);
    expect(wishes()).toEqual(['4 north removed']);
    // A joint configuration has it among its outgoing voters or as it was.
    cluster.store.applyConfiguration([1, 2, 3, 4]);
    expect(wishes()).toEqual(['4 north removed']);
    cluster.store.applyConfiguration([1, 2, 3]);
    expect(wishes()).toEqual([]);
    expect(promote(4)).toEqual(refused(/4 is no member/));
    expect(remove(4)).toEqual(refused(/4 is no member/));
    expect(add('south', { replaces: 4 })).toEqual(refused(/4, which was to be replaced/));
    expect(add('north', { least: 1 })).toEqual(member(5));
  });

  test('that leaves takes its server record along; the grace of its sessions begins', () => {
    cluster.one({ kind: 'server_started', member: 4, run: 1, diskId: new Uint8Array(16) }, 4);
    cluster.one(
      {
        kind: 'session_open',
        session: sessionId(9),
        principal: bob,
        graceMs: 50,
        resume: false,
        connection: 1,
      },
      4,
    );
    remove(4);
    cluster.store.applyConfiguration([1, 2, 3, 4]);
    expect(cluster.store.server(4)).toBeDefined();
    expect(cluster.store.due(cluster.nowMs + 50, 9).sessions).toEqual([]);
    cluster.store.applyConfiguration([1, 2, 3]);
    expect(cluster.store.server(4)).toBeUndefined();
    expect(cluster.store.due(cluster.nowMs + 50, 9).sessions).toEqual([
      { session: sessionId(9), atMs: cluster.nowMs + 50 },
    ]);
  });

  test('that has left and does not know it attaches nothing: nobody would say that it is lost', () => {
    remove(3);
    cluster.store.applyConfiguration([1, 2]);
    cluster.one({ kind: 'server_started', member: 3, run: 7, diskId: new Uint8Array(16) }, 3, 7);
    expect(cluster.store.server(3)).toBeUndefined();
    const opened = { session: sessionId(9), principal: bob, graceMs: 50, resume: false, connection: 1 };
    expect(cluster.one({ kind: 'session_open', ...opened }, 3, 7)).toEqual({ kind: 'done' });
    expect(cluster.store.isAttachedElsewhere(sessionId(9), 1)).toBe(false);
    expect(cluster.store.due(cluster.nowMs + 50, 9).sessions).toHaveLength(1);
  });

  test('to be is let in by its record before any configuration has it', () => {
    cluster.store.applyConfiguration([1, 2, 3]);
    add('north');
    cluster.one({ kind: 'server_started', member: 4, run: 1, diskId: new Uint8Array(16) }, 4);
    expect(cluster.store.server(4)).toMatchObject({ run: 1 });
  });
});

describe('a command that is sent again', () => {
  const north: CommandBody = {
    kind: 'member_add',
    least: 4,
    name: 'north',
    peersAddress: 'north:7422',
    agentsUrl: 'wss://north:7421',
    replaces: 0,
  };
  const send = (
    body: CommandBody,
    request: number,
    from = 2,
    run = 5,
    store = cluster.store,
  ): CommandResult => {
    const entry = { timeMs: cluster.nowMs, commands: [command(body, from, run, request)] };
    cluster.index += 1;
    const result = store.apply(entry, cluster.index).results[0];
    if (result === undefined) throw new Error('a command has no result');
    return result;
  };
  const start = (run: number): CommandResult =>
    cluster.one({ kind: 'server_started', member: 2, run, diskId: new Uint8Array(16).fill(2) });
  const leave = (): void => {
    send({ kind: 'member_remove', member: 4 }, 1, 1, 1);
    cluster.store.applyConfiguration([1, 2, 3]);
  };

  test('does nothing and has its first answer, whatever has become of the member', () => {
    start(5);
    expect(send(north, 7)).toEqual(member(4));
    cluster.store.applyConfiguration([1, 2, 3, 4]);
    leave();
    const digest = cluster.store.digest();
    expect(send(north, 7)).toEqual(member(4));
    expect(cluster.store.digest()).toBe(digest);
    expect(wishes()).toEqual([]);
    expect(send(north, 8)).toEqual(member(5));
  });

  test('is refused again when it was refused, also where it would be possible by now', () => {
    start(5);
    cluster.store.applyConfiguration([1, 2, 3]);
    const promotion: CommandBody = { kind: 'member_promote', member: 4 };
    expect(send(promotion, 7)).toEqual(refused(/4 is no member/));
    expect(send(north, 1, 1, 1)).toEqual(member(4));
    expect(send(promotion, 7)).toEqual(refused(/asked for before, and decided/));
    expect(wishes()).toEqual(['4 north learner']);
  });

  test('is refused when the same server has asked for another change since', () => {
    start(5);
    send(north, 7);
    send({ kind: 'member_remove', member: 3 }, 9);
    expect(send(north, 7)).toEqual(refused(/asked for before, and decided/));
    expect(send({ kind: 'member_promote', member: 4 }, 8)).toEqual(refused(/asked for before/));
    expect(wishes()).toEqual(['3 - removed', '4 north learner']);
  });

  test('is known from the records, and also where the announcement of its run comes behind it', () => {
    expect(send(north, 7)).toEqual(member(4));
    expect(cluster.store.server(2)).toBeUndefined();
    start(5);
    expect(cluster.store.server(2)).toMatchObject({ run: 5, diskId: new Uint8Array(16).fill(2) });
    leave();
    const copy = cluster.copy();
    expect(copy.digest()).toBe(cluster.store.digest());
    expect(send(north, 7, 2, 5, copy)).toEqual(member(4));
    expect(wishes(copy)).toEqual([]);
  });

  test('of an earlier run, or of a server that has left, is not begun', () => {
    start(5);
    start(6);
    expect(send(north, 7)).toEqual(refused(/member 2, which was asked, has left or has been started again/));
    expect(send(north, 1, 2, 6)).toEqual(member(4));
    cluster.store.applyConfiguration([1, 2, 3, 4]);
    send({ kind: 'member_remove', member: 2 }, 1, 1, 1);
    cluster.store.applyConfiguration([1, 3, 4]);
    const digest = cluster.store.digest();
    expect(send({ ...north, name: 'south' }, 9, 2, 6)).toEqual(
      refused(/member 2, which was asked, has left/),
    );
    expect(cluster.store.digest()).toBe(digest);
  });
});

describe('the records', () => {
  test('are the state: wishes, the last id, and who is a member', () => {
    add('north');
    add('south', { replaces: 3 });
    cluster.store.applyConfiguration([1, 2, 4, 5]);
    const copy = cluster.copy();
    expect(wishes(copy)).toEqual(['4 north learner', '5 south voter']);
    expect(copy.lastMember).toBe(5);
    expect(copy.digest()).toBe(cluster.store.digest());
    const late = { timeMs: cluster.nowMs, commands: [command({ kind: 'member_promote', member: 3 }, 2)] };
    expect(copy.apply(late, 99).results).toEqual([refused(/3 is no member/)]);
  });

  test('are written once for each that changed, and removed with the member', () => {
    cluster.flush();
    add('north');
    promote(4);
    expect(cluster.store.takeStateWrites().map(({ key }) => key)).toEqual(['m/1', 'w/4', 'state']);
    expect(cluster.store.takeStateWrites()).toEqual([]);
    promote(4);
    expect(cluster.store.takeStateWrites().map(({ key }) => key)).toEqual(['m/1', 'state']);
    remove(4);
    cluster.store.applyConfiguration([1]);
    expect(cluster.store.takeStateWrites().map(({ key, value }) => [key, value !== undefined])).toEqual([
      ['m/1', true],
      ['w/4', false],
      ['state', true],
    ]);
  });

  test('say who is a member as soon as a configuration does', () => {
    cluster.flush();
    cluster.store.applyConfiguration([3, 1, 2]);
    expect(cluster.store.takeStateWrites().map(({ key }) => key)).toEqual(['state']);
    expect(cluster.store.lastMember).toBe(3);
  });

  test('that contradict each other are refused', () => {
    add('north');
    const records = recordsOf(cluster);
    const load = (changed: typeof records): (() => void) => {
      const store = new Store({ clusterId: 'test' });
      return () => {
        store.load(changed);
        store.finishLoad();
      };
    };
    const wish = records.find(({ key }) => key === 'w/4');
    if (wish === undefined) throw new Error('no record of the member');
    const before = recordsOf(new ClusterOfOne());
    expect(load([...before, wish])).toThrow(/"w\/4" of the state has an id above the last one given, 0/);
    expect(load([...records, wish])).toThrow(/"w\/4" of the state is there twice/);
    expect(load([wish])).toThrow(/"state" of the state is missing/);
    expect(load([...records, { key: 'w/5', value: wish.value }])).toThrow(/holds another member/);
  });

  test('and the digest differ when members do', () => {
    const before = cluster.store.digest();
    cluster.store.applyConfiguration([1, 2, 3]);
    const configured = cluster.store.digest();
    add('north');
    const added = cluster.store.digest();
    promote(4);
    expect(new Set([before, configured, added, cluster.store.digest()]).size).toBe(4);
  });

  test('of a cluster whose members never change are the bytes that they were before members could change', () => {
    cluster.one({ kind: 'server_started', member: 1, run: 1, diskId: new Uint8Array(16).fill(7) });
    cluster.write([op.declare('a', { tied: true }), op.resolve('b', 'v', { ttlMs: 50 })]);
    cluster.write(op.delete('b'));
    cluster.detach(2);
    expect(cluster.store.digest()).toBe('002dd91cd80eec52');
    expect(recordsOf(cluster).map(({ key }) => key)).toEqual([
      'f/a',
      'f/b',
      'm/1',
      `s/${sessionId(1)}`,
      `s/${sessionId(2)}`,
      'state',
    ]);
  });
});

describe('a state that is restored', () => {
  const restored = (): Store => {
    const store = cluster.copy();
    store.prepareRestored({ keepAccess: true });
    return store;
  };

  test('is in the next epoch, with the futures, the revision and the time that it had', () => {
    cluster.write([op.declare('a'), op.resolve('b', 'v', { ttlMs: 50 })]);
    const store = restored();
    expect([store.epoch, store.revision, store.timeMs]).toEqual([
      cluster.store.epoch + 1,
      cluster.store.revision,
      cluster.store.timeMs,
    ]);
    for (const key of ['a', 'b']) expect(store.get(key)).toEqual(cluster.store.get(key));
    expect(store.due(cluster.nowMs + 50, 9).futures.map(({ key }) => key)).toEqual(['b']);
  });

  test('has no servers and members any more, and knows of none that has left', () => {
    cluster.one({ kind: 'server_started', member: 1, run: 1, diskId: new Uint8Array(16) });
    add('north');
    remove(3);
    cluster.store.applyConfiguration([1, 2, 4]);
    const store = restored();
    expect([store.members, store.lastMember, store.server(1)]).toEqual([[], 0, undefined]);
    const commands = [command({ kind: 'member_promote', member: 3 })];
    expect(store.apply({ timeMs: cluster.nowMs, commands }, 1).results).toEqual([member(3)]);
  });

  test('remembers the answers; the grace of every session that was attached begins', () => {
    const write = cluster.nextWrite([op.resolve('a', 'v')]);
    const first = cluster.one(write);
    cluster.detach(2);
    cluster.later(5);
    cluster.apply();
    const store = restored();
    const { sessions } = store.due(cluster.nowMs + 10_000, 9);
    expect(sessions.sort((a, b) => a.atMs - b.atMs)).toEqual([
      { session: sessionId(2), atMs: cluster.nowMs + 9995 },
      { session: sessionId(1), atMs: cluster.nowMs + 10_000 },
    ]);
    const resume = { session: sessionId(1), principal: alice, graceMs: 10_000, connection: 8 };
    const { results } = store.apply(
      {
        timeMs: cluster.nowMs + 100,
        commands: [command({ kind: 'session_open', resume: true, ...resume }, 2), command(write, 2)],
      },
      1,
    );
    expect(results).toEqual([{ kind: 'done' }, first]);
    expect(store.revision).toBe(cluster.store.revision);
  });

  test('differs from what was loaded by what it writes', () => {
    cluster.one({ kind: 'server_started', member: 1, run: 1, diskId: new Uint8Array(16) });
    cluster.write(op.declare('a', { tied: true }));
    add('north');
    cluster.detach(2);
    const records = new Map(recordsOf(cluster).map(({ key, value }) => [key, value]));
    const store = restored();
    const writes = store.takeStateWrites();
    expect(writes.map(({ key }) => key).sort()).toEqual(['m/1', `s/${sessionId(1)}`, 'state', 'w/4']);
    for (const { key, value } of writes) {
      if (value === undefined) records.delete(key);
      else records.set(key, value);
    }
    const again = new Store({ clusterId: 'other' });
    again.load([...records].map(([key, value]) => ({ key, value })));
    again.finishLoad();
    expect(again.digest()).toBe(store.digest());
  });

  test('in use is not restored', () => {
    expect(() => cluster.store.prepareRestored({ keepAccess: true })).toThrow(/in use/);
  });
});
