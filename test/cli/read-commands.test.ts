import { mkdirSync, writeFileSync } from 'node:fs';
import { FutureRejectedError } from '../../src/client/index.ts';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import type { SubscriptionEvent } from '../../src/cli/environment.ts';
import type { ClusterStatus, Future } from '../../src/protocol/index.ts';
import { FuturestoreError } from '../../src/protocol/index.ts';
import { future, nowMs, runCommand, temporaryDirectory } from './support/command.ts';

const answering = (found: Future | undefined) => ({ get: () => Promise.resolve(found) });
const binary = Uint8Array.from([0, 255, 10, 13, 128]);

describe('get', () => {
  test('prints the bare bytes of the value, with nothing added', async () => {
    const outcome = await runCommand(['get', 'a/b'], { client: answering(future('a/b', { value: binary })) });
    expect(outcome.code).toBe(0);
    expect([...outcome.stdoutBytes]).toEqual([...binary]);
    expect(outcome.calls).toEqual([['get', 'a/b', { timeoutMs: 30_000 }], ['close']]);
  });

  test('adds a newline on a terminal only', async () => {
    const client = answering(future('a/b', { value: Buffer.from('x') }));
    expect((await runCommand(['get', 'a/b'], { client, isTTY: true })).stdout).toBe('x\n');
    expect((await runCommand(['get', 'a/b'], { client })).stdout).toBe('x');
  });

  test('shows a sensitive value: it was asked for by its key', async () => {
    const secret = future('a/b', { sensitive: true, value: Buffer.from('hunter2') });
    expect((await runCommand(['get', 'a/b'], { client: answering(secret) })).stdout).toBe('hunter2');
  });

  test.each([
    ['no key', undefined, 8, 'there is no key a/b'],
    ['a pending future', future('a/b', { state: 'pending' }), 8, 'a/b is pending'],
    ['an expired value', future('a/b', { state: 'expired' }), 8, 'the value of a/b has expired'],
    [
      'a rejection',
      future('a/b', { state: 'rejected', rejection: { code: 'NO_DISK', message: 'the disk\nis full' } }),
      3,
      'a/b was rejected with NO_DISK: the disk is full',
    ],
  ])('%s is told by the exit code', async (_what, found, code, message) => {
    const outcome = await runCommand(['get', 'a/b'], { client: answering(found) });
    expect(outcome.code).toBe(code);
    expect(outcome.stdout).toBe('');
    expect(outcome.stderr).toContain(message);
  });

  test('--json prints the future, also where it has no value', async () => {
    const settled = await runCommand(['get', 'a/b', '--json'], {
      client: answering(future('a/b', { expiresAtMs: nowMs })),
    });
    expect(JSON.parse(settled.stdout)).toEqual({
      key: 'a/b',
      state: 'resolved',
      generation: 1,
      revision: 7,
      value: 'value of a/b',
      contentType: 'text/plain; charset=utf-8',
      sensitive: false,
      producer: 'agents:web1',
      changedAt: '2026-01-02T03:02:35.000Z',
      expiresAt: '2026-01-02T03:04:05.000Z',
    });
    const pending = await runCommand(['get', 'a/b', '--json'], {
      client: answering(future('a/b', { state: 'pending' })),
    });
    expect(JSON.parse(pending.stdout)).toMatchObject({ state: 'pending' });
    expect(pending.code).toBe(8);
  });

  test('--json gives what is no UTF-8 as base64', async () => {
    const outcome = await runCommand(['get', 'a/b', '--json'], {
      client: answering(future('a/b', { value: binary })),
    });
    const printed = JSON.parse(outcome.stdout) as Record<string, unknown>;
    expect(printed).not.toHaveProperty('value');
    expect(printed['valueBase64']).toBe(Buffer.from(binary).toString('base64'));
  });

  test('--timeout is passed on in milliseconds', async () => {
    const outcome = await runCommand(['get', 'a/b', '--timeout', '1500ms'], {
      client: answering(future('a/b')),
    });
    expect(outcome.calls[0]).toEqual(['get', 'a/b', { timeoutMs: 1500 }]);
  });
});

