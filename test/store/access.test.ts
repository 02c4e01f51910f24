/** Policies and revocations in the state: what is judged where a write stands in the log, and what quotas count. */
import { fc, test as property } from '@fast-check/vitest';
import { beforeEach, describe, expect, test } from 'vitest';
import type { Operation } from '../../src/protocol/index.ts';
import {
  canonicalJson,
  type Credential,
  type PolicyDocument,
  type Revocation,
} from '../../src/scopes/index.ts';
import {
  Store,
  decodeLogEntry,
  type CommandBody,
  type CommandResult,
  type Subject,
} from '../../src/store/index.ts';
import { ClusterOfOne, alice, command, op, recordsOf, sessionId, startMs } from './support/cluster-of-one.ts';

const documentOf = (...rules: PolicyDocument['policies'][string][number][]): PolicyDocument => ({
  realms: {
    puppet: { tls: { issuer: 'PEM', identity: 'cn' }, vars: { node: 'cn', role: 'extension:pp_role' } },
  },
  policies: { agent: rules, root: [{ allow: ['acl.change'] }] },
  bindings: [
    { realm: 'puppet', policies: ['agent'] },
    { realm: 'puppet', principal: 'root', policies: ['root'] },
  ],
});
const everything = { allow: ['*'], on: '**' };
const own = { allow: ['*'], on: 'n/${node}/**' };

const subject = (
  name: string,
  more: Partial<Credential> = {},
  variables?: Record<string, string>,
): Subject => ({
  principal: { realm: 'puppet', name, ...(variables && { variables }) },
  credential: {
    realm: 'puppet',
    name,
    certificate: { serial: `${name.length}a`, issuedAtMs: startMs },
    ...more,
  },
});
const root = subject('root');

class Access extends ClusterOfOne {
  apply_(document: PolicyDocument, ifRevision?: number, by = root): CommandResult {
    const bytes = Buffer.from(canonicalJson(document));
    return this.one({
      kind: 'acl_apply',
      by,
      document: bytes,
      ...(ifRevision !== undefined && { ifRevision }),
    });
  }
  revoke(revocation: Revocation, untilMs?: number, by = root): CommandResult {
    return this.one({ kind: 'acl_revoke', by, revocation, ...(untilMs !== undefined && { untilMs }) });
  }
  restore(revocation: Revocation): CommandResult {
    return this.one({ kind: 'acl_restore', by: root, revocation });
  }
  describe(session: number, as: Subject): void {
    const principal = `${as.principal.realm}:${as.principal.name}`;
    this.one(opening(session, principal, as));
  }
}

const opening = (session: number, principal: string, as?: Subject): CommandBody => ({
  kind: 'session_open',
  session: sessionId(session),
  principal,
  graceMs: 10_000,
  resume: true,
  connection: session,
  ...(as && { subject: as }),
});

let cluster: Access;
beforeEach(() => {
  cluster = new Access();
});

/** With these rules for everybody, and both sessions known. */
const applied = (...rules: PolicyDocument['policies'][string][number][]): void => {
  expect(cluster.apply_(documentOf(...rules))).toMatchObject({ kind: 'access', unchanged: false });
  cluster.describe(1, subject('alice'));
  cluster.describe(2, subject('bob'));
};

describe('as long as no command was about access', () => {
  test('nothing is judged, and the state has the bytes that it had', () => {
    const other = new Access();
    cluster.describe(1, subject('alice'));
    other.one(opening(1, alice));
    cluster.write(op.resolve('n/a', 'v'));
    other.write(op.resolve('n/a', 'v'));
    expect(cluster.store.digest()).toBe(other.store.digest());
    expect(recordsOf(cluster)).toEqual(recordsOf(other));
    expect(cluster.store.access).toBeUndefined();
  });
});

