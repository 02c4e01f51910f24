/** A server's log: one for the process, and the same for each of its threads. */
import { pino } from 'pino';
import type { Logger } from 'pino';
import type { ServerConfiguration } from './configuration/server-configuration.ts';

/** No value and no key reaches a log, whatever a room hands to its logger. */
const redactedFields = [
  'value',
  '*.value',
  '*.*.value',
  'valueBase64',
  '*.valueBase64',
  'privateKey',
  '*.privateKey',
  'pem',
  '*.pem',
  'token',
  '*.token',
];

export interface LogOptions {
  readonly level: ServerConfiguration['logLevel'];
  /** The server's name. */
  readonly server: string;
}

/** Lines are written at once and whole, so that threads can share the process's output. */
export const createLogger = ({ level, server }: LogOptions): Logger =>
  pino({
    level,
    base: { server },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: redactedFields, censor: '(redacted)' },
  });
