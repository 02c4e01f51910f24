import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { Feed, type FeedEvent } from '../../src/feed/index.ts';
import type { Operation, Position } from '../../src/protocol/index.ts';
import { asLogIndex, asTerm, initialConfiguration } from '../../src/raft/index.ts';
import { restoreInto, restoreSnapshotFile, type RestoreOptions } from '../../src/server/restore.ts';
import {
  MemoryDisk,
  openMemoryStorage,
  openStorage,
  SnapshotFileReader,
  SnapshotFileWriter,
  type Storage,
} from '../../src/storage/index.ts';
import { Store, type Command, type CommandBody, type CommandResult } from '../../src/store/index.ts';
import { resolveOperation, ServerCluster } from './support/server-cluster.ts';

const oldCluster = 'a'.repeat(32);
const newCluster = 'c'.repeat(32);
const principal = 'agents:test';
const session = '1'.padStart(32, '0');
const startMs = 1_800_000_000_000;
const configuration = initialConfiguration([1, 2, 3]);

/** A cluster that was, as a server's storage and store had it. */
class Source {
  readonly store = new Store({ clusterId: oldCluster });
  nowMs = startMs;
  #index = 0;
  readonly #term = 4;

  apply(...bodies: CommandBody[]): readonly CommandResult[] {
    const commands = bodies.map((body): Command => ({ origin: { member: 1, run: 7, request: 1 }, ...body }));
    this.#index += 1;
    return this.store.apply({ timeMs: this.nowMs, commands }, this.#index).results;
  }

  write(sequence: number, ...operations: Operation[]): CommandBody {
    return { kind: 'write', session, principal, sequence, answeredBelow: 1, operations };
  }

  /** Writes the present state as a file. `header`: what it says of itself instead of what is true. */
  async save(path: string, header: { readonly revision?: number } = {}): Promise<void> {
    const storage = await openMemoryStorage({
      disk: new MemoryDisk(),
      identity: { clusterId: oldCluster, member: 1 },
    });
    const point = { index: asLogIndex(this.#index), term: asTerm(this.#term) };
    await storage.write({
      entries: Array.from({ length: this.#index }, (_, at) => ({
        index: asLogIndex(at + 1),
        term: point.term,
        kind: 'empty' as const,
        payload: new Uint8Array(0),
      })),
      hardState: { term: point.term, vote: undefined, commit: point.index },
      // The records of what expired together are left to be rewritten later.
      stateWrites: this.store.takeStateWrites(0),
      applied: point,
      sync: true,
    });
    const reader = await storage.openSnapshot(configuration);
    const { epoch, revision } = this.store;
    const writer = await SnapshotFileWriter.create(path, {
      clusterId: oldCluster,
      epoch,
      revision,
      savedAtMs: startMs,
      ...point,
      ...header,
    });
    for (let part = await reader.next(); part !== undefined; part = await reader.next())
      await writer.add(part);
    await writer.finish();
    await reader.close();
    await storage.close();
  }
}

let directory = '';
let file = '';
let source: Source;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'futurestore-restore-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  file = join(directory, 'backup.snapshot');
  source = new Source();
  source.apply(
    { kind: 'server_started', member: 1, run: 7, diskId: new Uint8Array(16).fill(1) },
    { kind: 'session_open', session, principal, graceMs: 60_000, resume: false, connection: 1 },
    {
      kind: 'member_add',
      least: 4,
      name: 'server-4',
      peersAddress: 'a:1',
      agentsUrl: 'wss://a',
      replaces: 0,
    },
  );
  source.store.applyConfiguration([1, 2, 3, 4]);
});

const options = (member = 1): RestoreOptions => ({
  file,
  directory: join(directory, `server-${member}`),
  identity: { clusterId: newCluster, member },
  configuration,
});

const load = async (storage: Storage): Promise<Store> => {
  const store = new Store({ clusterId: newCluster });
  for await (const records of storage.readState()) store.load(records);
  store.finishLoad();
  return store;
};

const plain = (store: Store, key: string): unknown => {
  const { value, ...rest } = store.get(key) ?? { value: undefined };
  return { ...rest, value: value && Buffer.from(value).toString() };
};

/** What a server that starts there finds. */
const opened = async <Result>(
  member: number,
  look: (storage: Storage, store: Store) => Result,
): Promise<Result> => {
  const storage = await openStorage(options(member));
  try {
    return look(storage, await load(storage));
  } finally {
    await storage.close();
  }
};

