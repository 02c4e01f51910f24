/** What the client's commands share: their options, the reading of these, and the life of their connection. */
import type { Command } from 'commander';
import type { CommandClient, CommandEnvironment } from './environment.ts';
import type { ErrorCode } from '../protocol/index.ts';
import { UsageError } from './exit-codes.ts';
import { locateProfile, profileVariable } from './profile-location.ts';

export interface ClientOptions {
  readonly profile?: string;
  readonly tokenFile?: string;
  readonly timeout?: string;
  readonly json?: true;
}

/** How long a verb may take unless told otherwise: long enough for an election and a reconnect. */
export const defaultTimeout = '30s';

export const timeoutHelp = {
  bounded: `how long it may take, such as 500ms, 30s or 5m (default: ${defaultTimeout})`,
  endless: 'how long to wait, such as 500ms, 30s or 5m (default: for ever)',
  start: `how long it may take to begin (default: ${defaultTimeout})`,
  part: `how long each part of about 256 KiB may take (default: ${defaultTimeout})`,
} as const;

/** A command that talks to the cluster, with the options that all of these have. */
export const clientCommand = (
  program: Command,
  name: string,
  timeout: keyof typeof timeoutHelp = 'bounded',
): Command =>
  program
    .command(name)
    .option(
      '--profile <file>',
      `the client's profile (default: $${profileVariable}, else .futurestore/admin.yaml)`,
    )
    .option('--token-file <file>', "a file with a token (JWT), in place of the profile's own")
    .option('--timeout <duration>', timeoutHelp[timeout])
    .option('--json', 'print JSON');

/** Milliseconds. The parser is loaded only when there is something to parse: `--help` has no need of it. */
export const durationOption = async (name: string, text: string): Promise<number> => {
  const { parseDuration } = await import('../protocol/index.ts');
  const parsed = parseDuration(text);
  if (parsed !== undefined && parsed > 0) return parsed;
  throw new UsageError(
    `${name} ${JSON.stringify(text)} is no duration: write a whole number above 0 with its unit, such as 500ms, 30s, 5m or 24h`,
  );
};

/** The option as an object to spread: nothing if it was not given. */
export const optionalDuration = async <const Name extends string>(
  property: Name,
  name: string,
  text: string | undefined,
): Promise<{ readonly [key in Name]?: number }> => {
  if (text === undefined) return {};
  const result: { [key in Name]?: number } = {};
  result[property] = await durationOption(name, text);
  return result;
};

export const timeoutOf = (options: ClientOptions): Promise<number> =>
  durationOption('--timeout', options.timeout ?? defaultTimeout);

export const wholeNumber = (
  name: string,
  text: string,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number => {
  const parsed = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (parsed >= least && parsed <= most) return parsed;
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  throw new UsageError(`${name} ${JSON.stringify(text)} is no whole number ${range}`);
};

/** Connects, and closes whatever happens. `administrators`: see `locateProfile`. */
export const withClient = async (
  environment: CommandEnvironment,
  options: ClientOptions,
  use: (client: CommandClient) => Promise<void>,
  administrators?: string,
): Promise<void> => {
  const profile = locateProfile(options.profile, environment, administrators);
  const client = await environment.connect(profile, options.tokenFile);
  try {
    await use(client);
  } finally {
    await client.close();
  }
};

export const writeJson = (environment: CommandEnvironment, data: unknown): void => {
  environment.stdout.write(`${JSON.stringify(data)}\n`);
};

/** An error of the registry, made here: loaded only when it is needed. */
export const failure = async (code: ErrorCode, message: string): Promise<Error> => {
  const { FuturestoreError } = await import('../protocol/index.ts');
  return new FuturestoreError(code, message);
};
