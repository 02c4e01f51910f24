/** Whether a principal may have one more connection is answered late where several threads ask for it. */
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Principals } from '../../src/gateway/principals.ts';
import type { PolicyDocument } from '../../src/scopes/index.ts';
import { hello, startGateway, theWorld } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';
import { token, tokenKey, tokenRealm } from './token-issuer.ts';
import type { TokenKey } from './token-issuer.ts';

class LatePrincipals implements Principals {
  readonly asked: { readonly principal: string; readonly told: (admitted: boolean) => void }[] = [];
  readonly left: string[] = [];
  enter(principal: string, _max: number, told: (admitted: boolean) => void): void {
    this.asked.push({ principal, told });
  }
  sole(): void {}
  leave(principal: string): void {
    this.left.push(principal);
  }
  shareOf(): number {
    return 0.5;
  }
}

let rig: Rig;
let key: TokenKey;
beforeAll(async () => {
  key = await tokenKey();
});
afterEach(() => rig.close());

const get = { kind: 'get', key: 'shared/a', stale: false } as const;

describe('an agent that is not admitted yet', () => {
  let principals: LatePrincipals;

  const start = async (): Promise<void> => {
    principals = new LatePrincipals();
    const { puppet } = await theWorld();
    const realms: PolicyDocument['realms'] = {
      puppet: { tls: { issuer: puppet.pem, identity: 'cn' }, ...tokenRealm([key.jwk]) },
    };
    rig = await startGateway({}, { principals }, realms);
  };
  const tokenOf = (sub: string): Promise<string> =>
    token({ key: key.key, expiresIn: 600, claims: { sub }, nowMs: rig.clock.wallMs() });

  /** Its frames have been read. */
  const sent = async (agent: TestAgent): Promise<void> => {
    const pong = new Promise((resolve) => agent.ws.once('pong', resolve));
    agent.ws.ping();
    await Promise.race([pong, new Promise((resolve) => setTimeout(resolve, 100))]);
  };

  test('is heard when it is, in order', async () => {
    await start();
    const agent = await rig.agent();
    agent.send({ hello, requests: [{ id: 1, body: get }] });
    agent.send({ requests: [{ id: 2, body: get }] });
    await sent(agent);
    expect([agent.frames, rig.port.requests, principals.asked.length]).toEqual([[], [], 1]);
    principals.asked[0]?.told(true);
    await rig.port.until(({ requests }) => requests.length === 2);
    expect(rig.port.requests.map(({ request }) => request)).toEqual([1, 2]);
    agent.ws.close();
    await agent.closed;
    await expect.poll(() => principals.left).toEqual(['puppet:web1']);
  });

  test('is told why not when it is refused, and has no place to give back', async () => {
    await start();
    const agent = await rig.agent();
    agent.send({ hello, requests: [] });
    principals.asked[0]?.told(false);
    expect(await agent.closed).toMatchObject({ code: 4031, reason: /puppet:web1 has 1000 connections/ });
    expect([agent.frames, principals.left]).toEqual([[], []]);
  });

  test('shows its token as well as its certificate, and must be who that says', async () => {
    await start();
    for (const [sub, code] of [
      ['web1', undefined],
      ['admin', 4501],
    ] as const) {
      const agent = await rig.agent();
      agent.send({ hello: { ...hello, token: await tokenOf(sub) }, requests: [{ id: 1, body: get }] });
      await sent(agent);
      principals.asked.pop()?.told(true);
      if (code === undefined) expect((await agent.frame()).welcome?.principal).toBe('puppet:web1');
      else expect((await agent.closed).code).toBe(code);
    }
    expect(rig.port.requests).toHaveLength(1);
  });

  test('with a token alone waits for both', async () => {
    await start();
    const agent = await rig.agent({ credentials: 'none' });
    agent.send({ hello: { ...hello, token: await tokenOf('web9') }, requests: [{ id: 1, body: get }] });
    await expect.poll(() => principals.asked.length).toBe(1);
    await sent(agent);
    expect(agent.frames).toEqual([]);
    principals.asked[0]?.told(true);
    expect((await agent.frame()).welcome?.principal).toBe('puppet:web9');
  });

  test('that says nothing or waits too long is closed as any that does not greet', async () => {
    await start();
    const agent = await rig.agent();
    agent.send({ hello, requests: [] });
    await sent(agent);
    rig.clock.advance(6000);
    expect((await agent.closed).code).toBe(4010);
    principals.asked[0]?.told(true);
    expect(principals.left).toEqual(['puppet:web1']);
  });
});