describe('await', () => {
  const awaiting = (...futures: Future[]) => ({ await: () => Promise.resolve({ futures }) });

  test('waits for ever unless told otherwise', async () => {
    const outcome = await runCommand(['await', 'a/b'], { client: awaiting(future('a/b')) });
    expect(outcome.calls[0]).toEqual(['await', { anyOf: [['a/b']] }, {}]);
    const limited = await runCommand(['await', 'a/b', '--timeout', '5m'], {
      client: awaiting(future('a/b')),
    });
    expect(limited.calls[0]).toEqual(['await', { anyOf: [['a/b']] }, { timeoutMs: 300_000 }]);
  });

  test('prints the bare bytes of the value of one key', async () => {
    const outcome = await runCommand(['await', 'a/b'], {
      client: awaiting(future('a/b', { value: binary })),
    });
    expect([...outcome.stdoutBytes]).toEqual([...binary]);
    expect(outcome.code).toBe(0);
  });

  test('several keys are all waited for, and printed as lines', async () => {
    const client = awaiting(
      future('a', { value: Buffer.from('1') }),
      future('b', { value: Buffer.from('2') }),
    );
    const outcome = await runCommand(['await', 'a', 'b', 'a'], { client });
    expect(outcome.calls[0]?.[1]).toEqual({ anyOf: [['a', 'b']] });
    expect(outcome.stdout).toBe('a\t1\nb\t2\n');
  });

  test('--any is content with one, and says which', async () => {
    const outcome = await runCommand(['await', 'a', 'b', '--any'], {
      client: awaiting(future('b', { value: Buffer.from('2') })),
    });
    expect(outcome.calls[0]?.[1]).toEqual({ anyOf: [['a'], ['b']] });
    expect(outcome.stdout).toBe('b\t2\n');
  });

  test('--json prints an object for one key and an array for several', async () => {
    const one = await runCommand(['await', 'a', '--json'], { client: awaiting(future('a')) });
    expect(JSON.parse(one.stdout)).toMatchObject({ key: 'a', value: 'value of a' });
    const two = await runCommand(['await', 'a', 'b', '--json'], {
      client: awaiting(future('a'), future('b')),
    });
    expect(JSON.parse(two.stdout)).toMatchObject([{ key: 'a' }, { key: 'b' }]);
  });

  test('--json tells of a rejection on standard output as well', async () => {
    const rejection = { code: 'NO_DISK', message: 'the disk is full' };
    const client = { await: () => Promise.reject(new FutureRejectedError('a', rejection, 2)) };
    const outcome = await runCommand(['await', 'a', '--json'], { client });
    expect(outcome.code).toBe(3);
    expect(JSON.parse(outcome.stdout)).toEqual({ key: 'a', state: 'rejected', generation: 2, rejection });
  });
});

