/** The policies of a snapshot in the cluster that is made of it: who gets in there, and as whom. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { readServerConfiguration } from '../../src/cli/server-files.ts';
import { Realms } from '../../src/gateway/identity.ts';
import { asLogIndex, asTerm, initialConfiguration } from '../../src/raft/index.ts';
import { canonicalJson, Revocations } from '../../src/scopes/index.ts';
import type { PolicyDocument, Revocation, Verb } from '../../src/scopes/index.ts';
import { MemoryDisk, openMemoryStorage, openStorage, SnapshotFileWriter } from '../../src/storage/index.ts';
import { Store } from '../../src/store/index.ts';
import type { Access, CommandBody, Subject } from '../../src/store/index.ts';
import { issue, makeAuthority } from '../gateway/certificates.ts';
import { nowMs, runCommand, temporaryDirectory } from './support/command.ts';

let directory: ReturnType<typeof temporaryDirectory>;
let oldId: string;
let policies: PolicyDocument;
const at = (...path: string[]): string => join(directory.path, ...path);
const run = (...commandLine: string[]) => runCommand(commandLine, { workingDirectory: directory.path });

const by: Subject = {
  principal: { realm: 'agents', name: 'admin' },
  credential: { realm: 'agents', name: 'admin' },
};

/** The policy file of init, as it is applied. */
beforeEach(async () => {
  directory = temporaryDirectory();
  const made = await run('init', 'old', '--servers', '1', '--json');
  oldId = (JSON.parse(made.stdout) as { clusterId: string }).clusterId;
  await run('cert', 'web1', '--dir', 'old');
  const file = parse(readFileSync(at('old', 'policy.yaml'), 'utf8')) as PolicyDocument;
  const issuer = readFileSync(at('old', 'ca', 'agents.pem'), 'utf8');
  policies = { ...file, realms: { agents: { ...file.realms['agents'], tls: { issuer, identity: 'cn' } } } };
});
afterEach(() => directory.remove());

interface Before {
  readonly document?: PolicyDocument;
  readonly revoked?: readonly Revocation[];
}

/** Saves what a cluster with these policies and revocations has. */
const save = async ({ document, revoked = [] }: Before): Promise<Store> => {
  const store = new Store({ clusterId: oldId });
  const applied: CommandBody[] =
    document === undefined ? [] : [{ kind: 'acl_apply', by, document: Buffer.from(canonicalJson(document)) }];
  const revoking = revoked.map((revocation): CommandBody => ({ kind: 'acl_revoke', by, revocation }));
  const commands = [...applied, ...revoking].map((body, number) => ({
    origin: { member: 1, run: 1, request: number + 1 },
    ...body,
  }));
  store.apply({ timeMs: nowMs, commands }, 1);
  const point = { index: asLogIndex(1), term: asTerm(1) };
  const identity = { clusterId: oldId, member: 1 };
  const storage = await openMemoryStorage({ disk: new MemoryDisk(), identity });
  await storage.write({
    hardState: { term: point.term, vote: undefined, commit: point.index },
    entries: [{ ...point, kind: 'empty', payload: new Uint8Array() }],
    stateWrites: store.takeStateWrites(),
    applied: point,
    sync: true,
  });
  const reader = await storage.openSnapshot(initialConfiguration([1]));
  const { epoch, revision } = store;
  const header = { clusterId: oldId, epoch, revision, savedAtMs: nowMs, ...point };
  const writer = await SnapshotFileWriter.create(at('backup'), header);
  for (let part = await reader.next(); part !== undefined; part = await reader.next()) await writer.add(part);
  await writer.finish();
  await reader.close();
  await storage.close();
  return store;
};

/** What the servers of the new cluster begin with. */
const accessOf = async (cluster: string): Promise<Access> => {
  const { dataDirectory, clusterId } = readServerConfiguration(at(cluster, 'server-1', 'server.yaml'));
  const storage = await openStorage({ directory: dataDirectory, identity: { clusterId, member: 1 } });
  const store = new Store({ clusterId });
  for await (const records of storage.readState()) store.load(records);
  store.finishLoad();
  await storage.close();
  if (store.access === undefined) throw new Error('the cluster decides nothing');
  return store.access;
};

/** 'realm:name' of the certificate in a file there, or why it is refused. */
const whoIs = ({ policies: compiled, revocations }: Access, pem: string): string => {
  const files = { version: () => undefined, read: () => '' };
  const realms = new Realms(compiled?.document.realms ?? {}, files, { info() {}, error() {} });
  const proof = realms.prove(new X509Certificate(pem));
  if (proof?.ok !== true) return 'nobody';
  const verdict = realms.judge({ certificate: proof.proved }, nowMs, 'fresh');
  if (!verdict.ok) return verdict.problem;
  const { principal, credential } = verdict.identity;
  const revoked = new Revocations(revocations.map(({ revocation }) => revocation)).find(credential);
  return revoked === undefined ? `${principal.realm}:${principal.name}` : 'revoked';
};
const file = (...path: string[]): string => readFileSync(at(...path), 'utf8');

const may = ({ policies: compiled }: Access, who: string, verb: Verb): boolean => {
  const [realm = '', name = ''] = who.split(':');
  return compiled?.scopeFor({ realm, name }).allows(verb, '') === true;
};

const restored = async (): Promise<{ readonly access: Access; readonly said: string }> => {
  const outcome = await run('snapshot', 'restore', 'backup', 'new', '--servers', '1', '--port', '9000');
  expect(outcome).toMatchObject({ code: 0, stderr: '' });
  return { access: await accessOf('new'), said: outcome.stdout };
};

