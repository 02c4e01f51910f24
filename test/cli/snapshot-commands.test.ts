import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readServerConfiguration, readServerFiles } from '../../src/cli/server-files.ts';
import type { SnapshotReadPart } from '../../src/protocol/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { asLogIndex, asTerm, initialConfiguration } from '../../src/raft/index.ts';
import { MemoryDisk, openMemoryStorage, openStorage } from '../../src/storage/index.ts';
import { Store } from '../../src/store/index.ts';
import { nowMs, runCommand, temporaryDirectory } from './support/command.ts';

const clusterId = '0123456789abcdef0123456789abcdef';
const session = 'ab'.repeat(16);
const principal = 'agents:web1';

let directory: ReturnType<typeof temporaryDirectory>;
const at = (...path: string[]): string => join(directory.path, ...path);
const run = (commandLine: string[], client = {}) =>
  runCommand(commandLine, { workingDirectory: directory.path, client });

beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => directory.remove());

/** One future with a secret, as a server has it. */
const stateOfOneFuture = (): Store => {
  const store = new Store({ clusterId });
  const origin = { member: 1, run: 1, request: 1 };
  const operation = {
    kind: 'resolve',
    key: 'nodes/web1/out/token',
    preconditions: {},
    value: Buffer.from('hunter2'),
    contentType: 'text/plain',
    sensitive: true,
    supersede: false,
  } as const;
  const commands = [
    { origin, kind: 'session_open', session, principal, graceMs: 5000, resume: false, connection: 1 },
    { origin, kind: 'write', session, principal, sequence: 1, answeredBelow: 1, operations: [operation] },
  ] as const;
  store.apply({ timeMs: nowMs, commands }, 1);
  return store;
};

/** As a server would send them. */
const snapshotParts = async (): Promise<SnapshotReadPart[]> => {
  const store = stateOfOneFuture();
  const point = { index: asLogIndex(1), term: asTerm(1) };
  const storage = await openMemoryStorage({ disk: new MemoryDisk(), identity: { clusterId, member: 1 } });
  await storage.write({
    hardState: { term: point.term, vote: undefined, commit: point.index },
    entries: [{ ...point, kind: 'empty', payload: new Uint8Array() }],
    stateWrites: store.takeStateWrites(),
    applied: point,
    sync: true,
  });
  const reader = await storage.openSnapshot(initialConfiguration([1]));
  const parts: SnapshotReadPart[] = [];
  for (let part = await reader.next(); part !== undefined; part = await reader.next()) {
    const { number, ...rest } = part;
    const { epoch, revision } = store;
    parts.push({ ...rest, ...point, snapshot: 5, part: number, clusterId, epoch, revision });
  }
  await reader.close();
  await storage.close();
  return parts;
};

const serving = (parts: readonly SnapshotReadPart[], error?: Error) => ({
  readSnapshot: async function* () {
    yield* parts;
    await Promise.resolve();
    if (error !== undefined) throw error;
  },
});

const saved = async (): Promise<void> => {
  const outcome = await run(['snapshot', 'save', 'backup'], serving(await snapshotParts()));
  expect(outcome).toMatchObject({ code: 0, stderr: '' });
};

describe('snapshot save', () => {
  test('writes a file for its owner only, which verify finds whole', async () => {
    const outcome = await run(['snapshot', 'save', 'backup'], serving(await snapshotParts()));
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    expect(outcome.calls[0]).toEqual(['readSnapshot', { timeoutMs: 30_000 }]);
    expect(outcome.stdout).toMatch(
      new RegExp(
        `^${at('backup')} is written: revision 1 of cluster ${clusterId} \\(epoch 1\\), saved at 2026-01-02T03:04:05\\.000Z, \\d records, \\d+ B\\n$`,
      ),
    );
    expect(statSync(at('backup')).mode & 0o777).toBe(0o600);
    const verified = await run(['snapshot', 'verify', 'backup', '--json']);
    expect(JSON.parse(verified.stdout)).toMatchObject({
      file: at('backup'),
      clusterId,
      epoch: 1,
      revision: 1,
      index: 1,
      term: 1,
      savedAt: '2026-01-02T03:04:05.000Z',
      bytes: statSync(at('backup')).size,
    });
    expect(verified.calls).toEqual([]);
    expect(verified.stdout + outcome.stdout).not.toContain('hunter2');
  });

  test('leaves no file behind that is not whole', async () => {
    const lost = new FuturestoreError('UNAVAILABLE', 'the snapshot cannot be read on');
    const parts = (await snapshotParts()).map((part) => ({ ...part, last: false }));
    const broken = await run(['snapshot', 'save', 'backup'], serving(parts, lost));
    expect(broken).toMatchObject({ code: 6, stdout: '' });
    expect(broken.calls.filter(([method]) => method === 'readSnapshot')).toHaveLength(3);
    const cut = await run(['snapshot', 'save', 'backup'], serving(parts));
    expect(cut).toMatchObject({ code: 9, stderr: expect.stringContaining('the last part') });
    const none = await run(['snapshot', 'save', 'backup'], serving([]));
    expect(none.code).toBe(1);
    expect(readdirSync(directory.path)).toEqual([]);
  });

  test('is begun again where the server that had it open is gone', async () => {
    const parts = await snapshotParts();
    const lost = new FuturestoreError('UNAVAILABLE', 'the snapshot cannot be read on');
    let tries = 0;
    const readSnapshot = () => {
      tries += 1;
      return tries === 1 ? serving(parts, lost).readSnapshot() : serving(parts).readSnapshot();
    };
    expect((await run(['snapshot', 'save', 'backup'], { readSnapshot })).code).toBe(0);
    expect(readdirSync(directory.path)).toEqual(['backup']);
  });

  test('replaces no file unless it is meant', async () => {
    writeFileSync(at('backup'), 'the only backup');
    const refused = await run(['snapshot', 'save', 'backup']);
    expect(refused).toMatchObject({ code: 2, calls: [] });
    expect(refused.stderr).toMatch(/backup is there already: .* --force/);
    expect(readFileSync(at('backup'), 'utf8')).toBe('the only backup');
    const forced = await run(['snapshot', 'save', 'backup', '--force'], serving(await snapshotParts()));
    expect(forced.code).toBe(0);
    expect((await run(['snapshot', 'verify', 'backup'])).code).toBe(0);
  });
});

