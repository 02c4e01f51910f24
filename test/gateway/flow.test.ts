import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import type { GatewayLimits } from '../../src/gateway/index.ts';
import { encodeChange } from '../../src/protocol/index.ts';
import type { Future, SharedChange } from '../../src/protocol/index.ts';
import type { GatewayEvent } from '../../src/server/index.ts';
import { issue } from './certificates.ts';
import { openSession, startGateway, subscribe } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

let rig: Rig;

const start = async (limits: Partial<GatewayLimits> = {}): Promise<void> => {
  rig = await startGateway(limits);
};

afterEach(() => rig.close());

const futureOf = (revision: number, bytes: number): Future => ({
  key: 'shared/a',
  generation: revision,
  state: 'resolved',
  revision,
  value: new Uint8Array(bytes),
  contentType: 'application/octet-stream',
  sensitive: false,
  producer: 'puppet:web1',
  changedAtMs: 1,
});

const changeOf = (revision: number, bytes: number): SharedChange => {
  const future = futureOf(revision, bytes);
  const change = { kind: 'future', revision, key: future.key, future } as const;
  return { change, encoded: encodeChange(change) };
};

const push = (connection: number, subscription: number, shared: SharedChange): GatewayEvent => ({
  kind: 'push',
  connection,
  subscription,
  changes: [shared],
  revision: shared.change.revision,
  caughtUp: false,
  bytes: shared.encoded.length,
});

const subscribed = async (agent: TestAgent, connection: number, id = 1): Promise<void> => {
  const before = rig.port.requests.length;
  agent.request(subscribe('shared/a'), id);
  await rig.port.until((port) => port.requests.length > before);
  const position = { clusterId: 'c0ffee', epoch: 3, revision: 10 };
  rig.gateway.deliver([
    { kind: 'answer', connection, request: id, body: { kind: 'subscribed', position, reset: false } },
  ]);
  await agent.answer(id);
};

/** So much time has passed that the gateway has done what it had to do: others were served meanwhile. */
const othersAreServed = async (agent: TestAgent, connection: number, times = 5): Promise<void> => {
  for (let round = 0; round < times; round++) {
    const id = 1_000_000 + rig.port.requests.length;
    const before = rig.port.requests.length;
    agent.request({ kind: 'get', key: 'shared/a', stale: false }, id);
    await rig.port.until((port) => port.requests.length > before);
    const body = { kind: 'got', revision: 1, future: undefined } as const;
    rig.gateway.deliver([{ kind: 'answer', connection, request: id, body }]);
    await agent.answer(id);
  }
};

const socketOf = (agent: TestAgent): Socket => Reflect.get(agent.ws, '_socket') as Socket;

const mebibyte = 1024 * 1024;

describe('pushes', () => {
  test('of one turn go in one frame behind the answer, and what is taken is given back in one notice', async () => {
    await start();
    const agent = await rig.greeted();
    agent.request(subscribe('shared/a'), 1);
    await rig.port.until((port) => port.requests.length === 1);
    const position = { clusterId: 'c0ffee', epoch: 3, revision: 10 };
    const changes = [changeOf(11, 100), changeOf(12, 200)];
    rig.gateway.deliver([
      { kind: 'answer', connection: 1, request: 1, body: { kind: 'subscribed', position, reset: false } },
      ...changes.map((each) => push(1, 1, each)),
      {
        kind: 'ended',
        connection: 1,
        subscription: 1,
        failure: { code: 'PERMISSION_DENIED', message: 'revoked' },
      },
    ]);
    const frame = await agent.frame();
    expect(frame.answers).toMatchObject([{ id: 1, body: { kind: 'subscribed', position } }]);
    expect(frame.pushes).toMatchObject([
      { subscription: 1, revision: 11, changes: [{ revision: 11 }] },
      { subscription: 1, revision: 12, changes: [{ revision: 12 }] },
      { subscription: 1, ended: { code: 'PERMISSION_DENIED' } },
    ]);
    const bytes = changes.reduce((sum, each) => sum + each.encoded.length, 0);
    expect(rig.port.notifications).toEqual([[{ kind: 'delivered', connection: 1, bytes }]]);
  });

  test('are split into frames of a bounded size', async () => {
    await start();
    const agent = await rig.greeted();
    await subscribed(agent, 1);
    const shared = changeOf(11, 100 * 1024);
    rig.gateway.deliver(Array.from({ length: 10 }, () => push(1, 1, shared)));
    await agent.until((frames) => frames.flatMap((frame) => frame.pushes).length === 10);
    expect(agent.frames.map((frame) => frame.pushes.length).filter((count) => count > 0)).toEqual([
      2, 2, 2, 2, 2,
    ]);
  });

  test('for connections that are gone are nobody’s', async () => {
    await start();
    const agent = await rig.greeted();
    await subscribed(agent, 1);
    agent.ws.terminate();
    await rig.port.until((port) => port.notices.some((notice) => notice.kind === 'closed'));
    rig.gateway.deliver([push(1, 1, changeOf(11, 10)), push(99, 1, changeOf(11, 10))]);
    expect(rig.port.delivered()).toBe(0);
  });
});