describe('list', () => {
  const listing = (count: number, make: (index: number) => Future) => {
    const all = Array.from({ length: count }, (_, index) => make(index));
    return {
      list: (_pattern: string, options: { readonly after?: string; readonly limit?: number }) => {
        const start = options.after === '' ? 0 : all.findIndex(({ key }) => key === options.after) + 1;
        const futures = all.slice(start, start + Math.min(options.limit ?? 100, 3));
        const more = start + futures.length < all.length;
        return Promise.resolve({ futures, next: more ? futures.at(-1)?.key : undefined });
      },
    };
  };

  test('prints all pages', async () => {
    const outcome = await runCommand(['list', '**'], { client: listing(8, (index) => future(`k/${index}`)) });
    const lines = outcome.stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(9);
    expect(lines[0]).toMatch(/^KEY +STATE +GENERATION +REVISION +AGE +ENDS$/);
    expect(lines[8]).toMatch(/^k\/7 +resolved +1 +7 +1m +-$/);
    expect(outcome.calls.filter(([method]) => method === 'list')).toHaveLength(3);
  });

  test('--limit is the number of keys in all, over pages', async () => {
    const client = listing(8, (index) => future(`k/${index}`));
    const outcome = await runCommand(['list', '**', '--limit', '4', '--json'], { client });
    expect(JSON.parse(outcome.stdout)).toHaveLength(4);
    const asked = outcome.calls.filter(([method]) => method === 'list').map(([, , options]) => options);
    expect(asked).toMatchObject([
      { limit: 4, after: '' },
      { limit: 1, after: 'k/2' },
    ]);
  });

  test('nothing found is an empty array, or the headings alone', async () => {
    const client = listing(0, () => future('x'));
    expect((await runCommand(['list', '**', '--json'], { client })).stdout).toBe('[]\n');
    expect((await runCommand(['list', '**'], { client })).stdout.split('\n')).toHaveLength(2);
  });

  test('a sensitive value is never in a listing, even if a server sent it', async () => {
    const client = listing(1, () => future('k', { sensitive: true, value: Buffer.from('hunter2') }));
    const table = await runCommand(['list', '**', '--values'], { client });
    expect(table.stdout).toContain('(sensitive)');
    const json = await runCommand(['list', '**', '--values', '--json'], { client });
    expect(table.stdout + json.stdout).not.toContain('hunter2');
  });

  test('values are asked for only with --values, and shown in one safe line', async () => {
    const client = listing(1, () => future('k', { value: Buffer.from('a\nb\u001b[2J') }));
    expect((await runCommand(['list', '**'], { client })).calls[0]?.[2]).toMatchObject({ values: false });
    const outcome = await runCommand(['list', '**', '--values'], { client });
    expect(outcome.calls[0]?.[2]).toMatchObject({ values: true });
    expect(outcome.stdout).toContain('a\\nb\\u{1b}[2J\n');
  });

  test('says when a future ends', async () => {
    const ends = [
      future('a', { expiresAtMs: nowMs + 7_200_000 }),
      future('b', { state: 'pending', deadlineAtMs: nowMs + 5000 }),
      future('c', { state: 'expired', expiresAtMs: nowMs - 1 }),
      future('d', { expiresAtMs: nowMs - 1 }),
    ];
    const client = { list: () => Promise.resolve({ futures: ends, next: undefined }) };
    const lines = (await runCommand(['list', '**'], { client })).stdout.split('\n');
    expect(lines.slice(1, 5).map((line) => line.split(/ {2,}/).at(-1))).toEqual([
      'in 2h',
      'in 5s',
      'expired',
      'now',
    ]);
  });
});