describe('a write', () => {
  test('is judged by the policies as of its own place in the log', () => {
    applied(own);
    const narrowed = Buffer.from(canonicalJson(documentOf({ allow: ['get'], on: '**' })));
    const before = cluster.nextWrite([op.resolve('n/alice/1', 'v')]);
    const after = cluster.nextWrite([op.resolve('n/alice/2', 'v')]);
    const apply: CommandBody = { kind: 'acl_apply', by: root, document: narrowed };
    const { results } = cluster.apply(
      command(before, 1, 1, 901),
      command(apply, 1, 1, 902),
      command(after, 1, 1, 903),
    );
    expect(results.map(({ kind }) => kind)).toEqual(['written', 'access', 'failed']);
    expect(results[2]).toMatchObject({ failure: { code: 'PERMISSION_DENIED', operation: 0 } });
    expect(cluster.state('n/alice/2')).toBe('absent');
  });

  test('that is refused is remembered as any other, and takes no revision', () => {
    applied(own);
    const { revision } = cluster.store;
    const foreign = cluster.nextWrite([op.resolve('n/bob/1', 'v')]);
    expect(cluster.one(foreign)).toMatchObject({ failure: { code: 'PERMISSION_DENIED' } });
    expect(cluster.apply_(documentOf(everything))).toMatchObject({ unchanged: false });
    expect(cluster.one(foreign)).toMatchObject({ failure: { code: 'PERMISSION_DENIED' } });
    expect(cluster.store.revision).toBe(revision + 1);
  });

  test('of a session that has not been described is neither done nor remembered, and done when it has', () => {
    cluster.apply_(documentOf(own));
    const write = cluster.nextWrite([op.resolve('n/alice/1', 'v')]);
    expect(cluster.one(write)).toMatchObject({ failure: { code: 'UNAVAILABLE' } });
    cluster.describe(1, subject('alice'));
    expect(cluster.one(write)).toMatchObject({ kind: 'written' });
  });

  test('of a connection that another server has opened without knowing of policies is not judged by an older one', () => {
    applied(own);
    cluster.one(opening(1, alice));
    expect(cluster.failure(op.resolve('n/alice/1', 'v'))).toBe('UNAVAILABLE');
  });

  test('sees the variables that its own connection has shown', () => {
    applied({ allow: ['resolve'], on: 'roles/${role}/**' });
    expect(cluster.failure(op.resolve('roles/web/1', 'v'))).toBe('PERMISSION_DENIED');
    cluster.describe(1, subject('alice', {}, { role: 'web' }));
    cluster.write(op.resolve('roles/web/1', 'v'));
    expect(cluster.failure(op.resolve('roles/db/1', 'v'))).toBe('PERMISSION_DENIED');
  });

  test('has no longer TTL than the policies allow, and no value without one where there is a longest', () => {
    applied({ allow: ['resolve', 'reject', 'touch'], on: '**', ttl_max: '1m' });
    expect(cluster.failure(op.resolve('a', 'v'))).toBe('LIMIT_EXCEEDED');
    expect(cluster.failure(op.resolve('a', 'v', { ttlMs: 60_001 }))).toBe('LIMIT_EXCEEDED');
    cluster.write(op.resolve('a', 'v', { ttlMs: 60_000 }));
    expect(cluster.failure(op.reject('b', 'NO'))).toBe('LIMIT_EXCEEDED');
    expect(cluster.failure(op.touch('a', 60_001))).toBe('LIMIT_EXCEEDED');
    cluster.write(op.touch('a', 50_000));
  });
});

