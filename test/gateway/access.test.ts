/** What becomes of connections when policies or revocations change: what is taken from them, and what is not. */
import { afterEach, describe, expect, test } from 'vitest';
import type { PolicyDocument, Revocation } from '../../src/scopes/index.ts';
import type { GatewayEvent } from '../../src/server/index.ts';
import { encodeChange } from '../../src/protocol/index.ts';
import type { Change } from '../../src/protocol/index.ts';
import { issue } from './certificates.ts';
import { openSession, session, startGateway, subscribe } from './harness.ts';
import type { Rig } from './harness.ts';

let rig: Rig;
afterEach(() => rig.close());

type Rules = PolicyDocument['policies'][string];

const documentOf = (rules: Rules): PolicyDocument => ({
  realms: {
    puppet: { tls: { issuer: rig.world.puppet.pem, identity: 'cn' }, vars: { node: 'cn' } },
  },
  policies: { agent: rules },
  bindings: [{ realm: 'puppet', policies: ['agent'] }],
});

const access = (rules: Rules | undefined, revocations: readonly Revocation[] = []): GatewayEvent => ({
  kind: 'access',
  revision: 50,
  document: rules && documentOf(rules),
  revocations,
});

const nothing: Rules = [{ allow: ['get'], on: 'nothing' }];
const asBefore: Rules = [
  { allow: ['get', 'await', 'list', 'subscribe'], on: ['nodes/${node}/**', 'shared/**'] },
  { allow: ['*'], on: 'nodes/${node}/out/**' },
];
const web1: Revocation = { kind: 'principal', realm: 'puppet', name: 'web1' };

const change = (key: string): Change => ({ kind: 'deleted', revision: 51, key });
const push = (connection: number, subscription: number, ...keys: string[]): GatewayEvent => {
  const changes = keys.map((key) => ({ change: change(key), encoded: encodeChange(change(key)) }));
  const bytes = changes.reduce((sum, { encoded }) => sum + encoded.length, 0);
  return { kind: 'push', connection, subscription, changes, revision: 51, caughtUp: false, bytes };
};
const subscribed = (connection: number, request: number): GatewayEvent => ({
  kind: 'answer',
  connection,
  request,
  body: {
    kind: 'subscribed',
    position: { clusterId: 'c0ffee', epoch: 3, revision: 41 },
    reset: false,
  },
});
const got = (connection: number, request: number): GatewayEvent => ({
  kind: 'answer',
  connection,
  request,
  body: { kind: 'got', revision: 51, future: undefined },
});

/** The server's socket has told that it has written what the agent has read already. */
const written = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

describe('a revocation', () => {
  test('closes the connections of whom it means with 4503, and nothing that came with it or waited reaches them', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const other = await rig.greeted({
      credentials: await issue(rig.world.puppet, { subject: 'CN=web2' }),
    });
    const get = agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    const theirs = other.request({ kind: 'get', key: 'nodes/web2/a', stale: false });
    await rig.port.until(({ requests }) => requests.length === 2);
    const before = agent.frames.length;
    rig.gateway.deliver([access(undefined, [web1]), got(1, get), got(2, theirs)]);
    expect(await agent.closed).toMatchObject({ code: 4503 });
    expect(agent.frames).toHaveLength(before);
    expect(await other.answer(theirs)).toMatchObject({ kind: 'got' });
    expect(rig.port.notices).toContainEqual({ kind: 'closed', connection: 1, session: undefined });
    expect(rig.log.lines).toContainEqual(
      expect.objectContaining({
        fields: expect.objectContaining({ audit: 'revoked', principal: 'puppet:web1' }),
      }),
    );
  });

  test('refuses new ones of them with 4503, until it is taken back', async () => {
    rig = await startGateway();
    rig.gateway.deliver([access(undefined, [web1])]);
    const refused = await rig.agent();
    expect(await refused.closed).toMatchObject({ code: 4503 });
    rig.gateway.deliver([access(undefined, [])]);
    await rig.greeted();
  });

  test('of one serial number leaves another certificate of the same name alone', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const opened = agent.request(openSession);
    await rig.port.until(({ requests }) => requests.length === 1);
    const asked = rig.port.requests[0];
    if (asked?.kind !== 'session_open') throw new Error(`request ${opened} is the first`);
    const { serial = '' } = asked.subject.credential.certificate ?? {};
    const renewed = await rig.greeted({ credentials: await issue(rig.world.puppet, { subject: 'CN=web1' }) });
    rig.gateway.deliver([access(undefined, [{ kind: 'certificate', realm: 'puppet', serial }])]);
    expect(await agent.closed).toMatchObject({ code: 4503 });
    const get = renewed.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    await rig.port.until(({ requests }) => requests.length === 2);
    rig.gateway.deliver([got(2, get)]);
    expect(await renewed.answer(get)).toMatchObject({ kind: 'got' });
  });
});

