import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { createAuthority, issueLeaf } from '../../src/cli/authority/certificates.ts';
import { initCluster, issueAgentCertificate } from '../../src/cli/authority/cluster-directory.ts';
import { parseServerConfiguration } from '../../src/cli/configuration/server-configuration.ts';
import { clusterVerbs, compilePolicies, Revocations } from '../../src/scopes/index.ts';
import type { Credential, PolicyDocument, Revocation } from '../../src/scopes/index.ts';
import { nowMs, runCommand, temporaryDirectory } from './support/command.ts';

const dayMs = 24 * 3600 * 1000;
const directory = temporaryDirectory();
const cluster = join(directory.path, 'cluster');
const plan = { servers: 3, hosts: [] as string[], basePort: 7421, nowMs };

const text = (...path: string[]): string => readFileSync(join(cluster, ...path), 'utf8');
const certificate = (...path: string[]): X509Certificate => new X509Certificate(text(...path));

beforeAll(async () => {
  await initCluster({ ...plan, directory: cluster });
});
afterAll(() => directory.remove());

const filesBelow = (path: string): string[] =>
  readdirSync(path, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory()
      ? [join(path, entry.name), ...filesBelow(join(path, entry.name))]
      : [join(path, entry.name)],
  );

describe('init', () => {
  test('private keys are for their owner only, and so are directories', () => {
    const files = filesBelow(cluster);
    const mode = (file: string): number => statSync(file).mode & 0o777;
    const keys = files.filter((file) => file.endsWith('.key'));
    expect(keys).toHaveLength(2 + 3 * 2 + 1);
    for (const key of keys) expect([key, mode(key)]).toEqual([key, 0o600]);
    const directories = [cluster, ...files.filter((file) => statSync(file).isDirectory())];
    for (const path of directories) expect([path, mode(path)]).toEqual([path, 0o700]);
    expect(files.filter((file) => file.endsWith('.new'))).toEqual([]);
  });

  test('every certificate is signed by its authority, and has its own key', () => {
    const servers = certificate('ca', 'servers.pem');
    const agents = certificate('ca', 'agents.pem');
    for (const authority of [servers, agents]) {
      expect(authority.ca).toBe(true);
      expect(authority.verify(authority.publicKey)).toBe(true);
    }
    const leaves = [1, 2, 3].flatMap((id) => [`server-${id}/server`, `server-${id}/peer`]);
    for (const name of [...leaves, 'admin']) {
      const leaf = certificate(`${name}.pem`);
      const [signer, stranger] = name === 'admin' ? [agents, servers] : [servers, agents];
      expect(leaf.checkIssued(signer) && leaf.verify(signer.publicKey)).toBe(true);
      expect(leaf.verify(stranger.publicKey)).toBe(false);
      expect(leaf.checkPrivateKey(createPrivateKey(text(`${name}.key`)))).toBe(true);
      expect(leaf.ca).toBe(false);
      expect(leaf.publicKey.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' });
    }
    const serials = [...leaves, 'admin'].map((name) => certificate(`${name}.pem`).serialNumber);
    expect(new Set(serials).size).toBe(serials.length);
  });

  test('a certificate can do what it is for and nothing else', () => {
    const [serverAuth, clientAuth] = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'];
    expect(certificate('server-1', 'server.pem').keyUsage).toEqual([serverAuth]);
    expect(certificate('server-1', 'peer.pem').keyUsage).toEqual([serverAuth, clientAuth]);
    expect(certificate('admin.pem').keyUsage).toEqual([clientAuth]);
    expect(certificate('server-2', 'peer.pem').subject).toBe('CN=server-2');
    expect(certificate('admin.pem').subject).toBe('CN=admin');
    for (const name of ['server.pem', 'peer.pem']) {
      const leaf = certificate('server-1', name);
      expect(leaf.checkIP('127.0.0.1') ?? leaf.checkIP('::1')).toBeDefined();
      expect(leaf.checkIP('::1')).toBeDefined();
      expect(leaf.checkHost('localhost')).toBeDefined();
      expect(leaf.checkHost('elsewhere')).toBeUndefined();
    }
    expect(certificate('admin.pem').subjectAltName).toBeUndefined();
  });

  test('authorities live ten years, leaves 825 days', () => {
    const daysOf = (leaf: X509Certificate): number => (Date.parse(leaf.validTo) - nowMs) / dayMs;
    expect(Math.round(daysOf(certificate('ca', 'servers.pem')))).toBe(3653);
    expect(Math.round(daysOf(certificate('server-1', 'server.pem')))).toBe(825);
  });

  test("those that others judge by TLS are good where a clock is behind, a client's says when it was issued", () => {
    const backdated = [
      ['ca', 'agents.pem'],
      ['ca', 'servers.pem'],
      ['server-1', 'server.pem'],
      ['server-1', 'peer.pem'],
    ];
    for (const file of backdated) expect(Date.parse(certificate(...file).validFrom)).toBe(nowMs - 3_600_000);
    expect(Date.parse(certificate('admin.pem').validFrom)).toBe(nowMs);
  });

  test('every server.yaml is valid, of one cluster, on ports of its own', () => {
    const configurations = [1, 2, 3].map((id) => {
      const file = join(cluster, `server-${id}`, 'server.yaml');
      return parseServerConfiguration(readFileSync(file, 'utf8'), file);
    });
    expect(new Set(configurations.map(({ clusterId }) => clusterId)).size).toBe(1);
    expect(configurations.map(({ self }) => self)).toEqual(configurations[0]?.members);
    const ports = configurations.map(({ agents, peers, adminListen }) => [
      agents.listen.port,
      peers.listen.port,
      adminListen.port,
    ]);
    expect(ports).toEqual([
      [7421, 7431, 7441],
      [7422, 7432, 7442],
      [7423, 7433, 7443],
    ]);
    for (const { agents, peers, policyFile } of configurations) {
      for (const file of [agents.cert, agents.key, peers.ca, peers.cert, peers.key, policyFile]) {
        expect(statSync(file).isFile()).toBe(true);
      }
    }
  });

  test('the policies let an agent work in its own scope, and the administrator everywhere', () => {
    const document = parse(text('policy.yaml')) as PolicyDocument;
    expect(statSync(join(cluster, document.realms['agents']?.tls?.issuer ?? '')).isFile()).toBe(true);
    const policies = compilePolicies(document);
    const web1 = policies.scopeFor({ realm: 'agents', name: 'web1' });
    for (const verb of ['get', 'await', 'list', 'subscribe'] as const) {
      expect([verb, web1.allows(verb, 'nodes/web1/x'), web1.allows(verb, 'shared/x')]).toEqual([
        verb,
        true,
        true,
      ]);
      expect([verb, web1.allows(verb, 'nodes/web10/x'), web1.allows(verb, 'other/x')]).toEqual([
        verb,
        false,
        false,
      ]);
    }
    for (const verb of ['declare', 'resolve', 'reject', 'touch', 'delete'] as const) {
      expect([verb, web1.allows(verb, 'nodes/web1/out/x')]).toEqual([verb, true]);
      const elsewhere = ['nodes/web1/in/x', 'nodes/web2/out/x', 'shared/x'].map((key) =>
        web1.allows(verb, key),
      );
      expect([verb, ...elsewhere]).toEqual([verb, false, false, false]);
    }
    for (const verb of clusterVerbs) expect([verb, web1.allows(verb, '')]).toEqual([verb, false]);
    const admin = policies.scopeFor({ realm: 'agents', name: 'admin' });
    expect(admin.allows('resolve', 'anything/at/all')).toBe(true);
    for (const verb of clusterVerbs) expect([verb, admin.allows(verb, '')]).toEqual([verb, true]);
  });

  test('a cluster is never overwritten', async () => {
    const before = text('admin.key');
    const outcome = await runCommand(['init', cluster]);
    expect(outcome).toMatchObject({ code: 2, stdout: '' });
    expect(outcome.stderr).toContain('holds a cluster already');
    expect(text('admin.key')).toBe(before);
  });

  test('what an interrupted init left is not overwritten either, and said to be so', async () => {
    const half = join(directory.path, 'half');
    mkdirSync(join(half, 'ca'), { recursive: true });
    const outcome = await runCommand(['init', half]);
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toContain('holds parts of a cluster (ca) but no admin.yaml');
  });

  test('a directory with other files is as good as a new one', async () => {
    const used = join(directory.path, 'used');
    mkdirSync(used);
    writeFileSync(join(used, 'README'), '');
    expect(await runCommand(['init', used, '--servers', '1'])).toMatchObject({ code: 0, stderr: '' });
  });

  test('hosts are in the certificates, and where servers are reached', async () => {
    const hosts = ['fs1.example.com', '10.1.2.3', '2001:db8::7'];
    const spread = join(directory.path, 'spread');
    await initCluster({ ...plan, directory: spread, hosts });
    const file = join(spread, 'server-3', 'server.yaml');
    const configuration = parseServerConfiguration(readFileSync(file, 'utf8'), file);
    expect(configuration.members.map(({ agents }) => agents)).toEqual([
      'wss://fs1.example.com:7421',
      'wss://10.1.2.3:7422',
      'wss://[2001:db8::7]:7423',
    ]);
    expect(configuration.self.peers).toEqual({ host: '2001:db8::7', port: 7433 });
    expect(configuration.agents.listen.host).toBe('0.0.0.0');
    expect(configuration.adminListen.host).toBe('127.0.0.1');
    const leaf = new X509Certificate(readFileSync(join(spread, 'server-3', 'server.pem')));
    expect(
      leaf.checkHost('fs1.example.com') && leaf.checkIP('10.1.2.3') && leaf.checkIP('2001:db8::7'),
    ).toBeTruthy();
  });

  test('--json says what was made', async () => {
    const made = join(directory.path, 'json');
    const outcome = await runCommand(['init', made, '--servers', '1', '--port', '9000', '--json']);
    expect(JSON.parse(outcome.stdout)).toEqual({
      clusterId: expect.stringMatching(/^[0-9a-f]{32}$/) as unknown,
      adminProfile: join(made, 'admin.yaml'),
      serverConfigurations: [join(made, 'server-1', 'server.yaml')],
    });
  });
});

describe('cert', () => {
  const issue = (name: string, ...options: string[]) =>
    runCommand(['cert', name, '--dir', cluster, ...options]);

  test('gives an agent four files that work wherever they are together', async () => {
    expect(await issue('web1.example.com')).toMatchObject({ code: 0, stderr: '' });
    const at = (ending: string) => ['agents', `web1.example.com.${ending}`] as const;
    const profile = parse(text(...at('yaml'))) as Record<string, unknown>;
    expect(profile).toEqual({
      endpoints: ['wss://127.0.0.1:7421', 'wss://127.0.0.1:7422', 'wss://127.0.0.1:7423'],
      ca: 'web1.example.com.ca',
      cert: 'web1.example.com.pem',
      key: 'web1.example.com.key',
    });
    expect(statSync(join(cluster, ...at('key'))).mode & 0o777).toBe(0o600);
    const leaf = certificate(...at('pem'));
    expect(leaf.subject).toBe('CN=web1.example.com');
    expect(leaf.verify(certificate('ca', 'agents.pem').publicKey)).toBe(true);
    const server = certificate('server-1', 'server.pem');
    expect(server.verify(certificate(...at('ca')).publicKey)).toBe(true);
  });

  test('a name has one certificate, until it is to be reissued', async () => {
    expect(await issue('twice')).toMatchObject({ code: 0 });
    const first = text('agents', 'twice.pem');
    const again = await issue('twice');
    expect(again.code).toBe(2);
    expect(again.stderr).toContain('twice has a certificate already');
    expect(text('agents', 'twice.pem')).toBe(first);
    expect(await issue('twice', '--force-reissue')).toMatchObject({ code: 0 });
    expect(text('agents', 'twice.pem')).not.toBe(first);
  });

  test('issues what works at once after all that was issued before has been revoked', async () => {
    const leaf = (): Credential => {
      const { validFrom, serialNumber } = new X509Certificate(
        readFileSync(join(cluster, 'agents', 'late.pem')),
      );
      const certificate = { serial: serialNumber.toLowerCase(), issuedAtMs: Date.parse(validFrom) };
      return { realm: 'agents', name: 'late', certificate };
    };
    const issueAt = async (issuedAtMs: number): Promise<Credential> => {
      await issueAgentCertificate({ directory: cluster, name: 'late', reissue: true, nowMs: issuedAtMs });
      return leaf();
    };
    const revoked: unknown[] = [];
    const client = {
      revoke: (revocation: unknown) => {
        revoked.push(revocation);
        return Promise.resolve({ revision: 5, unchanged: false });
      },
    };
    const before = await issueAt(nowMs - 1000);
    await runCommand(['acl', 'revoke', 'agents:late', '--issued-before', 'now'], { client });
    const revocations = new Revocations(revoked as Revocation[]);
    expect(revocations.find(before)).toBeDefined();
    // Also where the second is not over yet: certificates know whole ones.
    for (const ms of [0, 999, 1000]) expect(revocations.find(await issueAt(nowMs + ms))).toBeUndefined();
  });

  test('the administrator is no agent, but can be renewed', async () => {
    const before = text('admin.pem');
    const outcome = await issue('admin');
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toContain('the name admin is reserved');
    expect(text('admin.pem')).toBe(before);
    expect(await issue('admin', '--force-reissue')).toMatchObject({ code: 0 });
    expect(text('admin.pem')).not.toBe(before);
    expect(certificate('admin.pem').subject).toBe('CN=admin');
    expect(readdirSync(join(cluster, 'agents')).some((name) => name.startsWith('admin'))).toBe(false);
  });

  test.each([
    '',
    '.',
    '..',
    'a/b',
    '../x',
    '*',
    '**',
    '${node}',
    'a b',
    'ü',
    'x'.repeat(65),
    'a,CN=admin',
    'a+CN=admin',
    'a\nb',
  ])('pitfall 50: %j is no name', async (name) => {
    const outcome = await issue(name);
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toMatch(/^futurestore: the name [^\n]+\n$/);
  });

  test('a name with every character that a segment may have is one common name', async () => {
    const name = 'A9._~@:=-z';
    await issueAgentCertificate({ directory: cluster, name, reissue: false, nowMs });
    expect(certificate('agents', `${name}.pem`).toLegacyObject().subject).toEqual({ CN: name });
  });

  test('a directory without a cluster is refused', async () => {
    const outcome = await runCommand(['cert', 'web1', '--dir', join(directory.path, 'nowhere')]);
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toMatch(
      /cannot read .*agents\.pem: give the directory that futurestore init made/,
    );
  });

  test('an authority whose key is of another is refused before it signs', async () => {
    const one = await createAuthority('one', nowMs);
    const two = await createAuthority('two', nowMs);
    const mixed = { certificate: one.certificate, privateKey: two.privateKey };
    const leaf = { commonName: 'x', hosts: [], server: false, client: true };
    await expect(issueLeaf(mixed, leaf, nowMs)).rejects.toThrow(/private key is not that of its certificate/);
  });

  test('the agents directory is made again when it is gone', async () => {
    rmSync(join(cluster, 'agents'), { recursive: true });
    expect(await issue('later')).toMatchObject({ code: 0 });
    expect(statSync(join(cluster, 'agents')).mode & 0o777).toBe(0o700);
  });
});
