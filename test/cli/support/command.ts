/** Runs the command in this process, with a client of the test's. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CommandClient, CommandEnvironment } from '../../../src/cli/index.ts';
import { run } from '../../../src/cli/index.ts';
import type { Future } from '../../../src/protocol/index.ts';

export const nowMs = Date.UTC(2026, 0, 2, 3, 4, 5);

export const future = (key: string, rest: Partial<Future> = {}): Future => ({
  key,
  generation: 1,
  state: 'resolved',
  revision: 7,
  ...(rest.state === undefined || rest.state === 'resolved' ? { value: Buffer.from(`value of ${key}`) } : {}),
  contentType: 'text/plain; charset=utf-8',
  sensitive: false,
  producer: 'agents:web1',
  changedAtMs: nowMs - 90_000,
  ...rest,
});

type Call = readonly [method: string, ...parameters: readonly unknown[]];

const unexpected = (method: string) => (): never => {
  throw new Error(`the test did not expect ${method}`);
};

/** What is not given must not be called. */
export const fakeClient = (given: Partial<CommandClient>): { client: CommandClient; calls: Call[] } => {
  const calls: Call[] = [];
  const { state = { kind: 'connected' }, ...methods } = given;
  const all: Omit<CommandClient, 'state'> = {
    get: unexpected('get'),
    list: unexpected('list'),
    await: unexpected('await'),
    batch: unexpected('batch'),
    subscribe: unexpected('subscribe'),
    status: unexpected('status'),
    members: unexpected('members'),
    addMember: unexpected('addMember'),
    promoteMember: unexpected('promoteMember'),
    removeMember: unexpected('removeMember'),
    transferLeader: unexpected('transferLeader'),
    drainServer: unexpected('drainServer'),
    rebalance: unexpected('rebalance'),
    access: unexpected('access'),
    applyPolicies: unexpected('applyPolicies'),
    revoke: unexpected('revoke'),
    restore: unexpected('restore'),
    readSnapshot: unexpected('readSnapshot'),
    close: () => Promise.resolve(),
    ...methods,
  };
  const recorded = Object.entries(all).map(([name, method]) => {
    const call = method as (...parameters: unknown[]) => unknown;
    const record = (...parameters: unknown[]): unknown => {
      calls.push([name, ...parameters]);
      return call(...parameters);
    };
    return [name, record] as const;
  });
  return { client: { state, ...(Object.fromEntries(recorded) as unknown as typeof all) }, calls };
};

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stdoutBytes: Buffer;
  readonly stderr: string;
  readonly calls: readonly Call[];
  /** The profiles with which a connection was made. */
  readonly profiles: readonly string[];
  /** The sockets of relays that were used. */
  readonly relays: readonly string[];
}

export interface RunOptions {
  readonly client?: Partial<CommandClient>;
  /** What the profile says of one. */
  readonly relay?: string;
  readonly input?: readonly Uint8Array[];
  readonly isTTY?: boolean;
  readonly variables?: Record<string, string>;
  readonly workingDirectory?: string;
  readonly interruption?: AbortSignal;
  /** Called with everything written to standard output so far. */
  readonly onOutput?: (text: string) => void;
}

export const temporaryDirectory = (): { readonly path: string; remove(): void } => {
  const path = mkdtempSync(join(tmpdir(), 'futurestore-cli-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
};

/** With a profile that exists: its content is the client's business, which is the test's. */
export const runCommand = async (
  commandLine: readonly string[],
  options: RunOptions = {},
): Promise<Outcome> => {
  const directory = temporaryDirectory();
  const profile = join(directory.path, 'profile.yaml');
  writeFileSync(profile, '');
  const written: Buffer[] = [];
  let stderr = '';
  const profiles: string[] = [];
  const relays: string[] = [];
  let pausedMs = 0;
  const { client, calls } = fakeClient(options.client ?? {});
  const environment: CommandEnvironment = {
    stdout: {
      isTTY: options.isTTY === true,
      write: (data) => {
        written.push(Buffer.from(data));
        options.onOutput?.(Buffer.concat(written).toString());
      },
    },
    stderr: { write: (data) => (stderr += String(data)) },
    stdin: (async function* () {
      yield* options.input ?? [];
    })(),
    variables: options.variables ?? { FUTURESTORE_PROFILE: profile },
    workingDirectory: options.workingDirectory ?? directory.path,
    now: () => nowMs + pausedMs,
    // Takes no time but the command's own.
    pause: (ms) => {
      pausedMs += ms;
      return Promise.resolve();
    },
    connect: (file) => {
      profiles.push(file);
      return Promise.resolve(client);
    },
    onHangup: () => undefined,
    relayOf: () => Promise.resolve(options.relay),
    connectToRelay: (socket) => {
      relays.push(socket);
      return Promise.resolve(client);
    },
    interruption: () => options.interruption ?? new AbortController().signal,
  };
  try {
    const code = await run(commandLine, environment);
    const stdoutBytes = Buffer.concat(written);
    return { code, stdout: stdoutBytes.toString(), stdoutBytes, stderr, calls, profiles, relays };
  } finally {
    directory.remove();
  }
};
