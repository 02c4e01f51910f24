import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { initCluster } from '../../src/cli/authority/cluster-directory.ts';
import { parseServerConfiguration } from '../../src/cli/configuration/server-configuration.ts';
import { readServerConfiguration, readServerFiles } from '../../src/cli/server-files.ts';
import type { Member } from '../../src/protocol/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { nowMs, runCommand, temporaryDirectory } from './support/command.ts';
import { clientWith, listOf, member, three } from './support/members.ts';

const directory = temporaryDirectory();
const cluster = join(directory.path, '.futurestore');
let clusterId = '';

beforeAll(async () => {
  ({ clusterId } = await initCluster({
    directory: cluster,
    servers: 3,
    hosts: [],
    basePort: 7421,
    nowMs,
  }));
});
afterAll(() => directory.remove());

const refused = (message: string) => () =>
  Promise.reject(new FuturestoreError('MEMBERSHIP_REFUSED', message));
const adding = (id: number) => ({ addMember: () => Promise.resolve(id) });
const done = () => Promise.resolve();
/** With the administrator's profile, in the directory that init made. */
const here = { workingDirectory: directory.path, variables: {} };
const learner = (id: number, rest: Partial<Member> = {}): Member =>
  member(id, { standing: 'learner', wanted: 'learner', ...rest });
const four = listOf([...three.members, learner(4)]);

describe('member list', () => {
  test('prints a line for each server, and who leads', async () => {
    const client = clientWith([
      listOf([member(1), member(2, { standing: 'leaving', wanted: 'removed', reachable: false, lag: 12 })], {
        leader: 1,
        changePending: true,
      }),
    ]);
    const outcome = await runCommand(['member', 'list'], { client });
    expect(outcome.stdout).toBe(
      [
        'leader server-1  a change is under way',
        'ID  NAME      STANDING  WANTED   REACHABLE  LAG  PEERS           AGENTS',
        '1   server-1  voter     voter    yes        0    127.0.0.1:7431  wss://127.0.0.1:7421',
        '2   server-2  leaving   removed  no         12   127.0.0.1:7432  wss://127.0.0.1:7422',
        '',
      ].join('\n'),
    );
    expect(outcome.calls[0]).toEqual(['members', { timeoutMs: 30_000 }]);
  });

  test('--json prints all of it', async () => {
    const list = { ...three, leader: undefined };
    const outcome = await runCommand(['member', 'list', '--json'], { client: clientWith([list]) });
    expect(JSON.parse(outcome.stdout)).toEqual({ ...list, leader: null });
  });

  test('what a server sent is safe on a terminal', async () => {
    const client = clientWith([listOf([member(1, { name: 'a\u001b[31m' })], { leader: undefined })]);
    expect((await runCommand(['member', 'list'], { client })).stdout).not.toContain('\u001b');
  });
});