describe('a revocation', () => {
  const kinds: readonly (readonly [string, Revocation])[] = [
    ['a certificate', { kind: 'certificate', realm: 'puppet', serial: '5a' }],
    ['a principal', { kind: 'principal', realm: 'puppet', name: 'alice' }],
    ['a token', { kind: 'token', realm: 'puppet', tokenId: 'T 1/x' }],
    ['what was issued before', { kind: 'issued_before', realm: 'puppet', name: 'alice', atMs: startMs + 1 }],
  ];

  test.each(kinds)(
    'of %s ends the writes of whom it means and of nobody else, until it is taken back',
    (_what, revocation) => {
      applied(everything);
      cluster.describe(1, subject('alice', { token: { id: 'T 1/x', issuedAtMs: startMs } }));
      cluster.write(op.resolve('a', 'v'));
      expect(cluster.revoke(revocation)).toMatchObject({ kind: 'access', unchanged: false });
      expect(cluster.failure(op.resolve('b', 'v'))).toBe('PERMISSION_DENIED');
      cluster.write(op.resolve('b', 'v'), 2);
      expect(cluster.copy().digest()).toBe(cluster.store.digest());
      expect(cluster.restore(revocation)).toMatchObject({ unchanged: false });
      cluster.write(op.resolve('c', 'v'));
    },
  );

  test('of everybody in a realm means what was issued before the instant only', () => {
    applied(everything);
    cluster.describe(2, subject('bob', { certificate: { serial: 'b', issuedAtMs: startMs + 500 } }));
    cluster.revoke({ kind: 'issued_before', realm: 'puppet', atMs: startMs + 500 }, undefined, {
      ...root,
      credential: { ...root.credential, certificate: { serial: '1', issuedAtMs: startMs + 500 } },
    });
    expect(cluster.failure(op.resolve('a', 'v'))).toBe('PERMISSION_DENIED');
    cluster.write(op.resolve('a', 'v'), 2);
  });

  test('counts also where no policies were applied, and ends at its end by cluster time', () => {
    const alices: Revocation = { kind: 'principal', realm: 'puppet', name: 'alice' };
    expect(cluster.revoke(alices, startMs + 1000)).toMatchObject({ unchanged: false });
    cluster.describe(1, subject('alice'));
    expect(cluster.failure(op.resolve('a', 'v'))).toBe('PERMISSION_DENIED');
    expect(cluster.revoke(alices, startMs)).toMatchObject({ failure: { code: 'INVALID_ARGUMENT' } });
    cluster.later(1000);
    cluster.write(op.resolve('b', 'v'));
    expect(cluster.store.access?.revocations).toEqual([]);
    expect(cluster.copy().digest()).toBe(cluster.store.digest());
  });

  test('asked for again with less never says less than before: only taking it back does', () => {
    const before = (atMs: number): Revocation => ({
      kind: 'issued_before',
      realm: 'puppet',
      name: 'alice',
      atMs,
    });
    const recorded = () =>
      cluster.store.access?.revocations.map(({ revocation, untilMs }) => [revocation, untilMs]);
    cluster.revoke(before(startMs + 50));
    expect(cluster.revoke(before(startMs + 10), startMs + 1000)).toMatchObject({ unchanged: true });
    expect(recorded()).toEqual([[before(startMs + 50), undefined]]);
    cluster.restore(before(startMs));
    cluster.revoke(before(startMs + 50), startMs + 1000);
    expect(cluster.revoke(before(startMs + 10), startMs + 2000)).toMatchObject({ unchanged: false });
    expect(recorded()).toEqual([[before(startMs + 50), startMs + 2000]]);
    expect(cluster.revoke(before(startMs + 60), startMs + 500)).toMatchObject({ unchanged: false });
    expect(recorded()).toEqual([[before(startMs + 60), startMs + 2000]]);
    expect(cluster.copy().digest()).toBe(cluster.store.digest());
  });

  test('asked for again changes nothing and takes no revision', () => {
    const alices: Revocation = { kind: 'principal', realm: 'puppet', name: 'alice' };
    cluster.revoke(alices);
    const { revision } = cluster.store;
    expect(cluster.revoke(alices)).toEqual({ kind: 'access', revision, unchanged: true });
    expect(cluster.restore({ ...alices, name: 'bob' })).toEqual({
      kind: 'access',
      revision,
      unchanged: true,
    });
    expect(cluster.store.revision).toBe(revision);
  });
});

describe('who changes members', () => {
  const removal = (by?: Subject): CommandBody => ({ kind: 'member_remove', member: 3, ...(by && { by }) });

  test('is judged at the place in the log, also where a server that knows of no revocation was asked', () => {
    cluster.revoke({ kind: 'principal', realm: 'puppet', name: 'alice' });
    expect(cluster.one(removal(subject('alice')))).toMatchObject({ failure: { code: 'PERMISSION_DENIED' } });
    expect(cluster.store.members).toEqual([]);
    expect(cluster.one(removal(subject('bob')))).toMatchObject({ kind: 'member' });
  });

  test('needs member.change by the policies that are applied, if it is known who asked', () => {
    applied(everything);
    expect(cluster.one(removal(subject('alice')))).toMatchObject({ failure: { code: 'PERMISSION_DENIED' } });
    applied(everything, { allow: ['member.change'] });
    expect(cluster.one(removal(subject('alice', {}, { role: 'web' })))).toMatchObject({ kind: 'member' });
    expect(cluster.one(removal())).toMatchObject({ kind: 'member' });
  });
});

