/** Which profile a client command uses. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CommandEnvironment } from './environment.ts';
import { UsageError } from './exit-codes.ts';

/** Where `init` and `dev` put a cluster unless told otherwise. */
export const defaultDirectory = '.futurestore';
export const profileVariable = 'FUTURESTORE_PROFILE';
/** The socket of the relay on this machine, through which the verbs go. */
export const socketVariable = 'FUTURESTORE_SOCKET';

/**
 * `--profile`, else the variable, else the administrator's of the cluster in the working directory, or in that which
 * the command is about (`administrators`).
 */
export const locateProfile = (
  chosen: string | undefined,
  environment: Pick<CommandEnvironment, 'variables' | 'workingDirectory'>,
  administrators = join(environment.workingDirectory, defaultDirectory, 'admin.yaml'),
): string => {
  const fromVariable = environment.variables[profileVariable];
  const named = chosen ?? (fromVariable === '' ? undefined : fromVariable);
  if (named !== undefined) {
    const file = resolve(environment.workingDirectory, named);
    if (existsSync(file)) return file;
    const by = chosen === undefined ? profileVariable : '--profile';
    throw new UsageError(
      `the profile ${file} that ${by} names does not exist: give the path of a profile that init or cert made`,
    );
  }
  if (existsSync(administrators)) return administrators;
  throw new UsageError(
    `no profile: name one with --profile FILE or ${profileVariable}, or start a cluster here with futurestore dev (there is no ${administrators})`,
  );
};
