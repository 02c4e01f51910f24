/** Principals that may have one connection: who replaces whom. */
import { afterEach, describe, expect, test } from 'vitest';
import type { PolicyDocument } from '../../src/scopes/index.ts';
import type { GatewayEvent } from '../../src/server/index.ts';
import { issue } from './certificates.ts';
import { session, startGateway } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

let rig: Rig;
afterEach(() => rig.close());

const policies = (connections: number): GatewayEvent => {
  const document: PolicyDocument = {
    realms: {
      puppet: { tls: { issuer: rig.world.puppet.pem, identity: 'cn' }, vars: { node: 'cn' } },
    },
    policies: { agent: [{ allow: ['*'], on: '**' }, { limit: { connections } }] },
    bindings: [{ realm: 'puppet', policies: ['agent'] }],
  };
  return { kind: 'access', revision: 50, document, revocations: [] };
};

const start = async (connections = 1): Promise<void> => {
  rig = await startGateway({ silenceMs: 1_000_000 });
  rig.gateway.deliver([policies(connections)]);
};

const opened = (id: string, agoMs = 0, principal = 'puppet:web1'): GatewayEvent => ({
  kind: 'sessions_opened',
  sessions: [{ session: id, principal, agoMs }],
});

const other = 'f'.repeat(32);

const replaced = {
  code: 4509,
  reason: "puppet:web1 may have one connection, and a newer one took this one's place",
};

/** Whether it is still there, and answered. */
const isServed = async (agent: TestAgent): Promise<boolean> => {
  const asked = agent.request({ kind: 'get', key: 'nodes/web1/x', stale: true });
  const came = rig.port.until(({ requests }) =>
    requests.some(({ kind, request }) => kind === 'get' && request === asked),
  );
  return Promise.race([came.then(() => true), agent.closed.then(() => false)]);
};

/** An agent that has asked for its session. */
const asking = async (resume = false): Promise<TestAgent> => {
  const agent = await rig.greeted();
  agent.request({ kind: 'open_session', session, graceMs: 5_000, resume });
  await rig.port.until(({ requests }) => requests.some(({ kind }) => kind === 'session_open'));
  return agent;
};

const answerOpening = (): void => {
  const asked = rig.port.requests.find(({ kind }) => kind === 'session_open');
  if (asked === undefined) throw new Error('no session was asked for');
  const { connection, request } = asked;
  rig.gateway.deliver([
    opened(session),
    { kind: 'answer', connection, request, body: { kind: 'session_opened' } },
  ]);
};

describe('a principal that may have one connection', () => {
  test('keeps the newer one, and the older one is told not to come back', async () => {
    await start();
    const first = await rig.greeted();
    const second = await rig.greeted();
    expect(await first.closed).toEqual(replaced);
    const third = await rig.greeted();
    expect(await second.closed).toEqual(replaced);
    expect(rig.gateway.connections).toBe(1);
    expect(await isServed(third)).toBe(true);
  });

  test('others are not concerned, nor is who may have more', async () => {
    await start();
    const another = await rig.greeted({ credentials: await issue(rig.world.puppet, { subject: 'CN=web2' }) });
    const first = await rig.greeted();
    expect(rig.gateway.connections).toBe(2);
    rig.gateway.deliver([policies(2)]);
    await rig.greeted();
    rig.gateway.deliver([opened(other)]);
    expect(rig.gateway.connections).toBe(3);
    expect(await isServed(first)).toBe(true);
    const refused = await rig.agent();
    expect(await refused.closed).toMatchObject({ code: 4031 });
    another.ws.close();
  });

  test('keeps one that is newer than the one at another gateway that was compared with one here before', async () => {
    await start();
    await rig.greeted();
    rig.clock.advance(100);
    const second = await rig.greeted();
    rig.clock.advance(20);
    // Meant was the first one, which is 120 ms old.
    rig.gateway.replaced('puppet:web1', 80);
    expect(await isServed(second)).toBe(true);
    rig.gateway.replaced('puppet:web1', 10);
    expect(await second.closed).toEqual(replaced);
  });

  test('has only the newest one left once its policies say so', async () => {
    await start(3);
    const [first, second, third] = [await rig.greeted(), await rig.greeted(), await rig.greeted()];
    rig.gateway.deliver([policies(1)]);
    rig.clock.advance(100);
    expect(await first.closed).toEqual(replaced);
    expect(await second.closed).toEqual(replaced);
    expect(await isServed(third)).toBe(true);
    expect(rig.gateway.connections).toBe(1);
  });

  test('is replaced by one that opens a session at another server', async () => {
    await start();
    const agent = await asking();
    answerOpening();
    rig.gateway.deliver([opened(other, 0, 'puppet:web2')]);
    expect(await isServed(agent)).toBe(true);
    rig.gateway.deliver([opened(other)]);
    expect(await agent.closed).toEqual(replaced);
  });

  test('is not replaced by itself: its own session, opened here or at another server, is its own', async () => {
    await start();
    const agent = await asking();
    answerOpening();
    rig.gateway.deliver([opened(session)]);
    expect(await isServed(agent)).toBe(true);
  });

  test('with an opening on its way it is the newer one of the two: its own comes later in the log', async () => {
    await start();
    const agent = await asking();
    rig.gateway.deliver([opened(other)]);
    expect(await isServed(agent)).toBe(true);
    answerOpening();
    expect(await isServed(agent)).toBe(true);
  });

  test('with an old session that it takes up again it is the newer one until that is done, and then the older one', async () => {
    await start();
    const agent = await asking(true);
    rig.gateway.deliver([opened(other)]);
    expect(await isServed(agent)).toBe(true);
    const { connection, request } = rig.port.requests.find(({ kind }) => kind === 'session_open') ?? {};
    if (connection === undefined || request === undefined) throw new Error('no session was asked for');
    rig.gateway.deliver([{ kind: 'answer', connection, request, body: { kind: 'session_opened' } }]);
    rig.gateway.deliver([opened(other)]);
    expect(await agent.closed).toEqual(replaced);
  });

  test('is told later, too, that another one is newer, but only while it has the session of which that is said', async () => {
    await start();
    const agent = await asking();
    const told = (newerThan: string): GatewayEvent => ({
      kind: 'sessions_opened',
      sessions: [{ session: other, principal: 'puppet:web1', agoMs: 0, newerThan }],
    });
    rig.gateway.deliver([told(session)]);
    expect(await isServed(agent)).toBe(true);
    answerOpening();
    rig.gateway.deliver([told('e'.repeat(32))]);
    expect(await isServed(agent)).toBe(true);
    rig.gateway.deliver([told(session)]);
    expect(await agent.closed).toEqual(replaced);
  });

  test('without a session it is the older one where it came before the other one opened its session', async () => {
    await start();
    const agent = await rig.greeted();
    rig.clock.advance(5_000);
    rig.gateway.deliver([opened(other, 6_000)]);
    expect(await isServed(agent)).toBe(true);
    rig.gateway.deliver([opened(other, 4_000)]);
    expect(await agent.closed).toEqual(replaced);
  });
});