describe('narrower policies', () => {
  test('refuse what is in flight and no longer allowed at once, and its answer is dropped', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const get = agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    const waits = agent.request({ kind: 'await', alternatives: [['shared/x']] });
    await rig.port.until(({ requests }) => requests.length === 2);
    rig.gateway.deliver([access(nothing), got(1, get)]);
    expect(await agent.failure(get)).toMatchObject({ code: 'PERMISSION_DENIED' });
    expect(await agent.failure(waits)).toMatchObject({ code: 'PERMISSION_DENIED' });
    expect(rig.port.notices).toContainEqual({ kind: 'cancel', connection: 1, request: waits });
    rig.gateway.deliver([got(1, get)]);
    const again = agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    expect(await agent.failure(again)).toMatchObject({ code: 'PERMISSION_DENIED' });
  });

  test('are told also where a heartbeat is the first to find that they count', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const waits = agent.request({ kind: 'await', alternatives: [['shared/x']] });
    const follows = agent.request(subscribe('shared/open/**'));
    await rig.port.until(({ requests }) => requests.length === 2);
    rig.gateway.deliver([subscribed(1, follows)]);
    await agent.answer(follows);
    // Its round comes with the sixteenth tick, before the connections are looked at one after the other.
    rig.clock.advance(15_999);
    await written();
    rig.gateway.deliver([access(nothing)]);
    rig.clock.advance(1);
    expect(await agent.failure(waits)).toMatchObject({ code: 'PERMISSION_DENIED' });
    await agent.until((frames) =>
      frames.some(({ pushes }) => pushes.some(({ ended }) => ended !== undefined)),
    );
  });

  test('refuse also what has been answered and not sent yet', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const get = agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    await rig.port.until(({ requests }) => requests.length === 1);
    await written();
    rig.gateway.deliver([got(1, get), access(nothing)]);
    expect(await agent.failure(get)).toMatchObject({ code: 'PERMISSION_DENIED' });
  });

  test('end subscriptions that they do not contain, and their later pushes are dropped and given back', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const gone = agent.request(subscribe('shared/open/**'));
    const kept = agent.request(subscribe('nodes/web1/**'));
    await rig.port.until(({ requests }) => requests.length === 2);
    rig.gateway.deliver([subscribed(1, gone), subscribed(1, kept)]);
    await agent.answer(kept);
    await written();
    const late = push(1, gone, 'shared/open/x');
    rig.gateway.deliver([
      access([{ allow: ['subscribe'], on: 'nodes/${node}/**' }]),
      late,
      push(1, kept, 'nodes/web1/a'),
    ]);
    const pushes = () => agent.frames.flatMap((frame) => frame.pushes);
    await agent.until(() => pushes().length >= 2);
    expect(pushes()).toMatchObject([
      { subscription: gone, changes: [], ended: { code: 'PERMISSION_DENIED' } },
      { subscription: kept, changes: [change('nodes/web1/a')] },
    ]);
    expect(rig.port.notices).toContainEqual({ kind: 'cancel', connection: 1, request: gone });
    if (late.kind === 'push') expect(rig.port.delivered(1)).toBeGreaterThanOrEqual(late.bytes);
  });

  test('end a subscription whose beginning has not been sent yet in one way only', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const id = agent.request(subscribe('shared/open/**'));
    await rig.port.until(({ requests }) => requests.length === 1);
    await written();
    rig.gateway.deliver([subscribed(1, id), push(1, id, 'shared/open/x'), access(nothing)]);
    expect(await agent.answer(id)).toMatchObject({ kind: 'subscribed' });
    await agent.until(() => agent.frames.some(({ pushes }) => pushes.length > 0));
    expect(agent.frames.flatMap(({ pushes }) => pushes)).toMatchObject([
      { subscription: id, changes: [], ended: { code: 'PERMISSION_DENIED' } },
    ]);
    const again = agent.request({ kind: 'get', key: 'nothing', stale: false });
    await rig.port.until(({ requests }) => requests.length === 2);
    rig.gateway.deliver([got(1, again)]);
    expect(await agent.answer(again)).toMatchObject({ kind: 'got' });
  });

  test('take back what waits for a slow reader, and end it where its socket holds some', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const id = agent.request(subscribe('shared/open/**'));
    await rig.port.until(({ requests }) => requests.length === 1);
    rig.gateway.deliver([subscribed(1, id)]);
    await agent.answer(id);
    agent.ws.pause();
    const large = `shared/open/${Array.from({ length: 3 }, () => 'x'.repeat(120)).join('/')}`;
    const many = Array.from({ length: 40_000 }, () => large);
    rig.gateway.deliver([push(1, id, ...many), push(1, id, 'shared/open/to-come')]);
    rig.gateway.deliver([access(nothing)]);
    agent.ws.resume();
    const { code } = await agent.closed;
    expect(code).toBe(1006);
    const keys = agent.frames.flatMap((frame) =>
      frame.pushes.flatMap((one) => one.changes.map(({ key }) => key)),
    );
    expect(keys).not.toContain('shared/open/to-come');
  });

  test('reach connections that do nothing, a few at a time', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const waits = agent.request({ kind: 'await', alternatives: [['shared/x']] });
    await rig.port.until(({ requests }) => requests.length === 1);
    rig.gateway.deliver([access(nothing)]);
    rig.clock.advance(10);
    expect(await agent.failure(waits)).toMatchObject({ code: 'PERMISSION_DENIED' });
  });
});

