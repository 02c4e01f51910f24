import 'reflect-metadata';
import { X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { beforeAll, describe, expect, test } from 'vitest';
import { Realms } from '../../src/gateway/identity.ts';
import type { Identity, IdentityVerdict } from '../../src/gateway/identity.ts';
import type { FileReader } from '../../src/gateway/watched-files.ts';
import type { RealmDocument } from '../../src/scopes/index.ts';
import { issue, makeAuthority, makeRevocationList, puppetExtension } from './certificates.ts';
import type { Authority, CertificateRequest } from './certificates.ts';

const noFiles: FileReader = {
  version: () => undefined,
  read: () => {
    throw new Error('there are no files');
  },
};
const noLog = { info() {}, error() {} };

const pinning = (pems: Readonly<Record<string, string>>): Record<string, RealmDocument> =>
  Object.fromEntries(
    Object.entries(pems).map(([name, issuer]) => [name, { tls: { issuer, identity: 'cn' as const } }]),
  );

const realmsOf = (pems: Readonly<Record<string, string>>): Realms =>
  new Realms(pinning(pems), noFiles, noLog);

let puppet: Authority;
let lab: Authority;
let realms: Realms;

beforeAll(async () => {
  puppet = await makeAuthority('CN=Puppet CA');
  lab = await makeAuthority('CN=Puppet CA');
  realms = realmsOf({ puppet: puppet.pem, lab: lab.pem });
});

const judgeLeaf = (cert: string, by: Realms, wallMs = Date.now()): IdentityVerdict => {
  const proof = by.prove(new X509Certificate(cert));
  if (proof === undefined) return { ok: false, problem: 'of no realm', closeCode: 0 };
  return proof.ok ? by.judge({ certificate: proof.proved }, wallMs, 'fresh') : proof;
};

const judge = async (
  authority: Authority,
  request: CertificateRequest,
  by = realms,
): Promise<IdentityVerdict> => judgeLeaf((await issue(authority, request)).cert, by);

const problemOf = (verdict: IdentityVerdict): string => (verdict.ok ? 'none' : verdict.problem);

const identityOf = (verdict: IdentityVerdict): Identity => {
  if (!verdict.ok) throw new Error(verdict.problem);
  return verdict.identity;
};

describe('an identity', () => {
  test('is the common name, case kept, in the realm whose authority signed, though both have one name', async () => {
    const cased = identityOf(await judge(puppet, { subject: 'CN=Web1.Example.com' }));
    expect(cased.principal).toEqual({ realm: 'puppet', name: 'Web1.Example.com' });
    expect(identityOf(await judge(lab, { subject: 'O=x, CN=web1' })).principal.realm).toBe('lab');
  });

  test('is not given by a CA that has only the name of a pinned one', async () => {
    const impostor = await makeAuthority('CN=Puppet CA');
    for (const keyIdentifier of [true, false]) {
      const verdict = await judge(impostor, { subject: 'CN=web1', keyIdentifier });
      expect(problemOf(verdict)).toBe('of no realm');
    }
  });

  test('is given by the CA that is pinned, not by one below it', async () => {
    const below = await makeAuthority('CN=Below', puppet);
    expect(problemOf(await judge(below, { subject: 'CN=web1' }))).toBe('of no realm');
    expect(await judge(below, { subject: 'CN=web1' }, realmsOf({ dc: below.pem }))).toMatchObject({
      ok: true,
    });
  });

  test("is given by the intermediate of Puppet's own ca.pem, which holds the root as well", async () => {
    const root = await makeAuthority('CN=Puppet Root CA');
    const signing = await makeAuthority('CN=Puppet Signing CA', root);
    const by = realmsOf({ puppet: `${signing.pem}\n${root.pem}` });
    expect(await judge(signing, { subject: 'CN=web1' }, by)).toMatchObject({ ok: true });
  });

  test('is not given by an authority that has expired, or whose own authority has', async () => {
    const root = await makeAuthority('CN=Root', undefined, { notAfter: -1 });
    const signing = await makeAuthority('CN=Signing', root);
    const by = realmsOf({ puppet: signing.pem + root.pem });
    expect(problemOf(await judge(signing, { subject: 'CN=web1' }, by))).toMatch(/the CA .*CN=Root.* expired/);
    expect(await judge(signing, { subject: 'CN=web1' }, realmsOf({ dc: signing.pem }))).toMatchObject({
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

  test('is not guessed from none or two common names, nor from other names of the certificate', async () => {
    expect(problemOf(await judge(puppet, { subject: 'O=web1' }))).toContain('no common name');
    expect(problemOf(await judge(puppet, { subject: 'CN=web1, CN=admin' }))).toContain('more than one');
    expect(problemOf(await judge(puppet, { subject: 'CN=web1+CN=admin' }))).toContain('more than one');
    const alternative = new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: 'admin' }]);
    const named = await judge(puppet, { subject: 'CN=web1', extensions: [alternative] });
    expect(identityOf(named).principal.name).toBe('web1');
    expect(problemOf(realms.judge({}, Date.now(), 'fresh'))).toContain('neither a certificate nor a token');
  });

  test('is not given outside the validity of the certificate', async () => {
    expect(problemOf(await judge(puppet, { subject: 'CN=web1', notBefore: -3, notAfter: -2 }))).toContain(
      'expired',
    );
    expect(problemOf(await judge(puppet, { subject: 'CN=web1', notBefore: 2, notAfter: 3 }))).toContain(
      'not valid before',
    );
  });

  test('is given by a certificate that was issued just now, also where the clock is five minutes behind', async () => {
    const { cert } = await issue(puppet, { subject: 'CN=web1', notBefore: 0 });
    const minute = 60_000;
    expect(judgeLeaf(cert, realms, Date.now() - 4 * minute)).toMatchObject({ ok: true });
    expect(problemOf(judgeLeaf(cert, realms, Date.now() - 6 * minute))).toContain('not valid before');
  });

  test('is not given by a certificate that is for something else', async () => {
    const subject = 'CN=web1';
    const forServers = await judge(puppet, { subject, usages: [x509.ExtendedKeyUsage.serverAuth] });
    expect(problemOf(forServers)).toContain('not for clients');
    expect(await judge(puppet, { subject, usages: [] })).toMatchObject({ ok: true });
    const toEncipher = await judge(puppet, { subject, keyUsages: x509.KeyUsageFlags.keyEncipherment });
    expect(problemOf(toEncipher)).toContain('not for signatures');
    const authority = await makeAuthority('CN=web1', puppet);
    expect(problemOf(judgeLeaf(authority.pem, realms))).toContain('that of an authority');
  });

  test('is not given by a signature or a key that others could forge', async () => {
    const subject = 'CN=web1';
    expect(problemOf(await judge(puppet, { subject, hash: 'SHA-1' }))).toContain('SHA-1');
    expect(problemOf(await judge(puppet, { subject, rsaBits: 1024 }))).toContain('1024 bits');
    expect(await judge(puppet, { subject, hash: 'SHA-384', rsaBits: 2048 })).toMatchObject({ ok: true });
  });

  test('is not given by a certificate with a critical extension that would go unheeded', async () => {
    const strange = puppetExtension('1.2.3.4', 'only on Sundays', true);
    expect(problemOf(await judge(puppet, { subject: 'CN=web1', extensions: [strange] }))).toContain(
      'critical extension 1.2.3.4',
    );
  });
});

describe('an identity by DNS name', () => {
  const withIdentity = (identity: 'cn' | 'dns'): Record<string, RealmDocument> => ({
    puppet: { tls: { issuer: puppet.pem, identity }, vars: { node: identity } },
  });
  const named = (...names: readonly (readonly [type: 'dns' | 'ip' | 'email' | 'url', value: string])[]) =>
    new x509.SubjectAlternativeNameExtension(names.map(([type, value]) => ({ type, value })));
  const judgeNamed = (subject: string, ...extensions: x509.Extension[]): Promise<IdentityVerdict> =>
    judge(puppet, { subject, extensions }, new Realms(withIdentity('dns'), noFiles, noLog));

  test('is the one there is, whatever the common name or other kinds of names say', async () => {
    const dns = named(['ip', '10.0.0.1'], ['dns', 'web1.example.com'], ['email', 'a@example.com']);
    for (const subject of ['CN=admin', 'CN=admin, CN=root', 'O=nobody']) {
      const { principal, credential } = identityOf(await judgeNamed(subject, dns));
      expect(principal).toEqual({ realm: 'puppet', name: 'web1.example.com' });
      expect(credential.name).toBe('web1.example.com');
    }
    expect(identityOf(await judgeNamed('CN=x', named(['dns', 'web1']))).principal.name).toBe('web1');
    const service = await judgeNamed('CN=x', named(['dns', '_a._tcp.xn--bcher-kva.example']));
    expect(service).toMatchObject({ ok: true });
  });

  test.each([
    ['none', [], 'has no DNS name'],
    ['one of another kind', [['url', 'spiffe://example.com/web1']], 'has no DNS name'],
    [
      'two',
      [
        ['dns', 'web1'],
        ['dns', 'admin'],
      ],
      'has 2 DNS names',
    ],
    [
      'the same one twice',
      [
        ['dns', 'web1'],
        ['dns', 'web1'],
      ],
      'has 2 DNS names',
    ],
    ['a wildcard', [['dns', '*.example.com']], 'wildcard'],
    ['upper case, which is another key and the same host', [['dns', 'Web1.example.com']], 'lower case'],
    ['a dot at its end', [['dns', 'web1.example.com.']], 'between dots'],
    ['an empty label', [['dns', 'web1..example.com']], 'between dots'],
    ['a hyphen first', [['dns', '-web1.example.com']], 'between dots'],
    ['a slash', [['dns', 'web1/out']], 'between dots'],
    ['a NUL', [['dns', 'web1\u0000.example.com']], 'between dots'],
    ['what keys have and DNS has not', [['dns', 'agents:web1']], 'between dots'],
    ['only dots', [['dns', '..']], 'between dots'],
    [
      'more than a segment of a key may have',
      [['dns', `${'a'.repeat(63)}.${'b'.repeat(63)}.c`]],
      'segment of a key',
    ],
  ] as const)('is not taken from %s', async (_what, names, problem) => {
    const extensions = names.length === 0 ? [] : [named(...names)];
    expect(problemOf(await judgeNamed('CN=web1', ...extensions))).toContain(problem);
  });

  test('is not given to who was let in by another name: it has to come again', async () => {
    const by = new Realms(withIdentity('cn'), noFiles, noLog);
    const extensions = [named(['dns', 'admin.example.com'])];
    const { cert } = await issue(puppet, { subject: 'CN=web1', extensions });
    const before = identityOf(judgeLeaf(cert, by));
    expect(before.principal.name).toBe('web1');
    await by.replace(withIdentity('dns'), Date.now());
    expect(by.judgeAgain(before, Date.now())).toMatchObject({ ok: false, closeCode: 4001 });
    expect(identityOf(judgeLeaf(cert, by)).principal.name).toBe('admin.example.com');
  });
});

describe('variables', () => {
  const withVariables = (vars: Readonly<Record<string, string>>): Realms => {
    const document = { tls: { issuer: puppet.pem, identity: 'cn' }, vars } as RealmDocument;
    return new Realms({ puppet: document }, noFiles, noLog);
  };

  test("are read from Puppet's extensions, by their short names and by OIDs", async () => {
    const by = withVariables({
      node: 'cn',
      role: 'extension:pp_role',
      auth: 'extension:pp_auth_role',
      custom: 'oid:1.3.6.1.4.1.34380.1.2.7',
      zone: 'extension:pp_zone',
      dept: 'claim:department',
    });
    const extensions = [
      puppetExtension('1.3.6.1.4.1.34380.1.1.13', 'web'),
      puppetExtension('1.3.6.1.4.1.34380.1.3.13', 'deployer'),
      puppetExtension('1.3.6.1.4.1.34380.1.2.7', 'blue'),
    ];
    const { principal } = identityOf(await judge(puppet, { subject: 'CN=web1', extensions }, by));
    expect(principal.variables).toEqual({ role: 'web', auth: 'deployer', custom: 'blue' });
  });

  test('are not read from what is no plain text, or is there twice', async () => {
    const by = withVariables({ role: 'extension:pp_role' });
    const oid = '1.3.6.1.4.1.34380.1.1.13';
    const trailing = new x509.Extension(oid, false, Buffer.from([0x0c, 1, 0x61, 0x62]));
    const number = new x509.Extension(oid, false, Buffer.from([0x02, 1, 0x61]));
    const broken = new x509.Extension(oid, false, Buffer.from([0x0c, 1, 0xff]));
    for (const extension of [trailing, number, broken]) {
      const verdict = await judge(puppet, { subject: 'CN=web1', extensions: [extension] }, by);
      expect(identityOf(verdict).principal.variables).toBeUndefined();
    }
    const twice = [puppetExtension(oid, 'web'), puppetExtension(oid, 'admin')];
    expect(problemOf(await judge(puppet, { subject: 'CN=web1', extensions: twice }, by))).toContain('twice');
  });
});

describe('realms', () => {
  test('cannot share an issuer', () => {
    expect(() => realmsOf({ a: puppet.pem, b: `# comment\n${puppet.pem}` })).toThrow(/realms a and b/);
  });

  test('need certificates of authorities that can be read', async () => {
    expect(() => realmsOf({ a: 'nothing' })).toThrow(/realm a: .*no PEM certificate/);
    const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----';
    expect(() => realmsOf({ a: broken })).toThrow(/realm a: .*cannot be read/);
    const leaf = await issue(puppet, { subject: 'CN=web1' });
    expect(() => realmsOf({ a: leaf.cert })).toThrow(/realm a: .*no certificate of an authority/);
  });

  test('may have several issuers each', async () => {
    const both = realmsOf({ all: puppet.pem + lab.pem });
    const { principal } = identityOf(await judge(lab, { subject: 'CN=web1' }, both));
    expect(principal.realm).toBe('all');
  });

  test('that change are judged by at once, without a new handshake, and a broken change changes nothing', async () => {
    const by = realmsOf({ puppet: puppet.pem, lab: lab.pem });
    const web1 = identityOf(await judge(puppet, { subject: 'CN=web1' }, by));
    expect(by.judgeAgain(web1, Date.now())).toEqual({ ok: true, identity: web1 });
    const before = by.version;
    await expect(by.replace(pinning({ puppet: 'nothing' }), Date.now())).rejects.toThrow(
      /no PEM certificate/,
    );
    expect(by.version).toBe(before);
    await by.replace(pinning({ lab: lab.pem }), Date.now());
    expect(by.version).not.toBe(before);
    expect(problemOf(by.judgeAgain(web1, Date.now()))).toContain('its realm is no more');
    const other = await makeAuthority('CN=Puppet CA');
    await by.replace(pinning({ puppet: other.pem }), Date.now());
    expect(problemOf(by.judgeAgain(web1, Date.now()))).toContain('no CA of its realm any more');
  });
});

/** A realm with a revocation list in a file that the test writes. */
class Listed {
  text: string | undefined;
  version = 0;
  readonly problems: string[] = [];
  readonly realms: Realms;

  constructor(issuer: string) {
    const document = { tls: { issuer, identity: 'cn' as const, crl: '/crl.pem' } };
    const files: FileReader = {
      version: () => (this.text === undefined ? undefined : String(this.version)),
      read: () => {
        if (this.text === undefined) throw new Error('no such file');
        return this.text;
      },
    };
    const logger = {
      info() {},
      error: (fields: object) => {
        this.problems.push('problem' in fields ? String(fields.problem) : '');
      },
    };
    this.realms = new Realms({ puppet: document }, files, logger);
  }

  async write(text: string | undefined): Promise<void> {
    this.text = text;
    this.version += 1;
    await this.realms.look(Date.now());
  }
}

describe('a revocation list', () => {
  test('keeps out whom it names, whatever way the serial is written, and nobody else', async () => {
    const listed = new Listed(puppet.pem);
    const web1 = await issue(puppet, { subject: 'CN=web1' });
    const web2 = await issue(puppet, { subject: 'CN=web2' });
    await listed.write(
      await makeRevocationList(puppet, { revoked: [new X509Certificate(web1.cert).serialNumber] }),
    );
    expect(judgeLeaf(web1.cert, listed.realms)).toMatchObject({ ok: false, closeCode: 4503 });
    expect(judgeLeaf(web2.cert, listed.realms)).toMatchObject({ ok: true });
  });

  test('may name thousands', async () => {
    const listed = new Listed(puppet.pem);
    const revoked = Array.from({ length: 2600 }, (_, at) => (0x100000 + at).toString(16).padStart(8, '0'));
    const web1 = await issue(puppet, { subject: 'CN=web1' });
    await listed.write(await makeRevocationList(puppet, { revoked }));
    expect(listed.problems).toEqual([]);
    expect(judgeLeaf(web1.cert, listed.realms)).toMatchObject({ ok: true });
  });

  test('that cannot be used lets nobody in, with a close code to come back with, and the log says why', async () => {
    const other = await makeAuthority('CN=Other');
    const impostor = await makeAuthority('CN=Puppet CA');
    const files: (readonly [string | undefined, RegExp])[] = [
      [undefined, /no such file/],
      ['nothing', /holds no revocation list/],
      ['-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----', /cannot be read/],
      [await makeRevocationList(puppet, { from: -3, until: -1 }), /expired/],
      [await makeRevocationList(puppet, { from: 1, until: 2 }), /check the clocks/],
      [await makeRevocationList(impostor), /was not signed by the authority of that name/],
      [await makeRevocationList(other), /no list of an authority that the realm pins/],
      [
        await makeRevocationList(puppet, {
          extensions: [new x509.Extension('2.5.29.27', true, Buffer.from([2, 1, 1]))],
        }),
        /partial/,
      ],
    ];
    const web1 = await issue(puppet, { subject: 'CN=web1' });
    for (const [text, problem] of files) {
      const listed = new Listed(puppet.pem);
      expect(judgeLeaf(web1.cert, listed.realms)).toMatchObject({ ok: false });
      await listed.write(text);
      const verdict = judgeLeaf(web1.cert, listed.realms);
      expect(verdict).toMatchObject({ ok: false, closeCode: 4011 });
      expect(problemOf(verdict)).not.toContain('/crl.pem');
      expect(listed.problems.at(-1)).toMatch(problem);
    }
  });

  test('is needed of each authority up to the last that is pinned, in one file as Puppet writes it', async () => {
    const root = await makeAuthority('CN=Root');
    const signing = await makeAuthority('CN=Signing', root);
    const listed = new Listed(signing.pem + root.pem);
    const web1 = await issue(signing, { subject: 'CN=web1' });
    const ofSigning = await makeRevocationList(signing);
    await listed.write(ofSigning);
    expect(problemOf(judgeLeaf(web1.cert, listed.realms))).toMatch(/no list of .*CN=Root/);
    await listed.write(ofSigning + (await makeRevocationList(root, { from: -0.9 })));
    expect(judgeLeaf(web1.cert, listed.realms)).toMatchObject({ ok: true });
    const revoked = [new X509Certificate(signing.pem).serialNumber];
    await listed.write(ofSigning + (await makeRevocationList(root, { from: -0.8, revoked })));
    expect(judgeLeaf(web1.cert, listed.realms)).toMatchObject({ ok: false, closeCode: 4503 });
  });

  test('that replaces another counts from the next look on, for those who are connected too', async () => {
    const listed = new Listed(puppet.pem);
    const web1 = await issue(puppet, { subject: 'CN=web1' });
    await listed.write(await makeRevocationList(puppet, { from: -0.9 }));
    const identity = identityOf(judgeLeaf(web1.cert, listed.realms));
    const { version } = listed.realms;
    const { serialNumber } = new X509Certificate(web1.cert);
    await listed.write(await makeRevocationList(puppet, { from: -0.8, revoked: [serialNumber] }));
    expect(listed.realms.version).not.toBe(version);
    expect(listed.realms.judgeAgain(identity, Date.now())).toMatchObject({ ok: false, closeCode: 4503 });
  });

  test('that is broken or older leaves the one before in force', async () => {
    const listed = new Listed(puppet.pem);
    const web1 = await issue(puppet, { subject: 'CN=web1' });
    const { serialNumber } = new X509Certificate(web1.cert);
    await listed.write(await makeRevocationList(puppet, { from: -0.5, revoked: [serialNumber] }));
    for (const text of ['half', undefined, await makeRevocationList(puppet, { from: -0.9 })]) {
      await listed.write(text);
      expect(judgeLeaf(web1.cert, listed.realms)).toMatchObject({ ok: false, closeCode: 4503 });
    }
    expect(listed.problems).toHaveLength(2);
  });

  test('that has become too old keeps new ones out and those who are connected in', async () => {
    const listed = new Listed(puppet.pem);
    const web1 = await issue(puppet, { subject: 'CN=web1', notAfter: 20 });
    await listed.write(await makeRevocationList(puppet, { until: 1 }));
    const identity = identityOf(judgeLeaf(web1.cert, listed.realms));
    const laterMs = Date.now() + 2 * 3_600_000;
    expect(judgeLeaf(web1.cert, listed.realms, laterMs)).toMatchObject({ ok: false, closeCode: 4011 });
    expect(listed.realms.judgeAgain(identity, laterMs)).toMatchObject({ ok: true });
  });
});
