/** What becomes of bytes that a socket still holds when its agent may read less, or nothing: also those of what is over. */
import { afterEach, describe, expect, test } from 'vitest';
import type { PolicyDocument, Revocation } from '../../src/scopes/index.ts';
import type { GatewayEvent } from '../../src/server/index.ts';
import { policyDocument, startGateway } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';

let rig: Rig;
afterEach(() => rig.close());

type Rules = PolicyDocument['policies'][string];

const reads = ['get', 'await', 'list', 'subscribe'] as const;
const asBefore: Rules = [
  { allow: reads, on: ['nodes/${node}/**', 'shared/**'] },
  { deny: ['list', 'subscribe'], on: 'shared/secret/**' },
  { allow: ['declare', 'resolve', 'reject', 'delete', 'touch'], on: 'nodes/${node}/out/**' },
];
const narrower: Rules = [{ allow: reads, on: 'nodes/${node}/**' }];
const wider: Rules = [...asBefore, { allow: ['get'], on: '**' }];
const writesLess: Rules = asBefore.slice(0, 2);

const access = (rules: Rules | undefined, revocations: readonly Revocation[] = []): GatewayEvent => {
  const document =
    rules === undefined
      ? undefined
      : {
          ...policyDocument(rig.world, {}),
          policies: { agent: rules },
          bindings: [{ realm: 'puppet', policies: ['agent'] }],
        };
  return { kind: 'access', revision: 50, document, revocations };
};
const revocationOf = (name: string): Revocation => ({ kind: 'principal', realm: 'puppet', name });

/** Of a megabyte each: more than the system takes for one that does not read. */
const answers = 16;

/** An agent that has been answered, and whose server's socket still has a large part of the answers. */
const answered = async (): Promise<TestAgent> => {
  rig = await startGateway({ answerBufferedBytesMax: 64 * 1024 * 1024, closeMs: 20_000 });
  const agent = await rig.greeted();
  const ids = Array.from({ length: answers }, () =>
    agent.request({ kind: 'get', key: 'shared/open', stale: false }),
  );
  await rig.port.until(({ requests }) => requests.length === answers);
  agent.ws.pause();
  const future = {
    key: 'shared/open',
    generation: 1,
    state: 'resolved',
    revision: 40,
    value: new Uint8Array(1024 * 1024),
    contentType: '',
    sensitive: false,
    producer: 'puppet:web1',
    changedAtMs: 0,
  } as const;
  const body = { kind: 'got', revision: 41, future } as const;
  rig.gateway.deliver(ids.map((request) => ({ kind: 'answer', connection: 1, request, body })));
  return agent;
};

const gotAll = ({ frames }: TestAgent): boolean =>
  frames.flatMap((frame) => frame.answers).length === answers;

const expectCut = async (agent: TestAgent): Promise<void> => {
  agent.ws.resume();
  expect((await agent.closed).code).toBe(1006);
  expect(gotAll(agent)).toBe(false);
};

/** Ends it, as a drain does. */
const closed = async (): Promise<TestAgent> => {
  const agent = await answered();
  void rig.gateway.drain(1);
  rig.clock.advance(1000);
  expect(rig.gateway.connections).toBe(0);
  return agent;
};

const expectGoodEnd = async (agent: TestAgent): Promise<void> => {
  agent.ws.resume();
  expect((await agent.closed).code).toBe(4090);
  expect(gotAll(agent)).toBe(true);
};

describe('an answer that waits in a socket', () => {
  test('does not leave any more when policies become narrower: the connection is cut at once', async () => {
    const agent = await answered();
    rig.gateway.deliver([access(narrower)]);
    // Before any timer has run.
    expect(rig.gateway.connections).toBe(0);
    await expectCut(agent);
  });

  test.each([
    ['allow as much as before', asBefore],
    ['allow more', wider],
    ['take nothing but writes away', writesLess],
  ])('arrives when policies %s', async (_, rules) => {
    const agent = await answered();
    rig.gateway.deliver([access(rules)]);
    rig.clock.advance(1000);
    agent.ws.resume();
    await agent.until(() => gotAll(agent));
    expect(rig.gateway.connections).toBe(1);
  });
});

describe('what a connection that was closed in good order has unsent', () => {
  test('does not leave any more when its agent is revoked', async () => {
    const agent = await closed();
    rig.gateway.deliver([access(undefined, [revocationOf('web1')])]);
    await expectCut(agent);
  });

  test('does not leave any more when policies become narrower', async () => {
    const agent = await closed();
    rig.gateway.deliver([access(narrower)]);
    await expectCut(agent);
  });

  test('does not leave any more when the authority of its agent counts no more', async () => {
    const agent = await closed();
    const { lab } = rig.world;
    await rig.gateway.replaceFileRealms({ puppet: { tls: { issuer: lab.pem, identity: 'cn' } } });
    await expectCut(agent);
  });

  test('arrives, and its end, when policies become wider and others are revoked', async () => {
    const agent = await closed();
    rig.gateway.deliver([access(wider, [revocationOf('web2')])]);
    await expectGoodEnd(agent);
  });
});
