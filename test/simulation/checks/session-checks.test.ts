import { describe, expect, test } from 'vitest';
import { SafetyViolation } from '../../../src/simulation/checks/index.ts';
import { SessionChecks } from '../../../src/simulation/checks/session-checks.ts';
import type { Command, CommandBody, CommandResult } from '../../../src/store/index.ts';

const session = 'a'.repeat(32);
const done: CommandResult = { kind: 'done' };

const by = (member: number, body: CommandBody): Command => ({
  origin: { member, run: 1, request: 1 },
  ...body,
});

const open = (member: number, connection: number): Command =>
  by(member, { kind: 'session_open', session, principal: 'p', graceMs: 1000, resume: true, connection });

const detach = (member: number, connection: number): Command =>
  by(member, { kind: 'session_detach', session, connection });

const seen = (work: () => void): boolean => {
  try {
    work();
    return false;
  } catch (error) {
    if (error instanceof SafetyViolation) return true;
    throw error;
  }
};

/** Opened at member 1 by connection 5 at 100. */
const opened = (): SessionChecks => {
  const checks = new SessionChecks();
  checks.applied(open(1, 5), done, 100);
  return checks;
};

describe('a session', () => {
  test('that stays attached where its connection has ended is seen', () => {
    const checks = opened();
    expect(seen(() => checks.idle(1))).toBe(false);
    checks.left(1, session);
    expect(seen(() => checks.idle(2))).toBe(false);
    expect(seen(() => checks.idle(1))).toBe(true);
    checks.applied(detach(1, 5), done, 200);
    expect(seen(() => checks.idle(1))).toBe(false);
  });

  test('that went on elsewhere, or whose server is lost or leaves, is not waited for', () => {
    const others: readonly Command[] = [
      open(2, 7),
      by(2, { kind: 'session_close', session, principal: 'p' }),
      by(2, { kind: 'server_lost', member: 1, run: 1 }),
      by(1, { kind: 'server_started', member: 1, run: 2, diskId: new Uint8Array(16) }),
      by(2, { kind: 'member_remove', member: 1 }),
    ];
    for (const other of others) {
      const checks = opened();
      checks.left(1, session);
      checks.applied(other, done, 200);
      expect(seen(() => checks.idle(1))).toBe(false);
    }
  });

  test('that is detached and never ends is seen', () => {
    const checks = opened();
    checks.applied(detach(1, 4), done, 200);
    expect(seen(() => checks.overdue(5000))).toBe(false);
    checks.applied(detach(1, 5), done, 300);
    expect(seen(() => checks.overdue(1299))).toBe(false);
    expect(seen(() => checks.overdue(1300))).toBe(true);
    checks.applied(by(1, { kind: 'expire', futures: [], sessions: [{ session, atMs: 1300 }] }), done, 1300);
    expect(seen(() => checks.overdue(5000))).toBe(false);
  });
});