describe('snapshot verify', () => {
  test('says what is wrong with a damaged file, and where', async () => {
    await saved();
    const bytes = readFileSync(at('backup'));
    bytes[bytes.length - 60] = (bytes[bytes.length - 60] ?? 0) ^ 1;
    writeFileSync(at('backup'), bytes);
    const outcome = await run(['snapshot', 'verify', 'backup']);
    expect(outcome).toMatchObject({ code: 9, stdout: '' });
    expect(outcome.stderr).toContain(at('backup'));
  });

  test('of a file that is not there is a usage error', async () => {
    expect((await run(['snapshot', 'verify', 'nothing'])).code).toBe(2);
  });
});

describe('snapshot restore', () => {
  test('makes a whole new cluster with another id, whose servers begin with the state', async () => {
    await saved();
    const outcome = await run([
      'snapshot',
      'restore',
      'backup',
      'new',
      '--servers',
      '2',
      '--port',
      '9000',
      '--json',
    ]);
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    const made = JSON.parse(outcome.stdout) as { clusterId: string; serverConfigurations: string[] };
    expect(made).toMatchObject({
      epoch: 2,
      keys: 1,
      snapshot: { clusterId, revision: 1 },
      adminProfile: at('new', 'admin.yaml'),
      serverConfigurations: [1, 2].map((id) => at('new', `server-${id}`, 'server.yaml')),
    });
    expect(made.clusterId).not.toBe(clusterId);
    for (const [index, file] of made.serverConfigurations.entries()) {
      const configuration = readServerConfiguration(file);
      expect(configuration).toMatchObject({ clusterId: made.clusterId, join: false });
      expect(configuration.self.agents).toBe(`wss://127.0.0.1:${9000 + index}`);
      expect(() => readServerFiles(configuration, nowMs)).not.toThrow();
      const storage = await openStorage({
        directory: configuration.dataDirectory,
        identity: { clusterId: made.clusterId, member: index + 1 },
      });
      expect(storage.recovered.snapshot?.configuration.voters).toEqual([1, 2]);
      await storage.close();
    }
    expect(readdirSync(directory.path).toSorted()).toEqual(['backup', 'new']);
  });

  test('says what to do next', async () => {
    await saved();
    const { stdout } = await run(['snapshot', 'restore', 'backup', 'new', '--servers', '1']);
    expect(stdout).toContain(`is made of revision 1 of cluster ${clusterId}, with 1 key`);
    expect(stdout).toContain(`futurestore server --config ${at('new', 'server-1', 'server.yaml')}\n`);
    expect(stdout).toMatch(/policy\.yaml is the one that init writes: copy your own there/);
    expect(stdout).toContain('agents need new ones');
  });

  test('of a damaged file, or into a directory that is not empty, leaves nothing behind', async () => {
    await saved();
    mkdirSync(at('used'));
    writeFileSync(at('used', 'something'), '');
    const used = await run(['snapshot', 'restore', 'backup', 'used']);
    expect(used).toMatchObject({ code: 2, stderr: expect.stringContaining('is there and not empty') });
    writeFileSync(at('backup'), readFileSync(at('backup')).subarray(0, -1));
    expect((await run(['snapshot', 'restore', 'backup', 'new'])).code).toBe(9);
    expect(readdirSync(directory.path).toSorted()).toEqual(['backup', 'used']);
    expect(readdirSync(at('used'))).toEqual(['something']);
  });
});
