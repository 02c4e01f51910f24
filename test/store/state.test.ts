import { beforeEach, describe, expect, test } from 'vitest';
import { FuturestoreError } from '../../src/protocol/index.ts';
import {
  Store,
  decodeCommand,
  decodeLogEntry,
  encodeCommand,
  encodeLogEntry,
  encodeLogEntryFromCommands,
  type Command,
  type Subject,
} from '../../src/store/index.ts';
import {
  ClusterOfOne,
  alice,
  bytes,
  command,
  op,
  recordsOf,
  sessionId,
  startMs,
} from './support/cluster-of-one.ts';

let cluster: ClusterOfOne;
beforeEach(() => {
  cluster = new ClusterOfOne();
});

const asker: Subject = {
  principal: { realm: 'ops', name: 'root', variables: { role: 'admin' } },
  credential: { realm: 'ops', name: 'root', certificate: { serial: '3fa0', issuedAtMs: startMs } },
};

const commands: readonly Command[] = [
  command(
    {
      kind: 'write',
      session: sessionId(1),
      principal: alice,
      sequence: 3,
      answeredBelow: 2,
      operations: [
        op.declare('a', { renew: true, tied: true, deadlineMs: 7, preconditions: { ifAbsent: true } }),
        op.resolve('b', 'value', {
          ttlMs: 5,
          sensitive: true,
          supersede: true,
          preconditions: { ifRevision: 4 },
        }),
        op.resolve('e', ''),
        op.reject('c', 'NO', { ttlMs: 9, preconditions: { ifGeneration: 1 } }),
        op.delete('d', { ifRevision: 0 }),
        op.touch('e', 11),
      ],
    },
    3,
    2 ** 53 - 1,
  ),
  command({
    kind: 'session_open',
    session: sessionId(255),
    principal: alice,
    graceMs: 1000,
    resume: true,
    connection: 9,
  }),
  command({ kind: 'session_close', session: sessionId(2), principal: alice }),
  command({ kind: 'session_detach', session: sessionId(2), connection: 4 }),
  command({ kind: 'server_started', member: 2, run: 5, diskId: new Uint8Array(16).fill(3) }),
  command({ kind: 'server_lost', member: 2, run: 5 }),
  command({ kind: 'ticket_keys', number: 2, keys: new Uint8Array(48).fill(9) }),
  command({
    kind: 'expire',
    futures: [{ key: 'k', generation: 2, atMs: startMs }],
    sessions: [{ session: sessionId(8), atMs: 5 }],
  }),
  command({ kind: 'expire', futures: [], sessions: [] }),
  command({
    kind: 'member_add',
    least: 4,
    name: 'server-4',
    peersAddress: '[::1]:7422',
    agentsUrl: 'wss://server-4:7421',
    replaces: 3,
  }),
  command({ kind: 'member_add', least: 0, name: '', peersAddress: '', agentsUrl: '', replaces: 0 }),
  command({ kind: 'member_promote', member: 4 }),
  command({ kind: 'member_remove', member: 4 }),
  command({ kind: 'member_promote', member: 4, by: asker }),
  command({ kind: 'member_remove', member: 4, by: asker }),
  command({
    kind: 'member_add',
    least: 4,
    name: 'n',
    peersAddress: 'n:1',
    agentsUrl: 'wss://n',
    replaces: 0,
    by: asker,
  }),
];