describe('who changes access', () => {
  test('is judged by the policies and revocations as they are then, not by the server that was asked', () => {
    applied(everything);
    expect(cluster.apply_(documentOf(own), undefined, subject('alice'))).toMatchObject({
      failure: { code: 'PERMISSION_DENIED' },
    });
    expect(cluster.revoke({ kind: 'principal', realm: 'puppet', name: 'root' })).toMatchObject({
      unchanged: false,
    });
    expect(cluster.apply_(documentOf(own))).toMatchObject({ failure: { code: 'PERMISSION_DENIED' } });
  });

  test('takes a revision for what changes something, and says on which policies it builds', () => {
    const first = cluster.apply_(documentOf(own), 0);
    expect(first).toEqual({ kind: 'access', revision: 1, unchanged: false });
    expect(cluster.apply_(documentOf(own))).toEqual({ kind: 'access', revision: 1, unchanged: true });
    expect(cluster.apply_(documentOf(everything), 0)).toMatchObject({
      failure: { code: 'PRECONDITION_FAILED' },
    });
    // As it is sent again by who has lost the answer.
    expect(cluster.apply_(documentOf(own), 0)).toEqual({ kind: 'access', revision: 1, unchanged: true });
    expect(cluster.apply_(documentOf(everything), 1)).toEqual({
      kind: 'access',
      revision: 2,
      unchanged: false,
    });
    expect(cluster.store.revision).toBe(2);
  });

  test('does it once: a command that is sent again does not undo what came after it', () => {
    const one = {
      kind: 'acl_apply',
      by: root,
      document: Buffer.from(canonicalJson(documentOf(own))),
    } as const;
    const other = { ...one, document: Buffer.from(canonicalJson(documentOf(everything))) };
    cluster.apply(command(one, 1, 1, 50), command(other, 1, 1, 51));
    const { results } = cluster.apply(command(one, 1, 1, 50));
    expect(results).toMatchObject([{ failure: { code: 'ACCESS_REFUSED' } }]);
    expect(cluster.store.access?.policies?.document).toEqual(documentOf(everything));
  });

  test.each([
    ['no JSON', Buffer.from('{')],
    ['not canonical', Buffer.from(JSON.stringify(documentOf(own), undefined, 1))],
    ['no document', Buffer.from('{"realms":3}')],
    ['without meaning', Buffer.from(canonicalJson(documentOf({ allow: ['dance'], on: '**' })))],
  ])('gets CONFIGURATION_INVALID for a document that is %s, and nothing changes', (_what, document) => {
    const { revision } = cluster.store;
    expect(cluster.one({ kind: 'acl_apply', by: root, document })).toMatchObject({
      failure: { code: 'CONFIGURATION_INVALID' },
    });
    expect(cluster.store.revision).toBe(revision);
    expect(cluster.store.access).toBeUndefined();
  });
});