describe('member add', () => {
  test('asks for an id beside the others, and makes a directory that a server starts from', async () => {
    const outcome = await runCommand(['member', 'add', 'server-4'], {
      ...here,
      client: clientWith([three], adding(4), clusterId),
    });
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    expect(outcome.profiles).toEqual([join(cluster, 'admin.yaml')]);
    expect(outcome.calls).toContainEqual([
      'addMember',
      { name: 'server-4', peersAddress: '127.0.0.1:7434', agentsUrl: 'wss://127.0.0.1:7424' },
      { timeoutMs: 30_000 },
    ]);
    const file = join(cluster, 'server-4', 'server.yaml');
    expect(outcome.stdout).toContain('server 4 (server-4) is added, as a learner');
    expect(outcome.stdout).toContain(`\n  futurestore server --config ${file} --join\n`);
    expect(outcome.stdout).toContain('\n  futurestore member promote 4\n');
    const configuration = readServerConfiguration(file);
    expect(configuration).toMatchObject({
      clusterId,
      join: true,
      self: { id: 4, name: 'server-4', agents: 'wss://127.0.0.1:7424' },
      adminListen: { host: '127.0.0.1', port: 7444 },
      agents: { listen: { host: '127.0.0.1', port: 7424 } },
    });
    expect(configuration.members.map(({ id }) => id)).toEqual([1, 2, 3, 4]);
    expect(() => readServerFiles(configuration, nowMs)).not.toThrow();
  });

  test("the administrator's profile knows the new server, and is otherwise as it was", () => {
    const text = readFileSync(join(cluster, 'admin.yaml'), 'utf8');
    expect(parse(text)).toMatchObject({
      endpoints: [1, 2, 3, 4].map((id) => `wss://127.0.0.1:${7420 + id}`),
      ca: 'ca/servers.pem',
    });
    expect(text).toContain('# Who signed');
  });

  test('begun again, it goes on with the same addresses', async () => {
    const added = await runCommand(['member', 'add', 'server-4'], {
      ...here,
      client: clientWith(
        [listOf([...three.members, learner(4, { reachable: false })])],
        adding(4),
        clusterId,
      ),
    });
    expect(added.code).toBe(0);
    expect(added.calls).toContainEqual([
      'addMember',
      expect.objectContaining({ agentsUrl: 'wss://127.0.0.1:7424' }),
      expect.anything(),
    ]);
  });

  test('a directory with data is not written over', async () => {
    mkdirSync(join(cluster, 'server-8', 'data'), { recursive: true });
    const outcome = await runCommand(['member', 'add', 'x'], {
      ...here,
      client: clientWith([three], adding(8), clusterId),
    });
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toMatch(
      /server 8 \(x\) is added, but .*server-8 is the directory of a server that has been run/,
    );
    rmSync(join(cluster, 'server-8'), { recursive: true });
  });

  test('ports that others have are left out, a port that was chosen is taken', async () => {
    // 7423 would have 7433 for peers, which server 2 has.
    const strange = listOf([
      member(1),
      member(2, { agentsUrl: 'wss://127.0.0.1:7422', peersAddress: '127.0.0.1:7433' }),
    ]);
    const asked = async (options: string[]): Promise<unknown> => {
      const outcome = await runCommand(['member', 'add', 'y', ...options], {
        ...here,
        client: clientWith([strange], adding(9), clusterId),
      });
      rmSync(join(cluster, 'server-9'), { recursive: true });
      return outcome.calls.find(([method]) => method === 'addMember')?.[1];
    };
    expect(await asked([])).toMatchObject({
      agentsUrl: 'wss://127.0.0.1:7424',
      peersAddress: '127.0.0.1:7434',
    });
    expect(await asked(['--port', '9000', '--host', '::1'])).toMatchObject({
      agentsUrl: 'wss://[::1]:9000',
      peersAddress: '[::1]:9010',
    });
  });

  test('of servers on several hosts the new one must be named, and its files be copied', async () => {
    const spread = listOf([
      member(1, { peersAddress: 'fs1.example.com:7431', agentsUrl: 'wss://fs1.example.com:7421' }),
    ]);
    const client = clientWith([spread], adding(5), clusterId);
    const unnamed = await runCommand(['member', 'add', 'z'], { ...here, client });
    expect(unnamed).toMatchObject({ code: 2, stdout: '' });
    expect(unnamed.stderr).toMatch(/--host is missing: the servers are at fs1\.example\.com/);
    const named = await runCommand(['member', 'add', 'z', '--host', 'fs5.example.com'], { ...here, client });
    expect(named.stdout).toContain('copy to fs5.example.com');
    const configuration = readServerConfiguration(join(cluster, 'server-5', 'server.yaml'));
    expect(configuration.agents.listen.host).toBe('0.0.0.0');
    expect(configuration.self.agents).toBe('wss://fs5.example.com:7422');
    rmSync(join(cluster, 'server-5'), { recursive: true });
  });

  test('with addresses of its own it only registers, and says what its server.yaml needs', async () => {
    const addresses = ['--peers', 'fs4:7431', '--agents', 'wss://fs4:7421'];
    const outcome = await runCommand(['member', 'add', 'fs4', ...addresses], {
      client: clientWith([three], adding(4)),
    });
    expect(outcome.calls).toContainEqual([
      'addMember',
      { name: 'fs4', peersAddress: 'fs4:7431', agentsUrl: 'wss://fs4:7421' },
      { timeoutMs: 30_000 },
    ]);
    expect(outcome.stdout).toContain('\nmember: 4\n');
    expect(outcome.stdout).toContain(
      '- { id: 4, name: fs4, peers: "fs4:7431", agents: "wss://fs4:7421" }'.replaceAll('"', ''),
    );
    const bad = await runCommand(['member', 'add', 'fs4', '--peers', 'fs4', '--agents', 'wss://fs4:7421'], {
      client: clientWith([three]),
    });
    expect(bad).toMatchObject({ code: 2, stderr: expect.stringContaining('--peers "fs4" is no address') });
  });

  test('nothing is asked of the cluster that could not be made', async () => {
    const elsewhere = await runCommand(['member', 'add', 'a', '--dir', 'nowhere'], {
      client: clientWith([three]),
    });
    expect(elsewhere).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/cannot read .*nowhere\/ca\/servers\.pem/),
    });
    const foreign = await runCommand(['member', 'add', 'a'], { ...here, client: clientWith([three]) });
    expect(foreign).toMatchObject({ code: 2, stderr: expect.stringContaining('is of the cluster') });
    const badName = await runCommand(['member', 'add', 'a/b'], { ...here, client: clientWith([three]) });
    expect(badName).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('"a/b" is no name for a server'),
    });
    const nine = listOf(Array.from({ length: 9 }, (_, index) => member(index + 1)));
    const full = await runCommand(['member', 'add', 'a'], { ...here, client: clientWith([nine]) });
    expect(full).toMatchObject({ code: 2, stderr: expect.stringContaining('as many as it may have') });
  });

  test('a refusal is told with its reason', async () => {
    const outcome = await runCommand(['member', 'add', 'q'], {
      ...here,
      client: clientWith(
        [three],
        { addMember: refused('server-2 runs a version that knows no changes') },
        clusterId,
      ),
    });
    expect(outcome).toMatchObject({
      code: 7,
      stderr: 'futurestore: server-2 runs a version that knows no changes\n',
    });
    expect(existsSync(join(cluster, 'server-q'))).toBe(false);
  });
});

