import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { asLogIndex, asTerm } from '../../src/raft/index.ts';
import type { SnapshotPoint } from '../../src/raft/index.ts';
import type { SnapshotSource } from '../../src/peers/index.ts';
import type { SnapshotPart } from '../../src/storage/index.ts';
import { batchOf, heartbeat, one, startPair, two } from './cluster.ts';

const point: SnapshotPoint = {
  index: asLogIndex(40),
  term: asTerm(2),
  configuration: { voters: [one, two], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};
const partBytes = 256 * 1024;

class TestSource implements SnapshotSource {
  readonly point = point;
  readonly #parts: number;
  read = 0;

  constructor(parts: number) {
    this.#parts = parts;
  }

  next(): Promise<SnapshotPart | undefined> {
    if (this.read === this.#parts) return Promise.resolve(undefined);
    const records = Buffer.alloc(partBytes, this.read);
    const last = this.read === this.#parts - 1;
    const part = { number: this.read, records, checksum: crc32(records), last, recordsTotal: last ? 77 : 0 };
    this.read += 1;
    return Promise.resolve(part);
  }
}

describe('snapshots', () => {
  test('a snapshot arrives whole, beside the messages', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    const sending = first.transport.sendSnapshot(two, asTerm(5), new TestSource(20));
    first.transport.send(two, batchOf(heartbeat(one, two, 1)));
    await sending;
    expect(second.parts.map(({ part }) => [part.number, part.last])).toEqual(
      Array.from({ length: 20 }, (_, number) => [number, number === 19]),
    );
    for (const { term, point: received, part } of second.parts) {
      expect([term, received]).toEqual([5, point]);
      expect(crc32(part.records)).toBe(part.checksum);
      expect(part.records.length).toBe(partBytes);
    }
    expect(second.parts.at(-1)?.part.recordsTotal).toBe(77);
    await second.signal.until(() => second.heard.length === 1);
  });

  test('a slow receiver is not given more than it takes, and messages pass it by', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    let release = (): void => undefined;
    let taking = 0;
    let takingMax = 0;
    let held = 0;
    second.takePart = async () => {
      taking += 1;
      takingMax = Math.max(takingMax, taking);
      if (held === 0) {
        held += 1;
        second.signal.raise();
        await new Promise<void>((resolve) => {
          release = resolve;
        });
      }
      taking -= 1;
    };
    const source = new TestSource(400);
    const sending = first.transport.sendSnapshot(two, asTerm(5), source);
    await second.signal.until(() => held === 1);
    for (let round = 1; round <= 30; round += 1) {
      first.transport.send(two, batchOf(heartbeat(one, two, round)));
      await second.signal.until(() => second.heard.length === round);
    }
    const { roundTrips } = first;
    const soFar = roundTrips.length;
    await first.signal.until(() => roundTrips.length >= soFar + 3);
    // What the kernel's buffers on both sides hold, not the 100 MB there are.
    expect(source.read).toBeLessThan(80);
    release();
    await sending;
    expect(second.parts).toHaveLength(400);
    expect(takingMax).toBe(1);
  });

  test('pitfall 33: a refusal in the middle reaches the sender with its reason, and the next one works', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    second.takePart = ({ part }) =>
      part.number === 3 ? Promise.reject(new Error('it is of an older leader')) : Promise.resolve();
    const source = new TestSource(200);
    const sending = first.transport.sendSnapshot(two, asTerm(5), source);
    await expect(sending).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(sending).rejects.toThrow(/it is of an older leader/);
    expect(second.parts).toHaveLength(3);
    second.takePart = () => Promise.resolve();
    await first.transport.sendSnapshot(two, asTerm(5), new TestSource(2));
    expect(second.parts).toHaveLength(5);
    expect(first.disconnects).toBe(0);
  });

  test('a receiver that does not let this server in, or goes away, ends the sending', async () => {
    const [first, second] = await startPair(
      {},
      { acceptPeer: (_, { run }) => (run === 1 ? { reason: 'not now', removed: false } : undefined) },
    );
    await expect(first.transport.sendSnapshot(two, asTerm(5), new TestSource(2))).rejects.toThrow(/not now/);
    await second.transport.close();
    await expect(first.transport.sendSnapshot(two, asTerm(5), new TestSource(2))).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
  });

  test('the receiver going away in the middle ends the sending', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    second.takePart = ({ part }) => (part.number === 2 ? second.transport.close() : Promise.resolve());
    await expect(first.transport.sendSnapshot(two, asTerm(5), new TestSource(50))).rejects.toThrow(
      /not delivered/,
    );
    await first.signal.until(() => first.disconnects === 1);
  });

  test('a source that fails, or ends too early, ends the sending', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    const failing: SnapshotSource = { point, next: () => Promise.reject(new Error('the disk is gone')) };
    await expect(first.transport.sendSnapshot(two, asTerm(5), failing)).rejects.toThrow(/the disk is gone/);
    const short: SnapshotSource = { point, next: () => Promise.resolve(undefined) };
    await expect(first.transport.sendSnapshot(two, asTerm(5), short)).rejects.toThrow(/without a last part/);
    expect(second.parts).toEqual([]);
  });

  test('a receiver that never takes a part is given up', async () => {
    const [first, second] = await startPair({ times: { snapshotStallMax: 100 } });
    await first.signal.until(() => first.up.has(two));
    second.takePart = () => new Promise(() => undefined);
    await expect(first.transport.sendSnapshot(two, asTerm(5), new TestSource(1))).rejects.toThrow(
      /nothing moved for 100 ms/,
    );
  });

  test('closing the transport ends what is being sent', async () => {
    const [first, second] = await startPair();
    await first.signal.until(() => first.up.has(two));
    second.takePart = () => {
      void first.transport.close();
      return Promise.resolve();
    };
    await expect(first.transport.sendSnapshot(two, asTerm(5), new TestSource(50))).rejects.toThrow(
      /this server is stopping/,
    );
  });
});
