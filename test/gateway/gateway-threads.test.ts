/** A server whose gateways are in threads that the test plays. */
import { describe, expect, test } from 'vitest';
import { defaultGatewayThreads } from '../../src/gateway/index.ts';
import type { Item } from '../../src/gateway/workers/packing.ts';
import { PrincipalLedger } from '../../src/gateway/workers/principal-ledger.ts';
import { toGateway } from '../../src/gateway/workers/to-gateway.ts';
import { toServer } from '../../src/gateway/workers/to-server.ts';
import type { FakePort } from './harness.ts';
import { done, immediate, scripted } from './scripted-threads.ts';

describe('a server with gateways in threads', () => {
  test('has one for each core but the first, at most four', () => {
    expect([1, 2, 4, 5, 64].map(defaultGatewayThreads)).toEqual([0, 1, 3, 4, 4]);
  });

  test('counts the connections of a principal over all of them, and shares out its requests', async () => {
    const { first, second } = await scripted(2);
    first.say([toServer.enter, 1, 'puppet:web1', 3], [toServer.enter, 2, 'puppet:web1', 3]);
    second.say([toServer.enter, 1, 'puppet:web1', 3], [toServer.enter, 2, 'puppet:web1', 3]);
    await immediate();
    expect(first.take(toGateway.admission)).toEqual([
      [1, true],
      [2, true],
    ]);
    expect(second.take(toGateway.admission)).toEqual([
      [1, true],
      [2, false],
    ]);
    expect(first.take(toGateway.share)).toEqual([['puppet:web1', 2 / 3]]);
    expect(second.take(toGateway.share)).toEqual([['puppet:web1', 1 / 3]]);
    first.say([toServer.leave, 'puppet:web1'], [toServer.leave, 'puppet:web1']);
    await immediate();
    expect(second.take(toGateway.share)).toEqual([
      ['puppet:web1', 1 / 2],
      ['puppet:web1', 1],
    ]);
    second.say([toServer.enter, 3, 'puppet:web1', 3]);
    await immediate();
    expect(second.take(toGateway.admission)).toEqual([[3, true]]);
  });

  test('lets the newest connection of a principal that may have one take the place of that at another', async () => {
    const { first, second } = await scripted(2);
    first.say([toServer.enter, 1, 'puppet:web1', 1]);
    second.say([toServer.enter, 1, 'puppet:web1', 1]);
    await immediate();
    expect([first.take(toGateway.admission), second.take(toGateway.admission)]).toEqual([
      [[1, true]],
      [[1, true]],
    ]);
    expect([first.take(toGateway.replaced), second.take(toGateway.replaced)]).toEqual([
      [['puppet:web1', 0]],
      [],
    ]);
    first.say([toServer.leave, 'puppet:web1'], [toServer.enter, 2, 'puppet:web1', 1]);
    await immediate();
    expect(second.take(toGateway.replaced)).toEqual([['puppet:web1', 0]]);
    expect(first.take(toGateway.replaced)).toEqual([]);
  });

  test('lets the newest one stay once policies say that it may have one, whichever thread finds it first', async () => {
    for (const secondIsFirst of [false, true]) {
      const { first, second, clock } = await scripted(2);
      first.say([toServer.enter, 1, 'puppet:web1', 3]);
      second.say([toServer.enter, 1, 'puppet:web1', 3]);
      clock.advance(60_000);
      const found = [
        () => first.say([toServer.sole, 'puppet:web1', 9_000]),
        () => second.say([toServer.sole, 'puppet:web1', 5_000]),
      ];
      if (secondIsFirst) found.reverse();
      for (const find of found) find();
      await immediate();
      expect(first.take(toGateway.replaced)).toEqual([['puppet:web1', 5_000]]);
      expect(second.take(toGateway.replaced)).toEqual([]);
    }
  });

  test('lets one that came since stay, when another thread finds only then that its own is the only one', async () => {
    const { first, second } = await scripted(2);
    first.say([toServer.enter, 1, 'puppet:web1', 3]);
    second.say([toServer.enter, 1, 'puppet:web1', 1]);
    await immediate();
    first.take(toGateway.replaced);
    first.say([toServer.sole, 'puppet:web1', 9_000]);
    await immediate();
    expect(first.take(toGateway.replaced)).toEqual([['puppet:web1', 0]]);
    expect(second.take(toGateway.replaced)).toEqual([]);
    // Nothing is kept of those that have left.
    first.say([toServer.leave, 'puppet:web1'], [toServer.sole, 'puppet:web1', 0]);
    second.say([toServer.leave, 'puppet:web1'], [toServer.enter, 2, 'puppet:web1', 3]);
    second.say([toServer.sole, 'puppet:web1', 100_000]);
    await immediate();
    expect(first.take(toGateway.replaced)).toEqual([]);
    expect(second.take(toGateway.replaced)).toEqual([]);
  });

  test('sends away as many as were asked for, each thread its part', async () => {
    const { gateway, first, second } = await scripted(2);
    const report = { refused: {}, closed: {}, turnedAway: {}, delayP99Ms: 0, delayMaxMs: 0 };
    first.say([toServer.report, { ...report, connections: 30 }]);
    second.say([toServer.report, { ...report, connections: 10 }]);
    const moves = [
      { endpoint: 'wss://one:7421', agents: 7 },
      { endpoint: '', agents: 1 },
    ];
    const sent = gateway.sendAway(moves, 1000);
    await immediate();
    const asked = [first, second].map((thread) => {
      const [call] = thread.take(toGateway.call);
      if (call === undefined) throw new Error('it was not asked');
      thread.say([toServer.reply, call[0], true, 4]);
      return (call[2] as { readonly moves: readonly { readonly agents: number }[] }).moves;
    });
    expect(await sent).toBe(8);
    expect(asked[0]).toEqual([
      { endpoint: 'wss://one:7421', agents: 5 },
      { endpoint: '', agents: 1 },
    ]);
    expect(asked[1]).toEqual([{ endpoint: 'wss://one:7421', agents: 2 }]);
  });

  test('hands requests and notices on in their order, those that come together as one', async () => {
    const { first, ports } = await scripted(1);
    const order: string[] = [];
    const [port] = ports as [FakePort];
    port.onSubmit = (requests) => order.push(`submit ${requests.length}`);
    const notify = port.notify.bind(port);
    port.notify = (notices) => {
      order.push(`notify ${notices.length}`);
      notify(notices);
    };
    const get = (request: number): Item => [toServer.get, 1, request, 'k', false, null];
    const cancel: Item = [toServer.notice, { kind: 'cancel', connection: 1, request: 1 }];
    first.say(get(1), get(2), cancel, cancel, get(1));
    expect(order).toEqual(['submit 2', 'notify 2', 'submit 1']);
  });

  test('ends when one of them fails, however it does, and tells whoever waits for it', async () => {
    for (const [event, argument, why] of [
      ['error', new Error('out of memory'), /gateway thread 1 has failed: out of memory/],
      ['exit', 7, /gateway thread 1 has failed: it ended with code 7/],
    ] as const) {
      const { gateway, second, fatal } = await scripted(2);
      const call = gateway.lookForLists();
      call.catch(() => undefined);
      second.emit(event, argument);
      expect(fatal).toMatchObject([{ message: why }]);
      // The others have to have had their turn, so it is only then that the caller is told.
      second.emit('exit', 1);
      expect(fatal).toHaveLength(1);
    }
  });

  test('ends the others when one of them has failed before it is closed', async () => {
    for (const place of [0, 1]) {
      const { gateway, made } = await scripted(2);
      const [failed, left] = place === 0 ? made : made.toReversed();
      failed?.emit('exit', 1);
      const closed = gateway.close();
      closed.catch(() => undefined);
      if (left !== undefined) await expect.poll(() => done(left)).toEqual(['close']);
      await expect(closed).rejects.toThrow(`gateway thread ${place} has `);
      expect(left?.ended).toBe(true);
    }
  });

  test('says which one stands still, goes on when it does, and ends after a minute', async () => {
    const { gateway, first, fatal, clock, log, metrics } = await scripted(1);
    const listening = gateway.listen();
    await done(first, { port: 1 });
    await listening;
    const messages = (): string[] => log.lines.map(({ message }) => message);
    clock.advance(3000);
    await immediate();
    expect(first.take(toGateway.tick)).toHaveLength(1);
    expect([messages(), metrics.silentSeconds]).toEqual([[], 2]);
    clock.advance(4000);
    expect(messages()).toEqual(['a gateway thread stands still: its agents are not served']);
    const report = { connections: 5, refused: {}, closed: {}, turnedAway: {}, delayP99Ms: 1, delayMaxMs: 2 };
    first.say([toServer.report, report]);
    expect(messages().at(-1)).toBe('a gateway thread goes on');
    expect([gateway.connections, metrics.silentSeconds]).toEqual([5, 0]);
    clock.advance(60_000);
    expect(fatal).toEqual([]);
    clock.advance(2000);
    expect(fatal).toMatchObject([{ message: /has stood still for 60 s/ }]);
  });
});

describe('the connections of principals over several threads', () => {
  test('never have a thread leave that has none', () => {
    const ledger = new PrincipalLedger({ tellShare: () => undefined, tellReplaced: () => undefined });
    ledger.enter(0, 'puppet:a', 1, 0);
    expect(() => ledger.leave(1, 'puppet:a')).toThrow(/no connection of puppet:a/);
  });
});