describe('member promote', () => {
  test('waits until the server votes', async () => {
    const client = clientWith([four, four, listOf([...three.members, member(4)])], { promoteMember: done });
    const outcome = await runCommand(['member', 'promote', 'server-4'], { client });
    expect(outcome).toMatchObject({ code: 0, stdout: 'server 4 (server-4) votes now\n' });
    expect(outcome.calls.map(([method]) => method)).toEqual([
      'members',
      'promoteMember',
      'members',
      'members',
      'close',
    ]);
    expect(outcome.calls[1]).toEqual(['promoteMember', 4, { timeoutMs: 30_000 }]);
  });

  test('asks again while the server catches up, and no longer', async () => {
    const behind = listOf([...three.members, learner(4, { lag: 5000 })]);
    let refusals = 0;
    const client = clientWith([behind, behind, behind, listOf([...three.members, member(4)])], {
      promoteMember: () => {
        refusals += 1;
        return refusals < 3 ? refused('server 4 is 5000 entries behind')() : Promise.resolve();
      },
    });
    const outcome = await runCommand(['member', 'promote', '4'], { client });
    expect(outcome).toMatchObject({ code: 0, stdout: 'server 4 (server-4) votes now\n' });
    const never = clientWith([behind], { promoteMember: refused('server 4 is 5000 entries behind') });
    expect(await runCommand(['member', 'promote', '4', '--timeout', '2s'], { client: never })).toMatchObject({
      code: 7,
      stderr: 'futurestore: server 4 is 5000 entries behind\n',
    });
  });

  test('what is no matter of time is refused at once', async () => {
    const client = clientWith([three], { promoteMember: refused('member 2 votes already') });
    const outcome = await runCommand(['member', 'promote', '2'], { client });
    expect(outcome).toMatchObject({ code: 7, stderr: 'futurestore: member 2 votes already\n' });
    expect(outcome.calls.filter(([method]) => method === 'promoteMember')).toHaveLength(1);
  });

  test('--no-wait asks once, and says that it is to come', async () => {
    const outcome = await runCommand(['member', 'promote', '4', '--no-wait', '--json'], {
      client: clientWith([four], { promoteMember: done }),
    });
    expect(JSON.parse(outcome.stdout)).toEqual({ member: 4, name: 'server-4', done: false });
    const behind = clientWith([listOf([...three.members, learner(4, { lag: 5000 })])], {
      promoteMember: refused('server 4 is 5000 entries behind'),
    });
    expect((await runCommand(['member', 'promote', '4', '--no-wait'], { client: behind })).code).toBe(7);
  });

  test('a change that is not carried out in time is told with how far it is', async () => {
    const client = clientWith([four], { promoteMember: done });
    const outcome = await runCommand(['member', 'promote', '4', '--timeout', '5s'], { client });
    expect(outcome.code).toBe(4);
    expect(outcome.stderr).toMatch(
      /in the log, but not carried out within 5000 ms: server 4 \(server-4\) is learner/,
    );
  });
});

