/** Quotas as they are once all servers know them: what is settled for another counts for who settles it. */
import * as fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import type { Operation } from '../../src/protocol/index.ts';
import { canonicalJson, type LimitDocument } from '../../src/scopes/index.ts';
import { Store, type CommandResult, type Subject } from '../../src/store/index.ts';
import { ClusterOfOne, alice, bob, op, sessionId, startMs } from './support/cluster-of-one.ts';

const subject = (name: string): Subject => ({
  principal: { realm: 'puppet', name },
  credential: { realm: 'puppet', name, certificate: { serial: 'a', issuedAtMs: startMs } },
});

class Limited extends ClusterOfOne {
  limit(limit: LimitDocument, strictQuotas: boolean): CommandResult {
    const document = {
      realms: { puppet: { tls: { issuer: 'PEM', identity: 'cn' } } },
      policies: { all: [{ allow: ['*'], on: '**' }, { allow: ['acl.change'] }, { limit }] },
      bindings: [{ policies: ['all'] }],
    };
    const result = this.one({
      kind: 'acl_apply',
      by: subject('root'),
      document: Buffer.from(canonicalJson(document)),
      ...(strictQuotas && { strictQuotas }),
    });
    for (const [session, name] of [
      [1, 'alice'],
      [2, 'bob'],
    ] as const)
      this.one({
        kind: 'session_open',
        session: sessionId(session),
        principal: `puppet:${name}`,
        graceMs: 10_000,
        resume: true,
        connection: session,
        subject: subject(name),
      });
    return result;
  }

  code(operations: Operation | readonly Operation[], session = 1): string {
    const result = this.try(operations, session);
    return result.kind === 'failed' ? result.failure.code : result.kind;
  }
}

let cluster: Limited;
beforeEach(() => {
  cluster = new Limited();
});