describe('a restored data directory', () => {
  test('is one like any other, with the state at the index of the snapshot and nothing after it', async () => {
    source.apply(source.write(1, resolveOperation('k', 'v'), resolveOperation('l', 'w', { ttlMs: 5000 })));
    await source.save(file);
    expect(await restoreSnapshotFile(options())).toMatchObject({
      snapshot: { clusterId: oldCluster, epoch: 1, revision: 1, index: 2, term: 4 },
      epoch: 2,
      keys: 2,
      sessions: 1,
    });
    await opened(1, ({ recovered }, store) => {
      expect(recovered).toMatchObject({
        hardState: { term: 4, vote: undefined, commit: 2 },
        snapshot: { index: 2, term: 4, configuration },
        entries: [],
        applied: { index: 2, term: 4 },
      });
      for (const key of ['k', 'l']) expect(plain(store, key)).toEqual(plain(source.store, key));
      expect([store.revision, store.epoch, store.timeMs]).toEqual([1, 2, startMs]);
      expect([store.members, store.lastMember, store.server(1)]).toEqual([[], 0, undefined]);
    });
    // LevelDB's next opening finds it as the first one did.
    await opened(1, ({ recovered }, store) => {
      expect(recovered.applied.index).toBe(2);
      expect(store.keys).toBe(2);
    });
  });

  test('is the same on every server of the new cluster, and another disk on each', async () => {
    source.apply(source.write(1, resolveOperation('k', 'v')));
    await source.save(file);
    const seen = new Set<string>();
    const disks = new Set<string>();
    for (const member of [1, 2, 3]) {
      await restoreSnapshotFile(options(member));
      await opened(member, ({ recovered }, store) => {
        seen.add(store.digest());
        disks.add(Buffer.from(recovered.diskId).toString('hex'));
      });
    }
    expect([seen.size, disks.size]).toEqual([1, 3]);
  });

  test('of many sessions and futures that expired together has all of them', async () => {
    const operations = Array.from({ length: 200 }, (_, at) =>
      resolveOperation(`many/${at}`, 'x'.repeat(3000), { ttlMs: 1 }),
    );
    source.apply(source.write(1, ...operations));
    for (let number = 10; number < 3000; number += 1) {
      const id = number.toString().padStart(32, '0');
      source.apply({
        kind: 'session_open',
        session: id,
        principal: `agents:${'long'.repeat(90)}-${number}`,
        graceMs: 1000,
        resume: false,
        connection: number,
      });
    }
    source.nowMs += 10;
    source.apply({ kind: 'expire', ...source.store.due(source.nowMs, 1000) });
    await source.save(file);
    expect(await restoreSnapshotFile(options())).toMatchObject({ keys: 200, sessions: 2991 });
    await opened(1, (_, store) => {
      for (const { key } of operations) expect(store.get(key)?.state).toBe('expired');
      expect(store.due(startMs + 100_000, 10_000).sessions).toHaveLength(2991);
      expect(store.isAttachedElsewhere(session, 9)).toBe(false);
    });
  });

  test('gives a write that is sent again its first answer', async () => {
    const write = source.write(1, resolveOperation('k', 'v'));
    const [first] = source.apply(write);
    await source.save(file);
    await restoreSnapshotFile(options(2));
    await opened(2, (_, store) => {
      const open = { kind: 'session_open', session, principal, graceMs: 60_000, resume: true } as const;
      const origin = { member: 2, run: 1, request: 1 };
      const commands = [
        { origin, ...open, connection: 1 },
        { origin, ...write },
      ];
      expect(store.apply({ timeMs: startMs + 59_999, commands }, 3).results).toEqual([
        { kind: 'done' },
        first,
      ]);
      expect(store.revision).toBe(1);
    });
  });

  test('pitfall 41: answers positions of the cluster before with a reset, its own without', async () => {
    source.apply(source.write(1, resolveOperation('k', 'v')));
    await source.save(file);
    await restoreSnapshotFile(options());
    const store = await opened(1, (_, loaded) => loaded);
    const subscribed = (position: Position): FeedEvent | undefined => {
      const feed = new Feed({ source: store });
      feed.subscribe({
        gateway: 1,
        connection: 1,
        request: 1,
        patterns: ['**'],
        start: { kind: 'after', position },
      });
      return feed.take(startMs).find((event) => event.kind === 'answer');
    };
    const own = { clusterId: newCluster, epoch: 2, revision: 1 };
    for (const [position, reset] of [
      [{ clusterId: oldCluster, epoch: 1, revision: 1 }, true],
      [{ clusterId: oldCluster, epoch: 2, revision: 1 }, true],
      [{ clusterId: newCluster, epoch: 1, revision: 1 }, true],
      [own, false],
    ] as const) {
      expect(subscribed(position)).toMatchObject({ body: { kind: 'subscribed', reset } });
    }
  });
});

