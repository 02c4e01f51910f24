import { describe, expect, test } from 'vitest';
import { describeError, endings, exitCodes, oneLine } from '../../src/cli/exit-codes.ts';
import type { ErrorCode } from '../../src/protocol/index.ts';
import { errorDefinitions, FuturestoreError } from '../../src/protocol/index.ts';
import { runCommand } from './support/command.ts';

/** Public interface, written down a second time on purpose: a change of the table must be meant. */
const expected: Record<ErrorCode, number> = {
  INVALID_ARGUMENT: 2,
  INVALID_KEY: 2,
  CONFIGURATION_INVALID: 2,
  FUTURE_REJECTED: 3,
  TIMED_OUT: 4,
  PERMISSION_DENIED: 5,
  UNAUTHENTICATED: 5,
  UNAVAILABLE: 6,
  TOO_MANY_REQUESTS: 6,
  QUEUE_FULL: 6,
  ALREADY_SETTLED: 7,
  PRECONDITION_FAILED: 7,
  ACCESS_REFUSED: 7,
  DRAIN_REFUSED: 7,
  RATE_LIMITED: 6,
  QUOTA_EXCEEDED: 1,
  MEMBERSHIP_REFUSED: 7,
  NOT_FOUND: 8,
  NO_VALUE: 8,
  VALUE_TOO_LARGE: 1,
  PROTOCOL_ERROR: 1,
  SESSION_EXPIRED: 1,
  STALE_REQUEST: 1,
  OUTCOME_UNKNOWN: 1,
  CANCELLED: 1,
  LIMIT_EXCEEDED: 1,
  VERSION_NOT_SUPPORTED: 1,
  CONNECTION_CLOSED: 1,
  MEMBER_REMOVED: 1,
  DATA_DAMAGED: 9,
  DATA_FOREIGN: 9,
  DATA_OUTDATED: 9,
  DATA_IN_USE: 1,
  INTERNAL: 1,
};

describe('exit codes', () => {
  test.each(Object.entries(expected))(
    'an error with code %s ends the command with %i',
    async (code, exit) => {
      const failing = () =>
        Promise.reject(new FuturestoreError(code as ErrorCode, 'what happened\nand where'));
      const outcome = await runCommand(['get', 'a/b'], { client: { get: failing } });
      expect(outcome.code).toBe(exit);
      expect(outcome.stdout).toBe('');
      expect(outcome.stderr).toMatch(/^futurestore: what happened and where[^\n]*\n$/);
      expect(outcome.calls.at(-1)?.[0]).toBe('close');
    },
  );

  test('every code of the registry has an ending, and only these', () => {
    expect(Object.keys(endings).toSorted()).toEqual(Object.keys(errorDefinitions).toSorted());
    expect(Object.keys(expected).toSorted()).toEqual(Object.keys(errorDefinitions).toSorted());
  });

  test('an error without a code of the registry ends with 1', () => {
    expect(describeError(new Error('it broke'))).toEqual({ line: 'it broke', exit: exitCodes.other });
    expect(describeError(Object.assign(new Error('no'), { code: 'toString' })).exit).toBe(exitCodes.other);
    expect(describeError('a string').exit).toBe(exitCodes.other);
  });

  test('what a user of a client can do is told to nobody else', async () => {
    const unavailable = new FuturestoreError('UNAVAILABLE', 'nobody answers');
    const advised = "nobody answers (check that the servers run and that the profile's endpoints are theirs)";
    expect(describeError(unavailable)).toEqual({ line: advised, exit: exitCodes.unavailable });
    expect(describeError(unavailable, false)).toEqual({
      line: 'nobody answers',
      exit: exitCodes.unavailable,
    });
    const failing = () => Promise.reject(unavailable);
    const client = await runCommand(['get', 'a/b'], { client: { get: failing } });
    expect(client.stderr).toBe(`futurestore: ${advised}\n`);
    const server = await runCommand(['server', '--config', 'none'], {
      get interruption(): AbortSignal {
        throw unavailable;
      },
    });
    expect(server).toMatchObject({ code: exitCodes.unavailable, stderr: 'futurestore: nobody answers\n' });
  });

  test('an error is one line without control characters, whatever a server sent', () => {
    const nasty = new FuturestoreError('NOT_FOUND', 'a\u001b[31mred\r\nb\tc\u0000\u202e');
    expect(describeError(nasty).line).toBe('a\ufffd[31mred b c\ufffd\ufffd');
    expect(oneLine('  x \n\n y ')).toBe('x y');
  });
});

