/** Programs of other makers: whether they are here, their processes, their ports. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';

/** The first line that matches of what the program prints; undefined: it is not installed. */
export const versionOf = (program: string, args: readonly string[], pattern: RegExp): string | undefined => {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return status === null ? undefined : pattern.exec(`${stdout}${stderr}`)?.[1];
};

export const startProgram = (program: string, args: readonly string[], logFile: string): ChildProcess => {
  const log = openSync(logFile, 'a');
  const child = spawn(program, args, { stdio: ['ignore', log, log] });
  closeSync(log);
  return child;
};

export const endProgram = async (child: ChildProcess, signal: NodeJS.Signals): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await ended;
};

export const pidOf = (child: ChildProcess): number => {
  if (child.pid === undefined) throw new Error('the program could not be started');
  return child.pid;
};