describe('member remove', () => {
  test('waits until the server is gone', async () => {
    const leaving = listOf([member(1), member(2), member(3, { standing: 'leaving', wanted: 'removed' })]);
    const client = clientWith([three, leaving, listOf([member(1), member(2)])], { removeMember: done });
    const outcome = await runCommand(['member', 'remove', '3'], { client });
    expect(outcome.code).toBe(0);
    expect(outcome.stdout).toBe(
      'server 3 (server-3) is no member any more, its process ends by itself\nnever start it again\n',
    );
    expect(outcome.calls[1]).toEqual(['removeMember', 3, { timeoutMs: 30_000 }]);
  });

  test('says which directory is no longer used', async () => {
    const client = clientWith([three, listOf([member(1)])], { removeMember: done });
    const outcome = await runCommand(['member', 'remove', '2'], { ...here, client });
    expect(outcome.stdout).toContain(`again: ${join(cluster, 'server-2')} is no longer used, remove it\n`);
  });

  test("takes the server's address out of the administrator's profile, unless another has it", async () => {
    const profile = join(cluster, 'admin.yaml');
    const before = readFileSync(profile, 'utf8');
    const endpoints = (): unknown =>
      (parse(readFileSync(profile, 'utf8')) as { endpoints: unknown }).endpoints;
    try {
      writeFileSync(
        profile,
        before.replace(/^endpoints:(\n +- .*)+/m, 'endpoints: [wss://127.0.0.1:7421, wss://127.0.0.1:7422]'),
      );
      expect(endpoints()).toHaveLength(2);
      const twin = listOf([member(1), member(2), member(3, { agentsUrl: 'wss://127.0.0.1:7422' })]);
      const removing = (list: typeof three, who: number) => ({
        ...here,
        client: clientWith([list, listOf(list.members.filter(({ id }) => id !== who))], {
          removeMember: done,
        }),
      });
      expect((await runCommand(['member', 'remove', '3'], removing(twin, 3))).code).toBe(0);
      expect(endpoints()).toHaveLength(2);
      expect((await runCommand(['member', 'remove', '2'], removing(three, 2))).code).toBe(0);
      expect(endpoints()).toEqual(['wss://127.0.0.1:7421']);
      // The last one stays: nothing else could be asked.
      expect((await runCommand(['member', 'remove', '1'], removing(three, 1))).code).toBe(0);
      expect(endpoints()).toEqual(['wss://127.0.0.1:7421']);
    } finally {
      writeFileSync(profile, before);
    }
  });

  test('a refusal counts only while the server is there: the first answer may have been lost', async () => {
    const gone = listOf([member(1), member(2)]);
    const client = clientWith([three, gone], { removeMember: refused('member 3 has left the cluster') });
    expect((await runCommand(['member', 'remove', '3'], { client })).code).toBe(0);
    const still = clientWith([three], { removeMember: refused('a majority would be missing') });
    expect(await runCommand(['member', 'remove', '3'], { client: still })).toMatchObject({
      code: 7,
      stderr: 'futurestore: a majority would be missing\n',
    });
  });

  test.each([
    ['9', /no server is called 9: there are 1 \(server-1\), 2 \(server-2\), 3 \(server-3\)/],
    ['twin', /2 servers are called twin: say which by its id, 4 or 5/],
  ])('%s names nobody, or two', async (who, message) => {
    const twins = [member(4, { name: 'twin' }), member(5, { name: 'twin' })];
    const client = clientWith([who === 'twin' ? listOf(twins) : three]);
    const outcome = await runCommand(['member', 'remove', who], { client });
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toMatch(message);
  });

  test('an id comes before a name that looks like one', async () => {
    const client = clientWith([listOf([member(1), member(2, { name: '1' })]), listOf([])], {
      removeMember: done,
    });
    const outcome = await runCommand(['member', 'remove', '1'], { client });
    expect(outcome.calls[1]?.[1]).toBe(1);
  });
});

