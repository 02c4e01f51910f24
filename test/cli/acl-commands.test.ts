import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { initCluster } from '../../src/cli/authority/cluster-directory.ts';
import type { AccessState } from '../../src/protocol/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { canonicalJson, type PolicyDocument } from '../../src/scopes/index.ts';
import { nowMs, runCommand, temporaryDirectory } from './support/command.ts';

const directory = temporaryDirectory();
const file = join(directory.path, 'cluster', 'policy.yaml');

beforeAll(async () => {
  const plan = { directory: join(directory.path, 'cluster'), servers: 1, hosts: [], basePort: 7421, nowMs };
  await initCluster(plan);
});
afterAll(() => directory.remove());

const document: PolicyDocument = {
  realms: {
    agents: { tls: { issuer: '-----BEGIN CERTIFICATE-----', identity: 'cn' }, vars: { node: 'cn' } },
  },
  policies: {
    agent: [
      { allow: ['get'], on: 'nodes/${node}/**' },
      { deny: ['get'], on: 'nodes/*/secret' },
    ],
  },
  bindings: [{ realm: 'agents', policies: ['agent'] }],
};
const state: AccessState = {
  revision: 12,
  document: Buffer.from(canonicalJson(document)),
  revocations: [
    {
      revocation: { kind: 'certificate', realm: 'agents', serial: 'ab12' },
      revision: 13,
      untilMs: undefined,
    },
    {
      revocation: { kind: 'issued_before', realm: 'agents', atMs: nowMs },
      revision: 14,
      untilMs: nowMs + 1000,
    },
  ],
};
const none: AccessState = { revision: 0, document: new Uint8Array(), revocations: [] };
const access = (given: AccessState) => ({ access: () => Promise.resolve(given) });
const changed = () => Promise.resolve({ revision: 15, unchanged: false });

describe('acl check', () => {
  test.each([
    [['nodes/web1/out'], 'may get nodes/web1/out: policies.agent[0] allows it on nodes/${node}/**'],
    [['nodes/web1/secret'], 'may not get nodes/web1/secret: policies.agent[1] denies it on nodes/*/secret'],
    [['nodes/web2/out'], 'may not get nodes/web2/out: no policy allows it'],
  ])('says of %j which rule decides', async (key, line) => {
    const outcome = await runCommand(['acl', 'check', '--as', 'agents:web1', 'get', ...key], {
      client: access(state),
    });
    expect(outcome).toMatchObject({ code: 0, stdout: `agents:web1 ${line}\n` });
  });

  test('asks a policy file, without a cluster', async () => {
    const outcome = await runCommand(
      ['acl', 'check', '--policy', file, '--as', 'agents:admin', 'acl.change', '--json'],
      {},
    );
    expect(JSON.parse(outcome.stdout)).toMatchObject({
      allowed: true,
      rule: { policy: 'admin', effect: 'allow' },
    });
    expect(outcome.profiles).toEqual([]);
  });

  test('refuses what could be nobody, no verb and no pattern', async () => {
    const ask = (...args: string[]) => runCommand(['acl', 'check', ...args], { client: access(state) });
    expect(await ask('--as', 'nobody', 'get', 'a')).toMatchObject({ code: 2 });
    expect(await ask('--as', 'agents:web1', 'dance', 'a')).toMatchObject({ code: 2 });
    expect(await ask('--as', 'agents:web1', 'get')).toMatchObject({ code: 2 });
  });

  test('says where there are no policies that only the files count', async () => {
    const outcome = await runCommand(['acl', 'check', '--as', 'agents:web1', 'get', 'a'], {
      client: access(none),
    });
    expect(outcome.code).toBe(8);
    expect(outcome.stderr).toContain('policy file counts');
  });
});

describe('acl test', () => {
  const expectations = join(directory.path, 'expectations.yaml');
  const write = (text: string): void => writeFileSync(expectations, text);

  test('runs a file of expectations, and fails with each that is not met', async () => {
    write(
      '- { as: "agents:web1", verb: get, on: nodes/web1/x, expect: allow }\n' +
        '- { as: "agents:web1", verb: get, on: nodes/web1/secret, expect: allow }\n',
    );
    const outcome = await runCommand(['acl', 'test', expectations], { client: access(state) });
    expect(outcome.code).toBe(1);
    expect(outcome.stdout).toBe(
      'agents:web1 get nodes/web1/secret: expected allow, but policies.agent[1] denies it on nodes/*/secret\n' +
        '1 of 2 expectations are met\n',
    );
    write('- { as: "agents:web1", verb: get, on: nodes/web1/x, expect: allow }\n');
    expect(await runCommand(['acl', 'test', expectations], { client: access(state) })).toMatchObject({
      code: 0,
    });
  });

  test.each([
    ['- { as: "agents:web1", verb: get, on: a, expect: maybe }', 'must be allow or deny'],
    ['- { as: "agents:web1", verb: get, expect: allow, more: 1 }', 'more'],
    ['- { as: "lab:web1", verb: get, on: a, expect: allow }', 'lab'],
    ['realms: {}', 'must be a list'],
  ])('names what is wrong with %j', async (text, problem) => {
    write(text);
    const outcome = await runCommand(['acl', 'test', expectations], { client: access(state) });
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toContain(problem);
  });
});

