import { createHmac, createPublicKey } from 'node:crypto';
import { UnsecuredJWT } from 'jose';
import { beforeAll, describe, expect, test } from 'vitest';
import { Realms } from '../../src/gateway/identity.ts';
import type { IdentityVerdict } from '../../src/gateway/identity.ts';
import type { RealmDocument } from '../../src/scopes/index.ts';
import { decodeCommand, encodeCommand } from '../../src/store/index.ts';
import { audience, issuer, token, tokenKey, tokenRealm } from './token-issuer.ts';
import type { TokenKey } from './token-issuer.ts';

const files = { version: () => undefined, read: () => '' };
const log = { info() {}, error() {} };

let k1: TokenKey;
let k2: TokenKey;
let rsa: TokenKey;
let realms: Realms;

const realmsOf = (documents: Record<string, RealmDocument>): Realms => new Realms(documents, files, log);

beforeAll(async () => {
  [k1, k2, rsa] = await Promise.all([tokenKey(), tokenKey('ES256', 'k2'), tokenKey('RS256', 'r1')]);
  realms = realmsOf({
    ci: { ...tokenRealm([k1.jwk]), vars: { dept: 'claim:department', job: 'claim:job' } },
  });
});

const judge = async (text: string, by = realms, wallMs = Date.now()): Promise<IdentityVerdict> => {
  const proof = await by.proveToken(text, wallMs);
  return proof.ok ? by.judge({ token: proof.proved }, wallMs, 'fresh') : proof;
};

const problem = async (text: string | Promise<string>, by = realms, wallMs?: number): Promise<string> => {
  const verdict = await judge(await text, by, wallMs);
  if (!verdict.ok) expect(verdict.problem).not.toContain(await text);
  return verdict.ok ? 'none' : verdict.problem;
};

