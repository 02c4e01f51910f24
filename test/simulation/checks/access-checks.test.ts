import { describe, expect, test } from 'vitest';
import { AccessChecks, SafetyViolation, type Sending } from '../../../src/simulation/checks/index.ts';
import type { ReceivedServerFrame } from '../../../src/protocol/index.ts';
import type { PolicyDocument } from '../../../src/scopes/index.ts';
import type { Command, CommandBody, CommandResult } from '../../../src/store/index.ts';

const principal = { realm: 'agents', name: 'one' };
const by = { principal, credential: principal };

const command = (body: CommandBody): Command => ({ origin: { member: 1, run: 1, request: 1 }, ...body });
const changed = (revision: number): CommandResult => ({ kind: 'access', revision, unchanged: false });

const document: PolicyDocument = {
  realms: { agents: {} },
  policies: { some: [{ allow: ['*'], on: 'k/1' }] },
  bindings: [{ realm: 'agents', policies: ['some'] }],
};

const apply = command({
  kind: 'acl_apply',
  by,
  document: Buffer.from(JSON.stringify(document)),
});
const revocation = { kind: 'principal', ...principal } as const;
const revoke = command({ kind: 'acl_revoke', by, revocation });
const restore = command({ kind: 'acl_restore', by, revocation });

const violationOf = (work: () => void): string | undefined => {
  try {
    work();
    return undefined;
  } catch (error) {
    if (error instanceof SafetyViolation) return error.check;
    throw error;
  }
};

const told = (toldRevision: number): Sending => ({ server: 'server 1', toldRevision, to: principal });

const push = (key: string, revision: number): ReceivedServerFrame => ({
  answers: [],
  pushes: [{ subscription: 1, revision, caughtUp: false, changes: [{ kind: 'deleted', key, revision }] }],
});

const someFuture = {
  generation: 1,
  state: 'pending',
  contentType: '',
  sensitive: false,
  producer: 'agents:one',
  changedAtMs: 0,
} as const;

const got = (key: string, revision: number): ReceivedServerFrame => ({
  answers: [{ id: 1, body: { kind: 'got', revision, future: { ...someFuture, key, revision } } }],
  pushes: [],
});

const write = (key: string): Extract<Command, { kind: 'write' }> => ({
  origin: { member: 1, run: 1, request: 1 },
  kind: 'write',
  principal: 'agents:one',
  session: 'a'.repeat(32),
  sequence: 1,
  answeredBelow: 0,
  operations: [{ kind: 'delete', key, preconditions: {} }],
});

const written: CommandResult = { kind: 'written', result: { revision: 12, results: [] } };
const refused: CommandResult = { kind: 'failed', failure: { code: 'PERMISSION_DENIED', message: 'no' } };

/** Policies since revision 10. */
const restricted = (): AccessChecks => {
  const checks = new AccessChecks();
  checks.applied(apply, changed(10));
  return checks;
};

/** ... and a revocation since 20, which is taken back at 30. */
const revoked = (): AccessChecks => {
  const checks = restricted();
  checks.applied(revoke, changed(20));
  checks.applied(restore, changed(30));
  return checks;
};

describe('what is shown', () => {
  test('to whom the newest that the gateway was told forbids it is seen', () => {
    const checks = restricted();
    expect(violationOf(() => checks.sent(told(10), push('k/2', 9)))).toBe('shown to whom it may be');
    expect(violationOf(() => checks.sent(told(10), push('k/1', 11)))).toBeUndefined();
    // It has not heard of it, and the change is older.
    expect(violationOf(() => checks.sent(told(0), push('k/2', 9)))).toBeUndefined();
  });

  test('and is later than what forbids it is seen, whatever the gateway was told', () => {
    const checks = restricted();
    expect(violationOf(() => checks.sent(told(0), push('k/2', 11)))).toBe('shown to whom it may be');
  });

  test('to the revoked is seen, as is a connection that is kept', () => {
    const checks = revoked();
    const nothing = { answers: [], pushes: [] };
    expect(violationOf(() => checks.sent(told(20), nothing))).toBe('the revoked are closed');
    expect(violationOf(() => checks.kept(told(20)))).toBe('the revoked are closed');
    expect(violationOf(() => checks.sent(told(30), push('k/1', 25)))).toBeUndefined();
    expect(violationOf(() => checks.sent(told(19), push('k/1', 25)))).toBe('shown to whom it may be');
  });
});

describe('what leaves a socket later than it was given to it', () => {
  test('to the revoked is seen, as are pushes and answers that the newest forbids', () => {
    const checks = revoked();
    const nothing = { answers: [], pushes: [] };
    for (const shown of [push, got]) {
      expect(violationOf(() => checks.sent(told(0), shown('k/2', 9)))).toBeUndefined();
      expect(violationOf(() => checks.sent(told(10), shown('k/2', 9)))).toBe('shown to whom it may be');
      expect(violationOf(() => checks.sent(told(19), shown('k/1', 9)))).toBeUndefined();
      expect(violationOf(() => checks.sent(told(30), shown('k/1', 9)))).toBeUndefined();
    }
    expect(violationOf(() => checks.sent(told(19), nothing))).toBeUndefined();
    expect(violationOf(() => checks.sent(told(20), nothing))).toBe('the revoked are closed');
  });
});

describe('a write', () => {
  test('that was let through or refused against the policies at its place is seen', () => {
    const checks = restricted();
    expect(violationOf(() => checks.judged(write('k/2'), written))).toBe('writes are allowed');
    expect(violationOf(() => checks.judged(write('k/2'), refused))).toBeUndefined();
    expect(violationOf(() => checks.judged(write('k/1'), refused))).toBe('writes are allowed');
    expect(violationOf(() => checks.judged(write('k/1'), written))).toBeUndefined();
  });

  test('of the revoked is seen', () => {
    const checks = restricted();
    checks.applied(revoke, changed(20));
    expect(violationOf(() => checks.judged(write('k/1'), written))).toBe('writes are allowed');
    checks.applied(restore, changed(30));
    expect(violationOf(() => checks.judged(write('k/1'), written))).toBeUndefined();
  });
});

test('a gateway that goes by what counts no longer is seen in the end', () => {
  const checks = revoked();
  expect(violationOf(() => checks.converged([told(30), told(35)]))).toBeUndefined();
  expect(violationOf(() => checks.converged([told(30), told(20)]))).toBe('same access');
});

test('who was refused something, or revoked, at any time is known', () => {
  const checks = new AccessChecks();
  expect(checks.wasRestricted(principal)).toBe(false);
  checks.applied(revoke, changed(20));
  checks.applied(restore, changed(30));
  expect(checks.wasRevoked(principal)).toBe(true);
  expect(checks.isRevoked(principal)).toBe(false);
  expect(checks.wasRestricted(principal)).toBe(true);
  expect(checks.isRestricted(principal)).toBe(false);
});
