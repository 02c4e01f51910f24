/** The results of commands that many have in common. */
import type { ErrorCode } from '../protocol/index.ts';
import type { CommandResult } from './types.ts';

export const done: CommandResult = { kind: 'done' };

export const failed = (code: ErrorCode, message: string): CommandResult => ({
  kind: 'failed',
  failure: { code, message },
});
