import { describe, expect, test } from 'vitest';
import type { Raft } from '../../src/raft/index.ts';
import { silentLogger } from '../../src/server/index.ts';
import { Commands } from '../../src/server/commands.ts';
import { decodeCommand, encodeCommand } from '../../src/store/index.ts';

const lost = { kind: 'server_lost', member: 2, run: 1 } as const;
const ofPeer = encodeCommand({ ...lost, origin: { member: 2, run: 1, request: 1 } });

const setup = () => {
  const forwarded: number[] = [];
  const tokens: number[] = [];
  const raft = {
    step: (input: { proposals: readonly { token: number }[] }) => {
      for (const { token } of input.proposals) tokens.push(token);
    },
  } as unknown as Raft;
  const commands = new Commands({
    member: 1,
    run: 1,
    entryTimeMs: () => 1,
    logger: silentLogger,
    forward: (encoded) => {
      for (const command of encoded) forwarded.push(decodeCommand(command).origin.request);
      return true;
    },
  });
  const dropLast = (): void =>
    commands.dropped({ kind: 'proposal', token: tokens.at(-1) ?? 0, reason: 'not_leader' });
  return { commands, raft, forwarded, dropLast, submit: () => commands.submit(lost) };
};

describe("a server's commands", () => {
  test('keep their order when the last ones are dropped in the turn in which a new leader is found', () => {
    const { commands, raft, forwarded, dropLast, submit } = setup();
    submit();
    submit();
    submit();
    commands.propose(raft);
    commands.settle();
    submit();
    commands.propose(raft);
    dropLast();
    commands.sendAgain();
    commands.settle();
    commands.retry();
    commands.forward();
    expect(forwarded).toEqual([1, 2, 3, 4]);
  });

  test('of others are let go with the leadership, also those that raft has just dropped', () => {
    const { commands, raft, forwarded, dropLast } = setup();
    commands.addForeign(2, [ofPeer]);
    commands.propose(raft);
    dropLast();
    commands.dropForeign();
    commands.sendAgain();
    commands.settle();
    commands.retry();
    commands.forward();
    expect(forwarded).toEqual([]);
    expect(commands.waiting).toBe(false);
  });

  test('that nobody waits for any more are let go, also while nobody leads', () => {
    const { commands, submit } = setup();
    for (let number = 0; number < 100; number += 1) commands.take(submit().number);
    commands.retry();
    expect(commands.pending).toBe(0);
    expect(commands.waiting).toBe(false);
  });

  test('that no server could read again are refused where they come from, and stay out of the log', () => {
    const { commands, raft, forwarded, submit } = setup();
    const nobody = { principal: { realm: '', name: 'x' }, credential: { realm: '', name: 'x' } };
    const document = Buffer.from('{}');
    expect(() => commands.submit({ kind: 'acl_apply', by: nobody, document })).toThrow(
      expect.objectContaining({
        code: 'INTERNAL',
        message: expect.stringContaining('acl_apply.by is nobody'),
      }),
    );
    const open = { kind: 'session_open', session: '0f'.repeat(16), principal: 'a:b' } as const;
    const rest = { graceMs: 1000, resume: false, connection: 1 };
    expect(() => commands.submit({ ...open, ...rest, subject: nobody })).toThrow(
      /session_open.subject is nobody/,
    );
    expect(() => commands.submit({ ...open, ...rest, graceMs: -1 })).toThrow(
      /session_open could not be read/,
    );
    expect(commands.pending).toBe(0);
    expect(commands.submit({ ...open, ...rest }).number).toBe(1);
    submit();
    commands.forward();
    commands.propose(raft);
    expect(forwarded).toEqual([1, 2]);
  });
});
