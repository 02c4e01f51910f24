/** One relay process: its start, its readiness for systemd, and its end. */
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import process from 'node:process';
import { pino } from 'pino';
import type { Logger } from 'pino';
import { connectWithProfile } from '../client/index.ts';
import type { ClientLogger } from '../client/index.ts';
import { startRelay } from '../relay/index.ts';
import { futureAsJson } from './output.ts';
import { packageVersion } from './package-version.ts';

export interface ServeRelayOptions {
  readonly profile: string;
  readonly socket: string;
  readonly readOnlySocket?: string;
  readonly group?: string;
  readonly stateDirectory: string;
  readonly sessionGraceMs: number;
  readonly logLevel: string;
  /** What systemd gave: absent or '': it does not wait to be told. */
  readonly notifySocket: string | undefined;
}

/** No value reaches a log, whatever a room hands to its logger. */
const redactedFields = ['value', '*.value', '*.*.value', '*.*.*.value'];

const createLogger = (level: string): Logger =>
  pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: redactedFields, censor: '(redacted)' },
  });

/** Node has no datagrams over Unix sockets; systemd's own command has, and NotifyAccess=all lets it speak for us. */
const notifySystemd = (text: string, logger: Logger): void => {
  const child = spawn('systemd-notify', [text], { stdio: 'ignore' });
  child.once('error', (error) => {
    logger.warn({ err: error }, 'systemd cannot be told: systemd-notify cannot be run');
  });
  child.unref();
};

/** A machine may be offline for days: that it still is need not be said at each try. */
const sameNewsMs = 60_000;

const clientLogger = (logger: Logger): ClientLogger => {
  let saidAtMs = -Infinity;
  return {
    debug: (details, message) => logger.debug(details, message),
    info: (details, message) => {
      saidAtMs = -Infinity;
      logger.info(details, message);
    },
    warn: (details, message) => {
      const nowMs = performance.now();
      if (nowMs - saidAtMs < sameNewsMs) {
        logger.debug(details, message);
        return;
      }
      saidAtMs = nowMs;
      logger.warn(details, message);
    },
  };
};

const whenAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve());
  });

/** Rejects when it cannot start; what it cannot survive later ends the process with code 1. */
export const serveRelay = async (options: ServeRelayOptions, interruption: AbortSignal): Promise<void> => {
  const logger = createLogger(options.logLevel);
  const onFatal = (error: unknown): void => {
    logger.fatal({ err: error }, 'the relay cannot go on and ends: what was accepted is on disk');
    process.exit(1);
  };
  process.on('uncaughtException', onFatal);
  process.on('unhandledRejection', onFatal);
  // Before the mask: those who may connect must get there.
  mkdirSync(dirname(options.socket), { recursive: true, mode: 0o755 });
  // LevelDB makes its files with what the mask leaves: queued values may be sensitive.
  process.umask(0o077);
  const clientLog = clientLogger(logger);
  const relay = await startRelay({
    ...options,
    makeClient: (clientOptions) =>
      connectWithProfile(options.profile, { ...clientOptions, name: 'futurestore-relay', logger: clientLog }),
    formatFuture: futureAsJson,
    version: packageVersion(),
    logger,
    onFatal,
  });
  const { socket, readOnlySocket, stateDirectory } = options;
  logger.info({ version: packageVersion(), socket, readOnlySocket, state: stateDirectory }, 'listening');
  const notifies = options.notifySocket !== undefined && options.notifySocket !== '';
  if (notifies) notifySystemd('--ready', logger);
  await whenAborted(interruption);
  logger.info('stopping');
  if (notifies) notifySystemd('STOPPING=1', logger);
  await relay.close();
  logger.info('stopped');
};