describe('usage', () => {
  test.each([
    [['gett', 'a'], /unknown command 'gett'.*Did you mean get/],
    [['get'], /missing required argument 'key'.*futurestore get --help/],
    [['get', 'a', 'b'], /too many arguments/],
    [['get', 'a', '--jsn'], /unknown option '--jsn'.*Did you mean --json/],
    [['reject', 'a'], /--message <text>' not specified/],
    [['touch', 'a'], /--ttl <duration>' not specified/],
    [['get', 'a', '--timeout', '30'], /--timeout "30" is no duration/],
    [['get', 'a', '--timeout', '0s'], /--timeout "0s" is no duration/],
    [['get', 'a', '--timeout', '-5s'], /is no duration/],
    [['await', 'a', '--timeout', 'soon'], /--timeout "soon" is no duration/],
    [['resolve', 'a', 'b', '--ttl', '1w'], /--ttl "1w" is no duration/],
    [['resolve', 'a', 'b', '--if-revision', '1.5'], /--if-revision "1.5" is no whole number/],
    [['resolve', 'a', 'b', '--if-revision', '9007199254740993'], /is no whole number/],
    [['list', '**', '--limit', '0'], /--limit "0" is no whole number/],
    [['server'], /--config FILE/],
    [['member', 'ad', 'x'], /unknown command 'ad'.*Did you mean add.*futurestore member --help/],
    [['member', 'add'], /missing required argument 'name'.*futurestore member add --help/],
    [['member', 'add', 'x', '--peers', 'a:1'], /give --dir .* or --peers and --agents/],
    [['member', 'add', 'x', '--port', '65535'], /--port "65535" is no whole number/],
    [['member', 'add', 'x', '--host', 'a:b c'], /--host "a:b c" is no host name/],
    [['member', 'promote'], /missing required argument 'who'/],
    [['snapshot', 'save'], /missing required argument 'file'/],
    [['snapshot', 'restore', 'f'], /missing required argument 'dir'/],
    [['snapshot', 'restore', 'f', 'd', '--servers', '10'], /--servers "10" is no whole number/],
    [['init', 'x', '--servers', '10'], /--servers "10" is no whole number from 1 to 9/],
    [['init', 'x', '--port', '65535'], /--port "65535" is no whole number/],
    [['init', 'x', '--host', 'a b'], /--host "a b" is no host name/],
  ])('%j is refused with 2 and one line', async (commandLine, message) => {
    const outcome = await runCommand(commandLine);
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.stderr).toMatch(/^futurestore: [^\n]+\n$/);
    expect(outcome.stdout).toBe('');
    expect(outcome.profiles).toEqual([]);
  });

  test.each([[[]], [['member']], [['snapshot']]])(
    'without a command (after %j) the help is shown, and that is a usage error',
    async (words: string[]) => {
      const outcome = await runCommand(words);
      expect(outcome.code).toBe(2);
      const command = ['futurestore', ...words].join(' ');
      expect(outcome.stderr).toContain(`Usage: ${command}`);
      expect(outcome.stderr).toContain(`futurestore: no command was given (see ${command} --help)\n`);
    },
  );

  const commands = [
    'init',
    'cert',
    'server',
    'dev',
    'get',
    'await',
    'list',
    'watch',
    'declare',
    'resolve',
    'reject',
  ];
  const groups = ['member add', 'member list', 'member replace', 'snapshot save', 'snapshot restore'];
  test.each([...commands, 'delete', 'touch', 'status', 'transfer-leader', ...groups])(
    '%s --help explains it and ends with 0',
    async (command) => {
      const outcome = await runCommand([...command.split(' '), '--help']);
      expect(outcome.code).toBe(0);
      expect(outcome.stdout).toContain(`Usage: futurestore ${command}`);
      expect(outcome.stderr).toBe('');
    },
  );

  test('--version prints the version of the package', async () => {
    const outcome = await runCommand(['--version']);
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    expect(outcome.stdout).toMatch(/^[0-9]+\.[0-9]+\.[0-9]+\n$/);
  });
});