describe('the policies of the cluster', () => {
  test('count instead of the policy file from the first event on, and the log says so', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    rig.gateway.deliver([access([{ allow: ['get'], on: 'elsewhere/**' }])]);
    expect(rig.log.lines.map(({ message }) => message)).toContain(
      'the policies of the cluster count here, the policy file does not',
    );
    const get = agent.request({ kind: 'get', key: 'elsewhere/a', stale: false });
    await rig.port.until(({ requests }) => requests.length === 1);
    rig.gateway.deliver([got(1, get)]);
    expect(await agent.answer(get)).toMatchObject({ kind: 'got' });
    const refused = agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    expect(await agent.failure(refused)).toMatchObject({ code: 'PERMISSION_DENIED' });
    const other = await rig.greeted({ credentials: await issue(rig.world.puppet, { subject: 'CN=web3' }) });
    const theirs = other.request({ kind: 'get', key: 'nodes/web3/a', stale: false });
    expect(await other.failure(theirs)).toMatchObject({ code: 'PERMISSION_DENIED' });
  });

  test('that allow what they allowed before disturb nobody', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const get = agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    await rig.port.until(({ requests }) => requests.length === 1);
    rig.gateway.deliver([access(asBefore), got(1, get)]);
    expect(await agent.answer(get)).toMatchObject({ kind: 'got' });
  });

  test('set limits of one principal: requests a second, in flight, subscriptions, connections', async () => {
    rig = await startGateway();
    rig.gateway.deliver([
      access([
        ...asBefore,
        { limit: { requests_per_second: 3, requests_in_flight: 2, subscriptions: 1, connections: 2 } },
      ]),
    ]);
    const agent = await rig.greeted();
    expect(agent.frames[0]?.welcome?.limits).toMatchObject({ requestsInFlightMax: 2, subscriptionsMax: 1 });
    const first = agent.request(subscribe('nodes/web1/**'));
    await rig.port.until(({ requests }) => requests.length === 1);
    const second = agent.request(subscribe('nodes/web1/**'));
    expect(await agent.failure(second)).toMatchObject({ code: 'LIMIT_EXCEEDED' });
    agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    await rig.port.until(({ requests }) => requests.length === 2);
    const third = agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    expect(await agent.failure(third)).toMatchObject({ code: 'TOO_MANY_REQUESTS' });
    rig.gateway.deliver([subscribed(1, first)]);
    await agent.answer(first);
    const other = await rig.greeted();
    const limited = other.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    expect(await other.failure(limited)).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 334 });
    rig.clock.advance(334);
    other.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    await rig.port.until(({ requests }) => requests.length === 3);
    const tooMany = await rig.agent();
    expect(await tooMany.closed).toMatchObject({ code: 4031 });
  });

  test('a write behind an opening that was put off is put off, too, and is no mistake', async () => {
    rig = await startGateway();
    rig.gateway.deliver([access([...asBefore, { limit: { requests_per_second: 1 } }])]);
    const agent = await rig.greeted();
    agent.request({ kind: 'get', key: 'nodes/web1/a', stale: false });
    const opening = agent.request(openSession);
    expect(await agent.failure(opening)).toMatchObject({ code: 'RATE_LIMITED' });
    rig.clock.advance(1_000);
    const operations = [{ kind: 'delete', key: 'nodes/web1/out/a', preconditions: {} }] as const;
    const behind = agent.request({ kind: 'write', sequence: 1, answeredBelow: 1, operations });
    expect(await agent.failure(behind)).toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('open_session') as string,
    });
  });

  test('a session is told of with all that policies look at', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    agent.request(openSession);
    await rig.port.until(({ requests }) => requests.length === 1);
    expect(rig.port.requests[0]).toMatchObject({
      kind: 'session_open',
      session,
      subject: {
        principal: { realm: 'puppet', name: 'web1' },
        credential: { realm: 'puppet', name: 'web1', certificate: { serial: expect.any(String) } },
      },
    });
  });
});