describe('acl apply', () => {
  test('sends the certificates themselves, shows what changes, and builds on what was shown', async () => {
    const outcome = await runCommand(['acl', 'apply', file], {
      client: { ...access(state), applyPolicies: changed },
    });
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    expect(outcome.stdout).toContain('+ policies.admin');
    expect(outcome.stdout).toContain('- policies.agent[1] {"deny":["get"],"on":"nodes/*/secret"}');
    expect(outcome.stdout).not.toContain('BEGIN CERTIFICATE-----\\n');
    expect(outcome.stdout.trimEnd().split('\n').at(-1)).toBe(
      'the policies count on all servers now (revision 15)',
    );
    const [, sent, options] = outcome.calls.find(([method]) => method === 'applyPolicies') ?? [];
    const applied = JSON.parse(Buffer.from(sent as Uint8Array).toString()) as PolicyDocument;
    const pem = readFileSync(join(directory.path, 'cluster', 'ca', 'agents.pem'), 'utf8');
    expect(applied.realms['agents']?.tls?.issuer).toBe(pem);
    expect(options).toMatchObject({ ifRevision: 12, force: false });
  });

  test('takes no path of a revocation list that is not the same on all servers', async () => {
    const other = join(directory.path, 'cluster', 'with-list.yaml');
    const text = readFileSync(file, 'utf8').replace(
      'identity: cn }',
      'identity: cn, crl: lists/agents.crl }',
    );
    writeFileSync(other, text);
    const outcome = await runCommand(['acl', 'apply', other], { client: access(none) });
    expect(outcome).toMatchObject({ code: 2 });
    expect(outcome.stderr).toContain('lists/agents.crl');
  });

  test('passes on why the cluster refuses', async () => {
    const refused = () => Promise.reject(new FuturestoreError('ACCESS_REFUSED', 'you would be locked out'));
    const outcome = await runCommand(['acl', 'apply', file], {
      client: { ...access(none), applyPolicies: refused },
    });
    expect(outcome).toMatchObject({ code: 7 });
    expect(outcome.stderr).toContain('locked out');
  });
});

test('acl diff shows the differences and changes nothing', async () => {
  const outcome = await runCommand(['acl', 'diff', file, '--json'], { client: access(state) });
  expect(JSON.parse(outcome.stdout)).toMatchObject({ revision: 12, changes: expect.any(Array) });
  expect(outcome.calls.map(([method]) => method)).toEqual(['access', 'close']);
});

test('acl get prints the policies as they can be applied again', async () => {
  const outcome = await runCommand(['acl', 'get'], { client: access(state) });
  expect(outcome.stdout).toContain('# revision 12\n');
  const again = join(directory.path, 'again.yaml');
  writeFileSync(again, outcome.stdout);
  const shown = await runCommand(['acl', 'diff', again], { client: access(state) });
  expect(shown).toMatchObject({ code: 0, stdout: 'no differences\n' });
});

describe('acl revoke and restore', () => {
  test.each([
    [['agents:web1'], { kind: 'principal', realm: 'agents', name: 'web1' }],
    [['agents', '--serial', '0A:BC'], { kind: 'certificate', realm: 'agents', serial: 'abc' }],
    [['ci', '--token', 'id-1'], { kind: 'token', realm: 'ci', tokenId: 'id-1' }],
    [
      ['agents:web1', '--issued-before', '2026-01-02T03:04:05Z'],
      { kind: 'issued_before', realm: 'agents', name: 'web1', atMs: nowMs },
    ],
    [
      ['agents', '--issued-before', '2026-01-02T03:04:05Z'],
      { kind: 'issued_before', realm: 'agents', atMs: nowMs },
    ],
  ])('of %j', async (args, revocation) => {
    const revoked = await runCommand(['acl', 'revoke', ...args], { client: { revoke: changed } });
    expect(revoked.calls[0]).toEqual(['revoke', revocation, { timeoutMs: 30_000 }]);
    expect(revoked.stdout).toMatch(/is revoked \(revision 15\)\n$/);
    const restored = await runCommand(['acl', 'restore', ...args], { client: { restore: changed } });
    expect(restored.calls[0]).toEqual(['restore', revocation, { timeoutMs: 30_000 }]);
  });

  test.each([
    [['agents']],
    [['agents:web1', '--serial', 'ab']],
    [['agents', '--serial', 'xyz']],
    [['agents', '--serial', 'ab', '--token', 'x']],
    [['agents', '--issued-before', 'yesterday']],
    [['agents', '--issued-before', '5']],
    [['agents', '--issued-before', '2026-01-02T03:04:05']],
    [['agents', '--issued-before', '2026-13-02T03:04:05Z']],
    [['agents:web1', '--until', '2028-01-01 00:00']],
  ])('refuses %j', async (args) => {
    expect(await runCommand(['acl', 'revoke', ...args], {})).toMatchObject({ code: 2 });
  });

  test('of all that was issued before now means this second, and a later instant is warned of', async () => {
    const revoke = (instant: string) =>
      runCommand(['acl', 'revoke', 'agents:web1', '--issued-before', instant], {
        client: { revoke: changed },
      });
    const revocation = { kind: 'issued_before', realm: 'agents', name: 'web1', atMs: nowMs };
    const now = await revoke('now');
    expect(now.calls[0]).toEqual(['revoke', revocation, { timeoutMs: 30_000 }]);
    expect(now).toMatchObject({ code: 0, stderr: '' });
    const coming = await revoke('2026-01-02T03:04:05.001Z');
    expect(coming.calls[0]).toEqual(['revoke', { ...revocation, atMs: nowMs + 1 }, { timeoutMs: 30_000 }]);
    expect(coming).toMatchObject({ code: 0, stderr: expect.stringContaining('is to come') });
  });

  test('all of them are listed', async () => {
    const outcome = await runCommand(['acl', 'revocations'], { client: access(state) });
    expect(outcome.stdout).toBe(
      [
        'REVOKED                                               REVISION  UNTIL',
        'certificate ab12 of agents                            13        -',
        'all of agents issued before 2026-01-02T03:04:05.000Z  14        2026-01-02T03:04:06.000Z',
        '',
      ].join('\n'),
    );
  });
});
