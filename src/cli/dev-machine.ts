/** What `dev` does to this machine: processes, ports, time. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { extname } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import type { HostAndPort } from './configuration/scalars.ts';
import { serverMemory } from './server-memory.ts';

export interface ServerProcess {
  readonly pid: number;
  /** Says how it ended: 'exit code 1' or 'signal SIGKILL'. */
  readonly ended: Promise<string>;
  signal(name: 'SIGTERM' | 'SIGKILL'): void;
}

export interface Machine {
  /** Runs `futurestore server` with its output appended to the log file. */
  launch(configurationFile: string, logFile: string): ServerProcess;
  /** Nobody listens there. */
  isFree(address: HostAndPort): Promise<boolean>;
  /** Resolves after so long, or when the signal is aborted. */
  pause(ms: number, signal: AbortSignal): Promise<void>;
  /** The last line of a file that is not empty; undefined: there is none. */
  lastLine(file: string): string | undefined;
}

const launch = (configurationFile: string, logFile: string): ServerProcess => {
  // The built program starts the built program; run from its source, it starts its source in the same way.
  const script = fileURLToPath(new URL(`./futurestore${extname(import.meta.url)}`, import.meta.url));
  const log = openSync(logFile, 'a', 0o600);
  const child = spawn(
    process.execPath,
    [...process.execArgv, script, 'server', '--config', configurationFile],
    {
      // The channel is how a server learns that this process is gone.
      stdio: ['ignore', log, log, 'ipc'],
      env: { ...serverMemory, ...process.env },
      // In a group of its own: a key press is for this process, which then stops the servers in order.
      detached: true,
    },
  );
  closeSync(log);
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) =>
      resolve(signal === null ? `exit code ${code ?? 'unknown'}` : `signal ${signal}`),
    );
  });
  return { pid: child.pid ?? 0, ended, signal: (name) => void child.kill(name) };
};

const isFree = ({ host, port }: HostAndPort): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve(true)));
  });

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });

const lastLine = (file: string): string | undefined =>
  readFileSync(file, 'utf8')
    .split('\n')
    .findLast((line) => line.trim() !== '');

export const thisMachine: Machine = { launch, isFree, pause, lastLine };
