import { X509Certificate } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import { Realms } from '../../src/gateway/identity.ts';
import type { IdentityVerdict } from '../../src/gateway/identity.ts';
import { issue, makeAuthority } from './certificates.ts';
import type { Authority, CertificateRequest } from './certificates.ts';

let puppet: Authority;
let lab: Authority;
let realms: Realms;

beforeAll(async () => {
  puppet = await makeAuthority('CN=Puppet CA');
  lab = await makeAuthority('CN=Puppet CA');
  realms = new Realms({ puppet: puppet.pem, lab: lab.pem });
});

const judge = async (
  authority: Authority,
  request: CertificateRequest,
  by = realms,
): Promise<IdentityVerdict> =>
  by.judge(new X509Certificate((await issue(authority, request)).cert), Date.now());

const problemOf = (verdict: IdentityVerdict): string => (verdict.ok ? 'none' : verdict.problem);

describe('an identity', () => {
  test('is the common name, case kept, in the realm whose authority signed, though both have one name', async () => {
    expect(await judge(puppet, { subject: 'CN=Web1.Example.com' })).toMatchObject({
      ok: true,
      identity: { realm: 'puppet', name: 'Web1.Example.com' },
    });
    expect(await judge(lab, { subject: 'O=x, CN=web1' })).toMatchObject({
      ok: true,
      identity: { realm: 'lab' },
    });
  });

  test('is not given by a CA that has only the name of a pinned one', async () => {
    const impostor = await makeAuthority('CN=Puppet CA');
    for (const keyIdentifier of [true, false]) {
      const verdict = await judge(impostor, { subject: 'CN=web1', keyIdentifier });
      expect(problemOf(verdict)).toContain('not signed directly');
    }
  });

  test('is given by the CA that is pinned, not by one below it', async () => {
    const below = await makeAuthority('CN=Below', puppet);
    expect(problemOf(await judge(below, { subject: 'CN=web1' }))).toContain('not signed directly');
    expect(await judge(below, { subject: 'CN=web1' }, new Realms({ dc: below.pem }))).toMatchObject({
      ok: true,
    });
  });

  test.each([
    ['pitfall 50: a wildcard', 'CN=*'],
    ['pitfall 50: a wildcard for more', 'CN=**'],
    ['a slash', 'CN=web1/out'],
    ['a space', 'CN=web 1'],
    ['a parent', 'CN=..'],
    ['a look-alike of another alphabet', 'CN=wеb1'],
    ['a line feed', 'CN=web1\\0AO=x'],
    ['too long a text', `CN=${'a'.repeat(129)}`],
  ])('is not %s', async (_what, subject) => {
    expect(problemOf(await judge(puppet, { subject }))).toContain('no segment of a key');
  });

  test('is not guessed from none or two common names', async () => {
    expect(problemOf(await judge(puppet, { subject: 'O=web1' }))).toContain('no common name');
    expect(problemOf(await judge(puppet, { subject: 'CN=web1, CN=admin' }))).toContain('more than one');
    expect(problemOf(await judge(puppet, { subject: 'CN=web1+CN=admin' }))).toContain('more than one');
    expect(problemOf(realms.judge(undefined, Date.now()))).toContain('no certificate');
  });

  test('is not given outside the validity of the certificate', async () => {
    expect(problemOf(await judge(puppet, { subject: 'CN=web1', notBefore: -3, notAfter: -2 }))).toContain(
      'expired',
    );
    expect(problemOf(await judge(puppet, { subject: 'CN=web1', notBefore: 2, notAfter: 3 }))).toContain(
      'not valid before',
    );
  });
});

describe('realms', () => {
  test('cannot share an issuer', () => {
    expect(() => new Realms({ a: puppet.pem, b: `# comment\n${puppet.pem}` })).toThrow(/realms a and b/);
  });

  test('need certificates that can be read', () => {
    expect(() => new Realms({ a: 'nothing' })).toThrow(/realm a: .*no PEM certificate/);
    const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----';
    expect(() => new Realms({ a: broken })).toThrow(/realm a: .*cannot be read/);
  });

  test('may have several issuers each', async () => {
    const both = new Realms({ all: puppet.pem + lab.pem });
    expect(await judge(lab, { subject: 'CN=web1' }, both)).toMatchObject({
      ok: true,
      identity: { realm: 'all' },
    });
  });
});