describe('quotas', () => {
  const limited = { limit: { pending: 2, stored: '10B' } };

  test('a principal has no more pending futures than its policies let it have', () => {
    applied(everything, limited);
    cluster.write([op.declare('a'), op.declare('b')]);
    expect(cluster.failure(op.declare('c'))).toBe('QUOTA_EXCEEDED');
    expect(cluster.failure([op.delete('a'), op.declare('c'), op.declare('d')])).toBe('QUOTA_EXCEEDED');
    cluster.write([op.delete('a'), op.declare('c')]);
    cluster.write(op.declare('d'), 2);
  });

  test('nor more stored bytes; what grows nothing is always allowed', () => {
    applied(everything, limited);
    cluster.write(op.resolve('a', '1234567890'));
    expect(cluster.failure(op.resolve('b', 'x'))).toBe('QUOTA_EXCEEDED');
    expect(cluster.failure(op.resolve('a', '12345678901', { supersede: true }))).toBe('QUOTA_EXCEEDED');
    cluster.write(op.resolve('a', '123456789', { supersede: true }));
    cluster.write(op.resolve('b', 'x'));
    cluster.write(op.delete('a'));
    cluster.write(op.resolve('c', '123456789'));
  });

  test('nor more keys, however little is in them and whatever became of them', () => {
    applied(everything, { limit: { keys: 3 } });
    cluster.write([op.resolve('a', ''), op.resolve('b', '', { ttlMs: 5 }), op.declare('c')]);
    expect(cluster.failure(op.resolve('d', ''))).toBe('QUOTA_EXCEEDED');
    expect(cluster.failure(op.declare('d'))).toBe('QUOTA_EXCEEDED');
    cluster.write([op.resolve('c', ''), op.resolve('a', 'x', { supersede: true })]);
    cluster.later(5);
    cluster.sweep();
    expect(cluster.failure(op.resolve('d', ''))).toBe('QUOTA_EXCEEDED');
    cluster.store = cluster.copy();
    expect(cluster.failure([op.delete('b'), op.resolve('d', ''), op.resolve('e', '')])).toBe(
      'QUOTA_EXCEEDED',
    );
    cluster.write([op.delete('b'), op.resolve('d', '')]);
    expect(cluster.failure(op.resolve('b', ''))).toBe('QUOTA_EXCEEDED');
  });

  test('settling or deleting what one has announced is never refused, however much one has by then', () => {
    applied(everything, limited);
    cluster.write([op.declare('a'), op.declare('b')]);
    cluster.write(op.resolve('a', 'far more than ten bytes'));
    expect(cluster.failure(op.resolve('c', 'x'))).toBe('QUOTA_EXCEEDED');
    cluster.write(op.reject('b', 'SORRY'));
    cluster.write([op.delete('a'), op.delete('b')]);
    cluster.write(op.resolve('c', 'x'));
  });

  test('who is beyond its bytes by settling announces nothing more, alone or in one write with its settling', () => {
    applied(everything, limited);
    cluster.write([op.declare('a'), op.declare('b')]);
    cluster.write(op.resolve('a', 'far more than ten bytes'));
    expect(cluster.failure(op.declare('c'))).toBe('QUOTA_EXCEEDED');
    expect(cluster.failure([op.declare('c'), op.resolve('c', 'more')])).toBe('QUOTA_EXCEEDED');
    cluster.write(op.resolve('b', 'as it was announced before'));
    cluster.write([op.delete('a'), op.delete('b')]);
    cluster.write([op.declare('c'), op.resolve('c', 'far more than ten bytes, once')]);
    expect(cluster.failure([op.declare('d'), op.resolve('d', 'x')])).toBe('QUOTA_EXCEEDED');
  });

  test('what has ended by itself counts no more', () => {
    // The cluster's own words for a deadline that passed are stored, too.
    applied(everything, { limit: { pending: 2, stored: '100B' } });
    cluster.write(op.resolve('a', '1234567890', { ttlMs: 10 }));
    cluster.write([op.declare('p', { deadlineMs: 10 }), op.declare('q')]);
    cluster.later(10);
    cluster.sweep();
    cluster.write(op.declare('r'));
    expect(cluster.failure(op.declare('s'))).toBe('QUOTA_EXCEEDED');
  });

  test('after the state was loaded they are what they were', () => {
    applied(everything, limited);
    cluster.write([op.declare('a'), op.declare('b'), op.resolve('c', '1234567890', { ttlMs: 5 })]);
    cluster.later(5);
    cluster.sweep();
    cluster.store = cluster.copy();
    expect(cluster.failure(op.declare('d'))).toBe('QUOTA_EXCEEDED');
    cluster.write(op.resolve('e', '1234567890'));
    expect(cluster.failure(op.resolve('f', '1'))).toBe('QUOTA_EXCEEDED');
  });
});

