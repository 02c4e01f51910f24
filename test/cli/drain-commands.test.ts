import { describe, expect, test } from 'vitest';
import type { DrainStanding, MemberStatus, Rebalanced } from '../../src/protocol/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import type { CommandClient } from '../../src/cli/index.ts';
import { runCommand } from './support/command.ts';
import { clientWith, listOf, member, three } from './support/members.ts';

const standing = (rest: Partial<DrainStanding> = {}): DrainStanding => ({
  member: 2,
  draining: true,
  agents: 12,
  graceMs: 5120,
  leader: 1,
  ...rest,
});

const drained = (
  rest: Partial<DrainStanding> = {},
  more: Partial<CommandClient> = {},
): Partial<CommandClient> =>
  clientWith([three], { drainServer: () => Promise.resolve(standing(rest)), ...more });

describe('drain', () => {
  test('says how many agents leave, within which time, and who leads', async () => {
    const outcome = await runCommand(['drain', 'server-2', '--grace', '10s'], { client: drained() });
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    expect(outcome.stdout).toBe(
      'server 2 (server-2) takes no agents: its 12 agents leave within 5.1 s; server 1 (server-1) leads\n',
    );
    expect(outcome.calls.find(([method]) => method === 'drainServer')).toEqual([
      'drainServer',
      2,
      { graceMs: 10_000, end: false, timeoutMs: 30_000 },
    ]);
  });

  test('says that a server without another to lead leads on, and that one without agents has none', async () => {
    const client = drained({ agents: 0, leader: 2 });
    expect((await runCommand(['drain', '2'], { client })).stdout).toBe(
      'server 2 (server-2) takes no agents: it has none; it leads on, since no other server can now, and hands over as soon as one can\n',
    );
    const alone = await runCommand(['drain', '2'], { client: drained({ agents: 1, leader: undefined }) });
    expect(alone.stdout).toContain('its 1 agent leaves within 5.1 s; no leader is known there');
  });

  test('--end takes agents again, and goes with neither --grace nor --wait', async () => {
    const client = drained({ draining: false, agents: 0, graceMs: 0 });
    const outcome = await runCommand(['drain', '2', '--end'], { client });
    expect(outcome.stdout).toBe(
      'server 2 (server-2) takes agents: it has none now, see futurestore rebalance\n',
    );
    for (const extra of [['--grace', '5s'], ['--wait']])
      expect(await runCommand(['drain', '2', '--end', ...extra], { client })).toMatchObject({ code: 2 });
  });

  test('--wait ends when the server has no agents any more, or tells how many it has', async () => {
    const counts = [12, 3, 0];
    const line = (connections: number): MemberStatus => ({
      id: 2,
      name: 'server-2',
      role: 'follower',
      term: 1,
      commitIndex: 1,
      appliedIndex: 1,
      keys: 0,
      connections,
      agentsUrl: '',
      version: '1',
      heardMsAgo: 0,
      lag: 0,
      draining: true,
    });
    const status = () =>
      Promise.resolve({
        clusterId: 'c',
        epoch: 1,
        revision: 1,
        serverId: 1,
        members: [line(counts.length > 1 ? (counts.shift() ?? 0) : (counts[0] ?? 0))],
      });
    const done = await runCommand(['drain', '2', '--wait'], { client: drained({}, { status }) });
    expect(done).toMatchObject({ code: 0, stderr: '' });
    expect(done.stdout).toMatch(/leads\nall have left\n$/);
    expect(done.calls.filter(([method]) => method === 'status')).toHaveLength(3);

    counts.splice(0, counts.length, 1);
    const late = await runCommand(['drain', '2', '--wait'], { client: drained({}, { status }) });
    expect(late).toMatchObject({ code: 4 });
    expect(late.stderr).toContain(
      'server 2 is drained, but not empty within 35120 ms: 1 agent is still there',
    );
  });

  test('--json prints all of it; a refusal has exit code 7; an unknown server is a wrong call', async () => {
    const json = await runCommand(['drain', '2', '--json'], { client: drained({ leader: undefined }) });
    expect(JSON.parse(json.stdout)).toEqual({ ...standing(), leader: null, name: 'server-2' });
    const refusal = new FuturestoreError('DRAIN_REFUSED', 'nowhere to go');
    const refused = drained({}, { drainServer: () => Promise.reject(refusal) });
    expect(await runCommand(['drain', '2'], { client: refused })).toMatchObject({
      code: 7,
      stderr: 'futurestore: nowhere to go\n',
    });
    expect(await runCommand(['drain', 'nobody'], { client: drained() })).toMatchObject({ code: 2 });
  });
});

describe('rebalance', () => {
  const rebalanced: Rebalanced = {
    servers: [
      { member: 1, name: 'server-1', agents: 10, moving: 4, leftOut: false },
      { member: 2, name: 'server-2', agents: 2, moving: 0, leftOut: false },
      { member: 3, name: 'server-3', agents: 0, moving: 0, leftOut: true },
    ],
    graceMs: 5040,
  };

  test('prints for each server how many agents it had, and how many of them move', async () => {
    const client = { rebalance: () => Promise.resolve(rebalanced) };
    const outcome = await runCommand(['rebalance', '--grace', '1m'], { client });
    expect(outcome.stdout).toBe(
      [
        'NAME      AGENTS  MOVING',
        'server-1  10      4',
        'server-2  2       0',
        'server-3  -       left out',
        '4 agents move within 5 s',
        '',
      ].join('\n'),
    );
    expect(outcome.calls[0]).toEqual(['rebalance', { graceMs: 60_000, timeoutMs: 30_000 }]);
    const json = await runCommand(['rebalance', '--json'], { client });
    expect(JSON.parse(json.stdout)).toEqual(rebalanced);
  });

  test('says when nobody has to move', async () => {
    const [, second] = rebalanced.servers;
    const client = {
      rebalance: () => Promise.resolve({ servers: second === undefined ? [] : [second], graceMs: 5000 }),
    };
    expect((await runCommand(['rebalance'], { client })).stdout).toMatch(/nobody has to move\n$/);
  });
});

test('the list of members shows who is draining', async () => {
  const client = clientWith([listOf([member(1), member(2, { draining: true })])]);
  const { stdout } = await runCommand(['member', 'list'], { client });
  expect(stdout).toContain('2   server-2  voter, draining');
});
