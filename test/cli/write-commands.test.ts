import { describe, expect, test } from 'vitest';
import type { Operation, OperationResult } from '../../src/protocol/index.ts';
import { limits } from '../../src/protocol/index.ts';
import { runCommand, type RunOptions } from './support/command.ts';

const writing = (result: Partial<OperationResult> = {}) => ({
  batch: () =>
    Promise.resolve({
      revision: 9,
      results: [{ generation: 2, state: 'resolved' as const, revision: 9, unchanged: false, ...result }],
    }),
});

/** The operation that the command sent. */
const operationOf = async (commandLine: readonly string[], options: RunOptions = {}): Promise<Operation> => {
  const outcome = await runCommand(commandLine, { client: writing(), ...options });
  expect(outcome).toMatchObject({ code: 0, stderr: '' });
  const [method, operations, requestOptions] = outcome.calls[0] ?? [];
  expect(method).toBe('batch');
  expect(requestOptions).toEqual({ timeoutMs: 30_000 });
  const [operation] = operations as readonly Operation[];
  if (operation === undefined) throw new Error('no operation was sent');
  return operation;
};

describe('resolve', () => {
  test('sends the argument as UTF-8, with no options unless given', async () => {
    expect(await operationOf(['resolve', 'a/b', 'grüße'])).toEqual({
      kind: 'resolve',
      key: 'a/b',
      preconditions: {},
      value: Buffer.from('grüße'),
      contentType: 'text/plain; charset=utf-8',
      sensitive: false,
      supersede: false,
    });
  });

  test('passes all options on', async () => {
    const options = [
      '--ttl',
      '24h',
      '--sensitive',
      '--supersede',
      '--if-revision',
      '17',
      '--content-type',
      'text/csv',
    ];
    expect(await operationOf(['resolve', 'a/b', 'v', ...options])).toMatchObject({
      preconditions: { ifRevision: 17 },
      ttlMs: 24 * 3600 * 1000,
      sensitive: true,
      supersede: true,
      contentType: 'text/csv',
    });
  });

  test('with - the value is standard input, byte for byte', async () => {
    const input = [Buffer.from('line\n'), Uint8Array.from([0, 255, 13, 10])];
    const operation = await operationOf(['resolve', 'a/b', '-'], { input });
    expect(operation).toMatchObject({ value: Buffer.concat(input), contentType: 'application/octet-stream' });
    expect(await operationOf(['resolve', 'a/b', '-'], { input: [] })).toMatchObject({
      value: Buffer.alloc(0),
    });
    expect(await operationOf(['resolve', 'a/b', ''])).toMatchObject({ value: Buffer.alloc(0) });
  });

  test('standard input beyond the largest value is refused before it is all read', async () => {
    const chunk = Buffer.alloc(1024 * 1024);
    const outcome = await runCommand(['resolve', 'a/b', '-'], {
      client: {},
      input: [chunk, chunk, chunk],
    });
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toContain(String(limits.valueBytesMax));
    expect(outcome.profiles).toEqual([]);
  });

  test('says what has happened, or that nothing had to', async () => {
    const done = await runCommand(['resolve', 'a/b', 'v'], { client: writing() });
    expect(done.stdout).toBe('a/b is resolved (generation 2, revision 9)\n');
    const same = await runCommand(['resolve', 'a/b', 'v'], { client: writing({ unchanged: true }) });
    expect(same.stdout).toBe('a/b was already resolved (generation 2, revision 9)\n');
    const json = await runCommand(['resolve', 'a/b', 'v', '--json'], { client: writing() });
    expect(JSON.parse(json.stdout)).toEqual({
      key: 'a/b',
      state: 'resolved',
      generation: 2,
      revision: 9,
      unchanged: false,
    });
  });

  test('never shows the value', async () => {
    const outcome = await runCommand(['resolve', 'a/b', 'hunter2', '--sensitive', '--json'], {
      client: writing(),
    });
    expect(outcome.stdout + outcome.stderr).not.toContain('hunter2');
  });
});

describe('the other writes', () => {
  test('reject sends message and code', async () => {
    expect(
      await operationOf(['reject', 'a', '--message', 'no disk', '--code', 'NO_DISK', '--ttl', '5m']),
    ).toEqual({
      kind: 'reject',
      key: 'a',
      preconditions: {},
      rejection: { code: 'NO_DISK', message: 'no disk' },
      ttlMs: 300_000,
      supersede: false,
    });
    expect(await operationOf(['reject', 'a', '--message', 'm'])).toMatchObject({
      rejection: { code: 'REJECTED' },
    });
  });

  test('declare is not tied to the command, which ends at once', async () => {
    expect(await operationOf(['declare', 'a', '--deadline', '30s', '--renew'])).toEqual({
      kind: 'declare',
      key: 'a',
      preconditions: {},
      renew: true,
      deadlineMs: 30_000,
      tied: false,
    });
    expect(await operationOf(['declare', 'a'])).toMatchObject({ renew: false, tied: false });
  });

  test('touch and delete', async () => {
    expect(await operationOf(['touch', 'a', '--ttl', '500ms'])).toMatchObject({ kind: 'touch', ttlMs: 500 });
    expect(await operationOf(['delete', 'a', '--if-revision', '3'])).toEqual({
      kind: 'delete',
      key: 'a',
      preconditions: { ifRevision: 3 },
    });
  });
});