describe('records', () => {
  test('damage is found: a document that is none, a revocation under another name', () => {
    applied(own);
    cluster.revoke({ kind: 'principal', realm: 'puppet', name: 'eve' });
    const records = recordsOf(cluster);
    const load = (change: (key: string, value: Uint8Array) => { key: string; value: Uint8Array }): void => {
      const store = new Store({ clusterId: 'test' });
      store.load(records.map(({ key, value }) => change(key, value)));
      store.finishLoad();
    };
    expect(() => load((key, value) => ({ key, value }))).not.toThrow();
    const named = (key: string) =>
      expect.objectContaining({ code: 'DATA_DAMAGED', message: expect.stringContaining(key) });
    const moved = (key: string, value: Uint8Array) => ({ key: key.replace('/eve', '/adam'), value });
    expect(() => load(moved)).toThrow(named('r/principal/puppet/adam'));
    const cut = (key: string, value: Uint8Array) => ({
      key,
      value: key === 'p/document' ? value.subarray(0, 4) : value,
    });
    expect(() => load(cut)).toThrow(named('p/document'));
    const lost = (key: string, value: Uint8Array) => ({ key: key === 'p/document' ? 'f/none' : key, value });
    expect(() => load(lost)).toThrow(expect.objectContaining({ code: 'DATA_DAMAGED' }));
  });

  const names = ['alice', 'bob', 'eve'] as const;
  const step = fc.oneof(
    fc.record({ kind: fc.constant('apply' as const), which: fc.nat({ max: 2 }) }),
    fc.record({
      kind: fc.constantFrom('revoke' as const, 'restore' as const),
      name: fc.constantFrom(...names),
      forMs: fc.nat({ max: 30 }),
    }),
    fc.record({ kind: fc.constant('describe' as const), session: fc.constantFrom(1, 2) }),
    fc.record({
      kind: fc.constant('write' as const),
      session: fc.constantFrom(1, 2),
      at: fc.nat({ max: 4 }),
      long: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('later' as const), ms: fc.nat({ max: 20 }) }),
  );

  property.prop([fc.array(step, { maxLength: 40 })])(
    'replaying the log, loading what is on disk, and going on from both give one state',
    (steps) => {
      const world = new Access();
      const documents = [
        documentOf(everything),
        documentOf(own, { limit: { pending: 1, stored: '8B' } }),
        documentOf({ allow: ['get'], on: '**' }),
      ];
      const operations = (at: number, long: boolean): Operation[] =>
        at < 2
          ? [op.declare(`n/${names[at] ?? ''}/k`)]
          : [op.resolve(`n/${names[at - 2] ?? ''}/v`, long ? '123456789' : '1', { ttlMs: 15 })];
      for (const [number, one] of steps.entries()) {
        if (one.kind === 'apply') world.apply_(documents[one.which] ?? documentOf(own));
        else if (one.kind === 'revoke')
          world.revoke(
            { kind: 'principal', realm: 'puppet', name: one.name },
            one.forMs === 0 ? undefined : world.nowMs + one.forMs,
          );
        else if (one.kind === 'restore')
          world.restore({ kind: 'principal', realm: 'puppet', name: one.name });
        else if (one.kind === 'describe')
          world.describe(one.session, subject(one.session === 1 ? 'alice' : 'bob'));
        else if (one.kind === 'write') world.try(operations(one.at, one.long), one.session);
        else if (one.kind === 'later') world.later(one.ms);
        if (one.kind === 'later') world.sweep();
        if (number % 7 === 6) world.store = world.copy();
        expect(world.copy().digest()).toBe(world.store.digest());
      }
      const replayed = new Store({ clusterId: 'test' });
      for (const [at, entry] of world.log.entries()) replayed.apply(decodeLogEntry(entry), at + 1);
      expect(replayed.digest()).toBe(world.store.digest());
    },
  );
});

describe('a state that is made the beginning of another cluster', () => {
  const restored = (keepAccess: boolean): Store => {
    applied(own);
    cluster.revoke({ kind: 'principal', realm: 'puppet', name: 'eve' });
    const store = cluster.copy();
    store.prepareRestored({ keepAccess });
    for (const { key, value } of store.takeStateWrites()) {
      if (value === undefined) cluster.disk.delete(key);
      else cluster.disk.set(key, value);
    }
    const loaded = new Store({ clusterId: 'test' });
    loaded.load([...cluster.disk].map(([key, value]) => ({ key, value })));
    loaded.finishLoad();
    expect(loaded.digest()).toBe(store.digest());
    return loaded;
  };

  test('has its policies and revocations', () => {
    expect(restored(true).access).toMatchObject({ revocations: [{ revocation: { name: 'eve' } }] });
  });

  test('or none of them, and no session is described, where its policy files are to count', () => {
    expect(restored(false).access).toBeUndefined();
    expect([...cluster.disk.keys()].filter((key) => /^[pr]\//.test(key))).toEqual([]);
  });
});