describe('pitfall 46: a connection that does not read', () => {
  test('costs bounded memory, delays nobody, and gets all when it reads again', async () => {
    await start();
    const slow = await rig.greeted();
    const other = await rig.greeted();
    await subscribed(slow, 1);
    await subscribed(other, 2);
    socketOf(slow).pause();
    const shared = changeOf(11, mebibyte / 2);
    const before = process.memoryUsage().external;
    const count = 128;
    rig.gateway.deliver(Array.from({ length: count }, () => push(1, 1, shared)));
    await othersAreServed(other, 2);
    expect(process.memoryUsage().external - before).toBeLessThan(32 * mebibyte);
    expect(rig.port.delivered(1)).toBeLessThan((count / 2) * shared.encoded.length);
    rig.gateway.deliver([push(2, 1, changeOf(12, 10))]);
    await other.until((frames) => frames.some((frame) => frame.pushes.length > 0));
    socketOf(slow).resume();
    await slow.until((frames) => frames.flatMap((frame) => frame.pushes).length === count);
    await rig.port.until((port) => port.delivered(1) === count * shared.encoded.length);
  });

  test('ends with 4029 and the revision to resume from, once it has stood still', async () => {
    await start({ silenceMs: 1e9, closeMs: 5_000 });
    const slow = await rig.greeted();
    const other = await rig.greeted();
    await subscribed(slow, 1);
    socketOf(slow).pause();
    rig.gateway.deliver(
      Array.from({ length: 64 }, (_, index) => push(1, 1, changeOf(11 + index, mebibyte / 4))),
    );
    await othersAreServed(other, 2);
    rig.clock.advance(9_000);
    expect(rig.gateway.connections).toBe(2);
    rig.clock.advance(60_000);
    expect(rig.gateway.connections).toBe(1);
    expect(rig.port.notices).toContainEqual({ kind: 'closed', connection: 1, session: undefined });
    socketOf(slow).resume();
    const { code, reason } = await slow.closed;
    expect(code).toBe(4029);
    const last = slow.frames.flatMap((frame) => frame.pushes).at(-1)?.revision;
    expect(last).toBeLessThan(74);
    expect(reason).toContain(`resume from revision ${last}`);
    await othersAreServed(other, 2);
  });

  test('has its answers wait unencoded, and is not read from meanwhile', async () => {
    await start({ requestsInFlightMax: 64 });
    const slow = await rig.greeted();
    const other = await rig.greeted();
    slow.send({
      requests: Array.from({ length: 64 }, (_, index) => ({
        id: index + 1,
        body: { kind: 'get', key: 'shared/a', stale: false } as const,
      })),
    });
    await rig.port.until((port) => port.requests.length === 64);
    socketOf(slow).pause();
    const future = futureOf(1, mebibyte / 2);
    const before = process.memoryUsage().external;
    rig.gateway.deliver(
      Array.from({ length: 64 }, (_, index) => ({
        kind: 'answer',
        connection: 1,
        request: index + 1,
        body: { kind: 'got', revision: 1, future },
      })),
    );
    expect(process.memoryUsage().external - before).toBeLessThan(8 * mebibyte);
    slow.request({ kind: 'get', key: 'shared/a', stale: false }, 100);
    await othersAreServed(other, 2);
    expect(rig.port.requests.some((request) => request.connection === 1 && request.request === 100)).toBe(
      false,
    );
    socketOf(slow).resume();
    await slow.answer(64);
    await rig.port.until((port) => port.requests.some((request) => request.request === 100));
  });
});

describe('large writes', () => {
  test('that are not answered yet stop the reading, until they are', async () => {
    await start({ writeBytesInFlightMax: 256 * 1024 });
    const agent = await rig.greeted();
    const other = await rig.greeted();
    agent.request(openSession, 1);
    const write = (sequence: number): void => {
      agent.request(
        {
          kind: 'write',
          sequence,
          answeredBelow: 1,
          operations: [
            {
              key: 'nodes/web1/out/x',
              preconditions: {},
              kind: 'resolve',
              value: new Uint8Array(128 * 1024),
              contentType: 'text/plain',
              sensitive: false,
              supersede: true,
            },
          ],
        },
        sequence + 1,
      );
    };
    for (let sequence = 1; sequence <= 20; sequence++) write(sequence);
    const writes = (): number[] =>
      rig.port.requests.filter((request) => request.kind === 'write').map((request) => request.request);
    await rig.port.until(() => writes().length >= 3);
    await othersAreServed(other, 2);
    expect(writes().length).toBeLessThan(6);
    const failure = { code: 'ALREADY_SETTLED', message: 'it is' } as const;
    const answer = (request: number): void =>
      rig.gateway.deliver([{ kind: 'answer', connection: 1, request, body: { kind: 'failed', failure } }]);
    for (let request = 2; request <= 21; request++) {
      await rig.port.until(() => writes().includes(request));
      answer(request);
    }
    await agent.answer(21);
  });
});

