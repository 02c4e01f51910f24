import { expect, test } from 'vitest';
import { asLogIndex, asTerm, initialConfiguration } from '../../src/raft/index.ts';
import { noMetrics, silentLogger } from '../../src/server/index.ts';
import { DiskWriter } from '../../src/server/disk-writer.ts';
import { SnapshotViews } from '../../src/server/snapshot-views.ts';
import type { InFlight } from '../../src/server/requests.ts';
import type { Storage } from '../../src/storage/index.ts';
import { VirtualTime } from './support/virtual-time.ts';

const drained = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a view has its revision also when other writes finish before it is open', async () => {
  const writes: (() => void)[] = [];
  let opened = (): void => undefined;
  const records = Buffer.alloc(1);
  const reader = {
    point: { index: asLogIndex(2), term: asTerm(1), configuration: initialConfiguration([1]) },
    next: () => Promise.resolve({ number: 0, records, checksum: 0, last: true, recordsTotal: 1 }),
    close: () => Promise.resolve(),
  };
  const storage: Pick<Storage, 'write' | 'openSnapshot'> = {
    write: () => new Promise((resolve) => writes.push(resolve)),
    openSnapshot: () => new Promise((resolve) => (opened = () => resolve(reader))),
  };
  const environment = new VirtualTime().environment({ wallOffsetMs: 0, stoppedUntilMs: 0 });
  const whole = storage as Storage;
  const ignore = (): void => undefined;
  let applied = 0;
  const writer = new DiskWriter({
    storage: whole,
    environment,
    metrics: noMetrics,
    takeState: () => ({
      writes: [],
      applied: { index: asLogIndex(applied), term: asTerm(1) },
      revision: applied * 10,
    }),
    onWritten: ignore,
    onFailed: ignore,
  });
  const begin = (index: number): void => {
    applied = index;
    writer.stateChanged(1);
    writer.flushAll();
  };
  const finish = async (): Promise<void> => {
    writes.shift()?.();
    await drained();
  };
  const answers: unknown[] = [];
  const views = new SnapshotViews({
    storage: whole,
    environment,
    logger: silentLogger,
    clusterId: 'c',
    epoch: () => 1,
    configurationAt: () => initialConfiguration([1]),
    whenOnDisk: () => Promise.resolve(),
    leaderlessMsMax: 1000,
    revisionsNow: () => writer.revisionsNow(),
    answer: (_inFlight, body) => answers.push(body),
  });
  begin(1);
  await finish();
  begin(2);
  const request = { kind: 'snapshot_read', connection: 1, request: 1, part: 0 } as const;
  const inFlight: InFlight = {
    gateway: 0,
    request,
    over: false,
    readOnAfter: undefined,
    command: undefined,
    deadlineMs: Infinity,
  };
  views.read(inFlight, request);
  views.confirmed(inFlight);
  await finish();
  begin(3);
  await finish();
  begin(4);
  opened();
  await drained();
  expect(answers).toMatchObject([{ kind: 'snapshot_part', part: { index: 2, revision: 20 } }]);
});
