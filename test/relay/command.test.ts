import { Readable } from 'node:stream';
import { join } from 'node:path';
import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { RelayClient } from '../../src/cli/relay-client.ts';
import { run } from '../../src/cli/index.ts';
import type { CommandEnvironment } from '../../src/cli/index.ts';
import { relayOfProfile } from '../../src/client/index.ts';
import { Site, eventually } from './support/site.ts';
import type { RunningRelay } from './support/site.ts';

let site: Site;
let relay: RunningRelay;

beforeEach(async () => {
  site = await Site.start();
  relay = await site.relay();
  await relay.connected();
});
afterEach(() => site.close());

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

type Way = 'relay' | 'direct';

const command = async (
  way: Way,
  args: readonly string[],
  more: {
    readonly input?: string;
    readonly interruption?: AbortSignal;
    readonly onOutput?: (text: string) => void;
  } = {},
): Promise<Ran> => {
  const profile = join(site.directory, 'profile.yaml');
  writeFileSync(profile, way === 'relay' ? 'relay: relay.sock\n' : '{}');
  let stdout = '';
  let stderr = '';
  const environment: CommandEnvironment = {
    stdout: {
      write: (data) => {
        stdout += Buffer.from(data).toString();
        more.onOutput?.(stdout);
      },
    },
    stderr: { write: (data) => (stderr += String(data)) },
    stdin: Readable.from(more.input === undefined ? [] : [Buffer.from(more.input)]),
    variables: { FUTURESTORE_PROFILE: profile },
    workingDirectory: site.directory,
    now: () => Date.now(),
    pause: () => Promise.resolve(),
    connect: () => Promise.resolve(site.connect()),
    relayOf: (file) => Promise.resolve(relayOfProfile(file)),
    connectToRelay: (socket) => Promise.resolve(new RelayClient(socket)),
    interruption: () => more.interruption ?? new AbortController().signal,
  };
  const code = await run(args, environment);
  return { code, stdout, stderr };
};

/** What differs from one time to the next. */
const comparable = ({ code, stdout, stderr }: Ran): Ran => ({
  code,
  stdout: stdout.replace(/"(changed|expires|deadline)At":"[^"]*"/g, '"$1At":…').replace(/ +\d+s /g, ' 0s '),
  stderr,
});

/** The same commands on each way, each with keys of its own. */
const both = async (script: (key: string) => readonly (readonly string[])[]): Promise<void> => {
  const ran: Record<Way, Ran[]> = { relay: [], direct: [] };
  for (const way of ['direct', 'relay'] as const) {
    const key = 'nodes/k';
    for (const args of script(key)) ran[way].push(comparable(await command(way, args)));
    // As if nothing had happened, but for the revisions and generations.
    await site.close();
    site = await Site.start();
    relay = await site.relay();
    await relay.connected();
  }
  expect(ran.relay).toEqual(ran.direct);
  expect(ran.relay.length).toBeGreaterThan(0);
};

describe('a command through the relay says what it says without it, with the same exit code', () => {
  test('where all is well', async () => {
    await both((key) => [
      ['declare', key, '--deadline', '1h'],
      ['resolve', key, 'one', '--ttl', '1h'],
      ['resolve', key, 'one', '--json'],
      ['get', key],
      ['get', key, '--json'],
      ['await', key],
      ['await', key, '--json'],
      ['resolve', 'nodes/l', 'two'],
      ['await', key, 'nodes/l'],
      ['await', '--any', key, 'nodes/never', '--json'],
      ['touch', key, '--ttl', '2h', '--json'],
      ['reject', 'nodes/m', '--code', 'NO_CA', '--message', 'none', '--json'],
      ['touch', 'nodes/m', '--ttl', '2h', '--json'],
      ['list', 'nodes/**', '--values'],
      ['list', 'nodes/**', '--json', '--limit', '2'],
      ['delete', 'nodes/m'],
      ['delete', 'nodes/l', '--json'],
    ]);
  });

  test('where it is not', async () => {
    await both((key) => [
      ['get', key],
      ['get', 'other/a'],
      ['get', 'no//key'],
      ['await', key, '--timeout', '20ms'],
      ['reject', key, '--code', 'NO_CA', '--message', 'none'],
      ['get', key],
      ['await', key],
      ['await', key, '--json'],
      ['resolve', key, 'one'],
      ['resolve', key, 'two'],
      ['resolve', key, 'two', '--if-revision', '77'],
      ['touch', 'nodes/none', '--ttl', '1s'],
      ['delete', 'nodes/none'],
      ['list', '**'],
      ['watch', '**'],
    ]);
  });
});

describe('through the relay', () => {
  test('a value is what standard input has, byte for byte', async () => {
    const input = 'ä\u0000\n\r\n';
    expect(await command('relay', ['resolve', 'nodes/a', '-'], { input })).toMatchObject({ code: 0 });
    expect(await command('relay', ['get', 'nodes/a'])).toMatchObject({ stdout: input });
  });

  test('status shows the servers', async () => {
    const { code, stdout } = await command('relay', ['status']);
    expect(code).toBe(0);
    expect(stdout).toContain('leader server-1');
    const [json] = (await command('relay', ['status', '--json'])).stdout.split('\n');
    const [direct] = (await command('direct', ['status', '--json'])).stdout.split('\n');
    expect(Object.keys(JSON.parse(json ?? '') as object)).toEqual(
      Object.keys(JSON.parse(direct ?? '') as object),
    );
  });

  test('a watch goes on until it is interrupted', async () => {
    await command('relay', ['resolve', 'nodes/a', 'one']);
    const interruption = new AbortController();
    const watched = command('relay', ['watch', 'nodes/**'], {
      interruption: interruption.signal,
      onOutput: (text) => {
        if (text.includes('nodes/b')) interruption.abort();
      },
    });
    await eventually('it watches', () => site.server.status().subscriptions === 1);
    await command('relay', ['resolve', 'nodes/b', 'two']);
    expect(await watched).toEqual({
      code: 0,
      stdout: '1\tnodes/a\tresolved\tone\n2\tnodes/b\tresolved\ttwo\n',
      stderr: '',
    });
  });

  test('an await that is given up is given up at the servers', async () => {
    expect((await command('relay', ['await', 'nodes/a', '--timeout', '10ms'])).code).toBe(4);
    await eventually('nobody waits', () => site.server.status().waits === 0);
  });

  test('while no server can be reached, values come from the cache, and writes say that they are queued', async () => {
    await command('relay', ['resolve', 'nodes/a', 'one']);
    await command('relay', ['get', 'nodes/a']);
    await site.away();
    await relay.connected(false);
    expect(await command('relay', ['get', 'nodes/a'])).toMatchObject({ code: 0, stdout: 'one' });
    expect((await command('relay', ['get', 'nodes/b', '--timeout', '20ms'])).code).toBe(6);
    const queued = await command('relay', ['resolve', 'nodes/b', 'two', '--timeout', '20ms']);
    expect(queued.code).toBe(4);
    expect(queued.stderr).toMatch(/queued as 2 and will still be sent/);
    expect((await command('relay', ['watch', 'nodes/**', '--timeout', '20ms'])).code).toBe(6);
  });

  test('a relay that is not there is told with what to do', async () => {
    await relay.close();
    const { code, stderr } = await command('relay', ['get', 'nodes/a']);
    expect(code).toBe(6);
    expect(stderr).toMatch(/relay\.sock cannot be reached \(ENOENT\)/);
  });
});
