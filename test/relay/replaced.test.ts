import { afterEach, describe, expect, test, vi } from 'vitest';
import type { Client } from '../../src/client/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import type { ClusterClock } from '../../src/relay/clock.ts';
import type { StateDirectory } from '../../src/relay/state-directory.ts';
import { Uplink } from '../../src/relay/uplink.ts';
import type { Connected, UplinkOptions } from '../../src/relay/uplink.ts';

const minuteMs = 60_000;
const error = new FuturestoreError('CONNECTION_CLOSED', 'another process took over');
const server = { clusterId: 'c', epoch: 1, principal: 'p', serverId: 1, revision: 1 } as unknown as Connected;

/** An uplink whose clients do what the test does, and when each was made, in minutes. */
const start = async (): Promise<{
  readonly uplink: Uplink;
  readonly made: number[];
  readonly lines: string[];
  readonly clients: UplinkOptions[];
}> => {
  vi.useFakeTimers();
  const made: number[] = [];
  const clients: UplinkOptions[] = [];
  const lines: string[] = [];
  const say = (_details: object, message: string): void => void lines.push(message);
  const startedMs = Date.now();
  const client = { close: () => Promise.resolve(), clock: () => Promise.reject(new Error('unknown')) };
  const uplink = new Uplink({
    makeClient: (options) => {
      made.push((Date.now() - startedMs) / minuteMs);
      clients.push(options);
      return client as unknown as Client;
    },
    state: {
      read: () => Promise.resolve(undefined),
      put: () => undefined,
      remove: () => undefined,
    } as unknown as StateDirectory,
    clock: { moment: () => ({ wallMs: 0 }), forget: () => undefined } as unknown as ClusterClock,
    sessionGraceMs: 1000,
    logger: { debug: say, info: say, warn: say, error: say },
    onOtherIdentity: () => undefined,
  });
  await uplink.start();
  return { uplink, made, lines, clients };
};

describe('a relay whose place another one has taken', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  test('comes back ever later, some times, and then stays away: two of them do not take turns for ever', async () => {
    const { uplink, made, lines, clients } = await start();
    for (let times = 0; times < 10; times += 1) {
      if (clients.length > times) clients[times]?.onStateChange({ kind: 'closed', error });
      await vi.advanceTimersByTimeAsync(3_600_000);
    }
    expect(made.map((minutes) => Math.round(minutes))).toEqual([0, 1, 62, 124, 188, 256]);
    expect(lines.filter((line) => line.includes('stays away'))).toHaveLength(1);
    expect(uplink.lastError).toBe(error);
    await uplink.stop(0);
  });

  test('counts anew once it has kept its place for long: what happens once in a while is nobody taking turns', async () => {
    const { uplink, made, lines, clients } = await start();
    for (let times = 0; times < 10; times += 1) {
      clients.at(-1)?.onStateChange({ kind: 'connected', endpoint: 'wss://one:7421', server });
      await vi.advanceTimersByTimeAsync(59 * minuteMs);
      clients.at(-1)?.onStateChange({ kind: 'closed', error });
      await vi.advanceTimersByTimeAsync(minuteMs);
    }
    expect(made.map((minutes) => Math.round(minutes / 60))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(lines.filter((line) => line.includes('stays away'))).toEqual([]);
    await uplink.stop(0);
  });

  test('does not count anew as long as the other one may still be waiting for its turn', async () => {
    const { uplink, made, clients } = await start();
    for (let times = 0; times < 10; times += 1) {
      clients[times]?.onStateChange({ kind: 'connected', endpoint: 'wss://one:7421', server });
      await vi.advanceTimersByTimeAsync(16 * minuteMs);
      clients[times]?.onStateChange({ kind: 'closed', error });
      await vi.advanceTimersByTimeAsync(16 * minuteMs);
    }
    expect(made).toHaveLength(6);
    await uplink.stop(0);
  });
});
