import { afterEach, describe, expect, test } from 'vitest';
import { Housekeeping } from '../../src/server/housekeeping.ts';
import type { Commands } from '../../src/server/commands.ts';
import type { CommandBody } from '../../src/store/index.ts';
import { ServerCluster } from './support/server-cluster.ts';

let cluster: ServerCluster | undefined;
afterEach(async () => {
  for (const id of cluster?.running ?? []) await cluster?.stop(id);
  cluster = undefined;
});

const hourMs = 3_600_000;

/** The keys that the server has told its gateway, in order. */
const told = (id: number): string[] =>
  (cluster?.ticketKeys(id) ?? []).map((keys) => Buffer.from(keys).toString('hex'));

const allHave = (count: number) => (): boolean =>
  (cluster?.running ?? []).every((id) => told(id).length === count);

describe('keys for TLS session tickets', () => {
  test('are made once, are the same at all servers, and are there again after a restart', async () => {
    cluster = await ServerCluster.start({ servers: 3 });
    await cluster.time.until('all have keys', allHave(1));
    const [keys] = told(1);
    expect(keys).toMatch(/^[0-9a-f]{96}$/);
    expect([told(2), told(3)]).toEqual([[keys], [keys]]);
    await cluster.stop(2);
    await cluster.start(2);
    await cluster.time.until('the restarted one has keys', allHave(1));
    expect(told(2)).toEqual([keys]);
  });

  test('are changed when they are twelve hours old by cluster time, once', () => {
    const commands: CommandBody[] = [];
    const housekeeping = new Housekeeping({
      commands: { submit: (body: CommandBody) => ({ number: commands.push(body) }) } as unknown as Commands,
      others: () => [],
      lostAfterMs: 5000,
      versionOf: () => undefined,
      randomBytes: (count) => new Uint8Array(count).fill(commands.length),
    });
    const madeAtMs = 1_000_000;
    const present = { number: 4, keys: new Uint8Array(48), madeAtMs };
    housekeeping.renewTicketKeys(present, madeAtMs + 12 * hourMs - 1);
    expect(commands).toEqual([]);
    housekeeping.renewTicketKeys(present, madeAtMs + 12 * hourMs);
    housekeeping.renewTicketKeys(present, madeAtMs + 13 * hourMs);
    expect(commands).toEqual([{ kind: 'ticket_keys', number: 5, keys: new Uint8Array(48) }]);
    housekeeping.applied(1);
    housekeeping.renewTicketKeys(present, madeAtMs + 13 * hourMs);
    expect(commands).toHaveLength(2);
  });

  test('wait while a server is there that could not read them in its log, or might not', async () => {
    cluster = new ServerCluster({ servers: 3 });
    await cluster.start(1);
    await cluster.start(2);
    await cluster.start(3, { version: 3 });
    await cluster.time.run(60_000);
    expect([told(1), told(2), told(3)]).toEqual([[], [], []]);
    await cluster.stop(3);
    await cluster.time.run(60_000);
    expect(told(1)).toEqual([]);
    await cluster.start(3);
    await cluster.time.until('all have keys', allHave(1));
  });
});
