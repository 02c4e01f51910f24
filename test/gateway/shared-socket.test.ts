/** The socket that a server's gateway threads share: who opens it, who closes it, and what a drain makes of it. */
import { closeSync, openSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { takeDescriptor } from '../../src/gateway/workers/descriptor-place.ts';
import { toGateway } from '../../src/gateway/workers/to-gateway.ts';
import { toServer } from '../../src/gateway/workers/to-server.ts';
import { done, fail, immediate, scripted } from './scripted-threads.ts';

/** A server with two threads that share a socket of this number, drained. */
const drainedPair = async (descriptor: number) => {
  const rig = await scripted(2);
  const { gateway, first, second } = rig;
  const listening = gateway.listen();
  await done(first, { port: 7421, descriptor });
  await expect.poll(() => done(second)).toEqual(['listen']);
  await listening;
  const drained = gateway.drain(1000);
  for (const call of ['stopAccepting', 'drain'])
    for (const thread of [first, second]) await expect.poll(() => done(thread)).toEqual([call]);
  await drained;
  return rig;
};

describe('the socket of gateway threads', () => {
  test('opens one socket, tells the others its number, and has it closed by one after the other', async () => {
    const { gateway, first, second } = await scripted(2);
    const listening = gateway.listen();
    const descriptor = openSync('/dev/null', 'r');
    await immediate();
    expect(first.take(toGateway.call)).toEqual([[1, 'listen', null]]);
    expect(second.take(toGateway.call)).toEqual([]);
    first.say([toServer.reply, 1, true, { port: 7421, descriptor }]);
    await immediate();
    await immediate();
    expect(second.take(toGateway.call)).toEqual([[1, 'listen', { descriptor }]]);
    second.say([toServer.reply, 1, true, { port: 7421, descriptor }]);
    expect(await listening).toEqual({ port: 7421, descriptor });

    const closed = gateway.close();
    await immediate();
    expect(first.take(toGateway.call)).toEqual([[2, 'stopAccepting', { keepDescriptor: false }]]);
    await immediate();
    expect(second.take(toGateway.call)).toEqual([]);
    // As the first thread's server does; then the number is a file's that means nothing.
    closeSync(descriptor);
    first.say([toServer.reply, 2, true, null]);
    await expect
      .poll(() => second.take(toGateway.call))
      .toEqual([[2, 'stopAccepting', { keepDescriptor: false }]]);
    closeSync(descriptor);
    second.say([toServer.reply, 2, true, null]);
    await immediate();
    expect(await done(first)).toEqual(['close']);
    expect(await done(second)).toEqual(['close']);
    await closed;
    expect([first.ended, second.ended]).toEqual([true, true]);
  });

  test('takes agents again after a drain: the first thread opens the socket, the others share it', async () => {
    const { gateway, first, second } = await scripted(2);
    const listening = gateway.listen();
    const descriptor = openSync('/dev/null', 'r');
    const port = { port: 7421, descriptor };
    expect(await done(first, port)).toEqual(['listen']);
    await expect.poll(() => done(second, port)).toEqual(['listen']);
    await listening;
    const drained = gateway.drain(1000);
    await immediate();
    closeSync(descriptor);
    expect(await done(first)).toEqual(['stopAccepting']);
    await expect.poll(() => done(second)).toEqual(['stopAccepting']);
    closeSync(descriptor);
    await expect.poll(() => done(first)).toEqual(['drain']);
    expect(await done(second)).toEqual(['drain']);
    await drained;
    const admitted = gateway.admit();
    const again = { port: 7421, descriptor: descriptor + 1 };
    await expect.poll(() => done(first, again)).toEqual(['admit']);
    await immediate();
    await immediate();
    expect(second.take(toGateway.call).map(([, ...call]) => call)).toEqual([
      ['admit', { descriptor: descriptor + 1 }],
    ]);
    second.say([toServer.reply, 4, true, again]);
    await admitted;
  });

  test('is drained as before when one of them cannot take agents again, and takes them at the next attempt', async () => {
    const descriptor = openSync('/dev/null', 'r');
    const port = { port: 7421, descriptor };
    closeSync(descriptor);
    const { gateway, first, second } = await drainedPair(descriptor);
    closeSync(descriptor);
    const admitted = gateway.admit();
    admitted.catch(() => undefined);
    await expect.poll(() => done(first, port)).toEqual(['admit']);
    await expect.poll(() => fail(second)).toEqual(['admit']);
    await expect.poll(() => done(first)).toEqual(['stopAccepting']);
    await expect(admitted).rejects.toThrow('it cannot');
    expect(await done(second)).toEqual([]);
    const again = gateway.admit();
    for (const thread of [first, second]) await expect.poll(() => done(thread, port)).toEqual(['admit']);
    await again;
  });

  test("ends a drain also in a thread that could not close the socket's number and takes nobody", async () => {
    const descriptor = openSync('/dev/null', 'r');
    try {
      const { gateway, first, second } = await drainedPair(descriptor);
      const admitted = gateway.admit();
      await expect.poll(() => done(first, { port: 7421, descriptor })).toEqual(['admit']);
      await expect.poll(() => done(second)).toEqual(['stay']);
      await admitted;
    } finally {
      closeSync(descriptor);
    }
  });
});

describe('the number of a shared socket', () => {
  test('is taken where it is free, whatever lower numbers are', async () => {
    const [low, wanted] = [openSync('/dev/null', 'r'), openSync('/dev/null', 'r')] as [number, number];
    closeSync(low);
    closeSync(wanted);
    expect(await takeDescriptor(wanted)).toBe(true);
    closeSync(wanted);
    const again = openSync('/dev/null', 'r');
    expect(again).toBe(low);
    closeSync(again);
  });

  test("is left alone where it is somebody else's", async () => {
    const other = openSync('/dev/null', 'r');
    expect(await takeDescriptor(other)).toBe(false);
    closeSync(other);
  });
});