describe('log entries', () => {
  test('every command comes back as it was', () => {
    for (const one of commands) expect(decodeCommand(encodeCommand(one))).toEqual(one);
    expect(decodeLogEntry(encodeLogEntry({ timeMs: startMs, commands }))).toEqual({
      timeMs: startMs,
      commands,
    });
    expect(decodeLogEntry(encodeLogEntry({ timeMs: 0, commands: [] }))).toEqual({ timeMs: 0, commands: [] });
  });

  test('an entry pasted from encoded commands is the same bytes', () => {
    expect(encodeLogEntryFromCommands(startMs, commands.map(encodeCommand))).toEqual(
      encodeLogEntry({ timeMs: startMs, commands }),
    );
  });

  test('what is decoded holds nothing of the frame', () => {
    const frame = encodeLogEntry({ timeMs: 1, commands: [...commands] });
    const entry = decodeLogEntry(frame);
    const before = structuredClone(entry);
    frame.fill(0xff);
    expect(entry).toEqual(before);
    const [write] = entry.commands;
    if (write?.kind !== 'write') throw new Error('no write');
    for (const operation of write.operations) {
      if (operation.kind === 'resolve') expect(operation.value.buffer).not.toBe(frame.buffer);
    }
  });

  test('bytes that are no entry are refused with PROTOCOL_ERROR', () => {
    expect(() => decodeLogEntry(Uint8Array.of(0x12, 0xff))).toThrow(FuturestoreError);
    expect(() => decodeCommand(new Uint8Array(0))).toThrow(/no body/);
    const encoded = encodeCommand(commands[1] ?? command({ kind: 'server_lost', member: 1, run: 1 }));
    for (let at = 0; at < encoded.length; at++) {
      const broken = encoded.slice();
      broken[at] = (broken[at] ?? 0) ^ 0x55;
      try {
        decodeCommand(broken);
      } catch (error) {
        expect(error).toBeInstanceOf(FuturestoreError);
      }
    }
  });

  test('a number that protobuf would change in silence is refused', () => {
    expect(() => encodeCommand(command({ kind: 'server_lost', member: 1.5, run: 1 }))).toThrow();
    expect(() => encodeLogEntryFromCommands(-1, [])).toThrow();
  });
});

describe('state writes', () => {
  test('each record that changed is there once, with its latest state, and only once', () => {
    cluster.flush();
    cluster.write(op.declare('a'));
    cluster.write(op.resolve('a', 'v'));
    const keys = cluster.store.takeStateWrites().map(({ key }) => key);
    expect(keys.sort()).toEqual(['f/a', `s/${sessionId(1)}`, 'state']);
    expect(cluster.store.takeStateWrites()).toEqual([]);
    cluster.apply();
    expect(cluster.store.takeStateWrites().map(({ key }) => key)).toEqual(['state']);
  });

  test('what ended is removed: sessions, and keys whose deletion is forgotten', () => {
    cluster = new ClusterOfOne({ tombstonesMax: 0 });
    cluster.write([op.resolve('a', 'v'), op.resolve('b', 'v')]);
    cluster.flush();
    cluster.write([op.delete('a'), op.delete('b')]);
    cluster.write(op.declare('b'));
    cluster.one({ kind: 'session_close', session: sessionId(2), principal: 'puppet:bob' });
    const writes = cluster.store.takeStateWrites();
    expect(new Map(writes.map(({ key, value }) => [key, value !== undefined]))).toEqual(
      new Map([
        ['f/a', false],
        ['f/b', true],
        [`s/${sessionId(1)}`, true],
        [`s/${sessionId(2)}`, false],
        ['state', true],
      ]),
    );
    expect(writes.filter(({ key }) => key === 'f/b')).toHaveLength(1);
  });

  test('a session that ended and was opened anew is written once, as it is now', () => {
    cluster.flush();
    cluster.one({ kind: 'session_close', session: sessionId(2), principal: 'puppet:bob' });
    cluster.open(2, 'puppet:bob', { connection: 99 });
    const writes = cluster.store.takeStateWrites().filter(({ key }) => key === `s/${sessionId(2)}`);
    expect(writes).toHaveLength(1);
    expect(writes[0]?.value).toBeDefined();
  });

  test('the records, loaded, are the state: ties, answers, deletions, servers and time', () => {
    cluster.one({ kind: 'server_started', member: 1, run: 1, diskId: bytes('0123456789abcdef') });
    cluster.write([
      op.declare('tied', { tied: true }),
      op.resolve('v', 'value', { ttlMs: 50, sensitive: true }),
    ]);
    cluster.write([
      op.reject('r', 'NO'),
      op.resolve('gone', 'v'),
      op.delete('gone'),
      op.resolve('empty', ''),
    ]);
    cluster.failure(op.delete('none'));
    cluster.detach(1);
    const copy = cluster.copy();
    expect(copy.digest()).toBe(cluster.store.digest());
    expect(copy.takeStateWrites()).toEqual([]);
    expect(copy.get('v')).toEqual(cluster.store.get('v'));
    expect([copy.keys, copy.sessions, copy.tombstones, copy.revision, copy.timeMs]).toEqual([
      4,
      2,
      1,
      2,
      startMs,
    ]);
    expect(copy.server(1)).toEqual(cluster.store.server(1));
    const due = copy.due(startMs + 10_000, 10);
    const { changes } = copy.apply(
      { timeMs: startMs + 10_000, commands: [command({ kind: 'expire', ...due })] },
      99,
    );
    expect(changes.map(({ key }) => key).sort()).toEqual(['tied', 'v']);
  });

  test('an empty state is loaded from nothing', () => {
    const store = new Store({ clusterId: 'c' });
    store.load([]);
    store.finishLoad();
    expect(store.digest()).toBe(new Store({ clusterId: 'c' }).digest());
  });
});