describe('who changes access', () => {
  const admin = async () => {
    rig = await startGateway();
    rig.gateway.deliver([access([{ allow: ['acl.change', 'acl.get'] }])]);
    return rig.greeted();
  };
  const bytesOf = (document: unknown): Uint8Array => Buffer.from(JSON.stringify(document));

  test('needs the verbs, which are in no wildcard', async () => {
    rig = await startGateway();
    const agent = await rig.greeted({
      credentials: await issue(rig.world.puppet, { subject: 'CN=onlooker' }),
    });
    const bodies = [
      { kind: 'acl_get' } as const,
      { kind: 'acl_apply', document: bytesOf({}), force: false } as const,
      { kind: 'acl_revoke', revocation: web1 } as const,
      { kind: 'acl_restore', revocation: web1 } as const,
    ];
    for (const body of bodies)
      expect(await agent.failure(agent.request(body))).toMatchObject({ code: 'PERMISSION_DENIED' });
    expect(rig.port.requests).toEqual([]);
  });

  test('gets every problem of a document named, and nothing of it reaches the cluster', async () => {
    const agent = await admin();
    const good = documentOf([{ allow: ['acl.change'] }]);
    const bad: readonly (readonly [unknown, RegExp])[] = [
      [{ ...good, bindings: [{ realm: 'nowhere', policies: ['agent'] }] }, /nowhere/],
      [{ ...good, surprises: [] }, /surprises/],
      [
        { ...good, realms: { puppet: { tls: { issuer: 'ca.pem', identity: 'cn' } } } },
        /PEM|vars|certificate/,
      ],
    ];
    for (const [document, why] of bad) {
      const id = agent.request({ kind: 'acl_apply', document: bytesOf(document), force: true });
      const { code, message } = await agent.failure(id);
      expect(code).toBe('CONFIGURATION_INVALID');
      expect(message).toMatch(why);
    }
    expect(rig.port.requests).toEqual([]);
  });

  test.each<Revocation>([
    { kind: 'principal', realm: 'puppet', name: 'web1' },
    { kind: 'issued_before', realm: 'puppet', atMs: 9_000_000_000_000 },
    { kind: 'issued_before', realm: 'puppet', name: 'web1', atMs: 9_000_000_000_000 },
  ])('does not revoke itself by %j', async (revocation) => {
    const agent = await admin();
    const id = agent.request({ kind: 'acl_revoke', revocation });
    expect(await agent.failure(id)).toMatchObject({ code: 'ACCESS_REFUSED' });
    agent.request({ kind: 'acl_restore', revocation });
    agent.request({ kind: 'acl_revoke', revocation: { kind: 'issued_before', realm: 'puppet', atMs: 1 } });
    await rig.port.until(({ requests }) => requests.length === 2);
    expect(rig.port.requests).toMatchObject([{ kind: 'acl_restore' }, { kind: 'acl_revoke' }]);
  });

  test('is not let to lock itself out, unless it is forced', async () => {
    const agent = await admin();
    const document = bytesOf(documentOf(asBefore));
    const id = agent.request({ kind: 'acl_apply', document, force: false });
    expect(await agent.failure(id)).toMatchObject({ code: 'ACCESS_REFUSED' });
    const otherCa = { puppet: { tls: { issuer: rig.world.lab.pem, identity: 'cn' }, vars: { node: 'cn' } } };
    const moved = bytesOf({ ...documentOf([{ allow: ['acl.change'] }]), realms: otherCa });
    const elsewhere = agent.request({ kind: 'acl_apply', document: moved, force: false });
    expect(await agent.failure(elsewhere)).toMatchObject({ code: 'ACCESS_REFUSED' });
    agent.request({ kind: 'acl_apply', document, force: true });
    await rig.port.until(({ requests }) => requests.length === 1);
    expect(rig.port.requests[0]).toMatchObject({ kind: 'acl_apply', by: { principal: { name: 'web1' } } });
    expect(rig.log.lines).toContainEqual(
      expect.objectContaining({ fields: expect.objectContaining({ audit: 'asked', request: 'acl_apply' }) }),
    );
  });
});