describe('member replace', () => {
  const lost = listOf([member(1), member(2), member(3, { reachable: false, lag: 70 })]);
  const after = listOf([member(1), member(2), member(6, { name: 'server-3' })]);

  test('puts a server of the same name at the same place, and says what is no longer used', async () => {
    const outcome = await runCommand(['member', 'replace', 'server-3'], {
      ...here,
      client: clientWith([lost, lost, after], adding(6), clusterId),
    });
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    expect(outcome.calls).toContainEqual([
      'addMember',
      { name: 'server-3', peersAddress: '127.0.0.1:7433', agentsUrl: 'wss://127.0.0.1:7423', replaces: 3 },
      { timeoutMs: 30_000 },
    ]);
    const file = join(cluster, 'server-6', 'server.yaml');
    const configuration = parseServerConfiguration(readFileSync(file, 'utf8'), file);
    expect(configuration.members.map(({ id, name }) => [id, name])).toEqual([
      [1, 'server-1'],
      [2, 'server-2'],
      [6, 'server-3'],
    ]);
    expect(() => readServerFiles(configuration, nowMs)).not.toThrow();
    expect(outcome.stdout).toContain('server 6 (server-3) comes in the place of server 3 (server-3)');
    expect(outcome.stdout).toContain(`${join(cluster, 'server-3')} is no longer used, remove it`);
    expect(outcome.stdout).toMatch(
      /the cluster counts on server 6 \(server-3\) now, and server 3 .* any more\n$/,
    );
  });

  test('given twice by name does not replace the one that is still to come; by id it does', async () => {
    const coming = member(6, { name: 'server-3', reachable: false, joined: false });
    const list = listOf([member(1), member(2), coming]);
    const twice = await runCommand(['member', 'replace', 'server-3'], {
      ...here,
      client: clientWith([list]),
    });
    expect(twice).toMatchObject({ code: 7, stdout: '' });
    expect(twice.stderr).toMatch(/server 6 \(server-3\) has not taken part yet .* member replace 6\n$/);
    const client = clientWith([list], adding(8), clusterId);
    const meant = await runCommand(['member', 'replace', '6', '--no-wait'], { ...here, client });
    expect(meant.code).toBe(0);
    expect(meant.calls).toContainEqual([
      'addMember',
      expect.objectContaining({ replaces: 6 }),
      expect.anything(),
    ]);
    rmSync(join(cluster, 'server-8'), { recursive: true });
  });

  test('of one that still runs here gets ports of its own, under another name', async () => {
    const client = clientWith([three], adding(7), clusterId);
    const outcome = await runCommand(['member', 'replace', '3', 'new-3', '--no-wait', '--json'], {
      ...here,
      client,
    });
    expect(JSON.parse(outcome.stdout)).toEqual({
      member: 7,
      name: 'new-3',
      peersAddress: '127.0.0.1:7434',
      agentsUrl: 'wss://127.0.0.1:7424',
      directory: join(cluster, 'server-7'),
      replaces: 3,
      done: false,
    });
  });

  test('that is not carried out in time says how far both are', async () => {
    const between = listOf([...lost.members, member(6, { name: 'server-3', standing: 'joining' })]);
    const outcome = await runCommand(['member', 'replace', '3', '--timeout', '1s'], {
      ...here,
      client: clientWith([lost, between], adding(6), clusterId),
    });
    expect(outcome.code).toBe(4);
    expect(outcome.stderr).toMatch(/server 6 \(server-3\) is joining.*server 3 \(server-3\) is voter/);
  });
});

describe('transfer-leader', () => {
  test('says who leads now', async () => {
    const client = clientWith([three], { transferLeader: () => Promise.resolve(2) });
    const outcome = await runCommand(['transfer-leader'], { client });
    expect(outcome.stdout).toBe('server 2 (server-2) leads now\n');
    expect(outcome.calls[1]).toEqual(['transferLeader', { timeoutMs: 30_000 }]);
    const named = await runCommand(['transfer-leader', 'server-2', '--json'], { client });
    expect(named.calls[1]).toEqual(['transferLeader', { timeoutMs: 30_000, to: 2 }]);
    expect(JSON.parse(named.stdout)).toEqual({ leader: 2, name: 'server-2' });
  });

  test('to who leads already is done', async () => {
    const outcome = await runCommand(['transfer-leader', '1'], { client: clientWith([three]) });
    expect(outcome).toMatchObject({ code: 0, stdout: 'server 1 (server-1) leads already\n' });
  });
});
