/** The command line: its commands, and how whatever happens becomes an exit code and at most one line of error. */
import { Command, CommanderError } from 'commander';
import { addAclCommands } from './acl-commands.ts';
import { addClusterCommands } from './cluster-commands.ts';
import { addDrainCommands } from './drain-commands.ts';
import type { CommandEnvironment } from './environment.ts';
import type { ExitCode } from './exit-codes.ts';
import { describeError, exitCodes, UsageError } from './exit-codes.ts';
import { addMemberCommands } from './member-commands.ts';
import { addReadCommands } from './read-commands.ts';
import { packageVersion } from './package-version.ts';
import { addRelayCommand } from './relay-command.ts';
import { addSnapshotCommands } from './snapshot-commands.ts';
import { addWriteCommands } from './write-commands.ts';

const exitCodeHelp = `
Exit codes: 0 done, 2 usage or configuration, 3 the future was rejected, 4 timed out, 5 not permitted,
6 cluster unavailable, 7 conflict or change of members refused, 8 no such key or no value yet,
9 data that must not be used, 1 anything else.`;

const ancestors = (command: Command): Command[] =>
  command.parent === null ? [] : [...ancestors(command.parent), command.parent];

const withSubcommands = (command: Command): Command[] => [
  command,
  ...command.commands.flatMap((subcommand) => withSubcommands(subcommand)),
];

/** Help and version end a command as if it had failed; only what is left is a usage error. */
const asUsageError = (error: CommanderError, command: Command): Error => {
  if (error.exitCode === 0) return error;
  const path = [...ancestors(command), command].map((one) => one.name()).join(' ');
  // Without a subcommand the help was the answer; there is no message of its own.
  const message =
    error.code === 'commander.help' ? 'no command was given' : error.message.replace(/^error: /, '');
  return new UsageError(`${message} (see ${path} --help)`);
};

const build = (environment: CommandEnvironment): Command => {
  const program = new Command('futurestore');
  program
    .description('A replicated store of futures: keys that will get a value.')
    .version(packageVersion(), '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .configureOutput({
      writeOut: (text) => environment.stdout.write(text),
      writeErr: (text) => environment.stderr.write(text),
      // Errors are printed once, by `run`.
      outputError: () => undefined,
    })
    .addHelpText('after', exitCodeHelp);
  program.exitOverride();
  addClusterCommands(program, environment);
  addMemberCommands(program, environment);
  addDrainCommands(program, environment);
  addSnapshotCommands(program, environment);
  addRelayCommand(program, environment);
  addAclCommands(program, environment);
  addReadCommands(program, environment);
  addWriteCommands(program, environment);
  for (const command of withSubcommands(program)) {
    command.exitOverride((error) => {
      throw asUsageError(error, command);
    });
  }
  return program;
};

/** Runs one command line (without node and script) and gives the exit code. Never rejects. */
export const run = async (
  commandLine: readonly string[],
  environment: CommandEnvironment,
): Promise<ExitCode> => {
  let isClient = false;
  try {
    const program = build(environment).hook('preAction', (_, command) => {
      isClient = command.options.some(({ long }) => long === '--profile');
    });
    await program.parseAsync([...commandLine], { from: 'user' });
    return exitCodes.done;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return exitCodes.done;
    const { line, exit } = describeError(error, isClient);
    environment.stderr.write(`futurestore: ${line}\n`);
    return exit;
  }
};