describe('strict quotas', () => {
  test('let nobody who is beyond its bytes announce anything, in place of a value either', () => {
    cluster.limit({ stored: '10B' }, true);
    cluster.write([op.resolve('a', '12'), op.resolve('b', '12'), op.declare('c')]);
    cluster.write(op.resolve('c', 'far more than ten bytes'));
    expect(cluster.code(op.declare('a', { renew: true }))).toBe('QUOTA_EXCEEDED');
    expect(cluster.code([op.declare('a', { renew: true }), op.resolve('a', 'x'.repeat(100))])).toBe(
      'QUOTA_EXCEEDED',
    );
    cluster.write(op.delete('c'));
    cluster.write(op.declare('a', { renew: true }));
  });

  test('count what is settled for another for who settles it, and key and announcement for who announced', () => {
    cluster.limit({ stored: '10B', keys: 2, pending: 2 }, true);
    cluster.write([op.declare('a'), op.declare('b')]);
    cluster.write(op.resolve('a', '123456'), 2);
    expect(cluster.code(op.resolve('b', '12345'), 2)).toBe('QUOTA_EXCEEDED');
    expect(cluster.code(op.reject('b', 'NO'), 2)).toBe('QUOTA_EXCEEDED');
    expect(cluster.store.get('a')?.producer).toBe(alice);
    // All ten bytes are alice's still, but both keys are taken.
    expect(cluster.code(op.resolve('c', ''))).toBe('QUOTA_EXCEEDED');
    cluster.write(op.resolve('b', '1234567890'));
    cluster.store = cluster.copy();
    expect(cluster.code(op.resolve('c', '12345'), 2)).toBe('QUOTA_EXCEEDED');
    cluster.write(op.resolve('c', '1234'), 2);
    // Whoever removes it, it is given back to who paid.
    cluster.write(op.delete('a'));
    cluster.write(op.resolve('d', '123456'), 2);
  });

  test('count what stays fresh for who paid, and nothing once it has ended, also as a disk tells it', () => {
    cluster.limit({ stored: '10B' }, true);
    cluster.write([op.declare('a'), op.declare('b')]);
    cluster.write([op.resolve('a', '12345', { ttlMs: 10 }), op.resolve('b', '12345', { ttlMs: 20 })], 2);
    cluster.write(op.touch('a', 20));
    expect(cluster.code(op.resolve('c', '1'), 2)).toBe('QUOTA_EXCEEDED');
    cluster.flush();
    cluster.later(20);
    cluster.sweep();
    // Their own records are those from before they ended.
    for (const { key, value } of cluster.store.takeStateWrites(0))
      if (value === undefined) cluster.disk.delete(key);
      else cluster.disk.set(key, value);
    const copy = new Store({ clusterId: 'test' });
    copy.load([...cluster.disk].map(([key, value]) => ({ key, value })));
    copy.finishLoad();
    expect(copy.digest()).toBe(cluster.store.digest());
    cluster.store = copy;
    expect(cluster.code(op.resolve('c', '12345678901'), 2)).toBe('QUOTA_EXCEEDED');
    cluster.write(op.resolve('c', '1234567890'), 2);
    cluster.write(op.resolve('d', '1234567890'));
  });

  test('are so from the command on that says that all servers know them, and stay so', () => {
    cluster.limit({ stored: '10B' }, false);
    cluster.write([op.declare('a'), op.declare('b'), op.declare('c')]);
    cluster.write(op.resolve('a', 'for bob nothing counts'), 2);
    expect(cluster.code(op.declare('d'))).toBe('QUOTA_EXCEEDED');
    // As servers of earlier versions do it.
    cluster.write(op.declare('a', { renew: true }));
    expect(cluster.limit({ stored: '10B' }, true)).toMatchObject({ unchanged: false });
    expect(cluster.limit({ stored: '10B' }, true)).toMatchObject({ unchanged: true });
    expect(cluster.limit({ stored: '10B' }, false)).toMatchObject({ unchanged: true });
    cluster.store = cluster.copy();
    expect(cluster.limit({ stored: '11B' }, false)).toMatchObject({ unchanged: false });
    expect(cluster.code(op.resolve('b', '123456789012'), 2)).toBe('QUOTA_EXCEEDED');
    cluster.write(op.resolve('b', '12345678901'), 2);
    expect(cluster.code(op.resolve('c', '1'), 2)).toBe('QUOTA_EXCEEDED');
  });

  const names = [alice, bob];
  const key = fc.constantFrom('a', 'b', 'c');
  const value = fc.nat(14).map((length) => 'x'.repeat(length));
  const operation: fc.Arbitrary<Operation> = fc.oneof(
    fc.record({ key, renew: fc.boolean() }).map(({ key: of, renew }) => op.declare(of, { renew })),
    fc
      .record({ key, value, supersede: fc.boolean() })
      .map((drawn) => op.resolve(drawn.key, drawn.value, { supersede: drawn.supersede })),
    fc.record({ key, value }).map((drawn) => op.resolve(drawn.key, drawn.value, { ttlMs: 30 })),
    key.map((of) => op.reject(of, 'NO')),
    key.map((of) => op.delete(of)),
    key.map((of) => op.touch(of, 50)),
  );

  test('are of what is there: by any history, and after the state was loaded', () => {
    const limit = 12;
    let refused = 0;
    fc.assert(
      fc.property(
        fc.array(fc.record({ operation, who: fc.constantFrom(1, 2), laterMs: fc.constantFrom(0, 0, 20) }), {
          maxLength: 40,
        }),
        (steps) => {
          cluster = new Limited();
          cluster.limit({ stored: `${limit}B` }, true);
          /** Of what another has settled. */
          const payers = new Map<string, { readonly generation: number; readonly payer: string }>();
          const paidBy = (name: string): number =>
            ['a', 'b', 'c'].reduce((sum, of) => {
              const future = cluster.store.get(of);
              const known = payers.get(of);
              const payer = known?.generation === future?.generation ? known?.payer : undefined;
              if (future === undefined || (payer ?? future.producer) !== name) return sum;
              const { rejection } = future;
              return (
                sum +
                (future.value?.length ?? 0) +
                (rejection ? rejection.code.length + rejection.message.length : 0)
              );
            }, 0);
          for (const step of steps) {
            cluster.later(step.laterMs);
            cluster.sweep();
            const me = names[step.who - 1] ?? '';
            const before = cluster.store.get(step.operation.key);
            const paid = paidBy(me);
            const code = cluster.code(step.operation, step.who);
            const settles = step.operation.kind === 'resolve' || step.operation.kind === 'reject';
            const isPending = before?.state === 'pending';
            if (code === 'written' && settles && isPending && before.producer !== me)
              payers.set(before.key, { generation: before.generation, payer: me });
            if (code === 'QUOTA_EXCEEDED') refused += 1;
            if (settles && isPending && before.producer === me) expect(code).toBe('written');
            else if (paidBy(me) > limit) expect(paidBy(me)).toBeLessThanOrEqual(paid);
          }
          const copy = cluster.copy();
          expect(copy.digest()).toBe(cluster.store.digest());
          // What either of them counts is what is there.
          if (steps.length % 2 === 0) cluster.store = copy;
          for (const [index, me] of names.entries()) {
            const left = limit - paidBy(me);
            if (left < 0) continue;
            expect(cluster.code(op.resolve(`probe/${index}`, 'x'.repeat(left + 1)), index + 1)).toBe(
              'QUOTA_EXCEEDED',
            );
            cluster.write(op.resolve(`probe/${index}`, 'x'.repeat(left)), index + 1);
          }
        },
      ),
      { numRuns: 300 },
    );
    // About a hundred; that quotas were met at all is what counts.
    expect(refused).toBeGreaterThan(20);
  });
});