const thingsNeeded = ['cluster.status', 'acl.get', 'acl.change'] as const;

describe('a restore of a snapshot with policies', () => {
  test('lets the new administrator in, agents with what they have, and those who get new certificates', async () => {
    const before = await save({ document: policies });
    const { access, said } = await restored();
    expect(whoIs(access, file('new', 'admin.pem'))).toBe('agents:admin');
    for (const verb of thingsNeeded) expect(may(access, 'agents:admin', verb)).toBe(true);
    expect(whoIs(access, file('old', 'agents', 'web1.pem'))).toBe('agents:web1');
    await run('cert', 'web2', '--dir', 'new');
    expect(whoIs(access, file('new', 'agents', 'web2.pem'))).toBe('agents:web2');
    // A document has one revision, and this is another one.
    expect(access.revision).toBe(before.revision + 1);
    expect(said).toContain(`count on (revision ${access.revision} now)`);
    expect(said).toContain('changed in them: the realm agents accepts certificates of the new authority');
    expect(said).toContain(`${at('new', 'ca', 'servers.pem')} as their ca`);
    expect({ ...access.policies?.document, realms: {} }).toEqual({ ...policies, realms: {} });
  });

  test('finds the authority again where the cluster was restored before', async () => {
    await save({ document: policies });
    const { access } = await restored();
    const restoredId = readServerConfiguration(at('new', 'server-1', 'server.yaml')).clusterId;
    oldId = restoredId;
    await save({ document: access.policies?.document ?? policies });
    const again = await run('snapshot', 'restore', 'backup', 'newer', '--servers', '1');
    expect(again.code).toBe(0);
    const now = await accessOf('newer');
    for (const cluster of ['old', 'new', 'newer'])
      expect(whoIs(now, file(cluster, 'admin.pem'))).toBe('agents:admin');
  });

  test('that know no authority of ours has a realm of its own for the administrator', async () => {
    const puppet = await makeAuthority('CN=Puppet CA');
    const realms = { puppet: { tls: { issuer: puppet.pem, identity: 'cn' as const }, vars: { node: 'cn' } } };
    const bindings = [{ realm: 'puppet', policies: ['agent'] }];
    await save({ document: { ...policies, realms, bindings } });
    const { access, said } = await restored();
    const admin = whoIs(access, file('new', 'admin.pem'));
    expect(admin).toMatch(/^restored-[0-9a-f]{8}:admin$/);
    for (const verb of thingsNeeded) expect(may(access, admin, verb)).toBe(true);
    expect(may(access, admin.replace('admin', 'web1'), 'cluster.status')).toBe(false);
    const agent = await issue(puppet, { subject: 'CN=web1', notBefore: -24 * 365 * 10 });
    expect(whoIs(access, agent.cert)).toBe('puppet:web1');
    expect(said).toContain('which the policies say nothing of yet');
  });

  test('that give an administrator of this name nothing give it what it takes to get in', async () => {
    const [all] = policies.bindings;
    await save({ document: { ...policies, bindings: all === undefined ? [] : [all] } });
    const { access, said } = await restored();
    for (const verb of thingsNeeded) expect(may(access, 'agents:admin', verb)).toBe(true);
    expect(may(access, 'agents:admin', 'snapshot.save')).toBe(false);
    expect(said).toMatch(/the policy restored-[0-9a-f]{8} is new: it lets agents:admin/);
  });

  test.each([
    ['is revoked there', {}, [{ kind: 'principal', realm: 'agents', name: 'admin' }]],
    ['would need to be in a list of revoked certificates', { crl: '/crl.pem' }, []],
  ] as const)('lets the administrator in by a realm of its own where it %s', async (_why, more, revoked) => {
    const { agents } = policies.realms;
    if (agents?.tls === undefined) throw new Error('init has written no realm');
    const realms = { agents: { ...agents, tls: { ...agents.tls, ...more } } };
    await save({ document: { ...policies, realms }, revoked });
    const { access } = await restored();
    const admin = whoIs(access, file('new', 'admin.pem'));
    expect(admin).toMatch(/^restored-[0-9a-f]{8}:admin$/);
    for (const verb of thingsNeeded) expect(may(access, admin, verb)).toBe(true);
  });

  test.each([
    ['denied to all', [{ policies: ['never'] }], []],
    [
      'revoked, and there are no policies',
      undefined,
      [{ kind: 'principal', realm: 'agents', name: 'admin' }],
    ],
  ] as const)(
    'is refused where the administrator is %s, and says what to do',
    async (_why, more, revoked) => {
      const document = more && {
        ...policies,
        policies: { ...policies.policies, never: [{ deny: ['acl.change'] }] },
        bindings: [...policies.bindings, ...more],
      };
      await save({ ...(document && { document }), revoked });
      const refused = await run('snapshot', 'restore', 'backup', 'new', '--servers', '1');
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('--file-policies') });
      const without = await run('snapshot', 'restore', 'backup', 'new', '--servers', '1', '--file-policies');
      expect(without.code).toBe(0);
      expect(without.stdout).toContain('policy.yaml is the one that init writes');
    },
  );

  test('keeps revocations, of agents with certificates of either authority', async () => {
    await save({ document: policies, revoked: [{ kind: 'principal', realm: 'agents', name: 'web1' }] });
    const { access } = await restored();
    expect(whoIs(access, file('old', 'agents', 'web1.pem'))).toBe('revoked');
    await run('cert', 'web1', '--dir', 'new');
    expect(whoIs(access, file('new', 'agents', 'web1.pem'))).toBe('revoked');
  });
});