describe('a token', () => {
  test('names its principal, and gives variables from its claims', async () => {
    const claims = { department: 'web', job: 7, groups: ['a'] };
    const verdict = await judge(await token({ key: k1.key, claims }));
    if (!verdict.ok) throw new Error(verdict.problem);
    const { principal, credential, expiresAtMs } = verdict.identity;
    expect(principal).toEqual({ realm: 'ci', name: 'build-7', variables: { dept: 'web', job: '7' } });
    expect(credential).toMatchObject({ realm: 'ci', name: 'build-7', token: { id: 't1' } });
    expect(expiresAtMs).toBeGreaterThan(Date.now() + 590_000);
  });

  test('may name one of several audiences', async () => {
    const claims = { aud: ['other', audience] };
    expect(await problem(token({ key: k1.key, claims }))).toBe('none');
  });

  test.each([
    ['without a time to expire', { exp: undefined }, /claim exp/],
    ['without an issuer', { iss: undefined }, /issuer/],
    ['of another issuer', { iss: 'https://evil.example.com' }, /no realm here takes tokens/],
    ['without an audience', { aud: undefined }, /no realm here takes tokens/],
    ['for somebody else', { aud: 'other' }, /no realm here takes tokens/],
    ['without a name', { sub: undefined }, /claim sub/],
    ['whose name is no segment', { sub: 'a/b' }, /no segment of a key/],
    ['whose name is a wildcard', { sub: '**' }, /no segment of a key/],
    ['whose id is no text', { jti: 7 }, /claim jti/],
    ['whose id nobody could name to revoke it', { jti: 'a\ud800' }, /claim jti/],
    ['whose id is longer than one that can be revoked', { jti: 'x'.repeat(257) }, /claim jti/],
    ['that was issued at no time', { iat: 1e300 }, /claim iat/],
    ['that is not valid yet', { nbf: Math.floor(Date.now() / 1000) + 120 }, /claim nbf/],
  ])('%s is refused', async (_what, claims, text) => {
    expect(await problem(token({ key: k1.key, claims }))).toMatch(text);
  });

  test.each([
    ['fractions of seconds', { iat: 1_700_000_000.1234, exp: 9_700_000_000.5678 }],
    ['a time before 1970', { iat: -1.5 }],
    ['an end beyond all dates', { exp: 1e300 }],
    ['half a character in a claim', { department: 'a\ud800b' }],
  ])('with %s can be written into the log, and read from it', async (_what, claims) => {
    const verdict = await judge(await token({ key: k1.key, claims }));
    if (!verdict.ok) throw new Error(verdict.problem);
    const { principal, credential, expiresAtMs } = verdict.identity;
    const opening = {
      kind: 'session_open',
      session: '00'.repeat(16),
      principal: 'ci:build-7',
      graceMs: 1000,
      resume: false,
      connection: 1,
      subject: { principal, credential },
      origin: { member: 1, run: 1, request: 1 },
    } as const;
    expect(decodeCommand(encodeCommand(opening))).toEqual(opening);
    expect(Number.isSafeInteger(expiresAtMs)).toBe(true);
  });

  test('that has expired is refused with a close code to come back with, half a minute after it did', async () => {
    const text = await token({ key: k1.key, expiresIn: 100 });
    const endMs = (Math.floor(Date.now() / 1000) + 100) * 1000;
    expect(await problem(text, realms, endMs + 20_000)).toBe('none');
    expect(await judge(text, realms, endMs + 40_000)).toMatchObject({ ok: false, closeCode: 4001 });
  });

  test('without a signature is refused', async () => {
    const plain = new UnsecuredJWT({ sub: 'build-7' })
      .setIssuer(issuer)
      .setAudience(audience)
      .setExpirationTime('10m')
      .encode();
    expect(await problem(plain)).toMatch(/algorithm is none that|no JWT that can be verified/);
    const [header, payload] = (await token({ key: k1.key })).split('.');
    expect(await problem(`${header}.${payload}.`)).toMatch(/signature|no JWT/);
  });

  test("signed with the realm's public key as if it were a secret is refused", async () => {
    const by = realmsOf({ ci: tokenRealm([rsa.jwk], { algorithms: ['RS256'] }) });
    const secret = createPublicKey({ key: rsa.jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
    const [, payload] = (await token({ key: k1.key })).split('.');
    const header = Buffer.from(JSON.stringify({ alg: 'HS256', kid: 'r1' })).toString('base64url');
    const signature = createHmac('sha256', secret).update(`${header}.${payload}`).digest('base64url');
    expect(await problem(`${header}.${payload}.${signature}`, by)).toMatch(/algorithm is none/);
  });

  test('by an algorithm that the realm does not name is refused, though the key is its own', async () => {
    const both = [k1.jwk, { ...rsa.jwk, alg: undefined }] as (typeof k1.jwk)[];
    const by = realmsOf({ ci: tokenRealm(both) });
    const header = { alg: 'RS256', kid: 'r1' };
    expect(await problem(token({ key: rsa.key, header }), by)).toMatch(/algorithm is none/);
  });

  test('of a key that the realm does not have is refused, whatever it calls it', async () => {
    expect(await problem(token({ key: k2.key }))).toMatch(/signature/);
    expect(await problem(token({ key: k2.key, header: { kid: 'k2' } }))).toMatch(/key \(kid\)/);
    const own = { ...k2.jwk };
    expect(await problem(token({ key: k2.key, header: { kid: 'k2', jwk: own } }))).toMatch(/key \(kid\)/);
  });

  test('that asks for something unheard of (crit) is refused', async () => {
    const made = await token({ key: k1.key });
    const [, payload, signature] = made.split('.');
    const header = Buffer.from(JSON.stringify({ alg: 'ES256', kid: 'k1', crit: ['x'], x: 1 }));
    expect(await problem(`${header.toString('base64url')}.${payload}.${signature}`)).toMatch(/no JWT that/);
  });

  test('that is none is refused', async () => {
    for (const text of ['a.b.c', 'e30.e30.', 'e30.e30.e30']) expect(await problem(text)).toMatch(/no JWT/);
  });

  test('whose key is taken out of the realm counts no more for who is connected', async () => {
    const by = realmsOf({ ci: tokenRealm([k1.jwk, k2.jwk]) });
    const verdict = await judge(await token({ key: k1.key }), by);
    if (!verdict.ok) throw new Error(verdict.problem);
    await by.replace({ ci: tokenRealm([k2.jwk]) }, Date.now());
    expect(by.judgeAgain(verdict.identity, Date.now())).toMatchObject({ ok: false, closeCode: 4001 });
  });
});

describe('a realm with tokens', () => {
  const refusal = (document: RealmDocument) => () => realmsOf({ ci: document });

  test('takes no secret keys, no shared secrets and no algorithms with one', async () => {
    expect(refusal(tokenRealm([k1.jwk], { algorithms: ['HS256'] }))).toThrow(/algorithms must be/);
    expect(refusal(tokenRealm([k1.jwk], { algorithms: ['none'] }))).toThrow(/algorithms must be/);
    expect(refusal(tokenRealm([{ kty: 'oct', k: 'c2VjcmV0' }]))).toThrow(/secret key/);
    expect(refusal(tokenRealm([{ ...k1.jwk, d: 'AAAA' }]))).toThrow(/secret key/);
  });

  test('needs a key set that can be read', () => {
    expect(refusal(tokenRealm([], {}))).toThrow(/1 to 64 keys/);
    expect(refusal(tokenRealm([k1.jwk], { keys: 'keys.json' }))).toThrow(/no JSON/);
    expect(refusal(tokenRealm([k1.jwk], { keys: '{"keys":[{}]}' }))).toThrow(/no key/);
  });

  test('shares issuer and audience with no other', () => {
    const both = { a: tokenRealm([k1.jwk]), b: tokenRealm([k2.jwk]) };
    expect(() => realmsOf(both)).toThrow(/realms a and b take tokens of one issuer/);
    const apart = { a: tokenRealm([k1.jwk]), b: tokenRealm([k2.jwk], { audience: 'b' }) };
    expect(() => realmsOf(apart)).not.toThrow();
  });
});
