/** relay: where it is, where its things are, what it says of itself. What it needs is heavy: it is loaded when it runs. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import process from 'node:process';
import type { Command } from 'commander';
import { durationOption } from './command-options.ts';
import type { CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';
import { locateProfile, profileVariable, socketVariable } from './profile-location.ts';

interface RelayCommandOptions {
  readonly profile?: string;
  readonly socket?: string;
  readonly readOnlySocket?: string;
  readonly group?: string;
  readonly state?: string;
  readonly sessionGrace: string;
  readonly logLevel: string;
}

const logLevels = ['trace', 'debug', 'info', 'warn', 'error'];

const help = `
What it is for:
  One relay runs on each machine. It holds the machine's one connection to the servers; programs there ask it through
  a Unix socket, with HTTP and JSON: curl --unix-socket SOCKET http://relay/v1/status. The command itself goes through
  it where ${socketVariable} is set, or the profile has "relay: SOCKET". GET /v1/openapi.yaml describes all of it,
  GET /metrics is for Prometheus.

Who may use it:
  Whoever may open the socket (mode 0660, see --group), with all the rights of the profile at the servers. The
  read-only socket answers get, await, available, list, watch, prefetch, status and metrics only.

While no server can be reached:
  Fresh values that were seen before are given from the cache. Writes are kept, synced, and sent in their order, each
  once, when a server is back: "wait":"queued" is answered at once, "wait":"committed" waits.

Files:
  --state holds queued writes, sensitive values among them (files of mode 0600 in a directory of mode 0700), and cached
  values that are not sensitive. Its default is $STATE_DIRECTORY, else /var/lib/futurestore-relay for root, else
  $XDG_STATE_HOME/futurestore-relay or ~/.local/state/futurestore-relay. The socket's default is relay.sock in
  $RUNTIME_DIRECTORY, else /run/futurestore-relay for root, else $XDG_RUNTIME_DIR/futurestore-relay.

Signals:
  SIGTERM and SIGINT stop it: queued writes stay, and its session with the servers goes on for --session-grace, so that
  futures declared through it survive a restart of it. Under systemd (Type=notify) it says when it is ready.`;

/** The directory that systemd gave, else the system's for root, else the user's own. */
const defaultDirectory = (
  { variables }: Pick<CommandEnvironment, 'variables'>,
  names: { readonly systemd: string; readonly system: string; readonly user: string; readonly home?: string },
): string => {
  const given = variables[names.systemd]?.split(':')[0];
  if (given !== undefined && given !== '') return given;
  if (process.getuid?.() === 0) return join(names.system, 'futurestore-relay');
  const own = variables[names.user];
  if (own !== undefined && own !== '') return join(own, 'futurestore-relay');
  if (names.home !== undefined) return join(homedir(), names.home, 'futurestore-relay');
  throw new UsageError('there is no place for the socket by default: name one with --socket PATH');
};

const runRelay = async (environment: CommandEnvironment, options: RelayCommandOptions): Promise<void> => {
  if (!logLevels.includes(options.logLevel))
    throw new UsageError(
      `--log-level ${JSON.stringify(options.logLevel)} is none of ${logLevels.join(', ')}`,
    );
  const absolute = (path: string): string => resolve(environment.workingDirectory, path);
  const runtime = { systemd: 'RUNTIME_DIRECTORY', system: '/run', user: 'XDG_RUNTIME_DIR' };
  const kept = {
    systemd: 'STATE_DIRECTORY',
    system: '/var/lib',
    user: 'XDG_STATE_HOME',
    home: '.local/state',
  };
  const socket = options.socket ?? join(defaultDirectory(environment, runtime), 'relay.sock');
  const sessionGraceMs = await durationOption('--session-grace', options.sessionGrace);
  const { serveRelay } = await import('./serve-relay.ts');
  await serveRelay(
    {
      profile: locateProfile(options.profile, environment),
      socket: absolute(socket),
      ...(options.readOnlySocket !== undefined && { readOnlySocket: absolute(options.readOnlySocket) }),
      ...(options.group !== undefined && { group: options.group }),
      stateDirectory: absolute(options.state ?? defaultDirectory(environment, kept)),
      sessionGraceMs,
      logLevel: options.logLevel,
      notifySocket: environment.variables['NOTIFY_SOCKET'],
    },
    environment.interruption(),
  );
};

export const addRelayCommand = (program: Command, environment: CommandEnvironment): void => {
  program
    .command('relay')
    .description("serve this machine's programs over a Unix socket, with one connection to the servers")
    .option(
      '--profile <file>',
      `who it is at the servers (default: $${profileVariable}, else .futurestore/admin.yaml)`,
    )
    .option('--socket <path>', 'where programs connect (default: see below)')
    .option('--read-only-socket <path>', 'a second one that changes nothing (default: none)')
    .option('--group <name>', "whose members may connect (default: this process's group)")
    .option('--state <dir>', 'where queued writes and cached values are kept (default: see below)')
    .option(
      '--session-grace <duration>',
      'how long futures tied to it survive without it, and writes in flight are known: 1s to 24h',
      '10m',
    )
    .option('--log-level <level>', logLevels.join(', '), 'info')
    .addHelpText('after', help)
    .action((options: RelayCommandOptions) => runRelay(environment, options));
};
