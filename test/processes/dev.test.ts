import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { command, eventually, freeBasePort, run } from '../support/process-cluster.ts';

const directory = mkdtempSync(join(tmpdir(), 'futurestore-dev-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

test('dev makes a cluster, runs its servers, says what to try, and stops them all', async () => {
  const home = join(directory, 'cluster');
  const port = await freeBasePort();
  const child = spawn(process.execPath, [command, 'dev', '--dir', home, '--port', `${port}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  try {
    await eventually('dev says what to try', async () => output.includes('Ctrl-C'));
    const servers = output.split('\n').filter((line) => /^server-[123] /.test(line));
    expect(servers).toHaveLength(3);
    expect(servers.filter((line) => line.includes('leader'))).toHaveLength(1);
    for (const offset of [0, 1, 2]) expect(output).toContain(`wss://127.0.0.1:${port + offset}`);
    const pasted = /npx futurestore (resolve .*)/.exec(output)?.[1]?.split(' ') ?? [];
    expect(await run(pasted)).toMatchObject({ code: 0 });
    const pids = servers.map((line) => Number(line.split(/ +/)[4]));
    expect(pids.every(isAlive)).toBe(true);
    const ended = once(child, 'exit');
    child.kill('SIGINT');
    expect(await ended).toEqual([0, null]);
    expect(pids.some(isAlive)).toBe(false);
    for (const number of [1, 2, 3]) {
      expect(readFileSync(join(home, `server-${number}`, 'server.log'), 'utf8')).toMatch(/"stopped"/);
    }
  } finally {
    if (child.exitCode === null) child.kill('SIGKILL');
  }
  expect(existsSync(join(home, 'admin.yaml'))).toBe(true);
});

test('dev runs the others where one has been removed, before or meanwhile', async () => {
  const home = join(directory, 'smaller');
  const port = await freeBasePort();
  const profile = join(home, 'admin.yaml');
  for (const removes of [true, false]) {
    const child = spawn(process.execPath, [command, 'dev', '--dir', home, '--port', `${port}`], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let errors = '';
    child.stdout.on('data', (data: Buffer) => (output += data.toString()));
    child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
    try {
      await eventually('dev says what to try', async () => output.includes('Ctrl-C'));
      if (removes) {
        const removed = await run(['member', 'remove', '3', '--profile', profile]);
        expect(removed).toMatchObject({ code: 0 });
      }
      const said = `server-3 (server 3) is no member of the cluster any more: ${join(home, 'server-3')} is no longer used`;
      await eventually('dev says who is no member', async () => errors.includes(said));
      expect(await run(['resolve', `dev/${removes}`, 'value', '--profile', profile])).toMatchObject({
        code: 0,
      });
      const ended = once(child, 'exit');
      child.kill('SIGINT');
      expect(await ended).toEqual([0, null]);
    } finally {
      if (child.exitCode === null) child.kill('SIGKILL');
    }
  }
});