describe('heartbeats', () => {
  test('ping, and tell the revision to those who follow something and are not behind', async () => {
    await start();
    const follower = await rig.greeted();
    const idle = await rig.greeted();
    await subscribed(follower, 1);
    const pings = [follower, idle].map((agent) => once(agent.ws, 'ping'));
    rig.clock.advance(15_000);
    await Promise.all(pings);
    rig.port.served = 77;
    rig.clock.advance(15_000);
    await follower.until((frames) => frames.some((frame) => frame.revision === 77));
    await othersAreServed(idle, 2);
    expect(follower.frames.filter((frame) => frame.revision !== undefined)).toHaveLength(1);
    expect(idle.frames.some((frame) => frame.revision !== undefined)).toBe(false);
  });

  test('that nobody answers end the connection with 4008', async () => {
    await start();
    const agent = await rig.greeted();
    const dead = await rig.greeted();
    // A peer that takes frames, but says nothing.
    Reflect.set(dead.ws, 'pong', () => undefined);
    Reflect.set(dead.ws, '_autoPong', false);
    for (let round = 0; round < 4; round++) {
      const ping = once(agent.ws, 'ping');
      rig.clock.advance(15_000);
      await ping;
      await othersAreServed(agent, 1, 1);
    }
    expect((await dead.closed).code).toBe(4008);
    expect(rig.gateway.connections).toBe(1);
  });

  test('end the connection with 4001 when the certificate has expired', async () => {
    await start();
    const short = await rig.greeted();
    const long = await rig.greeted({
      credentials: await issue(rig.world.puppet, { subject: 'CN=web2', notAfter: 5 }),
    });
    rig.clock.wallAheadMs = 2 * 3600_000;
    rig.clock.advance(15_000);
    expect((await short.closed).code).toBe(4001);
    await othersAreServed(long, 2);
  });
});

describe('a bug', () => {
  test('ends the one connection with 1011 and is logged', async () => {
    await start();
    const agent = await rig.greeted();
    const other = await rig.greeted();
    rig.port.onSubmit = ([first]) => {
      if (first?.connection === 1) throw new Error('thrown by the test');
    };
    agent.request({ kind: 'get', key: 'shared/a', stale: false }, 1);
    expect(await agent.closed).toMatchObject({ code: 1011, reason: expect.stringContaining('INTERNAL') });
    expect(rig.log.lines.some((line) => line.level === 'error')).toBe(true);
    await othersAreServed(other, 2);
  });

  test('in what is to be sent ends only that connection', async () => {
    await start();
    const agent = await rig.greeted();
    const other = await rig.greeted();
    await subscribed(agent, 1);
    await subscribed(other, 2);
    const whole = changeOf(11, 10);
    const broken = { ...whole, encoded: undefined as unknown as Uint8Array };
    const event = { ...push(1, 1, whole), changes: [broken] } as GatewayEvent;
    rig.gateway.deliver([event, push(2, 1, whole)]);
    expect((await agent.closed).code).toBe(1011);
    await other.until((frames) => frames.some((frame) => frame.pushes.length === 1));
  });
});

describe('drain', () => {
  test('says goodbye to all, lets nobody in, and closes them spread over the grace', async () => {
    await start();
    const agents = await Promise.all(Array.from({ length: 10 }, () => rig.greeted()));
    const silent = await rig.agent();
    const drained = rig.gateway.drain(10_000);
    await Promise.all(
      agents.map((agent) => agent.until((frames) => frames.some((frame) => frame.goaway !== undefined))),
    );
    expect(agents[0]?.frames.at(-1)?.goaway).toMatchObject({ graceMs: 10_000 });
    expect((await silent.closed).code).toBe(4090);
    await expect(rig.agent()).rejects.toThrow();
    rig.clock.advance(2_000);
    expect(rig.gateway.connections).toBe(8);
    rig.clock.advance(5_000);
    expect(rig.gateway.connections).toBe(3);
    rig.clock.advance(3_000);
    await drained;
    const closed = await Promise.all(agents.map((agent) => agent.closed));
    expect(new Set(closed.map(({ code }) => code))).toEqual(new Set([4090]));
    expect(rig.port.notices.filter((notice) => notice.kind === 'closed')).toHaveLength(10);
  });

  test('is over at once when nobody is there, or when all have left', async () => {
    await start();
    const agent = await rig.greeted();
    const drained = rig.gateway.drain(1e9);
    agent.ws.close();
    await drained;
    await rig.gateway.drain(1e9);
  });
});

describe('close', () => {
  test('ends all at once, those in the middle of a handshake too', async () => {
    await start();
    const agent = await rig.greeted();
    await rig.gateway.close();
    expect((await agent.closed).code).toBe(1006);
    expect(rig.gateway.connections).toBe(0);
    await rig.gateway.close();
  });
});
