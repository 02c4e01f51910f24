/** The audit as README.md lists it: each kind of line comes about, with the fields that stand there and no others. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { compilePolicies } from '../../src/scopes/index.ts';
import type { PolicyDocument, Revocation } from '../../src/scopes/index.ts';
import type { AnswerBody, RequestBody } from '../../src/protocol/index.ts';
import type { Subject } from '../../src/store/index.ts';
import { changeLine } from '../../src/server/change-lines.ts';
import { issue, makeRevocationList } from './certificates.ts';
import { hello, openSession, policyDocument, startGateway, theWorld } from './harness.ts';
import type { Rig, TestAgent } from './harness.ts';
import { token, tokenKey, tokenRealm } from './token-issuer.ts';
import type { TokenKey } from './token-issuer.ts';

type Line = Readonly<Record<string, unknown>>;

const fieldsOf = (line: Line): string[] =>
  Object.entries(line)
    .filter(([name, value]) => value !== undefined && name !== 'audit')
    .map(([name]) => name);

/** README's table: the fields of each kind of line. */
const documented = (): ReadonlyMap<string, readonly string[]> => {
  const found = /\| `audit` +\|[^\n]*\n[^\n]*\n((?:\|[^\n]*\n)+)/.exec(
    readFileSync('README.md', 'utf8'),
  )?.[1];
  if (found === undefined) throw new Error('README.md has no table of the audit');
  const rows = found.trim().split('\n');
  return new Map(
    rows.map((row) => {
      const [, kind = '', , fields = ''] = row.split('|');
      return [kind.replaceAll(/[` ]/g, ''), [...fields.matchAll(/`(\w+)`/g)].map(([, name = '']) => name)];
    }),
  );
};

const auditOf = (rig: Rig, kind: string): Line[] =>
  rig.log.lines.map(({ fields }) => fields).filter(({ audit }) => audit === kind);

const operatorRules: PolicyDocument['policies'][string] = [
  { allow: ['cluster.status', 'cluster.drain', 'cluster.rebalance', 'member.list', 'member.change'] },
  { allow: ['snapshot.save', 'acl.get', 'acl.change'] },
  { allow: ['*'], on: 'nodes/**' },
];

let key: TokenKey;
let rig: Rig;
let crl = '';
const crlFile = '/puppet.crl';

beforeAll(async () => {
  key = await tokenKey();
});

const start = async (limits: Parameters<typeof startGateway>[0] = {}, withList = false): Promise<void> => {
  const world = await theWorld();
  const { web1, puppet } = world;
  const realm = {
    tls: { issuer: puppet.pem, identity: 'cn' as const, ...(withList && { crl: crlFile }) },
    vars: { node: 'cn' as const },
    ...tokenRealm([key.jwk]),
  };
  const base = policyDocument(world, { puppet: realm });
  const policies = compilePolicies({ ...base, policies: { ...base.policies, operator: operatorRules } });
  if (withList)
    crl = await makeRevocationList(puppet, { revoked: [new X509Certificate(web1.cert).serialNumber] });
  rig = await startGateway(limits, { policies, files: { version: () => '1', read: () => crl } });
};

afterEach(async () => {
  const known = documented();
  for (const { fields } of rig.log.lines) {
    const { audit } = fields;
    if (typeof audit === 'string')
      expect(known.get(audit) ?? []).toEqual(expect.arrayContaining(fieldsOf(fields)));
  }
  expect(JSON.stringify(rig.log.lines)).not.toContain('secret-value');
  await rig.close();
});

const web1: Revocation = { kind: 'principal', realm: 'puppet', name: 'web1' };

const revoke = (...revocations: readonly Revocation[]): void =>
  rig.gateway.deliver([{ kind: 'access', revision: 50, document: undefined, revocations }]);

const tokenOf = (sub: string, expiresIn = 600): Promise<string> =>
  token({ key: key.key, expiresIn, claims: { sub }, nowMs: rig.clock.wallMs() });

describe('who is not let in is told, with principal, reason and code', () => {
  const turnedAway = async (
    agent: TestAgent,
    code: number,
    principal: string,
    problem: RegExp,
  ): Promise<void> => {
    expect((await agent.closed).code).toBe(code);
    expect(auditOf(rig, 'turned_away')).toEqual([
      expect.objectContaining({
        code,
        principal,
        problem: expect.stringMatching(problem),
        remote: '127.0.0.1',
      }),
    ]);
    expect(rig.counts.all.filter((line) => line.startsWith('turned away'))).toHaveLength(1);
  };

  test('by an expired certificate', async () => {
    await start();
    const credentials = await issue(rig.world.puppet, { subject: 'CN=web1', notBefore: -2, notAfter: -1 });
    await turnedAway(await rig.agent({ credentials }), 4501, 'puppet:web1', /expired/);
  });

  test('by a revocation list', async () => {
    await start({}, true);
    await turnedAway(await rig.agent(), 4503, 'puppet:web1', /revoked/);
  });

  test('by a revocation of the cluster', async () => {
    await start();
    revoke(web1);
    await turnedAway(await rig.agent(), 4503, 'puppet:web1', /revoked/);
    expect(auditOf(rig, 'turned_away')[0]).toMatchObject({ connection: 1, stage: 'identity' });
  });

  test('by a certificate of an authority that no realm has', async () => {
    await start();
    const credentials = await issue(rig.world.stranger, { subject: 'CN=web1' });
    await expect(rig.agent({ credentials })).rejects.toThrow(/401/);
    expect(auditOf(rig, 'turned_away')).toEqual([
      expect.objectContaining({
        code: 401,
        principal: 'nobody',
        problem: expect.stringContaining('CN=web1'),
      }),
    ]);
  });

  test('by a certificate that names nobody', async () => {
    await start();
    const credentials = await issue(rig.world.puppet, { subject: 'CN=a/b' });
    await turnedAway(await rig.agent({ credentials }), 4501, 'nobody', /no segment/);
  });

  test('by a token that is not of the certificate it comes with', async () => {
    await start();
    const agent = await rig.agent();
    agent.send({ hello: { ...hello, token: await tokenOf('admin') }, requests: [] });
    await turnedAway(agent, 4501, 'puppet:web1', /puppet:web1 .*puppet:admin/);
  });

  test('by an expired token, whose signature says whose it was', async () => {
    await start();
    const agent = await rig.agent({ credentials: 'none' });
    agent.send({ hello: { ...hello, token: await tokenOf('web7', -100) }, requests: [] });
    await turnedAway(agent, 4001, 'puppet:web7', /expired/);
  });

  test('by neither a certificate nor a token', async () => {
    await start();
    const agent = await rig.agent({ credentials: 'none' });
    agent.send({ hello, requests: [] });
    await turnedAway(agent, 4501, 'nobody', /no token/);
  });

  test('because its principal has as many connections as it may', async () => {
    await start({ connectionsPerPrincipalMax: 1, turnedAwayLinesPerSecondMax: 1 });
    // Where it may have one, the newest counts.
    await rig.close();
    await start({ connectionsPerPrincipalMax: 2, turnedAwayLinesPerSecondMax: 1 });
    await rig.greeted();
    await rig.greeted();
    await turnedAway(await rig.agent(), 4031, 'puppet:web1', /has 2 connections/);
    await (
      await rig.agent()
    ).closed;
    rig.clock.advance(1_000);
    await (
      await rig.agent()
    ).closed;
    expect(auditOf(rig, 'turned_away')).toHaveLength(2);
    expect(auditOf(rig, 'turned_away')[1]).toMatchObject({ suppressed: 1 });
  });
});

describe('who is thrown out is told', () => {
  test('by a revocation of the cluster that comes later', async () => {
    await start();
    const agent = await rig.greeted();
    revoke(web1);
    await agent.closed;
    expect(auditOf(rig, 'revoked')).toMatchObject([
      { connection: 1, principal: 'puppet:web1', remote: '127.0.0.1', code: 4503 },
    ]);
  });

  test('by the end of its token, and one that does not renew it is refused and stays', async () => {
    await start({ silenceMs: Infinity });
    const agent = await rig.greeted({ credentials: 'none', token: await tokenOf('web7') });
    rig.clock.advance(2_000);
    const id = agent.request({ kind: 'authenticate', token: await tokenOf('web8') });
    expect(await agent.failure(id)).toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(auditOf(rig, 'refused')).toMatchObject([{ principal: 'puppet:web7', verb: 'authenticate' }]);
    expect(auditOf(rig, 'turned_away')).toEqual([]);
    rig.clock.advance(700_000);
    expect((await agent.closed).code).toBe(4001);
    expect(auditOf(rig, 'ended')).toMatchObject([
      { connection: 1, principal: 'puppet:web7', remote: '127.0.0.1', code: 4001 },
    ]);
  });
});

test('a request that is refused is told, by the gateway and by the log, and beyond so many a second only counted', async () => {
  await start({ auditLinesPerSecondMax: 2 });
  const agent = await rig.greeted();
  const get = agent.request({ kind: 'get', key: 'nodes/web2/x', stale: false });
  await agent.failure(get);
  agent.request(openSession);
  const value = new TextEncoder().encode('secret-value');
  const write = agent.request({
    kind: 'write',
    sequence: 1,
    answeredBelow: 1,
    operations: [
      {
        kind: 'resolve',
        key: 'nodes/web1/out/x',
        preconditions: {},
        value,
        contentType: 'text/plain',
        sensitive: true,
        supersede: false,
      },
    ],
  });
  await rig.port.until(({ requests }) => requests.length === 2);
  const failure = { code: 'QUOTA_EXCEEDED', message: 'puppet:web1 may not: too much' } as const;
  rig.gateway.deliver([{ kind: 'answer', connection: 1, request: write, body: { kind: 'failed', failure } }]);
  await agent.failure(write);
  const one = agent.request({ kind: 'get', key: 'nodes/web2/x', stale: false });
  await agent.failure(one);
  agent.ws.close();
  await agent.closed;
  await rig.log.until((lines) => lines.some(({ fields }) => fields['suppressed'] === 1));
  expect(auditOf(rig, 'refused')).toMatchObject([
    { verb: 'get', key: 'nodes/web2/x', code: 'PERMISSION_DENIED' },
    { verb: 'write', reason: failure.message, code: 'QUOTA_EXCEEDED' },
    { suppressed: 1 },
  ]);
});

const address = { peersAddress: 'fs4:7431', agentsUrl: 'wss://fs4:7421' };
const part = {
  snapshot: 77,
  part: 0,
  records: new TextEncoder().encode('secret-value'),
  checksum: 1,
  recordsTotal: 5,
  clusterId: 'c0ffee',
  epoch: 3,
  revision: 41,
  index: 9,
  term: 2,
};
const standing = { member: 2, agents: 5, graceMs: 900, leader: 1 };
const servers = [
  { member: 1, name: 'a', agents: 9, moving: 3, leftOut: false },
  { member: 2, name: 'b', agents: 1, moving: 0, leftOut: false },
];
const policies = new TextEncoder().encode(
  JSON.stringify({ realms: {}, policies: { all: [{ allow: ['acl.change'] }] }, bindings: [] }),
);

/** What is asked, what is told of that, the answer, and what is told of it. */
const requests: readonly (readonly [RequestBody, Line, AnswerBody, Line])[] = [
  [
    { kind: 'member_add', name: 'server-4', replaces: 3, ...address },
    { request: 'member_add', name: 'server-4', replaces: 3, ...address },
    { kind: 'member_changed', member: 4 },
    { outcome: 'done', member: 4 },
  ],
  [
    { kind: 'member_promote', member: 4 },
    { request: 'member_promote', member: 4 },
    { kind: 'failed', failure: { code: 'MEMBERSHIP_REFUSED', message: 'it lags' } },
    { outcome: 'refused', code: 'MEMBERSHIP_REFUSED' },
  ],
  [
    { kind: 'member_remove', member: 4 },
    { request: 'member_remove', member: 4 },
    { kind: 'failed', failure: { code: 'TIMED_OUT', message: 'late' } },
    { outcome: 'unknown', code: 'TIMED_OUT' },
  ],
  [
    { kind: 'transfer_leader', member: 3 },
    { request: 'transfer_leader', member: 3 },
    { kind: 'leader_transferred', member: 3 },
    { outcome: 'done', member: 3 },
  ],
  [
    { kind: 'drain_server', member: 2, graceMs: 900, end: false },
    { request: 'drain_server', member: 2, graceMs: 900 },
    { kind: 'drained', standing: { ...standing, draining: true } },
    { outcome: 'done', ...standing },
  ],
  [
    { kind: 'drain_server', member: 2, end: true },
    { request: 'end_drain', member: 2 },
    { kind: 'drained', standing: { ...standing, graceMs: 0, draining: false } },
    { outcome: 'done', ...standing, graceMs: 0 },
  ],
  [
    { kind: 'rebalance', graceMs: 700 },
    { request: 'rebalance', graceMs: 700 },
    { kind: 'rebalanced', rebalanced: { servers, graceMs: 700 } },
    { outcome: 'done', agents: 3, graceMs: 700 },
  ],
  [
    { kind: 'acl_apply', document: policies, ifRevision: 7, force: true },
    { request: 'acl_apply', ifRevision: 7, force: true },
    { kind: 'access_changed', revision: 8, unchanged: false },
    { outcome: 'done', revision: 8 },
  ],
  [
    { kind: 'acl_revoke', revocation: web1, untilMs: 5 },
    { request: 'acl_revoke', revocation: web1, untilMs: 5 },
    { kind: 'access_changed', revision: 8, unchanged: true },
    { outcome: 'unchanged', revision: 8 },
  ],
  [
    { kind: 'acl_restore', revocation: web1 },
    { request: 'acl_restore', revocation: web1 },
    { kind: 'access_changed', revision: 9, unchanged: false },
    { outcome: 'done', revision: 9 },
  ],
  [
    { kind: 'snapshot_read', part: 0 },
    { request: 'snapshot_save' },
    { kind: 'snapshot_part', part: { ...part, last: false } },
    { outcome: 'begun', snapshot: 77, revision: 41 },
  ],
];

describe('what is asked of the cluster is told when it is asked, and with its outcome', () => {
  let agent: TestAgent;
  beforeEach(async () => {
    await start();
    agent = await rig.greeted({ credentials: await issue(rig.world.puppet, { subject: 'CN=admin' }) });
  });

  const ask = async (body: RequestBody): Promise<number> => {
    const before = rig.port.requests.length;
    const id = agent.request(body);
    await rig.port.until(({ requests }) => requests.length > before);
    return id;
  };
  const answer = (request: number, body: AnswerBody): void =>
    rig.gateway.deliver([{ kind: 'answer', connection: 1, request, body }]);

  test.each(requests)('%j', async (body, asked, answered, outcome) => {
    const id = await ask(body);
    const who = { connection: 1, principal: 'puppet:admin' };
    expect(auditOf(rig, 'asked')).toMatchObject([{ ...who, ...asked }]);
    expect(auditOf(rig, 'answered')).toEqual([]);
    answer(id, answered);
    await agent.answer(id);
    const { request } = asked;
    expect(auditOf(rig, 'answered')).toEqual([{ audit: 'answered', ...who, request, ...outcome }]);
  });

  test('a snapshot once more when its last part has been read', async () => {
    answer(await ask({ kind: 'snapshot_read', part: 0 }), {
      kind: 'snapshot_part',
      part: { ...part, last: false },
    });
    for (const last of [false, true]) {
      const id = await ask({ kind: 'snapshot_read', snapshot: 77, part: 1 });
      answer(id, { kind: 'snapshot_part', part: { ...part, part: 1, last } });
    }
    expect(auditOf(rig, 'asked')).toHaveLength(1);
    expect(auditOf(rig, 'answered').map(({ outcome }) => outcome)).toEqual(['begun', 'done']);
  });

  test('also where the client cancels it, or is gone before', async () => {
    const cancelled = await ask({ kind: 'transfer_leader' });
    agent.request({ kind: 'cancel', request: cancelled });
    expect(await agent.failure(cancelled)).toMatchObject({ code: 'CANCELLED' });
    await ask({ kind: 'rebalance' });
    agent.ws.close();
    await rig.log.until(() => auditOf(rig, 'answered').length === 2);
    expect(auditOf(rig, 'answered')).toMatchObject([
      { request: 'transfer_leader', outcome: 'unknown', code: 'CANCELLED' },
      { request: 'rebalance', outcome: 'unknown' },
    ]);
  });
});

test('README.md lists the lines with all their fields', async () => {
  await start();
  const by: Subject = {
    principal: { realm: 'puppet', name: 'admin' },
    credential: { realm: 'puppet', name: 'admin' },
  };
  const origin = { member: 1, run: 1, request: 1 };
  const member = { kind: 'member', member: 4 } as const;
  const access = { kind: 'access', revision: 8, unchanged: false } as const;
  const failed = { kind: 'failed', failure: { code: 'MEMBERSHIP_REFUSED', message: '' } } as const;
  const add = { least: 4, name: 'server-4', ...address, replaces: 0 };
  const changes = [
    changeLine({ kind: 'member_add', origin, ...add, by }, member),
    changeLine({ kind: 'member_promote', origin, member: 4, askedBy: 'puppet:admin' }, member),
    changeLine({ kind: 'member_remove', origin, member: 4, by }, failed),
    changeLine({ kind: 'acl_apply', origin, by, document: new Uint8Array(0) }, access),
    changeLine({ kind: 'acl_revoke', origin, by, revocation: web1, untilMs: 5 }, access),
    changeLine({ kind: 'acl_restore', origin, by, revocation: web1 }, access),
  ];
  for (const line of changes) expect(line).toMatchObject({ principal: 'puppet:admin' });
  const who = ['connection', 'principal'];
  const all = (lines: readonly Line[], ...more: string[]): string[] => [
    ...new Set([...more, ...lines.flatMap(fieldsOf)]),
  ];
  const shutOut = [...who, 'remote', 'problem', 'code'];
  const expected = {
    turned_away: [...shutOut, 'stage', 'suppressed'],
    revoked: shutOut,
    ended: shutOut,
    refused: [...who, 'verb', 'key', 'reason', 'code', 'suppressed'],
    asked: all(
      requests.map(([, asked]) => asked),
      ...who,
    ),
    answered: all(
      requests.map(([, , , outcome]) => outcome),
      ...who,
      'request',
    ),
    changed: all(
      changes.filter((line) => line !== undefined),
      'index',
    ),
  };
  const sorted = (rows: Iterable<readonly [string, readonly string[]]>): unknown =>
    [...rows].map(([kind, fields]) => [kind, [...fields].sort()]);
  expect(sorted(documented())).toEqual(sorted(Object.entries(expected)));
});
