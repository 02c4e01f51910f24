import { afterEach, describe, expect, test, vi } from 'vitest';
import type { Client } from '../../src/client/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import type { ClusterClock } from '../../src/relay/clock.ts';
import type { StateDirectory } from '../../src/relay/state-directory.ts';
import { Uplink } from '../../src/relay/uplink.ts';
import type { UplinkOptions } from '../../src/relay/uplink.ts';

describe('a relay whose place another one has taken', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  test('comes back ever later, some times, and then stays away: two of them do not take turns for ever', async () => {
    vi.useFakeTimers();
    const made: number[] = [];
    const clients: UplinkOptions[] = [];
    const lines: string[] = [];
    const say = (_details: object, message: string): void => void lines.push(message);
    const startedMs = Date.now();
    const uplink = new Uplink({
      makeClient: (options) => {
        made.push((Date.now() - startedMs) / 60_000);
        clients.push(options);
        return { close: () => Promise.resolve() } as unknown as Client;
      },
      state: {
        read: () => Promise.resolve(undefined),
        put: () => undefined,
        remove: () => undefined,
      } as unknown as StateDirectory,
      clock: { moment: () => ({ wallMs: 0 }) } as unknown as ClusterClock,
      sessionGraceMs: 1000,
      logger: { debug: say, info: say, warn: say, error: say },
      onOtherIdentity: () => undefined,
    });
    await uplink.start();
    const error = new FuturestoreError('CONNECTION_CLOSED', 'another process took over');
    for (let times = 0; times < 10; times += 1) {
      if (clients.length > times) clients[times]?.onStateChange({ kind: 'closed', error });
      await vi.advanceTimersByTimeAsync(3_600_000);
    }
    expect(made.map((minutes) => Math.round(minutes))).toEqual([0, 1, 62, 124, 188, 256]);
    expect(lines.filter((line) => line.includes('stays away'))).toHaveLength(1);
    expect(uplink.lastError).toBe(error);
    await uplink.stop(0);
  });
});