describe('watch', () => {
  const watching = (events: readonly SubscriptionEvent[], end: 'hang' | Error = 'hang') => ({
    subscribe: async function* (_patterns: readonly string[], { signal }: { readonly signal: AbortSignal }) {
      yield* events;
      if (end !== 'hang') throw end;
      await new Promise<void>((_resolve, reject) => {
        const stop = () => reject(new FuturestoreError('CANCELLED', 'cancelled'));
        if (signal.aborted) stop();
        signal.addEventListener('abort', stop);
      });
    },
  });
  const events: SubscriptionEvent[] = [
    { kind: 'future', key: 'a', revision: 3, future: future('a', { revision: 3, value: Buffer.from('1') }) },
    {
      kind: 'future',
      key: 's',
      revision: 4,
      future: future('s', { revision: 4, sensitive: true, value: Buffer.from('hunter2') }),
    },
    { kind: 'caught_up' },
    { kind: 'deleted', key: 'a', revision: 5 },
    { kind: 'reset' },
  ];

  const untilInterrupted = (commandLine: readonly string[], lastText: string) => {
    const interruption = new AbortController();
    return runCommand(commandLine, {
      client: watching(events),
      interruption: interruption.signal,
      onOutput: (text) => {
        if (text.includes(lastText)) interruption.abort();
      },
    });
  };

  test('prints a line per change until it is interrupted, and ends with 0', async () => {
    const outcome = await untilInterrupted(['watch', '**'], 'reset');
    expect(outcome.stdout.split('\n').slice(0, 3)).toEqual([
      '3\ta\tresolved\t1',
      '4\ts\tresolved\t(sensitive)',
      '5\ta\tdeleted',
    ]);
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    expect(outcome.calls.map(([method]) => method)).toEqual(['subscribe', 'close']);
    expect(outcome.calls[0]?.[2]).toMatchObject({ from: 'present' });
  });

  test('--json prints an object per line', async () => {
    const outcome = await untilInterrupted(['watch', '**', '--json', '--from-now'], '"reset"');
    const lines = outcome.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.map(({ kind }) => kind)).toEqual(['future', 'future', 'caught_up', 'deleted', 'reset']);
    expect(outcome.stdout).not.toContain('hunter2');
    expect(outcome.calls[0]?.[2]).toMatchObject({ from: 'new' });
  });

  test('the end of a subscription is told with its reason', async () => {
    const client = watching([], new FuturestoreError('PERMISSION_DENIED', 'subscribe on ** is not allowed'));
    const outcome = await runCommand(['watch', '**'], { client });
    expect(outcome.code).toBe(5);
    expect(outcome.stderr).toContain('subscribe on ** is not allowed');
  });

  const reachable = { kind: 'connected' };
  const unreachable = {
    kind: 'waiting',
    lastError: new FuturestoreError('UNAVAILABLE', 'connect ECONNREFUSED'),
  };
  test.each([
    ['nothing is heard', reachable, 4, 'nothing was heard within 3s'],
    ['no server is reached', unreachable, 6, 'connect ECONNREFUSED'],
  ])('--timeout bounds the beginning: %s', async (_what, state, code, message) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const running = runCommand(['watch', '**', '--timeout', '3s'], { client: { ...watching([]), state } });
      await vi.waitFor(() => expect(vi.getTimerCount()).toBe(1));
      vi.advanceTimersByTime(3000);
      const outcome = await running;
      expect(outcome).toMatchObject({ code, stdout: '' });
      expect(outcome.stderr).toContain(message);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('status', () => {
  const member = (id: number, role: string) => ({
    id,
    name: `server-${id}`,
    role,
    term: 4,
    commitIndex: 90,
    appliedIndex: 88,
    keys: 12,
    connections: 3,
    agentsUrl: `wss://127.0.0.1:742${id}`,
    version: '0.1.0',
    heardMsAgo: id === 3 ? 65_000 : 10,
    lag: 2,
  });
  const status: ClusterStatus = {
    clusterId: '00112233445566778899aabbccddeeff',
    epoch: 1,
    revision: 42,
    serverId: 2,
    members: [member(1, 'leader'), member(2, 'follower'), member(3, 'unreachable')],
  };
  const client = { status: () => Promise.resolve(status) };

  test('prints a table of the members and who leads', async () => {
    const lines = (await runCommand(['status'], { client })).stdout.split('\n');
    expect(lines[0]).toBe(
      'cluster 00112233445566778899aabbccddeeff  revision 42  leader server-1  answered by server-2',
    );
    expect(lines[1]).toMatch(
      /^NAME +ROLE +TERM +COMMIT +APPLIED +LAG +KEYS +CONNECTIONS +HEARD +VERSION +AGENTS$/,
    );
    expect(lines[4]).toMatch(
      /^server-3 +unreachable +4 +90 +88 +2 +12 +3 +1m ago +0\.1\.0 +wss:\/\/127\.0\.0\.1:7423$/,
    );
  });

  test('--json prints it as it was answered', async () => {
    expect(JSON.parse((await runCommand(['status', '--json'], { client })).stdout)).toEqual(status);
  });

  test('of a member that was never heard it says so', async () => {
    const silent = { ...member(1, 'unreachable'), heardMsAgo: undefined };
    // An old version sends no number for itself.
    const answering = { ...member(2, 'follower'), heardMsAgo: undefined };
    const never: ClusterStatus = { ...status, members: [silent, answering] };
    const given = { client: { status: () => Promise.resolve(never) } };
    const lines = (await runCommand(['status'], given)).stdout.split('\n');
    expect(lines[2]).toMatch(/^server-1 +unreachable .* never +0\.1\.0/);
    expect(lines[3]).toMatch(/^server-2 +follower .* now +0\.1\.0/);
    const { members } = JSON.parse((await runCommand(['status', '--json'], given)).stdout) as ClusterStatus;
    expect(members[0]?.heardMsAgo).toBeNull();
  });
});

describe('the profile', () => {
  const client = answering(future('a'));

  test('is --profile, else the variable, else the one in .futurestore', async () => {
    const directory = temporaryDirectory();
    try {
      const file = (name: string): string => {
        writeFileSync(join(directory.path, name), '');
        return join(directory.path, name);
      };
      mkdirSync(join(directory.path, '.futurestore'));
      const [chosen, fromVariable, byDefault] = [
        file('chosen.yaml'),
        file('variable.yaml'),
        file('.futurestore/admin.yaml'),
      ];
      const options = { client, workingDirectory: directory.path };
      const variables = { FUTURESTORE_PROFILE: fromVariable };
      const all = [
        await runCommand(['get', 'a', '--profile', 'chosen.yaml'], { ...options, variables }),
        await runCommand(['get', 'a'], { ...options, variables }),
        await runCommand(['get', 'a'], { ...options, variables: {} }),
        await runCommand(['get', 'a'], { ...options, variables: { FUTURESTORE_PROFILE: '' } }),
      ];
      expect(all.flatMap(({ profiles }) => profiles)).toEqual([chosen, fromVariable, byDefault, byDefault]);
    } finally {
      directory.remove();
    }
  });

  test('that does not exist is a usage error that says where it was looked for', async () => {
    const named = await runCommand(['get', 'a', '--profile', 'nowhere.yaml'], { client });
    expect(named).toMatchObject({ code: 2, profiles: [] });
    expect(named.stderr).toMatch(/nowhere\.yaml that --profile names does not exist/);
    const none = await runCommand(['get', 'a'], { client, variables: {} });
    expect(none.code).toBe(2);
    expect(none.stderr).toMatch(/no profile: name one with --profile FILE or FUTURESTORE_PROFILE/);
  });
});

describe('the relay', () => {
  const get = { get: () => Promise.resolve(future('a')) };

  test('is used where the variable names its socket, and needs no profile then', async () => {
    const variables = { FUTURESTORE_SOCKET: 'relay.sock' };
    const outcome = await runCommand(['get', 'a'], { client: get, variables, workingDirectory: '/run/x' });
    expect(outcome).toMatchObject({ code: 0, relays: ['/run/x/relay.sock'], profiles: [] });
  });

  test('is used where the profile says so', async () => {
    const outcome = await runCommand(['get', 'a'], { client: get, relay: '/run/relay.sock' });
    expect(outcome).toMatchObject({ code: 0, relays: ['/run/relay.sock'], profiles: [] });
  });

  test('is not used where a profile is named that says nothing of it', async () => {
    const directory = temporaryDirectory();
    const profile = join(directory.path, 'p.yaml');
    writeFileSync(profile, '');
    const variables = { FUTURESTORE_SOCKET: '/run/relay.sock' };
    const outcome = await runCommand(['get', 'a', '--profile', profile], { client: get, variables });
    directory.remove();
    expect(outcome).toMatchObject({ code: 0, relays: [], profiles: [profile] });
  });
});