describe('a restore is refused, and leaves nothing behind,', () => {
  const refused = async (code: string, what: RegExp, as = options()): Promise<void> => {
    const before = readdirSync(directory).sort();
    await expect(restoreSnapshotFile(as)).rejects.toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(what) }),
    );
    expect(readdirSync(directory).sort()).toEqual(before);
  };

  beforeEach(async () => {
    for (let number = 1; number <= 40; number += 1)
      source.apply(source.write(number, resolveOperation(`k/${number}`, 'v'.repeat(20_000))));
    await source.save(file);
  });

  test('when a bit of the file is wrong, wherever it is', async () => {
    const whole = readFileSync(file);
    for (let at = 5; at < whole.length; at += Math.floor(whole.length / 20)) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 16;
      writeFileSync(file, bytes);
      await refused('DATA_DAMAGED', /backup\.snapshot is damaged/);
    }
    writeFileSync(file, whole.subarray(0, -1));
    await refused('DATA_DAMAGED', /its end is missing/);
  });

  test('when there is no such file', async () => {
    await refused('CONFIGURATION_INVALID', /none\.snapshot cannot be read/, {
      ...options(),
      file: join(directory, 'none.snapshot'),
    });
  });

  test('when the directory has something in it', async () => {
    await restoreSnapshotFile(options());
    await refused('CONFIGURATION_INVALID', /server-1 is there and not empty/);
  });

  test('under the id of the cluster that it was taken from', async () => {
    const same = { ...options(), identity: { clusterId: oldCluster, member: 1 } };
    await refused('CONFIGURATION_INVALID', /cannot be restored under the same id/, same);
  });

  test('for a server that does not vote in the new cluster, or with others than voters', async () => {
    await refused('CONFIGURATION_INVALID', /Member 4 is none of the voters 1, 2, 3/, options(4));
    const learners = { ...configuration, learners: initialConfiguration([4]).voters };
    await refused('CONFIGURATION_INVALID', /voters only/, { ...options(), configuration: learners });
  });

  test('when the header does not agree with the state, or the records are no state', async () => {
    await source.save(file, { revision: 3 });
    await refused('DATA_DAMAGED', /revision \d+ of epoch 1, its header says 3/);
  });

  test('and at no moment is there a directory that a server would start on, except the whole one', async () => {
    const { directory: target } = options();
    const names: string[] = [];
    const progress = { answered: false };
    const restoring = restoreSnapshotFile(options()).finally(() => {
      progress.answered = true;
    });
    while (!progress.answered) {
      names.push(...readdirSync(directory));
      // Whoever looks in the middle finds no directory of that name, or one that has everything.
      if (existsSync(target)) break;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await restoring;
    expect(names.some((name) => /^server-1\..*\.partial$/.test(name))).toBe(true);
    await opened(1, (_, store) => expect(store.keys).toBe(40));
    expect(readdirSync(directory).sort()).toEqual(['backup.snapshot', 'server-1']);
  });
});

test('a cluster that is restored serves what was saved, takes writes, and remembers answers', async () => {
  const write = source.write(1, resolveOperation('k', 'v'));
  source.apply(write);
  source.apply(source.write(2, resolveOperation('l', 'w')));
  await source.save(file);
  const cluster = new ServerCluster({ servers: 3 });
  for (const id of cluster.ids) {
    const identity = { clusterId: newCluster, member: id };
    const disk = new MemoryDisk();
    const storage = await openMemoryStorage({ disk, identity });
    const reader = await SnapshotFileReader.open(file);
    await restoreInto(storage, reader, { file, identity, configuration });
    await reader.close();
    await storage.close();
    cluster.disks.set(id, disk);
    await cluster.start(id);
  }
  await cluster.newLeader();
  const [id = 1] = cluster.followers;
  const agent = cluster.agent(id, session);
  expect(await cluster.answer(agent, agent.open(true))).toEqual({ kind: 'session_opened' });
  const again = agent.write([resolveOperation('k', 'other')], 1);
  expect(await cluster.answer(agent, again)).toMatchObject({ kind: 'written', result: { revision: 1 } });
  const next = agent.write([resolveOperation('m', 'new')], 3);
  expect(await cluster.answer(agent, next)).toMatchObject({ kind: 'written', result: { revision: 3 } });
  const got = await cluster.answer(agent, agent.send({ kind: 'get', key: 'k', stale: false }));
  expect(got).toMatchObject({ kind: 'got', future: { value: new Uint8Array(Buffer.from('v')) } });
  await cluster.converged();
  expect(cluster.fatal).toEqual([]);
});
