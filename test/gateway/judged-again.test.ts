/** What becomes of those who are connected when revocation lists, authorities or keys are others: at once, not at a heartbeat. */
import { X509Certificate } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import type { GatewayEvent } from '../../src/server/index.ts';
import { encodeChange } from '../../src/protocol/index.ts';
import type { Change } from '../../src/protocol/index.ts';
import { issue, makeAuthority, makeRevocationList } from './certificates.ts';
import { startGateway, subscribe, theWorld } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';
import { token, tokenKey, tokenRealm } from './token-issuer.ts';

let rig: Rig;
afterEach(() => rig.close());

const crl = '/puppet.crl';

/** A gateway whose realm has a list that names nobody, and what puts one in its place that names puppet:web1. */
const withList = async (): Promise<() => Promise<void>> => {
  const { puppet, web1 } = await theWorld();
  const file = { text: await makeRevocationList(puppet, { from: -0.9 }), version: '1' };
  const files = { version: () => file.version, read: () => file.text };
  const realms = { puppet: { tls: { issuer: puppet.pem, identity: 'cn' as const, crl } } };
  rig = await startGateway({}, { files }, realms);
  return async () => {
    const revoked = [new X509Certificate(web1.cert).serialNumber];
    file.text = await makeRevocationList(puppet, { from: -0.5, revoked });
    file.version = '2';
    await rig.gateway.lookForLists();
  };
};

const change: Change = { kind: 'deleted', revision: 51, key: `shared/open/${'x'.repeat(120)}` };
const pushes = (subscription: number, count: number): GatewayEvent => {
  const encoded = encodeChange(change);
  const changes = Array.from({ length: count }, () => ({ change, encoded }));
  const bytes = count * encoded.length;
  return { kind: 'push', connection: 1, subscription, changes, revision: 51, caughtUp: false, bytes };
};

const following = async (agent: TestAgent): Promise<number> => {
  const id = agent.request(subscribe('shared/open/**'));
  await rig.port.until(({ requests }) => requests.length === 1);
  const position = { clusterId: 'c0ffee', epoch: 3, revision: 41 };
  const body = { kind: 'subscribed', position, reset: false } as const;
  rig.gateway.deliver([{ kind: 'answer', connection: 1, request: id, body }]);
  await agent.answer(id);
  return id;
};

const audited = (kind: string): unknown[] =>
  rig.log.lines.filter(({ fields }) => fields['audit'] === kind).map(({ fields }) => fields['principal']);

describe('a revocation list that has been read', () => {
  test('ends whom it names within a second, with the line that a revocation leaves, and nobody else', async () => {
    const revoke = await withList();
    const stolen = await rig.greeted();
    const other = await rig.greeted({ credentials: await issue(rig.world.puppet, { subject: 'CN=web2' }) });
    await revoke();
    rig.clock.advance(999);
    expect(await stolen.closed).toMatchObject({ code: 4503, reason: expect.stringContaining('revoked') });
    expect(audited('revoked')).toEqual(['puppet:web1']);
    const id = other.request({ kind: 'get', key: 'nodes/web1/x', stale: false });
    expect((await other.failure(id)).code).toBe('PERMISSION_DENIED');
  });

  test('lets nothing more out to whom it names: neither what comes then nor what its socket holds', async () => {
    const revoke = await withList();
    const agent = await rig.greeted();
    const id = await following(agent);
    agent.ws.pause();
    rig.gateway.deliver([pushes(id, 60_000)]);
    await revoke();
    // Before any timer has run.
    rig.gateway.deliver([pushes(id, 1)]);
    expect(rig.gateway.connections).toBe(0);
    agent.ws.resume();
    // It was cut: there was no room for a close frame behind what was in its socket.
    expect((await agent.closed).code).toBe(1006);
    expect(audited('revoked')).toEqual(['puppet:web1']);
  });

  test('is heeded before anything is taken from whom it names', async () => {
    const revoke = await withList();
    const agent = await rig.greeted();
    await revoke();
    agent.request({ kind: 'get', key: 'shared/x', stale: false });
    expect(await agent.closed).toMatchObject({ code: 4503 });
    expect(rig.port.requests).toEqual([]);
  });
});

describe('other authorities and keys', () => {
  test('end who was let in by those of before within a second, and cut where something is unsent', async () => {
    rig = await startGateway();
    const agent = await rig.greeted();
    const idle = await rig.greeted();
    const id = await following(agent);
    agent.ws.pause();
    rig.gateway.deliver([pushes(id, 60_000)]);
    const next = await makeAuthority('CN=Puppet CA');
    await rig.gateway.replaceFileRealms({ puppet: { tls: { issuer: next.pem, identity: 'cn' } } });
    rig.clock.advance(999);
    expect(await idle.closed).toMatchObject({
      code: 4501,
      reason: expect.stringContaining('no CA of its realm'),
    });
    expect(rig.gateway.connections).toBe(0);
    agent.ws.resume();
    expect((await agent.closed).code).toBe(1006);
    expect(audited('ended')).toEqual(['puppet:web1', 'puppet:web1']);
  });

  test('have a token shown again, which takes nothing away from its bearer', async () => {
    const [key, next] = [await tokenKey(), await tokenKey()];
    const realmOf = ({ jwk }: typeof key) => ({ ci: { ...tokenRealm([jwk]), vars: { node: 'cn' } } });
    rig = await startGateway({}, {}, realmOf(key));
    const text = await token({ key: key.key, expiresIn: 600, claims: {}, nowMs: rig.clock.wallMs() });
    const agent = await rig.greeted({ credentials: 'none', token: text });
    await rig.gateway.replaceFileRealms(realmOf(next));
    rig.clock.advance(999);
    expect(await agent.closed).toMatchObject({ code: 4001 });
    expect(audited('revoked')).toEqual([]);
  });
});
