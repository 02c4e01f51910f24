#!/usr/bin/env node
/** The process: what the command line gets from Node. */
import process from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';
import type { CommandEnvironment } from './environment.ts';
import { run } from './program.ts';

/**
 * A key press reaches a whole group of processes, and npm passes on what it gets: what comes so soon after the first
 * is the same wish, said twice.
 */
const sameWishMs = 500;

let hangupListener: (() => void) | undefined;

const interruption = (): AbortSignal => {
  const controller = new AbortController();
  let firstAtMs: number | undefined;
  const onSignal = (): void => {
    if (firstAtMs === undefined) {
      firstAtMs = performance.now();
      controller.abort();
    } else if (performance.now() - firstAtMs > sameWishMs) {
      process.exit(1);
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, onSignal);
  process.on('SIGHUP', () => {
    if (hangupListener === undefined) onSignal();
    else hangupListener();
  });
  // Started by another process of ours (dev): when that one is gone, nobody else would stop this one.
  process.on('disconnect', () => controller.abort());
  return controller.signal;
};

const environment: CommandEnvironment = {
  stdout: process.stdout,
  stderr: process.stderr,
  stdin: process.stdin,
  variables: process.env,
  workingDirectory: process.cwd(),
  now: () => Date.now(),
  pause: (ms) => pause(ms),
  connect: async (profileFile, tokenFile) => {
    const { connectWithProfile } = await import('../client/index.ts');
    return connectWithProfile(profileFile, { name: 'futurestore', ...(tokenFile && { tokenFile }) });
  },
  onHangup: (listener) => {
    hangupListener = listener;
  },
  interruption,
};

// Whoever reads (head, less) may stop before the end: not an error, and nobody is left to be told.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

/** What is still open by then has nothing to say: the command is done. */
const lingerMs = 1000;

process.exitCode = await run(process.argv.slice(2), environment);
if (process.connected) process.disconnect();
setTimeout(() => process.exit(), lingerMs).unref();