describe('a damaged state is refused, and the record named', () => {
  const loadAll = (records: readonly { key: string; value: Uint8Array }[]) => () => {
    const store = new Store({ clusterId: 'test' });
    store.load(records);
    store.finishLoad();
  };
  const refused = (error: RegExp) =>
    expect.objectContaining({ code: 'DATA_DAMAGED', message: expect.stringMatching(error) });

  beforeEach(() => {
    cluster.write([op.declare('a', { tied: true }), op.resolve('b', 'v')]);
    cluster.write(op.delete('b'));
  });

  test.each([
    ['a session is missing that something is tied to', (key: string) => !key.startsWith('s/'), /f\/a/],
    ['the counters are missing', (key: string) => key !== 'state', /"state" of the state is missing/],
  ])('%s', (_, keep, error) => {
    expect(loadAll(recordsOf(cluster).filter(({ key }) => keep(key)))).toThrow(refused(error));
  });

  test('a record of an unknown kind, under a wrong key, there twice, or cut short', () => {
    const records = recordsOf(cluster);
    const first = records[0];
    if (first === undefined) throw new Error('no records');
    expect(loadAll([...records, { key: 'x/1', value: first.value }])).toThrow(refused(/x\/1.*no kind/));
    expect(loadAll([...records, { key: 'f/c', value: first.value }])).toThrow(refused(/f\/c.*another key/));
    for (const record of records) {
      expect(loadAll([...records, record])).toThrow(refused(/twice/));
      const cut = { key: record.key, value: record.value.subarray(0, record.value.length - 1) };
      expect(loadAll(records.map((one) => (one === record ? cut : one)))).toThrow(
        expect.objectContaining({ code: 'DATA_DAMAGED' }),
      );
    }
  });

  test('any flipped byte is refused as DATA_DAMAGED or gives a state, never another error', () => {
    const records = recordsOf(cluster);
    let refusals = 0;
    for (const record of records) {
      for (let at = 0; at < record.value.length; at++) {
        const value = record.value.slice();
        value[at] = (value[at] ?? 0) ^ 0x81;
        try {
          loadAll(records.map((one) => (one === record ? { key: one.key, value } : one)))();
        } catch (error) {
          refusals++;
          expect(error).toMatchObject({ code: 'DATA_DAMAGED' });
        }
      }
    }
    expect(refusals).toBeGreaterThan(50);
  });
});

test('an entry that is not behind the last one stops the store', () => {
  expect(() => cluster.store.apply({ timeMs: startMs, commands: [] }, cluster.index)).toThrow(
    /applied after/,
  );
});

describe('futures that end together', () => {
  const named = (writes: readonly { key: string; value: Uint8Array | undefined }[]): string[] =>
    writes.map(({ key, value }) => `${value === undefined ? 'no ' : ''}${key.slice(0, 2)}`).sort();

  test('are one record at first; their own are rewritten later, a few at a time, until it is gone', () => {
    cluster.write(Array.from({ length: 5 }, (_, at) => op.resolve(`k/${at}`, 'v', { ttlMs: 10 })));
    cluster.flush();
    cluster.later(20);
    cluster.sweep();
    expect(named(cluster.store.takeStateWrites(0))).toEqual(['e/', 'st']);
    expect(named(cluster.store.takeStateWrites(2))).toEqual(['f/', 'f/']);
    // A change of its own takes it out as well.
    cluster.write(op.resolve('k/4', 'new'));
    expect(named(cluster.store.takeStateWrites(0))).toEqual(['f/', 's/', 'st']);
    expect(cluster.store.hasDeferredWrites).toBe(true);
    expect(named(cluster.store.takeStateWrites(9))).toEqual(['f/', 'f/', 'no e/']);
    expect(cluster.store.hasDeferredWrites).toBe(false);
    expect(cluster.store.takeStateWrites(9)).toEqual([]);
  });
});
